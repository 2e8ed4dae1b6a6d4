"""LayerScale: every entry of what a branch adds to the stream has a learned factor of its own.

    X Y (*, T, D)   γ (D)      Y = γ ⊙ X

(Touvron et al. 2021, "Going deeper with image transformers", section 2.) The factors start at a
small number, so that a new block hardly changes what passes it, and each branch grows as it comes
to be worth it. The gradients, derived in `encoder/block`, with the sum running over all tokens of
all images:

    ∂ℓ/∂X = γ ⊙ ∂ℓ/∂Y      ∂ℓ/∂γ = Σ ∂ℓ/∂Y ⊙ X

Saved: the input.
"""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vitlib.config import available, check_layer_scale
from vitlib.nn.checks import check_cotangent
from vitlib.nn.derived import Unneeded, derived

ALL = (True, True)
"""Input and factors: the gradients that are needed."""


class Saved(NamedTuple):
    """What the backward pass of LayerScale needs."""

    x: Float[Tensor, "*batch T D"]
    gamma: Float[Tensor, " D"]


def layer_scale_forward(
    x: Float[Tensor, "*batch T D"], gamma: Float[Tensor, " D"] | None
) -> tuple[Float[Tensor, "*batch T D"], Saved | None]:
    """Scale each entry of each token; None leaves everything as it is."""
    return (x, None) if gamma is None else (x * gamma, Saved(x, gamma))


def layer_scale_backward(
    grad_y: Float[Tensor, "*batch T D"], saved: Saved | None, needed: tuple[Any, ...] = ALL
) -> tuple[Float[Tensor, "*batch T D"] | Unneeded, Float[Tensor, " D"] | Unneeded]:
    """The gradients of input and factors."""
    if saved is None:
        return grad_y, None
    x, gamma = saved
    check_cotangent(grad_y, x.shape, torch.promote_types(x.dtype, gamma.dtype))
    grad_x = grad_y * gamma if needed[0] else None
    return grad_x, (grad_y * x).flatten(0, -2).sum(0) if needed[1] else None


layer_scale = derived(layer_scale_forward, layer_scale_backward)


class LayerScale(nn.Module):
    """LayerScale, with timm's parameter `gamma`.

    Args:
        dim: D.
        initial: what every factor starts at.
        gradients: "autograd" or "derived".

    Raises:
        ValueError: if `initial` is not above 0 and at most 1, or `gradients` is something else.
        TypeError: if `initial` is no number.
    """

    def __init__(self, dim: int, initial: float, gradients: str = "autograd") -> None:
        super().__init__()
        check_layer_scale(initial)
        self.gradients = available("gradients", gradients)
        self.gamma = nn.Parameter(torch.full((dim,), float(initial)))

    def forward(self, x: Float[Tensor, "*batch T D"]) -> Float[Tensor, "*batch T D"]:
        """Scale each entry of each token."""
        return layer_scale(x, self.gamma, gradients=self.gradients)
