import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from vitlib.nn.block import (
    ALL,
    FACTORS,
    LAYERS,
    NO_DROPS,
    Block,
    block_backward,
    block_forward,
    cut,
    draw_drops,
    scaled_backward,
    scaled_forward,
)
from vitlib.nn.dropout import Drop

pytestmark = pytest.mark.usefixtures("float64")

NORMS = pytest.mark.parametrize("norm", ["pre", "post"])
RATES = ("dropout", "attention_dropout", "drop_path")


def parameters(dim, mlp_dim, bias=True):
    """Random, and not so large that differences of the loss lose their accuracy."""

    def layer(*shape, bias=True):
        return 0.4 * torch.randn(shape), 0.4 * torch.randn(shape[0]) if bias else None

    norm1, norm2 = ((torch.randn(dim), torch.randn(dim)) for _ in range(2))
    attn = layer(3 * dim, dim, bias=bias), layer(dim, dim)
    mlp = layer(mlp_dim, dim), layer(dim, mlp_dim)
    return norm1, attn, norm2, mlp


@NORMS
@settings(max_examples=5)
@given(
    st.integers(1, 2),
    st.integers(1, 3),
    st.integers(1, 2),
    st.booleans(),
    st.booleans(),
    st.sampled_from([None, 1]),
)
def test_gradients(assert_gradients, norm, batch, tokens, heads, bias, dropped, queries):
    x, weights = 3 * torch.randn(batch, tokens, 4), parameters(4, 3, bias)
    rates = (0.3, 0.3, 0.3) if dropped else (0.0, 0.0, 0.0)
    drops = cut(draw_drops(x.shape, heads, 3, rates, x.device), queries)
    options = heads, 0.1, norm, "gelu", None, drops, queries
    assert_gradients(block_forward, block_backward, x, weights, *options)


@NORMS
@pytest.mark.parametrize("rate", [0.0, 0.3])
@pytest.mark.parametrize("queries", [None, 1])
def test_gradients_with_factors(assert_gradients, norm, rate, queries):
    x, weights, factors = torch.randn(2, 3, 4), parameters(4, 3), (torch.randn(4), torch.randn(4))
    drops = cut(draw_drops(x.shape, 2, 3, (rate, rate, rate), x.device), queries)
    options = 2, 1.0, norm, "gelu", None, drops, queries
    pair = scaled_forward, scaled_backward
    assert_gradients(*pair, x, weights, factors, *options)


@NORMS
def test_of_a_norm_only_what_is_needed_is_computed(norm):
    y, saved = block_forward(torch.randn(2, 3, 4), parameters(4, 3), 2, 0.1, norm)
    _, (_, attn, _, mlp) = ALL
    needed = True, ((False, True), attn, (True, False), mlp)
    _, (norm1, _, norm2, _) = block_backward(torch.randn_like(y), saved, needed)
    found = [[grad is not None for grad in grads] for grads in (norm1, norm2)]
    assert found == [[False, True], [True, False]]


@pytest.mark.parametrize(("scale", "more"), [(None, 0), (0.1, 2)])
def test_a_block_keeps_what_its_docstring_says(scale, more):
    B, T, D, H, M = 2, 5, 6, 3, 7
    block = Block(D, H, M, layer_scale=scale, gradients="derived")
    own = {parameter.data_ptr() for parameter in block.parameters()}
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        block(torch.randn(B, T, D))
    numbers = sum(tensor.numel() for tensor in kept if tensor.data_ptr() not in own)
    assert numbers == B * T * ((8 + more) * D + 2 * M + H * T + 2)


