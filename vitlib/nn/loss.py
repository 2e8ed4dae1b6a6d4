"""The cross-entropy of logits and a target: how wrong is the model's distribution?

    z (B, K)   targets: labels (B), from 0 to K − 1, or rows y (B, K)   ℓ a number

    p = softmax(z)      y' = (1 − λ) y + λ/K      ℓ = −(1/B) Σ_b Σ_k y'_bk log p_bk

A label is the row y of zeros and a single one. Label smoothing λ (Szegedy et al. 2016, section 7)
moves a part of the target to all classes alike. Rows may be anything: mixtures of two labels,
probabilities of a teacher, numbers that do not sum to one. The gradients, derived in
`learning/loss`, with s the sum of a row of y':

    ∂ℓ/∂z = (s p − y') / B      ∂ℓ/∂y = −(1 − λ) log p / B

The logarithm of p is taken before p itself: with m the row's largest logit it is
z − m − log Σ exp(z − m), which neither overflows nor takes the logarithm of zero. Saved: log p and
the targets.
"""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int, Integer
from torch import Tensor, nn
from torch.nn import functional

from vitlib.config import available
from vitlib.nn.checks import check_cotangent, check_floating
from vitlib.nn.derived import Unneeded, derived
from vitlib.nn.precision import widen

Targets = Int[Tensor, " B"] | Float[Tensor, "B K"]


class Saved(NamedTuple):
    """What the backward pass of the cross-entropy needs."""

    log_p: Float[Tensor, "B K"]
    targets: Targets
    label_smoothing: float


def cross_entropy_forward(
    logits: Float[Tensor, "B K"], targets: Targets, label_smoothing: float = 0.0
) -> tuple[Float[Tensor, ""], Saved]:
    """The mean over the batch of −Σ_k y'_k log p_k."""
    shifted = logits - logits.amax(dim=-1, keepdim=True)
    log_p = shifted - shifted.exp().sum(dim=-1, keepdim=True).log()
    if targets.is_floating_point():
        agreement = (targets * log_p).sum(dim=-1)
    else:
        agreement = log_p.gather(-1, targets[:, None])[:, 0]
    if label_smoothing > 0:
        agreement = (1 - label_smoothing) * agreement + label_smoothing * log_p.mean(dim=-1)
    return -agreement.mean(), Saved(log_p, targets, label_smoothing)


def cross_entropy_backward(
    grad_loss: Float[Tensor, ""], saved: Saved, needed: tuple[Any, ...] = (True, True)
) -> Float[Tensor, "B K"] | tuple[Float[Tensor, "B K"], Float[Tensor, "B K"] | Unneeded]:
    """The gradient of the logits; for rows as targets, the gradients of logits and targets."""
    log_p, targets, label_smoothing = saved
    check_cotangent(grad_loss, (), torch.promote_types(log_p.dtype, targets.dtype))
    (batch, classes), soft = log_p.shape, targets.is_floating_point()
    y = targets if soft else torch.zeros_like(log_p).scatter_(-1, targets[:, None], 1)
    y = (1 - label_smoothing) * y + label_smoothing / classes
    each = grad_loss / batch
    grad_logits = each * (y.sum(dim=-1, keepdim=True) * log_p.exp() - y)
    if not soft:
        return grad_logits
    return grad_logits, each * (label_smoothing - 1) * log_p if needed[1] else None


_derived = derived(cross_entropy_forward, cross_entropy_backward)


