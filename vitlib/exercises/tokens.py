"""Exercises of part I, From image to tokens."""

import torch
from torch import Tensor
from torch.nn.functional import unfold

from vitlib.exercises import Answer, exercise, expect


def _numbered(*shape: int) -> Tensor:
    """Every entry another number: two entries that change places are noticed."""
    size = torch.Size(shape)
    return torch.arange(size.numel(), dtype=torch.float64).reshape(size)


@exercise("patches-overlap")
def _(overlapping_patches: Answer) -> None:
    images = _numbered(2, 3, 8, 12)
    expect(
        overlapping_patches(images, 4, 4),
        unfold(images, 4, stride=4).mT,
        "with stride P, the patches of this chapter",
    )
    expect(
        overlapping_patches(images, 4, 2),
        unfold(images, 4, stride=2).mT,
        "with stride 2, 3 × 5 patches that share pixels with their neighbours",
    )
    expect(
        overlapping_patches(images, 3, 2),
        unfold(images, 3, stride=2).mT,
        "with P = 3 and stride 2, also where pixels are left over at the edge",
    )


@exercise("patches-channels-last")
def _(channels_first: Answer) -> None:
    grey = _numbered(16, 5)
    expect(channels_first(grey, 1, 4), grey, "nothing to do for a single channel")
    for channels, patch_size in [(3, 4), (2, 5)]:
        size = channels * patch_size**2
        # in the order (c, p, q), and what the reader is given, in the order (p, q, c)
        right = _numbered(channels, patch_size, patch_size, 5)
        given = right.movedim(0, 2).reshape(size, 5)
        expect(
            channels_first(given, channels, patch_size),
            right.reshape(size, 5),
            f"the same embeddings for {channels} channels and P = {patch_size}",
        )


@exercise("patches-unpatchify")
def _(unpatchify_by_hand: Answer) -> None:
    for channels, height, width, patch_size, what in [
        (1, 8, 8, 4, "a square image of one channel"),
        (1, 6, 10, 2, "an image that is wider than high"),
        (3, 9, 6, 3, "a colour image that is higher than wide"),
    ]:
        images = _numbered(2, channels, height, width)
        patches = unfold(images, patch_size, stride=patch_size).mT
        expect(
            unpatchify_by_hand(patches, patch_size, (height, width)), images, f"{what} comes back"
        )
