"""Where a fast twin runs, and where the readable form."""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

# what PyTorch asks, too, before it applies an autograd.Function
from torch._C import _are_functorch_transforms_active  # pyright: ignore[reportPrivateUsage]
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from vitlib.config import ViTConfig
from vitlib.fast.block import APPROXIMATE, block_backward, block_forward, block_output
from vitlib.nn import block
from vitlib.nn.block import NO_DROPS, Drops, Parameters
from vitlib.nn.derived import TWINS, Twin

_readable = ContextVar("readable", default=False)


@contextmanager
def readable() -> Generator[None]:
    """Compute everything within in its readable form, for comparison."""
    token = _readable.set(True)
    try:
        yield
    finally:
        _readable.reset(token)


def fits(config: ViTConfig) -> bool:
    """Whether the blocks of a model have a fast twin, on a CPU and in full precision.

    Args:
        config: of the model.
    """
    return (
        config.norm == "pre"
        and config.activation in APPROXIMATE
        and config.layer_scale is None
        and config.position != "rope2d"
        and not (config.dropout or config.attention_dropout)
    )


def fits_block(
    x: Tensor,
    parameters: Parameters,
    heads: int,
    eps: float,
    norm: str = "pre",
    activation: str = "gelu",
    rope: Tensor | None = None,
    drops: Drops = NO_DROPS,
    queries: int | None = None,
) -> bool:
    """Whether the fast block can take these arguments of `vitlib.nn.block.block`."""
    inner = (*drops.attn, *drops.mlp)
    return (
        norm == "pre"
        and activation in APPROXIMATE
        and rope is None
        and queries in (None, 1)
        and all(drop is None for drop in inner)
        and fits_tensors(x, parameters)
    )


def fits_tensors(*nest: Any) -> bool:
    """Whether fast twins can take tensors like these, with what PyTorch is to do with them now.

    They write into memory that they have made, which neither function transforms nor autocast nor
    subclasses such as sharded tensors allow, and compute all gradients or none.
    """
    if _readable.get() or _are_functorch_transforms_active() or torch.is_autocast_enabled("cpu"):
        return False
    tensors = list(_tensors(nest))
    first = tensors[0]
    if first.device.type != "cpu" or first.dtype not in (torch.float32, torch.float64):
        return False
    any_will_do = not torch.is_grad_enabled()
    return first.numel() > 0 and all(
        (any_will_do or tensor.requires_grad)
        and tensor.dtype == first.dtype
        and tensor.device == first.device
        and not is_traceable_wrapper_subclass(tensor)
        for tensor in tensors
    )


def _tensors(nest: Any) -> Iterator[Tensor]:
    for branch in nest:
        if isinstance(branch, Tensor):
            yield branch
        elif isinstance(branch, tuple):
            yield from _tensors(branch)


TWINS[block.block_forward] = Twin(block_forward, block_backward, block_output, fits_block)
