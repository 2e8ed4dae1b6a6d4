"""Layer normalisation: every token to mean 0 and variance 1, then gain and bias.

    X X̂ Y (*, T, D)   μ σ (*, T, 1)   γ β (D)

    μ = rowmean(X)    σ² = rowmean((X − μ)²) + ε    X̂ = (X − μ) / σ    Y = γ ⊙ X̂ + β

(Ba, Kiros and Hinton 2016, equation 3; ε stands inside the root, and the variance divides by D, not
D − 1). The gradients, derived in `encoder/layer_norm`, with G = γ ⊙ ∂ℓ/∂Y and sums over all tokens:

    ∂ℓ/∂X = (G − rowmean(G) − X̂ ⊙ rowmean(G ⊙ X̂)) / σ      ∂ℓ/∂γ = Σ ∂ℓ/∂Y ⊙ X̂      ∂ℓ/∂β = Σ ∂ℓ/∂Y

Saved: X̂ and 1/σ. The input could be kept in place of X̂ at the cost of computing X̂ twice.
"""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from vitlib.config import available
from vitlib.nn.checks import check_cotangent
from vitlib.nn.derived import Unneeded, derived
from vitlib.nn.precision import widen

Gradients = tuple[Tensor | Unneeded, Tensor | Unneeded]
"""Of gain and bias."""
ALL = (True, True, True)
"""Input, gain and bias: the gradients that are needed."""


class Saved(NamedTuple):
    """What the backward pass of layer normalisation needs."""

    x_hat: Float[Tensor, "*batch T D"]
    inverse_sigma: Float[Tensor, "*batch T 1"]
    weight: Float[Tensor, " D"]


def layer_norm_forward(
    x: Float[Tensor, "*batch T D"],
    weight: Float[Tensor, " D"],
    bias: Float[Tensor, " D"],
    eps: float = 1e-6,
) -> tuple[Float[Tensor, "*batch T D"], Saved]:
    """Normalise each token, then scale and shift each of its entries."""
    x, narrow = widen(x), x.dtype
    centred = x - x.mean(dim=-1, keepdim=True)
    variance = centred.square().mean(dim=-1, keepdim=True)
    inverse_sigma = (variance + eps).rsqrt()
    x_hat = centred * inverse_sigma
    y = (x_hat * weight + bias).to(narrow)
    return y, Saved(x_hat.to(narrow), inverse_sigma, weight)


def layer_norm_backward(
    grad_y: Float[Tensor, "*batch T D"], saved: Saved, needed: tuple[Any, ...] = ALL
) -> tuple[
    Float[Tensor, "*batch T D"] | Unneeded,
    Float[Tensor, " D"] | Unneeded,
    Float[Tensor, " D"] | Unneeded,
]:
    """The gradients of input, gain and bias."""
    x_hat, inverse_sigma, weight = saved
    check_cotangent(grad_y, x_hat.shape, x_hat.dtype)
    grad_weight = (grad_y * x_hat).flatten(0, -2).sum(0) if needed[1] else None
    grad_bias = grad_y.flatten(0, -2).sum(0) if needed[2] else None
    if not needed[0]:
        return None, grad_weight, grad_bias
    g = widen(grad_y) * weight
    mean = g.mean(dim=-1, keepdim=True)
    along_x_hat = (g * x_hat).mean(dim=-1, keepdim=True)
    grad_x = (g - mean - x_hat * along_x_hat) * inverse_sigma
    return grad_x.to(grad_y.dtype), grad_weight, grad_bias


layer_norm = derived(layer_norm_forward, layer_norm_backward)


class LayerNorm(nn.Module):
    """Layer normalisation over the last axis.

    Args:
        dim: D.
        eps: ε.
        gradients: "autograd" or "derived".

    Raises:
        ValueError: if `gradients` is something else.
    """

    def __init__(self, dim: int, eps: float = 1e-6, gradients: str = "autograd") -> None:
        super().__init__()
        self.eps = eps
        self.gradients = available("gradients", gradients)
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))

    def weights(self) -> tuple[Tensor, Tensor]:
        """Gain and bias as `layer_norm_forward` takes them."""
        return self.weight, self.bias

    def forward(self, x: Float[Tensor, "*batch T D"]) -> Float[Tensor, "*batch T D"]:
        """Normalise each token."""
        if self.gradients == "derived":
            return layer_norm(x, *self.weights(), self.eps)
        return functional.layer_norm(x, x.shape[-1:], self.weight, self.bias, self.eps)
