"""The encoder block, rewritten for speed: the twin of `vitlib.nn.block`.

    X (B, T, D)   X' Y (B, R, D)   U (B, R, M), R = T where all tokens ask, 1 where one does

For pre-norm blocks with a GELU. The formulas are those of the parts in `vitlib.nn`; what differs is
how they are computed:

- **Fused kernels.** Norm, softmax and GELU, forward and backward, are one of PyTorch's each.
- **Sums inside products** (`vitlib.fast.linear`). A residual sum is its product's own, so no branch
  is written down; nor is U where nobody will go backward, since a GELU can be its product's own.
- **Attention** of all heads in batched products (`vitlib.fast.attention`).
- **Memory used again.** Going backward, a gradient takes the place of what it was the last to read.
- **Less kept.** X, Q K V, X', U and two numbers a token and norm, 5 D + M + 4 for each token, where
  the readable form keeps 8 D + 2 M + H T + 2. The outputs of the norms, A, O and GELU(U) are
  computed again where they are read, from what has to be fetched there anyway. A long sequence
  keeps O in place of X', which is one product away from it, and H sums of its softmax.
- **No dead work.** Where one token asks, as in the last block, nothing is made of the others but
  what it needs (`vitlib.nn.single_query`).

An image may drop a whole branch (`drop_path`); that branch is written down.
"""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from vitlib.fast.attention import (
    Heads,
    Tiled,
    attention_backward,
    attention_forward,
    merge,
    project,
    project_backward,
)
from vitlib.fast.linear import add_linear, linear, linear_backward, weight_gradients
from vitlib.nn import single_query
from vitlib.nn.block import NO_DROPS, Drops, Gradients, NormWeights, Parameters
from vitlib.nn.dropout import Drop, dropout_backward, dropout_forward
from vitlib.nn.linear import Weights
from vitlib.nn.single_query import single_query_backward, single_query_forward

_aten = torch.ops.aten
APPROXIMATE = {"gelu": "none", "gelu_tanh": "tanh"}
"""What PyTorch calls the activations that are here."""

Rows = Float[Tensor, "R D"]


class SavedNorm(NamedTuple):
    """What the backward pass of a norm needs; X' may be left out, if O is there."""

    x: Rows | None
    mean: Float[Tensor, "R 1"]
    inverse_sigma: Float[Tensor, "R 1"]
    weights: NormWeights
    eps: float


class Alone(NamedTuple):
    """What the backward pass of a single query needs, X̂ apart, and what it received."""

    saved: single_query.Saved
    o: Float[Tensor, "B D"]


class Saved(NamedTuple):
    """What the backward pass of a block needs."""

    norm1: SavedNorm
    heads: Heads | Alone
    tiled: Tiled | None
    qkv: Weights
    proj: Weights
    norm2: SavedNorm
    u: Float[Tensor, "R M"] | None
    fc1: Weights
    fc2: Weights
    activation: str
    paths: tuple[Drop | None, Drop | None]
    shape: torch.Size


def block_forward(
    x: Float[Tensor, "B T D"],
    parameters: Parameters,
    heads: int,
    eps: float,
    norm: str = "pre",
    activation: str = "gelu",
    rope: None = None,
    drops: Drops = NO_DROPS,
    queries: int | None = None,
    *,
    keep: bool = True,
) -> tuple[Float[Tensor, "B R D"], Saved]:
    """Exchange between tokens, then thought within each.

    Arguments: see `vitlib.nn.block`, but all tokens ask, or one; and whether to keep what the
    backward pass needs.
    """
    norm1, (qkv, proj), norm2, (fc1, fc2) = parameters
    paths = drops.attn_path, drops.mlp_path
    read = x[:, :queries]
    normed, saved_norm1 = norm_forward(x.reshape(-1, x.shape[-1]), norm1, eps)
    if queries == 1:
        merged, alone = single_query_forward(normed.view(x.shape), qkv, heads)
        o, tiled = merged[:, 0], None
        split = Alone(alone._replace(x=None), o)
    else:
        split = project(normed, qkv, len(x), heads)
        o, tiled = attention_forward(split)
    between = add_branch(read.reshape_as(o), o, proj, paths[0], read.shape)
    normed, saved_norm2 = norm_forward(between, norm2, eps)
    gelu = APPROXIMATE[activation]
    u = linear(normed, fc1) if keep else None
    hidden = linear(normed, fc1, gelu) if u is None else functional.gelu(u, approximate=gelu)
    y = add_branch(between, hidden, fc2, paths[1], read.shape).view(read.shape)
    if tiled is not None:
        saved_norm2 = saved_norm2._replace(x=None)
    layers = qkv, proj, saved_norm2, u, fc1, fc2
    return y, Saved(saved_norm1, split, tiled, *layers, activation, paths, x.shape)


