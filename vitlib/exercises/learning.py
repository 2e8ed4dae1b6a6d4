"""Exercises of part IV, Learning."""

from unittest.mock import patch

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, one_hot

from vitlib.config import ViTConfig
from vitlib.exercises import Answer, exercise, expect
from vitlib.nn.tokens import tokens_forward
from vitlib.nn.vit import VisionTransformer


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


@exercise("backprop-planted")
def _(wrong: Answer) -> None:
    w_1, w_2, shift, x, noise = _draw((6, 6), (6, 6), (6,), (9, 6), (6,))
    parameters = {"w_1": w_1, "shift": shift, "w_2": w_2, "gain": torch.ones_like(shift)}

    def loss(p: dict[str, Tensor]) -> Tensor:
        # a shift of all scores of a row does nothing: its gradient is exactly zero
        scores = x @ p["w_1"] * p["gain"] + p["shift"].sum()
        return (scores.softmax(-1) @ p["w_2"]).square().mean()

    leaves = {name: value.clone().requires_grad_() for name, value in parameters.items()}
    loss(leaves).backward()
    truth = {name: leaf.grad for name, leaf in leaves.items() if leaf.grad is not None}
    hidden = torch.zeros_like(noise)
    hidden[0], hidden[1] = truth["gain"].abs().max(), -truth["gain"].abs().max()
    for changes, what in [
        ({}, "all False where nothing is wrong, a gradient of zero included"),
        ({"w_1": truth["w_1"].mT}, "finds a lost transpose"),
        ({"w_2": -truth["w_2"]}, "finds a lost sign"),
        ({"gain": truth["gain"] + hidden}, "finds two errors that sum to zero"),
        ({"shift": 0.01 * noise, "w_2": 2 * truth["w_2"]}, "finds two parameters at a time"),
    ]:
        planted = torch.tensor([name in changes for name in parameters])
        expect(wrong(loss, parameters, {**truth, **changes}), planted, what)


@exercise("backprop-layer-scale")
def _(layer_scale_backward: Answer) -> None:
    x, weight, gamma, grad_y = _draw((3, 5, 4), (4, 4), (4,), (3, 5, 4))
    for scale, what in [(gamma, "random gains"), (torch.zeros_like(gamma), "gains of zero")]:
        leaf, gain = x.clone().requires_grad_(), scale.clone().requires_grad_()
        (leaf + gain * torch.tanh(leaf @ weight)).backward(grad_y)
        assert leaf.grad is not None
        assert gain.grad is not None
        branch = torch.tanh(x @ weight)
        slope = 1 - branch.square()

        def f_backward(grad: Tensor, slope: Tensor = slope) -> Tensor:
            return (grad * slope) @ weight.mT

        answer = layer_scale_backward(grad_y, branch, scale, f_backward)
        grad_x, grad_gamma = (None, None) if answer is None else answer
        expect(grad_x, leaf.grad, f"the gradient of X is autograd's, for {what}")
        expect(grad_gamma, gain.grad, f"the gradient of γ is autograd's, for {what}")


@exercise("backprop-step")
def _(step: Answer) -> None:
    config = ViTConfig(
        image_size=4, patch_size=2, in_channels=1, num_classes=3, dim=4, depth=2, heads=2, mlp_dim=6
    )
    model = VisionTransformer(config).double()
    draws = _draw((7, 1, 4, 4), *(parameter.shape for parameter in model.parameters()))
    images, labels = draws[0], torch.arange(7) % 3
    start = dict(zip(dict(model.named_parameters()), draws[1:], strict=True))
    model.load_state_dict(start)
    cross_entropy(model(images), labels).backward()
    truth = {
        name: start[name] - 0.1 * parameter.grad
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }
    for at_once, what in [
        (7, "the step of autograd, all images at once"),
        (1, "the same, one at a time"),
        (3, "the same, three at a time, with one left over"),
    ]:
        given = {name: value.clone() for name, value in start.items()}
        with patch("vitlib.nn.vit.tokens_forward", wraps=tokens_forward) as calls:
            new = step(given, images, labels, config, 0.1, at_once)
        expect(None if new is None else _flat(new, start), _flat(truth, start), what)
        expect(_flat(given, start), _flat(start, start), "leaves the old parameters alone")
        most = max((len(call.args[0]) for call in calls.call_args_list), default=0)
        expect(float(most > at_once), 0.0, f"never more than {at_once} in memory")


def _flat(parameters: dict[str, Tensor], order: dict[str, Tensor]) -> Tensor:
    return torch.cat([parameters[name].flatten() for name in order])


@exercise("loss-left-out")
def _(left_out_backward: Answer) -> None:
    (z,) = _draw((5, 4))
    for labels, what in [
        (torch.tensor([3, 0, 1, 1, 2]), "every image has a label"),
        (torch.tensor([3, -1, 1, -1, 2]), "two images are left out, of sum and count"),
    ]:
        leaf = z.clone().requires_grad_()
        cross_entropy(leaf, labels, ignore_index=-1).backward()
        assert leaf.grad is not None
        expect(left_out_backward(z.clone(), labels), leaf.grad, what)


@exercise("loss-starting-bias")
def _(starting_bias: Answer) -> None:
    rows = torch.arange(20)[:, None]  # 20 images, of which so many show each class
    several = (rows < torch.tensor([10, 4, 1, 17])).double()
    for shown, what in [
        (several, "no slope where an image may show several classes"),
        (torch.eye(2).double(), "no slope for one image of each of two classes"),
        (torch.eye(1000).double(), "no slope for one image of each of a thousand"),
    ]:
        bias = starting_bias(shown.mean(0))
        leaf = torch.zeros(shown.shape[1:]).double() if bias is None else bias.detach().clone()
        loss = binary_cross_entropy_with_logits(leaf.requires_grad_().expand_as(shown), shown)
        loss.backward()
        assert leaf.grad is not None
        slope = None if bias is None else leaf.grad * shown.shape[1]
        expect(slope, torch.zeros(shown.shape[1:]).double(), what)


@exercise("optimisation-polar")
def _(polar: Answer) -> None:
    for shape, scale, what in [
        ((4, 7), 1.0, "the singular vectors stay and the singular values become 1"),
        ((7, 4), 1.0, "the same for a tall matrix"),
        ((5, 3), 1e3, "the same for a matrix of large entries"),
        ((3, 5), 1e-3, "and for one of small entries"),
    ]:
        (matrix,) = _draw(shape)
        u, _, v = torch.linalg.svd(matrix, full_matrices=False)
        expect(polar(scale * matrix, 60), u @ v, what)
    u, values, v = torch.linalg.svd(matrix / matrix.norm(), full_matrices=False)
    expected = u @ torch.diag(1.5 * values - 0.5 * values**3) @ v
    with patch("torch.linalg.svd", side_effect=RuntimeError("a decomposition, not products")):
        expect(polar(matrix, 1), expected, "one step is one step of the polynomial")


@exercise("optimisation-ema")
def _(shares: Answer) -> None:
    for beta, k in [(0.9, 1), (0.9, 4), (0.5, 7), (0.999, 2000)]:
        # an average of the rows of the unit matrix: each row that comes in marks its own place
        truth = torch.zeros(k + 1, dtype=torch.float64)
        truth[0] = 1
        for step in range(1, k + 1):
            truth.mul_(beta)
            truth[step] += 1 - beta
        expect(shares(beta, k), truth, f"as the average itself, β = {beta:g} and {k} steps")
