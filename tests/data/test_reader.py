import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from PIL.JpegImagePlugin import JpegImageFile

from vitlib import data
from vitlib.data.augment import ASPECT, resized_crop_box
from vitlib.data.collection import Picture
from vitlib.data.reader import (
    NO_IMAGE,
    NO_LABEL,
    CentreView,
    Place,
    RandomView,
    Reader,
    StreamReader,
    collate,
    read_picture,
)
from vitlib.data.seeds import generator_at

SIZE = (24, 32)
WHOLE = CentreView(SIZE)
HERE = Place(0, 0)


class Given:
    """Pictures from a list of files or contents; their labels are their positions."""

    def __init__(self, *sources):
        self.sources, self.labels, self.blocks = sources, torch.arange(len(sources)), None

    def __getitem__(self, index):
        return Picture(self.sources[index], f"image {index}", index)


def content(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def plain(colour=(200, 100, 50), size=(32, 24)):
    return Image.new("RGB", size, colour)


def read(source, view=WHOLE, channels=3, place=HERE):
    return read_picture(Picture(source, "the image", 7), place, channels, view)


@pytest.fixture(scope="module")
def photograph():
    """A photograph of 480 × 320 pixels, in Pillow's form."""
    pixels = data.photographs()["china"].permute(1, 2, 0).mul(255).byte()
    return Image.fromarray(pixels.numpy())


def levels(image):
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).int()


# Views: against Pillow, and torchvision's rules for sizes, written out.


@pytest.mark.parametrize(
    ("size", "resized", "corner"),
    [
        ((224, 224), (384, 256), (80, 16)),  # 256 is 8 / 7 of 224, 384 is 480 · 256 / 320
        ((96, 200), (229, 152), (14, 28)),  # 229 is 8 / 7 of 200, 152 is 320 · 229 / 480
    ],
)
def test_testing_resizes_the_shorter_side_and_keeps_the_centre(photograph, size, resized, corner):
    image = read(content(photograph), CentreView(size, 8 / 7)).image
    left, top = corner
    expected = photograph.resize(resized, Image.Resampling.BICUBIC)
    expected = expected.crop((left, top, left + size[1], top + size[0]))
    assert image.shape == (3, *size)
    assert (image.int() - levels(expected)).abs().max() <= 1


