"""Images in files: too many for memory, each decoded when it is its turn.

What kind of files they are, a folder's, a table's or parts of archives, the module says that opens
them; to the rest of the library they are `Pictures`, a sequence of undecoded images whose labels
are known at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

_FIFTH = 5  # image of each class is for testing, where no others are
_TOGETHER = 16  # blocks whose images are shuffled into each other


class Picture(NamedTuple):
    """An image as it is stored.

    Attributes:
        source: The file, or its content.
        name: What to call it when it is damaged.
        label: From 0 to K − 1.
    """

    source: Path | bytes
    name: str
    label: int


class Pictures(Protocol):
    """A sequence of undecoded images."""

    @property
    def labels(self) -> Int[Tensor, " n"]:
        """The label of each, from 0 to K − 1."""
        ...

    @property
    def blocks(self) -> Int[Tensor, " n"] | None:
        """The number, from 0, of the block that each lies in; None where any order is as good.

        Images of one block are best read at about the same time.
        """
        ...

    def __getitem__(self, index: int) -> Picture:
        """One of them, from 0 to n − 1."""
        ...


@dataclass(frozen=True)
class Chosen:
    """Some of other pictures.

    Attributes:
        pictures: The others.
        positions: (n,), of the chosen ones among them.
        labels: (n,), theirs.
        blocks: (n,), theirs.
    """

    pictures: Pictures
    positions: Int[Tensor, " n"]
    labels: Int[Tensor, " n"]
    blocks: Int[Tensor, " n"] | None

    def __getitem__(self, index: int) -> Picture:
        """One of them, from 0 to n − 1."""
        return self.pictures[int(self.positions[index])]


@dataclass(frozen=True)
class Collection:
    """Images in files, divided into training and test.

    Attributes:
        name: By which it was opened.
        train: To train on.
        test: To test on; none of `train`.
        classes: The K names of the classes, in the order of the labels.
        notes: What its owner should know, one sentence each: what was left out, what was assumed.
    """

    name: str
    train: Pictures
    test: Pictures
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()


class Names(Sequence[str]):
    """Many names in little memory, which processes share after a fork: two objects in all."""

    def __init__(self, names: Sequence[str]) -> None:
        encoded = [name.encode("utf-8", "surrogateescape") for name in names]
        self._text = b"".join(encoded)
        self._ends = np.cumsum([0, *map(len, encoded)])

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> str:  # pyright: ignore[reportIncompatibleMethodOverride]
        if not 0 <= index < len(self):
            raise IndexError(index)
        start, end = self._ends[index : index + 2]
        return self._text[start:end].decode("utf-8", "surrogateescape")


def choose(pictures: Pictures, positions: Int[Tensor, " n"]) -> Chosen:
    """The pictures at some positions."""
    blocks = None if pictures.blocks is None else pictures.blocks[positions]
    return Chosen(pictures, positions, pictures.labels[positions], blocks)


def divide(pictures: Pictures, part: float) -> tuple[Chosen, Chosen]:
    """Those that are kept and those that are held out (`hold_out`)."""
    kept, held = hold_out(pictures.labels, part)
    return choose(pictures, kept), choose(pictures, held)


def hold_out(
    labels: Int[Tensor, " n"], part: float
) -> tuple[Int[Tensor, " kept"], Int[Tensor, " held"]]:
    """Keep a part of each class out, by a rule that needs no random numbers.

    Number the samples of each class 0, 1, 2, … in their order: number j is held out if
    ⌊(j + 1) · part⌋ > ⌊j · part⌋. With part 1/5 this is `vitlib.data.dataset.every_fifth`.

    Args:
        labels: On the CPU, 0 or more.
        part: From 0 to below 1.

    Returns:
        The positions of the samples that are kept and of those that are held out, both ascending.
    """
    exact = Fraction(part).limit_denominator(1_000_000)
    counts = labels.bincount()
    by_class = labels.argsort(stable=True)
    number = torch.empty_like(labels)
    number[by_class] = torch.arange(len(labels)) - (counts.cumsum(0) - counts).repeat_interleave(
        counts
    )
    before, after = (
        (j * exact.numerator).div(exact.denominator, rounding_mode="floor")
        for j in (number, number + 1)
    )
    return (after == before).nonzero().flatten(), (after > before).nonzero().flatten()


def divided(
    name: str, pictures: Pictures, classes: tuple[str, ...], notes: tuple[str, ...]
) -> Collection:
    """A collection of pictures that have no test images of their own: every fifth becomes one.

    Raises:
        ValueError: A class has too few images for that.
    """
    train, test = divide(pictures, 1 / _FIFTH)
    counts = pictures.labels.bincount(minlength=len(classes)).tolist()
    few = [one for one, count in zip(classes, counts, strict=True) if count < _FIFTH]
    if few:
        raise ValueError(
            f"{name}: fewer than five images show {listed(few)}, and every fifth is for testing. "
            "Add images, take the class away, or bring test images of their own."
        )
    note = f"{name} has no test images of its own: every fifth of each class is one."
    return Collection(name, train, test, classes, (*notes, note))


def shuffled(pictures: Pictures, generator: torch.Generator) -> Int[Tensor, " n"]:
    """The positions of all pictures in random order.

    Where pictures lie in blocks, the blocks are put into random order and the images of sixteen at
    a time are shuffled: what is read at one time lies in few places.

    Args:
        pictures: What to shuffle.
        generator: On the CPU.
    """
    blocks = pictures.blocks
    if blocks is None:
        return torch.randperm(len(pictures.labels), generator=generator)
    turn = torch.randperm(int(blocks.max()) + 1, generator=generator)[blocks] // _TOGETHER
    within = torch.rand(len(blocks), generator=generator, dtype=torch.float64)
    return (turn + within).argsort()


def check_classes(where: str, names: Sequence[str], labels: Int[Tensor, " n"]) -> None:
    """Raise ValueError if a class has no image.

    Args:
        where: What the images are part of.
        names: Of the classes.
        labels: Of the images.
    """
    counts = labels.bincount(minlength=len(names)).tolist()
    empty = [name for name, count in zip(names, counts, strict=True) if count == 0]
    if empty:
        raise ValueError(
            f"{where}: no image shows {listed(empty)}. Each class needs one at least; add images "
            "or take the class away."
        )


def listed(words: Sequence[str], most: int = 3) -> str:
    """The first of some words, and how many more there are."""
    shown = ", ".join(repr(word) for word in words[:most])
    return shown if len(words) <= most else f"{shown} and {len(words) - most} more"
