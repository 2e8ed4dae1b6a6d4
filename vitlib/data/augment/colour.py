"""Colours of images in [0, 1], in batches, by Pillow's rules for pictures of 8 bits.

Where a rule counts in levels from 0 to 255, a value counts as the nearest level; nothing else is
rounded. Images of one channel are grey already: `grey` returns them as they are, and what blends
with it, such as a change of saturation, leaves them alone.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

Images = Float[Tensor, "B C height width"]


def grey(images: Images) -> Float[Tensor, "B 1 height width"]:
    """The luminance of ITU-R BT.601: 0.299 red + 0.587 green + 0.114 blue.

    Raises:
        ValueError: Images have neither 1 channel (grey) nor 3 (red, green, blue).
    """
    if images.shape[1] == 1:
        return images
    if images.shape[1] != 3:
        raise ValueError(
            f"images have {images.shape[1]} channels: changes of colour need 1 (grey) or 3 (red, "
            "green, blue)."
        )
    red, green, blue = images.split(1, dim=1)
    return 0.299 * red + 0.587 * green + 0.114 * blue


def blend(images: Images, other: Tensor, factor: Float[Tensor, "B 1 1 1"] | float) -> Images:
    """`factor` parts of the images and 1 − `factor` of the other, clamped to [0, 1].

    A factor above 1 leads away from the other. With black as the other it changes brightness, with
    the mean of the grey image contrast, with the grey image saturation, with the smoothed image
    sharpness.
    """
    return (other + factor * (images - other)).clamp(0, 1)


def mean_of_grey(images: Images) -> Float[Tensor, "B 1 1 1"]:
    """The mean of each image's luminance."""
    return grey(images).mean((1, 2, 3), keepdim=True)


def solarise(images: Images, threshold: int) -> Images:
    """Values from level `threshold` up are inverted."""
    return torch.where(images < (threshold - 0.5) / 255, images, 1 - images)


def solarise_add(images: Images, amount: int) -> Images:
    """Values below level 128 grow by `amount` levels, to white at most."""
    return torch.where(images < 127.5 / 255, (images + amount / 255).clamp(max=1), images)


def posterise(images: Images, bits: int) -> Images:
    """Levels keep their `bits` highest bits, 0 to 8; the others become zero."""
    step = 2 ** (8 - bits)
    return (_levels(images) / step).floor() * step / 255


def autocontrast(images: Images) -> Images:
    """Each channel of each image stretched to run from 0 to 1, unless it has one value only."""
    low, high = images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)
    return torch.where(high > low, (images - low) / (high - low), images)


def equalise(images: Images) -> Images:
    """Each channel's levels spread so that all are about equally frequent.

    As in Pillow, whole numbers of pixels count: a channel of less than 256 pixels stays as it is.
    """
    batch, channels, height, width = images.shape
    levels = _levels(images).long().flatten(2).flatten(0, 1)
    count = torch.zeros(batch * channels, 256, dtype=torch.long, device=images.device)
    count.scatter_add_(1, levels, torch.ones_like(levels))
    # The brightest level that occurs needs no room above it.
    brightest = count.gather(1, levels.amax(1, keepdim=True))
    step = (height * width - brightest) // 255
    darker = count.cumsum(1) - count
    table = ((darker + step // 2) // step.clamp(min=1)).clamp(0, 255)
    spread = table.gather(1, levels).view(images.shape) / 255
    return torch.where((step > 0).view(batch, channels, 1, 1), spread, images)


def smooth(images: Images) -> Images:
    """Each pixel averaged with its eight neighbours, itself counting five times; borders stay."""
    if min(images.shape[2:]) < 3:
        return images
    inner = images[..., 1:-1, 1:-1]
    smoothed = images.clone()
    smoothed[..., 1:-1, 1:-1] = (9 * functional.avg_pool2d(images, 3, stride=1) + 4 * inner) / 13
    return smoothed


def gaussian_blur(images: Images, deviation: Float[Tensor, " B"]) -> Images:
    """Each image blurred with a Gaussian of its own standard deviation, in pixels, at most 2.

    The kernel ends at 6 pixels; beyond the border, the border's values go on.
    """
    reach = 6
    batch, channels = images.shape[:2]
    offsets = torch.arange(-reach, reach + 1, device=images.device)
    kernels = torch.exp(-0.5 * (offsets / deviation[:, None]) ** 2)
    kernels = (kernels / kernels.sum(1, keepdim=True)).repeat_interleave(channels, dim=0)
    # Each channel of each image is a group of its own: first down its columns, then along its rows.
    blurred = functional.pad(images.flatten(0, 1)[None], (reach,) * 4, mode="replicate")
    for kernel in (kernels[:, None, :, None], kernels[:, None, None, :]):
        blurred = functional.conv2d(blurred, kernel, groups=batch * channels)
    return blurred.reshape(images.shape).clamp(0, 1)


def _levels(images: Images) -> Images:
    return (255 * images).round()
