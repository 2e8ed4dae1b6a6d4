import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from vitlib import data
from vitlib.data import shapes
from vitlib.data.outlines import CORNERS
from vitlib.data.shapes import CLASSES, draw

counts = st.integers(1, 30)
sides = st.integers(16, 70)
seeds = st.integers(0, 2**64 - 1)
drawn = settings(max_examples=30)


def of_class(drawn, name):
    return drawn.labels == CLASSES.index(name)


def test_masks_are_what_pillow_draws_sixteen_times_as_large():
    """An independent drawing of the same outline, from class, centre, radius and angle alone."""
    zoom, some = 16, draw(60, size=(40, 48), seed=3)
    for label, mask, (row, column), radius, angle in zip(
        some.labels,
        some.masks,
        some.centres.tolist(),
        some.radii.tolist(),
        some.angles.tolist(),
        strict=True,
    ):
        picture = Image.new("L", (48 * zoom, 40 * zoom))
        pen, name = ImageDraw.Draw(picture), CLASSES[label]
        if name in CORNERS:
            cos, sin = math.cos(angle), math.sin(angle)
            corners = [
                (
                    zoom * (column + radius * (cos * x - sin * y)),
                    zoom * (row + radius * (sin * x + cos * y)),
                )
                for x, y in CORNERS[name]
            ]
            pen.polygon(corners, fill=255)
        else:
            for part, fill in ((radius, 255), (radius / 2 if name == "ring" else 0, 0)):
                box = (column - part, row - part, column + part, row + part)
                pen.ellipse([zoom * side for side in box], fill=fill)
        expected = np.asarray(picture.resize((48, 40), Image.Resampling.BOX)) / 255
        difference = np.abs(mask.numpy() - expected)
        assert difference.max() < 0.3, name  # at sharp corners
        assert difference.mean() < 0.005, name


@drawn
@given(counts, sides, sides, seeds)
def test_everything_has_its_shape_and_range(count, height, width, seed):
    some = draw(count, size=(height, width), seed=seed)
    assert some.images.shape == (count, 3, height, width)
    assert some.masks.shape == (count, height, width)
    assert some.centres.shape == (count, 2)
    assert some.colours.shape == (count, 3)
    assert some.labels.shape == some.radii.shape == some.angles.shape == (count,)
    for values in (some.images, some.masks, some.colours):
        assert values.dtype == torch.float32
        assert values.min() >= 0
        assert values.max() <= 1
    assert some.labels.dtype == torch.int64


@drawn
@given(counts, sides, sides, seeds)
def test_a_shape_lies_inside_the_image_about_its_centre(count, height, width, seed):
    some = draw(count, size=(height, width), seed=seed)
    assert some.masks[:, [0, -1]].max() < 0.5
    assert some.masks[:, :, [0, -1]].max() < 0.5
    y = torch.arange(height)[:, None] + 0.5 - some.centres[:, 0, None, None]
    x = torch.arange(width) + 0.5 - some.centres[:, 1, None, None]
    away = torch.hypot(x, y) - some.radii[:, None, None]
    assert some.masks[away > 0.5].eq(0).all()
    assert (some.centres - some.radii[:, None] > 0).all()
    assert (some.centres + some.radii[:, None] < torch.tensor([height, width])).all()
    row, column = some.centres.long().unbind(1)
    at_centre = some.masks[torch.arange(count), row, column]
    assert at_centre[~of_class(some, "ring")].eq(1).all()
    assert at_centre[of_class(some, "ring")].eq(0).all()


@drawn
@given(counts, sides, seeds)
def test_what_is_covered_has_the_colour_and_the_ground_another(count, size, seed):
    some = draw(count, size=size, seed=seed)
    covered = (some.masks == 1)[:, None].expand_as(some.images)
    colour = some.colours[:, :, None, None].expand_as(some.images)
    torch.testing.assert_close(some.images[covered], colour[covered], atol=1e-6, rtol=0)
    far = (some.images - colour).abs().amax(1)
    assert far[some.masks == 0].min() >= 0.15


@drawn
@given(st.integers(1, 100), seeds)
def test_classes_are_balanced(count, seed):
    labels = draw(count, size=16, seed=seed).labels
    for start in range(0, count, 6):
        some = labels[start : start + 6].tolist()
        assert len(set(some)) == len(some)
        assert set(some) <= set(range(6))


@drawn
@given(st.integers(1, 40), st.integers(0, 40), seeds)
def test_a_larger_set_begins_with_the_same_images(count, more, seed):
    few, many = draw(count, size=20, seed=seed), draw(count + more, size=20, seed=seed)
    for name in vars(few):
        assert torch.equal(getattr(few, name), getattr(many, name)[:count]), name


