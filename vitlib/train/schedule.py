"""The learning rate's course over a run, as a factor on the peak learning rate.

What a step's rate is depends on the number of the step alone, so that a resumed run needs no state.
"""

from collections.abc import Mapping
from math import cos, pi, sqrt
from types import MappingProxyType
from typing import Literal, Protocol, get_args

Schedule = Literal["cosine", "linear", "constant", "rsqrt"]

COOLDOWN = 0.2
"""The part of all steps, at the end, in which "rsqrt" goes down to zero.

Longer ones gain little (Hägele et al. 2024, "Scaling laws and compute-optimal training beyond fixed
training durations").
"""


class _Course(Protocol):
    def __call__(self, step: int, *, total: int, warmup: int) -> float: ...


def rate(schedule: Schedule, step: int, *, total: int, warmup: int) -> float:
    """The factor on the peak learning rate in one step, from 0 to 1.

    The first `warmup` steps take 1/warmup, 2/warmup, …, 1. Then, with t the steps since:

    - "cosine": (1 + cos(π t / T)) / 2, with T the steps that remain after the warm-up (Loshchilov
      and Hutter 2017, "SGDR", equation 5, with one period).
    - "linear": 1 − t / T.
    - "constant": 1.
    - "rsqrt": 1 / √(1 + t / warmup), which does not depend on how long the run is, so that it can
      be made longer later (Zhai et al. 2022, "Scaling vision transformers", §3.5). Over the last
      fifth of the run it is multiplied by a line down to zero.

    What goes down to zero would reach it at step `total`, one after the last.

    Args:
        schedule: Its name.
        step: Which step, from 0 to total − 1.
        total: Number of steps of the run.
        warmup: Number of steps of warm-up, at most `total`.

    Raises:
        ValueError: No schedule has that name.
    """
    if schedule not in _COURSES:
        raise ValueError(
            f"schedule={schedule!r} is not available: choose {' or '.join(get_args(Schedule))}."
        )
    if step < warmup:
        return (step + 1) / warmup
    return _COURSES[schedule](step, total=total, warmup=warmup)


def _cosine(step: int, *, total: int, warmup: int) -> float:
    return 0.5 * (1 + cos(pi * (step - warmup) / (total - warmup)))


def _linear(step: int, *, total: int, warmup: int) -> float:
    return (total - step) / (total - warmup)


def _constant(step: int, *, total: int, warmup: int) -> float:
    return 1.0


def _rsqrt(step: int, *, total: int, warmup: int) -> float:
    decay = sqrt(max(1, warmup) / (max(1, warmup) + step - warmup))
    return decay * min(1.0, (total - step) / (COOLDOWN * total))


_COURSES: Mapping[str, _Course] = MappingProxyType(
    {"cosine": _cosine, "linear": _linear, "constant": _constant, "rsqrt": _rsqrt}
)
