"""Coloured shapes on textured ground, drawn by us, so that the truth about each image is known.

Six classes, each turned, placed, sized and coloured at random. Lengths are drawn as parts of the
image's shorter side, so that the same seed gives the same pictures at another size.

*Edges.* A pixel whose centre has the signed distance f to the outline (`vitlib.data.outlines`, here
in pixels) takes the part clamp(½ − f, 0, 1) of the shape's colour: exactly what an upright or level
edge covers of it, nearly what others do.

*Ground.* A dull colour, darkened at each point by a weighted mean of plane waves of random
direction, wavelength and phase: stripes where one wave prevails, blotches where none does.

*Colours.* A shape has saturation ≥ 0.8 and value ≥ 0.65 (the largest of its RGB values), the ground
everywhere saturation ≤ 0.25 and value ≤ 0.85. So the extremes of a shape's RGB values are at least
0.52 apart, those of the ground at most 0.2125, and in one channel at least the two differ by half
of what is between, 0.15 and more. Neither is always the brighter.

*Coordinates* run in pixels from the top left corner of the image, row first: pixel (i, j) has its
centre at (i + ½, j + ½).
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from vitlib.config import Size, check_whole, sides
from vitlib.data.dataset import Dataset, Normalisation
from vitlib.data.outlines import OUTLINES

CLASSES = tuple(OUTLINES)
SMALLEST = 16  # pixels: below, a star is no star
RADIUS = (0.22, 0.42)  # as parts of the shorter side
MARGIN = 1 / 32  # between shape and border, at least: half a pixel of the smallest image
CYCLES = (1.5, 6.0)  # of a wave, on the length of the shorter side
WAVES = 4
_BLOCK = 2**20  # pixels worked on at a time


@dataclass(frozen=True)
class Shapes:
    """Images and the truth about them.

    Attributes:
        images: (n, 3, height, width), RGB in [0, 1].
        labels: (n,), positions in `CLASSES`; six images after six, each class comes once.
        masks: (n, height, width), the part of each pixel that the shape covers, in [0, 1].
        centres: (n, 2), row and column of the centre, in pixels. It is covered, unless in a ring.
        radii: (n,), of the smallest circle about the centre that holds the shape, in pixels.
        angles: (n,), by which the shape is turned clockwise, in radians from 0 to 2π.
        colours: (n, 3), RGB of the shape.
    """

    images: Float[Tensor, "n 3 height width"]
    labels: Int[Tensor, " n"]
    masks: Float[Tensor, "n height width"]
    centres: Float[Tensor, "n 2"]
    radii: Float[Tensor, " n"]
    angles: Float[Tensor, " n"]
    colours: Float[Tensor, "n 3"]


def draw(count: int, *, size: Size = 32, seed: int = 0) -> Shapes:
    """Draw images of one shape each.

    The same seed gives the same images; of a larger `count` these are the first.

    Args:
        count: How many images.
        size: Of each in pixels, one number for a square or (height, width); 16 at least.
        seed: Decides everything else, from 0 to 2⁶⁴ − 1.

    Raises:
        ValueError: A number is out of its range.
        TypeError: A number is not whole.
    """
    check_whole("count", count)
    check_whole("seed", seed, least=0, most=2**64 - 1)
    height, width = sides("size", size)
    short = min(height, width)
    if short < SMALLEST:
        raise ValueError(
            f"size={size!r}: expected at least {SMALLEST} pixels a side, to tell shapes apart."
        )

    # Row i of each array is image i's, and rows are drawn in order: more rows change none of them.
    order, scenes, grounds = np.random.default_rng(seed).spawn(3)
    labels = _shuffled_classes(order, count)
    row, column, radius, turn, contrast, *colour = _uniform(scenes, count, 11).unbind(1)
    radii = short * _between(*RADIUS, radius)
    reach = radii + short * MARGIN
    centres = torch.stack(
        [_between(reach, height - reach, row), _between(reach, width - reach, column)], dim=1
    )
    angles = _between(0, 2 * math.pi, turn)
    hue, saturation, value = colour[:3]
    colours = _rgb(hue, _between(0.8, 1, saturation), _between(0.65, 1, value))
    hue, saturation, value = colour[3:]
    dull = _rgb(hue, _between(0, 0.25, saturation), _between(0.4, 0.85, value))
    contrast = _between(0.3, 0.7, contrast)
    waves = _uniform(grounds, count, WAVES, 4)

    images, masks = torch.empty(count, 3, height, width), torch.empty(count, height, width)
    for part in torch.arange(count).split(max(1, _BLOCK // (height * width))):
        masks[part] = _cover(labels[part], centres[part], radii[part], angles[part], height, width)
        shade = 1 - contrast[part, None, None] * _texture(waves[part], height, width)
        ground = dull[part, :, None, None] * shade[:, None]
        images[part] = torch.lerp(ground, colours[part, :, None, None], masks[part][:, None])
    return Shapes(images, labels, masks, centres, radii, angles, colours)


def load(count: int = 4000, test_count: int = 1000, size: Size = 32, seed: int = 0) -> Dataset:
    """Shapes to train and to test on.

    The training images are those of `draw` with the seed 2 · `seed`, the test images those with
    2 · `seed` + 1.

    Args:
        count: How many images to train on.
        test_count: How many images to test on.
        size: Of each in pixels, one number for a square or (height, width); 16 at least.
        seed: Decides everything else, from 0 to 2⁶³ − 1.

    Raises:
        ValueError: A number is out of its range.
        TypeError: A number is not whole.
    """
    check_whole("test_count", test_count)
    check_whole("seed", seed, least=0, most=2**63 - 1)
    train = draw(count, size=size, seed=2 * seed)
    test = draw(test_count, size=size, seed=2 * seed + 1)
    return Dataset(
        name="shapes",
        train_images=train.images,
        train_labels=train.labels,
        test_images=test.images,
        test_labels=test.labels,
        classes=CLASSES,
        normalisation=Normalisation.of(train.images),
        bright_on_dark=False,
    )


def _uniform(generator: np.random.Generator, *shape: int) -> Tensor:
    return torch.from_numpy(generator.random(shape)).float()


def _between(low: Tensor | float, high: Tensor | float, part: Tensor) -> Tensor:
    return low + (high - low) * part


def _shuffled_classes(generator: np.random.Generator, count: int) -> Int[Tensor, " count"]:
    """Every class once in random order, then every class again, and so on."""
    keys = generator.random((math.ceil(count / len(CLASSES)), len(CLASSES)))
    return torch.from_numpy(keys.argsort(axis=1).reshape(-1)[:count])


def _rgb(
    hue: Float[Tensor, " n"], saturation: Float[Tensor, " n"], value: Float[Tensor, " n"]
) -> Float[Tensor, "n 3"]:
    """Red, green and blue of colours in hue (a part of the circle from red to red), HSV."""
    offset = (torch.tensor([5.0, 3.0, 1.0]) + 6 * hue[:, None]) % 6
    lack = torch.minimum(offset, 4 - offset).clamp(0, 1)
    return value[:, None] * (1 - saturation[:, None] * lack)


def _cover(
    labels: Int[Tensor, " n"],
    centres: Float[Tensor, "n 2"],
    radii: Float[Tensor, " n"],
    angles: Float[Tensor, " n"],
    height: int,
    width: int,
) -> Float[Tensor, "n height width"]:
    """The part of each pixel that the shape covers."""
    y = (torch.arange(height) + 0.5)[:, None] - centres[:, 0, None, None]
    x = (torch.arange(width) + 0.5) - centres[:, 1, None, None]
    cos, sin = torch.cos(angles)[:, None, None], torch.sin(angles)[:, None, None]
    radii = radii[:, None, None]
    x, y = (cos * x + sin * y) / radii, (cos * y - sin * x) / radii
    distance = torch.empty_like(x)
    for label, name in enumerate(CLASSES):
        these = labels == label
        distance[these] = OUTLINES[name](x[these], y[these])
    return (0.5 - radii * distance).clamp(0, 1)


def _texture(
    waves: Float[Tensor, "n waves 4"], height: int, width: int
) -> Float[Tensor, "n height width"]:
    """Values in [0, 1], from four numbers for each wave: direction, cycles, phase and weight."""
    short = min(height, width)
    y = (torch.arange(height) + 0.5)[:, None] / short
    x = (torch.arange(width) + 0.5) / short
    total, weights = torch.zeros(len(waves), height, width), torch.zeros(len(waves), 1, 1)
    for wave in waves.unbind(1):
        direction, cycles, phase, weight = wave[:, :, None, None].unbind(1)
        direction, cycles = math.pi * direction, _between(*CYCLES, cycles)
        turns = cycles * (torch.cos(direction) * x + torch.sin(direction) * y) + phase
        total += weight * torch.cos(2 * math.pi * turns)
        weights += weight
    return (1 + total / weights) / 2
