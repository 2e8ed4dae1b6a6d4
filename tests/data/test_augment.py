import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vitlib import data
from vitlib.data.augment import Warp

angles = st.floats(0, 180)
fractions = st.floats(0, 0.9)


@settings(deadline=None)
@given(
    rotate=angles,
    zoom=fractions,
    bend=fractions,
    shape=st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 9), st.integers(1, 9)),
    seed=st.integers(0, 2**32),
)
def test_images_keep_their_shape_and_range(rotate, zoom, bend, shape, seed):
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(shape, generator=generator)
    warped = Warp(rotate=rotate, zoom=zoom, bend=bend)(images, generator)
    assert warped.shape == images.shape
    assert warped.dtype == images.dtype
    assert warped.min() >= 0
    assert warped.max() <= 1


@given(seed=st.integers(0, 2**32))
def test_a_turn_is_a_turn_in_pixels_also_where_sides_are_unequal(seed):
    """A linear ramp stays a ramp of the same steepness, turned by at most the angle allowed."""
    generator = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.arange(40.0), torch.arange(90.0), indexing="ij")
    ramp = 0.5 + 0.004 * (x - 44.5) + 0.002 * (y - 19.5)
    turned = Warp(rotate=15, zoom=0, bend=0)(ramp[None, None], generator)[0, 0, 15:25, 40:50]
    along_x = (turned[:, -1] - turned[:, 0]).mean() / 9
    along_y = (turned[-1] - turned[0]).mean() / 9
    assert torch.hypot(along_x, along_y).item() == pytest.approx(0.002 * 5**0.5, rel=0.03)
    angle = torch.atan2(along_y, along_x) - torch.atan2(torch.tensor(2.0), torch.tensor(4.0))
    assert abs(angle.rad2deg().item()) <= 15.5


def test_nothing_asked_is_nothing_done():
    images = data.load("digits").train_images[:50]
    same = Warp(rotate=0, zoom=0, bend=0)(images, torch.Generator())
    torch.testing.assert_close(same, images, atol=1e-5, rtol=0)


def test_each_image_is_warped_in_its_own_way_and_the_same_way_again():
    images = data.load("digits").train_images[:1].expand(20, -1, -1, -1)
    warp = Warp(rotate=10, zoom=0.1, bend=0.05)
    first = warp(images, torch.Generator().manual_seed(1))
    assert len(first.unique(dim=0)) == 20
    assert torch.equal(first, warp(images, torch.Generator().manual_seed(1)))
    assert not torch.equal(first, warp(images, torch.Generator().manual_seed(2)))


def test_the_global_random_state_is_left_alone():
    before = torch.get_rng_state()
    Warp(rotate=10, zoom=0.1, bend=0.05)(
        torch.rand(2, 1, 8, 8, generator=torch.Generator()), torch.Generator()
    )
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("setting", "value"), [("rotate", -1), ("rotate", 181), ("zoom", 1), ("bend", -0.1)]
)
def test_an_absurd_setting_is_named(setting, value):
    with pytest.raises(ValueError, match=f"{setting} is {value}"):
        Warp(**{"rotate": 0, "zoom": 0, "bend": 0, setting: value})