def cross_entropy(
    logits: Float[Tensor, "B K"],
    targets: Integer[Tensor, " B"] | Float[Tensor, "B K"],
    label_smoothing: float = 0.0,
    gradients: str = "autograd",
) -> Float[Tensor, ""]:
    """The mean cross-entropy of a batch, in float32 if the logits are narrower.

    Args:
        logits: (B, K), before any softmax.
        targets: labels (B), integers from 0 to K − 1, or a row of K numbers for each image (B, K).
        label_smoothing: λ, the part of each target that is given to all classes alike.
        gradients: "autograd" or "derived".

    Raises:
        ValueError: if shapes do not fit, λ is not between 0 and 1, or a label is outside the
            classes. On an accelerator, which reports errors late, such a label is left to PyTorch.
        TypeError: if logits are integers, labels are not, or λ is no number.
    """
    check_floating("cross_entropy", logits)
    check_targets(logits, targets)
    check_label_smoothing(label_smoothing)
    logits = widen(logits)
    targets = targets if targets.is_floating_point() else targets.long()
    try:
        if available("gradients", gradients) == "derived":
            return _derived(logits, targets, label_smoothing)
        return functional.cross_entropy(
            logits,
            targets,
            # PyTorch would leave out images labelled −100; here no label stands for "none"
            ignore_index=torch.iinfo(torch.int64).min,
            label_smoothing=label_smoothing,
        )
    except (IndexError, RuntimeError) as error:
        explain_labels(targets, logits.shape[1], error)
        raise


class CrossEntropyLoss(nn.Module):
    """`cross_entropy` as a module.

    Args:
        label_smoothing: λ, from 0 to 1.
        gradients: "autograd" or "derived".

    Raises:
        ValueError: if either is something else.
        TypeError: if λ is no number.
    """

    def __init__(self, label_smoothing: float = 0.0, gradients: str = "autograd") -> None:
        super().__init__()
        check_label_smoothing(label_smoothing)
        self.label_smoothing = label_smoothing
        self.gradients = available("gradients", gradients)

    def forward(
        self,
        logits: Float[Tensor, "B K"],
        targets: Integer[Tensor, " B"] | Float[Tensor, "B K"],
    ) -> Float[Tensor, ""]:
        """The mean cross-entropy of a batch."""
        return cross_entropy(logits, targets, self.label_smoothing, self.gradients)


def check_label_smoothing(label_smoothing: object) -> None:
    """Refuse what cannot be a part of the target.

    Args:
        label_smoothing: λ.

    Raises:
        ValueError: if it is not between 0 and 1.
        TypeError: if it is no number.
    """
    if not isinstance(label_smoothing, int | float):
        raise TypeError(f"label_smoothing is {label_smoothing!r}: expected a number from 0 to 1.")
    if not 0 <= label_smoothing <= 1:
        raise ValueError(
            f"label_smoothing is {label_smoothing:g}: expected a part of the target, 0 to 1."
        )


def check_targets(logits: Tensor, targets: Tensor) -> None:
    """Refuse targets that are neither a label nor a row for each image.

    Args:
        logits: (B, K).
        targets: labels (B) or rows (B, K).

    Raises:
        ValueError: if shapes do not fit.
        TypeError: if labels are no integers, or rows are.
    """
    if logits.ndim != 2 or targets.shape not in (logits.shape, logits.shape[:1]):
        raise ValueError(
            f"logits {tuple(logits.shape)} and targets {tuple(targets.shape)} do not fit: expected "
            "(B, K) and one label (B,) or one row (B, K) an image."
        )
    labels = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
    if targets.ndim == 1 and targets.dtype not in labels:
        raise TypeError(f"labels are {targets.dtype}: expected integers from 0 to K − 1.")
    if targets.ndim == 2 and not targets.is_floating_point():
        raise TypeError(f"rows of targets are {targets.dtype}: expected floating-point numbers.")


def explain_labels(targets: Tensor, classes: int, error: Exception) -> None:
    """Say which label PyTorch could not find among the classes, if that is what failed.

    Args:
        targets: labels (B) or rows (B, K).
        classes: K.
        error: what PyTorch said.

    Raises:
        ValueError: if a label is outside the classes.
    """
    outside = targets[(targets < 0) | (targets >= classes)]
    if not targets.is_floating_point() and len(outside):
        raise ValueError(
            f"label {outside[0].item()} is outside the model's {classes} classes: expected 0 to "
            f"{classes - 1}."
        ) from error