@NORMS
@pytest.mark.parametrize("activation", ["gelu", "relu"])
def test_it_is_pytorchs_encoder_layer(norm, activation):
    own = Block(6, 2, 5, eps=1e-5, norm=norm, activation=activation)
    theirs = nn.TransformerEncoderLayer(
        6, 2, 5, dropout=0, activation=activation, batch_first=True, norm_first=norm == "pre"
    )
    for parameter in own.parameters():
        nn.init.normal_(parameter)
    pairs = (
        (theirs.self_attn.in_proj_weight, theirs.self_attn.in_proj_bias, own.attn.qkv),
        (theirs.self_attn.out_proj.weight, theirs.self_attn.out_proj.bias, own.attn.proj),
        *(
            (layer.weight, layer.bias, twin)
            for layer, twin in (
                (theirs.norm1, own.norm1), (theirs.norm2, own.norm2),
                (theirs.linear1, own.mlp.fc1), (theirs.linear2, own.mlp.fc2),
            )
        ),
    )  # fmt: skip
    x = torch.randn(3, 4, 6)
    with torch.no_grad():
        for weight, bias, twin in pairs:
            weight.copy_(twin.weight)
            bias.copy_(twin.bias)
        y, _ = block_forward(x, own.weights(), 2, 1e-5, norm, activation)
    torch.testing.assert_close(own(x), theirs(x))
    torch.testing.assert_close(y, theirs(x))


def test_with_projections_of_zero_everything_passes_straight_through():
    block = Block(6, 2, 5)
    for layer in (block.attn.proj, block.mlp.fc2):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    x, grad_y = torch.randn(2, 3, 6), torch.randn(2, 3, 6)
    y, saved = block_forward(x, block.weights(), 2, 1e-6)
    assert torch.equal(y, x)
    assert torch.equal(block_backward(grad_y, saved)[0], grad_y)


@NORMS
def test_the_factors_scale_what_a_branch_adds_as_its_last_layer_would(norm):
    scaled, plain = (Block(6, 2, 5, norm=norm, layer_scale=s) for s in (0.1, None))
    for parameter in scaled.parameters():
        nn.init.normal_(parameter)
    weights = {name: p.detach() for name, p in scaled.named_parameters()}
    for layer, factors in (("attn.proj", "ls1"), ("mlp.fc2", "ls2")):
        gamma = weights.pop(f"{factors}.gamma")
        weights[f"{layer}.weight"] = gamma[:, None] * weights[f"{layer}.weight"]
        weights[f"{layer}.bias"] = gamma * weights[f"{layer}.bias"]
    plain.load_state_dict(weights)
    x = torch.randn(3, 4, 6)
    torch.testing.assert_close(scaled(x), plain(x))


def test_a_new_block_with_small_factors_hardly_changes_what_passes():
    x = torch.randn(3, 4, 6)
    far = (Block(6, 2, 5)(x) - x).norm()
    assert (Block(6, 2, 5, layer_scale=1e-4)(x) - x).norm() < 1e-3 * far


def test_the_layers_have_the_state_dicts_names_and_order():
    block = Block(6, 2, 5, layer_scale=0.1)
    norm1, attn, norm2, mlp = block.weights()
    for name, layer in zip(FACTORS, (block.ls1, block.ls2), strict=True):
        assert block.get_parameter(name) is layer.gamma
    for name, (weight, bias) in zip(LAYERS, (norm1, *attn, norm2, *mlp), strict=True):
        assert block.get_parameter(f"{name}.weight") is weight
        assert block.get_parameter(f"{name}.bias") is bias


def test_a_post_norm_block_ends_in_its_norm():
    block = Block(6, 2, 5, norm="post")
    y = block(5 + 3 * torch.randn(2, 4, 6))
    torch.testing.assert_close(y.mean(-1), torch.zeros(2, 4))
    torch.testing.assert_close(y.var(-1, correction=0), torch.ones(2, 4), rtol=0, atol=1e-4)


@NORMS
def test_a_dropped_branch_leaves_only_the_stream(norm):
    block, x = Block(6, 2, 5, norm=norm), torch.randn(2, 3, 6)
    skipped = Drop(torch.tensor([False, True])[:, None, None], 0.5)
    drops = NO_DROPS._replace(attn_path=skipped, mlp_path=skipped)
    y, _ = block_forward(x, block.weights(), 2, 1e-6, norm, drops=drops)
    expected = x[0] if norm == "pre" else block.norm2(block.norm1(x[0]))
    torch.testing.assert_close(y[0], expected)
    assert (y[1] - x[1]).abs().max() > 1e-3


