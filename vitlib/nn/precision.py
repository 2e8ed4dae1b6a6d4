"""Where narrow numbers are not enough: means and differences are formed in float32 at least."""

import torch
from torch import Tensor


def widen(x: Tensor) -> Tensor:
    """The same numbers in float32, or in float64 if they are that wide already."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
