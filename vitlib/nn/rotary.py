"""Rotary positions: queries and keys are turned by angles that grow with their row and column.

    X Y (B, H, T, d)   θ (N, d/2)   for each patch and each pair of neighbours (x, x') in X

    y = x cos θ − x' sin θ      y' = x sin θ + x' cos θ

(Su et al. 2024, §3.2.2; on images Heo et al. 2024, §3.1.) Pair i of the first d/4 is turned by its
patch's row times ω_i, pair i of the last d/4 by its column times ω_i, with ω_i = 100^(−i / (d/4)).
Since a query and a key are turned by the same rule, their dot product depends on their places only
through the difference of rows and the difference of columns. Tokens in front of the patches have no
place, and are not turned.

Backward: a rotation's transpose is its inverse, so the gradient is turned back, by −θ. Saved: the
table of cosines and sines, which all layers share.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from vitlib.config import check_position_width
from vitlib.nn.derived import derived
from vitlib.nn.positions import angles, grid_places


def rope_table(grid: tuple[int, int], head_dim: int) -> Float[Tensor, "2 N d"]:
    """Cosine and sine of each angle, twice each, since a pair has one angle.

    Args:
        grid: rows and columns of patches.
        head_dim: d.

    Returns:
        (2, N, d), float64; the patches row by row.

    Raises:
        ValueError: if `head_dim` is not divisible by 4.
    """
    check_position_width("rope2d", head_dim)
    by_pair = angles(grid_places(grid), head_dim // 4, 100.0).flatten(1)
    by_entry = by_pair.repeat_interleave(2, dim=-1)
    return torch.stack([by_entry.cos(), by_entry.sin()])


def rotary_forward(
    x: Float[Tensor, "B H T d"], table: Float[Tensor, "2 *images N d"]
) -> tuple[Float[Tensor, "B H T d"], Float[Tensor, "2 *images N d"]]:
    """Turn the last N tokens.

    Args:
        x: queries or keys.
        table: `rope_table` in the precision of x, or (2, B, 1, N, d), where the images have other
            patches (`vitlib.nn.patch_dropout`); a constant, it receives no gradient.
    """
    cos, sin = table
    prefix, patches = x.split([x.shape[2] - cos.shape[-2], cos.shape[-2]], dim=2)
    turned = patches * cos + _quarter_turn(patches) * sin
    return torch.cat([prefix, turned], dim=2), table


def rotary_backward(
    grad_y: Float[Tensor, "B H T d"], table: Float[Tensor, "2 *images N d"]
) -> Float[Tensor, "B H T d"]:
    """The gradient of the queries or keys: turned back."""
    cos, sin = table
    grad_x, _ = rotary_forward(grad_y, torch.stack([cos, -sin]))
    return grad_x


rotary = derived(rotary_forward, rotary_backward)


def _quarter_turn(x: Float[Tensor, "*any d"]) -> Float[Tensor, "*any d"]:
    """(x, x') becomes (−x', x)."""
    return torch.stack([-x[..., 1::2], x[..., ::2]], dim=-1).flatten(-2)
