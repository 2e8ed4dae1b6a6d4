"""Multi-head self-attention: H small attentions side by side.

    X Y (B, T, D)   Q K V O (B, H, T, d), d = D/H

One packed projection makes queries, keys and values of all heads; each head attends on its own; the
heads' outputs, side by side again, go through the output projection (Vaswani et al. 2017, §3.2.2):

    [Q K V] = X W_QKV + b_QKV      O = attention(Q, K, V)      Y = [O_1 … O_H] W_O + b_O

The packed projection's columns are ordered (q k v, head, d), as in timm. Rotary positions, where
there are any, turn queries and keys before they meet. Dropout acts on the weights and on Y. The
backward pass is the parts' in opposite order. Saved: what the parts save. A long sequence attends
tile by tile (`vitlib.nn.blockwise`), so that its T² weights need not be kept.

Where only the first tokens' outputs are read, only they need to ask: then O and Y have as many rows
as there are queries, and the others' outputs are not computed. Going backward, what was not read
receives zeros. One that asks alone needs no keys and values either (`vitlib.nn.single_query`).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from vitlib.config import available, check_heads
from vitlib.nn import attention, blockwise, linear, single_query
from vitlib.nn.attention import (
    attention_backward,
    attention_forward,
    attention_weights,
    fused_attention,
)
from vitlib.nn.blockwise import blockwise_backward, blockwise_forward
from vitlib.nn.derived import Unneeded, any_needed, derived
from vitlib.nn.dropout import Drop, dropout, dropout_backward, dropout_forward
from vitlib.nn.linear import NONE, Linear, Weights, linear_backward, linear_forward
from vitlib.nn.rotary import rotary, rotary_backward, rotary_forward
from vitlib.nn.single_query import single_query_backward, single_query_forward

Drops = tuple[Drop | None, Drop | None]
"""Of the attention weights, and of the output."""
NO_DROPS: Drops = (None, None)
EXPLICIT_TOKENS = 1024
"""The most tokens whose T × T weights are kept for the backward pass."""
ALL = (True, (True, True), (True, True))
"""Input and both projections: the gradients that are needed."""


class Saved(NamedTuple):
    """What the backward pass of multi-head attention needs."""

    qkv: linear.Saved | None
    rope: Float[Tensor, "2 *images N d"] | None
    attention: attention.Saved | blockwise.Saved | single_query.Saved
    proj: linear.Saved
    drop: Drop | None


def form_of_attention(
    tokens: int, queries: int | None = None
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Forward and backward: all weights at once, or tile by tile where they would be too many."""
    if tokens * (queries or tokens) > EXPLICIT_TOKENS**2:
        return blockwise_forward, blockwise_backward
    return attention_forward, attention_backward


def asks_alone(queries: int | None, rope: Tensor | None, drop: Drop | None) -> bool:
    """Whether one token asks, and its weights may be multiplied in another order."""
    return queries == 1 and rope is None and drop is None


def split_heads(
    packed: Float[Tensor, "B T three_D"], heads: int
) -> tuple[
    Float[Tensor, "B {heads} T d"], Float[Tensor, "B {heads} T d"], Float[Tensor, "B {heads} T d"]
]:
    """The packed projection as queries, keys and values of each head."""
    q, k, v = rearrange(packed, "B T (three H d) -> three B H T d", three=3, H=heads)
    return q, k, v


def pack_heads(
    q: Float[Tensor, "B H T d"], k: Float[Tensor, "B H T d"], v: Float[Tensor, "B H T d"]
) -> Float[Tensor, "B T three_D"]:
    """The inverse of `split_heads`."""
    return rearrange([q, k, v], "three B H T d -> B T (three H d)")


def merge_heads(o: Float[Tensor, "B H T d"]) -> Float[Tensor, "B T D"]:
    """The heads' outputs side by side."""
    return rearrange(o, "B H T d -> B T (H d)")


def first(x: Float[Tensor, "*batch T d"], read: int | None) -> Float[Tensor, "*batch R d"]:
    """The first tokens, as many as are read; all if it is not said."""
    return x if read in (None, x.shape[-2]) else x.narrow(-2, 0, read)


def spread(grad_y: Float[Tensor, "*batch R d"], tokens: int) -> Float[Tensor, "*batch T d"]:
    """Its backward: the gradient of all tokens, zeros for those that were not read."""
    *batch, read, width = grad_y.shape
    if read == tokens:
        return grad_y
    return torch.cat([grad_y, grad_y.new_zeros(*batch, tokens - read, width)], dim=-2)


