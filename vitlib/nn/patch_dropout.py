"""Patch dropout: during training, each image goes on with some of its patches, drawn by lot.

    X (B, T, D)   k (B, N') the patches that stay, in order   Y (B, s + N', D)   s = T − N

    y_bt = x_bt  for t < s      y_b(s+n) = x_b(s+k_bn)  for n < N'

(Liu et al. 2023; with text Li et al. 2023; in a masked autoencoder He et al. 2022, §3.) The s
tokens in front of the patches always stay. Positions have been added by then, so a patch still
knows its place; with rotary positions its row of the table comes along. Every image keeps N' of its
N patches, so that the batch stays one tensor, and a patch stays with probability N' / N. With half
the patches, what follows costs half, and the scores of attention a quarter.

What stays is not scaled. In `vitlib.nn.dropout` a sum loses terms, and the others grow in return.
Tokens are only ever averaged: by attention's weights, which sum to one over whatever tokens there
are, or by mean pooling, which divides by their number.

Backward: the gradient of each token that stayed goes back to where it stood, and the patches that
were dropped receive zeros. Saved: k.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vitlib.config import ViTConfig
from vitlib.nn.derived import derived

Saved = tuple[Int[Tensor, "B N_kept"], int, int]
"""The patches that stayed, the tokens in front of the patches, and all tokens."""


def draw_kept(
    config: ViTConfig, batch: int, device: torch.device
) -> Int[Tensor, "B N_kept"] | None:
    """The patches that each image keeps, by the device's default generator; None at rate 0."""
    if not config.patch_dropout:
        return None
    lots = torch.rand(batch, config.num_patches, device=device)
    return lots.argsort(1)[:, : config.num_kept_patches].sort(1).values


def keep_forward(
    x: Float[Tensor, "B T D"], kept: Int[Tensor, "B N_kept"], prefix: int
) -> tuple[Float[Tensor, "B T_kept D"], Saved]:
    """Take the tokens in front, and of the others those that stay.

    Args:
        x: the tokens.
        kept: the patches that stay, counted from the first patch.
        prefix: s, the tokens in front of the patches.
    """
    return x[_places(kept, prefix)], (kept, prefix, x.shape[1])


def keep_backward(grad_y: Float[Tensor, "B T_kept D"], saved: Saved) -> Float[Tensor, "B T D"]:
    """The gradient of all tokens."""
    kept, prefix, tokens = saved
    grad_x = grad_y.new_zeros(len(grad_y), tokens, grad_y.shape[-1])
    grad_x[_places(kept, prefix)] = grad_y
    return grad_x


keep = derived(keep_forward, keep_backward)


def keep_places(
    table: Float[Tensor, "2 N d"] | None, kept: Int[Tensor, "B N_kept"] | None
) -> Float[Tensor, "2 *images N_kept d"] | None:
    """A table of rotary positions as the patches need it that stay: each image its own rows.

    Args:
        table: `vitlib.nn.rotary.rope_table`; None if positions are not rotary.
        kept: the patches that stay; None if all do, and the table is every image's.

    Returns:
        (2, B, 1, N', d), the 1 for all heads; or the table as it is.
    """
    return table if table is None or kept is None else table[:, kept].unsqueeze(2)


def _places(
    kept: Int[Tensor, "B N_kept"], prefix: int
) -> tuple[Int[Tensor, "B 1"], Int[Tensor, "B T_kept"]]:
    """Image and place of every token that stays."""
    images = torch.arange(len(kept), device=kept.device)[:, None]
    front = torch.arange(prefix, device=kept.device).expand(len(kept), -1)
    return images, torch.cat([front, prefix + kept], dim=1)
