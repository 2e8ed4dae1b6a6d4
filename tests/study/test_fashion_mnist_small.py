import os

import numpy as np
import pytest

from vitlib.data.fashion_mnist import DEBIAN
from vitlib.data.shipped import shipped
from vitlib.study import fashion_mnist_small


@pytest.mark.skipif(
    not DEBIAN.is_dir() and "CI" not in os.environ,
    reason="Debian's package dataset-fashion-mnist is not installed",
)
def test_the_script_makes_the_shipped_file(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(fashion_mnist_small, "FOLDER", tmp_path)
    fashion_mnist_small.main()
    (made,) = tmp_path.iterdir()
    assert str(made) in capsys.readouterr().out
    with np.load(made) as new, np.load(shipped(made.name)) as old:
        assert sorted(new) == sorted(old)
        for name in old:
            assert new[name].dtype == old[name].dtype
            assert np.array_equal(new[name], old[name])
