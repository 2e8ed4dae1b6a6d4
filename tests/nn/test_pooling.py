import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vitlib.nn.pooling import pool_backward, pool_forward

pytestmark = pytest.mark.usefixtures("float64")

sizes = st.integers(1, 4)


@given(sizes, sizes, sizes)
def test_gradients(assert_gradients, batch, tokens, dim):
    assert_gradients(pool_forward, pool_backward, torch.randn(batch, tokens, dim))


def test_only_the_class_token_is_read():
    x, grad_y = torch.randn(2, 4, 3), torch.randn(2, 3)
    y, saved = pool_forward(x)
    assert torch.equal(y, x[:, 0])
    grad_x = pool_backward(grad_y, saved)
    assert torch.equal(grad_x[:, 0], grad_y)
    assert not grad_x[:, 1:].any()
