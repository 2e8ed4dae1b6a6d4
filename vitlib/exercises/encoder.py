"""Exercises of part III, The encoder."""

import torch
from torch import Tensor
from torch.nn.functional import layer_norm, rms_norm

from vitlib.exercises import Answer, exercise, expect


def _draw(*shapes: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


@exercise("norm-rms-backward")
def _(rms_norm_backward: Answer) -> None:
    x, grad = _draw((2, 5, 6), (2, 5, 6))
    for eps in (1e-6, 0.1):
        leaf = x.clone().requires_grad_()
        (truth,) = torch.autograd.grad(rms_norm(leaf, (6,), eps=eps), leaf, grad)
        expect(rms_norm_backward(grad, x, eps), truth, f"equal to autograd with ε = {eps:g}")
    expect(
        (rms_norm_backward(grad, x, 0.0) * x).sum(-1),
        torch.zeros(2, 5, dtype=torch.float64),
        "orthogonal to the token when ε is 0",
    )


@exercise("norm-fold")
def _(fold: Answer) -> None:
    gamma, beta, weight, bias = _draw((6,), (6,), (6, 4), (4,))
    new_weight, new_bias = fold(gamma, beta, weight, bias) or (None, None)
    zeros = layer_norm(torch.zeros(1, 6, dtype=torch.float64), (6,), gamma, beta)
    expect(new_bias, (zeros @ weight + bias)[0], "the bias is what a token of zeros comes to")
    expect(
        new_weight, gamma.diag() @ weight, "row i of the weight is scaled by entry i of the gain"
    )


@exercise("norm-merge")
def _(merge: Answer) -> None:
    for level, atol, what in [
        (0.0, 1e-9, "mean and variance of the whole, for pieces of 3 and 5 entries"),
        (1e4, 1e-2, "the same in float32 at a mean of 10,000"),
    ]:
        (x,) = _draw((7, 8))
        x = (x + level).to(torch.float64 if level == 0 else torch.float32)
        pieces: list[Tensor | int] = []
        for piece in x.split([3, 5], dim=-1):
            variance, mean = torch.var_mean(piece, dim=-1, correction=0, keepdim=True)
            pieces += [piece.shape[-1], mean, variance]
        mean, variance = merge(*pieces) or (None, None)
        whole = torch.var_mean(x.double(), dim=-1, correction=0, keepdim=True)
        expect(mean, whole[1], f"{what}: the mean", atol=atol)
        expect(variance, whole[0], f"{what}: the variance", atol=atol)
