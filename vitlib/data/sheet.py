"""A contact sheet: a batch of images in one picture, each with what the model is told that it is.

It shows what a model is trained on, after augmentation: whether digits stand upright, things are
still in the crop, and labels belong to their images.
"""

import io
import math
from collections.abc import Sequence
from pathlib import Path

from jaxtyping import Float, Int
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from vitlib.files import write_atomically

_SIDE = 112  # pixels: small images are enlarged to about that
_MARGIN = 8  # pixels between images, and around them
_TEXT = 13  # pixels, the height of letters
_FONTS = ("DejaVuSans.ttf", "Arial.ttf")  # know more letters than Pillow's own, which knows ASCII


def captions(
    targets: Int[Tensor, " B"] | Float[Tensor, "B K"], classes: Sequence[str]
) -> list[str]:
    """The classes of a batch in words, such as "shirt" or "shirt 70 % + coat 30 %".

    Args:
        targets: A label for each image, or a row that says what part of it is of which class.
            Parts of less than half a per cent are not mentioned.
        classes: The K names.
    """
    if targets.ndim == 1:
        return [classes[int(label)] for label in targets]
    texts: list[str] = []
    for row in targets.tolist():
        named = zip(row, classes, strict=True)
        parts = [(part, name) for part, name in named if round(100 * part) >= 1]
        parts.sort(key=lambda named: named[0], reverse=True)
        if len(parts) == 1 and round(100 * parts[0][0]) == 100:
            texts.append(parts[0][1])
        else:
            texts.append(" + ".join(f"{name} {100 * part:.0f} %" for part, name in parts))
    return texts


def contact_sheet(
    images: Float[Tensor, "B C height width"], captions: Sequence[str], path: Path
) -> None:
    """Write images in rows and columns, each above its caption, to a PNG file.

    Small images are enlarged by a whole factor, each pixel to a square, so that they stay what the
    model sees.

    Args:
        images: In [0, 1], of 1 or 3 channels, on any device.
        captions: A text for each.
        path: The file; replaced if it exists.

    Raises:
        ValueError: There is no image, their channels are neither 1 nor 3, or there is not one
            caption for each.
        OSError: The file cannot be written. A file of that name stays as it was.
    """
    count, channels, height, width = images.shape
    if count == 0:
        raise ValueError("a contact sheet of no images: expected one or more.")
    if channels not in (1, 3):
        raise ValueError(f"images have {channels} channels: expected 1 (grey) or 3 (colour).")
    if len(captions) != count:
        raise ValueError(
            f"{count} images and {len(captions)} captions: expected a caption for each."
        )
    factor = max(1, _SIDE // max(height, width))
    pixels = images.detach().cpu().clamp(0, 1).mul(255).round().byte().permute(0, 2, 3, 1)
    pixels = pixels.repeat_interleave(factor, 1).repeat_interleave(factor, 2)
    pictures = pixels.expand(-1, -1, -1, 3).contiguous().numpy()
    height, width = factor * height, factor * width

    font = _font()
    column = max(width, _SIDE)
    texts = [_wrapped(text, font, column) for text in captions]
    row = height + _MARGIN // 2 + max(len(lines) for lines in texts) * (_TEXT + 3)
    columns = math.ceil(math.sqrt(count * row / column))
    sheet = Image.new(
        "RGB",
        (
            _MARGIN + columns * (column + _MARGIN),
            _MARGIN + math.ceil(count / columns) * (row + _MARGIN),
        ),
        "white",
    )
    pen = ImageDraw.Draw(sheet)
    for number, (picture, lines) in enumerate(zip(pictures, texts, strict=True)):
        x = _MARGIN + number % columns * (column + _MARGIN)
        y = _MARGIN + number // columns * (row + _MARGIN)
        sheet.paste(Image.fromarray(picture), (x, y))
        for place, line in enumerate(lines):
            pen.text((x, y + height + _MARGIN // 2 + place * (_TEXT + 3)), line, "black", font)
    png = io.BytesIO()
    sheet.save(png, format="PNG")
    write_atomically(path, png.getvalue())


def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    for name in _FONTS:
        try:
            return ImageFont.truetype(name, _TEXT)
        except OSError:
            continue
    return ImageFont.load_default(_TEXT)


def _wrapped(
    text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int
) -> list[str]:
    """The text in lines of at most `width` pixels, broken at spaces, or within a long word."""
    lines = [""]
    for word in text.replace(" %", "\N{NO-BREAK SPACE}%").split(" "):
        longer = f"{lines[-1]} {word}".lstrip()
        if font.getlength(longer) <= width:
            lines[-1] = longer
            continue
        if lines[-1]:
            lines.append("")
        for letter in word:
            if lines[-1] and font.getlength(lines[-1] + letter) > width:
                lines.append("")
            lines[-1] += letter
    return lines
