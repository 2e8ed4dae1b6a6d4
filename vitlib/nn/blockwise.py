"""Attention tile by tile: the same function as `vitlib.nn.attention`, without a T × T matrix.

    Q K V O N (*, T, d)   m n L δ (*, T, 1)   S_ij A_ij (*, Z, Z): Z queries against Z keys

Forward, with the online softmax (Milakov and Gimelshein 2018; Dao et al. 2022, algorithm 1). Going
over the keys, a row of queries i keeps its largest score m so far, the sum n of exp(S − m), and N,
the values averaged but not yet divided. A tile with larger scores makes m grow to m', and what was
gathered before shrinks by the same factor:

    S_ij = Q_i K_j⊤ / √d      m' = max(m, rowmax S_ij)      P = exp(S_ij − m')
    n' = exp(m − m') n + rowsum P        N' = exp(m − m') N + P V_j

and after the last tile O = N / n, and L = m + log n, the log-sum-exp of the row's scores (to divide
only here, and to keep L alone, is Dao 2023). Backward (Dao et al. 2022, algorithm 4), a tile's
weights come back from L, and the softmax's row sum from the output, since
rowsum(∂ℓ/∂A ⊙ A) = rowsum(∂ℓ/∂O ⊙ O):

    δ = rowsum(∂ℓ/∂O ⊙ O)       A_ij = exp(S_ij − L_i)
    ∂ℓ/∂V_j = Σ_i A_ij⊤ ∂ℓ/∂O_i       ∂ℓ/∂S_ij = A_ij ⊙ (∂ℓ/∂O_i V_j⊤ − δ_i)
    ∂ℓ/∂Q_i = Σ_j ∂ℓ/∂S_ij K_j / √d   ∂ℓ/∂K_j = Σ_i ∂ℓ/∂S_ij⊤ Q_i / √d

Both are derived in `attention/efficient`. A dropout of the weights stands between A and V, as in
`vitlib.nn.attention`; its mask has T² entries, and is cut into tiles.

Saved: Q, K, V, O and L, no T² numbers. Cost: 2 T² d multiply–adds a head forward, 5 T² d backward,
where the scores are computed again.
"""

from itertools import product
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from vitlib.nn.checks import check_cotangent
from vitlib.nn.derived import derived
from vitlib.nn.dropout import Drop, dropout_backward, dropout_forward
from vitlib.nn.precision import widen

TILE = 256
"""Z: large enough for fast products, small enough for the cache."""


class Saved(NamedTuple):
    """What the backward pass of blockwise attention needs."""

    q: Float[Tensor, "*batch T d"]
    k: Float[Tensor, "*batch T d"]
    v: Float[Tensor, "*batch T d"]
    o: Float[Tensor, "*batch T d"]
    log_sum: Float[Tensor, "*batch T 1"]
    drop: Drop | None
    tile: int


def blockwise_forward(
    q: Float[Tensor, "*batch T d"],
    k: Float[Tensor, "*batch T d"],
    v: Float[Tensor, "*batch T d"],
    drop: Drop | None = None,
    tile: int = TILE,
) -> tuple[Float[Tensor, "*batch T d"], Saved]:
    """O = softmax(Q K⊤ / √d) V.

    Args:
        q: queries.
        k: keys.
        v: values.
        drop: what is dropped of the attention weights.
        tile: Z, the side of a tile; the last ones may be smaller.
    """
    outputs: list[Tensor] = []
    log_sums: list[Tensor] = []
    for rows in _tiles(q.shape[-2], tile):
        o, log_sum = _attend(q, k, v, drop, rows, tile)
        outputs.append(o)
        log_sums.append(log_sum)
    o = torch.cat(outputs, dim=-2)
    return o, Saved(q, k, v, o, torch.cat(log_sums, dim=-2), drop, tile)


def blockwise_backward(
    grad_o: Float[Tensor, "*batch T d"], saved: Saved
) -> tuple[Float[Tensor, "*batch T d"], Float[Tensor, "*batch T d"], Float[Tensor, "*batch T d"]]:
    """The gradients of queries, keys and values."""
    q, k, v, o, log_sum, drop, tile = saved
    check_cotangent(grad_o, o.shape, o.dtype)
    scale = q.shape[-1] ** -0.5
    delta = (grad_o * o).sum(dim=-1, keepdim=True)
    rows, columns = (_tiles(x.shape[-2], tile) for x in (q, k))
    grads_q = [torch.zeros_like(q[..., i, :]) for i in rows]
    grads_k = [torch.zeros_like(k[..., j, :]) for j in columns]
    grads_v = [torch.zeros_like(v[..., j, :]) for j in columns]
    for (a, i), (b, j) in product(enumerate(rows), enumerate(columns)):
        q_i, k_j, v_j, grad_i = q[..., i, :], k[..., j, :], v[..., j, :], grad_o[..., i, :]
        weights = (_scores(q_i, k_j) - log_sum[..., i, :]).exp().to(v.dtype)
        piece = _cut(drop, i, j)
        kept, _ = dropout_forward(weights, piece)
        grads_v[b] = grads_v[b] + kept.mT @ grad_i
        grad_weights = dropout_backward(grad_i @ v_j.mT, piece)
        grad_scores = weights * (grad_weights - delta[..., i, :]) * scale
        grads_q[a] = grads_q[a] + grad_scores @ k_j
        grads_k[b] = grads_k[b] + grad_scores.mT @ q_i
    return torch.cat(grads_q, dim=-2), torch.cat(grads_k, dim=-2), torch.cat(grads_v, dim=-2)


blockwise_attention = derived(blockwise_forward, blockwise_backward)


def _attend(
    q: Float[Tensor, "*batch T d"],
    k: Float[Tensor, "*batch T d"],
    v: Float[Tensor, "*batch T d"],
    drop: Drop | None,
    rows: slice,
    tile: int,
) -> tuple[Float[Tensor, "*batch Z d"], Float[Tensor, "*batch Z 1"]]:
    """The output of the queries in these rows, and the log-sum-exp of their scores."""
    # What a row has gathered before its first tile. Its largest score is finite, if as low as can
    # be: from −inf, a tile of scores that are −inf would make inf − inf.
    lowest = torch.finfo(q.dtype).min
    largest, total, gathered = (q.new_full((), x) for x in (lowest, 0.0, 0.0))
    o = v  # of its type, unless autocast narrows the products: then the output is as narrow
    for columns in _tiles(k.shape[-2], tile):
        scores = _scores(q[..., rows, :], k[..., columns, :])
        grown = scores.amax(dim=-1, keepdim=True).clamp(min=largest)
        powers, shrink = (scores - grown).exp(), (largest - grown).exp()
        kept, _ = dropout_forward(powers, _cut(drop, rows, columns))
        o = kept.to(v.dtype) @ v[..., columns, :]
        largest, total = grown, total * shrink + powers.sum(dim=-1, keepdim=True)
        gathered = gathered * shrink + o
    return (gathered / total).to(o.dtype), largest + total.log()


def _scores(
    q: Float[Tensor, "*batch Z d"], k: Float[Tensor, "*batch S d"]
) -> Float[Tensor, "*batch Z S"]:
    """S of a tile. It is widened, since exp(S − L) is only as exact as the difference."""
    return widen(q @ k.mT) * q.shape[-1] ** -0.5


def _tiles(count: int, tile: int) -> list[slice]:
    return [slice(start, start + tile) for start in range(0, count, tile)]


def _cut(drop: Drop | None, rows: slice, columns: slice) -> Drop | None:
    return drop and Drop(drop.mask[..., rows, columns], drop.rate)
