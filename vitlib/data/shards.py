"""Images in tar files, WebDataset's form of data too large to be kept as single files.

A pattern names the files: `train-{000..146}.tar`, braces for ranges and lists, `*` as in a shell.
`PATTERN::TEST_PATTERN` names those with the test images; without, every fifth image of each class
is for testing (`vitlib.data.collection.divided`). In a shard an image KEY.jpg, .jpeg, .png or
.webp stands beside KEY.cls, the number of its class in digits. Names of the classes are in
`classes.txt` beside the first shard, one a line; without it they are numbers.

*Why not the library `webdataset`.* It reads shards as streams: to go on within an epoch is to read
what came before, the mixture of the images depends on how many processes read, and lengths must be
known from elsewhere. Tar files are not compressed and can be read anywhere. So their headers are
read once, some 40 µs an image, and kept in the user's cache; from then on an image is a place in a
file, and shards are one more kind of `Pictures`: every image comes exactly once an epoch, in an
order that depends on the seed and the epoch only, and nothing needs to be read again.
"""

import hashlib
import io
import re
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from glob import glob
from itertools import product
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from torch import Tensor

from vitlib.data.collection import Collection, Names, Picture, divided
from vitlib.files import write_atomically

SUFFIXES = ("jpg", "jpeg", "png", "webp")
CLASSES = "classes.txt"

_LABEL_DIGITS = 9
_THREADS = 16  # that wait for headers, on disks of other machines


@dataclass(frozen=True)
class Shards:
    """Images in tar files.

    Attributes:
        paths: Of the tar files.
        blocks: (n,), which file each image is in.
        places: (n, 2), where in it its content begins, and how many bytes there are.
        labels: (n,), of each image.
        skipped: How many files in the archives are no image with a class.
    """

    paths: Names
    blocks: Int[Tensor, " n"]
    places: Int[Tensor, "n 2"]
    labels: Int[Tensor, " n"]
    skipped: int

    def __getitem__(self, index: int) -> Picture:
        """One image, from 0 to n − 1."""
        path, (start, size) = self.paths[int(self.blocks[index])], self.places[index].tolist()
        with Path(path).open("rb") as file:
            file.seek(start - tarfile.BLOCKSIZE)
            header, content = file.read(tarfile.BLOCKSIZE), file.read(size)
        name = header[:100].split(b"\0")[0].decode("utf-8", "replace")
        return Picture(content, f"{path}: {name}", int(self.labels[index]))


def open_shards(pattern: str) -> Collection:
    """The images of some shards; only headers are read.

    Raises:
        FileNotFoundError: The pattern names no file, or one that is missing.
        ValueError: A file is no tar file, is compressed or damaged, or has no images with classes.
    """
    train_pattern, separator, test_pattern = pattern.partition("::")
    train = _index(expand(train_pattern))
    test = _index(expand(test_pattern)) if separator else None
    highest = max(int(part.labels.max()) for part in (train, test) if part is not None)
    classes = _class_names(Path(train.paths[0]).parent / CLASSES, highest)
    skipped = train.skipped + (test.skipped if test else 0)
    note = f"Files left out of the shards, no image with a class: {skipped:,}."
    name, notes = f"shards:{pattern}", (note,) if skipped else ()
    if test is None:
        return divided(name, train, classes, notes)
    return Collection(name, train, test, classes, notes)


def expand(pattern: str) -> list[str]:
    """The files that a pattern names, in order.

    Args:
        pattern: With `{000..146}` and `{a,b}` for each of these, `*`, `?` and `[…]` as in a shell.

    Raises:
        FileNotFoundError: There is no such file.
    """
    pieces = re.split(r"\{([^{}]*)\}", pattern)
    choices = [_choices(piece) if number % 2 else [piece] for number, piece in enumerate(pieces)]
    paths: list[str] = []
    for path in map("".join, product(*choices)):
        wild = re.search(r"[*?[]", path)
        found = sorted(glob(path)) if wild else [path]  # noqa: PTH207, since Path takes no absolute
        missing = [path] if not found else [each for each in found if not Path(each).is_file()]
        if missing:
            raise FileNotFoundError(
                f"{missing[0]}: there is no such file. Expected one for each name that the pattern "
                f"{pattern!r} stands for."
            )
        paths += found
    return paths


