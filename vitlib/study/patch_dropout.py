"""What it costs, in accuracy, to train on a part of the patches, and what it buys.

    vitlib study patch_dropout

trains a small ViT on Fashion-MNIST with patch dropout at several rates, from two seeds: for as
many epochs as without, and for as many as the same time allows. The chapter on blocks reads what
came of it. A run is judged by the tenth of the training images that is kept out of training; the
test images decide nothing.

Takes twenty minutes on one CPU core. The file is written after every run.
"""

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from vitlib.config import ViTConfig
from vitlib.data.augment import Augment
from vitlib.study.stored import about, store
from vitlib.train import train
from vitlib.train.recipes import FashionMNIST
from vitlib.train.records import read_log

FILE = "patch_dropout.json"
SEEDS = (0, 1)
RATES = (0.0, 0.5, 0.75)
EPOCHS = 2
RECIPE = FashionMNIST(
    validation=0.1,
    epochs=EPOCHS,
    batch_size=128,
    optimiser="muon",
    lr=8e-3,
    weight_decay=0.05,
    warmup=0.1,
    clip=0.0,
    ema=0.0,
    label_smoothing=0.0,
    augment=Augment(flip=True),
    model=ViTConfig(
        image_size=28,
        patch_size=4,
        in_channels=1,
        num_classes=10,
        dim=64,
        depth=4,
        heads=4,
        mlp_dim=128,
        pool="mean",
    ),
)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One run.

    Attributes:
        rate: Part of the patches that is dropped in training.
        epochs: Passes over the training images.
        seed: Of weights, order, augmentation and dropping.
    """

    rate: float
    epochs: int
    seed: int


@dataclass(frozen=True, kw_only=True)
class Outcome(Setting):
    """What came of it, on the images kept out, of which all patches are seen.

    Attributes:
        patches: How many of an image's patches are seen in training.
        seconds: Processor time of the whole run.
        loss: Mean cross-entropy, in nats.
        accuracy: Part that is classified right.
    """

    patches: int
    seconds: float
    loss: float
    accuracy: float


def settings() -> Iterator[Setting]:
    """All runs: at each rate the epochs of the recipe, and as many as take about the same time."""
    for seed in SEEDS:
        for rate in RATES:
            for epochs in sorted({EPOCHS, round(EPOCHS / (1 - rate))}):
                yield Setting(rate=rate, epochs=epochs, seed=seed)


def measure(setting: Setting) -> Outcome:
    """Train once."""
    model = replace(RECIPE.model, patch_dropout=setting.rate)
    recipe = replace(RECIPE, model=model, epochs=setting.epochs, seed=setting.seed)
    before = time.process_time()
    with TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        train(recipe, run, progress=False)
        last = read_log(run)[-1]
    loss, accuracy = last.validation_loss, last.validation_accuracy
    assert loss is not None  # the end of an epoch is judged
    assert accuracy is not None
    return Outcome(
        **asdict(setting),
        patches=model.num_kept_patches,
        seconds=round(time.process_time() - before, 1),
        loss=loss,
        accuracy=accuracy,
    )


def main(folder: Path) -> None:
    """Make all runs and write the file that the chapter reads."""
    torch.set_num_threads(1)
    facts = about("study patch_dropout", seeds=SEEDS, epochs=EPOCHS)
    store(folder / FILE, facts, map(measure, settings()))
