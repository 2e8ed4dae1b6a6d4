"""Any folder of images in a subfolder for each class.

Two layouts are known:

- `train/CLASS/…` with `test/CLASS/…` or, if there is no such, `val/CLASS/…`;
- `CLASS/…` alone, or `train/CLASS/…` alone. Then every fifth image of each class, in the order of
  their names, is for testing (`vitlib.data.collection.divided`).

Classes are sorted by name, and so are the images of a class, wherever below its folder they lie.
What is hidden (a name with a dot in front) or has no suffix of an image is left out and counted.
Links are followed; a folder that links lead to twice is read once.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from vitlib.data.collection import (
    Collection,
    Names,
    Picture,
    check_classes,
    divided,
    listed,
)

SUFFIXES = (
    ".bmp",
    ".gif",
    ".jpeg",
    ".jpg",
    ".pbm",
    ".pgm",
    ".png",
    ".ppm",
    ".tif",
    ".tiff",
    ".webp",
)
_TEST = ("test", "val")


@dataclass(frozen=True)
class Files:
    """Image files below one folder.

    Attributes:
        root: The folder.
        paths: Below it, of each image.
        labels: (n,), of each image.
        skipped: How many files are hidden or have no suffix of an image.
    """

    root: Path
    paths: Names
    labels: Int[Tensor, " n"]
    skipped: int
    blocks: None = None

    def __getitem__(self, index: int) -> Picture:
        """One image, from 0 to n − 1."""
        path = self.root / self.paths[index]
        return Picture(path, str(path), int(self.labels[index]))


def open_folder(folder: Path) -> Collection:
    """The images of a folder; nothing is decoded yet.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: It holds no class, a class no image, or its parts have different classes.
    """
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder}: there is no such folder. Expected one with a subfolder for each class."
        )
    apart = bool(_classes(folder / "train"))
    train_root = folder / "train" if apart else folder
    classes = _classes(train_root)
    if not classes:
        raise ValueError(
            f"{folder}: has no subfolders. Expected one for each class, with its images in it."
        )
    train = _files(train_root, classes)
    if not apart:
        return _collection(folder, classes, train, None)
    for name in _TEST:
        found = _classes(folder / name)
        if not found:
            continue
        if found != classes:
            only = listed(sorted(set(classes) ^ set(found)))
            raise ValueError(
                f"{folder}: train has {len(classes)} classes and {name} {len(found)}; not in both "
                f"is {only}. Give both the same subfolders."
            )
        return _collection(folder, classes, train, _files(folder / name, classes))
    return _collection(folder, classes, train, None)


def _collection(
    folder: Path, classes: tuple[str, ...], train: Files, test: Files | None
) -> Collection:
    skipped = train.skipped + (test.skipped if test else 0)
    note = f"Files left out, hidden or no images by their suffix: {skipped:,}."
    notes = (note,) if skipped else ()
    if test is None:
        return divided(str(folder), train, classes, notes)
    return Collection(str(folder), train, test, classes, notes)


def _classes(folder: Path) -> tuple[str, ...]:
    """The names of a folder's visible subfolders, sorted; none if there is no such folder."""
    if not folder.is_dir():
        return ()
    return tuple(
        sorted(path.name for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")
    )


def _files(root: Path, classes: tuple[str, ...]) -> Files:
    paths: list[str] = []
    labels: list[int] = []
    skipped = 0
    for label, name in enumerate(classes):
        images, others = _walk(root / name)
        paths += (f"{name}/{path}" for path in images)
        labels += [label] * len(images)
        skipped += others
    numbers = torch.tensor(labels, dtype=torch.int64)
    check_classes(str(root), classes, numbers)
    return Files(root, Names(paths), numbers, skipped)


def _walk(folder: Path) -> tuple[list[str], int]:
    """The images below a folder, sorted, and how many other files there are."""
    images: list[str] = []
    others, waiting = 0, [""]
    # What contains the folder is not below it, even if a link says so: it holds other classes.
    seen = {_identity(parent) for parent in folder.resolve().parents}
    while waiting:
        below = waiting.pop()
        identity = _identity(folder / below)
        if identity in seen:
            continue
        seen.add(identity)
        for entry in sorted(os.scandir(folder / below), key=lambda entry: entry.name):
            hidden = entry.name.startswith(".")
            if Path(entry).is_dir() if entry.is_symlink() else entry.is_dir():
                if not hidden:
                    waiting.append(f"{below}{entry.name}/")
            elif not hidden and entry.name.lower().endswith(SUFFIXES):
                images.append(below + entry.name)
            else:
                others += 1
    return sorted(images), others


def _identity(folder: Path) -> tuple[int, int]:
    """What is the same for two names of one folder."""
    status = folder.stat()
    return status.st_dev, status.st_ino
