"""The training loop, to be read from top to bottom."""

import json
import math
import platform
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from tqdm import tqdm

from vitlib import data
from vitlib.nn.loss import cross_entropy
from vitlib.nn.vit import VisionTransformer
from vitlib.train.evaluate import evaluate
from vitlib.train.folder import LOG, WEIGHTS, claim_folder
from vitlib.train.optimiser import adamw
from vitlib.train.recipes import Recipe
from vitlib.train.schedule import warmup_cosine
from vitlib.weights import save_weights


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        model: The trained model, in eval mode, on the device that it was trained on.
        record: Recipe, data, result and environment, as they stand in the weights file.
    """

    model: VisionTransformer
    record: dict[str, Any]


def train(
    recipe: Recipe, folder: Path | None = None, *, overwrite: bool = False, progress: bool = True
) -> Run:
    """Train a model by a recipe, then test it once.

    The model of the last epoch is the result, whatever the others were like: the test images
    decide nothing. With the same seed, machine and number of threads, a CPU gives the same weights
    again.

    Args:
        recipe: What to do.
        folder: Where the log (JSON lines, one an epoch) and at the end the weights go; None keeps
            the model in memory only.
        overwrite: Replace a finished run in `folder`.
        progress: Show a bar with loss and accuracy on the training images, on stderr.

    Raises:
        ValueError: The model does not fit the data, or `folder` cannot be used.
        OSError: The disk is full, or fails, during the run.
    """
    device = torch.accelerator.current_accelerator() or torch.device("cpu")
    dataset = data.load(recipe.data).to(device)
    _check_fit(recipe, dataset)
    torch.manual_seed(recipe.seed)
    generator = torch.Generator(device).manual_seed(recipe.seed)
    model = VisionTransformer(recipe.model).to(device)

    steps_per_epoch = len(dataset.train_labels) // recipe.batch_size
    steps = recipe.epochs * steps_per_epoch
    optimiser = adamw(model, lr=recipe.lr, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, partial(warmup_cosine, total=steps, warmup=math.ceil(recipe.warmup * steps))
    )

    if folder is not None:
        claim_folder(folder, overwrite=overwrite)
    started = time.perf_counter()
    with _flushing_subnormals(device), tqdm(total=steps, unit="step", disable=not progress) as bar:
        for epoch in range(1, recipe.epochs + 1):
            loss_sum, correct = torch.zeros((), device=device), torch.zeros((), device=device)
            for batch in _shuffled(len(dataset.train_labels), recipe.batch_size, generator):
                images = recipe.augment(dataset.train_images[batch], generator)
                labels = dataset.train_labels[batch]
                with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                    logits = model(dataset.normalisation(images))
                    loss = cross_entropy(
                        logits, labels, recipe.label_smoothing, recipe.model.gradients
                    )
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                schedule.step()
                loss_sum += loss.detach()
                correct += (logits.argmax(1) == labels).sum()
                bar.update()
            line = {
                "epoch": epoch,
                "loss": loss_sum.item() / steps_per_epoch,
                "accuracy": correct.item() / (steps_per_epoch * recipe.batch_size),
                "lr": schedule.get_last_lr()[0],
                "seconds": round(time.perf_counter() - started, 2),
            }
            if not math.isfinite(line["loss"]):
                raise ValueError(
                    f"the loss is {line['loss']} in epoch {epoch}: expected a number. Lower lr "
                    f"({recipe.lr:g}) or lengthen warmup ({recipe.warmup:g})."
                )
            bar.set_description(f"epoch {epoch}/{recipe.epochs}", refresh=False)
            bar.set_postfix_str(f"loss {line['loss']:.3f}, accuracy {line['accuracy']:.1%}")
            if folder is not None:
                with (folder / LOG).open("a", encoding="utf-8") as log:
                    log.write(json.dumps(line) + "\n")

    test = evaluate(model.eval(), dataset.normalisation(dataset.test_images), dataset.test_labels)
    record = {
        "recipe": {"name": recipe.data, **asdict(recipe)},
        "data": {
            "name": dataset.name,
            "classes": dataset.classes,
            "normalisation": asdict(dataset.normalisation),
            "bright_on_dark": dataset.bright_on_dark,
        },
        "result": {
            **asdict(test),
            "accuracy": test.accuracy,
            "seconds": round(time.perf_counter() - started, 2),
        },
        "environment": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "device": str(device),
            "threads": torch.get_num_threads(),
        },
    }
    if folder is not None:
        save_weights(model, folder / WEIGHTS, record)
    return Run(model, record)


def _shuffled(
    count: int, batch_size: int, generator: torch.Generator
) -> Iterator[Int[Tensor, " batch"]]:
    """The positions 0 to count − 1 in random order, in whole batches."""
    order = torch.randperm(count, generator=generator, device=generator.device)
    whole = count - count % batch_size
    return iter(order[:whole].split(batch_size))


@contextmanager
def _flushing_subnormals(device: torch.device) -> Generator[None]:
    """On a CPU, numbers too small to be normal count as zero: they are slow and teach nothing."""
    if device.type == "cpu":
        torch.set_flush_denormal(True)
    try:
        yield
    finally:
        if device.type == "cpu":
            torch.set_flush_denormal(False)


def _check_fit(recipe: Recipe, dataset: data.Dataset) -> None:
    """Raise ValueError unless the recipe's model takes this data, before anything is written."""
    takes = (recipe.model.in_channels, *recipe.model.image_shape)
    has = tuple(dataset.train_images.shape[1:])
    if takes != has:
        raise ValueError(
            f"the model takes images of (channels, height, width) {takes}, the data "
            f"{dataset.name!r} have {has}. Set in_channels and image_size to those of the data."
        )
    if recipe.model.num_classes != len(dataset.classes):
        raise ValueError(
            f"num_classes is {recipe.model.num_classes}, the data {dataset.name!r} have "
            f"{len(dataset.classes)} classes. Set num_classes to that."
        )
    if recipe.batch_size > len(dataset.train_labels):
        raise ValueError(
            f"batch_size is {recipe.batch_size}, the data {dataset.name!r} have "
            f"{len(dataset.train_labels)} training images. Choose a smaller batch."
        )
