"""Attention of all heads, rewritten for speed: the twin of `vitlib.nn.multi_head` up to O.

    X̂ (B T, D)   Q K V O (B, H, T, d)   A (B·H, T, T)

Up to `AT_ONCE` tokens, all weights at once. Queries, keys and values are put side by side, head by
head, so that every product is one batched product of what lies in order. (PyTorch's takes factors
as they lie, but writes into order only: into anything else it goes matrix by matrix.) The scale
1/√d is a factor of the products. The softmax does not write over its input, which would take it
longer. Saved: Q, K and V; A and O are computed again in the backward pass.

For more tokens, tile by tile in PyTorch's fused kernel, which is `vitlib.nn.blockwise` in one piece
of C++, and takes Q, K and V as they were projected. Saved: these, O, and the logarithm of the
softmax's sums. `vitlib bench attention` compares the two.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from vitlib.fast.linear import linear, linear_backward, weight_gradients
from vitlib.nn.linear import Weights

_aten = torch.ops.aten

AT_ONCE = 32
"""The most tokens whose T × T weights are written down. Measured in whole models on two cores: with
25 tokens faster than tiles, with 50 slower by a twentieth."""

Rows = Float[Tensor, "_ D"]
Heads = Float[Tensor, "3 B H T d"]
"""Q, K and V in one tensor."""


class Tiled(NamedTuple):
    """What the backward pass of the fused kernel needs beside queries, keys and values."""

    o: Float[Tensor, "B H T d"]
    log_sum: Float[Tensor, "B H T"]


def goes_in_tiles(tokens: int) -> bool:
    """Whether attention among so many tokens goes tile by tile."""
    return tokens > AT_ONCE


def project(normed: Rows, qkv: Weights, images: int, heads: int) -> Heads:
    """Queries, keys and values of each head.

    Args:
        normed: what the block's first norm makes of all tokens.
        qkv: the packed projection, its columns ordered (q k v, head, d).
        images: B.
        heads: H.
    """
    tokens = len(normed) // images
    packed = linear(normed, qkv)
    split = packed.view(images, tokens, 3, heads, -1).permute(2, 0, 3, 1, 4)
    return split if goes_in_tiles(tokens) else split.contiguous()


def project_backward(
    grads: Heads, normed: Rows, qkv: Weights
) -> tuple[Rows, tuple[Tensor, Tensor | None]]:
    """The gradients of the tokens, and of weight and bias."""
    rows = grads.permute(1, 3, 0, 2, 4).reshape(len(normed), -1)
    return linear_backward(rows, qkv[0]), weight_gradients(rows, normed, qkv)


def attention_forward(split: Heads, in_tiles: bool | None = None) -> tuple[Rows, Tiled | None]:
    """O = softmax(Q K⊤ / √d) V, the heads of a token side by side; and what tiles have to keep.

    Args:
        split: queries, keys and values.
        in_tiles: whether to go tile by tile; if it is not said, for long sequences.
    """
    q, k, v = split
    if in_tiles is None:
        in_tiles = goes_in_tiles(k.shape[2])
    if in_tiles:
        tiled = Tiled(*_aten._scaled_dot_product_flash_attention_for_cpu(q, k, v))
        return merge(tiled.o), tiled
    q, k, v = split.flatten(1, 2)
    return merge(torch.bmm(weigh(q, k), v).view(split.shape[1:])), None


def attention_backward(grad_o: Rows, split: Heads, tiled: Tiled | None) -> tuple[Heads, Rows]:
    """The gradients of queries, keys and values; and O again, for those who read it."""
    q, k, v = split
    images, heads, tokens, width = q.shape
    grads = torch.empty_like(split)  # in the same order in memory
    grad = grad_o.view(images, tokens, heads, width).transpose(1, 2)
    if tiled is not None:
        found = _aten._scaled_dot_product_flash_attention_for_cpu_backward(
            grad, q, k, v, *tiled, 0.0, False
        )
        for own, new in zip(grads, found, strict=True):
            own.copy_(new)
        return grads, merge(tiled.o)
    scale = width**-0.5
    q, k, v = split.flatten(1, 2)
    grad_q, grad_k, grad_v = grads.flatten(1, 2)
    grad = grad.flatten(0, 1)
    weights = weigh(q, k)
    o = merge(torch.bmm(weights, v).view(split.shape[1:]))
    torch.bmm(weights.mT, grad, out=grad_v)
    grad_weights = torch.bmm(grad, v.mT)
    grad_scores = _aten._softmax_backward_data(grad_weights, weights, -1, weights.dtype)
    torch.baddbmm(grad_q, grad_scores, k, beta=0, alpha=scale, out=grad_q)
    torch.baddbmm(grad_k, grad_scores.mT, q, beta=0, alpha=scale, out=grad_k)
    return grads, o


def weigh(q: Float[Tensor, "BH T d"], k: Float[Tensor, "BH T d"]) -> Float[Tensor, "BH T T"]:
    """A = softmax(Q K⊤ / √d)."""
    scores = q.new_empty(*q.shape[:2], k.shape[1])
    torch.baddbmm(scores, q, k.mT, beta=0, alpha=q.shape[-1] ** -0.5, out=scores)
    return scores.softmax(-1)


def merge(o: Float[Tensor, "B H T d"]) -> Rows:
    """The heads of a token side by side again."""
    return o.transpose(1, 2).reshape(o.shape[0] * o.shape[2], -1)
