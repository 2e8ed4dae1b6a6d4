"""Where batches come from, whatever holds the images.

`ResidentFeed` has all images on the device; `LoadedFeed` decodes them in worker processes; so does
`StreamFeed`, for images that can only be had one after the other. Which images a process gets in
which step, `vitlib.train.batches` says.
"""

from collections.abc import Iterator
from typing import Protocol

import torch
from jaxtyping import Int
from torch import Tensor

from vitlib.config import ViTConfig
from vitlib.data import Collection, Dataset, Normalisation, Source, Stream
from vitlib.data.collection import hold_out
from vitlib.data.reader import NO_LABEL
from vitlib.data.seeds import generator_at
from vitlib.train.batches import ORDER, Batch, Reading, Split, check_held, share_of
from vitlib.train.loaded import LoadedFeed, StreamFeed
from vitlib.train.processes import Processes

__all__ = [
    "Batch",
    "Feed",
    "LoadedFeed",
    "ResidentFeed",
    "Split",
    "StreamFeed",
    "make_feed",
    "steps_of_epoch",
]


class Feed(Protocol):
    """Where batches come from.

    Attributes:
        name: Of the data.
        classes: The K names of the classes, in the order of the labels.
        normalisation: What the model sees is what it returns.
        bright_on_dark: See `vitlib.data.dataset.Dataset`.
        train_count: Images of an epoch, without those that are held out.
        crops: Whether training images come with the recipe's random crop already made.
        margin: Of images in files, on how much larger a size the whole of one is brought before the
            model's own is cut out of its middle (`vitlib.data.reader.CentreView`); None of others.
        notes: What the user should know about the data, one sentence each.
        faults: Damaged images met so far, by name, and what is wrong with each.
    """

    name: str
    classes: tuple[str, ...]
    normalisation: Normalisation
    bright_on_dark: bool
    train_count: int
    crops: bool
    margin: float | None
    notes: tuple[str, ...]
    faults: dict[str, str]

    def training(self, first: int, last: int) -> Iterator[Batch]:
        """This process's part of the batches of steps `first` to `last` − 1.

        Raises:
            ValueError: An image is damaged and the recipe strict, or no image can be read.
            ChildProcessError: A process that reads images was killed.
        """
        ...

    def held_out(self, split: Split) -> Iterator[Batch]:
        """Each image of a split once over all processes, in their order.

        All processes get the same number of batches, of the same size.

        Raises:
            ValueError: The recipe keeps nothing out for validation; an image is damaged and the
                recipe strict.
            ChildProcessError: A process that reads images was killed.
        """
        ...


class ResidentFeed:
    """A data set whose images are all on the device.

    Args:
        dataset: On any device.
        recipe: Its seed, batch size, parts and validation count.
        us: The processes.
    """

    crops = False
    margin: float | None = None
    notes: tuple[str, ...] = ()

    def __init__(self, dataset: Dataset, recipe: Reading, us: Processes) -> None:
        kept, held = hold_out(dataset.train_labels.cpu(), recipe.validation)
        self.name, self.classes = dataset.name, dataset.classes
        self.normalisation, self.bright_on_dark = dataset.normalisation, dataset.bright_on_dark
        self.train_count = len(kept)
        self.faults: dict[str, str] = {}
        self._share = share_of(recipe, us, self.name, len(held))
        self._seed = recipe.seed
        self._data = dataset.to(us.device)
        self._kept, self._held = kept.to(us.device), held.to(us.device)

    def training(self, first: int, last: int) -> Iterator[Batch]:
        """See `Feed`."""

        def order(epoch: int) -> Int[Tensor, " n"]:
            generator = generator_at("cpu", self._seed, ORDER, epoch)
            order = torch.randperm(self.train_count, generator=generator)
            return self._kept[order.to(self._kept.device)]

        for _, positions in self._share.training(first, last, self.train_count, order):
            yield Batch(self._data.train_images[positions], self._data.train_labels[positions])

    def held_out(self, split: Split) -> Iterator[Batch]:
        """See `Feed`."""
        data, size = self._data, self._share.held_out_size
        if split == "test":
            images, labels = data.test_images, data.test_labels
            positions = torch.arange(len(labels), device=labels.device)
        else:
            images, labels, positions = data.train_images, data.train_labels, self._held
        check_held(split, len(positions))
        for part in self._share.held_out(len(positions)):
            some = positions[part]
            batch = Batch(
                images.new_zeros(size, *images.shape[1:]), labels.new_full((size,), NO_LABEL)
            )
            batch.images[: len(some)], batch.labels[: len(some)] = images[some], labels[some]
            yield batch


def make_feed(source: Source, recipe: Reading, config: ViTConfig, us: Processes) -> Feed:
    """What feeds a run.

    Args:
        source: The data (`vitlib.data.open_source`).
        recipe: Its seed, batch size, parts, validation, augmentation and engine count.
        config: The model, whose size and channels images in files get; others must have them.
        us: The processes.

    Raises:
        ValueError: The images do not fit the model, or the recipe the images.
    """
    if isinstance(source, Collection):
        return LoadedFeed(source, recipe, config, us)
    if isinstance(source, Stream):
        return StreamFeed(source, recipe, config, us)
    takes = (config.in_channels, *config.image_shape)
    has = tuple(source.train_images.shape[1:])
    if takes != has:
        raise ValueError(
            f"the model takes images of (channels, height, width) {takes}, the data "
            f"{source.name!r} have {has}. Set in_channels and image_size to those of the data."
        )
    return ResidentFeed(source, recipe, us)


def steps_of_epoch(feed: Feed, batch_size: int) -> int:
    """How many whole batches the training images give.

    Raises:
        ValueError: Not a single one.
    """
    steps = feed.train_count // batch_size
    if steps == 0:
        raise ValueError(
            f"batch_size is {batch_size}, the data {feed.name!r} have {feed.train_count} training "
            "images. Choose a smaller batch (--batch-size)."
        )
    return steps
