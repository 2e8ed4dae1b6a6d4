import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from vitlib.nn.block import LAYERS, Block, block_backward, block_forward

pytestmark = pytest.mark.usefixtures("float64")


def parameters(dim, mlp_dim, bias=True):
    """Random, and not so large that differences of the loss lose their accuracy."""

    def layer(*shape, bias=True):
        return 0.4 * torch.randn(shape), 0.4 * torch.randn(shape[0]) if bias else None

    norm1, norm2 = ((torch.randn(dim), torch.randn(dim)) for _ in range(2))
    attn = layer(3 * dim, dim, bias=bias), layer(dim, dim)
    mlp = layer(mlp_dim, dim), layer(dim, mlp_dim)
    return norm1, attn, norm2, mlp


@settings(max_examples=5)
@given(st.integers(1, 2), st.integers(1, 3), st.integers(1, 2), st.booleans())
def test_gradients(assert_gradients, batch, tokens, heads, bias):
    x, weights = 3 * torch.randn(batch, tokens, 4), parameters(4, 3, bias)
    assert_gradients(block_forward, block_backward, x, weights, heads, 0.1)


def test_a_block_keeps_what_its_docstring_says():
    B, T, D, H, M = 2, 5, 6, 3, 7
    block = Block(D, H, M, gradients="derived")
    own = {parameter.data_ptr() for parameter in block.parameters()}
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        block(torch.randn(B, T, D))
    numbers = sum(tensor.numel() for tensor in kept if tensor.data_ptr() not in own)
    assert numbers == B * T * (8 * D + 2 * M + H * T + 2)


def test_it_is_pytorchs_encoder_layer_with_the_norm_first():
    own = Block(6, 2, 5, eps=1e-5)
    theirs = nn.TransformerEncoderLayer(
        6, 2, 5, dropout=0, activation="gelu", batch_first=True, norm_first=True
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
        y, _ = block_forward(x, own.weights(), 2, 1e-5)
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


def test_the_layers_have_the_state_dicts_names_and_order():
    block = Block(6, 2, 5)
    norm1, attn, norm2, mlp = block.weights()
    for name, (weight, bias) in zip(LAYERS, (norm1, *attn, norm2, *mlp), strict=True):
        assert block.get_parameter(f"{name}.weight") is weight
        assert block.get_parameter(f"{name}.bias") is bias


@pytest.mark.parametrize("bias", [True, False])
def test_the_module_in_both_modes(assert_modes_agree, bias):
    assert_modes_agree(
        lambda gradients: Block(6, 2, 5, bias, 1e-6, gradients), torch.randn(2, 4, 6)
    )
