"""Compare AdamW and Muon over their learning rates.

    vitlib study optimisers

trains for 20 epochs by the recipe of `vitlib train digits`, from three seeds, with either optimiser
at each of several rates. The chapter on optimisation reads what came of it. A run is judged by a
fifth of the training images that is kept out of training, the same in every run. The test images
decide nothing and are not reported.

Takes some minutes on one CPU core. The file is written after every run.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import get_args

import torch

from vitlib.study.stored import about, store
from vitlib.train import Digits, train
from vitlib.train.optimiser import OptimiserName
from vitlib.train.records import read_log

FILE = "optimisers.json"
SEEDS = (0, 1, 2)
RATES = (1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2, 3.2e-2)
EPOCHS = 20


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One run.

    Attributes:
        optimiser: Which.
        lr: Its peak learning rate.
        seed: Of weights, order and augmentation.
    """

    optimiser: OptimiserName
    lr: float
    seed: int


@dataclass(frozen=True, kw_only=True)
class Outcome(Setting):
    """What came of it, on the images kept out; None if the loss diverged.

    Attributes:
        loss: Mean cross-entropy, in nats.
        accuracy: Part that is read right.
    """

    loss: float | None
    accuracy: float | None


def settings() -> Iterator[Setting]:
    """All runs."""
    for optimiser in get_args(OptimiserName):
        for lr in RATES:
            for seed in SEEDS:
                yield Setting(optimiser=optimiser, lr=lr, seed=seed)


def measure(setting: Setting) -> Outcome:
    """Train once."""
    recipe = replace(Digits(), epochs=EPOCHS, validation=0.2, **asdict(setting))
    with TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        try:
            train(recipe, run, progress=False)
        except ValueError as error:
            if "the loss" not in str(error):
                raise
            return Outcome(**asdict(setting), loss=None, accuracy=None)
        last = read_log(run)[-1]
    return Outcome(**asdict(setting), loss=last.validation_loss, accuracy=last.validation_accuracy)


def main(folder: Path) -> None:
    """Make all runs and write the file that the chapter reads."""
    torch.set_num_threads(1)
    facts = about("study optimisers", seeds=SEEDS, epochs=EPOCHS)
    store(folder / FILE, facts, map(measure, settings()))
