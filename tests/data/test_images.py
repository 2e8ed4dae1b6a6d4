import io
import struct
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vitlib import data
from vitlib.data.images import load_image

GREY = {"channels": 1, "size": (8, 8)}
COLOUR = {"channels": 3, "size": (4, 6)}


def save(folder, picture, name="picture.png", **options):
    path = folder / name
    picture.save(path, **options)
    return path


@pytest.fixture(scope="module")
def digits():
    dataset = data.load("digits")
    return torch.cat([dataset.train_images, dataset.test_images])


@pytest.fixture
def steps():
    """Sixteen by twelve pixels of colour, each unlike the others."""
    return np.random.default_rng(0).integers(0, 256, (16, 12, 3), dtype=np.uint8)


def test_a_grey_picture_of_the_models_size_is_read_as_it_is(tmp_path, steps):
    path = save(tmp_path, Image.fromarray(steps[:8, :8, 0]))
    expected = torch.from_numpy(steps[None, :8, :8, 0] / 255).float()
    torch.testing.assert_close(load_image(path, **GREY), expected)


def test_a_colour_picture_is_three_channels(tmp_path, steps):
    path = save(tmp_path, Image.fromarray(steps[:4, :6]))
    expected = torch.from_numpy(steps[:4, :6] / 255).float().permute(2, 0, 1)
    torch.testing.assert_close(load_image(path, **COLOUR), expected)


def test_shrinking_takes_the_mean_of_each_area(tmp_path, steps):
    path = save(tmp_path, Image.fromarray(steps[:16, :12]))
    image = load_image(path, channels=3, size=(4, 3))
    expected = steps.reshape(4, 4, 3, 4, 3).mean((1, 3)) / 255
    torch.testing.assert_close(
        image, torch.from_numpy(expected).float().permute(2, 0, 1), atol=1 / 255, rtol=0
    )


def test_a_picture_of_another_shape_is_cropped_about_its_centre(tmp_path):
    wide = np.zeros((8, 24), np.uint8)
    wide[:, 8:16] = 255
    assert load_image(save(tmp_path, Image.fromarray(wide)), **GREY).min() == 1


def test_a_small_picture_grows(tmp_path):
    image = load_image(save(tmp_path, Image.fromarray(np.uint8([[0, 255]]))), **GREY)
    assert image.shape == (1, 8, 8)
    assert image.min() >= 0
    assert image.max() <= 1


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16"])
def test_white_is_white_and_black_is_black_in_every_mode(tmp_path, mode):
    half = Image.new("L", (8, 8))
    half.paste(255, (0, 0, 8, 4))
    if mode == "I;16":
        picture = Image.fromarray(np.asarray(half).astype(np.uint16) * 257)
    else:
        picture = half.convert("RGB").convert(mode)
    name = "picture.tif" if mode in ("CMYK", "YCbCr") else "picture.png"
    path = save(tmp_path, picture, name)
    for kind in (GREY, {"channels": 3, "size": (8, 8)}):
        image = load_image(path, **kind)
        torch.testing.assert_close(image[:, :4], torch.ones_like(image[:, :4]), atol=0.01, rtol=0)
        torch.testing.assert_close(image[:, 4:], torch.zeros_like(image[:, 4:]), atol=0.01, rtol=0)


def test_transparent_pixels_are_white(tmp_path):
    clear = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    assert load_image(save(tmp_path, clear), **GREY).min() == 1
    palette = Image.new("P", (8, 8))
    assert load_image(save(tmp_path, palette, transparency=0), **GREY).min() == 1


def test_sixteen_bits_keep_their_middle(tmp_path):
    picture = Image.fromarray(np.full((8, 8), 32768, np.uint16))
    assert load_image(save(tmp_path, picture), **GREY).mean().item() == pytest.approx(0.5, abs=0.01)


def test_a_turned_photograph_is_upright(tmp_path):
    picture = Image.fromarray(np.tile(np.linspace(0, 255, 8).astype(np.uint8), (8, 1)))
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turn clockwise by a quarter to view
    path = save(tmp_path, picture, "turned.jpg", exif=exif, quality=100)
    image = load_image(path, **GREY)[0]
    assert (image[1:] - image[:-1]).min() > 0


