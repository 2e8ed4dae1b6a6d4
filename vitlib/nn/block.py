"""The encoder block: attention and MLP, each in a branch that is added to what it read.

    X X' Y (B, T, D)

    pre-norm     X' = X + attention(LN(X))      Y = X' + MLP(LN(X'))
    post-norm    X' = LN(X + attention(X))      Y = LN(X' + MLP(X'))

(Dosovitskiy et al. 2021, equations 2 and 3; post-norm: Vaswani et al. 2017, §3.1.) A sum hands its
gradient to both summands, so going backward each branch adds to what came straight through. With
pre-norm:

    ∂ℓ/∂X' = ∂ℓ/∂Y  + what MLP and LN make of ∂ℓ/∂Y
    ∂ℓ/∂X  = ∂ℓ/∂X' + what attention and LN make of ∂ℓ/∂X'

A branch may be dropped as a whole, by a mask with one entry an image (`vitlib.nn.dropout`).

Saved: what the parts save, for each token 8 D + 2 M numbers, H T attention weights and 1/σ of both
norms; neither X nor X' is among them in a pre-norm block. Only the activation computes anything
twice.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vitlib.config import available, check_rate
from vitlib.nn import layer_norm, linear, mlp, multi_head
from vitlib.nn.derived import Unneeded, any_needed, derived
from vitlib.nn.dropout import Drop, draw, dropout, dropout_backward, dropout_forward
from vitlib.nn.layer_norm import LayerNorm, layer_norm_backward, layer_norm_forward
from vitlib.nn.linear import NONE, Weights
from vitlib.nn.mlp import MLP, mlp_backward, mlp_forward
from vitlib.nn.multi_head import MultiHeadAttention, multi_head_backward, multi_head_forward

NormWeights = tuple[Tensor, Tensor]
Parameters = tuple[NormWeights, tuple[Weights, Weights], NormWeights, tuple[Weights, Weights]]
"""Of norm 1, attention (qkv, proj), norm 2, MLP (fc1, fc2)."""
LAYERS = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
"""The names of the same in the state dict."""
LayerGradients = tuple[linear.Gradients, linear.Gradients]
Gradients = tuple[layer_norm.Gradients, LayerGradients, layer_norm.Gradients, LayerGradients]
"""Of the same."""
ALL = (True, ((True, True), multi_head.ALL[1:], (True, True), mlp.ALL[1:]))
"""Input and parameters: the gradients that are needed."""


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


class SavedBranch(NamedTuple):
    """What the backward pass of a branch needs."""

    layer: Any
    norm: layer_norm.Saved
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
    path: Drop | None,
) -> tuple[Float[Tensor, "B T D"], SavedBranch]:
    """X + layer(LN(X)) where the norm comes first, LN(X + layer(X)) where it comes last."""
    if norm == "pre":
        normed, saved_norm = layer_norm_forward(x, *weights, eps)
        branch, saved = layer(normed)
        branch, _ = dropout_forward(branch, path)
        y = x + branch
    else:
        branch, saved = layer(x)
        branch, _ = dropout_forward(branch, path)
        y, saved_norm = layer_norm_forward(x + branch, *weights, eps)
    return y, SavedBranch(saved, saved_norm, path, norm)


def branch_backward(
    grad_y: Float[Tensor, "B T D"],
    layer_backward: Callable[..., tuple[Tensor | Unneeded, linear.Gradients, linear.Gradients]],
    saved: SavedBranch,
    needed: tuple[bool, tuple[Any, ...], tuple[Any, ...]],
) -> tuple[Float[Tensor, "B T D"] | Unneeded, LayerGradients, layer_norm.Gradients]:
    """The gradients of the input, of the layer's weights and of the norm's."""
    needed_x, needed_layer, needed_norm = needed
    if saved.place == "pre":
        below = any_needed((needed_x, needed_norm))
        grad_branch = dropout_backward(grad_y, saved.path)
        grad_normed, *layer = layer_backward(grad_branch, saved.layer, (below, *needed_layer))
        if not below:
            return None, (layer[0], layer[1]), NONE
        grad_x, *norm = layer_norm_backward(grad_normed, saved.norm, (needed_x, *needed_norm))
        straight = grad_y
    else:
        below = any_needed((needed_x, needed_layer))
        straight, *norm = layer_norm_backward(grad_y, saved.norm, (below, *needed_norm))
        if not below:
            return None, (NONE, NONE), (norm[0], norm[1])
        grad_branch = dropout_backward(straight, saved.path)
        grad_x, *layer = layer_backward(grad_branch, saved.layer, (needed_x, *needed_layer))
    grad_x = straight + grad_x if needed_x else None
    return grad_x, (layer[0], layer[1]), (norm[0], norm[1])


def block_forward(
    x: Float[Tensor, "B T D"],
    parameters: Parameters,
    heads: int,
    eps: float,
    norm: str = "pre",
    activation: str = "gelu",
    rope: Float[Tensor, "2 *images N d"] | None = None,
    drops: Drops = NO_DROPS,
) -> tuple[Float[Tensor, "B T D"], Saved]:
    """Exchange between tokens, then thought within each."""
    norm1, (qkv, proj), norm2, (fc1, fc2) = parameters

    def exchange(x: Tensor) -> tuple[Tensor, multi_head.Saved]:
        return multi_head_forward(x, qkv, proj, heads, rope, drops.attn)

    def think(x: Tensor) -> tuple[Tensor, mlp.Saved]:
        return mlp_forward(x, fc1, fc2, activation, drops.mlp)

    x, saved_attn = branch_forward(x, exchange, norm1, eps, norm, drops.attn_path)
    x, saved_mlp = branch_forward(x, think, norm2, eps, norm, drops.mlp_path)
    return x, Saved(saved_attn, saved_mlp)


def block_backward(
    grad_y: Float[Tensor, "B T D"], saved: Saved, needed: tuple[Any, ...] = ALL
) -> tuple[Float[Tensor, "B T D"] | Unneeded, Gradients]:
    """The gradients of the input and of all parameters."""
    needed_x, (norm1, attn, norm2, mlp) = needed[:2]
    below = any_needed((needed_x, norm1, attn))
    needed_mlp = (below, mlp, norm2)
    grad_x, grad_mlp, grad_norm2 = branch_backward(grad_y, mlp_backward, saved.mlp, needed_mlp)
    if not below:
        return None, (NONE, (NONE, NONE), grad_norm2, grad_mlp)
    needed_attn = (needed_x, attn, norm1)
    grad_x, grad_attn, grad_norm1 = branch_backward(
        grad_x, multi_head_backward, saved.attn, needed_attn
    )
    return grad_x, (grad_norm1, grad_attn, grad_norm2, grad_mlp)


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
        self.norm2 = LayerNorm(dim, eps)
        self.mlp = MLP(dim, mlp_dim, activation)

    def weights(self) -> Parameters:
        """The weights as `block_forward` takes them."""
        return (
            self.norm1.weights(),
            self.attn.weights(),
            self.norm2.weights(),
            self.mlp.weights(),
        )

    def forward(
        self, x: Float[Tensor, "B T D"], rope: Float[Tensor, "2 *images N d"] | None = None
    ) -> Float[Tensor, "B T D"]:
        """Apply the block; in training, with fresh masks.

        Args:
            x: the tokens.
            rope: the table of rotary positions, if there are any (`vitlib.nn.rotary`).
        """
        drops = NO_DROPS
        if self.training:
            hidden = self.mlp.fc2.in_features
            drops = draw_drops(x.shape, self.attn.heads, hidden, self.rates, x.device)
        if self.gradients == "derived":
            activation, heads = self.mlp.act.name, self.attn.heads
            return block(
                x, self.weights(), heads, self.norm1.eps, self.place, activation, rope, drops
            )
        exchange = partial(self.attn, rope=rope, drops=drops.attn)
        x = self._branch(x, exchange, self.norm1, drops.attn_path)
        return self._branch(x, partial(self.mlp, drops=drops.mlp), self.norm2, drops.mlp_path)

    def _branch(
        self, x: Tensor, layer: Callable[[Tensor], Tensor], norm: LayerNorm, path: Drop | None
    ) -> Tensor:
        if self.place == "pre":
            return x + dropout(layer(norm(x)), path, gradients="autograd")
        return norm(x + dropout(layer(x), path, gradients="autograd"))
