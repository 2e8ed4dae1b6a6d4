"""Exercises of part IV, Learning."""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from vitlib.exercises import Answer, exercise, expect


def _draw(*shapes: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


@exercise("loss-margin")
def _(margin_loss: Answer) -> None:
    (margin,) = _draw((6,))
    logits = torch.stack([margin, torch.zeros_like(margin)], dim=-1)
    truth = cross_entropy(logits, torch.zeros(6, dtype=torch.int64), reduction="none")
    expect(margin_loss(margin), truth, "equal to PyTorch's cross-entropy of two classes")
    far = torch.tensor([-1e4, 1e4])
    expect(margin_loss(far), torch.tensor([1e4, 0.0]), "10,000 and 0 at ∓10,000 in float32")
    small = margin_loss(torch.tensor([40.0]))
    expect(
        None if small is None else small.log(),
        torch.tensor([-40.0]),
        "e^−40, not 0, at a margin of 40 in float32",
        atol=1e-3,
    )


@exercise("loss-squared-error")
def _(squared_error_backward: Answer) -> None:
    z, y = _draw((5, 4), (5, 4))
    for targets, what in [
        (one_hot(y.argmax(-1), 4).double(), "equal to autograd for labels"),
        (y, "equal to autograd for rows of any numbers"),
    ]:
        leaf = z.clone().requires_grad_()
        (leaf.softmax(-1) - targets).square().sum(-1).mean().backward()
        assert leaf.grad is not None
        expect(squared_error_backward(z, targets), leaf.grad, what)
    expect(
        squared_error_backward(1000 * z, y).sum(-1),
        torch.zeros(5, dtype=torch.float64),
        "sums to zero in each row, for logits in the thousands",
    )


@exercise("loss-temperature")
def _(temperature_slope: Answer) -> None:
    (z,) = _draw((8, 5))
    labels = torch.arange(8) % 5
    for tau in (0.5, 1.0, 3.0):
        leaf = torch.tensor(tau, dtype=torch.float64, requires_grad=True)
        cross_entropy(z / leaf, labels).backward()
        assert leaf.grad is not None
        expect(temperature_slope(z, labels, tau), leaf.grad, f"equal to autograd at τ = {tau:g}")
