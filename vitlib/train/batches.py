"""Which images each process sees in which step.

Batch k of an epoch is order[k · B : (k + 1) · B], where B is the recipe's batch size, over all
processes together, and the order depends on (seed, epoch) alone; each process takes its part, one
after the other. Any number of processes together see what one would see, and a run that goes on at
step k sees what it would have seen. What is left of an epoch after its last whole batch is left
out.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Literal, NamedTuple, Protocol, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vitlib.data.augment import Augment
from vitlib.train.processes import Processes

ORDER = 3
"""The place of an order among what a run draws, beside the epoch (`vitlib.data.seeds`)."""

Split = Literal["validation", "test"]
T = TypeVar("T")


class Workers(Protocol):
    """How images are read: what of a recipe's engine counts."""

    @property
    def workers(self) -> int:
        """Processes that decode images; 0: the one that needs them."""
        ...

    @property
    def strict(self) -> bool:
        """Whether a damaged image ends the run."""
        ...


class Reading(Protocol):
    """What is read, and in which batches: what of a recipe counts (`vitlib.train.recipe`)."""

    @property
    def seed(self) -> int:
        """Of the order and of random crops."""
        ...

    @property
    def batch_size(self) -> int:
        """Images in each step, over all processes and parts together."""
        ...

    @property
    def accumulate(self) -> int:
        """Parts of a process's share."""
        ...

    @property
    def validation(self) -> float:
        """Part of the training images that is held out."""
        ...

    @property
    def augment(self) -> Augment:
        """Whose crop is made while decoding."""
        ...

    @property
    def engine(self) -> Workers:
        """How."""
        ...


class Batch(NamedTuple):
    """Images and labels, on the device.

    Attributes:
        images: (b, C, height, width), in [0, 1].
        labels: (b,), from 0 to K − 1; −1 where there is no image.
    """

    images: Float[Tensor, "b C height width"]
    labels: Int[Tensor, " b"]

    def split(self, parts: int) -> list["Batch"]:
        """The batch in so many equal parts."""
        size = len(self.labels) // parts
        pairs = zip(self.images.split(size), self.labels.split(size), strict=True)
        return [Batch(images, labels) for images, labels in pairs]


@dataclass(frozen=True)
class Share:
    """Which part of each batch a process gets.

    Attributes:
        batch_size: Over all processes and parts together.
        parts: That a process works through one after the other.
        rank: Of the process.
        count: Of all processes.
    """

    batch_size: int
    parts: int
    rank: int
    count: int

    def __post_init__(self):
        if self.batch_size % (self.count * self.parts):
            raise ValueError(
                f"batch_size is {self.batch_size}: expected a multiple of the {self.count} "
                f"processes times the {self.parts} parts (accumulate) of each."
            )

    def training(
        self, first: int, last: int, count: int, order: Callable[[int], Int[Tensor, " n"]]
    ) -> Iterator[tuple[int, Int[Tensor, " b"]]]:
        """Epoch and positions of each of the steps `first` to `last` − 1.

        Args:
            first: From 0.
            last: One more than the number of the last step.
            count: Of images.
            order: From an epoch to its order of all positions.
        """
        steps, size = count // self.batch_size, self.batch_size // self.count
        now, positions = -1, torch.empty(0, dtype=torch.int64)
        for step in range(first, last):
            epoch, number = divmod(step, steps)
            if epoch != now:
                now, positions = epoch, order(epoch)
            start = number * self.batch_size + self.rank * size
            yield epoch, positions[start : start + size]

    def held_out(self, count: int) -> Iterator[slice]:
        """The part of `count` images that each batch has; the last may be too few, or none."""
        size = self.held_out_size
        for start in range(0, count, size * self.count):
            mine = start + self.rank * size
            yield slice(mine, mine + size)

    def next_of(self, items: Iterator[T], size: int) -> tuple[int, list[T]]:
        """The process's own among the next items, when each process gets `size` of them.

        Returns:
            How many items there were for all processes, and the process's own.
        """
        seen, mine = 0, list[T]()
        for number, item in enumerate(islice(items, size * self.count)):
            seen = number + 1
            if number // size == self.rank:
                mine.append(item)
        return seen, mine

    @property
    def held_out_size(self) -> int:
        """Images at a time when there are no gradients: as many as when there are."""
        return self.batch_size // (self.count * self.parts)


def share_of(recipe: Reading, us: Processes, name: str, held: int) -> Share:
    """How the batches of a recipe are shared.

    Args:
        recipe: Its batch size, parts and validation count.
        us: The processes.
        name: Of the data.
        held: How many are kept out of training for validation.

    Raises:
        ValueError: The recipe does not fit the number of images or processes.
    """
    if recipe.validation and not held:
        raise ValueError(
            f"validation is {recipe.validation:g}: of no class of {name!r} is that a whole image. "
            "Keep more out, or nothing (0)."
        )
    return Share(recipe.batch_size, recipe.accumulate, us.rank, us.count)


def check_held(split: Split, count: int) -> None:
    """Raise ValueError if a split has no images."""
    if count == 0:
        raise ValueError(
            f"no images are kept out for {split}. Set validation to a part of the training images, "
            "such as 0.1."
        )
