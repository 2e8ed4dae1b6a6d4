import numpy as np
from PIL import Image

from vitlib.data.shipped import shipped
from vitlib.study import photographs


def test_the_script_makes_the_shipped_files(tmp_path, monkeypatch):
    monkeypatch.setattr(photographs, "FOLDER", tmp_path)
    photographs.main()
    made = sorted(tmp_path.iterdir())
    assert [path.name for path in made] == ["china.jpg", "flower.jpg"]
    for path in made:
        new, old = (np.asarray(Image.open(p)).astype(float) for p in (path, shipped(path.name)))
        assert new.shape == old.shape
        assert np.abs(new - old).mean() < 1  # another version of Pillow may round another way
