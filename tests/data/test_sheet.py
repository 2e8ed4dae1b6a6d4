import numpy as np
import pytest
import torch
from PIL import Image, ImageFont

from vitlib.data import sheet
from vitlib.data.sheet import captions, contact_sheet

CLASSES = ("shirt", "coat", "bag")


def pixels_of(path):
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB"))


def where(found, picture):
    """The (row, column) of each place at which the picture is found."""
    height, width = picture.shape[:2]
    corners = (found[: 1 - height, : 1 - width] == picture[0, 0]).all(2)
    corners &= (found[height - 1 :, width - 1 :] == picture[-1, -1]).all(2)
    return [
        (row, column)
        for row, column in np.argwhere(corners).tolist()
        if np.array_equal(found[row : row + height, column : column + width], picture)
    ]


def test_labels_are_named():
    assert captions(torch.tensor([2, 0, 0]), CLASSES) == ["bag", "shirt", "shirt"]


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ([0.0, 1.0, 0.0], "coat"),
        ([0.7, 0.3, 0.0], "shirt 70 % + coat 30 %"),
        ([0.3, 0.0, 0.7], "bag 70 % + shirt 30 %"),
        ([0.2, 0.5, 0.3], "coat 50 % + bag 30 % + shirt 20 %"),
        ([0.004, 0.996, 0.0], "coat"),
        ([0.006, 0.994, 0.0], "coat 99 % + shirt 1 %"),
        ([0.5, 0.0, 0.0], "shirt 50 %"),
        ([0.0, 0.0, 0.0], ""),
    ],
)
def test_mixtures_are_named_by_their_parts_the_largest_first(row, text):
    assert captions(torch.tensor([row]), CLASSES) == [text]


@pytest.mark.parametrize(("channels", "height", "width", "factor"), [(1, 8, 8, 14), (3, 6, 9, 12)])
def test_each_pixel_of_a_small_image_becomes_a_square(tmp_path, channels, height, width, factor):
    images = torch.rand(7, channels, height, width, generator=torch.Generator().manual_seed(0))
    contact_sheet(images, ["coat"] * 7, tmp_path / "sheet.png")
    found = pixels_of(tmp_path / "sheet.png")
    expected = (255 * images).round().byte().expand(-1, 3, -1, -1).permute(0, 2, 3, 1).numpy()
    expected = np.kron(expected, np.ones((1, factor, factor, 1), dtype=np.uint8))
    places = [place for image in expected for place in where(found, image)]
    assert len(places) == 7  # each once, whole, nothing written over it
    assert places == sorted(places)  # in reading order


def test_a_large_image_stays_as_it_is(tmp_path):
    images = torch.rand(1, 3, 150, 130)
    contact_sheet(images, ["coat"], tmp_path / "sheet.png")
    found = pixels_of(tmp_path / "sheet.png")
    expected = (255 * images[0]).round().byte().permute(1, 2, 0).numpy()
    assert np.array_equal(found[8:158, 8:138], expected)


def test_below_each_image_stands_its_caption_within_its_column(tmp_path):
    long = "a name of many words, " * 3 + "and-one-that-is-too-long-for-any-line"
    images = torch.zeros(4, 1, 8, 8)
    contact_sheet(images, ["1", long, "", "coat 70 % + bag 30 %"], tmp_path / "sheet.png")
    dark = pixels_of(tmp_path / "sheet.png").min(2) < 128
    columns = dark.any(0)
    first, second = slice(8, 120), slice(128, 240)
    assert not columns[120:128].any()
    assert not columns[240:248].any()
    text = dark[8 + 112 :]
    assert 0 < text[:30, first].sum() < text[:30, second].sum()  # "1", and the longest
    rows = text[:, second].any(1)
    assert rows[:100].sum() > 40  # several lines


def test_lines_are_as_long_as_fits_and_keep_numbers_and_percent_together():
    font = ImageFont.load_default(13)
    lines = sheet._wrapped("T-shirt/top 70 % + Ankle boot 30 %", font, 112)
    assert (
        " ".join(lines).replace("\N{NO-BREAK SPACE}", " ") == "T-shirt/top 70 % + Ankle boot 30 %"
    )
    assert all(font.getlength(line) <= 112 for line in lines)
    assert not any(line.startswith("%") for line in lines)
    assert "".join(sheet._wrapped("x" * 100, font, 50)) == "x" * 100
    assert sheet._wrapped("", font, 50) == [""]


def test_without_any_font_pillows_own_is_taken(tmp_path, monkeypatch):
    monkeypatch.setattr(sheet, "_FONTS", ("no such font.ttf",))
    contact_sheet(torch.zeros(1, 1, 8, 8), ["Ärmel 袖"], tmp_path / "sheet.png")
    assert (pixels_of(tmp_path / "sheet.png")[120:] < 128).any()


@pytest.mark.parametrize("count", [1, 2, 3, 10, 17])
def test_every_number_of_images_has_a_sheet_without_empty_rows(tmp_path, count):
    contact_sheet(torch.zeros(count, 3, 20, 10), ["a"] * count, tmp_path / "sheet.png")
    found = pixels_of(tmp_path / "sheet.png")
    dark = (found == 0).all(2)
    assert dark.sum() >= count * 100 * 50
    assert dark[-(100 + 30) :].any()


def test_an_old_sheet_is_replaced_and_nothing_else_is_left(tmp_path):
    for shade in (0.0, 1.0):
        contact_sheet(torch.full((1, 1, 8, 8), shade), ["a"], tmp_path / "sheet.png")
    assert (pixels_of(tmp_path / "sheet.png")[8:120, 8:120] == 255).all()
    assert [path.name for path in tmp_path.iterdir()] == ["sheet.png"]


@pytest.mark.parametrize(
    ("shape", "texts", "words"),
    [
        ((0, 1, 8, 8), 0, "no images"),
        ((2, 4, 8, 8), 2, "4 channels"),
        ((2, 1, 8, 8), 1, "2 images and 1 captions"),
    ],
)
def test_what_makes_no_sheet_is_refused_in_a_line(tmp_path, shape, texts, words):
    with pytest.raises(ValueError, match=words) as error:
        contact_sheet(torch.zeros(shape), ["a"] * texts, tmp_path / "sheet.png")
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_the_systems_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        contact_sheet(torch.zeros(1, 1, 8, 8), ["a"], tmp_path / "no" / "sheet.png")
