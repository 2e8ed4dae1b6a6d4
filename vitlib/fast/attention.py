"""Attention of all heads, rewritten for speed: the twin of `vitlib.nn.multi_head` up to O.

    X̂ (B T, D)   Q O (B, H, R, d)   K V (B, H, T, d)   A (B·H, R, T), R = T where all tokens ask

Up to `AT_ONCE` tokens, all weights at once. Queries, keys and values are put side by side, head by
head, so that every product is one batched product of what lies in order. (PyTorch's takes factors
as they lie, but writes into order only: into anything else it goes matrix by matrix.) The scale
1/√d is a factor of the products. The softmax does not write over its input, which would take it
longer. Saved: Q, K and V; A and O are computed again in the backward pass.

For more tokens, tile by tile in PyTorch's fused kernel, which is `vitlib.nn.blockwise` in one piece
of C++, and takes Q, K and V as they were projected. Saved: these, O, and the logarithm of the
softmax's sums. `vitlib bench attention` compares the two.

Where a few tokens ask, the others have no query.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from vitlib.nn.linear import Weights

_aten = torch.ops.aten

AT_ONCE = 32
"""The most tokens whose T × T weights are written down. Measured in whole models on two cores: with
25 tokens faster than tiles, with 50 slower by a twentieth."""

Rows = Float[Tensor, "_ D"]
Heads = tuple[Float[Tensor, "_ B H _ d"], ...]
"""Q K V in one tensor; or, where a few tokens ask, Q of these in one and K V of all in another."""


class Tiled(NamedTuple):
    """What the backward pass of the fused kernel needs beside queries, keys and values."""

    o: Float[Tensor, "B H R d"]
    log_sum: Float[Tensor, "B H R"]


def goes_in_tiles(tokens: int, queries: int | None = None) -> bool:
    """Whether attention goes tile by tile, where so many tokens ask; all, if it is not said."""
    return tokens * (queries or tokens) > AT_ONCE**2


def project(
    normed: Rows, qkv: Weights, images: int, heads: int, queries: int | None = None
) -> Heads:
    """Queries, keys and values of each head.

    Args:
        normed: what the block's first norm makes of all tokens.
        qkv: the packed projection, its columns ordered (q k v, head, d).
        images: B.
        heads: H.
        queries: R, how many tokens ask, the first ones; all if it is not given.
    """
    weight, bias = qkv
    split: list[Tensor] = []
    for columns, read in _parts(normed, images, queries):
        packed = functional.linear(
            _first(normed, images, read), weight[columns], None if bias is None else bias[columns]
        )
        apart = packed.view(images, read, -1, heads, normed.shape[1] // heads)
        split.append(apart.permute(2, 0, 3, 1, 4))
    if goes_in_tiles(len(normed) // images, queries):
        return tuple(split)
    return tuple(part.contiguous() for part in split)


def project_backward(
    grads: Heads, normed: Rows, qkv: Weights, images: int
) -> tuple[Rows, tuple[Tensor, Tensor | None]]:
    """The gradients of the tokens, which take their place, and of weight and bias."""
    weight, bias = qkv
    grad_weight = torch.empty_like(weight)
    grad_bias = None if bias is None else torch.empty_like(bias)
    queries = grads[0].shape[3] if len(grads) > 1 else None
    packed: list[tuple[slice, Tensor]] = []
    for (columns, read), grad in zip(_parts(normed, images, queries), grads, strict=True):
        rows = grad.permute(1, 3, 0, 2, 4).reshape(images * read, -1)
        torch.mm(rows.mT, _first(normed, images, read), out=grad_weight[columns])
        if grad_bias is not None:
            torch.sum(rows, 0, out=grad_bias[columns])
        packed.append((columns, rows))
    columns, rows = packed.pop()
    grad_normed = torch.mm(rows, weight[columns], out=normed)
    for columns, rows in packed:
        first = grad_normed.view(images, -1, grad_normed.shape[1])[:, :queries]
        first += (rows @ weight[columns]).view_as(first)
    return grad_normed, (grad_weight, grad_bias)


def attention_forward(split: Heads, in_tiles: bool | None = None) -> tuple[Rows, Tiled | None]:
    """O = softmax(Q K⊤ / √d) V, the heads of a token side by side; and what tiles have to keep.

    Args:
        split: queries, keys and values.
        in_tiles: whether to go tile by tile; if it is not said, for long sequences.
    """
    q, k, v = _tensors(split)
    if in_tiles is None:
        in_tiles = goes_in_tiles(k.shape[2], q.shape[2])
    if in_tiles:
        tiled = Tiled(*_aten._scaled_dot_product_flash_attention_for_cpu(q, k, v))
        return merge(tiled.o), tiled
    q, k, v = (part.flatten(0, 1) for part in (q, k, v))
    return merge(torch.bmm(weigh(q, k), v).view(*split[0].shape[1:])), None


def attention_backward(grad_o: Rows, split: Heads, tiled: Tiled | None) -> tuple[Heads, Rows]:
    """The gradients of queries, keys and values; and O again, for those who read it."""
    q, k, v = _tensors(split)
    images, heads, read, width = q.shape
    grads = tuple(torch.empty_like(part) for part in split)  # in the same order in memory
    grad = grad_o.view(images, read, heads, width).transpose(1, 2)
    if tiled is not None:
        found = _aten._scaled_dot_product_flash_attention_for_cpu_backward(
            grad, q, k, v, *tiled, 0.0, False
        )
        for own, new in zip(_tensors(grads), found, strict=True):
            own.copy_(new)
        return grads, merge(tiled.o)
    scale = width**-0.5
    q, k, v, grad = (part.flatten(0, 1) for part in (q, k, v, grad))
    grad_q, grad_k, grad_v = (part.flatten(0, 1) for part in _tensors(grads))
    weights = weigh(q, k)
    o = merge(torch.bmm(weights, v).view(*split[0].shape[1:]))
    torch.bmm(weights.mT, grad, out=grad_v)
    grad_weights = torch.bmm(grad, v.mT)
    grad_scores = _aten._softmax_backward_data(grad_weights, weights, -1, weights.dtype)
    torch.baddbmm(grad_q, grad_scores, k, beta=0, alpha=scale, out=grad_q)
    torch.baddbmm(grad_k, grad_scores.mT, q, beta=0, alpha=scale, out=grad_k)
    return grads, o


def weigh(q: Float[Tensor, "BH R d"], k: Float[Tensor, "BH T d"]) -> Float[Tensor, "BH R T"]:
    """A = softmax(Q K⊤ / √d)."""
    scores = q.new_empty(*q.shape[:2], k.shape[1])
    torch.baddbmm(scores, q, k.mT, beta=0, alpha=q.shape[-1] ** -0.5, out=scores)
    return scores.softmax(-1)


def merge(o: Float[Tensor, "B H R d"]) -> Rows:
    """The heads of a token side by side again."""
    return o.transpose(1, 2).reshape(o.shape[0] * o.shape[2], -1)


def _parts(normed: Rows, images: int, queries: int | None) -> Sequence[tuple[slice, int]]:
    """Which outputs of the packed projection are computed for how many tokens of an image."""
    tokens, width = len(normed) // images, normed.shape[1]
    if queries is None:
        return [(slice(3 * width), tokens)]
    return [(slice(width), queries), (slice(width, 3 * width), tokens)]


def _first(rows: Rows, images: int, read: int) -> Rows:
    """The rows of the first tokens of each image."""
    return rows.view(images, -1, rows.shape[1])[:, :read].reshape(-1, rows.shape[1])


def _tensors(split: Heads) -> tuple[Tensor, Tensor, Tensor]:
    q, k, v = (tensor for part in split for tensor in part)
    return q, k, v
