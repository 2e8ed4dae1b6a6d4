"""Frozen parameters: the right gradients for the others, and no product for those nobody needs."""

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from vitlib import VisionTransformer, ViTConfig
from vitlib.nn import multi_head
from vitlib.nn.attention import attention

pytestmark = pytest.mark.usefixtures("float64")

CONFIG = ViTConfig(
    image_size=(4, 6),
    patch_size=2,
    in_channels=2,
    num_classes=3,
    dim=8,
    depth=2,
    heads=2,
    mlp_dim=12,
    registers=1,
    layer_scale=0.1,
    head="mlp",
)
TRAINED = {
    "everything": lambda name: True,
    "all but the embedding": lambda name: not name.startswith("patch_embed"),
    "the embedding's weight": lambda name: name == "patch_embed.proj.weight",
    "the embedding's bias": lambda name: name == "patch_embed.proj.bias",
    "the head": lambda name: name.startswith("head"),
    "the hidden layer of the head": lambda name: name.startswith("pre_logits"),
    "the last norm": lambda name: name.startswith("norm"),
    "the last block": lambda name: name.startswith("blocks.1"),
    "biases": lambda name: name.endswith("bias"),
    "gains and biases": lambda name: "norm" in name,
    "weights without biases": lambda name: name.endswith("weight"),
    "the class token": lambda name: name == "cls_token",
    "registers": lambda name: name == "reg_token",
    "positions": lambda name: name == "pos_embed",
    "one norm 1": lambda name: name.startswith("blocks.1.norm1"),
    "one norm 2": lambda name: name.startswith("blocks.1.norm2"),
    "one packed projection": lambda name: name.startswith("blocks.1.attn.qkv"),
    "one output projection": lambda name: name.startswith("blocks.1.attn.proj"),
    "one first layer": lambda name: name.startswith("blocks.1.mlp.fc1"),
    "one second layer": lambda name: name.startswith("blocks.1.mlp.fc2"),
    "one bias of queries, keys and values": lambda name: name == "blocks.1.attn.qkv.bias",
    "the factors of one first branch": lambda name: name == "blocks.1.ls1.gamma",
    "the factors of one second branch": lambda name: name == "blocks.1.ls2.gamma",
    "nothing but the image": lambda name: False,
}


def gradients_and_products(gradients, options, trained, image, weights, images, cotangent):
    """The gradients that are needed, and the multiply–adds of the backward pass."""
    model = VisionTransformer(replace(CONFIG, gradients=gradients, **options))
    model.load_state_dict(weights)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(trained(name))
    images = images.clone().requires_grad_(image)
    torch.manual_seed(1)  # the patches that stay
    logits = model(images)
    with FlopCounterMode(display=False) as counter:
        logits.backward(cotangent)
    grads = {name: p.grad for name, p in model.named_parameters()}
    return {**grads, "images": images.grad}, counter.get_total_flops() // 2


@pytest.mark.parametrize("patch_dropout", [0.0, 0.5])
@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("trained", TRAINED.values(), ids=TRAINED)
def test_as_little_work_as_autograd_and_the_same_gradients(
    trained, norm, patch_dropout, monkeypatch
):
    # the fused kernel computes the scores again and is not counted alike; written out, it is
    monkeypatch.setattr(
        multi_head,
        "fused_attention",
        lambda q, k, v, drop: attention(q, k, v, drop, gradients="autograd"),
    )
    options = {"norm": norm, "patch_dropout": patch_dropout}
    model = VisionTransformer(replace(CONFIG, **options))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    images, cotangent = torch.randn(3, 2, 4, 6), torch.randn(3, 3)
    for image in (False, True):
        if not image and not any(trained(name) for name in model.state_dict()):
            continue
        if norm == "post" and trained is TRAINED["the last norm"] and not image:
            continue  # there is none
        (found, ours), (expected, autograds) = (
            gradients_and_products(
                mode, options, trained, image, model.state_dict(), images, cotangent
            )
            for mode in ("derived", "autograd")
        )
        assert ours == autograds
        largest = max(g.abs().max() for g in expected.values() if g is not None)
        for name, gradient in expected.items():
            assert (found[name] is None) == (gradient is None), name
            if gradient is not None:
                assert (found[name] - gradient).abs().max() <= 1e-12 * largest, name
