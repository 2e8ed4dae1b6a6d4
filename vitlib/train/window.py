"""Loss and accuracy of the steps since the last line of the log, kept on the device."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vitlib.train.processes import Processes


@dataclass(frozen=True)
class Means:
    """What a window says.

    Attributes:
        loss: Mean over the images, in nats.
        accuracy: Part of the images told rightly.
    """

    loss: float
    accuracy: float


class Window:
    """Sums over steps. Nothing here waits for the device but `close` and `failed`.

    Args:
        device: Where the sums are.

    Attributes:
        sums: Loss, right answers, images.
        last: Loss of the images that were counted last.
    """

    def __init__(self, device: torch.device) -> None:
        self.sums = torch.zeros(3, dtype=torch.float64, device=device)
        self.last = torch.zeros((), device=device)
        self._failed = torch.full((), -1, device=device)

    def add(
        self,
        step: int,
        loss: Float[Tensor, ""],
        logits: Float[Tensor, "b K"],
        labels: Int[Tensor, " b"],
    ) -> None:
        """Count images of a step.

        Args:
            step: Which step, from 0.
            loss: Mean over these images.
            logits: Theirs.
            labels: Theirs, before any mixing.
        """
        self.last = loss = loss.detach()
        images = len(labels)
        right = (logits.detach().argmax(1) == labels).sum()
        self.sums += torch.stack([loss * images, right, torch.full_like(loss, images)]).double()
        self.check(step, loss)

    def check(self, step: int, number: Float[Tensor, ""]) -> None:
        """Remember a step whose loss, or whose gradient's norm, is no finite number."""
        self._failed = torch.where((self._failed < 0) & ~number.isfinite(), step, self._failed)

    def failed(self) -> int | None:
        """The first step that had to be remembered."""
        step = int(self._failed)
        return None if step < 0 else step

    def close(self, us: Processes) -> Means:
        """The means over all processes; the sums begin anew."""
        loss, right, images = us.sum(self.sums.clone()).tolist()
        self.sums.zero_()
        return Means(loss / images, right / images)
