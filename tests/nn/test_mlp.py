import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional
from transformers import Dinov2Config
from transformers.models.dinov2.modeling_dinov2 import Dinov2SwiGLUFFN

from vitlib.nn.activations import ACTIVATIONS, hidden_width
from vitlib.nn.dropout import draw
from vitlib.nn.mlp import MLP, mlp_backward, mlp_forward

pytestmark = pytest.mark.usefixtures("float64")

ALL = pytest.mark.parametrize("activation", list(ACTIVATIONS))
sizes = st.integers(1, 3)


@ALL
@settings(max_examples=15)
@given(sizes, sizes, sizes, sizes, st.booleans())
def test_gradients(assert_gradients, activation, batch, tokens, dim, hidden, dropped):
    width = hidden_width(activation, hidden)
    fc1 = torch.randn(width, dim), torch.randn(width)
    fc2 = torch.randn(dim, hidden), torch.randn(dim)
    x, rate = torch.randn(batch, tokens, dim), 0.4 * dropped
    drops = (
        draw((batch, tokens, hidden), rate, x.device),
        draw((batch, tokens, dim), rate, x.device),
    )
    assert_gradients(mlp_forward, mlp_backward, x, fc1, fc2, activation, drops)


def test_it_widens_bends_and_narrows():
    mlp, x = MLP(3, 7), torch.randn(2, 4, 3)
    y, _ = mlp_forward(x, *mlp.weights())
    hidden = functional.gelu(x @ mlp.fc1.weight.T + mlp.fc1.bias)
    torch.testing.assert_close(y, hidden @ mlp.fc2.weight.T + mlp.fc2.bias)


def test_with_a_swiglu_it_is_dinov2s():
    # theirs has a hidden layer of 8 ⌈(2/3 · 4 D) / 8⌉ numbers
    theirs = Dinov2SwiGLUFFN(Dinov2Config(hidden_size=6, mlp_ratio=4)).double()
    ours = MLP(6, 16, "swiglu").double()
    with torch.no_grad():
        for name in ("weight", "bias"):
            halves = [getattr(half, name) for half in (theirs.gate_proj, theirs.up_proj)]
            getattr(ours.fc1, name).copy_(torch.cat(halves))
            getattr(ours.fc2, name).copy_(getattr(theirs.down_proj, name))
    x = torch.randn(2, 5, 6)
    torch.testing.assert_close(ours(x), theirs(x))


def test_dropout_follows_both_layers():
    mlp, x = MLP(3, 7), torch.randn(2, 4, 3)
    inner, outer = draw((2, 4, 7), 0.5, x.device), draw((2, 4, 3), 0.25, x.device)
    hidden = functional.gelu(mlp.fc1(x)) * inner.mask * 2
    expected = mlp.fc2(hidden) * outer.mask * 4 / 3
    torch.testing.assert_close(mlp(x, (inner, outer)), expected)
    derived = MLP(3, 7, gradients="derived")
    derived.load_state_dict(mlp.state_dict())
    torch.testing.assert_close(derived(x, (inner, outer)), expected)


@ALL
def test_the_module_in_both_modes(assert_modes_agree, activation):
    assert_modes_agree(lambda gradients: MLP(3, 7, activation, gradients), torch.randn(2, 4, 3))