def block_output(*inputs: Any) -> Float[Tensor, "B R D"]:
    """The output alone, where nobody will go backward."""
    return block_forward(*inputs, keep=False)[0]


def block_backward(
    grad_y: Float[Tensor, "B R D"], saved: Saved
) -> tuple[Float[Tensor, "B T D"], Gradients]:
    """The gradients of the input and of all parameters."""
    shape, (attn_path, mlp_path) = saved.shape, saved.paths
    grad_y = grad_y.contiguous()
    rows_y = grad_y.view(-1, shape[-1])

    grad_branch = dropout_backward(grad_y, mlp_path).view_as(rows_y)
    u, gelu = present(saved.u), APPROXIMATE[saved.activation]
    grads_fc2 = weight_gradients(grad_branch, functional.gelu(u, approximate=gelu), saved.fc2)
    grad_hidden = linear_backward(grad_branch, saved.fc2[0])
    grad_u = _aten.gelu_backward.grad_input(
        grad_hidden, u, approximate=gelu, grad_input=grad_hidden
    )
    norm2 = saved.norm2._replace(x=between_again(saved, grad_y.shape))
    grads_fc1 = weight_gradients(grad_u, norm_again(norm2), saved.fc1)
    grad_normed = linear_backward(grad_u, saved.fc1[0])
    grad_between, *grads_norm2 = norm_backward(grad_normed, norm2)
    grad_between += rows_y

    grad_branch = dropout_backward(grad_between.view_as(grad_y), attn_path).view_as(rows_y)
    grad_o = linear_backward(grad_branch, saved.proj[0])
    if isinstance(saved.heads, Alone):
        alone, o = saved.heads
        alone = alone._replace(x=norm_again(saved.norm1).view(shape))
        grad_tokens, grads_qkv = single_query_backward(grad_o[:, None], alone)
        grad_normed = grad_tokens.view(-1, shape[-1])
    else:
        grad_heads, o = attention_backward(grad_o, saved.heads, saved.tiled)
        grad_normed, grads_qkv = project_backward(grad_heads, norm_again(saved.norm1), saved.qkv)
    grads_proj = weight_gradients(grad_branch, o, saved.proj)
    grad_rows, *grads_norm1 = norm_backward(grad_normed, saved.norm1)
    grad_x = grad_rows.view(shape)
    grad_x[:, : grad_y.shape[1]] += grad_between.view_as(grad_y)

    norms = (grads_norm1[0], grads_norm1[1]), (grads_norm2[0], grads_norm2[1])
    return grad_x, (norms[0], (grads_qkv, grads_proj), norms[1], (grads_fc1, grads_fc2))


def between_again(saved: Saved, shape: torch.Size) -> Rows:
    """X', kept or computed from X and O."""
    if saved.tiled is None:
        return present(saved.norm2.x)
    o = merge(saved.tiled.o)
    read = present(saved.norm1.x).view(saved.shape)[:, : shape[1]]
    return add_branch(read.reshape_as(o), o, saved.proj, saved.paths[0], shape)


def present(kept: Rows | None) -> Rows:
    """What was kept."""
    assert kept is not None  # block_forward sees to that
    return kept


def norm_forward(x: Rows, weights: NormWeights, eps: float) -> tuple[Rows, SavedNorm]:
    """Normalise each token, and keep the input."""
    y, mean, inverse_sigma = _aten.native_layer_norm(x, x.shape[-1:], *weights, eps)
    return y, SavedNorm(x, mean, inverse_sigma, weights, eps)


def norm_again(saved: SavedNorm) -> Rows:
    """The output, from the input that was kept."""
    x = present(saved.x)
    return functional.layer_norm(x, x.shape[-1:], *saved.weights, saved.eps)


def norm_backward(
    grad_y: Rows, saved: SavedNorm
) -> tuple[Rows, Float[Tensor, " D"], Float[Tensor, " D"]]:
    """The gradients of input, gain and bias."""
    x, (_, mean, inverse_sigma, weights, _) = present(saved.x), saved
    return _aten.native_layer_norm_backward(
        grad_y, x, x.shape[-1:], mean, inverse_sigma, *weights, [True, True, True]
    )


def add_branch(
    x: Rows,
    hidden: Float[Tensor, "R M"],
    layer: Weights,
    path: Drop | None,
    shape: torch.Size,
) -> Rows:
    """X + H W + b, where an image may drop the branch."""
    if path is None:
        return add_linear(x, hidden, layer)
    branch, _ = dropout_forward(linear(hidden, layer).view(shape), path)
    return branch.view_as(x).add_(x)
