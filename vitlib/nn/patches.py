"""Patches: an image becomes a sequence of small squares.

    images (B, C, height, width)   patches (B, N, C·P²), N = height · width / P²

Patches follow one another row by row. Inside a patch the order is channel, row, column. Only places
change, no numbers, so the backward pass is the way back: `unpatchify` of the gradient
(`tokens/patches`). Nothing is saved but the sizes.
"""

from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from vitlib.config import Size, sides

Sizes = tuple[Size, tuple[int, int]]
"""Of a patch, and of the image."""


def patchify(
    images: Float[Tensor, "*batch C height width"], patch_size: Size
) -> Float[Tensor, "*batch N CPP"]:
    """Cut images into flattened patches.

    Args:
        images: any leading dimensions, channels, sizes.
        patch_size: P, or (height, width) of a patch.

    Raises:
        ValueError: if the patches do not fill the image exactly.
        TypeError: if a size is not a whole number.
    """
    p, q = sides("patch_size", patch_size)
    if images.ndim < 3:
        raise ValueError(
            f"images have shape {tuple(images.shape)}: expected (…, C, height, width)."
        )
    height, width = images.shape[-2:]
    _check_fit(height, width, p, q)
    return rearrange(images, "... c (rows p) (columns q) -> ... (rows columns) (c p q)", p=p, q=q)


def unpatchify(
    patches: Float[Tensor, "*batch N CPP"], patch_size: Size, image_size: Size
) -> Float[Tensor, "*batch C height width"]:
    """Put flattened patches together again: the inverse of `patchify`.

    Args:
        patches: N flattened patches, row by row.
        patch_size: P, or (height, width) of a patch.
        image_size: one number for a square, or (height, width).

    Raises:
        ValueError: if the sizes do not fit one another.
        TypeError: if a size is not a whole number.
    """
    (p, q), (height, width) = sides("patch_size", patch_size), sides("image_size", image_size)
    _check_fit(height, width, p, q)
    if patches.ndim < 2:
        raise ValueError(f"patches have shape {tuple(patches.shape)}: expected (…, N, C·P²).")
    count, entries = patches.shape[-2:]
    if count != (height // p) * (width // q) or entries % (p * q):
        raise ValueError(
            f"{count} patches of {entries} numbers do not make a {height} × {width} image of "
            f"{p} × {q} patches: expected {(height // p) * (width // q)} patches, each a multiple "
            f"of {p * q} numbers."
        )
    return rearrange(
        patches,
        "... (rows columns) (c p q) -> ... c (rows p) (columns q)",
        rows=height // p,
        p=p,
        q=q,
    )


def patchify_forward(
    images: Float[Tensor, "*batch C height width"], patch_size: Size
) -> tuple[Float[Tensor, "*batch N CPP"], Sizes]:
    """Cut images into flattened patches."""
    height, width = images.shape[-2:]
    return patchify(images, patch_size), (patch_size, (height, width))


def patchify_backward(
    grad_patches: Float[Tensor, "*batch N CPP"], saved: Sizes
) -> Float[Tensor, "*batch C height width"]:
    """The gradient of the images."""
    return unpatchify(grad_patches, *saved)


def _check_fit(height: int, width: int, p: int, q: int) -> None:
    if height % p or width % q:
        raise ValueError(
            f"patches of {p} × {q} pixels do not fill an image of {height} × {width}: resize or "
            "pad the image, or choose a patch size that divides it."
        )
