"""Feeds that decode images in worker processes, ahead of the step that needs them."""

import math
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from torch.utils.data import Dataset

from vitlib.config import ViTConfig
from vitlib.data.collection import Collection, Picture, Pictures, divide, shuffled
from vitlib.data.dataset import Normalisation
from vitlib.data.hub import Stream
from vitlib.data.loading import load_batches
from vitlib.data.reader import (
    NO_IMAGE,
    NO_LABEL,
    CentreView,
    Place,
    RandomView,
    Read,
    Reader,
    Reads,
    StreamReader,
    View,
)
from vitlib.data.seeds import generator_at, seed_of
from vitlib.train.batches import ORDER, Batch, Reading, Split, T, check_held, share_of
from vitlib.train.processes import Processes

Placed = tuple[Place, Picture | None]

_MARGIN = 8 / 7  # of what a model trained on random boxes is tested on


class _Decoding:
    """What feeds have in common that decode images."""

    bright_on_dark = False

    def __init__(
        self, source: Collection | Stream, recipe: Reading, config: ViTConfig, us: Processes
    ) -> None:
        channels, size, augment = config.in_channels, config.image_shape, recipe.augment
        if channels not in (1, 3):
            raise ValueError(
                f"in_channels is {channels}: image files give 1 (grey) or 3 (colour). Set it to "
                "one of these."
            )
        self.name, self.classes, self.notes = source.name, source.classes, source.notes
        # [0, 1] to [-1, 1], as in the papers' own code: to measure is to decode all there is.
        self.normalisation = Normalisation(mean=(0.5,) * channels, std=(0.5,) * channels)
        self.crops = augment.crop in ("resized", "inception")
        self.faults: dict[str, str] = {}
        self._channels, self._seed, self._engine = channels, recipe.seed, recipe.engine
        self._device = us.device
        self.margin: float | None = _MARGIN if self.crops else 1.0
        self._test_view = CentreView(size, self.margin)
        self._view: View = self._test_view
        if augment.crop in ("resized", "inception"):
            self._view = RandomView(size, augment.crop_scale, augment.crop, recipe.seed)

    def _decoded(self, reader: Dataset[Read], places: Iterable[list[Any]]) -> Iterator[Reads]:
        """What is read at these places; what is damaged is noted, or stops the run."""
        workers, pin = self._engine.workers, self._device.type == "cuda"
        for reads in load_batches(reader, places, workers=workers, pin=pin):
            for name, why in reads.faults:
                if self._engine.strict:
                    raise ValueError(f"{name}: {why} Leave out --strict to go on without it.")
                self.faults.setdefault(name, why)
            yield reads

    def _batch(self, reads: Reads) -> Batch:
        images = reads.images.to(self._device, non_blocking=True)
        return Batch(images.float().div_(255), reads.labels.to(self._device, non_blocking=True))


class LoadedFeed(_Decoding):
    """Images in files, decoded in any order when they are needed.

    Args:
        collection: The images.
        recipe: Its seed, batch size, parts, validation, augmentation and engine count.
        config: The model, whose size and channels the images get.
        us: The processes.
    """

    def __init__(
        self, collection: Collection, recipe: Reading, config: ViTConfig, us: Processes
    ) -> None:
        super().__init__(collection, recipe, config, us)
        self._train, validation = divide(collection.train, recipe.validation)
        self._held: dict[Split, Pictures] = {"validation": validation, "test": collection.test}
        self.train_count = len(self._train.labels)
        self._share = share_of(recipe, us, self.name, len(validation.labels))

    def training(self, first: int, last: int) -> Iterator[Batch]:
        """See `Feed`."""

        def order(epoch: int) -> Int[Tensor, " n"]:
            return shuffled(self._train, generator_at("cpu", self._seed, ORDER, epoch))

        places = (
            [Place(epoch, number) for number in positions.tolist()]
            for epoch, positions in self._share.training(first, last, self.train_count, order)
        )
        reader = Reader(self._train, self._channels, self._view, replace=True)
        for reads in self._decoded(reader, places):
            if (reads.labels == NO_LABEL).any():
                name, why = reads.faults[0]
                raise ValueError(f"{name}: {why} Nor can the images after it be read.")
            yield self._batch(reads)

    def held_out(self, split: Split) -> Iterator[Batch]:
        """See `Feed`."""
        pictures, size = self._held[split], self._share.held_out_size
        count = len(pictures.labels)
        check_held(split, count)
        places = (
            _filled([Place(0, number) for number in range(count)[part]], size, Place(0, NO_IMAGE))
            for part in self._share.held_out(count)
        )
        reader = Reader(pictures, self._channels, self._test_view, replace=False)
        for reads in self._decoded(reader, places):
            yield self._batch(reads)


