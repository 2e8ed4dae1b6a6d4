"""Any ordinary image file to what a model takes, or one line on why not.

The file is decoded, turned upright (EXIF), laid on white where it is transparent, brought to grey
or colour as the model needs, cropped about its centre to the model's aspect ratio and resized.
When it shrinks, each new pixel is the mean of the area that it covers, as in the shipped digits;
when it grows, bicubic.

*Ink on paper.* Some data show bright strokes on a dark ground, and photographs of handwriting show
the opposite. For a model trained on such data (`bright_on_dark`) the rule is: an image whose
outermost pixels have a median above one half lies on a bright ground and is inverted. All 1,797
digits are told right by it, as they are and inverted. Nothing else is guessed: a digit is to fill
the picture from top to bottom, as in the data.

*For training*, `decode` gives a part of an image at a given size, bicubically with antialiasing. A
JPEG file is decoded at half, a quarter or an eighth of its size where that is still twice as large
as what is asked for: the decoder leaves out the high frequencies. This changes pixels a little and
saves most of the time with large photographs.
"""

import io
import math
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import ExifTags, Image, ImageOps
from PIL.JpegImagePlugin import JpegImageFile
from torch import Tensor
from torch.nn import functional

_MODES = {1: "L", 3: "RGB"}
# Decoders that only decode: Pillow has others that start programs (EPS).
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
_SPARE = 2  # a reduced image is still so much larger than asked for, as in Pillow's thumbnail


class Cut(NamedTuple):
    """What is made of an upright image: the box that is kept, and its size then.

    Attributes:
        top: Of the box, in pixels of the image.
        left: Of the box.
        height: Of the box.
        width: Of the box.
        size: The height and width to which the box is resized.
    """

    top: int
    left: int
    height: int
    width: int
    size: tuple[int, int]


def load_image(
    path: str | PathLike[str], *, channels: int, size: tuple[int, int], bright_on_dark: bool = False
) -> Float[Tensor, "C height width"]:
    """Read an image file as a model takes it, before normalisation.

    Args:
        path: A PNG, JPEG, GIF, TIFF, WebP, BMP or PPM file; of an animation, the first picture.
        channels: 1 for grey, 3 for colour.
        size: Height and width of the result, in pixels.
        bright_on_dark: Invert the image if its border is bright (see the module's text).

    Returns:
        Values in [0, 1].

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is no image, damaged, or of a kind that cannot be read safely.
    """
    mode = _mode(channels)
    with _opened(Path(path), str(path)) as image:
        _upright(image)
    image = _to_eight_bits(image, str(path)).convert(mode)
    height, width = size
    shrinks = image.height >= height and image.width >= width
    method = Image.Resampling.BOX if shrinks else Image.Resampling.BICUBIC
    image = ImageOps.fit(image, (width, height), method)
    pixels = _pixels(image).contiguous().float().div(255)
    return 1 - pixels if bright_on_dark and _on_bright_ground(pixels) else pixels


def decode(
    source: Path | bytes, name: str, *, channels: int, cut: Callable[[int, int], Cut]
) -> UInt8[Tensor, "C height width"]:
    """A part of an image at a given size, in values from 0 to 255.

    Args:
        source: The file, or its content.
        name: What errors call it.
        channels: 1 for grey, 3 for colour.
        cut: From height and width of the upright image to the box that is wanted.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no image, damaged, or of a kind that cannot be read safely.
    """
    mode = _mode(channels)
    with _opened(source, name) as image:
        if not isinstance(image, JpegImageFile):  # others know their size when they are decoded
            _upright(image)
        lies = image.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
        full = image.size if lies else image.size[::-1]
        top, left, height, width, size = cut(*full)
        y, x = _SPARE * size[0] / height, _SPARE * size[1] / width
        high, wide = math.ceil(full[0] * y), math.ceil(full[1] * x)
        image.draft(mode, (high, wide) if lies else (wide, high))
        _upright(image)
    image = _to_eight_bits(image, name)
    if image.mode != mode:
        image = image.convert(mode)
    y, x = image.height / full[0], image.width / full[1]  # 1, unless a JPEG file was reduced
    top, left = min(round(top * y), image.height - 1), min(round(left * x), image.width - 1)
    bottom, right = top + max(1, round(height * y)), left + max(1, round(width * x))
    pixels = _pixels(image, (left, top, min(right, image.width), min(bottom, image.height)))
    if pixels.shape[1:] == size:
        return pixels
    # as Pillow does it, to one level of 255, and three times as fast
    return functional.interpolate(pixels[None], size, mode="bicubic", antialias=True)[0]


