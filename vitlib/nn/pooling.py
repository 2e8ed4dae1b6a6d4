"""Pooling: one vector for the whole image, the class token's.

    X (B, T, D)   y (B, D)      y = x_0

(Dosovitskiy et al. 2021, equation 4.) The gradient goes to token 0; the others, which were not
read, receive zeros. Only the number of tokens is saved.
"""

from jaxtyping import Float
from torch import Tensor

from vitlib.nn.derived import derived


def pool_forward(x: Float[Tensor, "B T D"]) -> tuple[Float[Tensor, "B D"], int]:
    """Take the class token."""
    return x[:, 0], x.shape[1]


def pool_backward(grad_y: Float[Tensor, "B D"], tokens: int) -> Float[Tensor, "B T D"]:
    """The gradient of the tokens."""
    grad_x = grad_y.new_zeros(len(grad_y), tokens, grad_y.shape[-1])
    grad_x[:, 0] = grad_y
    return grad_x


pool = derived(pool_forward, pool_backward)
