"""What a step takes: time by the clock, memory by what PyTorch allocates.

**Memory held** is what waits between the forward and the backward pass, **peak memory** the most
that is allocated at a time in a step of training; both beside weights, optimiser and batch, which
are there before. Every storage that is made or freed on the CPU is reported to PyTorch's profiler,
whoever makes it. Nothing has to be guessed from what a graph shows: hooks on saved tensors see what
is saved under that name, and nothing of what compiled code keeps.
"""

import time
from collections.abc import Callable
from itertools import accumulate
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile

Kind = Literal["training", "inference"]


class Step:
    """A model with its optimiser and a batch.

    Args:
        model: From images to logits; trained as it is.
        images: (B, C, height, width).
        labels: (B,).
    """

    def __init__(self, model: nn.Module, images: Tensor, labels: Tensor) -> None:
        self.model, self.images, self.labels = model, images, labels
        self.optimiser = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)

    def loss(self) -> Tensor:
        """The forward pass of training."""
        return functional.cross_entropy(self.model(self.images), self.labels)

    def train(self) -> None:
        """Forward, backward, optimiser."""
        self.loss().backward()
        self.optimiser.step()
        self.optimiser.zero_grad()

    def infer(self) -> None:
        """Logits, and nothing for a backward pass."""
        with torch.inference_mode():
            self.model(self.images)

    def seconds(self, kind: Kind) -> float:
        """How long one of the two takes, once; to change the model's mode is not in it."""
        self.model.train(kind == "training")
        return seconds(self.train if kind == "training" else self.infer)

    def memory(self) -> tuple[int, int]:
        """Bytes held between forward and backward, and at the peak of a step."""
        self.seconds("training")  # what is made once, such as the optimiser's averages, is there
        waiting: list[Tensor] = []
        held = sum(allocations(lambda: waiting.append(self.loss())))
        waiting.clear()
        return held, max(accumulate(allocations(self.train)))


def seconds(run: Callable[[], object]) -> float:
    """How long it takes, once."""
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def check_rounds(rounds: int) -> None:
    """Refuse fewer rounds than quartiles need.

    Raises:
        ValueError: There are fewer than two.
    """
    if rounds < 2:
        raise ValueError(f"rounds is {rounds}: expected 2 or more, to have a spread.")


def allocations(run: Callable[[], object]) -> list[int]:
    """The bytes of each storage that is made (above 0) or freed (below 0) on the CPU, in turn."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as report:
        run()
    profiler: Any = report.profiler  # the public list of events leaves out what no op made
    changes = [each for each in profiler.kineto_results.events() if each.name() == "[memory]"]
    return [event.nbytes() for event in sorted(changes, key=lambda event: event.start_ns())]
