"""Images from the Hugging Face hub, or in a form that its library `datasets` reads from a folder.

Images are in the first column of type Image, preferably one called `image`, labels in the first of
type ClassLabel, preferably one called `label`. The split `train` is for training; `test`, or
`validation` where there is no test or its labels are kept secret, is for testing. If there is
neither, every fifth image of each class is for testing (`vitlib.data.collection.divided`).

`open_hub` has everything on the disk, and reads any image at any time. `open_stream` reads from the
beginning to the end, over the network if need be, and keeps nothing: parts of the data in random
order, and a buffer of images out of which each next one is drawn. The order depends on the seed and
on the version of `datasets`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Int
from torch import Tensor

from vitlib.data.collection import Collection, Picture, divided, listed

if TYPE_CHECKING:
    import datasets

_TEST = ("test", "validation")
_BUFFER = 4096  # images in memory, out of which a stream is shuffled


@dataclass(frozen=True)
class Columns:
    """Where a table holds what is needed.

    Attributes:
        image: Name of the column of images.
        label: Name of the column of labels.
        classes: Names of the classes, in the order of the labels.
        notes: What else might have been meant.
    """

    image: str
    label: str
    classes: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Rows:
    """Images in a table on the disk.

    Attributes:
        table: With two columns, images undecoded.
        columns: Their names.
        labels: (n,), of each row.
        name: Of the table.
    """

    table: "datasets.Dataset"
    columns: Columns
    labels: Int[Tensor, " n"]
    name: str
    blocks: None = None

    def __getitem__(self, index: int) -> Picture:
        """The image of a row, from 0 to n − 1."""
        return _picture(self.table[index], self.columns, f"{self.name}[{index}]")


@dataclass(frozen=True)
class Stream:
    """Images that come one after the other.

    Attributes:
        name: By which it was opened.
        classes: The K names of the classes, in the order of the labels.
        train_count: How many training images there are.
        notes: What its owner should know, one sentence each.
        train: To train on.
        test: To test on.
        columns: Their columns.
    """

    name: str
    classes: tuple[str, ...]
    train_count: int
    notes: tuple[str, ...]
    train: "datasets.IterableDataset"
    test: "datasets.IterableDataset"
    columns: Columns

    def training(self, seed: int) -> Iterator[Picture]:
        """All training images once, in an order that depends on the seed."""
        rows = self.train.shuffle(seed=seed, buffer_size=_BUFFER)
        return self._pictures(rows, f"{self.name}: training image")

    def testing(self) -> Iterator[Picture]:
        """All test images once, in their order."""
        return self._pictures(self.test, f"{self.name}: test image")

    def _pictures(self, rows: "datasets.IterableDataset", name: str) -> Iterator[Picture]:
        for number, row in enumerate(rows):
            picture = _picture(row, self.columns, f"{name} {number}")
            if not 0 <= picture.label < len(self.classes):
                raise ValueError(
                    f"{picture.name}: its label is {picture.label}, expected 0 to "
                    f"{len(self.classes) - 1}. Choose data whose images all have a class."
                )
            yield picture


def open_hub(name: str) -> Collection:
    """The images of a data set on the disk; the first time it is downloaded.

    Args:
        name: Of a data set on the hub, or the path of a folder that `datasets` reads.

    Raises:
        FileNotFoundError: It cannot be had.
        ValueError: It has no training split, images or classes, or is damaged.
        ModuleNotFoundError: `datasets` is not installed.
    """
    splits = _load(name, streaming=False)
    columns = _columns(name, splits["train"].features)

    def rows(split: str) -> Rows:
        table = _two_columns(splits[split], columns)
        return Rows(table, columns, _labels(table, columns), f"hf:{name} {split}")

    train = rows("train")
    if bool((train.labels < 0).any()):
        raise ValueError(
            f"hf:{name}: {int((train.labels < 0).sum()):,} training images have no class. Choose "
            "data whose images all have one."
        )
    for split in _TEST:
        if split in splits and bool(((test := rows(split)).labels >= 0).all()):
            return Collection(f"hf:{name}", train, test, columns.classes, columns.notes)
    return divided(f"hf:{name}", train, columns.classes, columns.notes)


def open_stream(name: str) -> Stream:
    """The images of a data set as they come, which are kept nowhere.

    Args:
        name: Of a data set on the hub, or the path of a folder that `datasets` reads.

    Raises:
        FileNotFoundError: It cannot be had.
        ValueError: It has no training or test split, images or classes, or is damaged.
        ModuleNotFoundError: `datasets` is not installed.
    """
    splits = _load(name, streaming=True)
    columns = _columns(name, splits["train"].features)
    known = splits["train"].info.splits or {}
    train = _two_columns(splits["train"], columns)
    for split in _TEST:
        if split not in splits:
            continue
        test = _two_columns(splits[split], columns)
        first = next(iter(test), None)
        if first is not None and (first[columns.label] or 0) >= 0:
            break
    else:
        raise ValueError(
            f"hf-stream:{name}: has no labelled split called {' or '.join(_TEST)}, only "
            f"{listed(sorted(splits))}. Use hf:{name}, which can divide what it has."
        )
    if "train" in known and known["train"].num_examples:
        count = known["train"].num_examples
    else:
        count = sum(1 for _ in train.select_columns([columns.label]))
    return Stream(f"hf-stream:{name}", columns.classes, count, columns.notes, train, test, columns)


def _load(name: str, *, streaming: bool) -> Mapping[str, Any]:
    """The splits of a data set, by name."""
    try:
        import datasets
        from datasets.exceptions import DatasetsError
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "data of Hugging Face need the library datasets. Install it with "
            "pip install 'vitlib[train]'."
        ) from error
    try:
        splits: Any = datasets.load_dataset(name, streaming=streaming)
    except (OSError, ValueError, DatasetsError) as error:
        kind = FileNotFoundError if isinstance(error, OSError) else ValueError
        raise kind(
            f"hf:{name}: cannot be had ({' '.join(str(error).split()).rstrip('.')}). Expected the "
            "name of a data set on huggingface.co, or a folder."
        ) from error
    if "train" not in splits:
        raise ValueError(
            f"hf:{name}: has no split train, only {listed(sorted(splits))}. Choose other data."
        )
    return splits


def _columns(name: str, features: Mapping[str, Any] | None) -> Columns:
    import datasets

    features = features or {}
    found: dict[str, list[str]] = {}
    for kind, usual in ((datasets.Image, "image"), (datasets.ClassLabel, "label")):
        columns = [column for column, feature in features.items() if isinstance(feature, kind)]
        if not columns:
            raise ValueError(
                f"hf:{name}: no column is of type {kind.__name__}; there are "
                f"{listed(sorted(features)) or 'none that are known'}. Choose data made for "
                "classifying images."
            )
        found[usual] = sorted(columns, key=lambda column: column != usual)
    notes = tuple(
        f"hf:{name} has the columns {listed(columns)} for the {usual}; the first is used."
        for usual, columns in found.items()
        if len(columns) > 1
    )
    label = found["label"][0]
    return Columns(found["image"][0], label, tuple(features[label].names), notes)


def _two_columns(table: Any, columns: Columns) -> Any:
    import datasets

    table = table.select_columns([columns.image, columns.label])
    return table.cast_column(columns.image, datasets.Image(decode=False))


def _labels(table: "datasets.Dataset", columns: Columns) -> Int[Tensor, " n"]:
    """The labels of a table, −1 where there is none."""
    arrow: Any = table.select_columns([columns.label]).with_format("arrow")[:]
    numbers = arrow.column(columns.label).fill_null(-1).to_numpy()
    return torch.tensor(numbers, dtype=torch.int64)


def _picture(row: Mapping[str, Any], columns: Columns, name: str) -> Picture:
    """What a row holds; the content of an image, or where it is."""
    image, label = row[columns.image], row[columns.label]
    path, content = image["path"], image["bytes"]
    name = f"{name} ({path})" if path else name
    return Picture(Path(path) if content is None else content, name, -1 if label is None else label)
