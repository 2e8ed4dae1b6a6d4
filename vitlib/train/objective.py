"""What a run makes small: one question for all classes together, or one for each.

    softmax    which class is it?               cross-entropy            vitlib.nn.loss
    sigmoid    of each class: is it there?      binary cross-entropy     vitlib.nn.sigmoid_loss

Of a mixture of images (`vitlib.data.mixing`) the softmax is asked for the parts, the sigmoids for
what is there at all: a class of which the mixture holds any part counts whole. So do "ResNet
strikes back" (Wightman, Touvron and Jégou 2021) and DeiT III (Touvron, Cord and Jégou 2022, whose
code trains on `targets.gt(0.0)`).

Tests, validation and predictions take the softmax of the logits, whichever it was, as DeiT III's
tests do: the loss of a test can then be compared with any other's, but not with a sigmoid's in
training.
"""

import math
from typing import Literal

from jaxtyping import Float, Integer
from torch import Tensor

from vitlib.nn.loss import cross_entropy
from vitlib.nn.sigmoid_loss import binary_cross_entropy

LossName = Literal["softmax", "sigmoid"]


def training_loss(
    name: LossName,
    logits: Float[Tensor, "b K"],
    targets: Integer[Tensor, " b"] | Float[Tensor, "b K"],
    *,
    label_smoothing: float,
    gradients: str,
) -> Float[Tensor, ""]:
    """The loss of some images in training, a mean over them.

    Args:
        name: "softmax" or "sigmoid".
        logits: (b, K).
        targets: Labels (b), or rows (b, K) that say what part of an image belongs to which class.
        label_smoothing: Part of each target that is given to all classes alike; a sigmoid has none.
        gradients: "autograd" or "derived".
    """
    if name == "softmax":
        return cross_entropy(logits, targets, label_smoothing, gradients)
    if targets.is_floating_point():
        targets = (targets > 0).to(targets)
    return binary_cross_entropy(logits, targets, gradients)


def loss_of_ignorance(name: LossName, classes: int) -> float:
    """The loss of a model that knows nothing, and whose logits are all zero.

    A softmax then gives 1/K to each class and loses log K; each sigmoid says ½ and loses log 2.
    """
    return math.log(classes if name == "softmax" else 2)
