"""Mixup and cutmix: each image of a batch mixed with the one before it, and its target with it.

    images x (B, C, height, width)   targets y (B, K), rows that sum to 1
    kept k (height, width): what part of each pixel stays, the same for the whole batch

    x'_b = k x_b + (1 − k) x_{b−1}        λ = mean of k        y'_b = λ y_b + (1 − λ) y_{b−1}

where x_{−1} is the last image. *Mixup* (Zhang et al. 2018) keeps the same part of every pixel, a λ
drawn from the distribution Beta(α, α). *Cutmix* (Yun et al. 2019) keeps all of a pixel or nothing:
a box is cut out, which has the image's aspect ratio, the part 1 − λ of its area and its centre
anywhere in the image. What of it lies outside is lost, so λ is counted again from the pixels that
are left. A small α mixes most batches hardly at all, α = 1 makes each λ as likely as any other.
"""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Edges = Float[Tensor, "*n"] | Int[Tensor, "*n"]


def mix(
    images: Float[Tensor, "B C height width"],
    targets: Float[Tensor, "B K"],
    generator: torch.Generator,
    *,
    mixup: float = 0.0,
    cutmix: float = 0.0,
) -> tuple[Float[Tensor, "B C height width"], Float[Tensor, "B K"]]:
    """A batch after mixup or cutmix; after one of the two by lot, each as likely, if both are on.

    Args:
        images: One batch.
        targets: What part of each image belongs to which class: a row of zeros and a single one
            for an image with a label.
        generator: On the images' device.
        mixup: Its α; 0 is off.
        cutmix: Its α; 0 is off.

    Returns:
        The mixed images and targets; with both off, the arguments, and nothing is drawn.
    """
    height, width = images.shape[2:]
    if mixup > 0 and cutmix > 0:
        # Both are drawn and one taken: a decision by `if` would have to wait for the device.
        cuts = torch.rand((), generator=generator, device=images.device) < 0.5
        faded = kept_by_mixup(mixup, height, width, generator)
        kept = torch.where(cuts, kept_by_cutmix(cutmix, height, width, generator), faded)
    elif mixup > 0:
        kept = kept_by_mixup(mixup, height, width, generator)
    elif cutmix > 0:
        kept = kept_by_cutmix(cutmix, height, width, generator)
    else:
        return images, targets
    part = kept.mean().to(targets.dtype)
    mixed = torch.lerp(images.roll(1, 0), images, kept)
    return mixed, torch.lerp(targets.roll(1, 0), targets, part)


def kept_by_mixup(
    alpha: float, height: int, width: int, generator: torch.Generator
) -> Float[Tensor, "height width"]:
    """One λ for all pixels of images of this height and width, on the generator's device."""
    return symmetric_beta(alpha, generator).expand(height, width)


def kept_by_cutmix(
    alpha: float, height: int, width: int, generator: torch.Generator
) -> Float[Tensor, "height width"]:
    """0 in a random box and 1 elsewhere, for images of this height and width."""
    part = (1 - symmetric_beta(alpha, generator)).sqrt()
    place = torch.rand(2, generator=generator, device=generator.device)
    edges: list[Tensor] = []
    for side, at in zip((height, width), place, strict=True):
        half = (side * part).floor() // 2
        centre = (side * at).floor()
        edges += [centre - half, centre + half]
    top, bottom, left, right = edges
    return (~box_mask(top, bottom, left, right, height, width)).float()


def symmetric_beta(alpha: float, generator: torch.Generator) -> Float[Tensor, ""]:
    """A number drawn from Beta(α, α), on the generator's device, without a loop that rejects.

    From u and v, uniform in [0, 1), Bailey's (1994) formula makes t = √(u^(−1/α) − 1) cos 2πv,
    and √(2α) t has Student's distribution with 2α degrees of freedom; then ½ + ½ t / √(1 + t²) has
    the distribution Beta(α, α) (Devroye 1996, "Random variate generation in one line of code").
    Multiplied out by w = u^(1/α), nothing overflows for small α.
    """
    u, v = torch.rand(2, generator=generator, device=generator.device)
    w, c = u ** (1 / alpha), torch.cos(2 * math.pi * v)
    return (0.5 + 0.5 * c * ((1 - w) / (w + (1 - w) * c**2)).sqrt()).clamp(0, 1)


def box_mask(
    top: Edges, bottom: Edges, left: Edges, right: Edges, height: int, width: int
) -> Bool[Tensor, "*n height width"]:
    """Which pixels lie in each box: rows from `top` to before `bottom`, columns alike."""
    rows = torch.arange(height, device=top.device)
    columns = torch.arange(width, device=top.device)
    in_rows = (rows >= top[..., None]) & (rows < bottom[..., None])
    in_columns = (columns >= left[..., None]) & (columns < right[..., None])
    return in_rows[..., :, None] & in_columns[..., None, :]
