"""Scaled dot-product attention, of one head or of many side by side.

    Q O (*, R, d)   K V (*, T, d)   S A (*, R, T)

    S = Q K⊤ / √d      A = softmax(S)      O = A V

(Vaswani et al. 2017, equation 1). The gradients, derived in `attention/gradients`:

    ∂ℓ/∂V = A⊤ ∂ℓ/∂O       ∂ℓ/∂A = ∂ℓ/∂O V⊤      ∂ℓ/∂S by the softmax's own backward
    ∂ℓ/∂Q = ∂ℓ/∂S K / √d   ∂ℓ/∂K = ∂ℓ/∂S⊤ Q / √d

As a rule all T tokens ask, R = T; where the outputs of some alone are read, only those need to.

A dropout of the attention weights stands between A and V, and its mask is part of both passes.

Saved: Q, K, V and A, R T numbers a head, where the scores need not be kept. Cost: 2 R T d
multiply–adds a head forward, 4 R T d backward.
"""

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from vitlib.nn.checks import check_cotangent
from vitlib.nn.derived import derived
from vitlib.nn.dropout import Drop, dropout_backward, dropout_forward
from vitlib.nn.softmax import softmax_backward, softmax_forward


class Saved(NamedTuple):
    """What the backward pass of attention needs."""

    q: Float[Tensor, "*batch R d"]
    k: Float[Tensor, "*batch T d"]
    v: Float[Tensor, "*batch T d"]
    weights: Float[Tensor, "*batch R T"]
    drop: Drop | None


def attention_weights(
    q: Float[Tensor, "*batch R d"], k: Float[Tensor, "*batch T d"]
) -> Float[Tensor, "*batch R T"]:
    """A = softmax(Q K⊤ / √d): row t says how token t spreads its attention."""
    weights, _ = softmax_forward(q @ k.mT * q.shape[-1] ** -0.5)
    return weights


def attention_forward(
    q: Float[Tensor, "*batch R d"],
    k: Float[Tensor, "*batch T d"],
    v: Float[Tensor, "*batch T d"],
    drop: Drop | None = None,
) -> tuple[Float[Tensor, "*batch R d"], Saved]:
    """O = A V: each token that asks receives the values of all, averaged by its weights."""
    weights = attention_weights(q, k)
    kept, _ = dropout_forward(weights, drop)
    return kept @ v, Saved(q, k, v, weights, drop)


def attention_backward(
    grad_o: Float[Tensor, "*batch R d"], saved: Saved
) -> tuple[Float[Tensor, "*batch R d"], Float[Tensor, "*batch T d"], Float[Tensor, "*batch T d"]]:
    """The gradients of queries, keys and values."""
    q, k, v, weights, drop = saved
    check_cotangent(grad_o, (*q.shape[:-1], v.shape[-1]), q.dtype)
    scale = q.shape[-1] ** -0.5
    kept, _ = dropout_forward(weights, drop)
    grad_v = kept.mT @ grad_o
    grad_weights = dropout_backward(grad_o @ v.mT, drop)
    grad_scores = softmax_backward(grad_weights, weights) * scale
    grad_q = grad_scores @ k
    grad_k = grad_scores.mT @ q
    return grad_q, grad_k, grad_v


attention = derived(attention_forward, attention_backward)


def fused_attention(
    q: Float[Tensor, "*batch R d"],
    k: Float[Tensor, "*batch T d"],
    v: Float[Tensor, "*batch T d"],
    drop: Drop | None = None,
) -> Float[Tensor, "*batch R d"]:
    """The same output for autograd, by PyTorch's fused kernel wherever it can give it.

    The kernel holds no T × T matrix, so it has no weights to show, and its dropout would draw a
    mask of its own: with a mask that is given, attention is written out.
    """
    if drop is None:
        return functional.scaled_dot_product_attention(q, k, v)
    return attention(q, k, v, drop, gradients="autograd")
