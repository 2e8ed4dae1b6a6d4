"""CIFAR-10: 60,000 colour photographs of animals and vehicles, 32 × 32 pixels, in ten classes.

A. Krizhevsky (2009), *Learning Multiple Layers of Features from Tiny Images*, technical report,
University of Toronto; https://www.cs.toronto.edu/~kriz/cifar.html. It states no licence and asks
for that citation.

The archive is not shipped. It is taken from a folder that you name, or from the author's page,
once, into the user's cache; whichever it is, it must be the published one to the last bit. Of its
three forms this is the binary one: the one for Python is a pickle, which can run programs. Nothing
is unpacked onto the disk.

A record is a byte for the class and 3,072 for the pixels: red, green, blue, each row by row. The
split is the author's: 50,000 to train on, 10,000 to test on.
"""

import hashlib
import tarfile
import zlib
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from vitlib.data.dataset import Dataset, Normalisation
from vitlib.data.fetch import fetch

CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
URL = "https://www.cs.toronto.edu/~kriz/"
ARCHIVE = "cifar-10-binary.tar.gz"
# Of the archive whose MD5 is on the author's page (c32a1d4ab5d03f1284b67883e8d87530), as TensorFlow
# Datasets has it.
SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
TRAIN = tuple(f"cifar-10-batches-bin/data_batch_{number}.bin" for number in range(1, 6))
TEST = ("cifar-10-batches-bin/test_batch.bin",)

_RECORDS = 10_000  # in each file
_PIXELS = (3, 32, 32)


def load(folder: str | PathLike[str] | None = None) -> Dataset:
    """The whole of CIFAR-10, as (n, 3, 32, 32) images in [0, 1] with labels 0 to 9.

    Takes some seconds, and 740 MB of memory for as long as it is kept.

    Args:
        folder: Where the archive is, as published. It is looked for nowhere else then.

    Raises:
        FileNotFoundError: The archive is missing, or cannot be downloaded.
        ValueError: It is damaged, or another one.
        TypeError: `folder` is no path.
    """
    path = fetch(URL + ARCHIVE, SHA256) if folder is None else _archive_in(folder)
    records = _records(path)
    train_images, train_labels = _read(records, TRAIN)
    test_images, test_labels = _read(records, TEST)
    return Dataset(
        name="cifar10",
        train_images=train_images,
        train_labels=train_labels,
        test_images=test_images,
        test_labels=test_labels,
        classes=CLASSES,
        normalisation=Normalisation.of(train_images),
        bright_on_dark=False,
    )


def _archive_in(folder: str | PathLike[str]) -> Path:
    try:
        path = Path(folder) / ARCHIVE
    except TypeError as error:
        raise TypeError(f"folder={folder!r}: expected the path of a folder.") from error
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: there is no such file. Give the folder that holds {ARCHIVE}, as it is "
            f"downloaded from {URL}."
        )
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != SHA256:
            raise ValueError(
                f"{path}: not the archive that was published (SHA-256 {SHA256}). Download it again "
                f"from {URL}."
            )
    return path


def _records(path: Path) -> dict[str, NDArray[np.uint8]]:
    """The records of each of the archive's files that are asked for, by name."""
    shape = (_RECORDS, 1 + np.prod(_PIXELS, dtype=int))
    found: dict[str, NDArray[np.uint8]] = {}
    try:
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                file = archive.extractfile(member) if member.name in TRAIN + TEST else None
                if file is not None:
                    content = file.read(shape[0] * shape[1])
                    found[member.name] = np.frombuffer(content, np.uint8).reshape(shape)
    except (tarfile.TarError, EOFError, zlib.error, OSError, ValueError) as error:
        raise ValueError(
            f"{path}: damaged ({' '.join(str(error).split())}). Download it again from {URL}."
        ) from error
    for name in TRAIN + TEST:
        if name not in found:
            raise ValueError(f"{path}: holds no {name}. Download it again from {URL}.")
    return found


def _read(
    records: dict[str, NDArray[np.uint8]], names: tuple[str, ...]
) -> tuple[Float[Tensor, "n 3 32 32"], Int[Tensor, " n"]]:
    """Images and labels of some of the files."""
    joined = np.concatenate([records[name] for name in names])
    images = np.divide(joined[:, 1:], 255, dtype=np.float32).reshape(-1, *_PIXELS)
    return torch.from_numpy(images), torch.from_numpy(joined[:, 0].astype(np.int64))
