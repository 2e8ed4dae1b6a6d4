"""The encoder block: attention and MLP, each in a branch that is added to what it read.

    X X' Y (B, T, D)

    pre-norm     X' = X + attention(LN(X))      Y = X' + MLP(LN(X'))
    post-norm    X' = LN(X + attention(X))      Y = LN(X' + MLP(X'))

(Dosovitskiy et al. 2021, equations 2 and 3; post-norm: Vaswani et al. 2017, §3.1.) A sum hands its
gradient to both summands, so going backward each branch adds to what came straight through. With
pre-norm:

    ∂ℓ/∂X' = ∂ℓ/∂Y  + what MLP and LN make of ∂ℓ/∂Y
    ∂ℓ/∂X  = ∂ℓ/∂X' + what attention and LN make of ∂ℓ/∂X'

What a branch adds may have learned factors (`vitlib.nn.layer_scale`), and may be dropped as a
whole, by a mask with one entry an image (`vitlib.nn.dropout`).

Where only the first tokens of the output are read, as the class token behind the last block, the
others need not ask, nor think: everything behind the queries, keys and values has R rows instead of
T, and one token alone needs no keys and values (`vitlib.nn.single_query`). What is read, and every
gradient, stays the same.

Saved: what the parts save, for each token 8 D + 2 M numbers, with learned factors 10 D + 2 M, H T
attention weights and 1/σ of both norms; neither X nor X' is among them in a pre-norm block. Only
the activation computes anything twice.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vitlib.config import available, check_rate
from vitlib.nn import layer_norm, layer_scale, linear, mlp, multi_head
from vitlib.nn.derived import Unneeded, any_needed, derived
from vitlib.nn.dropout import Drop, draw, dropout, dropout_backward, dropout_forward
from vitlib.nn.layer_norm import LayerNorm, layer_norm_backward, layer_norm_forward
from vitlib.nn.layer_scale import LayerScale, layer_scale_backward, layer_scale_forward
from vitlib.nn.linear import NONE, Weights
from vitlib.nn.mlp import MLP, mlp_backward, mlp_forward
from vitlib.nn.multi_head import (
    MultiHeadAttention,
    first,
    multi_head_backward,
    multi_head_forward,
    spread,
)

NormWeights = tuple[Tensor, Tensor]
Parameters = tuple[NormWeights, tuple[Weights, Weights], NormWeights, tuple[Weights, Weights]]
"""Of norm 1, attention (qkv, proj), norm 2, MLP (fc1, fc2)."""
LAYERS = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
"""The names of the same in the state dict."""
Factors = tuple[Tensor | None, Tensor | None]
"""Of what either branch adds, if there are any."""
FACTORS = ("ls1.gamma", "ls2.gamma")
"""The names of the same."""
LayerGradients = tuple[linear.Gradients, linear.Gradients]
Gradients = tuple[layer_norm.Gradients, LayerGradients, layer_norm.Gradients, LayerGradients]
"""Of norms and layers."""
ALL = (True, ((True, True), multi_head.ALL[1:], (True, True), mlp.ALL[1:]))
"""Input and parameters: the gradients that are needed."""
ALL_SCALED = (*ALL, (True, True))
"""Input, parameters and factors."""


class Drops(NamedTuple):
    """What a block drops: inside its layers, and whole branches."""

    attn: multi_head.Drops
    attn_path: Drop | None
    mlp: mlp.Drops
    mlp_path: Drop | None


NO_DROPS = Drops(multi_head.NO_DROPS, None, mlp.NO_DROPS, None)


def draw_drops(
    shape: tuple[int, ...],
    heads: int,
    mlp_dim: int,
    rates: tuple[float, float, float],
    device: torch.device,
) -> Drops:
    """The masks of one block in one training step.

    Args:
        shape: (B, T, D) of the tokens.
        heads: H.
        mlp_dim: M.
        rates: dropout, attention dropout, drop path.
        device: where the tokens are.
    """
    batch, tokens, _ = shape
    rate, attention_rate, path_rate = rates
    return Drops(
        (
            draw((batch, heads, tokens, tokens), attention_rate, device),
            draw(shape, rate, device),
        ),
        draw((batch, 1, 1), path_rate, device),
        (draw((batch, tokens, mlp_dim), rate, device), draw(shape, rate, device)),
        draw((batch, 1, 1), path_rate, device),
    )


def cut(drops: Drops, queries: int | None) -> Drops:
    """The part of the masks that belongs to the first tokens."""

    def rows(drop: Drop | None) -> Drop | None:
        return drop and drop._replace(mask=drop.mask[..., :queries, :].contiguous())

    (weights, attn), (hidden, mlp) = drops.attn, drops.mlp
    return drops._replace(attn=(rows(weights), rows(attn)), mlp=(rows(hidden), rows(mlp)))


class SavedBranch(NamedTuple):
    """What the backward pass of a branch needs."""

    layer: Any
    norm: layer_norm.Saved
    scale: layer_scale.Saved | None
    path: Drop | None
    place: str


class Saved(NamedTuple):
    """What the backward pass of a block needs."""

    attn: SavedBranch
    mlp: SavedBranch


def branch_forward(
    x: Float[Tensor, "B T D"],
    layer: Callable[[Tensor], tuple[Tensor, Any]],
    weights: NormWeights,
    eps: float,
    norm: str,
    scale: Float[Tensor, " D"] | None,
    path: Drop | None,
) -> tuple[Float[Tensor, "B R D"], SavedBranch]:
    """X + layer(LN(X)) where the norm comes first, LN(X + layer(X)) where it comes last.

    A layer may leave all but the first R tokens out, and so does the sum.
    """
    if norm == "pre":
        normed, saved_norm = layer_norm_forward(x, *weights, eps)
        branch, saved = layer(normed)
        branch, saved_scale = layer_scale_forward(branch, scale)
        branch, _ = dropout_forward(branch, path)
        y = first(x, branch.shape[1]) + branch
    else:
        branch, saved = layer(x)
        branch, saved_scale = layer_scale_forward(branch, scale)
        branch, _ = dropout_forward(branch, path)
        y, saved_norm = layer_norm_forward(first(x, branch.shape[1]) + branch, *weights, eps)
    return y, SavedBranch(saved, saved_norm, saved_scale, path, norm)


def branch_backward(
    grad_y: Float[Tensor, "B R D"],
    layer_backward: Callable[..., tuple[Tensor | Unneeded, linear.Gradients, linear.Gradients]],
    saved: SavedBranch,
    needed: tuple[bool, tuple[Any, ...], tuple[Any, ...], bool | None],
) -> tuple[
    Float[Tensor, "B T D"] | Unneeded,
    LayerGradients,
    layer_norm.Gradients,
    Float[Tensor, " D"] | None,
]:
    """The gradients of the input, of the layer's weights, of the norm's and of the factors."""
    needed_x, needed_layer, needed_norm, needed_scale = needed
    if saved.place == "pre":
        below = any_needed((needed_x, needed_norm))
        grad_branch = dropout_backward(grad_y, saved.path)
        grad_branch, scale = layer_scale_backward(grad_branch, saved.scale, (True, needed_scale))
        grad_normed, *layer = layer_backward(grad_branch, saved.layer, (below, *needed_layer))
        if not below:
            return None, (layer[0], layer[1]), NONE, scale
        grad_x, *norm = layer_norm_backward(grad_normed, saved.norm, (needed_x, *needed_norm))
        straight = grad_y
    else:
        below = any_needed((needed_x, needed_layer, needed_scale))
        straight, *norm = layer_norm_backward(grad_y, saved.norm, (below, *needed_norm))
        if not below:
            return None, (NONE, NONE), (norm[0], norm[1]), None
        grad_branch = dropout_backward(straight, saved.path)
        grad_branch, scale = layer_scale_backward(grad_branch, saved.scale, (True, needed_scale))
        grad_x, *layer = layer_backward(grad_branch, saved.layer, (needed_x, *needed_layer))
    grad_x = spread(straight, grad_x.shape[1]) + grad_x if needed_x else None
    return grad_x, (layer[0], layer[1]), (norm[0], norm[1]), scale


def scaled_forward(
    x: Float[Tensor, "B T D"],
    parameters: Parameters,
    factors: Factors,
    heads: int,
    eps: float,
    norm: str = "pre",
    activation: str = "gelu",
    rope: Float[Tensor, "2 *images N d"] | None = None,
    drops: Drops = NO_DROPS,
    queries: int | None = None,
) -> tuple[Float[Tensor, "B R D"], Saved]:
    """Exchange between tokens, then thought within each.

    Args:
        x: the tokens.
        parameters: of norms and layers.
        factors: of what either branch adds, if there are any.
        heads: H.
        eps: ε of both norms.
        norm: "pre" or "post".
        activation: of the MLP.
        rope: the table of rotary positions, if there are any.
        drops: what is dropped, of as many tokens as ask.
        queries: R, how many tokens ask and leave the block, the first ones; all if not given.
    """
    norm1, (qkv, proj), norm2, (fc1, fc2) = parameters

    def exchange(x: Tensor) -> tuple[Tensor, multi_head.Saved]:
        return multi_head_forward(x, qkv, proj, heads, rope, drops.attn, queries)

    def think(x: Tensor) -> tuple[Tensor, mlp.Saved]:
        return mlp_forward(x, fc1, fc2, activation, drops.mlp)

    x, saved_attn = branch_forward(x, exchange, norm1, eps, norm, factors[0], drops.attn_path)
    x, saved_mlp = branch_forward(x, think, norm2, eps, norm, factors[1], drops.mlp_path)
    return x, Saved(saved_attn, saved_mlp)


def scaled_backward(
    grad_y: Float[Tensor, "B R D"], saved: Saved, needed: tuple[Any, ...] = ALL_SCALED
) -> tuple[Float[Tensor, "B T D"] | Unneeded, Gradients, Factors]:
    """The gradients of the input, of all parameters and of the factors."""
    needed_x, (norm1, attn, norm2, mlp), (factor1, factor2) = needed[:3]
    below = any_needed((needed_x, norm1, attn, factor1))
    needed_mlp = (below, mlp, norm2, factor2)
    grad_x, grad_mlp, grad_norm2, grad_factor2 = branch_backward(
        grad_y, mlp_backward, saved.mlp, needed_mlp
    )
    if not below:
        return None, (NONE, (NONE, NONE), grad_norm2, grad_mlp), (None, grad_factor2)
    needed_attn = (needed_x, attn, norm1, factor1)
    grad_x, grad_attn, grad_norm1, grad_factor1 = branch_backward(
        grad_x, multi_head_backward, saved.attn, needed_attn
    )
    grads = grad_norm1, grad_attn, grad_norm2, grad_mlp
    return grad_x, grads, (grad_factor1, grad_factor2)


def block_forward(
    x: Float[Tensor, "B T D"],
    parameters: Parameters,
    heads: int,
    eps: float,
    norm: str = "pre",
    activation: str = "gelu",
    rope: Float[Tensor, "2 *images N d"] | None = None,
    drops: Drops = NO_DROPS,
    queries: int | None = None,
) -> tuple[Float[Tensor, "B R D"], Saved]:
    """The same without factors."""
    options = heads, eps, norm, activation, rope, drops, queries
    return scaled_forward(x, parameters, (None, None), *options)


def block_backward(
    grad_y: Float[Tensor, "B R D"], saved: Saved, needed: tuple[Any, ...] = ALL
) -> tuple[Float[Tensor, "B T D"] | Unneeded, Gradients]:
    """The gradients of the input and of all parameters."""
    grad_x, grads, _ = scaled_backward(grad_y, saved, (*needed[:2], (False, False)))
    return grad_x, grads


scaled = derived(scaled_forward, scaled_backward)
block = derived(block_forward, block_backward)


class Block(nn.Module):
    """An encoder block with timm's names.

    Args:
        dim: D, divisible by `heads`.
        heads: H.
        mlp_dim: M.
        qkv_bias: whether queries, keys and values have a bias.
        eps: ε of both norms.
        norm: "pre" or "post".
        activation: of the MLP: "gelu", "gelu_tanh", "relu" or "swiglu".
        layer_scale: what the factors of both branches start at; None for none.
        dropout: rate for the outputs of attention and MLP, and for the MLP's hidden layer.
        attention_dropout: rate for the attention weights.
        drop_path: rate at which an image skips a branch.
        gradients: "autograd", or "derived": the whole block is one node of the graph.

    Raises:
        ValueError: if an option is none of these, or `heads` does not divide `dim`.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        mlp_dim: int,
        *,
        qkv_bias: bool = True,
        eps: float = 1e-6,
        norm: str = "pre",
        activation: str = "gelu",
        layer_scale: float | None = None,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        drop_path: float = 0.0,
        gradients: str = "autograd",
    ) -> None:
        super().__init__()
        self.gradients = available("gradients", gradients)
        self.place = available("norm", norm)
        check_rate("dropout", dropout)
        check_rate("attention_dropout", attention_dropout)
        check_rate("drop_path", drop_path)
        self.rates = dropout, attention_dropout, drop_path
        self.norm1 = LayerNorm(dim, eps)
        self.attn = MultiHeadAttention(dim, heads, qkv_bias)
        self.ls1 = nn.Identity() if layer_scale is None else LayerScale(dim, layer_scale)
        self.norm2 = LayerNorm(dim, eps)
        self.mlp = MLP(dim, mlp_dim, activation)
        self.ls2 = nn.Identity() if layer_scale is None else LayerScale(dim, layer_scale)

    def weights(self) -> Parameters:
        """The weights as `block_forward` takes them."""
        return (
            self.norm1.weights(),
            self.attn.weights(),
            self.norm2.weights(),
            self.mlp.weights(),
        )

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        rope: Float[Tensor, "2 *images N d"] | None = None,
        queries: int | None = None,
    ) -> Float[Tensor, "B R D"]:
        """Apply the block; in training, with fresh masks.

        Args:
            x: the tokens.
            rope: the table of rotary positions, if there are any (`vitlib.nn.rotary`).
            queries: R, how many tokens leave the block, the first ones; all if it is not given.
        """
        drops = NO_DROPS
        if self.training:
            hidden = self.mlp.fc2.in_features
            drops = draw_drops(x.shape, self.attn.heads, hidden, self.rates, x.device)
            drops = cut(drops, queries)
        if self.gradients == "derived":
            activation, heads = self.mlp.act.name, self.attn.heads
            options = heads, self.norm1.eps, self.place, activation, rope, drops, queries
            if isinstance(self.ls1, LayerScale) and isinstance(self.ls2, LayerScale):
                factors = self.ls1.gamma, self.ls2.gamma
                return scaled(x, self.weights(), factors, *options)
            return block(x, self.weights(), *options)
        exchange = partial(self.attn, rope=rope, drops=drops.attn, queries=queries)
        think = partial(self.mlp, drops=drops.mlp)
        x = self._branch(x, exchange, self.norm1, self.ls1, drops.attn_path)
        return self._branch(x, think, self.norm2, self.ls2, drops.mlp_path)

    def _branch(
        self,
        x: Tensor,
        layer: Callable[[Tensor], Tensor],
        norm: LayerNorm,
        scale: nn.Module,
        path: Drop | None,
    ) -> Tensor:
        branch = layer(norm(x) if self.place == "pre" else x)
        y = first(x, branch.shape[1]) + dropout(scale(branch), path, gradients="autograd")
        return y if self.place == "pre" else norm(y)
