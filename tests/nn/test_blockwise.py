from math import inf, nan

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vitlib import VisionTransformer, ViTConfig
from vitlib.nn import multi_head
from vitlib.nn.attention import attention, attention_backward, attention_forward
from vitlib.nn.blockwise import blockwise_attention, blockwise_backward, blockwise_forward
from vitlib.nn.dropout import draw
from vitlib.nn.rotary import rope_table

pytestmark = pytest.mark.usefixtures("float64")

sizes = st.integers(1, 3)
batches = st.lists(sizes, max_size=2).map(tuple)
tokens = st.integers(1, 20)
tiles = st.integers(1, 24)
rates = st.sampled_from([0.0, 0.4])


def run(forward, backward, grad_o, *inputs):
    """The output and all gradients."""
    o, saved = forward(*inputs)
    return [o, *backward(grad_o, saved)]


@settings(max_examples=30)
@given(batches, st.integers(1, 5), sizes, st.integers(1, 6), rates)
def test_gradients(assert_gradients, batch, count, width, tile, rate):
    q, k, v = torch.randn(3, *batch, count, width).unbind()
    drop = draw((*batch, count, count), rate, q.device)
    assert_gradients(blockwise_forward, blockwise_backward, q, k, v, drop, tile)


@settings(max_examples=60)
@given(batches, tokens, sizes, tiles, rates)
def test_it_is_explicit_attention_for_every_tile(assert_near, batch, count, width, tile, rate):
    q, k, v, grad_o = torch.randn(4, *batch, count, width)
    drop = draw((*batch, count, count), rate, q.device)
    expected = run(attention_forward, attention_backward, grad_o, q, k, v, drop)
    found = run(blockwise_forward, blockwise_backward, grad_o, q, k, v, drop, tile)
    assert_near(found[:1], expected[:1], tolerance=1e-12)
    assert_near(found[1:], expected[1:], tolerance=1e-12)


@settings(max_examples=20)
@given(tokens, sizes, tiles)
def test_it_is_pytorchs_scaled_dot_product_attention(count, width, tile):
    q, k, v = torch.randn(3, 2, count, width)
    o, saved = blockwise_forward(q, k, v, None, tile)
    torch.testing.assert_close(o, functional.scaled_dot_product_attention(q, k, v))
    scores = q @ k.mT / width**0.5
    torch.testing.assert_close(saved.log_sum, scores.logsumexp(-1, keepdim=True))


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("size", [1e3, 1e6])
def test_large_scores_do_not_overflow(assert_near, size, order):
    """Whether the largest score of a row comes first or last."""
    q = torch.ones(1, 12, 1)
    k = order * torch.linspace(-size, size, 12).view(1, 12, 1)
    v, grad_o = torch.randn(2, 1, 12, 1)
    expected = run(attention_forward, attention_backward, grad_o, q, k, v)
    found = run(blockwise_forward, blockwise_backward, grad_o, q, k, v, None, 5)
    assert all(x.isfinite().all() for x in found)
    assert_near(found, expected, tolerance=1e-12)


@pytest.mark.parametrize("columns", [slice(4), slice(4, 8), slice(8, 11)])
def test_keys_that_score_minus_infinity_weigh_nothing(columns):
    """Even where they fill a tile, and even the first."""
    q, k, v = torch.rand(1, 11, 3), torch.randn(1, 11, 3), torch.randn(1, 11, 3)
    k[:, columns] = -inf
    o, saved = blockwise_forward(q, k, v, None, 4)
    assert o.isfinite().all()
    expected, _ = attention_forward(q, k, v)
    torch.testing.assert_close(o, expected)
    _, _, grad_v = blockwise_backward(torch.randn_like(o), saved)
    assert torch.equal(grad_v[:, columns], torch.zeros_like(grad_v[:, columns]))


def test_where_all_keys_score_minus_infinity_nothing_is_told():
    """As a softmax of nothing but −inf is no number."""
    q, k, v = torch.rand(1, 11, 3), torch.full((1, 11, 3), -inf), torch.randn(1, 11, 3)
    o, _ = blockwise_forward(q, k, v, None, 4)
    assert o.isnan().all()
    assert attention_forward(q, k, v)[0].isnan().all()


@pytest.mark.parametrize("bad", [nan, inf])
@pytest.mark.parametrize("place", ["q", "k", "v", "grad_o"])
def test_what_is_no_number_passes_on(place, bad):
    """Wherever the explicit form shows it, and nowhere is it lost."""
    parts = {name: torch.randn(1, 9, 2) for name in ("q", "k", "v", "grad_o")}
    parts[place][0, 5, 1] = bad
    q, k, v, grad_o = parts.values()
    expected = run(attention_forward, attention_backward, grad_o, q, k, v)
    found = run(blockwise_forward, blockwise_backward, grad_o, q, k, v, None, 4)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.isfinite(), other.isfinite())
    assert not all(x.isfinite().all() for x in found)


class Watch(TorchDispatchMode):
    """Notes the largest tensor that is made."""

    largest = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        made = operation(*args, **(kwargs or {}))
        sizes = [x.numel() for x in tree_leaves(made) if isinstance(x, torch.Tensor)]
        self.largest = max([self.largest, *sizes])
        return made


