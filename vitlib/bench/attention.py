"""Attention alone, forward and backward, in each form that there is, for ever more tokens.

    vitlib bench attention

`vitlib.nn.attention` and `vitlib.nn.blockwise` as they are derived; `vitlib.fast.attention` all at
once and in tiles; and PyTorch's own function under autograd, the measure of all others. Three heads
of 64 numbers, as in ViT-Ti/16; as many images as make 4,096 tokens, at least one. Timed in turn, a
round for all, with the quartiles of the ratios over the rounds. Extra memory is the most that is
allocated at a time, without what comes in and without the three gradients that come out. Forms that
hold T × T weights stop at 4,096 tokens.
"""

import json
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from vitlib.bench.meter import allocations, check_rounds, seconds
from vitlib.bench.outcome import Quartiles, quartiles
from vitlib.fast.attention import attention_backward, attention_forward
from vitlib.nn.attention import attention
from vitlib.nn.blockwise import blockwise_attention
from vitlib.study.stored import about, store

HEADS, WIDTH = 3, 64
TOKENS = (50, 65, 197, 577, 1024, 2048, 4096, 8192)
LARGEST_SQUARE = 4096
"""The most tokens whose T × T weights are held."""
KERNEL = "PyTorch's fused kernel"

Run = Callable[[], object]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What was measured of one form.

    Attributes:
        form: Its name.
        tokens: T.
        images: B.
        milliseconds: Of forward and backward, the median.
        ratio: That over the kernel's, quartiles: below 1 is faster.
        extra: Bytes beside inputs and gradients.
    """

    form: str
    tokens: int
    images: int
    milliseconds: float
    ratio: Quartiles
    extra: int


def forms(tokens: int, images: int) -> Iterator[tuple[str, Run]]:
    """The forms that can take so many tokens, each as forward and backward of the same numbers."""
    torch.manual_seed(0)
    packed = torch.randn(images, tokens, 3, HEADS, WIDTH).permute(2, 0, 3, 1, 4)
    grad = torch.randn(images, tokens, HEADS, WIDTH)
    q, k, v = (part.detach().requires_grad_() for part in packed)

    def differentiated(attend: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Run:
        return lambda: torch.autograd.grad(attend(q, k, v), (q, k, v), grad.transpose(1, 2))

    def fast(in_tiles: bool) -> Run:
        def run() -> object:
            split = packed if in_tiles else packed.contiguous()
            _, tiled = attention_forward(split, in_tiles)
            return attention_backward(grad.flatten(0, 1).flatten(1), split, tiled)

        return run

    yield KERNEL, differentiated(functional.scaled_dot_product_attention)
    yield "fast, in tiles", fast(True)
    yield "readable, in tiles", differentiated(blockwise_attention)
    if tokens <= LARGEST_SQUARE:
        yield "fast, all at once", fast(False)
        yield "readable, all at once", differentiated(attention)


def measure(tokens: int, rounds: int) -> Iterator[Outcome]:
    """What comes of each form.

    Args:
        tokens: T.
        rounds: How many count; one more goes before.
    """
    images = max(1, 4096 // tokens)
    runs = dict(forms(tokens, images))
    taken: dict[str, list[float]] = {form: [] for form in runs}
    for round_ in range(-1, rounds):
        for form, run in runs.items():
            took = seconds(run)
            if round_ >= 0:
                taken[form].append(took)
    gradients = 3 * 4 * images * HEADS * tokens * WIDTH
    for form, run in runs.items():
        pairs = zip(taken[form], taken[KERNEL], strict=True)
        yield Outcome(
            form=form,
            tokens=tokens,
            images=images,
            milliseconds=round(1e3 * statistics.median(taken[form]), 3),
            ratio=quartiles([own / kernel for own, kernel in pairs]),
            extra=max(accumulate(allocations(run))) - gradients,
        )


def main(folder: Path, rounds: int, compiled: bool) -> None:
    """Measure all numbers of tokens; leave attention.json in a folder, and print a table.

    Args:
        folder: Made if it is not there.
        rounds: How many count, 2 or more.
        compiled: Nothing is compiled here.

    Raises:
        ValueError: There are too few rounds for quartiles.
        OSError: The folder cannot be written.
    """
    check_rounds(rounds)
    outcomes: list[Outcome] = []

    def measured() -> Iterator[Outcome]:
        for tokens in TOKENS:
            for outcome in measure(tokens, rounds):
                outcomes.append(outcome)
                yield outcome

    store(folder / "attention.json", about("bench attention", rounds=rounds), measured())
    print(f"\n{table(outcomes)}")


def table(outcomes: Sequence[Outcome]) -> str:
    """Lines for a terminal: times as parts of the kernel's, with spread, and extra memory in MB."""
    lines = [f"{'tokens':>6}  {'form':24}{'ms':>9}{'ratio':>12}{'extra MB':>10}"]
    for each in outcomes:
        low, middle, high = each.ratio
        ratio, extra = f"{middle:.2f}±{(high - low) / 2:.2f}", each.extra / 1e6
        lines.append(
            f"{each.tokens:6,}  {each.form:24}{each.milliseconds:9.1f}{ratio:>12}{extra:10.1f}"
        )
    return "\n".join(lines)


def read(path: Path) -> list[Outcome]:
    """The outcomes in a file that `vitlib bench attention` has written."""
    runs: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["runs"]
    for run in runs:
        run["ratio"] = tuple(run["ratio"])
    return [Outcome(**run) for run in runs]
