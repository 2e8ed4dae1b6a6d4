"""Each image turned, zoomed and bent by its own random amount."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Warp:
    """Turn, zoom and bend each image by its own random amount.

    A pixel of the new image at **p**, measured in pixels from the centre, takes the value of the
    old one at **p** R / z + **b**(**p**). R turns by an angle uniform in ± `rotate`; z is uniform
    in 1 ± `zoom`; **b** is uniform in ± `bend` of the image's sides at 3 × 3 points spread over
    the image, and runs smoothly (bicubic) between them, as in the elastic distortions of Simard,
    Steinkraus and Platt (2003).

    Values between pixels are interpolated bicubically, which keeps strokes of one or two pixels
    sharp where bilinear weights would blur them, and clamped to [0, 1]. What comes from outside
    the image is 0: a dark ground stays dark. Images are not shifted, since digits that fill their
    frame are never found shifted.

    Attributes:
        rotate: Largest turn either way, in degrees.
        zoom: Largest change of size, as a fraction: 0.1 for 90 % to 110 %.
        bend: Largest displacement along each axis, as a fraction of the side.
    """

    rotate: float = 0.0
    zoom: float = 0.0
    bend: float = 0.0

    def __post_init__(self):
        if not 0 <= self.rotate <= 180:
            raise ValueError(f"rotate is {self.rotate:g}: expected degrees from 0 to 180.")
        for name in ("zoom", "bend"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name):g}: expected 0 to below 1.")

    def __call__(
        self, images: Float[Tensor, "B C height width"], generator: torch.Generator
    ) -> Float[Tensor, "B C height width"]:
        """A new batch from images in [0, 1], drawn with a generator on the images' device."""

        def uniform(*size: int) -> Tensor:
            return torch.rand(*size, generator=generator, device=images.device) * 2 - 1

        batch, _, height, width = images.shape
        angle = torch.deg2rad(self.rotate * uniform(batch))
        zoom = 1 + self.zoom * uniform(batch)
        cos, sin, none = torch.cos(angle) / zoom, torch.sin(angle) / zoom, torch.zeros_like(angle)
        # affine_grid's unit is half a side: a turn in pixels is a shear where sides are unequal.
        turn = [cos, -sin * height / width, none, sin * width / height, cos, none]
        grid = functional.affine_grid(
            torch.stack(turn, dim=1).view(batch, 2, 3), list(images.shape), align_corners=False
        )
        bend = functional.interpolate(
            2 * self.bend * uniform(batch, 2, 3, 3),
            size=(height, width),
            mode="bicubic",
            align_corners=True,
        )
        grid = grid + bend.permute(0, 2, 3, 1)
        return functional.grid_sample(images, grid, mode="bicubic", align_corners=False).clamp(0, 1)
