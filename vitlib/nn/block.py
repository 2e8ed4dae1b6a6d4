"""The encoder block: attention and MLP, each on a normalised copy, each added back.

    X X' Y (B, T, D)      X' = X + attention(LN(X))      Y = X' + MLP(LN(X'))

(Dosovitskiy et al. 2021, equations 2 and 3: the norm comes first, "pre-norm".) A sum hands its
gradient to both summands, so going backward each branch adds to what came straight through:

    ∂ℓ/∂X' = ∂ℓ/∂Y  + what MLP and LN make of ∂ℓ/∂Y
    ∂ℓ/∂X  = ∂ℓ/∂X' + what attention and LN make of ∂ℓ/∂X'

Saved: what the parts save, for each token 8 D + 2 M numbers, H T attention weights and 1/σ of both
norms; neither X nor X' is among them. Only the GELU computes anything twice.
"""

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from vitlib.config import available
from vitlib.nn import layer_norm, mlp, multi_head
from vitlib.nn.derived import derived
from vitlib.nn.layer_norm import LayerNorm, layer_norm_backward, layer_norm_forward
from vitlib.nn.linear import Weights
from vitlib.nn.mlp import MLP, mlp_backward, mlp_forward
from vitlib.nn.multi_head import MultiHeadAttention, multi_head_backward, multi_head_forward

NormWeights = tuple[Tensor, Tensor]
Parameters = tuple[NormWeights, tuple[Weights, Weights], NormWeights, tuple[Weights, Weights]]
"""Of norm 1, attention (qkv, proj), norm 2, MLP (fc1, fc2)."""
LAYERS = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
"""The names of the same in the state dict."""


class Saved(NamedTuple):
    """What the backward pass of a block needs."""

    norm1: layer_norm.Saved
    attn: multi_head.Saved
    norm2: layer_norm.Saved
    mlp: mlp.Saved


def block_forward(
    x: Float[Tensor, "B T D"], parameters: Parameters, heads: int, eps: float
) -> tuple[Float[Tensor, "B T D"], Saved]:
    """Exchange between tokens, then thought within each."""
    norm1, attn, norm2, mlp = parameters
    normed, saved_norm1 = layer_norm_forward(x, *norm1, eps)
    exchanged, saved_attn = multi_head_forward(normed, *attn, heads)
    x = x + exchanged
    normed, saved_norm2 = layer_norm_forward(x, *norm2, eps)
    thought, saved_mlp = mlp_forward(normed, *mlp)
    return x + thought, Saved(saved_norm1, saved_attn, saved_norm2, saved_mlp)


def block_backward(
    grad_y: Float[Tensor, "B T D"], saved: Saved
) -> tuple[Float[Tensor, "B T D"], Parameters]:
    """The gradients of the input and of all parameters."""
    grad_normed, grad_fc1, grad_fc2 = mlp_backward(grad_y, saved.mlp)
    grad_branch, grad_weight2, grad_bias2 = layer_norm_backward(grad_normed, saved.norm2)
    grad_x = grad_y + grad_branch
    grad_normed, grad_qkv, grad_proj = multi_head_backward(grad_x, saved.attn)
    grad_branch, grad_weight1, grad_bias1 = layer_norm_backward(grad_normed, saved.norm1)
    return grad_x + grad_branch, (
        (grad_weight1, grad_bias1),
        (grad_qkv, grad_proj),
        (grad_weight2, grad_bias2),
        (grad_fc1, grad_fc2),
    )


block = derived(block_forward, block_backward)


class Block(nn.Module):
    """A pre-norm encoder block with timm's names.

    Args:
        dim: D, divisible by `heads`.
        heads: H.
        mlp_dim: M.
        qkv_bias: whether queries, keys and values have a bias.
        eps: ε of both norms.
        gradients: "autograd", or "derived": the whole block is one node of the graph.

    Raises:
        ValueError: if `gradients` is neither, or `heads` does not divide `dim`.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        mlp_dim: int,
        qkv_bias: bool = True,
        eps: float = 1e-6,
        gradients: str = "autograd",
    ) -> None:
        super().__init__()
        self.gradients = available("gradients", gradients)
        self.norm1 = LayerNorm(dim, eps)
        self.attn = MultiHeadAttention(dim, heads, qkv_bias)
        self.norm2 = LayerNorm(dim, eps)
        self.mlp = MLP(dim, mlp_dim)

    def weights(self) -> Parameters:
        """The weights as `block_forward` takes them."""
        return (
            self.norm1.weights(),
            self.attn.weights(),
            self.norm2.weights(),
            self.mlp.weights(),
        )

    def forward(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        """Apply the block."""
        if self.gradients == "derived":
            return block(x, self.weights(), self.attn.heads, self.norm1.eps)
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))
