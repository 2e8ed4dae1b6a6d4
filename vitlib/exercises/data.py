"""Exercises of the chapter on data."""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from vitlib.exercises import Answer, exercise, expect, results


def _draw(*shapes: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


@exercise("data-mixup")
def _(mixup_backward: Answer) -> None:
    z, noise = _draw((5, 4), (5, 4))
    for y, part, what in [
        (one_hot(noise.argmax(-1), 4).double(), 0.3, "equal to autograd for labels, at α = 0.3"),
        (noise.softmax(-1), 0.8, "equal to autograd for rows that sum to 1, at α = 0.8"),
    ]:
        leaf = z.clone().requires_grad_()
        rows = [part * y[b] + (1 - part) * y[b - 1] for b in range(5)]
        cross_entropy(leaf, torch.stack(rows)).backward()
        assert leaf.grad is not None
        expect(mixup_backward(z, y, part), leaf.grad, what)


@exercise("data-cutmix")
def _(paste: Answer) -> None:
    images, targets = torch.rand(3, 2, 6, 8, dtype=torch.float64), torch.eye(3).double()
    for box, what in [
        ((1, 4, 2, 7), "a box inside"),
        ((-2, 3, 5, 11), "a box that hangs over two edges"),
        ((-1, 7, -1, 9), "a box that holds everything"),
        ((2, 2, 3, 6), "a box without height"),
        ((-3, -1, 0, 4), "a box that lies outside"),
    ]:
        top, bottom, left, right = box
        mixed, kept = images.clone(), 0
        for row in range(6):
            for column in range(8):
                if top <= row < bottom and left <= column < right:
                    mixed[:, :, row, column] = images[[2, 0, 1], :, row, column]
                else:
                    kept += 1
        new_images, new_targets = results(paste(images.clone(), targets.clone(), *box), 2)
        expect(new_images, mixed, f"the pixels, with {what}")
        part = kept / 48
        expected = part * targets + (1 - part) * targets[[2, 0, 1]]
        expect(new_targets, expected, f"the target counts them, with {what}")


@exercise("data-resume")
def _(batches: Answer) -> None:
    asked: list[int] = []

    def order(epoch: int) -> Tensor:
        asked.append(epoch)
        return torch.randperm(11, generator=torch.Generator().manual_seed(epoch))

    def steps(first: int, last: int) -> Tensor | None:
        found = batches(11, 3, order, first, last)
        return torch.stack(list(found)) if found else None

    truth = torch.cat([order(epoch)[:9].view(3, 3) for epoch in range(4)])
    expect(steps(0, 12), truth, "four epochs of three batches, without what is left over")
    expect(steps(5, 8), truth[5:8], "from the middle of an epoch into the next")
    asked.clear()
    expect(steps(7, 9), truth[7:9], "the end of the third epoch")
    expect(float(asked != [2]), 0.0, "of which alone the order was asked for, and once")


@exercise("data-paired")
def _(paired_error: Answer) -> None:
    first, second = (draw > -1 for draw in _draw((200,), (200,)))
    both = torch.stack([first, second]).double()
    covariance = torch.cov(both, correction=0)
    variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    expect(paired_error(first, second), (variance / 200).sqrt(), "as from the covariance")
    expect(paired_error(first, first), 0.0, "0 if they are right on the same images")
    part = first.double().mean()
    opposite = 2 * (part * (1 - part) / 200).sqrt()
    expect(paired_error(first, ~first), opposite, "twice that of one, if always one is right")