@pytest.mark.parametrize("size", [(1, 20_000), (20_000, 1), (3, 999)])
def test_a_line_of_pixels_does_not_become_a_wall(size):
    height, width = size
    line = Image.new("L", (width, height))
    line.paste(255, (width // 2 - 1, height // 2 - 1, width // 2 + 2, height // 2 + 2))
    view = CentreView((24, 32), 8 / 7)
    cut = view(HERE, height, width)
    assert cut.size[0] * cut.size[1] <= 4 * 28 * 38
    image = read(content(line), view).image
    assert image.shape == (3, 24, 32)
    assert image[:, 12, 16].min() == 255


def test_without_a_margin_the_whole_shorter_side_is_kept(photograph):
    image = read(content(photograph), CentreView((64, 64))).image
    expected = photograph.resize((96, 64), Image.Resampling.BICUBIC).crop((16, 0, 80, 64))
    assert (image.int() - levels(expected)).abs().max() <= 1


def test_an_image_of_the_models_size_stays_as_it_is(photograph):
    image = read(content(photograph), CentreView((320, 480))).image
    assert torch.equal(image.int(), levels(photograph))


def test_a_random_view_is_the_box_that_was_drawn_for_the_place(photograph):
    view = RandomView((64, 48), (0.1, 1.0), "resized", seed=3)
    for place in (Place(0, 0), Place(0, 1), Place(1, 0)):
        top, left, height, width = resized_crop_box(
            320, 480, (0.1, 1.0), ASPECT, generator_at("cpu", 3, 4, *place)
        )
        expected = photograph.crop((left, top, left + width, top + height))
        expected = expected.resize((48, 64), Image.Resampling.BICUBIC)
        image = read(content(photograph), view, place=place).image
        assert (image.int() - levels(expected)).abs().max() <= 1


def test_a_random_view_differs_by_seed_epoch_image_and_law(photograph):
    def cut(seed, place, law="resized"):
        return RandomView((8, 8), (0.08, 1), law, seed)(place, 300, 400)

    cuts = [cut(0, Place(0, 0)), cut(1, Place(0, 0)), cut(0, Place(1, 0)), cut(0, Place(0, 1))]
    cuts += [cut(0, Place(0, 0), "inception")]
    assert len(set(cuts)) == 5
    assert cut(0, Place(0, 0)) == cuts[0]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("factor", [1, 4])
def test_a_large_jpeg_file_is_reduced_when_decoded_and_looks_the_same(
    photograph, orientation, factor
):
    """Also if the camera was turned: a box is one of the upright image."""
    large = photograph.resize((480 * factor, 320 * factor), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[0x0112] = orientation
    jpeg = content(large, "JPEG", quality=95, exif=exif)
    upright = content(ImageOps.exif_transpose(Image.open(io.BytesIO(jpeg))), "BMP")
    for view in (CentreView((64, 80), 8 / 7), RandomView((48, 64), (0.2, 0.6), "resized", 1)):
        reduced, exact = read(jpeg, view).image, read(upright, view).image
        assert (reduced.int() - exact.int()).abs().float().mean() < 3


def test_reducing_is_what_makes_it_fast(photograph, monkeypatch):
    decoded = []
    load = JpegImageFile.load
    monkeypatch.setattr(JpegImageFile, "load", lambda self: decoded.append(self.size) or load(self))
    jpeg = content(photograph.resize((1920, 1280)), "JPEG")
    for side in (64, 320, 321):
        read(jpeg, CentreView((side, side)))
    assert list(dict.fromkeys(decoded)) == [(240, 160), (960, 640), (1920, 1280)]
    decoded.clear()
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera lay on its side
    read(content(photograph.resize((1920, 1280)), "JPEG", exif=exif), CentreView((120, 80)))
    assert decoded[0] == (240, 160)


# The nine kinds of odd images, and some more: decoded rightly, or reported by name.


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "odd",
    [
        pytest.param(content(plain().convert("L"), "JPEG", quality=100), id="grey JPEG"),
        pytest.param(content(plain().convert("L")), id="grey"),
        pytest.param(content(plain().convert("CMYK"), "JPEG", quality=100), id="CMYK JPEG"),
        pytest.param(content(plain().convert("CMYK"), "TIFF"), id="CMYK"),
        pytest.param(content(plain().quantize(4)), id="palette"),
        pytest.param(content(plain().quantize(4), "GIF"), id="GIF"),
        pytest.param(
            content(Image.fromarray(np.full((24, 32), 124 * 257, np.uint16))), id="16-bit"
        ),
        pytest.param(content(plain().convert("RGBA")), id="alpha"),
        pytest.param(content(plain().convert("LA")), id="grey and alpha"),
        pytest.param(content(plain(), "WEBP", lossless=True), id="WebP"),
        pytest.param(content(plain(), "JPEG", quality=100), id="JPEG"),
    ],
)
def test_an_odd_image_has_the_right_colour(odd, channels):
    grey = plain().convert("L").getpixel((0, 0))
    assert grey == 124
    kind = Image.open(io.BytesIO(odd)).mode
    colour = (grey,) * channels if channels == 1 or kind[0] in "LI" else (200, 100, 50)
    reading = read(odd, channels=channels)
    assert reading.faults == ()
    assert reading.label == 7
    expected = torch.tensor(colour)[:, None, None].expand(channels, *SIZE)
    assert (reading.image.int() - expected).abs().max() <= 2


def test_what_is_transparent_is_white():
    clear = Image.new("RGBA", (32, 24), (0, 0, 0, 0))
    assert read(content(clear)).image.min() == 255


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photograph_is_upright_however_the_camera_was_held(orientation):
    """Red, green, blue and white from the top left corner clockwise, whatever the file says."""
    corners = Image.new("RGB", (32, 24), "red")
    corners.paste((0, 255, 0), (16, 0, 32, 12))
    corners.paste((0, 0, 255), (16, 12, 32, 24))
    corners.paste((255, 255, 255), (0, 12, 16, 24))
    stored = {
        1: [],
        2: [Image.Transpose.FLIP_LEFT_RIGHT],
        3: [Image.Transpose.ROTATE_180],
        4: [Image.Transpose.FLIP_TOP_BOTTOM],
        5: [Image.Transpose.TRANSPOSE],
        6: [Image.Transpose.ROTATE_90],
        7: [Image.Transpose.TRANSVERSE],
        8: [Image.Transpose.ROTATE_270],
    }[orientation]
    image = corners
    for turn in stored:
        image = image.transpose(turn)
    exif = Image.Exif()
    exif[0x0112] = orientation
    for kind in ("PNG", "TIFF", "WEBP"):
        options = {"lossless": True} if kind == "WEBP" else {}
        seen = read(content(image, kind, exif=exif, **options))
        assert torch.equal(seen.image.int(), levels(corners)), kind


def png(width, height):
    """A file that claims so many pixels and holds none of them."""

    def chunk(kind, content):
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


BAD = {
    "a damaged or truncated image": content(plain(), "JPEG")[:400],
    "the file is empty": b"",
    "not an image": b"hello, this is text",
    "which may be an attack on memory": png(100_000, 100_000),
    "pixels of 32 bits": content(Image.fromarray(np.full((8, 8), 0.5, np.float32)), "TIFF"),
}


@pytest.mark.parametrize("why", BAD)
def test_a_bad_image_is_reported_by_its_name(tmp_path, why):
    path = tmp_path / "bad.jpg"
    path.write_bytes(BAD[why])
    for source, name in ((BAD[why], "the image"), (path, str(path))):
        reading = read_picture(Picture(source, name, 7), HERE, 3, WHOLE)
        assert reading.label == NO_LABEL
        assert reading.image.shape == (3, *SIZE)
        ((who, what),) = reading.faults
        assert who == name
        assert why in what
        assert "\n" not in what
        assert name not in what


def test_a_file_that_has_gone_is_reported(tmp_path):
    path = tmp_path / "gone.png"
    ((who, what),) = read_picture(Picture(path, str(path), 0), HERE, 3, WHOLE).faults
    assert (who, what.split(".")[0]) == (str(path), "there is no such file")


# What the reader does about it.


def test_in_training_the_next_readable_image_takes_the_place_of_a_bad_one():
    good = [content(plain((10 * number, 0, 0))) for number in range(5)]
    pictures = Given(good[0], b"", b"text", good[3], b"")
    reader = Reader(pictures, 3, WHOLE, replace=True)
    for number, (shown, faults) in enumerate([(0, []), (3, [1, 2]), (3, [2]), (3, []), (0, [4])]):
        reading = reader[Place(0, number)]
        assert reading.label == shown
        assert reading.image[0, 0, 0] == 10 * shown
        assert [name for name, _ in reading.faults] == [f"image {fault}" for fault in faults]


def test_the_image_that_takes_the_place_is_cropped_as_in_its_own(photograph):
    view = RandomView(SIZE, (0.1, 0.5), "resized", 0)
    reader = Reader(Given(b"", content(photograph)), 3, view, replace=True)
    assert torch.equal(reader[Place(2, 0)].image, reader[Place(2, 1)].image)
    assert not torch.equal(reader[Place(2, 1)].image, reader[Place(3, 1)].image)


def test_in_a_test_a_bad_image_has_no_label():
    reader = Reader(Given(content(plain()), b""), 3, WHOLE, replace=False)
    assert [reader[Place(0, number)].label for number in range(2)] == [0, NO_LABEL]
    assert reader[Place(0, 1)].image.max() == 0


def test_a_hundred_bad_images_in_a_row_are_enough():
    reader = Reader(Given(*[b""] * 150, content(plain())), 3, WHOLE, replace=True)
    assert reader[Place(0, 60)].label == 150
    gone = reader[Place(0, 0)]
    assert gone.label == NO_LABEL
    assert len(gone.faults) == 100


def test_where_all_are_bad_each_is_tried_once():
    reading = Reader(Given(b"", b""), 3, WHOLE, replace=True)[Place(0, 1)]
    assert [name for name, _ in reading.faults] == ["image 1", "image 0"]


def test_pictures_that_cannot_be_fetched_are_reported():
    class Gone(Given):
        def __getitem__(self, index):
            return Picture(Path("/no/such/shard.tar").read_bytes(), "", 0)

    reading = Reader(Gone(b""), 3, WHOLE, replace=False)[HERE]
    assert reading.faults == (("/no/such/shard.tar", "No such file or directory."),)


def test_an_image_that_is_not_there_is_black_and_no_fault():
    for reading in (
        Reader(Given(b""), 1, WHOLE, replace=True)[Place(0, NO_IMAGE)],
        StreamReader(1, WHOLE)[Place(0, NO_IMAGE), None],
    ):
        assert reading.image.shape == (1, *SIZE)
        assert (reading.image.max(), reading.label, reading.faults) == (0, NO_LABEL, ())


def test_a_batch_is_its_images_in_order():
    reader = StreamReader(3, WHOLE)
    pictures = [Picture(content(plain((9 * n, 0, 0))), f"{n}", n) for n in range(3)]
    pictures.insert(1, Picture(b"", "bad", 5))
    batch = collate([reader[Place(0, n), picture] for n, picture in enumerate(pictures)])
    assert batch.images.shape == (4, 3, *SIZE)
    assert batch.images.dtype == torch.uint8
    assert batch.images[:, 0, 0, 0].tolist() == [0, 0, 9, 18]
    assert batch.labels.tolist() == [0, NO_LABEL, 1, 2]
    assert [name for name, _ in batch.faults] == ["bad"]
