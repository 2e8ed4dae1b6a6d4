"""A part of Fashion-MNIST that is shipped: 3,500 pictures to train on and 1,000 to test on.

They are the first 350 training and the first 100 test pictures of each class, in the order of the
whole set (`vitlib.data.fashion_mnist`, which says whose work it is; licence MIT, copyright 2017
Zalando SE). `python -m vitlib.study.fashion_mnist_small` made the file.
"""

from vitlib.data.dataset import Dataset, Normalisation
from vitlib.data.fashion_mnist import CLASSES, as_images, as_labels
from vitlib.data.shipped import shipped_arrays

FILE = "fashion_mnist_small.npz"
TRAIN_PER_CLASS, TEST_PER_CLASS = 350, 100


def load() -> Dataset:
    """The shipped part, as (n, 1, 28, 28) images in [0, 1] with labels 0 to 9.

    Raises:
        FileNotFoundError: The file is missing from the installation.
        ValueError: The file is damaged.
    """
    train, test = TRAIN_PER_CLASS * len(CLASSES), TEST_PER_CLASS * len(CLASSES)
    arrays = shipped_arrays(
        FILE,
        train_images=(train, 28, 28),
        train_labels=(train,),
        test_images=(test, 28, 28),
        test_labels=(test,),
    )
    train_images = as_images(arrays["train_images"])
    return Dataset(
        name="fashion_mnist_small",
        train_images=train_images,
        train_labels=as_labels(arrays["train_labels"]),
        test_images=as_images(arrays["test_images"]),
        test_labels=as_labels(arrays["test_labels"]),
        classes=CLASSES,
        normalisation=Normalisation.of(train_images),
        bright_on_dark=True,
    )
