"""Positions: to the token that stands at a place, a vector is added that says which place it is.

    X (B, T, D)   E_pos (1, T, D)      Y = X + E_pos

The table is learned (Dosovitskiy et al. 2021, equation 1) or fixed: sines and cosines of the place
times a frequency, falling from 1 towards 1/10000. At place t of a sequence, with i < D/2 (Vaswani
et al. 2017, §3.5),

    E_pos[t, 2i] = sin(t ω_i)   E_pos[t, 2i + 1] = cos(t ω_i)   ω_i = 10000^(−i / (D/2))

and at row r and column s of a grid, with i < D/4, four blocks of D/4 in timm's order,

    [ sin(r ω_i)   sin(s ω_i)   cos(r ω_i)   cos(s ω_i) ]       ω_i = 10000^(−i / (D/4))

Others write the blocks in another order, or divide by D/4 − 1 (`tokens/positions`). Every image of
the batch uses the same table, so its gradient is the sum over the batch, and the tokens' gradient
passes unchanged. Nothing is saved.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from vitlib.config import ViTConfig, check_position_width
from vitlib.nn.derived import Unneeded, derived


def positions_forward(
    x: Float[Tensor, "B T D"], pos_embed: Float[Tensor, "1 T D"]
) -> tuple[Float[Tensor, "B T D"], None]:
    """Add to each token the vector of its place."""
    return x + pos_embed, None


def positions_backward(
    grad_y: Float[Tensor, "B T D"], saved: None, needed: tuple[Any, ...] = (True, True)
) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "1 T D"] | Unneeded]:
    """The gradients of tokens and table."""
    return grad_y, grad_y.sum(0, keepdim=True) if needed[1] else None


positions = derived(positions_forward, positions_backward)


def grid_places(grid: tuple[int, int]) -> Float[Tensor, "N 2"]:
    """Row and column of each patch, row by row."""
    rows, columns = (torch.arange(side, dtype=torch.float64) for side in grid)
    return torch.cartesian_prod(rows, columns)


def angles(places: Float[Tensor, "*any"], count: int, base: float) -> Float[Tensor, "*any F"]:
    """Each place times each of `count` frequencies, which fall from 1 towards 1 / base."""
    exponents = torch.arange(count, dtype=torch.float64) / count
    return places[..., None] * base**-exponents


def sincos1d_table(count: int, dim: int) -> Float[Tensor, "1 T D"]:
    """Sines and cosines of the place in a sequence, by turns.

    Args:
        count: T, the number of places.
        dim: D.

    Returns:
        (1, T, D), float64.

    Raises:
        ValueError: if `dim` is odd.
    """
    check_position_width("sincos1d", dim)
    by_place = angles(torch.arange(count, dtype=torch.float64), dim // 2, 10_000.0)
    return torch.stack([by_place.sin(), by_place.cos()], dim=-1).flatten(1)[None]


def sincos2d_table(grid: tuple[int, int], dim: int) -> Float[Tensor, "1 N D"]:
    """Sines of row and column, then cosines of row and column.

    Args:
        grid: rows and columns of patches.
        dim: D.

    Returns:
        (1, N, D), float64; the patches row by row.

    Raises:
        ValueError: if `dim` is not divisible by 4.
    """
    check_position_width("sincos2d", dim)
    by_place = angles(grid_places(grid), dim // 4, 10_000.0).flatten(1)
    return torch.cat([by_place.sin(), by_place.cos()], dim=-1)[None]


def position_table(config: ViTConfig) -> Float[Tensor, "1 T D"] | None:
    """The fixed table of a configuration, in float64; None if it has none.

    In "sincos1d" the class token, if there is one, has place 0 and patch n place n + 1. In
    "sincos2d" it has no place on the grid, and its row is zero.
    """
    if config.position == "sincos1d":
        return sincos1d_table(config.num_positions, config.dim)
    if config.position != "sincos2d":
        return None
    table = sincos2d_table(config.grid, config.dim)
    no_place = table.new_zeros(1, config.num_positions - config.num_patches, config.dim)
    return torch.cat([no_place, table], dim=1)
