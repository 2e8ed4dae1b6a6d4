"""Fashion-MNIST: how soon a plain ViT is good.

    vitlib study fashion_mnist_speed

trains timm's model as most would, ten epochs of AdamW, and then goes from there to a run that is as
good in a fraction of the time: one idea is added at a time, and each is a row. A last row takes
more time again, to reach 90 %. All of it is one sitting, on as many threads as PyTorch takes
(OMP_NUM_THREADS). The seconds are those of training: data are read and the model is made before,
the test comes after. Needs timm, and takes well over half an hour on two cores.

The file is written after every run. The test images decide nothing: settings were chosen on a part
of the training images that was kept out.
"""

import importlib
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch.nn import functional

from vitlib.config import ViTConfig
from vitlib.data import open_source
from vitlib.data.augment import Augment
from vitlib.data.seeds import generator_at
from vitlib.study import seeds
from vitlib.study.stored import about, store
from vitlib.train import train
from vitlib.train.augmented import AUGMENTATION
from vitlib.train.feed import make_feed
from vitlib.train.judge import judge
from vitlib.train.processes import processes
from vitlib.train.recipes import FashionMNIST
from vitlib.train.schedule import rate
from vitlib.train.settings import settings

STUDY = "fashion_mnist_speed"
SEEDS = (0, 1, 2)
TIMM = "timm"
"""The idea of the first row: none."""

BASELINE = FashionMNIST(
    epochs=10,
    batch_size=128,
    optimiser="adamw",
    lr=1e-3,
    weight_decay=0.05,
    schedule="cosine",
    warmup=300 / 4680,  # 300 steps of ten epochs of ⌊60,000 / 128⌋
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
        depth=6,
        heads=4,
        mlp_dim=128,
    ),
)
"""How timm's model is trained, and which it is."""

Idea = tuple[str, dict[str, Any], dict[str, Any]]
"""Its name, and what it sets: fields of the recipe, fields of the model."""

IDEAS: tuple[Idea, ...] = (
    ("the same in vitlib", {}, {}),
    ("patches of 7 × 7 pixels, not 4 × 4", {}, {"patch_size": 7}),
    ("Muon, not AdamW", {"optimiser": "muon", "lr": 8e-3}, {}),
    ("mean of the patches, no class token", {}, {"pool": "mean"}),
    ("rate falls on a line, not a cosine", {"schedule": "linear"}, {}),
    ("3 blocks with 2 heads, not 6 with 4", {}, {"depth": 3, "heads": 2}),
    ("3 epochs, not 10", {"epochs": 3, "warmup": 0.1}, {}),
    (
        "10 epochs, 4 blocks, half of the patches of 4 × 4 pixels",
        {"epochs": 10},
        {"depth": 4, "patch_size": 4, "patch_dropout": 0.5},
    ),
)
"""What each row adds to those before. The last two are the speed run, and the one to 90 %."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A run of the study of speed.

    Attributes:
        idea: What is new against the row before.
        recipe: What is trained, and how.
    """

    idea: str
    recipe: FashionMNIST


@dataclass(frozen=True, kw_only=True)
class Outcome(seeds.Outcome):
    """What came of a run.

    Attributes:
        idea: What was new in it.
    """

    idea: str


def rows() -> Iterator[Row]:
    """All runs for speed: the baseline, each idea, then the last two from further seeds."""
    table = [Row(idea=TIMM, recipe=BASELINE)]
    for idea, fields, sizes in IDEAS:
        recipe = table[-1].recipe
        recipe = replace(recipe, **fields, model=replace(recipe.model, **sizes))
        table.append(Row(idea=idea, recipe=recipe))
    yield from table
    for seed in SEEDS[1:]:
        for row in table[-2:]:
            yield replace(row, recipe=replace(row.recipe, seed=seed))


def measure(row: Row) -> Outcome:
    """Train and test once."""
    if row.idea == TIMM:
        return measure_timm(row.recipe)
    with TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        train(row.recipe, run, progress=False)
        return Outcome(idea=row.idea, **asdict(seeds.finished(run)))


def timm_modules() -> tuple[Any, Any]:
    """`timm` and `timm.optim`.

    Raises:
        ModuleNotFoundError: It is not installed.
    """
    try:
        return importlib.import_module("timm"), importlib.import_module("timm.optim")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{error.name} is not installed, and the baseline is timm's model. Install it with "
            "pip install timm"
        ) from error


def measure_timm(recipe: FashionMNIST) -> Outcome:
    """Train timm's model by a plain loop, with AdamW and flips, and test it.

    It sees the very images that `vitlib.train.train` would show it.
    """
    timm, optim = timm_modules()
    config = recipe.model
    with processes() as us, settings(recipe.engine, us.device):
        feed = make_feed(open_source(recipe.data), recipe, config, us)
        torch.manual_seed(recipe.seed)
        model: torch.nn.Module = timm.create_model(
            "vit_tiny_patch16_224",
            img_size=config.image_size,
            patch_size=config.patch_size,
            in_chans=config.in_channels,
            num_classes=config.num_classes,
            embed_dim=config.dim,
            depth=config.depth,
            num_heads=config.heads,
            mlp_ratio=config.mlp_dim / config.dim,
        ).to(us.device)
        optimiser: torch.optim.Optimizer = optim.create_optimizer_v2(
            model, "adamw", lr=recipe.lr, weight_decay=recipe.weight_decay
        )
        steps = recipe.epochs * (feed.train_count // recipe.batch_size)
        warmup = math.ceil(recipe.warmup * steps)
        started = time.perf_counter()
        for step, (images, labels) in enumerate(feed.training(0, steps)):
            for group in optimiser.param_groups:
                group["lr"] = recipe.lr * rate(recipe.schedule, step, total=steps, warmup=warmup)
            generator = generator_at(us.device, recipe.seed, AUGMENTATION, step, us.rank)
            images = recipe.augment(images, generator)
            functional.cross_entropy(model(feed.normalisation(images)), labels).backward()
            optimiser.step()
            optimiser.zero_grad()
        seconds = time.perf_counter() - started
        exact = partial(torch.autocast, us.device.type, enabled=False)
        accuracy = judge(model, feed, "test", us, exact).measures.accuracy
    return Outcome(
        idea=TIMM,
        seed=recipe.seed,
        epochs=recipe.epochs,
        parameters=sum(weight.numel() for weight in model.parameters()),
        threads=torch.get_num_threads(),
        seconds=round(seconds, 2),
        accuracy=accuracy,
    )


def main(folder: Path) -> None:
    """Train timm's model and then one idea after the other, and write what came of it.

    Raises:
        ModuleNotFoundError: timm is not installed.
    """
    timm, _ = timm_modules()
    facts = about(f"study {STUDY}", seeds=SEEDS, timm=timm.__version__)
    store(folder / f"{STUDY}.json", facts, map(measure, rows()))
