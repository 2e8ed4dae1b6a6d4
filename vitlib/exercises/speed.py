"""Exercises of the chapter on speed."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from vitlib.exercises import Answer, exercise, expect


def _randn(*shape: int, generator: torch.Generator) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


class _Large(TorchDispatchMode):
    """Notes the memory of all results from a size on, and holds it, so that none is used again."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.storages: dict[int, torch.UntypedStorage] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation, and look at what it returns."""
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and result.untyped_storage().nbytes() >= self.size:
            storage = result.untyped_storage()
            self.storages[storage.data_ptr()] = storage
        return result


@exercise("speed-first")
def _(attend_first: Answer) -> None:
    generator = torch.Generator().manual_seed(0)
    for images, tokens, width, heads, what in [
        (1, 4, 6, 1, "one head"),
        (3, 5, 8, 2, "two heads, three images"),
        (2, 1, 4, 4, "a token that is alone"),
        (2, 40, 24, 3, "forty tokens"),
    ]:
        x = _randn(images, tokens, width, generator=generator)
        weight = _randn(3 * width, width, generator=generator)
        packed = functional.linear(x, weight).view(images, tokens, 3, heads, -1)
        q, k, v = packed.permute(2, 0, 3, 1, 4)
        truth = functional.scaled_dot_product_attention(q[:, :, :1], k, v).flatten(1)
        with FlopCounterMode(display=False) as counter:
            answer = attend_first(x.clone(), weight.clone(), heads)
        expect(answer, truth, what)
    most = 2 * images * (3 * width**2 + 2 * heads * tokens * width)
    more = counter.get_total_flops() > most
    expect(float(more), 0.0, f"with no more than {most:,} FLOPs for forty tokens")


@exercise("speed-residual")
def _(add_projection: Answer) -> None:
    generator = torch.Generator().manual_seed(0)
    rows, width, hidden = 50, 8, 3
    given = [
        _randn(rows, width, generator=generator),
        _randn(rows, hidden, generator=generator),
        _randn(width, hidden, generator=generator),
        _randn(width, generator=generator),
    ]
    x, h, weight, bias = (tensor.clone() for tensor in given)
    truth = given[0] + functional.linear(given[1], given[2], given[3])
    with _Large(x.nbytes) as large:
        answer = add_projection(x, h, weight, bias)
    expect(answer, truth, "X + H W⊤ + b")
    same = all(torch.equal(*pair) for pair in zip((x, h, weight, bias), given, strict=True))
    expect(float(same), 1.0, "nothing that was given is written over")
    known = {tensor.untyped_storage().data_ptr() for tensor in (x, h, weight, bias)}
    expect(float(len(large.storages.keys() - known)), 1.0, "one array of the size of X is made")


@exercise("speed-ratio")
def _(times_as_fast: Answer) -> None:
    generator = torch.Generator().manual_seed(0)
    for rounds, hit, what in [
        (9, 0, "a machine that is now busy, now free"),
        (15, 3, "and hits one alone now and then"),
        (15, 5, "and often"),
    ]:
        busy = 1 + 9 * torch.rand(rounds, generator=generator, dtype=torch.float64)
        ours, theirs = 0.2 * busy, 0.25 * busy
        ours[:hit] *= 7
        theirs[hit : hit + hit // 2] *= 7
        order = torch.randperm(rounds, generator=generator)
        expect(times_as_fast(ours[order].tolist(), theirs[order].tolist()), 1.25, what)
