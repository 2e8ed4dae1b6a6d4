"""What a run changes: the model, the optimisers' memory, the moving average, the loss's scale."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.tensor import DTensor

from vitlib.train.checkpoint import Checkpoint
from vitlib.train.ema import Ema
from vitlib.weights import plain_name

_SCALE = 2.0**16  # with which a scaler begins
_FLAT = StateDictOptions(flatten_optimizer_state_dict=True)


class Trainee:
    """Everything of a run that is made of tensors, by name, so that it can be saved and go on.

    Names are those of the plain model, however it is wrapped, and tensors that are divided among
    processes stay divided.

    Args:
        model: As it is trained: compiled, in DDP, sharded.
        optimisers: Of its parameters.
        ema: The moving average, if there is one.
        scaler: Of the loss. One that is not enabled is saved as if it were new, so that a run may
            go on in float16.
    """

    def __init__(
        self,
        model: nn.Module,
        optimisers: tuple[torch.optim.Optimizer, ...],
        ema: Ema | None,
        scaler: torch.amp.GradScaler,
    ) -> None:
        self.model, self.optimisers, self.ema, self.scaler = model, optimisers, ema, scaler

    def tensors(self) -> dict[str, Tensor]:
        """All of it, by the names of the plain model."""
        named = {f"model.{name}": tensor for name, tensor in self._weights().items()}
        named |= {f"optimiser.{name}": tensor for name, tensor in self._memory().items()}
        if self.ema is not None:
            averages = self.ema.state_dict().items()
            named |= {f"ema.{plain_name(name)}": tensor for name, tensor in averages}
        state = self.scaler.state_dict()
        scale, growth = state.get("scale", _SCALE), float(state.get("_growth_tracker", 0))
        named["scaler"] = torch.tensor([scale, growth])
        return named

    def restore(self, checkpoint: Checkpoint, more: Mapping[str, Tensor]) -> None:
        """Take everything, and `more` tensors, from a checkpoint.

        Raises:
            ValueError: The checkpoint is of another model or optimiser.
        """
        named = self.tensors()
        checkpoint.load({**named, **more})
        memory: dict[str, Any] = dict(self._optimisers_state())
        memory |= {
            name.removeprefix("optimiser."): tensor
            for name, tensor in named.items()
            if name.startswith("optimiser.")
        }
        set_optimizer_state_dict(self.model, self.optimisers, memory, options=_FLAT)
        if self.scaler.is_enabled():
            scale, growth = named["scaler"].tolist()
            state = self.scaler.state_dict()
            self.scaler.load_state_dict({**state, "scale": scale, "_growth_tracker": int(growth)})

    def result(self) -> dict[str, Tensor]:
        """The weights to test and to keep, whole in every process: the average if there is one."""
        weights = self._weights() if self.ema is None else self.ema.state_dict()
        return {
            name: tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
            for name, tensor in weights.items()
        }

    def _weights(self) -> dict[str, Tensor]:
        return {n: t for n, t in get_model_state_dict(self.model).items() if isinstance(t, Tensor)}

    def _memory(self) -> dict[str, Tensor]:
        # settings such as the learning rate stand beside the tensors; the recipe has them
        return {name: v for name, v in self._optimisers_state().items() if isinstance(v, Tensor)}

    def _optimisers_state(self) -> dict[str, Any]:
        return get_optimizer_state_dict(self.model, self.optimisers, options=_FLAT)
