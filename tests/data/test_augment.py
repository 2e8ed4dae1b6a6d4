import math
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageChops, ImageEnhance, ImageFilter, ImageOps
from scipy import ndimage, stats
from torch.nn import functional

from vitlib import data
from vitlib.data.augment import ASPECT, Augment, Warp, resized_crop_box
from vitlib.data.augment.boxes import draw_boxes
from vitlib.data.augment.colour import autocontrast, equalise, gaussian_blur, grey, posterise
from vitlib.data.augment.randaugment import operations, randaugment

angles = st.floats(0, 180)
fractions = st.floats(0, 0.9)
seeds = st.integers(0, 2**32)
EVERYTHING = Augment(
    warp=Warp(rotate=20, zoom=0.1, bend=0.05),
    crop="resized",
    flip=True,
    randaugment_layers=2,
    randaugment_magnitude=15,
    three_augment=True,
    color_jitter=0.3,
    erasing=0.5,
)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def as_images(*pictures):
    """Pillow's pictures of 8 bits, all of one size and mode, as a batch in [0, 1]."""
    pixels = np.stack([np.asarray(picture) for picture in pictures])
    pixels = torch.from_numpy(pixels.reshape(*pixels.shape[:3], -1)).permute(0, 3, 1, 2)
    return pixels.float() / 255


@pytest.fixture(scope="module")
def photograph():
    """224 pixels a side out of a photograph; no channel has the darkest or the brightest levels."""
    pixels = data.photographs()["china"][:, 50:274, 130:354].permute(1, 2, 0)
    pixels = torch.tensor([20, 10, 60]) + torch.tensor([200, 240, 150]) * pixels
    return Image.fromarray(pixels.round().byte().numpy())


def assert_levels_close(images, *pictures, levels=0.0):
    difference = (255 * (images - as_images(*pictures))).abs().max().item()
    assert difference <= levels + 1e-3


def by_pillow(name, picture, m, sign, place, tilt=0.0):
    """What an operation of RandAugment does to one picture, m its magnitude / 10.

    A tilt decides which way halves between two pixels are rounded.
    """
    width, height = picture.size
    fill = (128, 128, 128)

    def moved(a, b, c, d, e, f):
        # Pillow asks which old pixel lies under the centre of the new one.
        matrix = (a, b, c + 0.5 - (a + b) / 2, d, e, f + 0.5 - (d + e) / 2)
        return picture.transform(picture.size, Image.Transform.AFFINE, matrix, fillcolor=fill)

    def with_a_hole():
        row, column, reach = int(place[0] * height), int(place[1] * width), int(40 * m)
        whole = picture.copy()
        hole = Image.new(picture.mode, (2 * reach, 2 * reach), fill)
        whole.paste(hole, (column - reach, row - reach))
        return whole

    return {
        "autocontrast": lambda: ImageOps.autocontrast(picture),
        "equalise": lambda: ImageOps.equalize(picture),
        "invert": lambda: ImageChops.invert(picture),
        "rotate": lambda: picture.rotate(30 * m * sign, fillcolor=fill),
        "posterise": lambda: ImageOps.posterize(picture, int(4 * m)),
        "solarise": lambda: ImageOps.solarize(picture, {1.0: 0, 1.5: 128}[m]),
        "colour": lambda: ImageEnhance.Color(picture).enhance(0.1 + 1.8 * m),
        "contrast": lambda: ImageEnhance.Contrast(picture).enhance(0.1 + 1.8 * m),
        "brightness": lambda: ImageEnhance.Brightness(picture).enhance(0.1 + 1.8 * m),
        "sharpness": lambda: ImageEnhance.Sharpness(picture).enhance(0.1 + 1.8 * m),
        "shear_x": lambda: moved(1, 0.3 * m * sign + tilt, 0, 0, 1, 0),
        "shear_y": lambda: moved(1, 0, 0, 0.3 * m * sign + tilt, 1, 0),
        "translate_x": lambda: moved(1, 0, 100 * m * sign, 0, 1, 0),
        "translate_y": lambda: moved(1, 0, 0, 0, 1, 100 * m * sign),
        "cutout": with_a_hole,
        "solarise_add": lambda: picture.point(
            lambda level: min(255, level + int(110 * m)) if level < 128 else level
        ),
    }[name]()


