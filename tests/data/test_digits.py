import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from vitlib import data
from vitlib.data.dataset import Normalisation, every_fifth


def test_the_shipped_file_is_scikit_learns():
    digits, reference = data.load("digits"), load_digits()
    train, test = every_fifth(torch.from_numpy(reference.target))
    images = torch.from_numpy(reference.images).float()[:, None] / 16
    assert len(images) == 1797
    assert torch.equal(digits.train_images, images[train])
    assert torch.equal(digits.test_images, images[test])
    assert digits.train_labels.tolist() == reference.target[train].tolist()
    assert digits.test_labels.tolist() == reference.target[test].tolist()
    assert digits.classes == tuple(str(name) for name in reference.target_names)


def test_the_split_is_the_one_that_figures_refer_to():
    digits = data.load("digits")
    assert digits.train_images.shape == (1442, 1, 8, 8)
    assert digits.test_labels.bincount().tolist() == [35, 36, 35, 36, 36, 36, 36, 35, 34, 36]
    assert digits.test_labels[:12].tolist() == every_fifth_of_the_labels_by_hand()[:12]


def every_fifth_of_the_labels_by_hand():
    seen, test = [0] * 10, []
    for label in load_digits().target.tolist():
        if seen[label] % 5 == 4:
            test.append(label)
        seen[label] += 1
    return test


def test_images_lie_in_the_unit_interval_and_are_normalised_by_the_training_images():
    digits = data.load("digits")
    for images in (digits.train_images, digits.test_images):
        assert images.dtype == torch.float32
        assert images.min() == 0
        assert images.max() == 1
    normal = digits.normalisation(digits.train_images.double())
    torch.testing.assert_close(normal.mean(), torch.tensor(0.0).double(), atol=1e-12, rtol=0)
    torch.testing.assert_close(normal.var(correction=0), torch.tensor(1.0).double())


@given(st.lists(st.integers(0, 4), max_size=60))
def test_a_split_is_a_partition_and_every_class_gives_a_fifth(labels):
    labels = torch.tensor(labels, dtype=torch.long)
    train, test = every_fifth(labels)
    assert sorted(train.tolist() + test.tolist()) == list(range(len(labels)))
    for label in range(5):
        assert (labels[test] == label).sum() == (labels == label).sum() // 5


def test_normalisation_works_on_one_image_and_channel_by_channel():
    images = torch.rand(7, 3, 4, 5)
    normalise = Normalisation.of(images)
    one = normalise(images[2])
    for channel in range(3):
        expected = (images[2, channel] - images[:, channel].mean()) / images[:, channel].std(
            correction=0
        )
        torch.testing.assert_close(one[channel], expected)


def test_moving_keeps_everything():
    digits = data.load("digits")
    moved = digits.to(torch.device("meta"))
    assert moved.train_images.is_meta
    assert moved.test_labels.is_meta
    assert moved.classes == digits.classes


def test_an_unknown_name_is_answered_with_those_there_are():
    assert "digits" in data.names()
    with pytest.raises(ValueError, match=r"'digts'.*digits") as error:
        data.load("digts")
    assert "\n" not in str(error.value)
