"""Exercises of the chapter on training runs."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode

from vitlib.exercises import Answer, exercise, expect, results


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


class _OnBits(TorchDispatchMode):
    """Lets nothing be converted to bfloat16."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if torch.bfloat16 in (kwargs or {}).values():
            raise AssertionError("converts to bfloat16. Round on the bits, x.view(torch.int32).")
        return func(*args, **(kwargs or {}))


@exercise("training-round")
def _(to_bfloat16: Answer) -> None:
    x = torch.randn(1000, generator=_generator()) * 10.0 ** torch.linspace(-30, 30, 1000)
    between = torch.tensor([1 + k / 128 + 1 / 256 for k in range(4)])
    last = torch.tensor([1.99609375, -3.9999, 3.4e38])
    for numbers, what in [
        (x, "equal to PyTorch's rounding, from tiny to huge"),
        (between, "a tie goes to the even last bit"),
        (last, "rounding up may change the exponent, and end in infinity"),
    ]:
        with _OnBits():
            answer = to_bfloat16(numbers.clone())
        truth = numbers.bfloat16().float()
        # as bits: infinities have no difference
        bits = answer.view(torch.int32) if isinstance(answer, Tensor) else answer
        expect(bits, truth.view(torch.int32), what)


@exercise("training-compensate")
def _(add: Answer) -> None:
    update = torch.tensor(0.001, dtype=torch.bfloat16)
    for start, steps, what in [
        (1.0, 1000, "a thousand steps of a thousandth take 1 to 2"),
        (1.0, 3000, "three thousand take it to 4"),
        (-2.0, 1000, "and −2 to −1"),
    ]:
        w = torch.tensor(start, dtype=torch.bfloat16)
        lost = torch.zeros((), dtype=torch.bfloat16)
        for _ in range(steps):
            w, lost = results(add(w, update, lost), 2)
            if w is None or lost is None:
                break
            if {w.dtype, lost.dtype} != {torch.bfloat16}:
                raise AssertionError(f"returns {w.dtype} and {lost.dtype}, not two of bfloat16.")
        truth = start + steps * update.double()
        expect(w, truth, what, atol=0.01)


@exercise("training-parts")
def _(in_parts: Answer) -> None:
    generator = _generator()
    images = torch.randn(11, 4, generator=generator, dtype=torch.float64)
    weight = torch.randn(4, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    some = torch.tensor([0, -1, 2, 1, -1, -1, -1, 0, 2, 2, 1])
    shown: list[int] = []

    def gradient_of(images: Tensor, labels: Tensor) -> Tensor:
        shown.append(len(labels))
        if not (labels >= 0).any():
            return torch.zeros(weight.shape, dtype=weight.dtype)
        loss = cross_entropy(images @ weight, labels, ignore_index=-1)
        return torch.autograd.grad(loss, weight)[0]

    for labels, size, what in [
        (some.clamp(min=0), 11, "all at once, all with a label"),
        (some.clamp(min=0), 4, "parts of 4, 4 and 3"),
        (some, 4, "parts of 4, 4 and 3 in which 3, 1 and 3 count"),
        (some, 1, "one at a time, some of which do not count"),
        (torch.full_like(some, -1), 3, "zeros, where none counts"),
    ]:
        truth = gradient_of(images, labels)
        shown.clear()
        expect(in_parts(gradient_of, images, labels, size), truth, what)
        expect(float(max(shown, default=0) > size), 0.0, f"never more than {size} at a time")


@exercise("training-scaler")
def _(next_scale: Answer) -> None:
    scaler = torch.amp.GradScaler("cpu")
    weight = torch.zeros(1, requires_grad=True)
    optimiser = torch.optim.SGD([weight])
    scale, good = 65536.0, 0
    failures = {3, 4, 2500, 4499}
    course, ours = [scale], [scale]
    for step in range(7000):
        finite = step not in failures
        weight.grad = torch.zeros(1) if finite else torch.full((1,), torch.inf)
        scaler.scale(torch.zeros(1))
        scaler.step(optimiser)
        scaler.update()
        scale, good = results(next_scale(scale, good, finite), 2)
        if scale is None:
            break
        course.append(scaler.get_scale())
        ours.append(float(scale))
    expect(scale, scaler.get_scale(), "after 7,000 steps, as PyTorch's GradScaler")
    wrong = sum(a != b for a, b in zip(course, ours, strict=True))
    expect(float(wrong), 0.0, "and the same in every step before")


@exercise("training-segments")
def _(best_segment: Answer) -> None:
    for depth, entrance, block, best, what in [
        (12, 1, 16, 1, "ViT-B: one block at a time"),
        (144, 1, 16, 3, "144 blocks of 16 entrances: three at a time"),
        (36, 1, 1, 6, "36 blocks that keep what enters them: six at a time"),
        (7, 5, 6, 1, "a depth that only 1 and 7 divide"),
        (7, 9, 7, 7, "the divisor nearest to the ideal is not always the best"),
    ]:
        expect(best_segment(depth, entrance, block), float(best), what)