def _choices(braces: str) -> list[str]:
    """What stands for a pair of braces: the numbers of a range, or the words of a list."""
    ends = re.fullmatch(r"(\d+)\.\.(\d+)", braces)
    if ends is None:
        return braces.split(",")
    first, last = ends.groups()
    return [str(number).zfill(len(first)) for number in range(int(first), int(last) + 1)]


def _class_names(path: Path, highest: int) -> tuple[str, ...]:
    if not path.is_file():
        return tuple(str(number) for number in range(highest + 1))
    names = tuple(path.read_text(encoding="utf-8").split("\n"))
    names = names[:-1] if names[-1] == "" else names
    if len(names) <= highest or len(set(names)) < len(names):
        raise ValueError(
            f"{path}: has {len(set(names))} different names, and the shards classes up to number "
            f"{highest}. Expected one name for each, in their order."
        )
    return names


def _index(paths: Sequence[str]) -> Shards:
    """Where all images are: from the cache, or else from the headers."""
    # Not above: few who import the library read shards.
    import pooch

    stamp = hashlib.sha256()
    for path in map(Path, paths):
        status = path.stat()
        stamp.update(repr((str(path.resolve()), status.st_size, status.st_mtime_ns)).encode())
    cache = Path(pooch.os_cache("vitlib")) / f"shards-{stamp.hexdigest()[:32]}.npz"
    try:
        with np.load(cache) as stored:
            table = stored["table"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        table = _read_headers(paths)
        content = io.BytesIO()
        np.savez(content, table=table)
        with suppress(OSError):  # without it the headers are read again next time
            cache.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(cache, content.getvalue())
    block, start, size, label = torch.from_numpy(table[1:]).T.contiguous()
    return Shards(Names(paths), block, torch.stack([start, size], 1), label, int(table[0, 0]))


def _read_headers(paths: Sequence[str]) -> NDArray[np.int64]:
    """A row (file, start, size, label) for each image, below one with the number of other files."""
    with ThreadPoolExecutor(_THREADS) as pool:
        parts = list(pool.map(_members, paths))
    rows = [(number, *row) for number, (images, _) in enumerate(parts) for row in images]
    if not rows:
        raise ValueError(
            f"{paths[0]}: neither it nor the {len(paths) - 1} shards after it hold an image with a "
            "class. Expected pairs such as 000.jpg and 000.cls."
        )
    return np.array([(sum(others for _, others in parts), 0, 0, 0), *rows], np.int64)


def _members(path: str) -> tuple[list[tuple[int, int, int]], int]:
    """Start, size and label of each image of a shard, and how many other files it holds."""
    images: list[tuple[int, int, int]] = []
    others = 0
    try:
        with tarfile.open(path, "r:") as archive:
            for key, members in _samples(archive):
                pictures = [members[suffix] for suffix in SUFFIXES if suffix in members]
                if len(pictures) == 1 and "cls" in members:
                    label = _label(archive, members["cls"], f"{path}: {key}.cls")
                    images.append((pictures[0].offset_data, pictures[0].size, label))
                else:
                    others += len(members)
    except (tarfile.TarError, EOFError) as error:
        raise ValueError(
            f"{path}: no whole, uncompressed tar file ({' '.join(str(error).split())}). Copy it "
            "again, or unpack it with gunzip."
        ) from error
    return images, others


def _samples(archive: tarfile.TarFile) -> Iterator[tuple[str, dict[str, tarfile.TarInfo]]]:
    """The files that follow each other and differ after the first dot of their names only."""
    key, members = "", dict[str, tarfile.TarInfo]()
    for member in archive:
        if not member.isreg():
            continue
        folder, slash, name = member.name.rpartition("/")
        stem, _, suffix = name.partition(".")
        if folder + slash + stem != key:
            if members:
                yield key, members
            key, members = folder + slash + stem, {}
        members[suffix.lower()] = member
    if members:
        yield key, members


def _label(archive: tarfile.TarFile, member: tarfile.TarInfo, name: str) -> int:
    file = archive.extractfile(member)
    text = b"" if file is None else file.read(_LABEL_DIGITS + 3).strip()
    if not re.fullmatch(rb"\d{1,%d}" % _LABEL_DIGITS, text):
        raise ValueError(f"{name}: {text!r} is no class. Expected a number from 0, in digits.")
    return int(text)