def multi_head_forward(
    x: Float[Tensor, "B T D"],
    qkv: Weights,
    proj: Weights,
    heads: int,
    rope: Float[Tensor, "2 *images N d"] | None = None,
    drops: Drops = NO_DROPS,
    queries: int | None = None,
) -> tuple[Float[Tensor, "B R D"], Saved]:
    """Project, attend in each head, project back.

    Args:
        x: the tokens.
        qkv: weights of the packed projection.
        proj: weights of the output projection.
        heads: H.
        rope: the table of rotary positions, if there are any.
        drops: what is dropped of the attention weights and of the output.
        queries: R, how many tokens ask, the first ones; all if it is not given.
    """
    if asks_alone(queries, rope, drops[0]):
        merged, saved_attention = single_query_forward(x, qkv, heads)
        saved_qkv = None
    else:
        packed, saved_qkv = linear_forward(x, *qkv)
        q, k, v = split_heads(packed, heads)
        if rope is not None:
            (q, _), (k, _) = rotary_forward(q, rope), rotary_forward(k, rope)
        attend_forward, _ = form_of_attention(x.shape[1], queries)
        o, saved_attention = attend_forward(first(q, queries), k, v, drops[0])
        merged = merge_heads(o)
    y, saved_proj = linear_forward(merged, *proj)
    y, _ = dropout_forward(y, drops[1])
    return y, Saved(saved_qkv, rope, saved_attention, saved_proj, drops[1])


def multi_head_backward(
    grad_y: Float[Tensor, "B R D"], saved: Saved, needed: tuple[Any, ...] = ALL
) -> tuple[Float[Tensor, "B T D"] | Unneeded, linear.Gradients, linear.Gradients]:
    """The gradients of the input and of both projections."""
    needed_x, needed_qkv, needed_proj = needed[:3]
    below = any_needed((needed_x, needed_qkv))
    grad_y = dropout_backward(grad_y, saved.drop)
    grad_merged, *grads_proj = linear_backward(grad_y, saved.proj, (below, *needed_proj))
    if not below:
        return None, NONE, (grads_proj[0], grads_proj[1])
    if isinstance(saved.attention, single_query.Saved):
        needed_alone = needed_x, needed_qkv
        grad_x, grads_qkv = single_query_backward(grad_merged, saved.attention, needed_alone)
        return grad_x, grads_qkv, (grads_proj[0], grads_proj[1])
    (_, heads, tokens, _), rope = saved.attention.k.shape, saved.rope
    grad_o = rearrange(grad_merged, "B R (H d) -> B H R d", H=heads)
    _, attend_backward = form_of_attention(tokens, grad_o.shape[2])
    grad_q, grad_k, grad_v = attend_backward(grad_o, saved.attention)
    grad_q = spread(grad_q, tokens)
    if rope is not None:
        grad_q, grad_k = rotary_backward(grad_q, rope), rotary_backward(grad_k, rope)
    grad_packed = pack_heads(grad_q, grad_k, grad_v)
    assert saved.qkv is not None  # the forward pass sees to that
    grad_x, *grads_qkv = linear_backward(grad_packed, saved.qkv, (needed_x, *needed_qkv))
    return grad_x, (grads_qkv[0], grads_qkv[1]), (grads_proj[0], grads_proj[1])


multi_head = derived(multi_head_forward, multi_head_backward)


class MultiHeadAttention(nn.Module):
    """Multi-head self-attention with timm's parameters `qkv` and `proj`.

    Args:
        dim: D, divisible by `heads`.
        heads: H.
        qkv_bias: whether the packed projection has a bias.
        gradients: "autograd" or "derived".

    Raises:
        ValueError: if `gradients` is neither, or `heads` does not divide `dim`.
    """

    def __init__(
        self, dim: int, heads: int, qkv_bias: bool = True, gradients: str = "autograd"
    ) -> None:
        super().__init__()
        check_heads(dim, heads)
        self.heads = heads
        self.gradients = available("gradients", gradients)
        self.qkv = Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = Linear(dim, dim)

    def weights(self) -> tuple[Weights, Weights]:
        """The weights as `multi_head_forward` takes them."""
        return self.qkv.weights(), self.proj.weights()

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        rope: Float[Tensor, "2 *images N d"] | None = None,
        drops: Drops = NO_DROPS,
        queries: int | None = None,
    ) -> Float[Tensor, "B R D"]:
        """Let every token that asks attend to all."""
        if self.gradients == "derived":
            return multi_head(x, *self.weights(), self.heads, rope, drops, queries)
        # a layer that somebody has put there may do more than multiply
        if asks_alone(queries, rope, drops[0]) and type(self.qkv) is Linear:
            merged, _ = single_query_forward(x, self.qkv.weights(), self.heads)
        else:
            q, k, v = self._project(x, rope)
            merged = merge_heads(fused_attention(first(q, queries), k, v, drops[0]))
        return dropout(self.proj(merged), drops[1], gradients="autograd")

    def attention_map(
        self, x: Float[Tensor, "B T D"], rope: Float[Tensor, "2 *images N d"] | None = None
    ) -> Float[Tensor, "B H T T"]:
        """The attention weights of each head; every row sums to one."""
        q, k, _ = self._project(x, rope)
        return attention_weights(q, k)

    def _project(self, x: Tensor, rope: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of each head, in place."""
        q, k, v = split_heads(self.qkv(x), self.heads)
        if rope is not None:
            q, k = (rotary(part, rope, gradients="autograd") for part in (q, k))
        return q, k, v
