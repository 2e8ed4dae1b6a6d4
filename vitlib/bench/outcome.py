"""What came of the benchmark of a step, as it is stored and read again."""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

OURS: Mapping[str, str] = MappingProxyType(
    {"vitlib, derived": "derived", "vitlib, autograd": "autograd"}
)
"""Our own contenders, and the gradients that train them."""

Quartiles = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Timing:
    """How long one kind of work takes a contender.

    Attributes:
        milliseconds: The median.
        images: A second.
        share: Of the machine's rate in large products.
        ratio: How many times as fast as the fastest peer, quartiles; None if there is no peer.
    """

    milliseconds: float
    images: float
    share: float
    ratio: Quartiles | None


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What was measured of a contender.

    Attributes:
        size: Key of `SIZES`.
        library: As the contender's.
        compiled: As the contender's.
        difference: As the contender's.
        training: A step.
        inference: A forward pass.
        held: Bytes between forward and backward.
        peak: Bytes at the peak of a step.
    """

    size: str
    library: str
    compiled: bool
    difference: float | None
    training: Timing
    inference: Timing
    held: int
    peak: int

    @property
    def name(self) -> str:
        """Library and mode."""
        return f"{self.library}, compiled" if self.compiled else self.library

    @property
    def is_ours(self) -> bool:
        """Whether it is vitlib."""
        return self.library in OURS


def quartiles(numbers: Sequence[float]) -> Quartiles:
    """The numbers below which a quarter, half, and three quarters lie."""
    low, middle, high = statistics.quantiles(numbers, n=4, method="inclusive")
    return round(low, 4), round(middle, 4), round(high, 4)


def read(path: Path) -> list[Outcome]:
    """The outcomes in a file that `vitlib bench step` has written."""
    runs: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["runs"]
    return [_outcome(run) for run in runs]


def _outcome(stored: dict[str, Any]) -> Outcome:
    fields: dict[str, Any] = {**stored}
    for kind in ("training", "inference"):
        fields[kind] = _timing(stored[kind])
    return Outcome(**fields)


def _timing(stored: dict[str, Any]) -> Timing:
    ratio = stored["ratio"]
    fields: dict[str, Any] = {**stored, "ratio": None if ratio is None else tuple(ratio)}
    return Timing(**fields)