def test_it_drops_in_training_alone():
    block = Block(6, 2, 5, dropout=0.2, attention_dropout=0.2, drop_path=0.2)
    x = torch.randn(4, 3, 6)
    assert (block(x) - block(x)).abs().max() > 1e-3
    block.eval()
    assert torch.equal(block(x), block(x))


@pytest.mark.parametrize("rate", ["dropout", "attention_dropout", "drop_path"])
def test_every_rate_reaches_its_place(rate):
    x = torch.randn(8, 5, 6)
    drops = draw_drops(x.shape, 2, 5, tuple(0.5 * (rate == name) for name in RATES), x.device)
    found = {
        "attention_dropout": [drops.attn[0]],
        "dropout": [drops.attn[1], *drops.mlp],
        "drop_path": [drops.attn_path, drops.mlp_path],
    }
    for name, some in found.items():
        assert all((drop is not None) == (name == rate) for drop in some)
    shapes = [tuple(drop.mask.shape) for drop in found[rate]]
    assert (
        shapes
        == {
            "attention_dropout": [(8, 2, 5, 5)],
            "dropout": [(8, 5, 6), (8, 5, 5), (8, 5, 6)],
            "drop_path": [(8, 1, 1), (8, 1, 1)],
        }[rate]
    )


@NORMS
@pytest.mark.parametrize(
    "options",
    [{}, {"qkv_bias": False}, {"activation": "swiglu"}, {"layer_scale": 0.1}],
    ids=str,
)
def test_the_module_in_both_modes(assert_modes_agree, norm, options):
    assert_modes_agree(
        lambda gradients: Block(6, 2, 5, norm=norm, **options, gradients=gradients),
        torch.randn(2, 4, 6),
    )


@NORMS
def test_both_modes_draw_the_same_masks(norm):
    outputs, x = [], torch.randn(3, 4, 6)
    for gradients in ("autograd", "derived"):
        torch.manual_seed(0)
        rates = dict.fromkeys(RATES, 0.3)
        block = Block(6, 2, 5, norm=norm, **rates, gradients=gradients)
        y = block(x)
        y.backward(torch.ones_like(y) + x)
        outputs.append([y.detach(), *(p.grad for p in block.parameters())])
    for one, other in zip(*outputs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)


@NORMS
@pytest.mark.parametrize("gradients", ["autograd", "derived"])
@pytest.mark.parametrize(
    "options",
    [{}, {"activation": "swiglu", "layer_scale": 0.1}, dict.fromkeys(RATES, 0.3)],
    ids=str,
)
def test_those_who_leave_it_alone_leave_it_as_they_would_among_all(norm, gradients, options):
    block, x = Block(6, 2, 5, norm=norm, **options, gradients=gradients), torch.randn(3, 4, 6)
    cotangent, results = torch.randn(3, 2, 6), []
    for queries in (None, 2):
        torch.manual_seed(0)
        leaf = x.clone().requires_grad_()
        y = block(leaf, queries=queries)[:, :2]
        results.append([y, *torch.autograd.grad(y, [leaf, *block.parameters()], cotangent)])
    for whole, few in zip(*results, strict=True):
        torch.testing.assert_close(few, whole, rtol=1e-9, atol=1e-11)


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"norm": "both"}, ValueError, "norm='both' is not available: choose 'pre' or 'post'"),
        ({"activation": "selu"}, ValueError, "activation='selu' is not available"),
        ({"layer_scale": 0.0}, ValueError, "layer_scale=0.0: expected a number above 0, to 1"),
        ({"layer_scale": "1e-4"}, TypeError, "layer_scale='1e-4': expected a number"),
        ({"dropout": 1.0}, ValueError, "dropout=1.0: expected a number from 0 to below 1"),
        ({"attention_dropout": -0.1}, ValueError, "attention_dropout=-0.1: expected"),
        ({"drop_path": "0.1"}, TypeError, "drop_path='0.1': expected"),
    ],
    ids=str,
)
def test_an_option_that_cannot_be_is_told(options, error, says):
    with pytest.raises(error, match=says):
        Block(6, 2, 5, **options)
