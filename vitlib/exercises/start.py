"""Exercises of the part Start."""

import torch
from torch import Tensor
from torch.nn.functional import linear, silu

from vitlib.exercises import Answer, exercise, expect


def _draw(*shapes: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


@exercise("receptive-field")
def _(receptive_field: Answer) -> None:
    expect(receptive_field([(3, 1)]), 3, "one convolution of width 3 sees 3 pixels")
    expect(receptive_field([(3, 1)] * 12), 25, "each further one adds 2: twelve see 25")
    expect(receptive_field([(7, 2), (3, 2), (3, 1)]), 19, "strides widen what comes after them")
    expect(receptive_field([(16, 16)]), 16, "a patch embedding sees its patch")


@exercise("count-weights")
def _(count_weights: Answer) -> None:
    expect(count_weights(8, 4, 1, 4, 1, 8, 10), 322, "the running example has 322")
    expect(count_weights(224, 16, 3, 768, 12, 3072, 1000), 86_567_656, "ViT-B/16 has 86,567,656")
    expect(count_weights(224, 16, 3, 192, 12, 768, 1000), 5_717_416, "ViT-Ti/16 has 5,717,416")


@exercise("columns-to-rows")
def _(as_rows: Answer) -> None:
    w, b, x = _draw((3, 5), (3, 1), (5, 7))
    expect(as_rows(w, b, x), (w @ x + b).mT, "the same numbers as W x + b, with tokens as rows")
    expect(
        as_rows(w, b, x),
        linear(x.mT, w, b.flatten()),
        "which is what PyTorch computes, since it stores W as it is",
    )


@exercise("read-indices")
def _(weighted_wishes: Answer) -> None:
    a, g, v = _draw((6, 6), (6, 3), (6, 3))
    wishes = [[a[t, u] * (g[t] @ v[u]) for u in range(6)] for t in range(6)]
    truth = torch.stack([torch.stack(of_token).sum() for of_token in wishes])
    expect(weighted_wishes(a, g, v), truth, "one number for each t, summed over j and u")
    batch = [tensor.expand(2, 4, *tensor.shape) for tensor in (a, g, v)]
    expect(
        weighted_wishes(*batch), truth.expand(2, 4, -1), "leading axes, as of batch and head, stay"
    )


@exercise("numerical-gradient")
def _(numerical_gradient: Answer) -> None:
    x, w = _draw((2, 3), (3, 4))
    before = x.clone()
    expect(
        numerical_gradient(lambda x: float((x**3).sum()), x, 1e-4),
        3 * x**2,
        "the gradient of the sum of cubes, in the shape of x",
        atol=1e-6,
    )
    tracked = x.clone().requires_grad_()
    (truth,) = torch.autograd.grad(torch.tanh(tracked @ w).square().sum(), tracked)
    expect(
        numerical_gradient(lambda x: float(torch.tanh(x @ w).square().sum()), x, 1e-4),
        truth,
        "the same as autograd when all entries act together",
        atol=1e-6,
    )
    expect(
        numerical_gradient(lambda x: float((x**3).sum()), torch.zeros(2, 1).double(), 0.1),
        torch.full((2, 1), 0.01, dtype=torch.float64),
        "to both sides: for a cube at 0 the error is the square of the step",
    )
    expect(x, before, "x is left as it was")


@exercise("quadratic-backward")
def _(quadratic_backward: Answer) -> None:
    grad, x, w = _draw((5, 5), (5, 3), (3, 3))
    tracked = x.clone().requires_grad_()
    (truth,) = torch.autograd.grad(tracked @ w @ tracked.mT, tracked, grad)
    expect(quadratic_backward(grad, x, w), truth, "equal to autograd, both uses of X counted")
    symmetric, grad = w + w.mT, grad + grad.mT
    expect(
        quadratic_backward(grad, x, symmetric),
        2 * grad @ x @ symmetric,
        "twice one of them when all is symmetric",
    )


@exercise("silu-backward")
def _(silu_backward: Answer) -> None:
    grad, x = _draw((4, 6), (4, 6))
    tracked = x.clone().requires_grad_()
    (truth,) = torch.autograd.grad(silu(tracked), tracked, grad)
    expect(silu_backward(grad, x), truth, "equal to autograd for shape (4, 6)")
    far = torch.tensor([-1000.0, 1000.0], dtype=torch.float64)
    expect(
        silu_backward(torch.ones_like(far), far),
        torch.tensor([0.0, 1.0], dtype=torch.float64),
        "0 far to the left and 1 far to the right, without overflow",
    )
