"""Exercises of part III, The encoder."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import gelu, layer_norm, linear, relu, rms_norm, silu
from torch.overrides import TorchFunctionMode

from vitlib.config import ViTConfig, named_config
from vitlib.exercises import Answer, exercise, expect, results
from vitlib.nn.activations import swiglu_forward
from vitlib.summary import summary


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
    new_weight, new_bias = results(fold(gamma, beta, weight, bias), 2)
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
        mean, variance = results(merge(*pieces), 2)
        whole = torch.var_mean(x.double(), dim=-1, correction=0, keepdim=True)
        expect(mean, whole[1], f"{what}: the mean", atol=atol)
        expect(variance, whole[0], f"{what}: the variance", atol=atol)


@exercise("block-contributions")
def _(contributions: Answer) -> None:
    x, *weights = _draw((2, 5, 4), (4, 4), (4, 4), (4, 4))
    branches = [lambda x, w=w: (x @ w).tanh() for w in weights]
    stream = [x]
    for branch in branches:
        stream.append(stream[-1] + branch(stream[-1]))
    after = torch.stack(stream)
    parts = contributions(x, branches)
    expect(parts, after.diff(dim=0, prepend=torch.zeros_like(after[:1])), "each part is its own")
    expect(parts.sum(0), stream[-1], "together they are the output")
    expect(contributions(x, []), x[None], "without branches there is the input alone")


@exercise("block-drop-path")
def _(drop_path: Answer) -> None:
    branch, flat = _draw((3, 5, 3), (3, 3))
    keep = torch.tensor([True, False, True])
    factors = torch.tensor([4 / 3, 0, 4 / 3], dtype=torch.float64)
    for values, truth, what in [
        (branch, branch * factors[:, None, None], "images, not features"),
        (flat, flat * factors[:, None], "a branch of two axes"),
    ]:  # a Boolean mask divided by a number is float32
        expect(drop_path(values, 0.25, keep), truth, what, atol=1e-6)
    masks = torch.tensor([[i != j for j in range(3)] for i in range(3)])
    mean = torch.stack([drop_path(branch, 1 / 3, mask) for mask in masks]).mean(0)
    expect(mean, branch, "on average nothing changes", atol=1e-6)


@exercise("mlp-edge")
def _(edge_weights: Answer) -> None:
    (x,) = _draw((50, 2))
    weights = edge_weights()
    shapes = ((2, 4), (4,), (4, 2), (2,))
    if weights is not None and tuple(tuple(array.shape) for array in weights) != shapes:
        raise AssertionError(f"returns other shapes than {', '.join(map(str, shapes))}.")
    y = None
    if weights is not None:
        w_1, b_1, w_2, b_2 = weights
        y = relu(x @ w_1 + b_1) @ w_2 + b_2
    expect(
        y,
        torch.stack([(x[:, 0] - x[:, 1]).abs(), x.amax(-1)], dim=-1),
        "the difference and the larger of the two, for 50 random tokens",
    )


@exercise("mlp-bands")
def _(mlp_in_bands: Answer) -> None:
    x, w_1, b_1, w_2, b_2 = _draw((2, 5, 6), (6, 24), (24,), (24, 6), (6,))
    truth = linear(gelu(linear(x, w_1.mT, b_1)), w_2.mT, b_2)
    for bands in (1, 4, 24):
        expect(
            mlp_in_bands(x, w_1, b_1, w_2, b_2, bands), truth, f"the same output, cut into {bands}"
        )
    with _Widest(x) as widest:
        mlp_in_bands(x, w_1, b_1, w_2, b_2, 3)
    too_many = max(0, max(widest.found) - 8)
    expect(too_many, 0.0, "in 3 bands, at most 8 of 24 hidden units of a token at once")


class _Widest(TorchFunctionMode):
    """Records how many numbers each token has in arrays computed meanwhile, outputs left out."""

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        self.tokens, self.dim = x[..., 0].numel(), x.shape[-1]
        self.found = [0]

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and result.ndim and result.shape[-1] != self.dim:
            numbers, rest = divmod(result.numel(), self.tokens)
            self.found.append(numbers if rest == 0 else 0)
        return result


@exercise("mlp-gate-first")
def _(gates_first: Answer) -> None:
    x, weight, bias = _draw((5, 4), (12, 4), (12,))
    value, gate = linear(x, weight, bias).chunk(2, dim=-1)
    new_weight, new_bias = results(gates_first(weight, bias), 2)
    for array, name, shape in ((new_weight, "weight", (12, 4)), (new_bias, "bias", (12,))):
        if array is not None and array.shape != torch.Size(shape):
            raise AssertionError(f"the {name} has shape {tuple(array.shape)}, not {shape}.")
    hidden = None if new_weight is None else swiglu_forward(linear(x, new_weight, new_bias))[0]
    expect(hidden, silu(gate) * value, "the library's SwiGLU then bends the gates")


@exercise("vit-parameters")
def _(parameters: Answer) -> None:
    sizes: dict[str, Any] = {"dim": 24, "depth": 3, "heads": 4, "mlp_dim": 50, "num_classes": 7}
    for config, what in [
        (named_config("vit_base_patch16_224"), "ViT-B/16"),
        (ViTConfig(image_size=(24, 40), patch_size=(4, 8), **sizes), "a rectangular image"),
        (ViTConfig(image_size=32, patch_size=8, qkv_bias=False, **sizes), "no bias of q, k and v"),
    ]:
        expect(parameters(config), summary(config).parameters, what)


@exercise("vit-crossing")
def _(overtaking_side: Answer) -> None:
    for dim, mlp_dim, patch_size, what in [
        (768, 3072, 16, "ViT-B/16"),
        (192, 768, 16, "ViT-Ti/16"),
        (32, 36, 7, "2 D + M is a square, and the class token tips the balance"),
        (32, 37, 7, "one more hidden unit, and a tie is not yet larger"),
    ]:
        expect(overtaking_side(dim, mlp_dim, patch_size), _side(dim, mlp_dim, patch_size), what)


def _side(dim: int, mlp_dim: int, patch_size: int) -> int:
    """The same by trying one side after the other."""
    side = patch_size
    while True:
        config = ViTConfig(
            image_size=side, patch_size=patch_size, dim=dim, mlp_dim=mlp_dim, depth=1, heads=1
        )
        layers = [x for x in summary(config).layers if x.name.startswith("blocks.")]
        quadratic = sum(x.multiply_adds for x in layers if x.name.endswith(".attn"))
        if 2 * quadratic > sum(x.multiply_adds for x in layers):
            return side
        side += patch_size


@exercise("block-backward")
def _(stream_backward: Answer) -> None:
    x, cotangent, *weights = _draw((5, 4), (5, 4), (4, 4), (4, 4), (4, 4))
    for count, what in [(1, "one branch"), (3, "three branches, in their order")]:
        stream = [x.clone().requires_grad_()]
        for weight in weights[:count]:
            stream.append(stream[-1] + stream[-1] @ weight)
        truth = torch.autograd.grad(stream[-1], stream, cotangent)
        branches = [partial(linear, weight=weight) for weight in weights[:count]]
        expect(stream_backward(cotangent.clone(), branches), torch.stack(truth), what)


@exercise("vit-readout")
def _(readout_backward: Answer) -> None:
    x, weight, grad_z = _draw((3, 6, 4), (5, 4), (3, 5))
    for prefix, what in [(0, "all tokens are patches"), (2, "two tokens have no vote")]:
        leaf = x.clone().requires_grad_()
        z = layer_norm(leaf, (4,), eps=0)[:, prefix:].mean(1) @ weight.mT
        (truth,) = torch.autograd.grad(z, leaf, grad_z)
        expect(readout_backward(grad_z, x.clone(), weight, prefix), truth, what)


@exercise("mlp-from-output")
def _(relu_mlp_backward: Answer) -> None:
    grad_y, x, w_1, b_1, w_2, b_2 = _draw((2, 5, 4), (2, 5, 4), (4, 6), (6,), (6, 4), (4,))
    leaves = [array.requires_grad_() for array in (x, w_1, b_1, w_2, b_2)]
    h = relu(linear(x, w_1.mT, b_1))
    truth = torch.autograd.grad(linear(h, w_2.mT, b_2), leaves, grad_y)
    given = [array.detach() for array in (grad_y, x, h, w_1, w_2)]
    before = [array.clone() for array in given]
    found = relu_mlp_backward(*given) or [None] * 5
    for name, gradient, right in zip(("X", "W_1", "b_1", "W_2", "b_2"), found, truth, strict=True):
        expect(gradient, right, f"the gradient of {name} is equal to autograd")
    for name, array, old in zip(("grad_y", "x", "h", "w_1", "w_2"), given, before, strict=True):
        expect(array, old, f"{name} is as it was given")
