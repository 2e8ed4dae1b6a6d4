"""Fashion-MNIST: 70,000 grey pictures of clothes, shoes and bags, 28 × 28 pixels, in ten classes.

H. Xiao, K. Rasul and R. Vollgraf (2017), *Fashion-MNIST: a Novel Image Dataset for Benchmarking
Machine Learning Algorithms*, arXiv:1708.07747; licence MIT, copyright 2017 Zalando SE.

The files are not shipped: `vitlib.data.fashion_mnist_small` is a part that is. They are taken from
a folder that you name, or from Debian's package `dataset-fashion-mnist`, or from the authors'
repository, once, into the user's cache. Whichever it is, their content must be Fashion-MNIST to the
last bit: MNIST's own files have the same names and shapes.

A pixel is a whole number from 0 (ground) to 255; the things are bright on a dark ground. The split
is the authors': 60,000 to train on, 10,000 to test on.
"""

import hashlib
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from vitlib.data.dataset import Dataset, Normalisation
from vitlib.data.fetch import fetch
from vitlib.data.idx import read_idx

CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
URL = "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/"


@dataclass(frozen=True)
class File:
    """One of the four files.

    Attributes:
        name: Its name, everywhere.
        shape: Of the values in it.
        values: SHA-256 of these values.
        packed: SHA-256 of the file as the authors publish it: the one whose MD5 is in their README.
            Debian packs the same values with another gzip header.
    """

    name: str
    shape: tuple[int, ...]
    values: str
    packed: str


TRAIN_IMAGES = File(
    "train-images-idx3-ubyte.gz",
    (60_000, 28, 28),
    values="2e487a6c89124f78f2d7521542223cafe96f7123c3ca13d447772ac6ecbb3012",
    packed="3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
)
TRAIN_LABELS = File(
    "train-labels-idx1-ubyte.gz",
    (60_000,),
    values="657fbd221bfc9f4198cc14b5619cc33ec57c58dd0e47af4d99d6650759e869a7",
    packed="a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
)
TEST_IMAGES = File(
    "t10k-images-idx3-ubyte.gz",
    (10_000, 28, 28),
    values="c867c93ff95360594e8ec3287995350b824dd110b11595c0e13d5423f621867a",
    packed="346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
)
TEST_LABELS = File(
    "t10k-labels-idx1-ubyte.gz",
    (10_000,),
    values="3d0e6c6ea990b53b6f8f500a41cac93881d981b315f84578b7d915342ade01e9",
    packed="67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
)


def load(folder: str | PathLike[str] | None = None) -> Dataset:
    """The whole of Fashion-MNIST, as (n, 1, 28, 28) images in [0, 1] with labels 0 to 9.

    Takes a second at most, and 220 MB of memory for as long as it is kept.

    Args:
        folder: Where the four files are, named and gzipped as published. They are looked for
            nowhere else then.

    Raises:
        FileNotFoundError: A file is missing, or cannot be downloaded.
        ValueError: A file is damaged, or is not Fashion-MNIST's.
        TypeError: `folder` is no path.
    """
    source = _source(folder)
    train_images = as_images(_read(TRAIN_IMAGES, source))
    return Dataset(
        name="fashion_mnist",
        train_images=train_images,
        train_labels=as_labels(_read(TRAIN_LABELS, source)),
        test_images=as_images(_read(TEST_IMAGES, source)),
        test_labels=as_labels(_read(TEST_LABELS, source)),
        classes=CLASSES,
        normalisation=Normalisation.of(train_images),
        bright_on_dark=True,
    )


def as_images(pixels: NDArray[np.uint8]) -> Float[Tensor, "n 1 28 28"]:
    """Pixels (n, 28, 28) from 0 to 255 as images in [0, 1]."""
    return torch.from_numpy(np.divide(pixels, 255, dtype=np.float32))[:, None]


def as_labels(numbers: NDArray[np.uint8]) -> Int[Tensor, " n"]:
    """Class numbers as labels."""
    return torch.from_numpy(numbers.astype(np.int64))


def _source(folder: str | PathLike[str] | None) -> Path | None:
    """The folder to read from, or None for the network."""
    if folder is None:
        return DEBIAN if DEBIAN.is_dir() else None
    try:
        path = Path(folder)
    except TypeError as error:
        raise TypeError(f"folder={folder!r}: expected the path of a folder.") from error
    if not path.is_dir():
        raise FileNotFoundError(
            f"{path}: there is no such folder. Give the one that holds {TRAIN_IMAGES.name} and "
            "its three companions."
        )
    return path


def _read(file: File, folder: Path | None) -> NDArray[np.uint8]:
    """The values of one file, in a folder or else from the network."""
    path = fetch(URL + file.name, file.packed) if folder is None else folder / file.name
    values = read_idx(path, file.shape)
    if hashlib.sha256(values.data).hexdigest() != file.values:
        raise ValueError(
            f"{path}: has the shape of Fashion-MNIST's file but not its values; MNIST's files have "
            f"the same names. Download it from {URL}."
        )
    return values