def _mode(channels: int) -> str:
    if channels not in _MODES:
        raise ValueError(f"{channels} channels: an image file gives 1 (grey) or 3 (colour).")
    return _MODES[channels]


def _upright(image: Image.Image) -> None:
    """Decode an image and turn it as the camera says."""
    image.load()
    ImageOps.exif_transpose(image, in_place=True)


def _pixels(
    image: Image.Image, box: tuple[int, int, int, int] | None = None
) -> UInt8[Tensor, "C height width"]:
    """The pixels of an image, or of a box (left, top, right, bottom)."""
    left, top, right, bottom = box or (0, 0, *image.size)
    pixels = np.asarray(image)[top:bottom, left:right].copy()
    return torch.from_numpy(pixels).view(bottom - top, right - left, -1).permute(2, 0, 1)


def _missing(name: str) -> FileNotFoundError:
    return FileNotFoundError(f"{name}: there is no such file. Give the path of an image.")


@contextmanager
def _opened(source: Path | bytes, name: str) -> Generator[Image.Image]:
    """An image that is yet to be decoded; what is wrong with it is told when the block ends."""
    if isinstance(source, Path) and not source.is_file():
        if not source.exists():
            raise _missing(name)
        raise ValueError(f"{name}: not a file. Give the path of an image.")
    if (source.stat().st_size if isinstance(source, Path) else len(source)) == 0:
        raise ValueError(f"{name}: the file is empty. Expected an image.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            file = source if isinstance(source, Path) else io.BytesIO(source)
            with Image.open(file, formats=_FORMATS) as image:
                yield image
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(
            f"{name}: more than {Image.MAX_IMAGE_PIXELS:,} pixels, which may be an attack on "
            "memory. Reduce it first."
        ) from error
    except FileNotFoundError as error:  # it has gone in this moment
        raise _missing(name) from error
    except Image.UnidentifiedImageError as error:
        raise ValueError(f"{name}: not an image. Expected one of {', '.join(_FORMATS)}.") from error
    except PermissionError as error:
        raise ValueError(f"{name}: no permission to read it. Change its mode.") from error
    except Exception as error:  # a damaged file makes Pillow's decoders raise nearly anything
        raise ValueError(
            f"{name}: a damaged or truncated image ({' '.join(str(error).split())}). "
            "Export or copy it again."
        ) from error


def _to_eight_bits(image: Image.Image, name: str) -> Image.Image:
    """The same picture, opaque and of 8 bits: mode L or RGB."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        return Image.fromarray((np.asarray(image) // 257).astype(np.uint8))  # 65535 = 257 · 255
    if image.mode in ("I", "F"):
        raise ValueError(
            f"{name}: pixels of 32 bits have no agreed black and white. Save it with 8 or 16 bits."
        )
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    if image.mode in ("L", "RGB"):
        return image
    return image.convert("L" if image.mode == "1" else "RGB")


def _on_bright_ground(pixels: Float[Tensor, "C height width"]) -> bool:
    grey = pixels.mean(0)
    border = torch.cat([grey[0], grey[-1], grey[1:-1, 0], grey[1:-1, -1]])
    return bool(border.median() > 0.5)
