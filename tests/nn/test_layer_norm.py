import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from vitlib.nn.layer_norm import LayerNorm, layer_norm_backward, layer_norm_forward

pytestmark = pytest.mark.usefixtures("float64")

sizes = st.integers(1, 3)
shapes = st.tuples(st.lists(sizes, max_size=2), sizes, st.integers(4, 6)).map(
    lambda s: (*s[0], *s[1:])
)


@settings(max_examples=40)
@given(shapes)
def test_gradients(assert_gradients, shape):
    x, weight, bias = 3 * torch.randn(shape), torch.randn(shape[-1]), torch.randn(shape[-1])
    assert_gradients(layer_norm_forward, layer_norm_backward, x, weight, bias, 0.1)


@given(shapes, st.sampled_from([1e-12, 1e-6, 1e-5, 0.1]))
def test_it_is_pytorchs_layer_norm(shape, eps):
    x, weight, bias = torch.randn(shape), torch.randn(shape[-1]), torch.randn(shape[-1])
    y, _ = layer_norm_forward(x, weight, bias, eps)
    torch.testing.assert_close(y, functional.layer_norm(x, shape[-1:], weight, bias, eps))


@given(shapes)
def test_tokens_come_out_with_mean_0_and_variance_1(shape):
    x = 5 + 3 * torch.randn(shape)
    y, _ = layer_norm_forward(x, torch.ones(shape[-1]), torch.zeros(shape[-1]), 1e-12)
    torch.testing.assert_close(y.mean(-1), torch.zeros(shape[:-1]))
    torch.testing.assert_close(y.var(-1, correction=0), torch.ones(shape[:-1]))


def test_the_gradient_is_orthogonal_to_what_the_layer_ignores():
    x, weight, bias = torch.randn(3, 8), torch.randn(8), torch.randn(8)
    _, saved = layer_norm_forward(x, weight, bias, 1e-15)
    grad_x, _, _ = layer_norm_backward(torch.randn(3, 8), saved)
    assert grad_x.abs().max() > 0.1
    torch.testing.assert_close(grad_x.sum(-1), torch.zeros(3))  # a shift of the token
    torch.testing.assert_close((grad_x * saved.x_hat).sum(-1), torch.zeros(3))  # a stretch


def test_a_constant_token_is_left_with_the_bias():
    bias = torch.randn(4)
    y, saved = layer_norm_forward(torch.full((2, 4), 7.0), torch.randn(4), bias)
    assert torch.equal(y, bias.expand(2, 4))
    assert all(grad.isfinite().all() for grad in layer_norm_backward(torch.randn(2, 4), saved))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_precision_is_the_inputs(dtype):
    x, weight, bias = torch.randn(3, 4, 5).to(dtype).unbind()
    y, saved = layer_norm_forward(x, weight[0], bias[0])
    assert y.dtype == saved.x_hat.dtype == layer_norm_backward(y, saved)[0].dtype == dtype


@pytest.mark.parametrize("needed", list(itertools.product((True, False), repeat=3)))
def test_only_what_is_needed_is_computed(needed):
    y, saved = layer_norm_forward(torch.randn(3, 4), torch.randn(4), torch.randn(4))
    grads = layer_norm_backward(torch.randn_like(y), saved, needed)
    assert [grad is not None for grad in grads] == list(needed)


def test_epsilon_is_a_millionth_unless_told():
    x, weight, bias = 1e-3 * torch.randn(3, 4), torch.randn(4), torch.randn(4)
    expected, _ = layer_norm_forward(x, weight, bias, 1e-6)
    assert torch.equal(layer_norm_forward(x, weight, bias)[0], expected)
    assert LayerNorm(4).eps == 1e-6


@pytest.mark.parametrize("shape", [(5, 6), (2, 5, 6), (2, 3, 5, 6)])
def test_the_module_in_both_modes(assert_modes_agree, shape):
    def make(gradients):
        norm = LayerNorm(6, 1e-5, gradients)
        torch.nn.init.normal_(norm.weight)
        torch.nn.init.normal_(norm.bias)
        return norm

    assert_modes_agree(make, torch.randn(shape))
