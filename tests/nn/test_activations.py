import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from vitlib.nn.activations import GELU, gelu_backward, gelu_forward

pytestmark = pytest.mark.usefixtures("float64")

shapes = st.lists(st.integers(1, 4), max_size=3)


@given(shapes)
def test_gradients(assert_gradients, shape):
    assert_gradients(gelu_forward, gelu_backward, 2 * torch.randn(shape))


def test_it_is_the_exact_gelu_and_not_the_tanh():
    u = torch.linspace(-40, 40, 1001)
    y, _ = gelu_forward(u)
    torch.testing.assert_close(y, functional.gelu(u), rtol=1e-12, atol=1e-15)
    assert (y - functional.gelu(u, approximate="tanh")).abs().max() > 1e-4


def test_far_out_it_is_the_identity_or_nothing():
    u = torch.tensor([-1e5, -100, 0, 100, 1e5])
    y, saved = gelu_forward(u)
    assert y.tolist() == [0, 0, 0, 100, 1e5]
    assert gelu_backward(torch.ones(5), saved).tolist() == [0, 0, 0.5, 1, 1]


def test_the_module_in_both_modes(assert_modes_agree):
    assert_modes_agree(GELU, torch.randn(2, 3, 4))