def test_the_work_is_divided_without_a_trace(monkeypatch):
    whole = draw(50, seed=5)
    monkeypatch.setattr(shapes, "_BLOCK", 7 * 32 * 32)
    divided = draw(50, seed=5)
    assert torch.equal(whole.images, divided.images)
    assert torch.equal(whole.masks, divided.masks)


@pytest.mark.parametrize("size", [(16, 16), (24, 36), (96, 64)])
def test_another_size_shows_the_same_pictures(size):
    """A picture four times as large, reduced by means, is the small one but for its edges."""
    height, width = size
    small = draw(30, size=size, seed=2)
    large = draw(30, size=(4 * height, 4 * width), seed=2)
    reduced = torch.nn.functional.avg_pool2d(large.images, 4)
    assert (reduced - small.images).abs().mean() < 0.03
    assert torch.equal(small.labels, large.labels)
    torch.testing.assert_close(4 * small.centres, large.centres)


def test_seeds_differ_and_the_global_random_states_are_left_alone():
    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    one, again, other = draw(12, seed=1), draw(12, seed=1), draw(12, seed=2)
    assert torch.equal(one.images, again.images)
    assert not torch.equal(one.images, other.images)
    assert not torch.equal(one.labels, other.labels)
    assert torch.equal(torch.get_rng_state(), torch_before)
    assert np.array_equal(np.random.get_state()[1], numpy_before)


def test_images_differ_in_everything_and_the_ground_has_a_texture():
    some = draw(600)
    for values in (some.centres[:, 0], some.centres[:, 1], some.radii, some.angles):
        assert len(values.unique()) > 590
    ground = some.images.mean(1).masked_fill(some.masks > 0, math.nan).flatten(1)
    contrast = ground.nanquantile(0.95, dim=1) - ground.nanquantile(0.05, dim=1)
    assert contrast.min() > 0.03
    brighter = some.colours.mean(1) > ground.nanmean(1)
    assert 0.2 < brighter.double().mean() < 0.8  # brightness alone does not find the shape


def test_as_a_data_set_training_and_test_images_have_seeds_of_their_own():
    few = data.load("shapes", count=60, test_count=30, size=(16, 24), seed=4)
    assert few.train_images.shape == (60, 3, 16, 24)
    assert few.test_images.shape == (30, 3, 16, 24)
    assert few.classes == CLASSES
    assert torch.equal(few.train_images, draw(60, size=(16, 24), seed=8).images)
    assert torch.equal(few.test_labels, draw(30, size=(16, 24), seed=9).labels)
    normal = few.normalisation(few.train_images.double())
    torch.testing.assert_close(normal.mean((0, 2, 3)), torch.zeros(3).double(), atol=1e-6, rtol=0)


def test_the_usual_set_is_balanced_colour_of_32_pixels():
    usual = data.load("shapes")
    assert usual.train_images.shape == (4000, 3, 32, 32)
    assert usual.test_images.shape == (1000, 3, 32, 32)
    assert sorted(usual.train_labels.bincount().tolist()) == [666, 666, 667, 667, 667, 667]
    assert not usual.bright_on_dark


@pytest.mark.parametrize(
    ("options", "kind", "why"),
    [
        ({"count": -1}, ValueError, "count=-1: expected a whole number"),
        ({"count": 0}, ValueError, "count=0"),
        ({"count": 2.5}, TypeError, "count=2.5"),
        ({"count": "many"}, TypeError, "count='many'"),
        ({"test_count": 0}, ValueError, "test_count=0"),
        ({"test_count": True}, TypeError, "test_count=True"),
        ({"seed": -1}, ValueError, "seed=-1"),
        ({"seed": 2**63}, ValueError, "seed=9223372036854775808"),
        ({"seed": None}, TypeError, "seed=None"),
        ({"size": 15}, ValueError, "size=15: expected at least 16 pixels a side"),
        ({"size": (64, 8)}, ValueError, "size=(64, 8): expected at least 16"),
        ({"size": 0}, ValueError, "size=0"),
        ({"size": (32, 32, 3)}, ValueError, "size=(32, 32, 3)"),
        ({"size": "large"}, TypeError, "size='large'"),
        ({"size": 32.0}, TypeError, "size=32.0"),
        ({"sise": 32}, TypeError, "'shapes' has no option 'sise': expected count or test_count"),
    ],
)
def test_what_cannot_be_drawn_is_told_in_one_line(options, kind, why):
    with pytest.raises(kind) as error:
        data.load("shapes", **options)
    assert why in str(error.value)
    assert "\n" not in str(error.value)
