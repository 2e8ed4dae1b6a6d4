import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from vitlib.nn.multi_head import (
    MultiHeadAttention,
    merge_heads,
    multi_head_backward,
    multi_head_forward,
    pack_heads,
    split_heads,
)

pytestmark = pytest.mark.usefixtures("float64")

sizes = st.integers(1, 2)


@settings(max_examples=20)
@given(sizes, st.integers(1, 3), sizes, sizes, st.booleans())
def test_gradients(assert_gradients, batch, tokens, heads, width, bias):
    dim = heads * width
    qkv = 0.4 * torch.randn(3 * dim, dim), torch.randn(3 * dim) if bias else None
    proj = torch.randn(dim, dim), torch.randn(dim)
    x = torch.randn(batch, tokens, dim)
    assert_gradients(multi_head_forward, multi_head_backward, x, qkv, proj, heads)


def test_it_is_pytorchs_multi_head_attention():
    own, theirs = MultiHeadAttention(6, 3), nn.MultiheadAttention(6, 3, batch_first=True)
    theirs.in_proj_weight, theirs.in_proj_bias = own.qkv.weight, own.qkv.bias
    theirs.out_proj.weight, theirs.out_proj.bias = own.proj.weight, own.proj.bias
    x = torch.randn(2, 4, 6)
    expected, _ = theirs(x, x, x, need_weights=False)
    torch.testing.assert_close(own(x), expected)
    y, _ = multi_head_forward(x, *own.weights(), 3)
    torch.testing.assert_close(y, expected)


def test_the_key_bias_has_no_gradient():
    dim = 6
    qkv, proj = (torch.randn(3 * dim, dim), torch.randn(3 * dim)), (torch.randn(dim, dim), None)
    y, saved = multi_head_forward(torch.randn(2, 4, dim), qkv, proj, 2)
    _, (_, grad_bias), _ = multi_head_backward(torch.randn_like(y), saved)
    grad_query, grad_key, grad_value = grad_bias.chunk(3)
    assert grad_key.abs().max() < 1e-13
    assert min(grad_query.abs().max(), grad_value.abs().max()) > 0.1


@given(sizes, sizes, sizes, sizes)
def test_packing_undoes_splitting(batch, tokens, heads, width):
    packed = torch.randn(batch, tokens, 3 * heads * width)
    q, k, v = split_heads(packed, heads)
    assert q.shape == (batch, heads, tokens, width)
    assert torch.equal(pack_heads(q, k, v), packed)
    assert torch.equal(torch.cat([merge_heads(part) for part in (q, k, v)], -1), packed)


@pytest.mark.parametrize("bias", [True, False])
def test_the_module_in_both_modes(assert_modes_agree, bias):
    assert_modes_agree(
        lambda gradients: MultiHeadAttention(6, 2, bias, gradients), torch.randn(2, 4, 6)
    )


def test_a_width_that_heads_do_not_divide_is_told():
    with pytest.raises(ValueError, match="dim=6 is not divisible by heads=4"):
        MultiHeadAttention(6, 4)
