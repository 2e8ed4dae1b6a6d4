"""Images decoded when their turn comes, in whatever process.

What becomes of image i in epoch e is drawn from (seed, e, i) alone, so that it does not matter
which process decodes it, when, and what it did before.

*Views.* Either a box is cropped at random and enlarged to the model's size (`RandomView`), or the
shorter side is brought to the model's size and the centre kept (`CentreView`). A model trained on
random boxes has seen things enlarged; it is tested with the shorter side brought to 8/7 of its
size, 224 pixels of 256, and the centre kept. Other models are tested as they were trained.

*Damage.* An image that cannot be decoded is reported. In training the next one takes its place, so
that each batch is whole; in a test its label becomes `NO_LABEL`, and it does not count.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.utils.data import Dataset

from vitlib.data.augment.boxes import ASPECT, Law, resized_crop_box
from vitlib.data.collection import Picture, Pictures
from vitlib.data.images import Cut, decode
from vitlib.data.seeds import generator_at

NO_LABEL = -1
"""Of what stands in a batch for an image that is not there."""

NO_IMAGE = -1
"""Number of an image that is not there: what fills up a batch."""

_BOX = 4  # the place of a box among what a run draws, beside epoch and image
_PATIENCE = 100  # damaged images in a row, after which the data are taken to be gone


class Place(NamedTuple):
    """When an image is read.

    Attributes:
        epoch: From 0.
        number: Of the image, from 0; or `NO_IMAGE`.
    """

    epoch: int
    number: int


class Read(NamedTuple):
    """What reading an image gave.

    Attributes:
        image: (C, height, width), from 0 to 255; zeros if there is none.
        label: From 0 to K − 1; `NO_LABEL` if there is no image.
        faults: Name of each damaged image that was met, and what was wrong with it.
    """

    image: UInt8[Tensor, "C height width"]
    label: int
    faults: tuple[tuple[str, str], ...] = ()


class Reads(NamedTuple):
    """Images read, one after the other.

    Attributes:
        images: (b, C, height, width), from 0 to 255.
        labels: (b,), `NO_LABEL` where there is no image.
        faults: See `Read`.
    """

    images: UInt8[Tensor, "b C height width"]
    labels: Int[Tensor, " b"]
    faults: tuple[tuple[str, str], ...]


class View(Protocol):
    """What is kept of an image.

    Attributes:
        size: Height and width of the result, in pixels: the centre of what is read.
    """

    @property
    def size(self) -> tuple[int, int]:
        """See above."""
        ...

    def __call__(self, place: Place, height: int, width: int) -> Cut:
        """What is read of the image of a place that has this height and width."""
        ...


@dataclass(frozen=True)
class CentreView:
    """The centre of an image, the same each time.

    Attributes:
        size: Height and width of what is kept, in pixels.
        margin: Factor on these to which the image is resized before its border is cut off.
    """

    size: tuple[int, int]
    margin: float = 1.0

    def __call__(self, place: Place, height: int, width: int) -> Cut:
        """The whole image, to be resized with the rounding of torchvision's transforms.

        Of an image that is more than four times too long, only the middle is read: a line of
        pixels would otherwise become very large.
        """
        high, wide = (round(side * self.margin) for side in self.size)
        rows = min(height, max(1, 4 * width * high // wide))
        columns = min(width, max(1, 4 * height * wide // high))
        if high * columns >= wide * rows:
            wide = high * columns // rows
        else:
            high = wide * rows // columns
        return Cut((height - rows) // 2, (width - columns) // 2, rows, columns, (high, wide))


@dataclass(frozen=True)
class RandomView:
    """A random box (`vitlib.data.augment.boxes`), drawn for each image in each epoch.

    Attributes:
        size: Height and width to which the box is resized, in pixels.
        scale: Smallest and largest area of the box, as parts of the image's.
        law: Of the box.
        seed: Of the run.
    """

    size: tuple[int, int]
    scale: tuple[float, float]
    law: Law
    seed: int

    def __call__(self, place: Place, height: int, width: int) -> Cut:
        """A box for this image in this epoch."""
        generator = generator_at("cpu", self.seed, _BOX, *place)
        box = resized_crop_box(height, width, self.scale, ASPECT, generator, self.law)
        return Cut(*box, self.size)


@dataclass(frozen=True)
class Reader(Dataset[Read]):
    """Pictures, decoded.

    Attributes:
        pictures: From which `Place.number` takes one.
        channels: 1 for grey, 3 for colour.
        view: What is kept of each.
        replace: Put the next readable image in place of one that is damaged; if there is none
            among the hundred from it on, the data are gone, and so is the label.
    """

    pictures: Pictures
    channels: int
    view: View
    replace: bool

    def __getitem__(self, place: Place) -> Read:
        """The image of a place."""
        if place.number == NO_IMAGE:
            return _nothing(self.channels, self.view.size)
        count = len(self.pictures.labels)
        read = self._read(place)
        faults = [*read.faults]
        while self.replace and read.label == NO_LABEL and len(faults) < min(_PATIENCE, count):
            place = Place(place.epoch, (place.number + 1) % count)
            read = self._read(place)
            faults += read.faults
        return read._replace(faults=tuple(faults))

    def _read(self, place: Place) -> Read:
        try:
            picture = self.pictures[place.number]
        except OSError as error:
            name, why = error.filename or f"image {place.number}", error.strerror or str(error)
            return _nothing(self.channels, self.view.size, (name, f"{why}."))
        return read_picture(picture, place, self.channels, self.view)


class StreamReader(Dataset[Read]):
    """Pictures that come with their place, decoded.

    Args:
        channels: 1 for grey, 3 for colour.
        view: What is kept of each.
    """

    def __init__(self, channels: int, view: View) -> None:
        self._channels, self._view = channels, view

    def __getitem__(self, placed: tuple[Place, Picture | None]) -> Read:
        """The image, at its place, if there is one."""
        place, picture = placed
        if picture is None:
            return _nothing(self._channels, self._view.size)
        return read_picture(picture, place, self._channels, self._view)


def read_picture(picture: Picture, place: Place, channels: int, view: View) -> Read:
    """Decode what the view keeps of a picture, or say why that cannot be done."""
    try:
        pixels = decode(picture.source, picture.name, channels=channels, cut=partial(view, place))
    except (OSError, ValueError) as error:
        why = str(error).removeprefix(f"{picture.name}: ")
        return _nothing(channels, view.size, (picture.name, why))
    return Read(_centre(pixels, view.size), picture.label)


def view_file(path: Path, *, channels: int, view: View) -> Float[Tensor, "C height width"]:
    """What a view keeps of an image file, in [0, 1].

    Args:
        path: The file.
        channels: 1 for grey, 3 for colour.
        view: What is kept of it.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no image, damaged, or of a kind that cannot be read safely.
    """
    cut = partial(view, Place(0, 0))
    pixels = decode(path, str(path), channels=channels, cut=cut)
    return _centre(pixels, view.size).float().div(255)


def _centre(
    pixels: UInt8[Tensor, "C above below"], size: tuple[int, int]
) -> UInt8[Tensor, "C height width"]:
    height, width = size
    top, left = round((pixels.shape[1] - height) / 2), round((pixels.shape[2] - width) / 2)
    return pixels[:, top : top + height, left : left + width]


def _nothing(channels: int, size: tuple[int, int], *faults: tuple[str, str]) -> Read:
    return Read(torch.zeros(channels, *size, dtype=torch.uint8), NO_LABEL, faults)


def collate(reads: Sequence[Read]) -> Reads:
    """Several images in one batch."""
    return Reads(
        torch.stack([read.image for read in reads]),
        torch.tensor([read.label for read in reads]),
        tuple(fault for read in reads for fault in read.faults),
    )
