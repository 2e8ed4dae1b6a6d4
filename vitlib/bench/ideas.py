"""What each idea is worth: one switched on after the other, against plain autograd.

    vitlib bench ideas

The same three models as in `vitlib bench step`, of vitlib alone, timed in turn:

    autograd, all tokens        PyTorch's graph, every block for all tokens
    autograd                    the last block for the class token alone
    derived, all tokens         as the chapters derive it (`vitlib.fast.readable`)
    derived, as in the chapters the last block for the class token alone
    derived, without oneDNN     in its fast form, with the products of all others
    derived                     in its fast form

Each of them with the C library as it is, and told to keep what is freed (`vitlib.train.heap`).
"""

import statistics
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from vitlib import fast
from vitlib.bench.meter import Kind, Step, check_rounds
from vitlib.bench.models import SIZES, Size
from vitlib.bench.outcome import Quartiles, quartiles
from vitlib.bench.step import times
from vitlib.nn.vit import VisionTransformer
from vitlib.study.stored import about, store
from vitlib.train.heap import kept

PLAIN = "autograd, all tokens"
"""What all others are compared with, in the same state of the C library."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What was measured of one form.

    Attributes:
        size: Key of `vitlib.bench.models.SIZES`.
        form: Its name.
        memory_kept: Whether the C library keeps what is freed.
        training: Milliseconds of a step, the median.
        inference: The same of a forward pass.
        training_ratio: How many times as fast as plain autograd, quartiles.
        inference_ratio: The same of a forward pass.
        held: Bytes between forward and backward.
    """

    size: str
    form: str
    memory_kept: bool
    training: float
    inference: float
    training_ratio: Quartiles
    inference_ratio: Quartiles
    held: int


@contextmanager
def without_onednn() -> Generator[None]:
    """Let PyTorch multiply by its own products alone."""
    onednn: Any = torch.backends.mkldnn  # whose types do not say that the switch is True or False
    before = onednn.enabled
    onednn.enabled = False
    try:
        yield
    finally:
        onednn.enabled = before


class Formed(Step):
    """A step in one form.

    Args:
        size: Of the model.
        gradients: Of the model.
        whole: Whether all tokens pass the last block.
        within: Makes the context in which it is computed.
    """

    def __init__(
        self,
        size: Size,
        gradients: str,
        whole: bool = False,
        within: Callable[[], Any] = nullcontext,
    ) -> None:
        torch.manual_seed(0)
        config = replace(size.config, gradients=gradients)
        model = VisionTransformer(config)
        if whole:  # somebody looks at it
            model.blocks[-1].register_forward_hook(lambda *_: None)
        images = torch.randn(size.batch, config.in_channels, *config.image_shape)
        super().__init__(model, images, torch.randint(config.num_classes, (size.batch,)))
        self._within = within

    def seconds(self, kind: Kind) -> float:
        """How long training or inference takes, once, in this form."""
        with self._within():
            return super().seconds(kind)

    def memory(self) -> tuple[int, int]:
        """Bytes held between forward and backward, and at the peak of a step, in this form."""
        with self._within():
            return super().memory()


def forms(size: Size) -> dict[str, Formed]:
    """All forms by their names."""
    return {
        PLAIN: Formed(size, "autograd", whole=True),
        "autograd": Formed(size, "autograd"),
        "derived, all tokens": Formed(size, "derived", whole=True, within=fast.readable),
        "derived, as in the chapters": Formed(size, "derived", within=fast.readable),
        "derived, without oneDNN": Formed(size, "derived", within=without_onednn),
        "derived": Formed(size, "derived"),
    }


def measure(name: str, rounds: int, memory_kept: bool) -> Iterator[Outcome]:
    """What comes of each form of one size.

    Args:
        name: Key of `vitlib.bench.models.SIZES`.
        rounds: How many count.
        memory_kept: Whether the C library keeps what is freed.
    """
    steps = forms(SIZES[name])
    with kept() if memory_kept else nullcontext():
        taken = times(list(steps.values()), rounds)
    plain = list(steps).index(PLAIN)

    def against_plain(kind: Kind, place: int) -> Quartiles:
        pairs = zip(taken[kind][plain], taken[kind][place], strict=True)
        return quartiles([slow / own for slow, own in pairs])

    for place, (form, step) in enumerate(steps.items()):
        yield Outcome(
            size=name,
            form=form,
            memory_kept=memory_kept,
            training=round(1e3 * statistics.median(taken["training"][place]), 2),
            inference=round(1e3 * statistics.median(taken["inference"][place]), 2),
            training_ratio=against_plain("training", place),
            inference_ratio=against_plain("inference", place),
            held=step.memory()[0],
        )


def main(folder: Path, rounds: int, compiled: bool) -> None:
    """Measure all sizes; leave ideas.json in a folder.

    Args:
        folder: Made if it is not there.
        rounds: How many count, 2 or more.
        compiled: Nothing is compiled here.

    Raises:
        ValueError: There are too few rounds for quartiles.
        OSError: The folder cannot be written.
    """
    check_rounds(rounds)
    outcomes = (
        outcome
        for name in SIZES
        for memory_kept in (False, True)
        for outcome in measure(name, rounds, memory_kept)
    )
    store(folder / "ideas.json", about("bench ideas", rounds=rounds), outcomes)