def test_the_first_picture_of_an_animation_counts(tmp_path):
    frames = [Image.new("L", (8, 8), 255), Image.new("L", (8, 8), 0)]
    path = save(tmp_path, frames[0], "a.gif", save_all=True, append_images=frames[1:])
    assert load_image(path, **GREY).min() == 1


def test_every_digit_is_read_right_in_ink_on_paper_and_in_light_on_dark(tmp_path, digits):
    """The rule for polarity holds for all 1,797, and the values survive the way through a file."""
    for number, image in enumerate(digits):
        levels = (image[0] * 255).round().to(torch.uint8)
        for name, picture in {"dark": levels, "paper": 255 - levels}.items():
            path = tmp_path / f"{name}.png"
            Image.fromarray(picture.numpy()).resize((32, 32), Image.Resampling.NEAREST).save(path)
            read = load_image(path, **GREY, bright_on_dark=True)
            assert (read - image).abs().max() < 0.01, f"digit {number}, {name}"


def test_polarity_is_left_alone_where_the_data_have_none(tmp_path):
    path = save(tmp_path, Image.new("L", (8, 8), 255))
    assert load_image(path, **GREY).min() == 1
    assert load_image(path, **GREY, bright_on_dark=True).max() == 0


def complaint(path, kind=ValueError, **options):
    with pytest.raises(kind) as error:
        load_image(path, **{**GREY, **options})
    assert "\n" not in str(error.value)
    return str(error.value)


def test_what_is_no_image_is_told_by_its_path(tmp_path):
    assert str(tmp_path / "none.png") in complaint(tmp_path / "none.png", FileNotFoundError)
    assert f"{tmp_path}: not a file" in complaint(tmp_path)
    for name, content, why in [
        ("empty.png", b"", "the file is empty"),
        ("text.png", b"hello, this is text", "not an image"),
        ("zip.jpg", b"PK\x03\x04" + bytes(100), "not an image"),
        ("program.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n", "not an image"),
    ]:
        (tmp_path / name).write_bytes(content)
        assert f"{name}: {why}" in complaint(tmp_path / name)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.gif", "a.tif", "a.bmp", "a.webp"])
def test_half_a_file_is_no_picture(tmp_path, steps, name):
    path = save(tmp_path, Image.fromarray(steps).resize((64, 64)), name)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert str(path) in complaint(path)


def png(width, height):
    """A file that claims so many pixels and holds none of them."""

    def chunk(kind, content):
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [10_000, 100_000])
def test_a_bomb_is_not_unpacked(tmp_path, side):
    (tmp_path / "bomb.png").write_bytes(png(side, side))
    assert "more than 89,478,485 pixels" in complaint(tmp_path / "bomb.png")


def test_thirty_two_bits_have_no_agreed_range(tmp_path):
    path = save(tmp_path, Image.fromarray(np.full((8, 8), 0.5, np.float32)), "float.tif")
    assert "32 bits" in complaint(path)


def test_only_grey_and_colour_can_be_had_from_a_file(tmp_path):
    assert "4 channels" in complaint(save(tmp_path, Image.new("RGBA", (8, 8))), channels=4)


@settings(max_examples=60, deadline=None)
@given(place=st.integers(0, 10_000), value=st.integers(0, 255))
def test_a_flipped_byte_gives_a_picture_or_one_line(tmp_path_factory, place, value):
    for kind in ("PNG", "JPEG", "GIF", "TIFF"):
        buffer = io.BytesIO()
        Image.linear_gradient("L").resize((16, 16)).save(buffer, kind)
        content = bytearray(buffer.getvalue())
        content[place % len(content)] = value
        path = tmp_path_factory.getbasetemp() / f"flipped.{kind.lower()}"
        path.write_bytes(content)
        try:
            assert load_image(path, **GREY).shape == (1, 8, 8)
        except ValueError:
            complaint(path)


def test_a_file_that_goes_while_it_is_opened_is_missing_not_damaged(tmp_path, monkeypatch):
    path = tmp_path / "photo.png"
    Image.new("L", (4, 4)).save(path)

    def gone(*_, **__):
        raise FileNotFoundError(2, "No such file or directory", str(path))

    monkeypatch.setattr(Image, "open", gone)
    with pytest.raises(FileNotFoundError, match=r"photo\.png: there is no such file"):
        load_image(path, channels=1, size=(4, 4))
