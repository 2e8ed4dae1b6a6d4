"""What a forward and a backward pass refuse to read, in one line each.

A gradient of another shape would often broadcast, and give gradients of the right shape and wrong
numbers. What is no number (NaN) or infinite is no error: it passes on, so that it can be found.
"""

import torch
from torch import Tensor
from torch.amp.autocast_mode import is_autocast_available


def check_floating(function: str, x: Tensor) -> None:
    """Refuse integers, which have no gradients.

    Args:
        function: who reads.
        x: what.

    Raises:
        TypeError: if it is not floating point.
    """
    if not x.is_floating_point():
        raise TypeError(
            f"{function} was given {x.dtype}: expected floating point. Convert with .float() or "
            ".double() first."
        )


def check_cotangent(grad_y: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """Refuse a gradient that cannot be that of the output.

    Args:
        grad_y: the gradient that enters a backward pass.
        shape: of the output.
        dtype: of what was read. Under autocast, outputs may be narrower or wider, and any floating
            point will do.

    Raises:
        ValueError: if its shape is another.
        TypeError: if its type is another.
    """
    if grad_y.shape != shape:
        raise ValueError(
            f"the gradient has shape {tuple(grad_y.shape)}: expected the output's, {tuple(shape)}."
        )
    if grad_y.dtype != dtype and not (grad_y.is_floating_point() and _under_autocast(grad_y)):
        raise TypeError(f"the gradient is {grad_y.dtype}: expected the output's {dtype}.")


def _under_autocast(x: Tensor) -> bool:
    device = x.device.type
    return is_autocast_available(device) and torch.is_autocast_enabled(device)
