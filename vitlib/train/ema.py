"""The exponential moving average (EMA) of the weights.

    θ̄ ← d θ̄ + (1 − d) θ      after each step, with d = min(decay, (1 + t) / (10 + t)) in step t

The weights of a run jump about as long as the learning rate is high; their average does not, and
is often better than any of them (Polyak and Juditsky 1992). A decay d looks back over some
1 / (1 − d) steps. With d = 0.9999 from the start the first weights, which know nothing, would still
be a third of the average after 11,000 steps, more than a short run has. The ramp, TensorFlow's
(`tf.train.ExponentialMovingAverage`), looks back over the last ninth of the steps so far until
that is as long as `decay` says.
"""

from collections.abc import Generator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.optim.swa_utils import get_ema_multi_avg_fn


def ramped(decay: float, step: int) -> float:
    """The decay of one step, from 0: min(decay, (1 + t) / (10 + t))."""
    return min(decay, (1 + step) / (10 + step))


class Ema:
    """The average of a model's weights, in memory of its own beside them.

    PyTorch's `AveragedModel` copies the module, which FSDP2 refuses; this keeps the weights only,
    sharded as the model's are. Frozen weights are among them, and stay what they are to the bit.

    Args:
        model: The model itself, without a wrapper that changes the names of its parameters; after
            `fully_shard`, if that is to be applied.
        decay: Of the average in each step, above 0 and below 1, such as 0.9999.

    Attributes:
        weights: The averages, keyed like the model's state dict.

    Raises:
        ValueError: `decay` lies elsewhere.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        if not 0 < decay < 1:
            raise ValueError(f"ema is {decay:g}: expected a decay above 0 and below 1.")
        self.decay = decay
        self.weights: dict[str, Tensor] = {
            name: weight.detach().clone() for name, weight in model.named_parameters()
        }

    def update(self, model: nn.Module, step: int) -> None:
        """Take in the weights that a step has made.

        Args:
            model: The model that is trained.
            step: Which step it was, from 0.
        """
        average = get_ema_multi_avg_fn(ramped(self.decay, step))
        average(
            list(self.weights.values()), [weight.detach() for weight in model.parameters()], step
        )

    @contextmanager
    def replacing(self, model: nn.Module) -> Generator[None]:
        """Within it, the model has the averages for its weights; after it, its own again.

        The tensors stay where they are and change their contents, so a wrapped or compiled model
        follows, and a second model is not needed.
        """
        self._swap(model)
        try:
            yield
        finally:
            self._swap(model)

    def state_dict(self) -> dict[str, Tensor]:
        """The averages, keyed like the model's state dict; not copies."""
        return dict(self.weights)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from averages that `state_dict` gave.

        Raises:
            ValueError: They are those of another model; then nothing has changed.
        """
        for name, weight in self.weights.items():
            if name not in state or state[name].shape != weight.shape:
                raise ValueError(
                    f"the averaged weights do not fit the model: {name} "
                    f"{'differs in shape' if name in state else 'is missing'}. Use the checkpoint "
                    "of a run with the same model and ema."
                )
        if len(state) > len(self.weights):
            extra = next(name for name in state if name not in self.weights)
            raise ValueError(
                f"the averaged weights do not fit the model: it has no {extra}. Use the checkpoint "
                "of a run with the same model and ema."
            )
        for name, weight in self.weights.items():
            weight.copy_(state[name])

    @torch.no_grad()
    def _swap(self, model: nn.Module) -> None:
        for module in model.modules():
            if isinstance(module, FSDPModule):
                module.reshard()  # after a pass without gradients it still holds whole weights
        for weight, average in zip(model.parameters(), self.weights.values(), strict=True):
            kept = weight.clone()
            weight.copy_(average)
            average.copy_(kept)