@pytest.mark.parametrize(("tile", "most"), [(64, 64**2), (16, 512 * 4)])
def test_no_matrix_of_all_pairs_is_ever_made(tile, most):
    q, k, v, grad_o = torch.randn(4, 1, 512, 4)
    with Watch() as watch:
        run(blockwise_forward, blockwise_backward, grad_o, q, k, v, None, tile)
    assert watch.largest == most
    with Watch() as watch:
        run(attention_forward, attention_backward, grad_o, q, k, v)
    assert watch.largest == 512**2


@pytest.mark.parametrize("count", [100, 200, 400])
def test_what_is_saved_grows_with_the_tokens(count):
    leaves = torch.randn(3, 1, 2, count, 8).requires_grad_().unbind()
    memory = {}

    def look(x):
        memory[x.untyped_storage().data_ptr()] = x.numel()
        return x

    with saved_tensors_hooks(look, lambda x: x):
        o = blockwise_attention(*(x.clone() for x in leaves), None, 64)
    assert o.requires_grad
    assert sum(memory.values()) == 2 * (4 * count * 8 + count)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("spread", [1, 4])
def test_narrow_numbers_lose_no_more_than_in_the_explicit_form(dtype, spread):
    torch.manual_seed(0)
    inputs = [x.to(dtype) for x in torch.randn(4, 2, 2, 150, 32)]
    inputs[1] = inputs[1] * spread  # of the scores
    grad_o, q, k, v = inputs
    wide = [x.double() for x in inputs]
    truth = run(attention_forward, attention_backward, *wide)
    expected = run(attention_forward, attention_backward, grad_o, q, k, v)
    found = run(blockwise_forward, blockwise_backward, grad_o, q, k, v, None, 64)
    for ours, theirs, right in zip(found, expected, truth, strict=True):
        assert ours.dtype == dtype
        # exp(S − L) carries the rounding of L, which is a few units in the last place
        assert (ours - right).norm() < 1.5 * (theirs - right).norm()


def test_autocast_narrows_the_output_as_in_the_explicit_form():
    outputs, gradients = [], []
    leaves = [x.requires_grad_() for x in torch.randn(3, 2, 11, 4, dtype=torch.float32)]
    for form, options in ((attention, (None,)), (blockwise_attention, (None, 4))):
        with torch.autocast("cpu", torch.bfloat16):
            o = form(*leaves, *options)
        outputs.append(o)
        gradients.append(torch.autograd.grad(o.float().square().sum(), leaves))
    assert [o.dtype for o in outputs] == [torch.bfloat16, torch.bfloat16]
    torch.testing.assert_close(*outputs, rtol=0.05, atol=0.02)
    for one, other in zip(*gradients, strict=True):
        assert one.dtype == other.dtype == torch.float32
        assert (one - other).norm() < 0.1 * one.norm()


@pytest.mark.parametrize("limit", [0, 4, 5])
@pytest.mark.parametrize("rotary", [False, True])
def test_multi_head_attends_alike_on_either_side_of_the_limit(
    assert_near, monkeypatch, limit, rotary
):
    x, grad_y = torch.randn(2, 2, 5, 8)
    qkv, proj = (torch.randn(24, 8), torch.randn(24)), (torch.randn(8, 8), torch.randn(8))
    drops = draw((2, 2, 5, 5), 0.3, x.device), draw(x.shape, 0.3, x.device)
    rope = rope_table((2, 2), 4) if rotary else None
    results = []
    for most in (1024, limit):
        monkeypatch.setattr(multi_head, "EXPLICIT_TOKENS", most)
        y, saved = multi_head.multi_head_forward(x, qkv, proj, 2, rope, drops)
        tiled = hasattr(saved.attention, "log_sum")
        assert tiled == (most < 5)
        grad_x, grads_qkv, grads_proj = multi_head.multi_head_backward(grad_y, saved)
        results.append([y, grad_x, *grads_qkv, *grads_proj])
    assert_near(results[1], results[0], tolerance=1e-12)


def test_a_model_of_many_tokens_has_the_same_gradients_in_both_modes(assert_near, monkeypatch):
    config = {"image_size": 8, "patch_size": 2, "in_channels": 1, "num_classes": 3, "dim": 8}
    config |= {"depth": 2, "heads": 2, "mlp_dim": 12, "attention_dropout": 0.2, "pool": "mean"}
    monkeypatch.setattr(multi_head, "EXPLICIT_TOKENS", 10)
    calls = []

    def in_small_tiles(q, k, v, drop=None):  # by default all 16 tokens would be one tile
        calls.append(q.shape[-2])
        return blockwise_forward(q, k, v, drop, 6)

    monkeypatch.setattr(multi_head, "blockwise_forward", in_small_tiles)
    models = [
        VisionTransformer(ViTConfig(**config, gradients=mode)) for mode in ("autograd", "derived")
    ]
    models[1].load_state_dict(models[0].state_dict())
    images, grad = torch.randn(2, 1, 8, 8), torch.randn(2, 3)
    results = []
    for model in models:
        torch.manual_seed(3)  # the same masks
        x = images.clone().requires_grad_()
        logits = model(x)
        logits.backward(grad)
        results.append([logits.detach(), x.grad, *(p.grad for p in model.parameters())])
    assert calls == [16, 16]
    assert_near(results[1], results[0], tolerance=1e-12)


def test_a_gradient_of_another_shape_is_refused():
    q, k, v = torch.randn(3, 2, 7, 3)
    o, saved = blockwise_forward(q, k, v, None, 4)
    with pytest.raises(ValueError, match=r"shape \(2, 1, 3\): expected the output's, \(2, 7, 3\)"):
        blockwise_backward(o[:, :1], saved)
