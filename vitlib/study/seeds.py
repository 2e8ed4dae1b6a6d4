"""What a recipe reaches, from each of several seeds.

    vitlib study digits_accuracy
    vitlib study fashion_mnist_accuracy

Each trains by the recipe of that name as it stands, and writes its file after every run. A run that
was interrupted goes on when the command is given again. On two cores, ten runs on the digits take
some seven minutes, three on Fashion-MNIST well over two hours.

The test images decide nothing: they judge the model of each last epoch, once.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vitlib.study.stored import about, store
from vitlib.train import WEIGHTS, Recipe, train
from vitlib.train.records import read_log
from vitlib.weights import load_model, read_record


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of a run.

    Attributes:
        seed: Of weights, order and augmentation.
        epochs: Passes over the training images.
        parameters: Of the model.
        threads: That PyTorch worked with at the end.
        seconds: Of training, by the clock.
        accuracy: Part of the test images that the model of the last epoch classified right.
    """

    seed: int
    epochs: int
    parameters: int
    threads: int
    seconds: float
    accuracy: float


def main(folder: Path, study: str, recipe: Recipe, seeds: Sequence[int]) -> None:
    """Train from each seed, in runs beside the file that tells what came of it.

    Args:
        folder: For both.
        study: Its name.
        recipe: By which to train.
        seeds: One for each run.

    Raises:
        ValueError: A run in the folder is of another recipe.
        Interrupted: It was asked to stop. The next time it goes on.
    """
    runs = (go_on(replace(recipe, seed=seed), folder / f"{recipe.name}-{seed}") for seed in seeds)
    store(folder / f"{study}.json", about(f"study {study}", seeds=tuple(seeds)), runs)


def go_on(recipe: Recipe, run: Path) -> Outcome:
    """Train in a folder, or go on there, or take what has been finished there.

    Raises:
        ValueError: It was finished by another recipe.
        Interrupted: It was asked to stop.
    """
    if not (run / WEIGHTS).exists():
        train(recipe, run)
    told = json.loads(json.dumps(recipe.to_dict()))
    if read_record(run / WEIGHTS)["recipe"] | {"engine": None} != told | {"engine": None}:
        raise ValueError(f"{run}: holds a run of another recipe. Choose another folder (--out).")
    return finished(run)


def finished(run: Path) -> Outcome:
    """What came of the run in this folder."""
    record, last = read_record(run / WEIGHTS), read_log(run)[-1]
    assert last.seconds is not None  # training writes it
    return Outcome(
        seed=record["recipe"]["seed"],
        epochs=record["recipe"]["epochs"],
        parameters=sum(weight.numel() for weight in load_model(run / WEIGHTS).parameters()),
        threads=record["environment"]["threads"],
        seconds=last.seconds,
        accuracy=record["result"]["accuracy"],
    )
