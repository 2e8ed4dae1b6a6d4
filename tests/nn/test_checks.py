"""What a derived backward pass refuses, and what it must let through."""

import math

import pytest
import torch

from vitlib import VisionTransformer, ViTConfig
from vitlib.nn import (
    activations,
    attention,
    blockwise,
    layer_norm,
    layer_scale,
    linear,
    loss,
    mlp,
    sigmoid_loss,
    softmax,
)
from vitlib.nn.block import (
    block_backward,
    block_forward,
    scaled_backward,
    scaled_forward,
)
from vitlib.nn.dropout import Drop, dropout_backward, dropout_forward
from vitlib.nn.embedding import embedding_backward, embedding_forward
from vitlib.nn.head import pre_logits, pre_logits_backward, pre_logits_forward
from vitlib.nn.multi_head import multi_head, multi_head_backward, multi_head_forward
from vitlib.nn.vit import vit_backward, vit_forward

CONFIG = ViTConfig(
    image_size=4, patch_size=2, in_channels=1, num_classes=3, dim=4, depth=1, heads=2, mlp_dim=6
)


def pair(module, name):
    return getattr(module, f"{name}_forward"), getattr(module, f"{name}_backward")


def weights(fan_out, fan_in):
    return torch.randn(fan_out, fan_in), torch.randn(fan_out)


def block_parameters():
    norm = torch.randn(4), torch.randn(4)
    return norm, (weights(12, 4), weights(4, 4)), norm, (weights(6, 4), weights(4, 6))


def parameters():
    return {name: p.detach() for name, p in VisionTransformer(CONFIG).named_parameters()}


X = (2, 5, 4)
PAIRS = {
    "linear": (*pair(linear, "linear"), lambda: (torch.randn(X), *weights(3, 4))),
    "embedding": (
        embedding_forward,
        embedding_backward,
        lambda: (torch.randn(2, 1, 4, 4), torch.randn(3, 1, 2, 2), torch.randn(3)),
    ),
    "softmax": (*pair(softmax, "softmax"), lambda: (torch.randn(X),)),
    "attention": (*pair(attention, "attention"), lambda: [torch.randn(X) for _ in range(3)]),
    "blockwise": (*pair(blockwise, "blockwise"), lambda: [torch.randn(X) for _ in range(3)]),
    "multi_head": (
        multi_head_forward,
        multi_head_backward,
        lambda: (torch.randn(X), weights(12, 4), weights(4, 4), 2),
    ),
    "layer_norm": (
        *pair(layer_norm, "layer_norm"),
        lambda: (torch.randn(X), torch.randn(4), torch.randn(4)),
    ),
    "layer_scale": (
        *pair(layer_scale, "layer_scale"),
        lambda: (torch.randn(X), torch.randn(4)),
    ),
    **{name: (*pair, lambda: (torch.randn(X),)) for name, pair in activations.ACTIVATIONS.items()},
    "mlp": (*pair(mlp, "mlp"), lambda: (torch.randn(X), weights(6, 4), weights(4, 6))),
    "block": (block_forward, block_backward, lambda: (torch.randn(X), block_parameters(), 2, 1e-6)),
    "scaled": (
        scaled_forward,
        scaled_backward,
        lambda: (torch.randn(X), block_parameters(), (torch.randn(4), torch.randn(4)), 2, 1e-6),
    ),
    "pre_logits": (
        pre_logits_forward,
        pre_logits_backward,
        lambda: (torch.randn(3, 4), *weights(4, 4)),
    ),
    "loss": (*pair(loss, "cross_entropy"), lambda: (torch.randn(3, 4), torch.tensor([0, 3, 1]))),
    "sigmoid_loss": (
        *pair(sigmoid_loss, "binary_cross_entropy"),
        lambda: (torch.randn(3, 4), torch.tensor([0, 3, 1])),
    ),
    "network": (vit_forward, vit_backward, lambda: (torch.randn(2, 1, 4, 4), parameters(), CONFIG)),
}


@pytest.fixture(params=PAIRS.values(), ids=PAIRS)
def called(request):
    """A backward, its output's gradient and what was saved."""
    forward, backward, inputs = request.param
    y, saved = forward(*inputs())
    return backward, torch.randn_like(y), saved


