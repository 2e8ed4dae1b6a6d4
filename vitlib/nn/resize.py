"""Resizing positions: a table learned on one grid of patches is read off on another.

    E_pos (1, T, D)   F_rows (rows', rows)   F_columns (columns', columns)

    E'_pos[r', s'] = Σ_r Σ_s F_rows[r', r] F_columns[s', s] E_pos[r, s]

Each grid covers the same image, so place i' of n' lies at (i' + ½) n / n' of n, and its vector is a
weighted mean of its neighbours', weighted by a cubic curve of their distance (Keys 1981, a = −½).
When the grid shrinks, the curve is stretched until it reaches over what the place stands for; this
antialiasing keeps the mean. `resize_matrix` holds the weights of one axis. They are those of
`torch.nn.functional.interpolate(size=…, mode="bicubic", antialias=True)`.

The rows in front of the patches have no place on the grid, and are kept. The map is linear in the
table: backward, the transposed matrices. Saved: both.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from vitlib.config import check_whole, sides
from vitlib.nn.derived import derived

Matrices = tuple[Float[Tensor, "new_rows old_rows"], Float[Tensor, "new_columns old_columns"]]
"""The weights down the rows, and along the columns."""


def resize_matrix(old: int, new: int) -> Float[Tensor, "new old"]:
    """The weight of each old place in each new one, along one axis.

    Args:
        old: the number of places that have a vector.
        new: the number of places that need one.

    Returns:
        (new, old), float64; rows sum to one.

    Raises:
        ValueError: if a number is less than 1.
        TypeError: if a number is not whole.
    """
    check_whole("old", old)
    check_whole("new", new)
    scale = old / new
    places = torch.arange(old, dtype=torch.float64) + 0.5
    centres = (torch.arange(new, dtype=torch.float64) + 0.5) * scale
    weights = _cubic((places - centres[:, None]).abs() / max(scale, 1.0))
    return weights / weights.sum(-1, keepdim=True)


def resize_forward(
    pos_embed: Float[Tensor, "1 T D"], old_grid: tuple[int, int], new_grid: tuple[int, int]
) -> tuple[Float[Tensor, "1 new_T D"], Matrices]:
    """Read a table off on another grid.

    Args:
        pos_embed: rows without a place on the grid (the class token's), then the patches'.
        old_grid: rows and columns of patches in `pos_embed`.
        new_grid: rows and columns that are wanted.

    Raises:
        ValueError: if `pos_embed` has fewer rows than `old_grid`, or a grid has no patches.
        TypeError: if a grid is not made of whole numbers.
    """
    old, new = sides("old_grid", old_grid), sides("new_grid", new_grid)
    if pos_embed.shape[1] < old[0] * old[1]:
        raise ValueError(
            f"pos_embed has {pos_embed.shape[1]} positions, fewer than the {old[0]} × {old[1]} of "
            "old_grid: expected one for each patch and, in front, those of other tokens."
        )
    rows, columns = (resize_matrix(*axis).to(pos_embed) for axis in zip(old, new, strict=True))
    return _resample(pos_embed, rows, columns), (rows, columns)


def resize_backward(grad_y: Float[Tensor, "1 new_T D"], saved: Matrices) -> Float[Tensor, "1 T D"]:
    """The gradient of the table."""
    rows, columns = saved
    return _resample(grad_y, rows.mT, columns.mT)


resize_positions = derived(resize_forward, resize_backward)


def _resample(
    table: Float[Tensor, "1 T D"],
    rows: Float[Tensor, "new_rows old_rows"],
    columns: Float[Tensor, "new_columns old_columns"],
) -> Float[Tensor, "1 new_T D"]:
    height, width = rows.shape[1], columns.shape[1]
    prefix, patches = table.split([table.shape[1] - height * width, height * width], dim=1)
    grid = patches.reshape(height, -1)  # (rows, columns · D)
    grid = (rows @ grid).reshape(len(rows), width, -1)  # (rows', columns, D)
    grid = columns @ grid  # (rows', columns', D)
    return torch.cat([prefix, grid.reshape(1, len(rows) * len(columns), -1)], dim=1)


def _cubic(distance: Float[Tensor, "*any"], a: float = -0.5) -> Float[Tensor, "*any"]:
    """Keys's curve: 1 at 0, 0 at 1 and from 2 on, smooth in between."""
    near = ((a + 2) * distance - (a + 3)) * distance.square() + 1
    far = a * (((distance - 5) * distance + 8) * distance - 4)
    return torch.where(distance < 1, near, torch.where(distance < 2, far, 0.0))
