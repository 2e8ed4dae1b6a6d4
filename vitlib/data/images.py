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
"""

import warnings
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageOps
from torch import Tensor

_MODES = {1: "L", 3: "RGB"}
# Decoders that only decode: Pillow has others that start programs (EPS).
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")


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
    if channels not in _MODES:
        raise ValueError(f"{channels} channels: an image file gives 1 (grey) or 3 (colour).")
    image = _decode(Path(path)).convert(_MODES[channels])
    height, width = size
    shrinks = image.height >= height and image.width >= width
    method = Image.Resampling.BOX if shrinks else Image.Resampling.BICUBIC
    image = ImageOps.fit(image, (width, height), method)
    pixels = torch.from_numpy(np.array(image)).float().div(255).view(height, width, channels)
    pixels = pixels.permute(2, 0, 1).contiguous()
    return 1 - pixels if bright_on_dark and _on_bright_ground(pixels) else pixels


def _decode(path: Path) -> Image.Image:
    """The upright, opaque 8-bit picture in a file: mode L or RGB."""
    if not path.exists():
        raise FileNotFoundError(f"{path}: there is no such file. Give the path of an image.")
    if not path.is_file():
        raise ValueError(f"{path}: not a file. Give the path of an image.")
    if path.stat().st_size == 0:
        raise ValueError(f"{path}: the file is empty. Expected an image.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=_FORMATS) as image:
                image.load()
                kind = image.format
                image = ImageOps.exif_transpose(image)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(
            f"{path}: more than {Image.MAX_IMAGE_PIXELS:,} pixels, which may be an attack on "
            "memory. Reduce it first."
        ) from error
    except Image.UnidentifiedImageError as error:
        raise ValueError(f"{path}: not an image. Expected one of {', '.join(_FORMATS)}.") from error
    except PermissionError as error:
        raise ValueError(f"{path}: no permission to read it. Change its mode.") from error
    except Exception as error:  # a damaged file makes Pillow's decoders raise nearly anything
        raise ValueError(
            f"{path}: a damaged or truncated image ({' '.join(str(error).split())}). "
            "Export or copy it again."
        ) from error
    return _to_eight_bits(image, kind, path)


def _to_eight_bits(image: Image.Image, kind: str | None, path: Path) -> Image.Image:
    if image.mode.startswith("I;16") or (image.mode == "I" and kind == "PNG"):
        return Image.fromarray((np.asarray(image) // 257).astype(np.uint8))  # 65535 = 257 · 255
    if image.mode in ("I", "F"):
        raise ValueError(
            f"{path}: pixels of 32 bits have no agreed black and white. Save it with 8 or 16 bits."
        )
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("L" if image.mode in ("1", "L") else "RGB")


def _on_bright_ground(pixels: Float[Tensor, "C height width"]) -> bool:
    grey = pixels.mean(0)
    border = torch.cat([grey[0], grey[-1], grey[1:-1, 0], grey[1:-1, -1]])
    return bool(border.median() > 0.5)
