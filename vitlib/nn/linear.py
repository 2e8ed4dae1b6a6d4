"""The linear layer, Y = X W + b.

    X (*, D_in)   W (D_in, D_out)   b (D_out)   Y (*, D_out)

PyTorch stores `weight` = W⊤, of shape (D_out, D_in). The gradients, derived in `start/gradients`,
with the sums running over all tokens of all images:

    ∂ℓ/∂X = ∂ℓ/∂Y W⊤      ∂ℓ/∂W = X⊤ ∂ℓ/∂Y      ∂ℓ/∂b = Σ ∂ℓ/∂Y

Saved: the input, since ∂ℓ/∂W needs it. Cost: one matrix product forward, two backward.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from vitlib.config import available
from vitlib.nn.checks import check_cotangent
from vitlib.nn.derived import Unneeded, derived

Weights = tuple[Tensor, Tensor | None]
"""The stored weight and the bias of a linear layer."""
Gradients = tuple[Tensor | Unneeded, Tensor | Unneeded]
"""Of weight and bias."""
NONE: Gradients = (None, None)
"""Of weight and bias, where nothing is needed."""
ALL = (True, True, True)
"""Input, weight and bias: the gradients that are needed."""


def layer(parameters: Mapping[str, Tensor], name: str) -> tuple[Tensor, Any]:
    """The weight of a layer in a dictionary keyed like the state dict, and its bias or None."""
    return parameters[f"{name}.weight"], parameters.get(f"{name}.bias")


class Saved(NamedTuple):
    """What the backward pass of a linear layer needs."""

    x: Float[Tensor, "*batch D_in"]
    weight: Float[Tensor, "D_out D_in"]
    has_bias: bool


def linear_forward(
    x: Float[Tensor, "*batch D_in"],
    weight: Float[Tensor, "D_out D_in"],
    bias: Float[Tensor, " D_out"] | None = None,
) -> tuple[Float[Tensor, "*batch D_out"], Saved]:
    """Y = X W + b."""
    y = x @ weight.mT
    if bias is not None:
        y = y + bias
    return y, Saved(x, weight, bias is not None)


def linear_backward(
    grad_y: Float[Tensor, "*batch D_out"], saved: Saved, needed: tuple[Any, ...] = ALL
) -> tuple[
    Float[Tensor, "*batch D_in"] | Unneeded,
    Float[Tensor, "D_out D_in"] | Unneeded,
    Float[Tensor, " D_out"] | Unneeded,
]:
    """The gradients of input, weight and bias."""
    x, weight, has_bias = saved
    check_cotangent(grad_y, (*x.shape[:-1], len(weight)), x.dtype)
    rows_x = x.reshape(-1, x.shape[-1])
    rows_grad = grad_y.reshape(-1, grad_y.shape[-1])
    grad_x = grad_y @ weight if needed[0] else None
    grad_weight = rows_grad.mT @ rows_x if needed[1] else None
    grad_bias = rows_grad.sum(0) if has_bias and needed[2] else None
    return grad_x, grad_weight, grad_bias


linear = derived(linear_forward, linear_backward)


class Linear(nn.Linear):
    """A linear layer, trained by its derivation or by autograd.

    Args:
        in_features: D_in.
        out_features: D_out.
        bias: whether there is one.
        gradients: "autograd" or "derived".

    Raises:
        ValueError: if `gradients` is something else.
    """

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, gradients: str = "autograd"
    ) -> None:
        super().__init__(in_features, out_features, bias)
        self.gradients = available("gradients", gradients)

    def weights(self) -> Weights:
        """The weights as `linear_forward` takes them."""
        return self.weight, self.bias

    def forward(self, input: Float[Tensor, "*batch D_in"]) -> Float[Tensor, "*batch D_out"]:
        """Apply the layer to the last axis."""
        apply = linear if self.gradients == "derived" else functional.linear
        return apply(input, self.weight, self.bias)
