"""The benchmark of a step as a table and as a picture."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from vitlib.bench.meter import Kind
from vitlib.bench.outcome import Outcome, Timing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MEGABYTE = 1e6


def table(outcomes: Sequence[Outcome]) -> str:
    """Lines for a terminal of 80 columns: speed, then memory, of each size.

    A ratio is how many times as fast as the fastest peer, with half the width of the middle half of
    the rounds; of memory, what part of that of the leanest peer.
    """
    parts: list[str] = []
    for size, group in groupby(outcomes, lambda outcome: outcome.size):
        parts.append("\n".join(_lines(size, list(group))))
    return "\n\n".join(parts)


def _lines(size: str, outcomes: Sequence[Outcome]) -> Iterator[str]:
    columns = f"{'images/s':>10} {'share':>5} {'ratio':>9}"
    yield f"{size:26}{'training step':>26}{'inference':>27}"
    yield f"{'':26}{columns} {columns}"
    for outcome in outcomes:
        yield f"{outcome.name:26}{_speed(outcome.training)} {_speed(outcome.inference)}"
    leanest = leanest_peer(outcomes)
    yield f"{'':26}{'MB held':>10} {'ratio':>15} {'MB peak':>10}"
    for outcome in outcomes:
        ratio = "–" if leanest is None else f"{outcome.held / leanest:.2f}"
        held, peak = outcome.held / _MEGABYTE, outcome.peak / _MEGABYTE
        yield f"{outcome.name:26}{held:10.1f} {ratio:>15} {peak:10.1f}"


def _speed(timing: Timing) -> str:
    ratio = "–"
    if timing.ratio is not None:
        low, middle, high = timing.ratio
        ratio = f"{middle:.{2 if middle < 10 else 1}f}±{(high - low) / 2:.2f}"
    return f"{timing.images:10,.1f} {timing.share:5.2f} {ratio:>9}"


def leanest_peer(outcomes: Sequence[Outcome]) -> int | None:
    """The fewest bytes that a peer holds between forward and backward; None without peers."""
    return min((each.held for each in outcomes if not each.is_ours), default=None)


def draw(outcomes: Sequence[Outcome]) -> "Figure":
    """Every library in its better mode, against the best peer of its size.

    Returns:
        A matplotlib figure in the style of `vitlib.plot`: a panel for a step of training, for
        inference and for memory held.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
        ValueError: There is no peer to compare with.
    """
    if all(outcome.is_ours for outcome in outcomes):
        raise ValueError("nothing to draw: no peer was measured. Install timm, for one.")
    try:
        from matplotlib.figure import Figure

        from vitlib import plot
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{error.name} is not installed, and draws the figure. Install it with "
            "pip install 'vitlib[train]'"
        ) from error
    panels = {
        "training step\n(× the fastest peer)": _fastest(outcomes, "training"),
        "inference\n(× the fastest peer)": _fastest(outcomes, "inference"),
        "memory held\n(× the leanest peer)": _leanest(outcomes),
    }
    with plot.style():
        figure = Figure(figsize=(plot.WIDTH, 3.9))  # pyplot would ask for a screen
        every = figure.subplots(1, len(panels), sharey=True)
        for axes, (title, sizes) in zip(every, panels.items(), strict=True):
            for (size, values), colour in zip(sizes.items(), plot.PALETTE, strict=False):
                axes.plot(list(values.values()), list(values), "o", color=colour, label=size)
            axes.axvline(1, color=plot.MUTED, linewidth=1)
            axes.set_title(title)
            axes.grid(True)
            axes.set_xlim(0, 1.08 * axes.dataLim.x1)  # room for the whole of the last dot
        every[0].invert_yaxis()
        figure.legend(*every[0].get_legend_handles_labels(), loc="outside lower center")
    return figure


Values = dict[str, dict[str, float]]
"""For each size, of each library."""


def _fastest(outcomes: Sequence[Outcome], kind: Kind) -> Values:
    values: Values = {}
    for outcome in outcomes:
        ratio = getattr(outcome, kind).ratio
        if ratio is not None:
            of = values.setdefault(outcome.size, {})
            of[outcome.library] = max(ratio[1], of.get(outcome.library, 0))
    return values


def _leanest(outcomes: Sequence[Outcome]) -> Values:
    values: Values = {}
    for size, group in groupby(outcomes, lambda outcome: outcome.size):
        some = list(group)
        leanest, of = leanest_peer(some), values.setdefault(size, {})
        for outcome in some:
            if leanest:
                ratio = outcome.held / leanest
                of[outcome.library] = min(ratio, of.get(outcome.library, ratio))
    return values