SIGNED = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")
ROUNDED = ("autocontrast", "colour", "contrast", "brightness", "sharpness")  # by Pillow, not by us


@pytest.mark.parametrize("magnitude", [10, 15])
@pytest.mark.parametrize("name", list(operations(10)))
def test_an_operation_of_randaugment_is_pillows_at_224_pixels(photograph, name, magnitude):
    signs, places = [1.0, -1.0], [[0.5, 0.4], [0.01, 0.99]]
    images = as_images(photograph, photograph)
    changed = operations(magnitude)[name](images, torch.tensor(signs), torch.tensor(places))
    alike = torch.zeros_like(images, dtype=torch.bool)
    for tilt in (-3e-5, 3e-5):  # Pillow counts in parts of 1 / 65536
        expected = as_images(
            *(
                by_pillow(name, photograph, magnitude / 10, sign, place, tilt)
                for sign, place in zip(signs, places, strict=True)
            )
        )
        alike |= (255 * (changed - expected)).abs() < (2 if name in ROUNDED else 1e-3)
    assert alike.double().mean() >= (0.9995 if name == "rotate" else 1)
    assert torch.equal(changed[0], changed[1]) == (name not in (*SIGNED, "cutout"))


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_changes_of_colour_are_pillows_for_grey_and_colour(photograph, mode):
    picture = photograph.convert(mode)
    images = as_images(picture)
    for bits in range(1, 9):
        assert_levels_close(posterise(images, bits), ImageOps.posterize(picture, bits))
    assert_levels_close(equalise(images), ImageOps.equalize(picture))
    assert_levels_close(autocontrast(images), ImageOps.autocontrast(picture), levels=1)
    assert_levels_close(grey(images), picture.convert("L"), levels=0.51)


def test_nothing_is_equalised_where_pixels_are_few_or_alike():
    images = torch.cat([torch.rand(1, 1, 8, 8), torch.full((1, 1, 8, 8), 0.3)])
    assert torch.equal(equalise(images), images)
    assert torch.equal(equalise(torch.full((1, 3, 40, 40), 0.3)), torch.full((1, 3, 40, 40), 0.3))
    assert torch.equal(autocontrast(torch.full((1, 3, 4, 4), 0.3)), torch.full((1, 3, 4, 4), 0.3))


def test_blur_is_scipys_and_nearly_pillows(photograph):
    images = as_images(photograph).expand(3, -1, -1, -1)
    deviations = [0.1, 1.0, 2.0]
    blurred = gaussian_blur(images, torch.tensor(deviations))
    for image, result, deviation in zip(images, blurred, deviations, strict=True):
        expected = ndimage.gaussian_filter(
            image.double().numpy(), deviation, mode="nearest", radius=6, axes=(1, 2)
        )
        np.testing.assert_allclose(result.numpy(), expected, atol=1e-6)
        nearly = photograph.filter(ImageFilter.GaussianBlur(deviation))
        assert (255 * (result - as_images(nearly)[0])).abs().mean() < 1


def torchvisions_box(height, width, scale, ratio):
    for _ in range(10):
        area = height * width * random.uniform(*scale)
        aspect = math.exp(random.uniform(math.log(ratio[0]), math.log(ratio[1])))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return random.randint(0, height - h), random.randint(0, width - w), h, w
    assert width / height < ratio[0]  # else ten tries are enough here
    h = round(width / ratio[0])
    return (height - h) // 2, 0, h, width


def tensorflows_box(height, width, scale, ratio):
    aspect = random.uniform(*ratio)
    low, high = (round(math.sqrt(part * height * width / aspect)) for part in scale)
    while round(high * aspect) > width or high > height:
        high -= 1
    h = random.randint(min(low, high), high)
    w = round(h * aspect)
    return random.randint(0, height - h), random.randint(0, width - w), h, w


@pytest.mark.parametrize(
    ("law", "one"), [("resized", torchvisions_box), ("inception", tensorflows_box)]
)
@pytest.mark.parametrize(("height", "width"), [(224, 224), (375, 500), (300, 120)])
def test_boxes_have_the_distribution_of_the_other_librarys(law, one, height, width):
    random.seed(0)
    scale = (0.08, 1.0)
    boxes = draw_boxes(4000, height, width, scale, ASPECT, seeded(0), law).numpy()
    others = np.array([one(height, width, scale, ASPECT) for _ in range(4000)])
    for quantity in (
        lambda top, left, h, w: top,
        lambda top, left, h, w: left,
        lambda top, left, h, w: h,
        lambda top, left, h, w: w,
        lambda top, left, h, w: h * w,
        lambda top, left, h, w: w / h,
    ):
        same = stats.ks_2samp(quantity(*boxes.T), quantity(*others.T))
        assert same.pvalue > 0.001


