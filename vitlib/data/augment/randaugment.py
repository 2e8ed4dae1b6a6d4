"""RandAugment (Cubuk et al. 2020) as big_vision does it, with its 16 operations and magnitudes.

Each image goes through `layers` operations one after the other, each drawn by lot from all 16. With
the magnitude M, from 0 to 30, and m = M / 10:

| operation | what it does |
|---|---|
| autocontrast, equalise, invert | the same for every M |
| rotate | by ± 30 m degrees about the centre |
| posterise | to ⌊4 m⌋ bits, 8 at most |
| solarise | from level ⌊256 m⌋ modulo 256 up: at M = 10 all is inverted, at M = 15 from level 128 |
| colour, contrast, brightness, sharpness | by the factor 0.1 + 1.8 m: more of it from M = 5 up |
| shear_x, shear_y | by ± 0.3 m about the top left corner |
| translate_x, translate_y | by ± m · 100/224 of the side |
| cutout | a grey square about a random pixel, of ± m · 40/224 of the shorter side |
| solarise_add | levels below 128 grow by ⌊110 m⌋ |

Signs are random. What comes from outside an image, and what is cut out, is grey (128). Turned,
sheared or moved, a pixel takes the value of the nearest old one.

Two things are not as in big_vision. It moves images by 100 m pixels and cuts ± 40 m at any size;
here these are parts of the side, the same for its 224 pixels. And its contrast blends with the
level height · width / 256 where Pillow's, and ours, blends with the image's mean, as was meant
(github.com/google-research/big_vision/issues/109). Solarising modulo 256 is what its unsigned bytes
do (issue 110). RandAugment as printed, and as in torchvision, has neither invert, cutout nor
solarise_add, but an operation that does nothing, and other magnitudes.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from vitlib.data.augment.colour import (
    Images,
    autocontrast,
    blend,
    equalise,
    grey,
    mean_of_grey,
    posterise,
    smooth,
    solarise,
    solarise_add,
)
from vitlib.data.mixing import box_mask

Operation = Callable[[Tensor, Tensor, Tensor], Tensor]
Entry = Float[Tensor, " n"] | float

GREY = 128 / 255


def randaugment(images: Images, layers: int, magnitude: int, generator: torch.Generator) -> Images:
    """Each image through its own `layers` operations, with its own signs and places.

    Args:
        images: In [0, 1], of 1 or 3 channels.
        layers: How many operations each image goes through.
        magnitude: M, from 0 to 30.
        generator: On the images' device.
    """
    every = operations(magnitude)
    batch, device = len(images), images.device
    choices = torch.randint(len(every), (layers, batch), generator=generator, device=device)
    signs = 2.0 * torch.randint(2, (layers, batch), generator=generator, device=device) - 1
    centres = torch.rand(layers, batch, 2, generator=generator, device=device)
    for choice, sign, centre in zip(choices.tolist(), signs, centres, strict=True):
        images = each_its_own(images, choice, list(every.values()), sign, centre)
    return images


def each_its_own(
    images: Images,
    choice: Sequence[int],
    functions: Sequence[Callable[..., Tensor]],
    *drawn: Tensor,
) -> Images:
    """Image i after ``functions[choice[i]]``, which works on all the images that chose it.

    Args:
        images: One batch.
        choice: The number of a function for each image.
        functions: Each takes some images and the rows of `drawn` that are theirs.
        drawn: What was drawn for the images, a row for each.
    """
    changed = torch.empty_like(images)
    for number, function in enumerate(functions):
        chose = [i for i, chosen in enumerate(choice) if chosen == number]
        if chose:
            these = torch.tensor(chose, device=images.device)
            changed[these] = function(images[these], *(rows[these] for rows in drawn))
    return changed


def operations(magnitude: int) -> Mapping[str, Operation]:
    """The 16 operations by name, in big_vision's order.

    Each takes images (n, C, height, width), their signs (n,), which are −1 or 1, and places (n, 2),
    where in the image a centre is, as parts of height and width.
    """
    m = magnitude / 10
    factor = 1.8 * m + 0.1
    return {
        "autocontrast": lambda x, *_: autocontrast(x),
        "equalise": lambda x, *_: equalise(x),
        "invert": lambda x, *_: 1 - x,
        "rotate": lambda x, sign, _: rotate(x, 30 * m * sign),
        "posterise": lambda x, *_: posterise(x, min(8, int(4 * m))),
        "solarise": lambda x, *_: solarise(x, int(256 * m) % 256),
        "colour": lambda x, *_: blend(x, grey(x), factor),
        "contrast": lambda x, *_: blend(x, mean_of_grey(x), factor),
        "brightness": lambda x, *_: blend(x, torch.zeros_like(x), factor),
        "sharpness": lambda x, *_: blend(x, smooth(x), factor),
        "shear_x": lambda x, sign, _: resample(x, 1, 0.3 * m * sign, 0, 0, 1, 0),
        "shear_y": lambda x, sign, _: resample(x, 1, 0, 0, 0.3 * m * sign, 1, 0),
        "translate_x": lambda x, sign, _: resample(
            x, 1, 0, m * 100 / 224 * x.shape[3] * sign, 0, 1, 0
        ),
        "translate_y": lambda x, sign, _: resample(
            x, 1, 0, 0, 0, 1, m * 100 / 224 * x.shape[2] * sign
        ),
        "cutout": lambda x, _, place: cutout(x, place, m * 40 / 224),
        "solarise_add": lambda x, *_: solarise_add(x, int(110 * m)),
    }


def rotate(images: Images, degrees: Float[Tensor, " n"]) -> Images:
    """Each image turned about its centre by its own angle."""
    cos, sin = torch.cos(torch.deg2rad(degrees)), torch.sin(torch.deg2rad(degrees))
    y, x = ((side - 1) / 2 for side in images.shape[2:])
    return resample(images, cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y)


def resample(
    images: Images,
    a: Entry,
    b: Entry,
    c: Entry,
    d: Entry,
    e: Entry,
    f: Entry,
) -> Images:
    """New pixel (x, y) takes the value of the old one nearest to (a x + b y + c, d x + e y + f).

    Coordinates count pixels from the centre of the top left one. Each entry of the matrix is a
    number, or one number for each image (n,). Outside the image, all is grey.
    """
    height, width = images.shape[2:]
    y = torch.arange(height, device=images.device)[:, None]
    x = torch.arange(width, device=images.device)
    a, b, c, d, e, f = (
        entry[:, None, None] if isinstance(entry, Tensor) else entry for entry in (a, b, c, d, e, f)
    )
    column = (a * x + b * y + c + 0.5).floor().long()
    row = (d * x + e * y + f + 0.5).floor().long()
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    source = (row.clamp(0, height - 1) * width + column.clamp(0, width - 1)).flatten(1)
    moved = images.flatten(2).gather(2, source[:, None].expand(-1, images.shape[1], -1))
    return torch.where(inside[:, None], moved.view(images.shape), GREY)


def cutout(images: Images, place: Float[Tensor, "n 2"], part: float) -> Images:
    """A grey square about the pixel at `place`, of `part` of the shorter side in each direction."""
    height, width = images.shape[2:]
    row, column = (place[:, 0] * height).floor(), (place[:, 1] * width).floor()
    reach = round(part * min(height, width))
    square = box_mask(row - reach, row + reach, column - reach, column + reach, height, width)
    return torch.where(square[:, None], GREY, images)
