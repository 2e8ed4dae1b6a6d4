"""The binary cross-entropy of logits and a target: is each class there, yes or no?

    z (B, K)   targets: labels (B), from 0 to K − 1, or rows y (B, K)   ℓ a number

    s = sigmoid(z)      ℓ = −1/(B K) Σ_b Σ_k (y_bk log s_bk + (1 − y_bk) log(1 − s_bk))

Each class is asked on its own, so a row may hold several ones, or none. A label is the row of zeros
and a single one. Wightman et al. 2021 ("ResNet strikes back") and Touvron et al. 2022 ("DeiT III")
train with it on mixtures of images. The gradients, derived in `learning/loss`:

    ∂ℓ/∂z = (s − y) / (B K)      ∂ℓ/∂y = −z / (B K)

Both logarithms are taken before s itself: log s = z − log(1 + exp z) and log(1 − s) = −log(1 + exp
z), so that the bracket is y z − log(1 + exp z). That logarithm is max(z, 0) + log(1 + exp(−|z|)),
which does not overflow. Saved: logits and targets.
"""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn
from torch.nn import functional

from vitlib.config import available
from vitlib.nn.checks import check_cotangent, check_floating
from vitlib.nn.derived import Unneeded, derived
from vitlib.nn.loss import Targets, check_targets, explain_labels
from vitlib.nn.precision import widen


class Saved(NamedTuple):
    """What the backward pass of the binary cross-entropy needs."""

    logits: Float[Tensor, "B K"]
    targets: Targets


def binary_cross_entropy_forward(
    logits: Float[Tensor, "B K"], targets: Targets
) -> tuple[Float[Tensor, ""], Saved]:
    """The mean over images and classes of log(1 + exp z) − y z."""
    y = as_rows(targets, logits)
    # in this order: where z is large and y is 1, all that is left is the small logarithm
    each = (logits.clamp(min=0) - y * logits) + torch.exp(-logits.abs()).log1p()
    return each.mean(), Saved(logits, targets)


def binary_cross_entropy_backward(
    grad_loss: Float[Tensor, ""], saved: Saved, needed: tuple[Any, ...] = (True, True)
) -> Float[Tensor, "B K"] | tuple[Float[Tensor, "B K"], Float[Tensor, "B K"] | Unneeded]:
    """The gradient of the logits; for rows as targets, the gradients of logits and targets."""
    logits, targets = saved
    check_cotangent(grad_loss, (), torch.promote_types(logits.dtype, targets.dtype))
    each = grad_loss / logits.numel()
    grad_logits = each * (torch.sigmoid(logits) - as_rows(targets, logits))
    if not targets.is_floating_point():
        return grad_logits
    return grad_logits, -each * logits if needed[1] else None


def as_rows(targets: Targets, logits: Float[Tensor, "B K"]) -> Float[Tensor, "B K"]:
    """Labels as rows of zeros and a single one, in the logits' type; rows as they are."""
    if targets.is_floating_point():
        return targets
    return torch.zeros_like(logits).scatter_(-1, targets[:, None], 1)


_derived = derived(binary_cross_entropy_forward, binary_cross_entropy_backward)


def binary_cross_entropy(
    logits: Float[Tensor, "B K"],
    targets: Integer[Tensor, " B"] | Float[Tensor, "B K"],
    gradients: str = "autograd",
) -> Float[Tensor, ""]:
    """The mean binary cross-entropy of all classes of a batch, in float32 if logits are narrower.

    Args:
        logits: (B, K), before any sigmoid.
        targets: labels (B), integers from 0 to K − 1, or a row of K numbers for each image (B, K).
        gradients: "autograd" or "derived".

    Raises:
        ValueError: if shapes do not fit, or a label is outside the classes. On an accelerator,
            which reports errors late, such a label is left to PyTorch.
        TypeError: if logits are integers, or labels are not.
    """
    check_floating("binary_cross_entropy", logits)
    check_targets(logits, targets)
    logits = widen(logits)
    targets = targets.to(logits) if targets.is_floating_point() else targets.long()
    try:
        if available("gradients", gradients) == "derived":
            return _derived(logits, targets)
        return functional.binary_cross_entropy_with_logits(logits, as_rows(targets, logits))
    except (IndexError, RuntimeError) as error:
        explain_labels(targets, logits.shape[1], error)
        raise


class BinaryCrossEntropyLoss(nn.Module):
    """`binary_cross_entropy` as a module.

    Args:
        gradients: "autograd" or "derived".

    Raises:
        ValueError: if it is something else.
    """

    def __init__(self, gradients: str = "autograd") -> None:
        super().__init__()
        self.gradients = available("gradients", gradients)

    def forward(
        self,
        logits: Float[Tensor, "B K"],
        targets: Integer[Tensor, " B"] | Float[Tensor, "B K"],
    ) -> Float[Tensor, ""]:
        """The mean binary cross-entropy of a batch."""
        return binary_cross_entropy(logits, targets, self.gradients)
