"""The learning rate's course over a run."""

from math import cos, pi


def warmup_cosine(step: int, *, total: int, warmup: int) -> float:
    """The factor on the peak learning rate: linear warm-up, then half a cosine down to zero.

    The first `warmup` steps take 1/warmup, 2/warmup, …, 1; the cosine then falls from 1 and would
    reach 0 at step `total`, one after the last (Loshchilov and Hutter 2017, "SGDR", equation 5,
    with one period).

    Args:
        step: Which step, from 0 to total − 1.
        total: Number of steps of the run.
        warmup: Number of steps of warm-up, at most `total`.
    """
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + cos(pi * (step - warmup) / max(1, total - warmup)))
