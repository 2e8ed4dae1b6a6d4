"""A step of training and a forward pass, of vitlib and of the libraries beside it.

    vitlib bench step

All contenders are measured in one process and in turn: a round times each of them once, so that
what slows the machine for a while slows them all. Times are medians over rounds. A ratio is taken
within each round, against the fastest peer of the whole measurement, in whichever mode, eager or
compiled, it was faster; its median counts, and the middle half of the rounds is its spread.

Measured are a step of training (forward, backward, fused AdamW), a forward pass in inference mode,
and memory (`vitlib.bench.meter`). All contenders of one size see the same images, and start with
the same weights, where theirs correspond. Peers that are not installed are left out, and so is
compiling where there is no compiler.

The share of the machine's rate goes by the operations of the whole network, also of those who
leave some out.
"""

import io
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from torch import nn

from vitlib.bench.meter import Kind, Step, check_rounds
from vitlib.bench.models import PEERS, SIZES, Size
from vitlib.bench.outcome import OURS, Outcome, Timing, quartiles
from vitlib.bench.report import draw, table
from vitlib.files import write_atomically
from vitlib.nn.vit import VisionTransformer
from vitlib.study.stored import about, store
from vitlib.summary import summary
from vitlib.train.progress import gemm_rate
from vitlib.train.settings import find_compiler

WARMUP = 2
"""Rounds that do not count."""
KINDS: tuple[Kind, Kind] = ("training", "inference")


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A model of one library, in one mode.

    Attributes:
        library: Whose; ours with the gradients that train it.
        compiled: Whether by `torch.compile`.
        difference: The largest difference of its logits from ours; None if it has other weights.
        step: The model with optimiser and batch.
    """

    library: str
    compiled: bool
    difference: float | None
    step: Step


def contenders(size: Size, modes: Sequence[bool]) -> Iterator[Contender]:
    """Ours and the installed peers'.

    Args:
        size: Of all of them.
        modes: False for eager ones, True for compiled ones.
    """
    torch.manual_seed(0)
    images = torch.randn(size.batch, size.config.in_channels, *size.config.image_shape)
    labels = torch.randint(size.config.num_classes, (size.batch,))
    model = VisionTransformer(size.config)
    nn.init.normal_(model.head.weight, std=0.02)  # a new head is zero, and so were all logits
    builders: dict[str, Callable[[VisionTransformer], nn.Module]] = {
        **{name: _ours(gradients) for name, gradients in OURS.items()},
        **{name: builder for name, builder in PEERS.items() if installed(name)},
    }
    expected = _logits(model, images)
    for library, build in builders.items():
        theirs = build(model)
        difference = (_logits(theirs, images) - expected).abs().max().item()
        for compiled in modes:
            module = deepcopy(theirs)
            if compiled:
                module.compile()
            yield Contender(
                library=library,
                compiled=compiled,
                difference=None if library == "vit-pytorch" else difference,
                step=Step(module, images, labels),
            )


def _ours(gradients: str) -> Callable[[VisionTransformer], nn.Module]:
    def build(model: VisionTransformer) -> nn.Module:
        copy = VisionTransformer(replace(model.config, gradients=gradients))
        copy.load_state_dict(model.state_dict())
        return copy

    return build


def _logits(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return model.eval()(images)


def installed(peer: str) -> str | None:
    """The version of a peer, None if it is not installed."""
    try:
        return version("transformers" if peer == "Hugging Face" else peer)
    except PackageNotFoundError:
        return None


def measure(name: str, rounds: int, modes: Sequence[bool]) -> Iterator[Outcome]:
    """What comes of all contenders of one size.

    Args:
        name: Key of `SIZES`.
        rounds: How many count.
        modes: As `contenders` takes them.
    """
    size = SIZES[name]
    rate = gemm_rate(torch.device("cpu"), torch.float32)
    running = list(contenders(size, modes))
    taken = times([contender.step for contender in running], rounds)
    whole = summary(size.config)
    forward = 2 * whole.total.multiply_adds
    # backward takes each product twice, but for the images, which need no gradient
    operations = {"inference": forward, "training": 3 * forward - 2 * whole.layers[0].multiply_adds}
    peers = [i for i, contender in enumerate(running) if contender.library not in OURS]

    def timing(kind: Kind, place: int) -> Timing:
        own = taken[kind][place]
        median = statistics.median(own)
        ratio = None
        if peers:
            fastest = min((taken[kind][peer] for peer in peers), key=statistics.median)
            ratio = quartiles([b / a for a, b in zip(own, fastest, strict=True)])
        images = size.batch / median
        return Timing(
            milliseconds=round(1e3 * median, 3),
            images=round(images, 2),
            share=round(images * operations[kind] / rate, 4),
            ratio=ratio,
        )

    for place, contender in enumerate(running):
        held, peak = contender.step.memory()
        yield Outcome(
            size=name,
            library=contender.library,
            compiled=contender.compiled,
            difference=contender.difference,
            training=timing("training", place),
            inference=timing("inference", place),
            held=held,
            peak=peak,
        )


def times(steps: Sequence[Step], rounds: int) -> Mapping[Kind, list[list[float]]]:
    """Seconds of each kind of work: for each step, of each round."""
    taken: dict[Kind, list[list[float]]] = {kind: [[] for _ in steps] for kind in KINDS}
    for round_ in range(-WARMUP, rounds):
        for i in range(len(steps)):
            place = (i + round_) % len(steps)  # nobody always begins
            for kind in KINDS:
                took = steps[place].seconds(kind)
                if round_ >= 0:
                    taken[kind][place].append(took)
    return taken


def main(folder: Path, rounds: int, compiled: bool) -> None:
    """Measure all sizes; leave step.json and step.png in a folder, and print a table.

    Args:
        folder: Made if it is not there.
        rounds: How many count, 2 or more.
        compiled: Whether to measure compiled models, too.

    Raises:
        ValueError: There are too few rounds for quartiles.
        OSError: The folder cannot be written.
    """
    check_rounds(rounds)
    versions = {name: installed(name) for name in PEERS}
    if missing := [name for name, found in versions.items() if found is None]:
        print(f"not installed, so not measured: {', '.join(missing)}", file=sys.stderr)
    modes = [False]
    if compiled:
        try:
            find_compiler()
            modes.append(True)
        except ValueError as error:
            print(f"nothing is compiled: {error}", file=sys.stderr)
    facts = about("bench step", rounds=rounds, **versions)
    outcomes: list[Outcome] = []

    def measured() -> Iterator[Outcome]:
        for name in SIZES:
            for outcome in measure(name, rounds, modes):
                outcomes.append(outcome)
                yield outcome

    store(folder / "step.json", facts, measured())
    print(f"\n{table(outcomes)}")
    if any(versions.values()):
        picture = io.BytesIO()
        draw(outcomes).savefig(picture, format="png", dpi=144, facecolor="white")
        write_atomically(folder / "step.png", picture.getvalue())
