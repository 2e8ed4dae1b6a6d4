import pytest

from vitlib import data


def test_the_names_are_those_that_can_be_loaded():
    assert data.names() == ["cifar10", "digits", "fashion_mnist", "fashion_mnist_small", "shapes"]


@pytest.mark.parametrize("name", ["digits", "fashion_mnist_small", "shapes"])
def test_a_data_set_bears_its_name_and_has_a_class_for_each_label(name):
    dataset = data.load(name)
    assert dataset.name == name
    for labels in (dataset.train_labels, dataset.test_labels):
        assert labels.unique().tolist() == list(range(len(dataset.classes)))
    for channels in (dataset.normalisation.mean, dataset.normalisation.std):
        assert len(channels) == dataset.train_images.shape[1]


def test_options_reach_the_data_set():
    assert data.load("shapes", count=6, test_count=6).train_images.shape[0] == 6


@pytest.mark.parametrize(
    ("name", "option", "expected"),
    [
        ("cifar10", "size", "expected folder"),
        ("digits", "folder", "expected none"),
        ("fashion_mnist", "size", "expected folder"),
        ("fashion_mnist_small", "folder", "expected none"),
        ("shapes", "Size", "expected count or test_count or size or seed"),
    ],
)
def test_an_option_that_a_data_set_does_not_take_is_named(name, option, expected):
    with pytest.raises(TypeError) as error:
        data.load(name, **{option: 1})
    assert str(error.value) == f"the data set {name!r} has no option {option!r}: {expected}."