@pytest.mark.parametrize("law", ["resized", "inception"])
def test_every_place_where_a_box_fits_is_as_likely(law):
    top, left, h, w = draw_boxes(20000, 7, 7, (0.1, 0.3), ASPECT, seeded(0), law).unbind(1)
    for place, side in ((top, h), (left, w)):
        assert stats.chisquare(place[side == 3].bincount(minlength=5)).pvalue > 0.001


def test_inception_crops_are_the_smaller_ones():
    mean = {
        law: draw_boxes(4000, 375, 500, (0.08, 1.0), ASPECT, seeded(0), law)[:, 2:].prod(1).double()
        for law in ("resized", "inception")
    }
    assert mean["resized"].mean() / (375 * 500) == pytest.approx(0.43, abs=0.01)
    assert mean["inception"].mean() / (375 * 500) == pytest.approx(0.37, abs=0.01)


@given(
    st.integers(1, 3000),
    st.integers(1, 3000),
    st.floats(1e-4, 1),
    st.floats(1e-4, 1),
    st.sampled_from(["resized", "inception"]),
    seeds,
)
def test_a_box_lies_within_its_image(height, width, one, other, law, seed):
    scale = (min(one, other), max(one, other))
    top, left, h, w = resized_crop_box(height, width, scale, ASPECT, seeded(seed), law)
    assert all(isinstance(side, int) for side in (top, left, h, w))
    assert 0 <= top <= top + h <= height
    assert 0 <= left <= left + w <= width
    assert h >= 1
    assert w >= 1


def test_a_strip_in_which_no_box_fits_is_cropped_about_its_centre():
    assert resized_crop_box(1000, 30, (0.5, 1.0), ASPECT, seeded(0)) == (480, 0, 40, 30)
    assert resized_crop_box(30, 1000, (0.5, 1.0), ASPECT, seeded(0)) == (0, 480, 30, 40)


@pytest.mark.parametrize("law", ["resized", "inception"])
def test_crops_are_enlarged_as_pytorch_enlarges_them(law):
    images = torch.rand(20, 3, 30, 40, generator=seeded(1))
    boxes = draw_boxes(20, 30, 40, (0.3, 0.6), ASPECT, seeded(2), law)
    cropped = Augment(crop=law, crop_scale=(0.3, 0.6))(images, seeded(2))
    for image, result, (top, left, h, w) in zip(images, cropped, boxes.tolist(), strict=True):
        crop = image[None, :, top : top + h, left : left + w]
        expected = functional.interpolate(crop, size=(30, 40), mode="bicubic")[0].clamp(0, 1)
        # Near its border a crop that has been cut out does not know its surroundings.
        y, x = math.ceil(2 * 30 / h), math.ceil(2 * 40 / w)
        inner = (slice(None), slice(y, -y), slice(x, -x))
        torch.testing.assert_close(result[inner], expected[inner], atol=1e-4, rtol=0)


def test_a_crop_of_everything_is_the_image_and_brings_no_border():
    images = torch.rand(2, 3, 9, 9, generator=seeded(0))
    same = Augment(crop="resized", crop_scale=(1.0, 1.0))(images, seeded(0))
    torch.testing.assert_close(same, images, atol=1e-5, rtol=0)
    white = Augment(crop="resized")(torch.ones(50, 1, 9, 12), seeded(0))
    torch.testing.assert_close(white, torch.ones_like(white))


def test_a_padded_crop_is_a_window_and_each_is_as_likely():
    image = (torch.arange(1, 43) / 42).view(1, 1, 6, 7)
    crops = Augment(crop="pad", pad=2)(image.expand(5000, -1, -1, -1), seeded(0))
    padded = functional.pad(image[0], (2, 2, 2, 2))
    counts = [
        int((crops == padded[:, row : row + 6, column : column + 7]).all((1, 2, 3)).sum())
        for row in range(5)
        for column in range(5)
    ]
    assert sum(counts) == 5000
    assert stats.chisquare(counts).pvalue > 0.001


