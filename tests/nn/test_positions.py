import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vitlib.nn.positions import positions_backward, positions_forward

pytestmark = pytest.mark.usefixtures("float64")

sizes = st.integers(1, 4)


@given(sizes, sizes, sizes)
def test_gradients(assert_gradients, batch, tokens, dim):
    inputs = torch.randn(batch, tokens, dim), torch.randn(1, tokens, dim)
    assert_gradients(positions_forward, positions_backward, *inputs)


def test_every_image_receives_the_same_positions():
    x, table = torch.randn(3, 4, 2), torch.randn(1, 4, 2)
    y, _ = positions_forward(x, table)
    for image in range(3):
        assert torch.equal(y[image], x[image] + table[0])
