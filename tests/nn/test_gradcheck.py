"""PyTorch's own check of every derived function: its gradients against differences."""

import pytest
import torch

from vitlib import VisionTransformer, ViTConfig
from vitlib.nn.attention import attention
from vitlib.nn.block import block, scaled
from vitlib.nn.blockwise import blockwise_attention
from vitlib.nn.class_token import class_token, registers
from vitlib.nn.dropout import Drop, dropout
from vitlib.nn.embedding import embedding
from vitlib.nn.head import pre_logits
from vitlib.nn.layer_norm import layer_norm
from vitlib.nn.layer_scale import layer_scale
from vitlib.nn.linear import linear
from vitlib.nn.loss import cross_entropy
from vitlib.nn.mlp import mlp
from vitlib.nn.multi_head import multi_head
from vitlib.nn.patch_dropout import keep
from vitlib.nn.pooling import pool
from vitlib.nn.positions import positions
from vitlib.nn.resize import resize_positions
from vitlib.nn.rotary import rope_table, rotary
from vitlib.nn.sigmoid_loss import binary_cross_entropy
from vitlib.nn.softmax import softmax

pytestmark = pytest.mark.usefixtures("float64")


def norm():
    return torch.randn(4), torch.randn(4)


def layer(fan_out, fan_in):
    return torch.randn(fan_out, fan_in), torch.randn(fan_out)


def masked(*shape):
    return Drop(torch.rand(shape) > 0.3, 0.3)


def attention_inputs():
    return (*(torch.randn(2, 5, 3) for _ in range(3)), masked(2, 5, 5))


FUNCTIONS = {
    "linear": (linear, lambda: (torch.randn(2, 3, 4), *layer(5, 4))),
    "embedding": (
        embedding,
        lambda: (torch.randn(2, 2, 4, 6), torch.randn(3, 2, 2, 3), torch.randn(3)),
    ),
    "positions": (positions, lambda: (torch.randn(2, 5, 4), torch.randn(1, 5, 4))),
    "rotary": (rotary, lambda: (torch.randn(2, 2, 5, 4), rope_table((1, 3), 4))),
    "resize": (resize_positions, lambda: (torch.randn(1, 7, 2), (2, 3), (3, 2))),
    "class_token": (class_token, lambda: (torch.randn(2, 3, 4), torch.randn(1, 1, 4))),
    "registers": (registers, lambda: (torch.randn(2, 3, 4), torch.randn(1, 2, 4), 1)),
    "keep": (keep, lambda: (torch.randn(2, 5, 3), torch.tensor([[0, 3], [1, 2]]), 1)),
    "softmax": (softmax, lambda: (torch.randn(3, 4),)),
    "attention": (attention, attention_inputs),
    "blockwise": (blockwise_attention, lambda: (*attention_inputs(), 2)),
    "multi_head": (multi_head, lambda: (torch.randn(2, 3, 4), layer(12, 4), layer(4, 4), 2)),
    "layer_norm": (layer_norm, lambda: (torch.randn(2, 3, 4), *norm(), 0.1)),
    "layer_scale": (layer_scale, lambda: (torch.randn(2, 3, 4), torch.randn(4))),
    "mlp": (mlp, lambda: (torch.randn(2, 3, 4), layer(6, 4), layer(4, 6))),
    "dropout": (dropout, lambda: (torch.randn(2, 3), masked(2, 3))),
    "block": (
        block,
        lambda: (
            torch.randn(2, 3, 4),
            (norm(), (layer(12, 4), layer(4, 4)), norm(), (layer(6, 4), layer(4, 6))),
            2,
            0.1,
        ),
    ),
    "scaled": (
        scaled,
        lambda: (
            torch.randn(2, 3, 4),
            (norm(), (layer(12, 4), layer(4, 4)), norm(), (layer(6, 4), layer(4, 6))),
            norm(),
            2,
            0.1,
        ),
    ),
    "pool": (pool, lambda: (torch.randn(2, 5, 4), "mean", 2)),
    "pre_logits": (pre_logits, lambda: (torch.randn(2, 4), *layer(4, 4))),
    "cross_entropy": (
        lambda z, y: cross_entropy(z, y, 0.1, gradients="derived"),
        lambda: (torch.randn(3, 4), torch.rand(3, 4)),
    ),
    "binary_cross_entropy": (
        lambda z, y: binary_cross_entropy(z, y, gradients="derived"),
        lambda: (torch.randn(3, 4), torch.rand(3, 4)),
    ),
}


def tensors(nest):
    if isinstance(nest, tuple):
        return [x for branch in nest for x in tensors(branch)]
    return [nest] if isinstance(nest, torch.Tensor) else []


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize(("function", "inputs"), FUNCTIONS.values(), ids=FUNCTIONS)
def test_gradcheck(function, inputs):
    """PyTorch's own check, by differences."""
    inputs = inputs()
    leaves = [x for x in tensors(inputs) if x.is_floating_point()]
    if function is rotary:
        leaves = leaves[:1]  # the table is a constant
    for leaf in leaves:
        leaf.requires_grad_()
    assert torch.autograd.gradcheck(lambda *_: function(*inputs), leaves)


@pytest.mark.usefixtures("unchecked_shapes")
def test_gradcheck_of_a_model():
    sizes = {"image_size": 4, "patch_size": 2, "in_channels": 1, "num_classes": 3}
    config = ViTConfig(**sizes, dim=4, depth=1, heads=2, mlp_dim=6, gradients="derived")
    model = VisionTransformer(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    images = torch.randn(2, 1, 4, 4, requires_grad=True)
    assert torch.autograd.gradcheck(lambda *_: model(images), [images, *model.parameters()])
