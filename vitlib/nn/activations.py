"""The activations of the MLP, entry by entry.

    U Y (*)      GELU(u) = u Φ(u),   Φ(u) = (1 + erf(u/√2)) / 2

(Hendrycks and Gimpel 2016). Φ is the distribution function of the standard normal distribution and
φ its density, so by the product rule

    GELU'(u) = Φ(u) + u φ(u),   φ(u) = exp(−u²/2) / √(2π)

The approximation of the same paper replaces Φ by (1 + τ) / 2 with

    τ = tanh(a (u + b u³)),  a = √(2/π),  b = 0.044715      τ' = (1 − τ²) a (1 + 3 b u²)

The ReLU is the larger of u and 0; its slope at 0 is taken to be 0. The SwiGLU (Shazeer 2020,
equation 6) has a gate for each value, and halves the width:

    U (*, 2M) = [G, V]   Y (*, M)      Y = SiLU(G) ⊙ V,   SiLU(g) = g s(g)

    s(g) = 1 / (1 + exp(−g))      SiLU'(g) = s(g) (1 + g (1 − s(g)))

Saved: the input; what bends it is computed again rather than kept. An activation costs little but
traffic with memory, so what is fresh is worked on in place.
"""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from vitlib.config import available
from vitlib.nn.checks import check_cotangent
from vitlib.nn.derived import derived

_A, _B = math.sqrt(2 / math.pi), 0.044715


def gelu_forward(u: Float[Tensor, "*any"]) -> tuple[Float[Tensor, "*any"], Float[Tensor, "*any"]]:
    """GELU(u) = u Φ(u)."""
    return u * _normal_cdf(u), u


def gelu_backward(grad_y: Float[Tensor, "*any"], u: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
    """The gradient of the input."""
    check_cotangent(grad_y, u.shape, u.dtype)
    density = u.square().mul_(-0.5).exp_().div_(math.sqrt(2 * math.pi))
    slope = _normal_cdf(u).add_(density.mul_(u))
    return grad_y * slope


def _normal_cdf(u: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
    return (u / math.sqrt(2)).erf_().add_(1).mul_(0.5)


def gelu_tanh_forward(
    u: Float[Tensor, "*any"],
) -> tuple[Float[Tensor, "*any"], Float[Tensor, "*any"]]:
    """The GELU with tanh in place of Φ."""
    return 0.5 * u * (1 + _tanh(u)), u


def gelu_tanh_backward(
    grad_y: Float[Tensor, "*any"], u: Float[Tensor, "*any"]
) -> Float[Tensor, "*any"]:
    """The gradient of the input."""
    check_cotangent(grad_y, u.shape, u.dtype)
    bend = _tanh(u)
    inner_slope = u.square().mul_(3 * _B).add_(1).mul_(_A)
    slope = (1 - bend.square()).mul_(inner_slope).mul_(u).add_(bend).add_(1).mul_(0.5)
    return grad_y * slope


def _tanh(u: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
    return (_A * u * (1 + _B * u.square())).tanh()


def relu_forward(u: Float[Tensor, "*any"]) -> tuple[Float[Tensor, "*any"], Float[Tensor, "*any"]]:
    """The larger of u and 0."""
    return u.clamp(min=0), u


def relu_backward(grad_y: Float[Tensor, "*any"], u: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
    """The gradient of the input."""
    check_cotangent(grad_y, u.shape, u.dtype)
    slope = u.clamp(0, 1).ceil()  # a comparison, u > 0, would lose what is no number
    return grad_y * slope


def swiglu_forward(
    u: Float[Tensor, "*any two_M"],
) -> tuple[Float[Tensor, "*any M"], Float[Tensor, "*any two_M"]]:
    """SiLU of the first half, the gate, times the second half."""
    gate, value = u.chunk(2, dim=-1)
    return gate * torch.sigmoid(gate) * value, u


def swiglu_backward(
    grad_y: Float[Tensor, "*any M"], u: Float[Tensor, "*any two_M"]
) -> Float[Tensor, "*any two_M"]:
    """The gradient of the input."""
    gate, value = u.chunk(2, dim=-1)
    check_cotangent(grad_y, gate.shape, u.dtype)
    open_part = torch.sigmoid(gate)
    slope = (1 - open_part).mul_(gate).add_(1).mul_(open_part)
    return torch.cat([grad_y * value * slope, grad_y * gate * open_part], dim=-1)


Pair = tuple[Callable[[Tensor], tuple[Tensor, Tensor]], Callable[[Tensor, Tensor], Tensor]]

ACTIVATIONS: Mapping[str, Pair] = MappingProxyType(
    {
        "gelu": (gelu_forward, gelu_backward),
        "gelu_tanh": (gelu_tanh_forward, gelu_tanh_backward),
        "relu": (relu_forward, relu_backward),
        "swiglu": (swiglu_forward, swiglu_backward),
    }
)
"""Forward and backward by name."""


def hidden_width(activation: str, mlp_dim: int) -> int:
    """The width that an activation reads in order to return M: twice as many where it has gates."""
    return 2 * mlp_dim if activation == "swiglu" else mlp_dim


def _torch_swiglu(u: Tensor) -> Tensor:
    gate, value = u.chunk(2, dim=-1)
    return functional.silu(gate) * value


_AUTOGRAD: Mapping[str, Callable[..., Tensor]] = MappingProxyType(
    {
        "gelu": functional.gelu,
        "gelu_tanh": lambda u: functional.gelu(u, approximate="tanh"),
        "relu": functional.relu,
        "swiglu": _torch_swiglu,
    }
)
_DERIVED: Mapping[str, Callable[..., Tensor]] = MappingProxyType(
    {name: derived(*pair) for name, pair in ACTIVATIONS.items()}
)


class Activation(nn.Module):
    """One of the activations.

    Args:
        name: "gelu" (exact), "gelu_tanh", "relu" or "swiglu", which halves the width.
        gradients: "autograd" or "derived".

    Raises:
        ValueError: if either is something else.
    """

    def __init__(self, name: str = "gelu", gradients: str = "autograd") -> None:
        super().__init__()
        self.name = available("activation", name)
        self.gradients = available("gradients", gradients)

    def forward(self, u: Float[Tensor, "*any width"]) -> Float[Tensor, "*any out"]:
        """Apply it to every entry."""
        table: Mapping[str, Any] = _DERIVED if self.gradients == "derived" else _AUTOGRAD
        return table[self.name](u)
