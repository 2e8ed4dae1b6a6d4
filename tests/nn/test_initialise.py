"""How weights start: as timm's and as big_vision's do."""

from math import sqrt

import pytest
import torch

from vitlib import VisionTransformer, ViTConfig
from vitlib.nn.initialise import initialise, packed_matrices

CONFIG = ViTConfig(
    image_size=32, dim=256, depth=1, heads=4, mlp_dim=512, num_classes=10, head="mlp",
    activation="swiglu", registers=2, layer_scale=1e-4,
)  # fmt: skip


def drawn(like, config=CONFIG):
    torch.manual_seed(0)
    model = VisionTransformer(config)
    initialise(model, like)
    return model, {name: weight.detach() for name, weight in model.named_parameters()}


def check_uniform(weight, fan_in, fan_out):
    bound = sqrt(6 / (fan_in + fan_out))
    assert weight.abs().max() <= bound
    assert weight.abs().max() > 0.99 * bound
    assert weight.std() == pytest.approx(bound / sqrt(3), rel=0.02)


def test_glorot_takes_each_packed_matrix_for_itself():
    _, weights = drawn("big_vision")
    D, M = CONFIG.dim, CONFIG.mlp_dim
    for part in weights["blocks.0.attn.qkv.weight"].chunk(3):
        check_uniform(part, D, D)
    for part in weights["blocks.0.mlp.fc1.weight"].chunk(2):
        check_uniform(part, D, M)
    check_uniform(weights["blocks.0.mlp.fc2.weight"], M, D)
    check_uniform(weights["blocks.0.attn.proj.weight"], D, D)


@pytest.mark.parametrize(
    ("name", "std"),
    [
        ("patch_embed.proj.weight", 1 / sqrt(3 * 16 * 16)),
        ("pre_logits.fc.weight", 1 / sqrt(256)),
        ("pos_embed", 1 / sqrt(256)),
        ("blocks.0.mlp.fc1.bias", 1e-6),
        ("blocks.0.mlp.fc2.bias", 1e-6),
    ],
)
def test_the_spread_is_that_of_big_vision(name, std):
    weight = drawn("big_vision")[1][name]
    assert weight.std() == pytest.approx(std, rel=0.15)
    if name.endswith(("proj.weight", "fc.weight")):
        # a normal distribution, cut off at two of its own deviations
        assert 1.95 * std / 0.8796 < weight.abs().max() <= 2 * std / 0.8796


def test_the_first_loss_is_log_k():
    model, weights = drawn("big_vision")
    for name in ("head.weight", "head.bias", "cls_token", "reg_token", "blocks.0.attn.qkv.bias"):
        assert not weights[name].any(), name
    assert (weights["norm.weight"] == 1).all()
    assert not model(torch.randn(3, 3, 32, 32)).any()


@pytest.mark.parametrize("like", ["timm", "big_vision"])
def test_factors_of_branches_start_where_the_configuration_says(like):
    _, weights = drawn(like)
    for name in ("blocks.0.ls1.gamma", "blocks.0.ls2.gamma"):
        assert (weights[name] == 1e-4).all()


def test_timms_is_what_a_model_is_made_with():
    torch.manual_seed(0)
    made = VisionTransformer(CONFIG).state_dict()
    _, weights = drawn("timm")
    assert weights["blocks.0.attn.qkv.weight"].std() == pytest.approx(0.02, rel=0.02)
    assert made["blocks.0.attn.qkv.weight"].std() == pytest.approx(0.02, rel=0.02)
    assert not weights["blocks.0.mlp.fc1.bias"].any()


def test_what_is_packed():
    names = VisionTransformer(CONFIG).state_dict()
    packed = {name: packed_matrices(name, "swiglu") for name in names}
    assert {name for name, count in packed.items() if count > 1} == {
        "blocks.0.attn.qkv.weight", "blocks.0.mlp.fc1.weight",
    }  # fmt: skip
    assert packed["blocks.0.attn.qkv.weight"] == 3
    assert packed_matrices("blocks.0.mlp.fc1.weight", "gelu") == 1
