"""How good a model is on images that it has not seen."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class Evaluation:
    """What a test found.

    Attributes:
        images: How many there were.
        correct: For how many the class with the largest logit is the label.
        loss: Mean cross-entropy, in nats.
    """

    images: int
    correct: int
    loss: float

    @property
    def accuracy(self) -> float:
        """Correct / images."""
        return self.correct / self.images


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    images: Float[Tensor, "n C height width"],
    labels: Int[Tensor, " n"],
    *,
    batch_size: int = 1024,
) -> Evaluation:
    """Loss and accuracy of a model in eval mode; the mode it was in is restored.

    Args:
        model: Images to logits.
        images: As the model takes them: normalised, on its device.
        labels: 0 to K − 1, on the same device.
        batch_size: Images at a time; decides memory and speed, not the result.
    """
    was_training = model.training
    model.eval()
    correct, loss = 0, 0.0
    for some_images, some_labels in zip(
        images.split(batch_size), labels.split(batch_size), strict=True
    ):
        logits = model(some_images).float()
        correct += int((logits.argmax(1) == some_labels).sum())
        loss += float(functional.cross_entropy(logits, some_labels, reduction="sum"))
    model.train(was_training)
    return Evaluation(images=len(labels), correct=correct, loss=loss / len(labels))
