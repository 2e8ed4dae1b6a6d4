"""Learned positions: a vector for each place in the sequence, added to the token that stands there.

    X (B, T, D)   E_pos (1, T, D)      Y = X + E_pos

(Dosovitskiy et al. 2021, equation 1.) Every image of the batch uses the same table, so its gradient
is the sum over the batch, and the tokens' gradient passes unchanged. Nothing is saved.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from vitlib.config import ViTConfig
from vitlib.nn.derived import derived


def positions_forward(
    x: Float[Tensor, "B T D"], pos_embed: Float[Tensor, "1 T D"]
) -> tuple[Float[Tensor, "B T D"], None]:
    """Add to each token the vector of its place."""
    return x + pos_embed, None


def positions_backward(
    grad_y: Float[Tensor, "B T D"], saved: None
) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "1 T D"]]:
    """The gradients of tokens and table."""
    return grad_y, grad_y.sum(0, keepdim=True)


positions = derived(positions_forward, positions_backward)


def sincos1d_table(count: int, dim: int) -> Float[Tensor, "1 T D"]:
    """Sines and cosines of the place, in turn."""
    angles = _angles(count, dim // 2)
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[None]


def sincos2d_table(grid: tuple[int, int], dim: int) -> Float[Tensor, "1 N D"]:
    """Sines of row and column, then cosines of row and column."""
    rows, columns = grid
    by_row = _angles(rows, dim // 4).repeat_interleave(columns, 0)
    by_column = _angles(columns, dim // 4).repeat(rows, 1)
    return torch.cat([by_row.sin(), by_column.sin(), by_row.cos(), by_column.cos()], dim=-1)[None]


def _angles(count: int, frequencies: int) -> Tensor:
    order = torch.arange(frequencies, dtype=torch.float64) / frequencies
    return torch.arange(count, dtype=torch.float64)[:, None] * 10000.0**-order


def position_table(config: ViTConfig) -> Float[Tensor, "1 T D"] | None:
    """The fixed table of a configuration, if it has one."""
    if config.position == "sincos1d":
        return sincos1d_table(config.num_positions, config.dim)
    if config.position != "sincos2d":
        return None
    table = sincos2d_table(config.grid, config.dim)
    no_place = table.new_zeros(1, config.num_positions - config.num_patches, config.dim)
    return torch.cat([no_place, table], dim=1)
