import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from vitlib.nn.attention import (
    attention_backward,
    attention_forward,
    attention_weights,
    fused_attention,
)
from vitlib.nn.dropout import draw

pytestmark = pytest.mark.usefixtures("float64")

sizes = st.integers(1, 3)
shapes = st.tuples(st.lists(sizes, max_size=2), sizes, sizes).map(lambda s: (*s[0], *s[1:]))


@settings(max_examples=40)
@given(shapes)
def test_gradients(assert_gradients, shape):
    q, k, v = (torch.randn(shape) for _ in range(3))
    assert_gradients(attention_forward, attention_backward, q, k, v)


@settings(max_examples=20)
@given(shapes, st.floats(0.1, 0.8))
def test_gradients_with_dropout(assert_gradients, shape, rate):
    q, k, v = (torch.randn(shape) for _ in range(3))
    drop = draw((*shape[:-1], shape[-2]), rate, q.device)
    assert_gradients(attention_forward, attention_backward, q, k, v, drop)


def test_dropout_acts_on_the_weights():
    q, k, v = (torch.randn(2, 4, 3) for _ in range(3))
    drop = draw((2, 4, 4), 0.5, q.device)
    expected = (attention_weights(q, k) * drop.mask * 2) @ v
    torch.testing.assert_close(attention_forward(q, k, v, drop)[0], expected)
    torch.testing.assert_close(fused_attention(q, k, v, drop), expected)


def test_the_fused_kernel_runs_unless_a_mask_is_given(monkeypatch):
    q, k, v = (torch.randn(2, 4, 3) for _ in range(3))
    calls = []
    kernel = functional.scaled_dot_product_attention
    monkeypatch.setattr(
        functional, "scaled_dot_product_attention", lambda *x: calls.append(1) or kernel(*x)
    )
    torch.testing.assert_close(fused_attention(q, k, v), attention_forward(q, k, v)[0])
    fused_attention(q, k, v, draw((2, 4, 4), 0.5, q.device))
    assert len(calls) == 1


@given(shapes)
def test_it_is_pytorchs_scaled_dot_product_attention(shape):
    q, k, v = (torch.randn(shape) for _ in range(3))
    o, saved = attention_forward(q, k, v)
    torch.testing.assert_close(o, functional.scaled_dot_product_attention(q, k, v))
    assert torch.equal(saved.weights, attention_weights(q, k))


@given(shapes)
def test_the_weights_are_rows_that_sum_to_one(shape):
    weights = attention_weights(torch.randn(shape) * 30, torch.randn(shape))
    assert weights.shape == (*shape[:-1], shape[-2])
    torch.testing.assert_close(weights.sum(-1), torch.ones(shape[:-1]))


def test_one_token_attends_to_itself():
    q, k, v = (torch.randn(2, 1, 3) for _ in range(3))
    assert torch.equal(attention_forward(q, k, v)[0], v)


def test_what_is_added_to_all_keys_alike_changes_nothing(assert_near):
    q, k, v = (torch.randn(2, 4, 3) for _ in range(3))
    o, saved = attention_forward(q, k, v)
    shifted, _ = attention_forward(q, k + torch.randn(3), v)
    torch.testing.assert_close(shifted, o)
    _, grad_k, _ = attention_backward(torch.randn_like(o), saved)
    assert_near([grad_k.sum(-2) + 1], [torch.ones(2, 3)], tolerance=1e-14)


def test_tokens_may_come_in_any_order():
    q, k, v = (torch.randn(2, 5, 3) for _ in range(3))
    order = torch.randperm(5)
    o, _ = attention_forward(q[:, order], k[:, order], v[:, order])
    torch.testing.assert_close(o, attention_forward(q, k, v)[0][:, order])
