"""What a model's logits say about it: class by class, how sure it is, where it is most wrong.

**Recall** of a class is the part of its images that the model took for it; **precision** the part
of the images that the model took for it that are of it.

**Calibration** asks whether the model is right in 80 % of the cases in which it gives its choice a
probability of 80 %. Images are put into 15 bins of equal width by that probability, their
*confidence*, bin m from (m − 1)/15 exclusive to m/15 inclusive. With B_m the images in bin m,

    expected calibration error = Σ_m |B_m| / n · |accuracy(B_m) − mean confidence(B_m)|

(Guo, Pleiss, Sun and Weinberger 2017, "On calibration of modern neural networks", equation 3).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from vitlib.train.evaluate import Evaluation

BINS = 15


@dataclass(frozen=True)
class ClassMeasures:
    """How a class fares.

    Attributes:
        count: Images of the class.
        chosen: Images that the model took for it.
        correct: Images that are both.
    """

    count: int
    chosen: int
    correct: int

    @property
    def recall(self) -> float | None:
        """Correct / count; None if there is no image of the class."""
        return self.correct / self.count if self.count else None

    @property
    def precision(self) -> float | None:
        """Correct / chosen; None if the model never chose the class."""
        return self.correct / self.chosen if self.chosen else None


@dataclass(frozen=True)
class Bin:
    """The images whose confidence is above `low` and at most `high`.

    Attributes:
        low: From 0.
        high: To 1.
        count: How many images.
        confidence: Their mean confidence; None if there are none.
        accuracy: For which part of them the model is right; None if there are none.
    """

    low: float
    high: float
    count: int
    confidence: float | None
    accuracy: float | None


@dataclass(frozen=True)
class Mistake:
    """An image that the model took for something else.

    Attributes:
        index: Its row among the logits.
        label: What it is.
        chosen: What the model took it for.
        confidence: The probability that the model gave to `chosen`.
        loss: Cross-entropy, in nats: −log of the probability that it gave to `label`.
    """

    index: int
    label: int
    chosen: int
    confidence: float
    loss: float


@dataclass(frozen=True)
class Measures(Evaluation):
    """What a test found, in full.

    Attributes:
        top5: For how many images the label is among the five classes with the largest logits; None
            unless there are more than five classes.
        classes: One of each class, in the order of the labels.
        confusion: How many images of the row's class the model took for the column's.
        bins: Of the confidence, from low to high.
        worst: The mistakes with the largest loss, the largest first.
    """

    top5: int | None
    classes: tuple[ClassMeasures, ...]
    confusion: Int[Tensor, "K K"]
    bins: tuple[Bin, ...]
    worst: tuple[Mistake, ...]

    @property
    def calibration_error(self) -> float:
        """The expected calibration error (see the module's text)."""
        gaps = ((b.count, b.accuracy, b.confidence) for b in self.bins)
        return sum(n * abs(a - c) for n, a, c in gaps if a is not None and c is not None) / (
            self.images
        )

    def to_dict(self) -> dict[str, int | float]:
        """The figures of the whole, for the record of a run."""
        figures = {
            "images": self.images,
            "correct": self.correct,
            "accuracy": self.accuracy,
            "loss": self.loss,
            "calibration_error": self.calibration_error,
        }
        return figures if self.top5 is None else {**figures, "top5": self.top5 / self.images}


@torch.no_grad()
def measure(
    logits: Float[Tensor, "n K"], labels: Int[Tensor, " n"], *, worst: int = 24
) -> Measures:
    """Measure a model by its logits.

    Args:
        logits: On any device, in any precision; all is computed on the CPU, in float64.
        labels: 0 to K − 1, and −1 for rows that do not count.
        worst: How many mistakes to keep.

    Raises:
        ValueError: The shapes do not fit, a label is not of a class, a logit is not finite, or no
            row counts.
    """
    _check(logits, labels)
    rows = (labels >= 0).nonzero().flatten().cpu()
    logits, labels = logits.cpu()[rows].double(), labels.cpu()[rows].long()
    count, classes = logits.shape
    chosen = logits.argmax(1)
    right = chosen == labels
    losses = functional.cross_entropy(logits, labels, reduction="none")
    confidence = logits.softmax(1).gather(1, chosen[:, None])[:, 0]

    pairs = torch.bincount(labels * classes + chosen, minlength=classes**2)
    confusion = pairs.view(classes, classes)
    counts = zip(confusion.sum(1), confusion.sum(0), confusion.diagonal(), strict=True)
    top5 = (logits.topk(5).indices == labels[:, None]).sum() if classes > 5 else None

    order = losses.masked_fill(right, -1).argsort(descending=True, stable=True)
    order = order[: min(worst, int((~right).sum()))]
    table = (rows[order], labels[order], chosen[order], confidence[order], losses[order])
    return Measures(
        images=count,
        correct=int(right.sum()),
        loss=losses.mean().item(),
        top5=None if top5 is None else int(top5),
        classes=tuple(ClassMeasures(int(n), int(c), int(r)) for n, c, r in counts),
        confusion=confusion,
        bins=_bins(confidence, right),
        worst=tuple(Mistake(*row) for row in zip(*(t.tolist() for t in table), strict=True)),
    )


def _bins(confidence: Float[Tensor, " n"], right: Tensor) -> tuple[Bin, ...]:
    edges = [m / BINS for m in range(BINS + 1)]
    inner = torch.tensor(edges[1:-1], dtype=confidence.dtype)
    place = torch.bucketize(confidence, inner)  # the first edge that is not below
    counts = torch.bincount(place, minlength=BINS).tolist()
    sums = torch.bincount(place, confidence, BINS).tolist()
    rights = torch.bincount(place, right.double(), BINS).tolist()
    return tuple(
        Bin(low, high, n, s / n if n else None, r / n if n else None)
        for low, high, n, s, r in zip(edges[:-1], edges[1:], counts, sums, rights, strict=True)
    )


def _check(logits: Tensor, labels: Tensor) -> None:
    if logits.ndim != 2 or labels.shape != logits.shape[:1]:
        raise ValueError(
            f"logits are {tuple(logits.shape)} and labels {tuple(labels.shape)}: expected (n, K) "
            "and (n,)."
        )
    counted = labels >= 0
    if not counted.any():
        raise ValueError("there is no image to measure by: expected a label of 0 or more.")
    if labels.min() < -1 or labels.max() >= logits.shape[1]:
        raise ValueError(
            f"labels reach from {labels.min()} to {labels.max()}: expected 0 to "
            f"{logits.shape[1] - 1}, or −1 for a row that does not count."
        )
    unfit = ~logits[counted].isfinite().all(1)
    if unfit.any():
        raise ValueError(
            f"the logits of {int(unfit.sum())} images are not finite: the model's weights are "
            "broken. Go back to an earlier checkpoint."
        )
