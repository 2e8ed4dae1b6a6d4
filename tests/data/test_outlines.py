import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from vitlib.data.outlines import ARM, CORNERS, HOLE, OUTLINES, STAR, polygon

FINE = 400
REACH = 1.25


def grid(count):
    """Points at the centres of `count` × `count` squares that fill ± `REACH`."""
    steps = (torch.arange(count, dtype=torch.float64) + 0.5) / count * 2 * REACH - REACH
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    return x, y


AREAS = {
    "circle": math.pi,
    "ring": math.pi * (1 - HOLE**2),
    "triangle": 3 * math.sqrt(3) / 4,
    "square": 2.0,
    "cross": 8 * ARM * math.sqrt(1 - ARM**2) - 4 * ARM**2,
    "star": 10 * STAR * math.sin(math.pi / 5) / 2,
}


@pytest.mark.parametrize("name", OUTLINES)
def test_each_has_its_area_and_just_fits_the_unit_circle(name):
    x, y = grid(FINE)
    distance = OUTLINES[name](x, y)
    inside = distance < 0
    assert inside.sum().item() * (2 * REACH / FINE) ** 2 == pytest.approx(AREAS[name], rel=0.01)
    assert torch.hypot(x, y)[inside].max().item() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("name", CORNERS)
def test_inside_is_where_pillow_fills(name):
    x, y = grid(FINE)
    picture = Image.new("1", (FINE, FINE))
    corners = [
        ((cx + REACH) / (2 * REACH) * FINE, (cy + REACH) / (2 * REACH) * FINE)
        for cx, cy in CORNERS[name]
    ]
    ImageDraw.Draw(picture).polygon(corners, fill=1)
    filled = torch.from_numpy(np.array(picture))
    distance = OUTLINES[name](x, y)
    sure = distance.abs() > 4 * REACH / FINE  # two pixels off the edge, where rounding ends
    assert torch.equal(filled[sure], (distance < 0)[sure])


@pytest.mark.parametrize("name", OUTLINES)
def test_distance_is_the_distance_to_the_nearest_point_of_the_other_side(name):
    """Measured by looking at all points of a grid: right to within its spacing."""
    x, y = grid(60)
    distance = OUTLINES[name](x, y)
    points = torch.stack([x.flatten(), y.flatten()], dim=1)
    inside = (distance < 0).flatten()
    between = torch.cdist(points, points)
    nearest = torch.where(
        inside, between[:, ~inside].min(1).values, between[:, inside].min(1).values
    )
    spacing = 2 * REACH / 60
    error = nearest - distance.abs().flatten()
    assert error.min() > -1e-9 - spacing / 10
    assert error.max() < 1.5 * spacing


@given(
    name=st.sampled_from(sorted(OUTLINES)),
    a=st.tuples(st.floats(-2, 2), st.floats(-2, 2)),
    b=st.tuples(st.floats(-2, 2), st.floats(-2, 2)),
)
def test_distance_never_changes_faster_than_one_moves(name, a, b):
    points = torch.tensor([a, b], dtype=torch.float64)
    first, second = OUTLINES[name](points[:, 0], points[:, 1])
    assert (first - second).abs() <= (points[0] - points[1]).norm() + 1e-12


@given(st.floats(-0.3, 0.3), st.floats(0.6, 1.4))
def test_a_polygon_may_stand_anywhere(x, side):
    square = ((x, 0.0), (x + side, 0.0), (x + side, side), (x, side))
    middle, corner = torch.tensor([x + side / 2, x - 3]), torch.tensor([side / 2, -4])
    inner, outer = polygon(middle, corner, square).tolist()
    assert inner == pytest.approx(-side / 2, rel=1e-5)
    assert outer == pytest.approx(5, rel=1e-5)


@pytest.mark.parametrize("name", OUTLINES)
def test_each_stands_upright(name):
    x, y = grid(FINE)
    distance = OUTLINES[name](x, y)
    torch.testing.assert_close(distance, OUTLINES[name](-x, y), atol=1e-12, rtol=0)
    reaches_up = y[distance < 0].min().item()
    assert reaches_up == pytest.approx(
        {"square": -(0.5**0.5), "cross": -math.sqrt(1 - ARM**2)}.get(name, -1), abs=0.03
    )
