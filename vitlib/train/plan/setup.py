"""A run, as far as its cost depends on it."""

from dataclasses import dataclass
from functools import cached_property
from math import ceil, prod

import torch

from vitlib.config import ViTConfig
from vitlib.nn.vit import VisionTransformer
from vitlib.train.optimiser import OptimiserName, parameter_groups
from vitlib.train.plan.activations import NARROW, WIDE, Narrowing
from vitlib.train.plan.devices import CPU, Device
from vitlib.train.processes import Parallel


@dataclass(frozen=True, kw_only=True)
class Setup:
    """A run, as far as its cost depends on it.

    Attributes:
        config: The model.
        device: Of each process.
        batch_size: Images in each step, over all processes and parts.
        epochs: Passes over the training images.
        train_count: Training images.
        accumulate: Parts that a process works through one after the other.
        optimiser: "adamw" or "muon".
        ema: Decay of the weights' moving average; 0 for none.
        precision: "float32", "tf32", "bfloat16" or "float16".
        parallel: "ddp" or "fsdp".
        recompute: Whether blocks are computed again for the backward pass.
        workers: Processes that decode images for each process.
        decoding: Images a second that one of them decodes; 0 where images are in memory.
        devices: Processes, one a device.
        nodes: Computers that the devices are in.
        network: Gbit/s of each node, one way.
        share: Attainable part of the peak rate of matrix products.
    """

    config: ViTConfig
    device: Device
    batch_size: int
    epochs: int
    train_count: int
    accumulate: int
    optimiser: OptimiserName
    ema: float
    precision: str
    parallel: Parallel
    recompute: bool
    workers: int
    decoding: float
    devices: int
    nodes: int
    network: float
    share: float

    @property
    def images(self) -> int:
        """Of one process in one part of a step."""
        return self.batch_size // (self.devices * self.accumulate)

    @property
    def steps(self) -> int:
        """Of the whole run; what is left of an epoch after its last whole batch is left out."""
        return self.epochs * (self.train_count // self.batch_size)

    @property
    def sharded(self) -> bool:
        """Whether each process holds a part of each weight. One process alone holds all."""
        return self.parallel == "fsdp" and self.devices > 1

    @property
    def width(self) -> int:
        """Bytes of a number in the matrix products."""
        return NARROW if self.precision in ("bfloat16", "float16") else WIDE

    @property
    def narrowing(self) -> Narrowing:
        """Who makes numbers narrow."""
        if self.width == WIDE:
            return "none"
        return "policy" if self.sharded else "autocast"

    @property
    def decoders(self) -> int:
        """Processes that decode images for one that trains, itself if there is no other."""
        return max(self.workers, 1)

    @property
    def link(self) -> float:
        """Bytes a second that a ring through all processes passes on, by its slowest link."""
        network, inside = self.network * 1e9 / 8, self.device.link
        if inside is None:
            return network
        return inside if self.nodes == 1 else min(inside, network)

    @property
    def on_cpu(self) -> bool:
        """Whether the device is a processor."""
        return self.device.name == CPU

    @cached_property
    def model(self) -> VisionTransformer:
        """The model without memory: names and shapes."""
        with torch.device("meta"):
            return VisionTransformer(self.config)

    @cached_property
    def parts(self) -> dict[str, int]:
        """The weights that Muon moves, and how many matrices each packs."""
        if self.optimiser != "muon":
            return {}
        groups = parameter_groups(self.model, 0.0, hidden_apart=True)
        found = {
            id(p): group["parts"] for group in groups if "parts" in group for p in group["params"]
        }
        return {name: found[id(p)] for name, p in self.model.named_parameters() if id(p) in found}

    def held(self, shape: tuple[int, ...]) -> int:
        """How many numbers of a tensor a process holds: FSDP2 pads rows to a multiple of N."""
        rows, *rest = shape
        return (ceil(rows / self.devices) if self.sharded else rows) * prod(rest)

    def held_by_group(self) -> tuple[int, list[int]]:
        """The numbers that a process holds of the layers outside the blocks, and of each block."""
        inner = [0] * self.config.depth
        outer = 0
        for name, parameter in self.model.named_parameters():
            if name.startswith("blocks."):
                inner[int(name.split(".")[1])] += self.held(tuple(parameter.shape))
            else:
                outer += self.held(tuple(parameter.shape))
        return outer, inner
