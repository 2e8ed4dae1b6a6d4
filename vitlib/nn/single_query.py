"""Attention of a single query: what one token receives, with no keys and no values but their sums.

    X (B, T, D)   x_0 (B, D), its first token   O (B, 1, D)
    for each head: q (B, d)   r c (B, D)   s a (B, T)

    q = x_0 W_Q + b_Q      r = q W_K⊤ / √d      a = softmax(r X⊤)      c = a X      O = c W_V + b_V

It is `vitlib.nn.attention` of one token, whose products are done in another order. A score is
q (X W_K + b_K)⊤ / √d: W_K goes to the query, and q b_K⊤ is the same for all tokens, so the softmax
does not see it. An output is a (X W_V + b_V): W_V comes after the average, and a sums to one. With
T queries that would be more work; with one it takes 3 D² + 2 H T D multiply–adds where keys and
values alone take 2 T D².

The gradients are those of the five lines, in opposite order:

    ∂ℓ/∂c = ∂ℓ/∂O W_V⊤                    ∂ℓ/∂W_V = c⊤ ∂ℓ/∂O         ∂ℓ/∂b_V = Σ ∂ℓ/∂O
    ∂ℓ/∂a = ∂ℓ/∂c X⊤                      ∂ℓ/∂s by the softmax's own backward
    ∂ℓ/∂r = ∂ℓ/∂s X                       ∂ℓ/∂X = a⊤ ∂ℓ/∂c + ∂ℓ/∂s⊤ r
    ∂ℓ/∂q = ∂ℓ/∂r W_K / √d                ∂ℓ/∂W_K = ∂ℓ/∂r⊤ q / √d    ∂ℓ/∂b_K = 0
    ∂ℓ/∂x_0 takes ∂ℓ/∂q W_Q⊤, too         ∂ℓ/∂W_Q = x_0⊤ ∂ℓ/∂q       ∂ℓ/∂b_Q = Σ ∂ℓ/∂q

Not for rotary positions, which turn each key by an angle of its own, nor where weights are dropped,
which then sum to something else.

Saved: X, and for each head q, r, a and c.
"""

from typing import Any, NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from vitlib.nn.checks import check_cotangent
from vitlib.nn.derived import Unneeded, derived
from vitlib.nn.linear import Gradients
from vitlib.nn.softmax import softmax_backward, softmax_forward

ALL = (True, (True, True))
"""Input, and the packed projection's weight and bias: the gradients that are needed."""


class Saved(NamedTuple):
    """What the backward pass needs."""

    x: Float[Tensor, "B T D"]
    q: Float[Tensor, "H B d"]
    r: Float[Tensor, "B H D"]
    weights: Float[Tensor, "B H T"]
    c: Float[Tensor, "B H D"]
    qkv: Float[Tensor, "three_D D"]
    has_bias: bool


def of_heads(
    qkv: Float[Tensor, "three_D D"], heads: int
) -> tuple[Float[Tensor, "H d D"], Float[Tensor, "H d D"], Float[Tensor, "H d D"]]:
    """The weights of queries, keys and values, transposed, of each head."""
    w_q, w_k, w_v = rearrange(qkv, "(three H d) D -> three H d D", three=3, H=heads)
    return w_q, w_k, w_v


def single_query_forward(
    x: Float[Tensor, "B T D"],
    qkv: tuple[Float[Tensor, "three_D D"], Float[Tensor, " three_D"] | None],
    heads: int,
) -> tuple[Float[Tensor, "B 1 H_d"], Saved]:
    """What the first token receives, the heads side by side.

    Args:
        x: the tokens.
        qkv: stored weight and bias of the packed projection.
        heads: H.
    """
    weight, bias = qkv
    w_q, w_k, w_v = of_heads(weight, heads)
    b_q = b_v = 0
    if bias is not None:
        b_q, _, b_v = rearrange(bias, "(three H d) -> three H 1 d", three=3, H=heads)
    q = x[:, 0] @ w_q.mT + b_q
    r = rearrange(q @ w_k * w_k.shape[1] ** -0.5, "H B D -> B H D")
    weights, _ = softmax_forward(r @ x.mT)
    c = weights @ x
    o = rearrange(c, "B H D -> H B D") @ w_v.mT + b_v
    o = rearrange(o, "H B d -> B 1 (H d)")
    return o, Saved(x, q, r, weights, c, weight, bias is not None)


def single_query_backward(
    grad_o: Float[Tensor, "B 1 H_d"], saved: Saved, needed: tuple[Any, ...] = ALL
) -> tuple[Float[Tensor, "B T D"] | Unneeded, Gradients]:
    """The gradients of the tokens, and of the packed projection."""
    x, q, r, weights, c, weight, has_bias = saved
    heads = len(q)
    check_cotangent(grad_o, (len(x), 1, len(weight) // 3), x.dtype)
    w_q, w_k, w_v = of_heads(weight, heads)
    scale = w_k.shape[1] ** -0.5
    by_head = rearrange(grad_o, "B 1 (H d) -> H B d", H=heads)
    grad_c = rearrange(by_head @ w_v, "H B D -> B H D")
    grad_scores = softmax_backward(grad_c @ x.mT, weights)
    grad_r = rearrange(grad_scores @ x, "B H D -> H B D") * scale
    grad_q = grad_r @ w_k.mT
    grad_x = grad_weight = grad_bias = None
    if needed[0]:
        grad_x = weights.mT @ grad_c + grad_scores.mT @ r
        grad_x[:, 0] += (grad_q @ w_q).sum(0)
    if needed[1][0]:
        parts = grad_q.mT @ x[:, 0], q.mT @ grad_r, by_head.mT @ rearrange(c, "B H D -> H B D")
        grad_weight = torch.cat([part.flatten(0, 1) for part in parts])
    if has_bias and needed[1][1]:
        sum_q, sum_o = grad_q.sum(1).flatten(), grad_o.sum((0, 1))
        grad_bias = torch.cat([sum_q, torch.zeros_like(sum_q), sum_o])
    return grad_x, (grad_weight, grad_bias)


single_query = derived(single_query_forward, single_query_backward)
