import importlib.resources

import numpy as np
import pytest
import torch
from PIL import Image

from vitlib import data
from vitlib.data.shipped import shipped


def test_both_are_colour_in_the_unit_interval():
    photographs = data.photographs()
    assert list(photographs) == ["china", "flower"]
    for photograph in photographs.values():
        assert photograph.shape == (3, 320, 480)
        assert photograph.dtype == torch.float32
        assert 0 <= photograph.min() < 0.1
        assert 0.9 < photograph.max() <= 1


@pytest.mark.parametrize("name", ["china", "flower"])
def test_they_are_scikit_learns_reduced(name):
    original = importlib.resources.files("sklearn.datasets.images") / f"{name}.jpg"
    reduced = Image.open(str(original)).resize((480, 320), Image.Resampling.BOX)
    expected = torch.from_numpy(np.array(reduced)).permute(2, 0, 1) / 255
    difference = (data.photographs()[name] - expected).abs()
    assert difference.mean() < 0.03  # another way of reducing, and JPEG


def test_they_are_small():
    assert sum(shipped(f"{name}.jpg").stat().st_size for name in data.photographs()) < 150_000
