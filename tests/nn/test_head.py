import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vitlib.nn.head import Head, head_backward, head_forward

pytestmark = pytest.mark.usefixtures("float64")

sizes = st.integers(1, 4)


@given(sizes, sizes, sizes)
def test_gradients(assert_gradients, batch, dim, classes):
    inputs = torch.randn(batch, dim), torch.randn(classes, dim), torch.randn(classes)
    assert_gradients(head_forward, head_backward, *inputs)


def test_the_module_in_both_modes(assert_modes_agree):
    assert_modes_agree(lambda gradients: Head(3, 5, gradients=gradients), torch.randn(4, 3))
