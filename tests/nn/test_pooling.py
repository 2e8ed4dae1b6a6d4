import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vitlib.nn.pooling import pool_backward, pool_forward

pytestmark = pytest.mark.usefixtures("float64")

sizes = st.integers(1, 4)


@given(sizes, sizes, sizes, st.integers(0, 3), st.sampled_from(["cls", "mean"]))
def test_gradients(assert_gradients, batch, patches, dim, prefix, pool):
    x = torch.randn(batch, prefix + patches, dim)
    assert_gradients(pool_forward, pool_backward, x, pool, prefix)


def test_only_the_class_token_is_read():
    x, grad_y = torch.randn(2, 4, 3), torch.randn(2, 3)
    y, saved = pool_forward(x)
    assert torch.equal(y, x[:, 0])
    grad_x = pool_backward(grad_y, saved)
    assert torch.equal(grad_x[:, 0], grad_y)
    assert not grad_x[:, 1:].any()


def test_one_token_stands_in_front_of_the_patches_unless_told():
    x = torch.randn(2, 4, 3)
    assert torch.equal(pool_forward(x, "mean")[0], pool_forward(x, "mean", 1)[0])


def test_the_mean_is_of_the_patches_alone():
    x, grad_y = torch.randn(2, 6, 3), torch.randn(2, 3)
    y, saved = pool_forward(x, "mean", 2)
    torch.testing.assert_close(y, (x[:, 2] + x[:, 3] + x[:, 4] + x[:, 5]) / 4)
    grad_x = pool_backward(grad_y, saved)
    assert not grad_x[:, :2].any()
    torch.testing.assert_close(grad_x[:, 2:], (grad_y / 4)[:, None].expand(2, 4, 3))
