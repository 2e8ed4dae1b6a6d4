import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vitlib.nn.class_token import class_token_backward, class_token_forward

pytestmark = pytest.mark.usefixtures("float64")

sizes = st.integers(1, 4)


@given(sizes, sizes, sizes)
def test_gradients(assert_gradients, batch, patches, dim):
    inputs = torch.randn(batch, patches, dim), torch.randn(1, 1, dim)
    assert_gradients(class_token_forward, class_token_backward, *inputs)


def test_it_stands_in_front_of_every_image():
    x, token = torch.randn(3, 4, 2), torch.randn(1, 1, 2)
    y, _ = class_token_forward(x, token)
    assert y.shape == (3, 5, 2)
    assert all(torch.equal(image[0], token[0, 0]) for image in y)
    assert torch.equal(y[:, 1:], x)
