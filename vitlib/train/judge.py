"""A model before images that it has not seen, shared among the processes."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from os import PathLike
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from vitlib.data import Normalisation, open_source
from vitlib.data.augment import Augment
from vitlib.train.feed import Feed, Split, make_feed
from vitlib.train.measures import Measures, measure
from vitlib.train.processes import Processes, processes
from vitlib.train.recipe import Engine
from vitlib.weights import load_model, read_record

WORST = 24
"""How many mistakes are shown."""
_KEPT = 2 * WORST  # should two devices order two of the last differently, both are there


class Verdict(NamedTuple):
    """What came of it.

    Attributes:
        measures: Of all images, in every process.
        worst: The images of `measures.worst`, in [0, 1], on the CPU.
    """

    measures: Measures
    worst: Float[Tensor, "n C height width"]


@torch.inference_mode()
def judge(
    model: nn.Module,
    feed: Feed,
    split: Split,
    us: Processes,
    autocast: Callable[[], torch.autocast],
) -> Verdict:
    """Test a model, each process on its part of the images; the mode it was in is restored.

    Args:
        model: Images, normalised, to logits.
        feed: Where the images come from.
        split: "validation" or "test".
        us: The processes.
        autocast: In which the model runs.
    """
    was_training = model.training
    model.eval()
    all_logits: list[Tensor] = []
    all_labels: list[Tensor] = []
    candidates = _Candidates()
    for images, labels in feed.held_out(split):
        with autocast():
            logits = model(feed.normalisation(images)).float()
        candidates.consider(images, logits, labels)
        all_logits.append(logits)
        all_labels.append(labels)
    model.train(was_training)
    logits, labels = us.gather(torch.cat(all_logits)), us.gather(torch.cat(all_labels))
    measures = measure(logits, labels, worst=WORST)
    rows = us.gather(candidates.rows + us.rank * (len(logits) // us.count))
    place = {row: i for i, row in enumerate(rows.tolist())}
    chosen = [place[mistake.index] for mistake in measures.worst]
    return Verdict(measures, us.gather(candidates.images)[chosen].cpu())


class Tested(NamedTuple):
    """What came of testing saved weights.

    Attributes:
        data: The name of the data.
        measures: Of all test images that could be read.
        notes: What the user should know about the data, one sentence each.
        faults: Damaged images, by name, and what is wrong with each.
    """

    data: str
    measures: Measures
    notes: tuple[str, ...]
    faults: dict[str, str]


def evaluate_saved(weights: str | PathLike[str], name: str | None = None) -> Tested:
    """Test saved weights on the test images of some data, read as those they were trained on.

    Args:
        weights: A file that `vitlib.train.train` wrote.
        name: Of the data (`vitlib.data.open_source`); those that the weights were trained on if
            none is given.

    Raises:
        ValueError: The weights do not say what they were trained on, or have other classes.
        FileNotFoundError: There is no such file, or there are no such data.
    """
    model, record = load_model(weights), read_record(weights)
    if "data" not in record:
        raise ValueError(
            f"{weights}: does not say which data it was trained on. Use weights that vitlib train "
            "wrote."
        )
    known = record["data"]
    source = open_source(name or known["name"])
    if list(source.classes) != list(known["classes"]):
        raise ValueError(
            f"{source.name}: has {len(source.classes)} classes that are not the "
            f"{len(known['classes'])} of {weights}. Test on data of the same classes."
        )
    reading = _Reading(Augment(crop=record["recipe"]["augment"]["crop"]))
    with processes() as us:
        feed = make_feed(source, reading, model.config, us)
        feed.normalisation = Normalisation(**known["normalisation"])
        autocast = partial(torch.autocast, us.device.type, enabled=False)
        verdict = judge(model.to(us.device), feed, "test", us, autocast)
    return Tested(source.name, verdict.measures, feed.notes, feed.faults)


@dataclass(frozen=True)
class _Reading:
    """What a feed wants to know of a recipe, where nothing is trained."""

    augment: Augment
    engine: Engine = field(default=Engine())
    seed: int = 0
    batch_size: int = 256
    accumulate: int = 1
    validation: float = 0.0


class _Candidates:
    """The images of the largest losses so far, `_KEPT` at most, and their rows."""

    def __init__(self) -> None:
        self.seen = 0

    def consider(self, images: Tensor, logits: Tensor, labels: Tensor) -> None:
        losses = functional.cross_entropy(logits, labels.clamp(min=0), reduction="none")
        losses[(labels < 0) | (logits.argmax(1) == labels)] = -1  # no mistakes
        rows = torch.arange(self.seen, self.seen + len(labels), device=labels.device)
        if self.seen:
            images = torch.cat([self.images, images])
            losses, rows = torch.cat([self.losses, losses]), torch.cat([self.rows, rows])
        first = losses.argsort(descending=True, stable=True)[:_KEPT]
        self.images, self.losses, self.rows = images[first], losses[first], rows[first]
        self.seen += len(labels)
