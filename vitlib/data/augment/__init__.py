"""Augmentation in batches, on the device where the images are.

`Augment` holds all that a recipe can switch on. Whatever is random is drawn from a generator that
the caller passes, for each image its own, so that a seed decides everything and no image's fate
depends on its neighbours'; only mixup and cutmix treat a batch alike.
"""

from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from vitlib.config import check_whole
from vitlib.data.augment.boxes import ASPECT, draw_boxes, resized_crop_box
from vitlib.data.augment.colour import Images, blend, gaussian_blur, grey, mean_of_grey, solarise
from vitlib.data.augment.randaugment import each_its_own, randaugment
from vitlib.data.augment.warp import Warp
from vitlib.data.mixing import box_mask, mix

__all__ = ["ASPECT", "Augment", "Crop", "Warp", "resized_crop_box"]

Crop = Literal["none", "pad", "resized", "inception"]

_CROPS: tuple[Crop, ...] = ("none", "pad", "resized", "inception")
_BLUR = (0.1, 2.0)  # pixels, DeiT III's
_ERASED = (0.02, 1 / 3)  # parts of the image, timm's
_ERASED_ASPECT = (0.3, 1 / 0.3)


@dataclass(frozen=True, kw_only=True)
class Augment:
    """How each batch is changed before the model sees it: in this order, nothing by default.

    Attributes:
        warp: Turn, zoom and bend each image.
        crop: "pad": a window of the image's size, anywhere in the image with a black border of
            `pad` pixels (He et al. 2016). "resized": a random box (`vitlib.data.augment.boxes`),
            enlarged to the image's size bicubically, as torchvision and timm draw it. "inception":
            the same as TensorFlow and big_vision draw it, which keeps less.
        pad: Width of the border for crop "pad", in pixels.
        crop_scale: Smallest and largest area of the box for crops "resized" and "inception", as
            parts of the image's. big_vision begins at 0.05.
        flip: Mirror each image, left to right, with probability ½.
        randaugment_layers: Operations of RandAugment that each image goes through, 0 for none.
        randaugment_magnitude: Their strength, from 0 to 30; big_vision's scale.
        three_augment: One of three changes to each image (DeiT III, Touvron et al. 2022): made
            grey, solarised from level 128 up, or blurred with a Gaussian of 0.1 to 2 pixels. An
            image of one channel is grey already: a third of them stays.
        color_jitter: Brightness, contrast and saturation of each image, in random order, by
            factors uniform in 1 ± `color_jitter`. An image of one channel has no saturation.
        erasing: Probability with which an image loses a random box to noise, uniform in [0, 1] in
            each pixel (Zhong et al. 2020, "RE-R"), before it is normalised. The box has 2 to 33 %
            of the area and an aspect ratio from 0.3 to 3.3 (timm's).
        mixup: α of mixup, 0 for none (`vitlib.data.mixing`).
        cutmix: α of cutmix, 0 for none. With both, one of the two by lot for each batch.
    """

    warp: Warp = field(default=Warp())
    crop: Crop = "none"
    pad: int = 4
    crop_scale: tuple[float, float] = (0.08, 1.0)
    flip: bool = False
    randaugment_layers: int = 0
    randaugment_magnitude: int = 10
    three_augment: bool = False
    color_jitter: float = 0.0
    erasing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0

    def __post_init__(self):
        if self.crop not in _CROPS:
            raise ValueError(f"crop is {self.crop!r}: choose one of {', '.join(_CROPS)}.")
        check_whole("pad", self.pad, least=0)
        if len(self.crop_scale) != 2 or not 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1:
            raise ValueError(
                f"crop_scale is {self.crop_scale}: expected the smallest and the largest part of "
                "the area, such as (0.08, 1)."
            )
        check_whole("randaugment_layers", self.randaugment_layers, least=0)
        check_whole("randaugment_magnitude", self.randaugment_magnitude, least=0, most=30)
        for name in ("color_jitter", "erasing"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name):g}: expected 0 to 1.")
        for name in ("mixup", "cutmix"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(
                    f"{name} is {getattr(self, name):g}: expected its α, a number such as 0.2, or "
                    "0 for none."
                )

    def __call__(self, images: Images, generator: torch.Generator) -> Images:
        """A new batch, from images in [0, 1] and a generator on their device.

        With nothing switched on, these images, and nothing is drawn.

        Raises:
            ValueError: Colours are to change in images of neither 1 nor 3 channels.
        """
        if len(images) == 0:
            return images
        if self.warp != Warp():
            images = self.warp(images, generator)
        if self.crop == "pad":
            images = _crop_padded(images, self.pad, generator)
        elif self.crop != "none":
            batch, _, height, width = images.shape
            boxes = draw_boxes(batch, height, width, self.crop_scale, ASPECT, generator, self.crop)
            images = _enlarge(images, boxes)
        if self.flip:
            mirrored = _uniform(generator, len(images), 1, 1, 1) < 0.5
            images = torch.where(mirrored, images.flip(3), images)
        if self.randaugment_layers > 0:
            images = randaugment(
                images, self.randaugment_layers, self.randaugment_magnitude, generator
            )
        if self.three_augment:
            images = _three_augment(images, generator)
        if self.color_jitter > 0:
            images = _color_jitter(images, self.color_jitter, generator)
        if self.erasing > 0:
            images = _erase(images, self.erasing, generator)
        return images

    @property
    def mixes(self) -> bool:
        """Whether `mix` changes anything, so that targets must be rows (B, K)."""
        return self.mixup > 0 or self.cutmix > 0

    def mix(
        self, images: Images, targets: Float[Tensor, "B K"], generator: torch.Generator
    ) -> tuple[Images, Float[Tensor, "B K"]]:
        """Images and targets after mixup or cutmix (`vitlib.data.mixing.mix`)."""
        return mix(images, targets, generator, mixup=self.mixup, cutmix=self.cutmix)


def _uniform(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.rand(shape, generator=generator, device=generator.device)


def _crop_padded(images: Images, pad: int, generator: torch.Generator) -> Images:
    """Each image moved by up to `pad` pixels along each axis."""
    batch, channels, height, width = images.shape
    device = images.device
    row, column = torch.randint(
        2 * pad + 1, (2, batch, 1, 1, 1), generator=generator, device=device
    )
    return functional.pad(images, (pad, pad, pad, pad))[
        torch.arange(batch, device=device)[:, None, None, None],
        torch.arange(channels, device=device)[:, None, None],
        row + torch.arange(height, device=device)[:, None],
        column + torch.arange(width, device=device),
    ]


def _enlarge(images: Images, boxes: Int[Tensor, "B 4"]) -> Images:
    """Each image's box (top, left, height, width), enlarged to the image's size."""
    height, width = images.shape[2:]
    top, left, high, wide = boxes.float().unbind(1)
    none = torch.zeros_like(top)
    # affine_grid's unit is half a side, from the centre.
    box = [wide / width, none, (2 * left + wide) / width - 1]
    box += [none, high / height, (2 * top + high) / height - 1]
    grid = functional.affine_grid(
        torch.stack(box, dim=1).view(-1, 2, 3), list(images.shape), align_corners=False
    )
    return functional.grid_sample(
        images, grid, mode="bicubic", padding_mode="border", align_corners=False
    ).clamp(0, 1)


def _three_augment(images: Images, generator: torch.Generator) -> Images:
    """Each image made grey, solarised or blurred."""
    batch, device = len(images), images.device
    choice = torch.randint(3, (batch,), generator=generator, device=device)
    deviation = _BLUR[0] + (_BLUR[1] - _BLUR[0]) * _uniform(generator, batch)
    changes = (
        lambda x, _: grey(x).expand_as(x),
        lambda x, _: solarise(x, 128),
        gaussian_blur,
    )
    return each_its_own(images, choice.tolist(), changes, deviation)


def _color_jitter(images: Images, amount: float, generator: torch.Generator) -> Images:
    """Each image's brightness, contrast and saturation changed, in an order of its own."""
    batch = len(images)
    factors = 1 + amount * (2 * _uniform(generator, 3, batch, 1, 1, 1) - 1)
    order = _uniform(generator, 3, batch, 1, 1, 1).argsort(dim=0)
    for number, factor in zip(order, factors, strict=True):
        others = torch.where(number == 1, mean_of_grey(images), grey(images))
        images = blend(images, torch.where(number == 0, 0, others), factor)
    return images


def _erase(images: Images, probability: float, generator: torch.Generator) -> Images:
    """Some images with noise in a box."""
    batch, _, height, width = images.shape
    erased = _uniform(generator, batch, 1, 1, 1) < probability
    boxes = draw_boxes(batch, height, width, _ERASED, _ERASED_ASPECT, generator)
    top, left, high, wide = boxes.unbind(1)
    inside = box_mask(top, top + high, left, left + wide, height, width)[:, None]
    return torch.where(erased & inside, _uniform(generator, *images.shape), images)
