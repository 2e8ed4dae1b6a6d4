"""The classification head: from the pooled vector to one number a class.

    y (B, D)   W (D, K)   z (B, K)      z = y W + b

(Dosovitskiy et al. 2021, §3.1, as fine-tuned.) These are logits; the softmax belongs to the loss.
The head is a linear layer, and its backward pass that layer's. In pre-training the paper puts a
hidden layer before it:

    y h (B, D)      h = tanh(y W_h + b_h)      tanh' = 1 − tanh²

Saved: the output h, in terms of which the slope of tanh is written, and the linear layer's.
"""

from typing import Any, NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from vitlib.config import available
from vitlib.nn import linear
from vitlib.nn.checks import check_cotangent
from vitlib.nn.derived import Unneeded, derived
from vitlib.nn.linear import Linear, Weights, linear_backward, linear_forward

__all__ = [
    "Head",
    "PreLogits",
    "Saved",
    "head_backward",
    "head_forward",
    "pre_logits_backward",
    "pre_logits_forward",
]

head_forward = linear_forward
head_backward = linear_backward
Head = Linear


class Saved(NamedTuple):
    """What the backward pass of the hidden layer needs."""

    fc: linear.Saved
    h: Float[Tensor, "B D"]


def pre_logits_forward(
    y: Float[Tensor, "B D"], weight: Float[Tensor, "D D"], bias: Float[Tensor, " D"]
) -> tuple[Float[Tensor, "B D"], Saved]:
    """The hidden layer of an MLP head."""
    h, saved = linear_forward(y, weight, bias)
    h = h.tanh()
    return h, Saved(saved, h)


def pre_logits_backward(
    grad_h: Float[Tensor, "B D"], saved: Saved, needed: tuple[Any, ...] = linear.ALL
) -> tuple[
    Float[Tensor, "B D"] | Unneeded, Float[Tensor, "D D"] | Unneeded, Float[Tensor, " D"] | Unneeded
]:
    """The gradients of input, weight and bias."""
    check_cotangent(grad_h, saved.h.shape, saved.h.dtype)
    return linear_backward(grad_h * (1 - saved.h.square()), saved.fc, needed)


pre_logits = derived(pre_logits_forward, pre_logits_backward)


class PreLogits(nn.Module):
    """The hidden layer of an MLP head, with timm's parameter `fc`.

    Args:
        dim: D.
        gradients: "autograd" or "derived".

    Raises:
        ValueError: if `gradients` is something else.
    """

    def __init__(self, dim: int, gradients: str = "autograd") -> None:
        super().__init__()
        self.gradients = available("gradients", gradients)
        self.fc = Linear(dim, dim)

    def weights(self) -> Weights:
        """The weights as `pre_logits_forward` takes them."""
        return self.fc.weights()

    def forward(self, y: Float[Tensor, "B D"]) -> Float[Tensor, "B D"]:
        """Apply the layer and the hyperbolic tangent."""
        return pre_logits(y, *self.weights(), gradients=self.gradients)
