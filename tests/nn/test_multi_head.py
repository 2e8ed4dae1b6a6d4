import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from vitlib.nn.dropout import draw
from vitlib.nn.multi_head import (
    MultiHeadAttention,
    merge_heads,
    multi_head_backward,
    multi_head_forward,
    pack_heads,
    split_heads,
)
from vitlib.nn.rotary import rope_table

pytestmark = pytest.mark.usefixtures("float64")

sizes = st.integers(1, 2)


@settings(max_examples=20)
@given(sizes, st.integers(1, 3), sizes, sizes, st.booleans(), st.booleans(), st.booleans())
def test_gradients(assert_gradients, batch, tokens, heads, width, bias, dropped, one_asks):
    dim = heads * width
    qkv = 0.4 * torch.randn(3 * dim, dim), torch.randn(3 * dim) if bias else None
    proj = torch.randn(dim, dim), torch.randn(dim)
    x = torch.randn(batch, tokens, dim)
    queries = 1 if one_asks else None
    drops = (
        draw((batch, heads, queries or tokens, tokens), 0.3 * dropped, x.device),
        draw((batch, queries or tokens, dim), 0.3 * dropped, x.device),
    )
    options = heads, None, drops, queries
    assert_gradients(multi_head_forward, multi_head_backward, x, qkv, proj, *options)


@settings(max_examples=5)
@given(sizes, st.integers(0, 2), sizes, st.sampled_from([None, 1, 2]))
def test_gradients_with_rotary_positions(assert_gradients, batch, prefix, heads, queries):
    dim, table = 4 * heads, rope_table((1, 2), 4)
    qkv = 0.4 * torch.randn(3 * dim, dim), torch.randn(3 * dim)
    proj = torch.randn(dim, dim), torch.randn(dim)

    def forward(x, qkv, proj):
        return multi_head_forward(x, qkv, proj, heads, table, queries=queries)

    x = torch.randn(batch, prefix + 2, dim)
    assert_gradients(forward, multi_head_backward, x, qkv, proj)


@pytest.mark.parametrize("gradients", ["autograd", "derived"])
def test_those_who_ask_receive_what_they_would_among_all(gradients):
    attention = MultiHeadAttention(6, 2, gradients=gradients)
    x = torch.randn(2, 5, 6)
    torch.testing.assert_close(attention(x, queries=2), attention(x)[:, :2])


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


@pytest.mark.parametrize("rotary", [False, True])
def test_the_map_is_what_the_output_was_averaged_with(rotary):
    rope = rope_table((1, 3), 4) if rotary else None
    attention, x = MultiHeadAttention(8, 2), torch.randn(3, 4, 8)
    weights = attention.attention_map(x, rope)
    assert weights.shape == (3, 2, 4, 4)
    torch.testing.assert_close(weights.sum(-1), torch.ones(3, 2, 4))
    _, _, v = split_heads(attention.qkv(x), 2)
    torch.testing.assert_close(attention.proj(merge_heads(weights @ v)), attention(x, rope))


def test_rotary_positions_tell_patches_apart():
    attention, x = MultiHeadAttention(8, 2), torch.randn(1, 4, 8)
    order = torch.tensor([0, 2, 1, 3])  # the class token keeps its place
    table = rope_table((1, 3), 4)
    torch.testing.assert_close(attention(x[:, order]), attention(x)[:, order])
    assert (attention(x[:, order], table) - attention(x, table)[:, order]).abs().max() > 1e-4


def test_positions_and_masks_reach_either_mode():
    x, table = torch.randn(3, 4, 8), rope_table((1, 3), 4)
    drops = draw((3, 2, 4, 4), 0.5, x.device), draw((3, 4, 8), 0.5, x.device)
    one, other = (MultiHeadAttention(8, 2, gradients=mode) for mode in ("autograd", "derived"))
    other.load_state_dict(one.state_dict())
    y = other(x, table, drops)
    torch.testing.assert_close(one(x, table, drops), y)
    for fewer in ((x, table), (x, None, drops), (x, table, (None, drops[1]))):
        assert (other(*fewer) - y).abs().max() > 1e-3


def test_queries_keys_and_values_have_a_bias_unless_told():
    assert MultiHeadAttention(8, 2).qkv.bias is not None


def test_a_width_that_heads_do_not_divide_is_told():
    with pytest.raises(ValueError, match="dim=6 is not divisible by heads=4"):
        MultiHeadAttention(6, 4)