class StreamFeed(_Decoding):
    """Images that come one after the other.

    Each process reads the whole stream and decodes its own part of it; to go on in the middle of an
    epoch, what came before is read but not decoded. In place of a damaged image, another one of the
    same batch is taken.

    Args:
        stream: The images.
        recipe: Its seed, batch size, parts, augmentation and engine count.
        config: The model, whose size and channels the images get.
        us: The processes.
    """

    def __init__(self, stream: Stream, recipe: Reading, config: ViTConfig, us: Processes) -> None:
        super().__init__(stream, recipe, config, us)
        if recipe.validation:
            raise ValueError(
                f"validation is {recipe.validation:g}: nothing can be kept out of {stream.name}, "
                "which comes as it likes. Set validation to 0, or use hf: for hf-stream:."
            )
        self._stream, self.train_count = stream, stream.train_count
        self._share = share_of(recipe, us, self.name, 0)

    def training(self, first: int, last: int) -> Iterator[Batch]:
        """See `Feed`."""
        reader = StreamReader(self._channels, self._view)
        for reads in self._decoded(reader, self._training_places(first, last)):
            readable = (reads.labels != NO_LABEL).nonzero().flatten()
            if len(readable) == 0:
                name, why = reads.faults[0]
                raise ValueError(f"{name}: {why} Nor can the rest of its batch be read.")
            rows = torch.arange(len(reads.labels))
            damaged = reads.labels == NO_LABEL
            rows[damaged] = readable[rows[damaged] % len(readable)]
            yield self._batch(reads._replace(images=reads.images[rows], labels=reads.labels[rows]))

    def held_out(self, split: Split) -> Iterator[Batch]:
        """See `Feed`."""
        if split == "validation":
            check_held(split, 0)
        reader = StreamReader(self._channels, self._test_view)
        for reads in self._decoded(reader, self._test_places()):
            yield self._batch(reads)

    def _training_places(self, first: int, last: int) -> Iterator[list[Placed]]:
        size = self._share.batch_size
        steps = self.train_count // size
        for epoch in range(first // steps, math.ceil(last / steps)):
            pictures = self._stream.training(seed_of(self._seed, ORDER, epoch))
            placed = _placed(epoch, pictures)
            start, stop = max(first - epoch * steps, 0), min(last - epoch * steps, steps)
            next(islice(placed, start * size, start * size), None)  # what came before
            for number in range(start, stop):
                seen, mine = self._share.next_of(placed, size // self._share.count)
                if seen < size:
                    raise ValueError(
                        f"{self.name}: ended before image {(number + 1) * size:,} of the "
                        f"{self.train_count:,} that were promised. Start a new run if they have "
                        "changed."
                    )
                yield mine

    def _test_places(self) -> Iterator[list[Placed]]:
        size = self._share.held_out_size
        placed = _placed(0, self._stream.testing())
        while True:
            seen, mine = self._share.next_of(placed, size)
            if seen == 0:
                return
            yield _filled(mine, size, (Place(0, NO_IMAGE), None))


def _placed(epoch: int, pictures: Iterator[Picture]) -> Iterator[Placed]:
    return ((Place(epoch, number), picture) for number, picture in enumerate(pictures))


def _filled(items: list[T], size: int, item: T) -> list[T]:
    """Items, followed by as many as are missing."""
    return items + [item] * (size - len(items))
