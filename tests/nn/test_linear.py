import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from vitlib.nn.linear import Linear, linear_backward, linear_forward

pytestmark = pytest.mark.usefixtures("float64")

sizes = st.integers(1, 4)


@given(st.lists(sizes, max_size=2), sizes, sizes, st.booleans())
def test_gradients(assert_gradients, batch, width, out, bias):
    inputs = torch.randn(*batch, width), torch.randn(out, width)
    bias = torch.randn(out) if bias else None
    assert_gradients(linear_forward, linear_backward, *inputs, bias)


def test_it_is_pytorchs_linear_layer_also_on_what_is_not_contiguous():
    x, weight, bias = torch.randn(3, 4, 5).mT, torch.randn(4, 6).mT, torch.randn(6)
    y, _ = linear_forward(x, weight, bias)
    torch.testing.assert_close(y, functional.linear(x, weight, bias))


def test_the_bias_gradient_is_the_sum_over_all_tokens_of_all_images():
    grad_y = torch.randn(2, 3, 4)
    _, saved = linear_forward(torch.randn(2, 3, 5), torch.randn(4, 5), torch.randn(4))
    _, _, grad_bias = linear_backward(grad_y, saved)
    torch.testing.assert_close(grad_bias, torch.einsum("btd->d", grad_y))


def test_without_bias_there_is_no_gradient_of_one():
    _, saved = linear_forward(torch.randn(2, 3), torch.randn(4, 3))
    assert linear_backward(torch.randn(2, 4), saved)[2] is None


def test_the_module_in_both_modes(assert_modes_agree):
    for bias in (True, False):
        assert_modes_agree(
            lambda gradients, bias=bias: Linear(3, 5, bias, gradients), torch.randn(2, 4, 3)
        )
