"""Random boxes inside an image: what a crop keeps, or what erasing takes.

Each box has the area s · height · width and the aspect ratio a (its width over its height), both
random, sides in whole pixels, and a place uniform among those where it fits. There are two laws:

- `"resized"`, torchvision's and timm's RandomResizedCrop: s uniform, log a uniform;
- `"inception"`, TensorFlow's `sample_distorted_bounding_box`, which big_vision uses: a uniform, and
  the height, not the area, uniform from that of the smallest area to that of the largest that
  fits. Its crops are smaller: of a photograph of 375 × 500 pixels it keeps 37 % in the mean where
  the other law keeps 43 %, and 34 % with big_vision's smallest area of 5 %.

Both go back to Szegedy et al. (2015), *Going Deeper with Convolutions*, which gives areas uniform
from 8 to 100 % and aspect ratios from 3/4 to 4/3.
"""

import math
from typing import Literal

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn import functional

Law = Literal["resized", "inception"]

ASPECT = (3 / 4, 4 / 3)
"""Aspect ratios of crops, smallest and largest."""

_TRIES = 10


def resized_crop_box(
    height: int,
    width: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    generator: torch.Generator,
    law: Law = "resized",
) -> tuple[int, int, int, int]:
    """What to keep of one image: (top, left, height, width) of a box, in pixels.

    Args:
        height: Of the image, in pixels.
        width: Of the image, in pixels.
        scale: Smallest and largest area of the box, as parts of the image's.
        ratio: Smallest and largest aspect ratio (width over height).
        generator: On the CPU.
        law: See the module's text.
    """
    top, left, box_height, box_width = draw_boxes(1, height, width, scale, ratio, generator, law)[
        0
    ].tolist()
    return top, left, box_height, box_width


def draw_boxes(
    count: int,
    height: int,
    width: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    generator: torch.Generator,
    law: Law = "resized",
) -> Int[Tensor, "count 4"]:
    """Boxes (top, left, height, width) for `count` images of one size, on the generator's device.

    Of ten tries for each image, the first that fits is taken. Where none does, as may happen in a
    narrow image, it is the largest box about the centre that has an aspect ratio within `ratio`.
    """
    tries = torch.rand(count, _TRIES, 2, generator=generator, device=generator.device)
    place = torch.rand(count, 2, generator=generator, device=generator.device)
    if law == "resized":
        high, wide = _uniform_area(height * width, scale, ratio, *tries.unbind(2))
    else:
        high, wide = _uniform_height(height, width, scale, ratio, *tries.unbind(2))
    fits = (high >= 1) & (high <= height) & (wide >= 1) & (wide <= width)
    # The box for when nothing fits is a last try, which always does.
    high = functional.pad(high, (0, 1), value=max(1, min(height, round(width / ratio[0]))))
    wide = functional.pad(wide, (0, 1), value=max(1, min(width, round(height * ratio[1]))))
    fits = functional.pad(fits, (0, 1), value=True)
    first = fits.int().argmax(dim=1, keepdim=True)
    high, wide = high.gather(1, first)[:, 0], wide.gather(1, first)[:, 0]
    place = torch.where(first == _TRIES, 0.5, place)
    # Rounding may bring place · n up to n.
    top = torch.minimum((place[:, 0] * (height - high + 1)).floor(), height - high)
    left = torch.minimum((place[:, 1] * (width - wide + 1)).floor(), width - wide)
    return torch.stack([top, left, high, wide], dim=1).long()


def _uniform_area(
    area: int, scale: tuple[float, float], ratio: tuple[float, float], u: Tensor, v: Tensor
) -> tuple[Tensor, Tensor]:
    """Heights and widths of boxes of areas and logarithms of aspect ratios as uniform as u, v."""
    area_of_box = area * (scale[0] + (scale[1] - scale[0]) * u)
    aspect = torch.exp(math.log(ratio[0]) + math.log(ratio[1] / ratio[0]) * v)
    return (area_of_box / aspect).sqrt().round(), (area_of_box * aspect).sqrt().round()


def _uniform_height(
    height: int,
    width: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    u: Tensor,
    v: Tensor,
) -> tuple[Tensor, Tensor]:
    """Heights and widths of boxes of heights and aspect ratios as uniform as u and v."""
    aspect = ratio[0] + (ratio[1] - ratio[0]) * v
    lowest, highest = (
        (part * height * width / aspect).sqrt().round().clamp(max=height) for part in scale
    )
    highest = torch.minimum(highest, ((width + 0.5) / aspect).floor())
    lowest = torch.minimum(lowest, highest)
    high = torch.minimum(lowest + (u * (highest - lowest + 1)).floor(), highest)
    return high, (high * aspect).round()
