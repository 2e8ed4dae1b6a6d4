"""Pooling: one vector for the whole image.

    X (B, T, D)   y (B, D)      "cls": y = x_0      "mean": y = (1/N) Σ_n x_{T−N+n}

The class token's (Dosovitskiy et al. 2021, equation 4), or the mean of the N patch tokens, without
the registers in front of them. The gradient goes where was read: to token 0, or in equal parts to
the patches; the other tokens receive zeros. Saved: which, and how many there were.
"""

from jaxtyping import Float
from torch import Tensor

from vitlib.nn.derived import derived

Saved = tuple[str, int, int]
"""The kind of pooling, the tokens in front of the patches, and all tokens."""


def pool_forward(
    x: Float[Tensor, "B T D"], pool: str = "cls", prefix: int = 1
) -> tuple[Float[Tensor, "B D"], Saved]:
    """Take the class token, or the mean of what stands behind the prefix."""
    y = x[:, 0] if pool == "cls" else x[:, prefix:].mean(1)
    return y, (pool, prefix, x.shape[1])


def pool_backward(grad_y: Float[Tensor, "B D"], saved: Saved) -> Float[Tensor, "B T D"]:
    """The gradient of the tokens."""
    pool, prefix, tokens = saved
    grad_x = grad_y.new_zeros(len(grad_y), tokens, grad_y.shape[-1])
    if pool == "cls":
        grad_x[:, 0] = grad_y
    else:
        grad_x[:, prefix:] = grad_y[:, None] / (tokens - prefix)
    return grad_x


pool = derived(pool_forward, pool_backward)
