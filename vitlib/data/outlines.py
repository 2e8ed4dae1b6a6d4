"""The outlines of shapes as signed distances: negative inside, positive outside, 0 on the outline.

Each function takes the coordinates of points, x to the right and y downwards, about a shape that is
centred at the origin, stands upright and just fits into the circle of radius 1.
"""

import math
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

import torch
from jaxtyping import Float
from torch import Tensor

Outline = Callable[[Tensor, Tensor], Tensor]
Corners = tuple[tuple[float, float], ...]

HOLE = 0.5  # the ring's inner radius
STAR = 0.45  # the radius of the corners between its points
ARM = 0.33  # half the width of the cross's arms


def circle(x: Float[Tensor, "*n"], y: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """Distance to the circle of radius 1."""
    return torch.hypot(x, y) - 1


def ring(x: Float[Tensor, "*n"], y: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """Distance to the nearer of two circles, of radius 1 and `HOLE`; inside is between them."""
    return (torch.hypot(x, y) - (1 + HOLE) / 2).abs() - (1 - HOLE) / 2


def polygon(
    x: Float[Tensor, "*n"], y: Float[Tensor, "*n"], corners: Corners
) -> Float[Tensor, "*n"]:
    """Distance to the nearest edge; inside is where a ray to the right crosses an odd number."""
    distance = torch.full_like(x, math.inf)
    inside = torch.zeros_like(x, dtype=torch.bool)
    for (ax, ay), (bx, by) in zip(corners, corners[1:] + corners[:1], strict=True):
        ex, ey = bx - ax, by - ay
        along = (((x - ax) * ex + (y - ay) * ey) / (ex * ex + ey * ey)).clamp(0, 1)
        distance = torch.minimum(distance, torch.hypot(x - ax - along * ex, y - ay - along * ey))
        if ay != by:
            crosses = ((y < ay) != (y < by)) & (x < ax + (y - ay) * (ex / ey))
            inside ^= crosses
    return torch.where(inside, -distance, distance)


def regular(count: int, *radii: float, turn: float = 0) -> Corners:
    """Corners at equal angles, clockwise from the top, at the given radii in turn.

    Args:
        count: How many corners.
        radii: Their distances from the centre, repeated as often as needed.
        turn: Part of the angle between two corners by which the first stands off the top.
    """
    return tuple(
        (radii[i % len(radii)] * math.sin(angle), -radii[i % len(radii)] * math.cos(angle))
        for i in range(count)
        for angle in [2 * math.pi * (i + turn) / count]
    )


def cross(half_width: float) -> Corners:
    """The twelve corners of two equal bars across each other."""
    a, b = half_width, math.sqrt(1 - half_width**2)
    arm = ((-a, -a), (-a, -b), (a, -b))
    return tuple(
        corner for c, s in ((1, 0), (0, 1), (-1, 0), (0, -1)) for corner in _turned(arm, c, s)
    )


def _turned(corners: Corners, cos: int, sin: int) -> Corners:
    return tuple((cos * x - sin * y, sin * x + cos * y) for x, y in corners)


CORNERS: Mapping[str, Corners] = MappingProxyType(
    {
        "triangle": regular(3, 1.0),
        "square": regular(4, 1.0, turn=0.5),
        "cross": cross(ARM),
        "star": regular(10, 1.0, STAR),
    }
)
OUTLINES: Mapping[str, Outline] = MappingProxyType(
    {"circle": circle, "ring": ring}
    | {name: partial(polygon, corners=corners) for name, corners in CORNERS.items()}
)
