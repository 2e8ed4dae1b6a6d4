import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from vitlib.nn.activations import (
    ACTIVATIONS,
    Activation,
    gelu_backward,
    gelu_forward,
    gelu_tanh_backward,
    gelu_tanh_forward,
    hidden_width,
    relu_backward,
    relu_forward,
    swiglu_forward,
)

pytestmark = pytest.mark.usefixtures("float64")

NAMES = pytest.mark.parametrize("name", list(ACTIVATIONS))
shapes = st.lists(st.integers(1, 4), max_size=3)


@NAMES
@given(shapes)
def test_gradients(assert_gradients, name, shape):
    width = hidden_width(name, 3)
    assert_gradients(*ACTIVATIONS[name], 2 * torch.randn(*shape, width))


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("gelu", functional.gelu),
        ("gelu_tanh", lambda u: functional.gelu(u, approximate="tanh")),
        ("relu", functional.relu),
    ],
)
def test_it_is_pytorchs(name, theirs):
    u = torch.linspace(-40, 40, 1001)
    forward, _ = ACTIVATIONS[name]
    torch.testing.assert_close(forward(u)[0], theirs(u), rtol=1e-12, atol=1e-15)


def test_the_exact_gelu_is_not_its_approximation():
    u = torch.linspace(-5, 5, 10_001)
    difference = (gelu_forward(u)[0] - gelu_tanh_forward(u)[0]).abs().max()
    assert 4.7e-4 < difference < 4.8e-4


def test_the_gate_of_a_swiglu_comes_first():
    gate, value = torch.randn(2, 5), torch.randn(2, 5)
    y, _ = swiglu_forward(torch.cat([gate, value], dim=-1))
    torch.testing.assert_close(y, functional.silu(gate) * value)
    assert hidden_width("swiglu", 5) == 10


@pytest.mark.parametrize(
    "pair", [(gelu_forward, gelu_backward), (gelu_tanh_forward, gelu_tanh_backward)]
)
def test_far_out_a_gelu_is_the_identity_or_nothing(pair):
    forward, backward = pair
    y, saved = forward(torch.tensor([-1e5, -100, 0, 100, 1e5]))
    assert y.tolist() == [0, 0, 0, 100, 1e5]
    assert backward(torch.ones(5), saved).tolist() == [0, 0, 0.5, 1, 1]


def test_the_relu_has_no_slope_at_zero():
    y, saved = relu_forward(torch.tensor([-1.0, 0, 2]))
    assert y.tolist() == [0, 0, 2]
    assert relu_backward(torch.ones(3), saved).tolist() == [0, 0, 1]


@NAMES
def test_what_is_not_a_number_stays_so(name):
    forward, backward = ACTIVATIONS[name]
    y, saved = forward(torch.tensor([torch.nan, 1.0]))
    assert y[0].isnan()
    if name != "relu":  # whose slope asks only for the sign
        assert backward(torch.ones_like(y), saved)[0].isnan()


@NAMES
def test_the_module_in_both_modes(assert_modes_agree, name):
    assert_modes_agree(lambda gradients: Activation(name, gradients), torch.randn(2, 3, 4))


def test_an_unknown_activation_is_told():
    with pytest.raises(ValueError, match="activation='tanh' is not available: choose 'gelu' or"):
        Activation("tanh")


def test_it_is_a_gelu_unless_told():
    assert Activation().name == "gelu"
