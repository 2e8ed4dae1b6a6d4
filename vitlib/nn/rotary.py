"""Rotary positions: queries and keys are turned by angles that grow with their row and column.

X Y (B, H, T, d)   cos sin (N, d)      Y = X ⊙ cos + turn(X) ⊙ sin
"""

import torch
from jaxtyping import Float
from torch import Tensor

from vitlib.nn.derived import derived


def rope_table(grid: tuple[int, int], head_dim: int) -> Float[Tensor, "2 N d"]:
    """Cosines and sines of the angles of each patch."""
    quarter = head_dim // 4
    frequencies = 100.0 ** (-torch.arange(quarter, dtype=torch.float64) / quarter)
    rows, columns = (torch.arange(side, dtype=torch.float64) for side in grid)
    places = torch.cartesian_prod(rows, columns)
    angles = (places[:, :, None] * frequencies).flatten(1).repeat_interleave(2, -1)
    return torch.stack([angles.cos(), angles.sin()])


def _quarter_turn(x: Tensor) -> Tensor:
    return torch.stack([-x[..., 1::2], x[..., ::2]], dim=-1).flatten(-2)


def rotary_forward(
    x: Float[Tensor, "B H T d"], table: Float[Tensor, "2 N d"]
) -> tuple[Float[Tensor, "B H T d"], Float[Tensor, "2 N d"]]:
    """Turn the last N tokens."""
    cos, sin = table
    prefix, patches = x.split([x.shape[2] - len(cos), len(cos)], dim=2)
    return torch.cat([prefix, patches * cos + _quarter_turn(patches) * sin], dim=2), table


def rotary_backward(
    grad_y: Float[Tensor, "B H T d"], table: Float[Tensor, "2 N d"]
) -> Float[Tensor, "B H T d"]:
    """Turn back."""
    cos, sin = table
    grad_x, _ = rotary_forward(grad_y, torch.stack([cos, -sin]))
    return grad_x


rotary = derived(rotary_forward, rotary_backward)