def test_half_of_the_images_are_mirrored():
    image = torch.rand(1, 3, 4, 5, generator=seeded(0))
    flipped = Augment(flip=True)(image.expand(2000, -1, -1, -1), seeded(0))
    mirrored = (flipped == image.flip(3)).all((1, 2, 3))
    assert (mirrored | (flipped == image).all((1, 2, 3))).all()
    assert mirrored.float().mean().item() == pytest.approx(0.5, abs=0.05)


def test_each_operation_of_randaugment_is_as_likely_and_signs_and_places_are_random(photograph):
    image = as_images(photograph.resize((32, 32)))
    alone = randaugment(image.expand(3200, -1, -1, -1), 1, 7, seeded(0))
    every, counts, rest = operations(7), [], torch.ones(3200, dtype=torch.bool)
    for name, operation in every.items():
        found = torch.zeros(3200, dtype=torch.bool)
        for sign in (-1.0, 1.0):
            result = operation(image, torch.tensor([sign]), torch.tensor([[0.5, 0.5]]))
            found |= (alone == result).all((1, 2, 3))
            if name in SIGNED:  # either sign
                assert (alone == result).all((1, 2, 3)).sum() > 60
        if name != "cutout":
            counts.append(int(found.sum()))
            rest &= ~found
    counts.append(int(rest.sum()))  # cut out, nearly all at other places
    assert len(alone[rest].unique(dim=0)) > 100
    assert sum(counts) == 3200
    assert stats.chisquare(counts).pvalue > 0.001


def test_three_augment_makes_grey_solarises_or_blurs(photograph):
    picture = photograph.resize((16, 16))
    changed = Augment(three_augment=True)(as_images(picture).expand(900, -1, -1, -1), seeded(0))
    is_grey = (changed - as_images(picture.convert("L"))).abs().amax((1, 2, 3)) < 1 / 255
    is_solarised = (changed - as_images(ImageOps.solarize(picture, 128))).abs().amax(
        (1, 2, 3)
    ) < 1e-5
    counts = [int(is_grey.sum()), int(is_solarised.sum()), int((~is_grey & ~is_solarised).sum())]
    assert stats.chisquare(counts).pvalue > 0.001


def test_a_third_is_blurred_with_deviations_from_a_tenth_to_two_pixels():
    """A single point's height tells the deviation; grey and dark as it is, nothing else happens."""
    point = torch.zeros(1, 1, 15, 15)
    point[..., 7, 7] = 0.4
    heights = Augment(three_augment=True)(point.expand(3000, -1, -1, -1), seeded(0))[:, 0, 7, 7]
    blurred = heights[heights < 0.4 - 1e-6] / 0.4
    # Below about a third of a pixel no neighbour gets anything worth mentioning.
    assert len(blurred) / 3000 == pytest.approx((2 - 0.2) / (2 - 0.1) / 3, abs=0.05)
    lowest = (1 / sum(math.exp(-0.125 * k**2) for k in range(-6, 7))) ** 2
    assert blurred.min().item() == pytest.approx(lowest, rel=0.05)
    median = (1 / sum(math.exp(-0.5 * (k / 1.05) ** 2) for k in range(-6, 7))) ** 2
    everything = torch.cat([blurred, torch.ones(1000 - len(blurred))])
    assert everything.median().item() == pytest.approx(median, rel=0.1)


def test_jitter_scales_brightness_contrast_and_saturation_by_uniform_factors():
    """In the middle of the range nothing is clamped, and the three factors can be read off."""
    image = 0.45 + 0.1 * torch.rand(1, 3, 6, 6, generator=seeded(0))
    jittered = Augment(color_jitter=0.3)(image.expand(3000, -1, -1, -1), seeded(1))
    mean = grey(image).mean()
    shade, colour = grey(image) - mean, image - grey(image)
    brightness = grey(jittered).mean((1, 2, 3), keepdim=True) / mean
    shades = grey(jittered) - brightness * mean
    contrast = (shades * shade).sum((1, 2, 3), keepdim=True) / (shade**2).sum() / brightness
    colours = jittered - grey(jittered)
    saturation = (colours * colour).sum((1, 2, 3), keepdim=True) / (colour**2).sum()
    saturation = saturation / brightness / contrast
    expected = brightness * (mean + contrast * (shade + saturation * colour))
    torch.testing.assert_close(jittered, expected, atol=1e-5, rtol=0)
    for factor in (brightness, contrast, saturation):
        assert stats.kstest(factor.flatten().numpy(), stats.uniform(0.7, 0.6).cdf).pvalue > 0.001
    pairs = np.corrcoef(torch.cat([brightness, contrast, saturation], dim=1).flatten(1).T.numpy())
    assert abs(pairs - np.eye(3)).max() < 0.08


