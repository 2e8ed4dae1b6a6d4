"""Exercises of part IV, Learning: from one device to many."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from vitlib.exercises import Answer, exercise, expect


def _draw(*shapes: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


@exercise("scaling-unequal")
def _(mean_gradient: Answer) -> None:
    x, weight = _draw((12, 5), (5, 4))
    labels = torch.arange(12) % 4

    def gradient(part: slice) -> Tensor:
        leaf = weight.clone().requires_grad_()
        cross_entropy(x[part] @ leaf, labels[part]).backward()
        assert leaf.grad is not None
        return leaf.grad

    truth = gradient(slice(None))
    for counts, what in [
        ((4, 4, 4), "the gradient of all images, for equal parts"),
        ((7, 1, 4), "the same for unequal parts"),
        ((9, 0, 3), "the same where a process has no images"),
    ]:
        ends = torch.tensor(counts).cumsum(0).tolist()
        parts = [slice(end - count, end) for end, count in zip(ends, counts, strict=True)]
        gradients = torch.stack([gradient(part) for part in parts])
        expect(mean_gradient(gradients, torch.tensor(counts)), truth, what)


@exercise("scaling-share")
def _(mine: Answer) -> None:
    for images, count in [(12, 4), (14, 4), (3, 4), (7, 1)]:
        batch = torch.randperm(images, generator=torch.Generator().manual_seed(0))
        parts = [mine(batch, rank, count) for rank in range(count)]
        joined = None if any(part is None for part in parts) else torch.cat(parts)
        expect(joined, batch, f"{count} parts of {images} images are all images, each once")
        sizes = [len(part) for part in parts]
        uneven = float(max(sizes) - min(sizes))
        expect(uneven, float(images % count > 0), "no part is larger than another by more than 1")


@exercise("scaling-clip")
def _(clipped: Answer) -> None:
    (gradient,) = _draw((12,))
    gradient[:4] *= 10  # most of the length lies with one process
    shards = gradient.split(4)
    for largest, what in [
        (0.5, "a gradient of which every shard is too long"),
        (5.0, "one that has short shards, too"),
        (100.0, "one that is short, and stays"),
    ]:
        truth = gradient * min(1.0, largest / float(gradient.norm()))
        sent: list[list[Tensor]] = [[] for _ in shards]
        for shard, said in zip(shards, sent, strict=True):  # once, to hear what each has to say
            if clipped(shard.clone(), largest, _remembering(said, None)) is None:
                expect(None, truth, "clips as a whole what each process has a third of")
        calls = [len(said) for said in sent]
        if calls != [1] * len(shards):
            raise AssertionError(f"the processes ask for {calls} sums. Wanted: one from each.")
        total = torch.stack([said[0] for said in sent]).sum(0)
        found = [clipped(shard.clone(), largest, _remembering([], total)) for shard in shards]
        expect(torch.cat(found), truth, f"clips as a whole: {what}", atol=1e-5)
        expect(float(total.numel()), 1.0, "one number from each process is enough")


def _remembering(said: list[Tensor], total: Tensor | None) -> Callable[[Tensor], Tensor]:
    """A sum over all processes: notes what is put in, and returns what is known to come out."""

    def total_over_all(number: Tensor | float) -> Tensor:
        said.append(torch.as_tensor(number, dtype=torch.float64).clone())
        return said[-1] if total is None else total

    return total_over_all


@exercise("scaling-nodes")
def _(network_bytes: Answer) -> None:
    for nodes, each, numbers in [(2, 2, 8), (2, 4, 16), (3, 2, 12), (8, 8, 1280)]:
        expect(
            network_bytes(nodes, each, numbers),
            float(_leaving_a_node(nodes, each, numbers)),
            f"as counted: {nodes} nodes of {each} processes, {numbers} numbers",
        )


def _leaving_a_node(nodes: int, each: int, numbers: int) -> int:
    """Bytes that node 0 sends to other nodes, message by message."""
    count = 0
    for _ in range(each):  # a ring for each place in a node, through all nodes
        part = torch.zeros(numbers // each, dtype=torch.float32)
        for _ in range(2):  # sum and scatter, then gather
            for _ in range(nodes - 1):
                count += part.chunk(nodes)[0].nbytes
    return count
