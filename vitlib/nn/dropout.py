"""Dropout: during training, numbers drawn by lot are set to zero, and the others grow in return.

    X Y (*)   M (*) of zeros and ones, or a shape that broadcasts   ρ a rate in [0, 1)

    Y = X ⊙ M / (1 − ρ)

(Srivastava et al. 2014, §10.) Each number survives with probability 1 − ρ, so the mean of Y over
the masks is X, and when the model is used nothing is dropped. One mask entry for a whole image, of
shape (B, 1, 1), drops the image's branch from a residual sum: "drop path" or stochastic depth
(Huang et al. 2016).

The mask is drawn outside and handed in, so the pair is a function like any other, linear in X, and
both kinds of gradients see the same mask. Backward: the same mask and factor. Saved: the mask, one
byte a number.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vitlib.nn.derived import derived


class Drop(NamedTuple):
    """What is dropped, and how often such a thing is."""

    mask: Bool[Tensor, "*any"]
    rate: float


def draw(shape: tuple[int, ...], rate: float, device: torch.device) -> Drop | None:
    """A mask for numbers of this shape, from the device's default generator; None at rate 0."""
    return Drop(torch.rand(shape, device=device) >= rate, rate) if rate else None


def dropout_forward(
    x: Float[Tensor, "*any"], drop: Drop | None
) -> tuple[Float[Tensor, "*any"], Drop | None]:
    """Apply a mask; None leaves everything as it is."""
    return (x if drop is None else x * drop.mask / (1 - drop.rate)), drop


def dropout_backward(grad_y: Float[Tensor, "*any"], drop: Drop | None) -> Float[Tensor, "*any"]:
    """The gradient of the input."""
    return grad_y if drop is None else grad_y * drop.mask / (1 - drop.rate)


dropout = derived(dropout_forward, dropout_backward)