def wider(grad_y):
    return torch.randn(*grad_y.shape, 1)


def more(grad_y):
    return torch.randn(*grad_y.shape[:-1], 1 + grad_y.shape[-1]) if grad_y.ndim else torch.randn(2)


def one_row(grad_y):
    """It would broadcast."""
    return grad_y.reshape(-1, grad_y.shape[-1])[0] if grad_y.ndim else torch.randn(1)


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize("change", [wider, more, one_row])
def test_a_gradient_of_another_shape_is_told_in_one_line(called, change):
    backward, grad_y, saved = called
    wrong = change(grad_y)
    with pytest.raises(ValueError, match=r"the gradient has shape \(.*\): expected") as caught:
        backward(wrong, saved)
    assert str(tuple(wrong.shape)) in str(caught.value)
    assert str(tuple(grad_y.shape)) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.float64, torch.bfloat16])
def test_a_gradient_of_another_type_is_told_in_one_line(called, dtype):
    backward, grad_y, saved = called
    with pytest.raises(TypeError, match=f"the gradient is {dtype}: expected .*float32") as caught:
        backward(grad_y.to(dtype), saved)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_under_autocast_either_precision_will_do(called, dtype):
    backward, grad_y, saved = called
    with torch.autocast("cpu", torch.bfloat16):
        backward(grad_y.to(dtype), saved)


@pytest.mark.parametrize("fault", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_never_dropped(called, fault):
    """Were one of them lost, a run that has diverged would look healthy."""
    backward, grad_y, saved = called
    grad_y = grad_y.clone()
    grad_y.view(-1)[-1] = fault
    grads = backward(grad_y, saved)
    first = grads[0] if isinstance(grads, tuple) else grads
    assert not first.isfinite().all()


@pytest.mark.parametrize("fault", [math.nan, math.inf])
@pytest.mark.parametrize("name", PAIRS)
def test_what_is_no_number_in_the_input_reaches_the_gradients(name, fault):
    forward, backward, inputs = PAIRS[name]
    x, *others = inputs()
    x.view(-1)[0] = fault
    y, saved = forward(x, *others)
    grads = backward(torch.ones_like(y), saved)
    flat = [grads] if isinstance(grads, torch.Tensor) else tensors(grads)
    # their slopes are finite at infinity, rightly
    linear_alone = name in ("relu", "sigmoid_loss") and fault == math.inf
    assert linear_alone or not all(grad.isfinite().all() for grad in flat)


def tensors(nest):
    if isinstance(nest, torch.Tensor):
        return [nest]
    branches = nest.values() if isinstance(nest, dict) else nest or ()
    return [tensor for branch in branches for tensor in tensors(branch)]


def test_a_dropped_number_that_is_no_number_is_not_hidden():
    x = torch.tensor([1.0, math.nan])
    drop = Drop(torch.tensor([True, False]), 0.5)
    assert dropout_forward(x, drop)[0].isnan().tolist() == [False, True]
    assert dropout_backward(x, drop).isnan().tolist() == [False, True]


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize("gradients", ["autograd", "derived"])
@pytest.mark.parametrize(
    ("function", "inputs"),
    [
        (softmax.softmax, ()),
        (linear.linear, weights(3, 4)),
        (layer_norm.layer_norm, (torch.randn(4), torch.randn(4))),
        (multi_head, (weights(12, 4), weights(4, 4), 2)),
        (mlp.mlp, (weights(6, 4), weights(4, 6))),
        (pre_logits, weights(4, 4)),
    ],
    ids=["softmax", "linear", "layer_norm", "multi_head", "mlp", "pre_logits"],
)
def test_integers_are_told_in_one_line(function, inputs, gradients):
    x = torch.ones(X, dtype=torch.int64)
    name = function.__name__.removesuffix("_forward")
    told = f"^{name} was given torch.int64: expected floating point"
    with pytest.raises(TypeError, match=told) as caught:
        function(x, *inputs, gradients=gradients)
    assert "\n" not in str(caught.value)
