"""Scaled dot-product attention, of one head or of many side by side.

    Q K V O (*, T, d)   S A (*, T, T)

    S = Q K⊤ / √d      A = softmax(S)      O = A V

(Vaswani et al. 2017, equation 1). The gradients, derived in `attention/gradients`:

    ∂ℓ/∂V = A⊤ ∂ℓ/∂O       ∂ℓ/∂A = ∂ℓ/∂O V⊤      ∂ℓ/∂S by the softmax's own backward
    ∂ℓ/∂Q = ∂ℓ/∂S K / √d   ∂ℓ/∂K = ∂ℓ/∂S⊤ Q / √d

Saved: Q, K, V and A, T² numbers a head, where the scores need not be kept. Cost: 2 T² d
multiply–adds a head forward, 4 T² d backward.
"""

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from vitlib.nn.derived import derived
from vitlib.nn.softmax import softmax_backward, softmax_forward


class Saved(NamedTuple):
    """What the backward pass of attention needs."""

    q: Float[Tensor, "*batch T d"]
    k: Float[Tensor, "*batch T d"]
    v: Float[Tensor, "*batch T d"]
    weights: Float[Tensor, "*batch T T"]


def attention_weights(
    q: Float[Tensor, "*batch T d"], k: Float[Tensor, "*batch T d"]
) -> Float[Tensor, "*batch T T"]:
    """A = softmax(Q K⊤ / √d): row t says how token t spreads its attention."""
    weights, _ = softmax_forward(q @ k.mT * q.shape[-1] ** -0.5)
    return weights


def attention_forward(
    q: Float[Tensor, "*batch T d"], k: Float[Tensor, "*batch T d"], v: Float[Tensor, "*batch T d"]
) -> tuple[Float[Tensor, "*batch T d"], Saved]:
    """O = A V: each token receives the values of all, averaged by its weights."""
    weights = attention_weights(q, k)
    return weights @ v, Saved(q, k, v, weights)


def attention_backward(
    grad_o: Float[Tensor, "*batch T d"], saved: Saved
) -> tuple[Float[Tensor, "*batch T d"], Float[Tensor, "*batch T d"], Float[Tensor, "*batch T d"]]:
    """The gradients of queries, keys and values."""
    q, k, v, weights = saved
    scale = q.shape[-1] ** -0.5
    grad_v = weights.mT @ grad_o
    grad_weights = grad_o @ v.mT
    grad_scores = softmax_backward(grad_weights, weights) * scale
    grad_q = grad_scores @ k
    grad_k = grad_scores.mT @ q
    return grad_q, grad_k, grad_v


attention = derived(attention_forward, attention_backward)
