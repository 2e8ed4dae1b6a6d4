import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from vitlib.nn.mlp import MLP, mlp_backward, mlp_forward

pytestmark = pytest.mark.usefixtures("float64")

sizes = st.integers(1, 3)


@settings(max_examples=30)
@given(sizes, sizes, sizes, sizes)
def test_gradients(assert_gradients, batch, tokens, dim, hidden):
    fc1 = torch.randn(hidden, dim), torch.randn(hidden)
    fc2 = torch.randn(dim, hidden), torch.randn(dim)
    assert_gradients(mlp_forward, mlp_backward, torch.randn(batch, tokens, dim), fc1, fc2)


def test_it_widens_bends_and_narrows():
    mlp, x = MLP(3, 7), torch.randn(2, 4, 3)
    y, _ = mlp_forward(x, *mlp.weights())
    hidden = functional.gelu(x @ mlp.fc1.weight.T + mlp.fc1.bias)
    torch.testing.assert_close(y, hidden @ mlp.fc2.weight.T + mlp.fc2.bias)


def test_the_module_in_both_modes(assert_modes_agree):
    assert_modes_agree(lambda gradients: MLP(3, 7, gradients), torch.randn(2, 4, 3))
