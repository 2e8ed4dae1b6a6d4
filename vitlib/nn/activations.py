"""The Gaussian error linear unit, entry by entry.

    U Y (*)      GELU(u) = u Φ(u),   Φ(u) = (1 + erf(u/√2)) / 2

(Hendrycks and Gimpel 2016). Φ is the distribution function of the standard normal distribution and
φ its density, so by the product rule

    GELU'(u) = Φ(u) + u φ(u),   φ(u) = exp(−u²/2) / √(2π)

Saved: the input; Φ is computed again rather than kept. An activation costs little but traffic with
memory, so what is fresh is worked on in place.
"""

import math

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from vitlib.config import available
from vitlib.nn.derived import derived


def gelu_forward(u: Float[Tensor, "*any"]) -> tuple[Float[Tensor, "*any"], Float[Tensor, "*any"]]:
    """GELU(u) = u Φ(u)."""
    return u * _normal_cdf(u), u


def gelu_backward(grad_y: Float[Tensor, "*any"], u: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
    """The gradient of the input."""
    density = u.square().mul_(-0.5).exp_().div_(math.sqrt(2 * math.pi))
    slope = _normal_cdf(u).add_(density.mul_(u))
    return grad_y * slope


def _normal_cdf(u: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
    return (u / math.sqrt(2)).erf_().add_(1).mul_(0.5)


gelu = derived(gelu_forward, gelu_backward)


class GELU(nn.Module):
    """The exact GELU.

    Args:
        gradients: "autograd" or "derived".

    Raises:
        ValueError: if `gradients` is something else.
    """

    def __init__(self, gradients: str = "autograd") -> None:
        super().__init__()
        self.gradients = available("gradients", gradients)

    def forward(self, u: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
        """Apply it to every entry."""
        return gelu(u) if self.gradients == "derived" else functional.gelu(u)
