import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vitlib.nn.attention import attention
from vitlib.nn.linear import linear
from vitlib.nn.multi_head import merge_heads, split_heads
from vitlib.nn.single_query import single_query, single_query_backward, single_query_forward

pytestmark = pytest.mark.usefixtures("float64")

sizes = st.integers(1, 3)


def arguments(batch, tokens, heads, width, bias):
    dim = heads * width
    qkv = 0.4 * torch.randn(3 * dim, dim), torch.randn(3 * dim) if bias else None
    return torch.randn(batch, tokens, dim), qkv, heads


@settings(max_examples=20)
@given(sizes, sizes, sizes, sizes, st.booleans())
def test_gradients(assert_gradients, batch, tokens, heads, width, bias):
    given_ = arguments(batch, tokens, heads, width, bias)
    assert_gradients(single_query_forward, single_query_backward, *given_)


@pytest.mark.parametrize("bias", [True, False])
def test_it_is_what_the_first_token_receives_among_all(bias):
    x, qkv, heads = arguments(3, 5, 2, 4, bias)
    q, k, v = split_heads(linear(x, *qkv), heads)
    expected = merge_heads(attention(q, k, v))[:, :1]
    torch.testing.assert_close(single_query(x, qkv, heads), expected)
