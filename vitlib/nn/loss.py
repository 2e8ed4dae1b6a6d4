"""The cross-entropy of the true class.

    z (B, K)   labels (B), from 0 to K − 1   ℓ a number

    p = softmax(z)      ℓ = −(1/B) Σ_b log p_{b, label of b}

With the label written as a row y of zeros and a single one, ∂ℓ/∂z = (p − y) / B. The logarithm of a
softmax is z − logsumexp(z), which neither overflows nor takes the logarithm of zero. Saved: p.
"""

from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float, Int, Integer
from torch import Tensor, nn
from torch.nn import functional

from vitlib.config import available
from vitlib.nn.derived import derived


class Saved(NamedTuple):
    """What the backward pass of the cross-entropy needs."""

    p: Float[Tensor, "B K"]
    labels: Int[Tensor, " B"]


def cross_entropy_forward(
    logits: Float[Tensor, "B K"], labels: Int[Tensor, " B"]
) -> tuple[Float[Tensor, ""], Saved]:
    """The mean over the batch of −log p of the true class."""
    log_p = logits - logits.logsumexp(dim=-1, keepdim=True)
    loss = -log_p.gather(-1, labels[:, None]).mean()
    return loss, Saved(log_p.exp(), labels)


def cross_entropy_backward(grad_loss: Float[Tensor, ""], saved: Saved) -> Float[Tensor, "B K"]:
    """The gradient of the logits."""
    p, labels = saved
    one_hot = torch.zeros_like(p).scatter_(-1, labels[:, None], 1)
    return grad_loss * (p - one_hot) / len(p)


_derived = derived(cross_entropy_forward, cross_entropy_backward)
# PyTorch would leave out images labelled −100; here no label stands for "none"
_autograd = partial(functional.cross_entropy, ignore_index=torch.iinfo(torch.int64).min)


def cross_entropy(
    logits: Float[Tensor, "B K"], labels: Integer[Tensor, " B"], gradients: str = "autograd"
) -> Float[Tensor, ""]:
    """The mean cross-entropy of the labels.

    Args:
        logits: (B, K), before any softmax.
        labels: (B), integers from 0 to K − 1.
        gradients: "autograd" or "derived".

    Raises:
        ValueError: if shapes do not fit, or a label is outside the classes. On an accelerator,
            which reports errors late, such a label is left to PyTorch.
        TypeError: if the labels are not integers.
    """
    if logits.ndim != 2 or labels.shape != logits.shape[:1]:
        raise ValueError(
            f"logits {tuple(logits.shape)} and labels {tuple(labels.shape)} do not fit: expected "
            "(B, K) and (B,), one label an image."
        )
    if labels.dtype not in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8):
        raise TypeError(f"labels are {labels.dtype}: expected integers from 0 to K − 1.")
    labels, classes = labels.long(), logits.shape[-1]
    apply = _derived if available("gradients", gradients) == "derived" else _autograd
    try:
        return apply(logits, labels)
    except (IndexError, RuntimeError) as error:
        outside = labels[(labels < 0) | (labels >= classes)]
        if len(outside) == 0:
            raise
        raise ValueError(
            f"label {outside[0].item()} is outside the model's {classes} classes: expected 0 to "
            f"{classes - 1}."
        ) from error


class CrossEntropyLoss(nn.Module):
    """`cross_entropy` as a module.

    Args:
        gradients: "autograd" or "derived".

    Raises:
        ValueError: if `gradients` is something else.
    """

    def __init__(self, gradients: str = "autograd") -> None:
        super().__init__()
        self.gradients = available("gradients", gradients)

    def forward(
        self, logits: Float[Tensor, "B K"], labels: Integer[Tensor, " B"]
    ) -> Float[Tensor, ""]:
        """The mean cross-entropy of the labels."""
        return cross_entropy(logits, labels, self.gradients)