def torchvisions_jitter(pixels, amount):
    """Colours (pixels, 3) after brightness, contrast and saturation, in random order."""
    weights = np.array([0.299, 0.587, 0.114])
    changes = [
        lambda x: 0 * x,
        lambda x: np.full_like(x, (x @ weights).mean()),
        lambda x: np.repeat(x @ weights, 3).reshape(-1, 3),
    ]
    random.shuffle(changes)
    for change in changes:
        factor = random.uniform(1 - amount, 1 + amount)
        pixels = np.clip(factor * pixels + (1 - factor) * change(pixels), 0, 1)
    return pixels


def test_jitter_is_torchvisions_where_colours_are_clamped_and_order_counts():
    random.seed(0)
    pixels = np.array([[1.0, 0.1, 0.0], [0.9, 0.9, 0.2]])
    image = torch.from_numpy(pixels.T.copy()).float().view(1, 3, 1, 2)
    jittered = Augment(color_jitter=1.0)(image.expand(4000, -1, -1, -1), seeded(0))
    others = np.stack([torchvisions_jitter(pixels, 1.0).T for _ in range(4000)])
    for channel in range(3):
        for pixel in range(2):
            ours, theirs = jittered[:, channel, 0, pixel].numpy(), others[:, channel, pixel]
            assert stats.ks_2samp(ours, theirs).pvalue > 0.001


@pytest.mark.parametrize("probability", [0.25, 1.0])
def test_erasing_puts_noise_into_a_box_of_the_stated_area(probability):
    images = torch.full((2000, 3, 40, 40), 2.0)  # no value of the noise
    changed = Augment(erasing=probability)(images, seeded(0))
    gone = (changed != 2).all(1)
    assert torch.equal(gone, (changed != 2).any(1))
    erased = gone.flatten(1).any(1)
    assert erased.float().mean().item() == pytest.approx(probability, abs=0.05)
    rows, columns = gone[erased].any(2).sum(1), gone[erased].any(1).sum(1)
    area = gone[erased].flatten(1).sum(1)
    assert torch.equal(rows * columns, area)
    assert area.min() / 1600 >= 0.015
    assert area.max() / 1600 <= 0.35
    assert area.double().mean() / 1600 == pytest.approx((0.02 + 1 / 3) / 2, abs=0.015)
    noise = changed[changed != 2][:20000]
    assert stats.kstest(noise.numpy(), "uniform").pvalue > 0.001


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


def test_a_warp_by_nothing_is_nothing_done():
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


@given(
    augment=st.builds(
        Augment,
        warp=st.builds(Warp, rotate=angles, zoom=fractions, bend=fractions),
        crop=st.sampled_from(["none", "pad", "resized", "inception"]),
        pad=st.integers(0, 9),
        flip=st.booleans(),
        randaugment_layers=st.integers(0, 3),
        randaugment_magnitude=st.integers(0, 30),
        three_augment=st.booleans(),
        color_jitter=st.floats(0, 1),
        erasing=st.floats(0, 1),
    ),
    shape=st.tuples(
        st.integers(0, 5), st.sampled_from([1, 3]), st.integers(1, 20), st.integers(1, 20)
    ),
    seed=seeds,
)
def test_whatever_is_on_images_stay_images_and_a_seed_decides(augment, shape, seed):
    images = torch.rand(shape, generator=seeded(seed)).round(decimals=1)  # some 0, some 1
    untouched = images.clone()
    changed = augment(images, seeded(seed))
    assert changed.shape == images.shape
    assert changed.dtype == torch.float32
    assert ((changed >= 0) & (changed <= 1)).all()
    assert torch.equal(changed, augment(images, seeded(seed)))
    assert torch.equal(images, untouched)


def test_how_a_batch_lies_in_memory_makes_no_difference():
    images = torch.rand(6, 3, 20, 20, generator=seeded(0))
    expected = EVERYTHING(images, seeded(1))
    other = images.to(memory_format=torch.channels_last)
    torch.testing.assert_close(EVERYTHING(other, seeded(1)), expected)
    other = images.transpose(2, 3).contiguous().transpose(2, 3)
    torch.testing.assert_close(EVERYTHING(other, seeded(1)), expected)


