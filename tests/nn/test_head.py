import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vitlib.nn.head import (
    Head,
    PreLogits,
    head_backward,
    head_forward,
    pre_logits_backward,
    pre_logits_forward,
)

pytestmark = pytest.mark.usefixtures("float64")

sizes = st.integers(1, 4)


@given(sizes, sizes, sizes)
def test_gradients(assert_gradients, batch, dim, classes):
    inputs = torch.randn(batch, dim), torch.randn(classes, dim), torch.randn(classes)
    assert_gradients(head_forward, head_backward, *inputs)


@given(sizes, sizes)
def test_gradients_of_the_hidden_layer(assert_gradients, batch, dim):
    inputs = torch.randn(batch, dim), torch.randn(dim, dim), torch.randn(dim)
    assert_gradients(pre_logits_forward, pre_logits_backward, *inputs)


def test_the_hidden_layer_ends_in_a_tanh():
    layer, y = PreLogits(3), torch.randn(4, 3)
    torch.testing.assert_close(layer(y), torch.tanh(y @ layer.fc.weight.T + layer.fc.bias))


def test_the_modules_in_both_modes(assert_modes_agree):
    assert_modes_agree(lambda gradients: Head(3, 5, gradients=gradients), torch.randn(4, 3))
    assert_modes_agree(lambda gradients: PreLogits(3, gradients), torch.randn(4, 3))
