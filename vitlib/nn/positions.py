"""Learned positions: a vector for each place in the sequence, added to the token that stands there.

    X (B, T, D)   E_pos (1, T, D)      Y = X + E_pos

(Dosovitskiy et al. 2021, equation 1.) Every image of the batch uses the same table, so its gradient
is the sum over the batch, and the tokens' gradient passes unchanged. Nothing is saved.
"""

from jaxtyping import Float
from torch import Tensor

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