@pytest.mark.parametrize("channels", [1, 3])
def test_no_image_depends_on_its_neighbours(channels):
    images = torch.rand(12, channels, 20, 24, generator=seeded(0))
    changed = EVERYTHING(images, seeded(1))
    for place in range(12):
        others = torch.rand(12, channels, 20, 24, generator=seeded(2))
        others[place] = images[place]
        assert torch.equal(EVERYTHING(others, seeded(1))[place], changed[place])


def test_each_image_meets_its_own_fate_and_the_same_again():
    images = torch.rand(1, 3, 24, 24, generator=seeded(0)).expand(20, -1, -1, -1)
    first = EVERYTHING(images, seeded(1))
    assert len(first.unique(dim=0)) == 20
    assert torch.equal(first, EVERYTHING(images, seeded(1)))
    assert not torch.equal(first, EVERYTHING(images, seeded(2)))


def test_with_only_a_warp_the_numbers_are_the_warps():
    images = data.load("digits").train_images[:30]
    warp = Warp(rotate=15, zoom=0.15, bend=0.05)
    alone, within = seeded(3), seeded(3)
    assert torch.equal(Augment(warp=warp)(images, within), warp(images, alone))
    assert torch.equal(within.get_state(), alone.get_state())


def test_nothing_switched_on_is_nothing_done_and_nothing_drawn():
    images, targets = torch.rand(4, 3, 8, 8), torch.eye(4)
    generator = seeded(0)
    before = generator.get_state()
    assert Augment()(images, generator) is images
    mixed, rows = Augment().mix(images, targets, generator)
    assert mixed is images
    assert rows is targets
    assert not Augment().mixes
    assert torch.equal(generator.get_state(), before)


@pytest.mark.parametrize("setting", ["mixup", "cutmix"])
def test_mixing_is_switched_on_by_either(setting):
    augment = Augment(**{setting: 1.0})
    assert augment.mixes
    mixed, rows = augment.mix(torch.rand(4, 3, 8, 8), torch.eye(4), seeded(0))
    assert 0 < rows[0, 0] < 1
    assert rows[0, 0] + rows[0, 3] == pytest.approx(1)
    assert mixed.shape == (4, 3, 8, 8)


def test_the_global_random_state_is_left_alone():
    before = torch.get_rng_state()
    images = torch.rand(4, 3, 20, 20, generator=torch.Generator())
    augment = Augment(mixup=0.8, cutmix=1.0)
    augment.mix(EVERYTHING(images, seeded(0)), torch.eye(4), seeded(0))
    assert torch.equal(torch.get_rng_state(), before)


def test_colours_of_neither_one_nor_three_channels_are_refused():
    images = torch.rand(2, 4, 8, 8)
    assert Augment(crop="pad", flip=True, erasing=1.0)(images, seeded(0)).shape == images.shape
    with pytest.raises(ValueError, match="4 channels"):
        Augment(color_jitter=0.3)(images, seeded(0))


@pytest.mark.parametrize(
    ("setting", "value"), [("rotate", -1), ("rotate", 181), ("zoom", 1), ("bend", -0.1)]
)
def test_an_absurd_warp_is_named(setting, value):
    with pytest.raises(ValueError, match=f"{setting} is {value}"):
        Warp(**{setting: value})


@pytest.mark.parametrize(
    ("setting", "value"),
    [("crop", "centre"), ("pad", -1), ("crop_scale", (0.5, 0.1)), ("crop_scale", (0.0, 1.0)),
     ("crop_scale", (0.5, 1.1)), ("crop_scale", (0.5,)), ("crop_scale", (math.nan, 1.0)),
     ("randaugment_layers", -1), ("randaugment_magnitude", 31), ("color_jitter", -0.1),
     ("color_jitter", 1.5), ("erasing", 1.1), ("erasing", math.nan), ("mixup", -1.0),
     ("mixup", math.inf), ("cutmix", math.nan)],
)  # fmt: skip
def test_an_absurd_setting_is_named_in_one_line(setting, value):
    with pytest.raises(ValueError, match=setting) as error:
        Augment(**{setting: value})
    assert "\n" not in str(error.value)
