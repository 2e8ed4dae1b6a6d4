"""Compare the switches of the engine: what each changes in what is learned, and what it costs.

    vitlib study engine

trains for 20 epochs by the recipe of `vitlib train digits` with AdamW, from three seeds, with one
switch at a time. The chapter on training reads what came of it. A run is judged by a fifth of the
training images that is kept out of training. The test images decide nothing and are not reported.
Then it takes the time of some steps of a larger model with each switch, in turns, so that what else
the computer does falls on all alike.

Takes about half an hour on one CPU core, most of it for float16. It needs a C++ compiler. The file
is written after every run.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from types import MappingProxyType

import torch

from vitlib.config import ViTConfig
from vitlib.nn.loss import cross_entropy
from vitlib.nn.vit import VisionTransformer
from vitlib.study.stored import about, store
from vitlib.train import Digits, Engine, train
from vitlib.train.optimiser import make_optimisers
from vitlib.train.records import read_log
from vitlib.train.settings import prepare, settings, working_precision

FILE = "engine.json"
SEEDS = (0, 1, 2)
EPOCHS = 20
STEPS = 7
SWITCHES: Mapping[str, Engine] = MappingProxyType(
    {
        "float32": Engine(precision="float32"),
        "bfloat16": Engine(precision="bfloat16"),
        "float16": Engine(precision="float16"),
        "recompute": Engine(precision="float32", recompute=True),
        "compile": Engine(precision="float32", compile=True),
    }
)
"""By the name of what differs from the first."""

LARGER = ViTConfig(
    image_size=32, patch_size=4, num_classes=10, dim=192, depth=6, heads=3, mlp_dim=768
)
"""The model whose steps are timed, and its batch."""

BATCH = 16


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of one run, on the images kept out.

    Attributes:
        switch: Which.
        seed: Of weights, order and augmentation.
        loss: Mean cross-entropy, in nats.
        accuracy: Part that is read right.
    """

    switch: str
    seed: int
    loss: float
    accuracy: float


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a step of the larger model takes.

    Attributes:
        switch: Which.
        first: Seconds of the first step, by the clock: compiling is in it.
        step: Seconds of a later one, of the processor; median.
    """

    switch: str
    first: float
    step: float


def measure(switch: str, seed: int) -> Outcome:
    """Train once."""
    recipe = replace(
        Digits(),
        optimiser="adamw",
        lr=3e-3,
        epochs=EPOCHS,
        validation=0.2,
        seed=seed,
        engine=SWITCHES[switch],
    )
    with TemporaryDirectory() as folder:
        train(recipe, Path(folder) / "run", progress=False)
        last = read_log(Path(folder) / "run")[-1]
    assert last.validation_loss is not None
    assert last.validation_accuracy is not None
    return Outcome(
        switch=switch, seed=seed, loss=last.validation_loss, accuracy=last.validation_accuracy
    )


def stepper(engine: Engine) -> Callable[[], None]:
    """A step of training of the larger model, to be called again and again."""
    cpu = torch.device("cpu")
    torch.manual_seed(0)
    model = VisionTransformer(LARGER)
    images, labels = torch.randn(BATCH, 3, 32, 32), torch.arange(BATCH) % 10
    precision = working_precision(engine, cpu)
    narrow = None if precision == torch.float32 else precision
    prepare(model, engine)
    (optimiser,) = make_optimisers(
        model, optimiser="adamw", lr=1e-3, weight_decay=0.05, betas=(0.9, 0.999)
    )
    scaler = torch.amp.GradScaler("cpu", enabled=precision == torch.float16)

    def step() -> None:
        with settings(engine, cpu):
            with torch.autocast("cpu", narrow, enabled=narrow is not None):
                loss = cross_entropy(model(images), labels)
            scaler.scale(loss).backward()
            scaler.step(optimiser)
            scaler.update()
            optimiser.zero_grad()

    return step


def costs() -> list[Cost]:
    """Time the steps of all switches, in turns."""
    steps = {switch: stepper(engine) for switch, engine in SWITCHES.items()}
    first = {switch: _seconds(step, time.perf_counter) for switch, step in steps.items()}
    later: dict[str, list[float]] = {switch: [] for switch in steps}
    for _ in range(STEPS):
        for switch, step in steps.items():
            later[switch].append(_seconds(step, time.process_time))
    return [
        Cost(switch=switch, first=round(first[switch], 3), step=round(median(later[switch]), 4))
        for switch in steps
    ]


def _seconds(step: Callable[[], None], clock: Callable[[], float]) -> float:
    started = clock()
    step()
    return clock() - started


def runs() -> Iterator[Outcome]:
    """All runs."""
    for switch in SWITCHES:
        for seed in SEEDS:
            yield measure(switch, seed)


def main(folder: Path) -> None:
    """Make all runs, time the steps, and write the file that the chapter reads."""
    torch.set_num_threads(1)
    facts = about(
        "study engine", seeds=SEEDS, epochs=EPOCHS, costs=[asdict(cost) for cost in costs()]
    )
    store(folder / FILE, facts, runs())
