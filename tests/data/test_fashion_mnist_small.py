import os

import pytest
import torch

from vitlib import data
from vitlib.data.fashion_mnist import DEBIAN
from vitlib.data.shipped import shipped


def test_it_is_small_and_balanced():
    small = data.load("fashion_mnist_small")
    assert shipped("fashion_mnist_small.npz").stat().st_size <= 2_000_000
    assert small.train_images.shape == (3500, 1, 28, 28)
    assert small.test_images.shape == (1000, 1, 28, 28)
    assert small.train_labels.bincount().tolist() == [350] * 10
    assert small.test_labels.bincount().tolist() == [100] * 10
    assert small.train_images.dtype == torch.float32
    normal = small.normalisation(small.train_images.double())
    assert normal.mean().item() == pytest.approx(0, abs=1e-12)
    assert normal.var(correction=0).item() == pytest.approx(1)


def first_by_hand(images, labels, count):
    """The first so many images of each class, and their labels, one by one."""
    seen, chosen = [0] * 10, []
    for place, label in enumerate(labels.tolist()):
        if seen[label] < count:
            chosen.append(place)
        seen[label] += 1
    return images[chosen], labels[chosen]


@pytest.mark.skipif(
    not DEBIAN.is_dir() and "CI" not in os.environ,
    reason="Debian's package dataset-fashion-mnist is not installed",
)
def test_it_is_the_beginning_of_the_whole():
    small, whole = data.load("fashion_mnist_small"), data.load("fashion_mnist")
    images, labels = first_by_hand(whole.train_images, whole.train_labels, 350)
    assert torch.equal(small.train_images, images)
    assert torch.equal(small.train_labels, labels)
    images, labels = first_by_hand(whole.test_images, whole.test_labels, 100)
    assert torch.equal(small.test_images, images)
    assert torch.equal(small.test_labels, labels)
    assert small.classes == whole.classes
    assert small.bright_on_dark == whole.bright_on_dark
