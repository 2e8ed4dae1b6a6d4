"""The whole network as a thing: its pair, its names, what it refuses."""

import copy
from dataclasses import replace

import pytest
import torch

from vitlib import VisionTransformer, ViTConfig, create_model
from vitlib.nn import vit
from vitlib.nn.pooling import pool
from vitlib.nn.vit import vit_backward, vit_forward

pytestmark = pytest.mark.usefixtures("float64")

CONFIG = ViTConfig(
    image_size=(16, 24),
    patch_size=8,
    in_channels=2,
    num_classes=5,
    dim=24,
    depth=3,
    heads=4,
    mlp_dim=36,
)
MODES = pytest.mark.parametrize("gradients", ["autograd", "derived"])


def random_model(config):
    """A model without a single bias of zero or gain of one."""
    model = VisionTransformer(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


def images(config, batch=3):
    return torch.randn(batch, config.in_channels, *config.image_shape)


# Without any autograd


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"qkv_bias": False},
        {"image_size": 8, "depth": 1},  # one patch
        {"patch_size": (4, 12), "heads": 1},
        {"heads": 24, "num_classes": 1, "layer_norm_eps": 0.1},
    ],
    ids=str,
)
def test_the_pair_of_the_whole_network(options):
    config = replace(CONFIG, **options)
    parameters = {name: p.detach() for name, p in random_model(config).named_parameters()}
    model = VisionTransformer(config)
    model.load_state_dict(parameters)
    x = images(config, batch=2).requires_grad_()
    logits = model(x)
    cotangent = torch.randn_like(logits)
    logits.backward(cotangent)

    with torch.inference_mode():
        ours, saved = vit_forward(x.detach(), parameters, config)
        grad_images, grads = vit_backward(cotangent, saved)

    torch.testing.assert_close(ours, logits, rtol=0, atol=1e-12)
    assert grads.keys() == parameters.keys()
    largest = max(p.grad.abs().max() for p in model.parameters())
    assert (grad_images - x.grad).abs().max() <= 1e-10 * largest
    for name, parameter in model.named_parameters():
        assert grads[name].shape == parameter.shape
        assert (grads[name] - parameter.grad).abs().max() <= 1e-10 * largest, name


def test_the_pair_against_differences(assert_gradients):
    config = ViTConfig(
        image_size=(4, 2),
        patch_size=2,
        in_channels=1,
        num_classes=2,
        dim=4,
        depth=1,
        heads=2,
        mlp_dim=3,
        layer_norm_eps=0.1,
    )
    parameters = {name: p.detach() for name, p in random_model(config).named_parameters()}

    def backward(grad_logits, saved):
        grad_images, grads = vit_backward(grad_logits, saved)
        return grad_images, {name: grads[name] for name in parameters}

    x = images(config, batch=2)
    assert_gradients(vit_forward, backward, x, parameters, config)


# Where the class token alone is read


@pytest.fixture
def read(monkeypatch):
    """How many tokens the pooling was given."""
    seen = []

    def noted(x, *options, **more):
        seen.append(x.shape[1])
        return pool(x, *options, **more)

    monkeypatch.setattr(vit, "pool", noted)
    return seen


def looked_at(model):
    model.blocks[-1].mlp.act.register_forward_hook(lambda *_: None)
    return model


@MODES
@pytest.mark.parametrize(
    "options",
    [
        {"registers": 2, "position": "rope2d", "heads": 3},
        {"norm": "post", "head": "mlp", "activation": "swiglu"},
        {"layer_scale": 0.5, "depth": 1},
        {"dropout": 0.2, "attention_dropout": 0.2, "drop_path": 0.3, "patch_dropout": 0.4},
    ],
    ids=str,
)
def test_logits_and_gradients_are_those_of_the_whole_network(assert_near, read, gradients, options):
    model = random_model(replace(CONFIG, gradients=gradients, **options))
    x, results = images(model.config), []
    for each in (model, looked_at(copy.deepcopy(model))):
        torch.manual_seed(0)
        logits = each(x)
        logits.square().sum().backward()
        results.append([logits, *(parameter.grad for parameter in each.parameters())])
    assert read[0] == 1 < read[1]
    assert_near(*results, tolerance=1e-11)


def test_whoever_looks_sees_all_tokens(read):
    model = VisionTransformer(CONFIG)
    tokens, x = CONFIG.num_tokens, images(CONFIG)
    assert model.tokens(x).shape[1] == tokens

    def of_fsdp(*_):
        pass

    of_fsdp.__module__ = "torch.distributed.fsdp._fully_shard._fsdp_state"
    model.blocks[-1].register_forward_hook(of_fsdp)
    model.blocks[0].register_forward_hook(lambda *_: None)
    for module, kind in [
        (model.blocks[-1], "register_forward_hook"),
        (model.blocks[-1].attn.proj, "register_forward_pre_hook"),
        (model.blocks[-1].mlp, "register_full_backward_hook"),
        (model.norm, "register_full_backward_pre_hook"),
    ]:
        hook = getattr(module, kind)(lambda *_: None)
        model(x)
        hook.remove()
        model(x)
    VisionTransformer(replace(CONFIG, pool="mean"))(x)
    assert read == [tokens, 1] * 4 + [tokens - 1]


# The model as a thing


def test_parameters_have_timms_names_and_shapes():
    D, M = CONFIG.dim, CONFIG.mlp_dim
    expected = {
        "cls_token": (1, 1, D),
        "pos_embed": (1, 7, D),
        "patch_embed.proj.weight": (D, 2, 8, 8),
        "patch_embed.proj.bias": (D,),
        "norm.weight": (D,),
        "norm.bias": (D,),
        "head.weight": (5, D),
        "head.bias": (5,),
    }
    for i in range(CONFIG.depth):
        expected |= {
            f"blocks.{i}.norm1.weight": (D,),
            f"blocks.{i}.norm1.bias": (D,),
            f"blocks.{i}.attn.qkv.weight": (3 * D, D),
            f"blocks.{i}.attn.qkv.bias": (3 * D,),
            f"blocks.{i}.attn.proj.weight": (D, D),
            f"blocks.{i}.attn.proj.bias": (D,),
            f"blocks.{i}.norm2.weight": (D,),
            f"blocks.{i}.norm2.bias": (D,),
            f"blocks.{i}.mlp.fc1.weight": (M, D),
            f"blocks.{i}.mlp.fc1.bias": (M,),
            f"blocks.{i}.mlp.fc2.weight": (D, M),
            f"blocks.{i}.mlp.fc2.bias": (D,),
        }
    for gradients in ("autograd", "derived"):
        state = VisionTransformer(replace(CONFIG, gradients=gradients)).state_dict()
        assert {name: tuple(value.shape) for name, value in state.items()} == expected
    without = VisionTransformer(replace(CONFIG, qkv_bias=False)).state_dict()
    biases = {f"blocks.{i}.attn.qkv.bias" for i in range(CONFIG.depth)}
    assert without.keys() == expected.keys() - biases


def test_weights_start_as_timms():
    model = VisionTransformer(replace(CONFIG, dim=96, mlp_dim=384))
    for name, parameter in model.named_parameters():
        if name == "cls_token":
            assert 0 < parameter.std() < 3e-6
        elif "norm" in name:
            assert (parameter == float(name.endswith("weight"))).all(), name
        elif name == "patch_embed.proj.weight":  # a convolution's: uniform up to 1/√(C P²)
            assert parameter.abs().max() <= (2 * 8 * 8) ** -0.5
        elif name == "patch_embed.proj.bias":
            assert parameter.any()
        elif name.endswith("bias"):
            assert not parameter.any(), name
        else:
            assert 0.018 < parameter.std() < 0.022, name
            assert abs(parameter.mean()) < 0.004, name


@MODES
def test_the_order_of_images_does_not_matter(gradients):
    model = random_model(replace(CONFIG, gradients=gradients))
    x = images(CONFIG, batch=4)
    torch.testing.assert_close(model(x.flip(0)), model(x).flip(0))
    torch.testing.assert_close(model(x[:1]), model(x)[:1])


def test_without_positions_patches_can_be_shuffled():
    """Attention sees a set: only the position table tells patches apart."""
    model = random_model(CONFIG)
    x = images(CONFIG)
    swapped = torch.cat([x[..., 8:], x[..., :8]], dim=-1)
    assert (model(swapped) - model(x)).abs().max() > 1e-3
    torch.nn.init.zeros_(model.pos_embed)
    torch.testing.assert_close(model(swapped), model(x))


def test_named_models_take_options():
    model = create_model("vit_tiny_patch16_224", num_classes=10, depth=1, gradients="derived")
    assert model.head.weight.shape == (10, 192)
    assert (len(model.blocks), model.config.gradients) == (1, "derived")


# Images that do not fit


@MODES
@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (torch.zeros(2, 16, 24), ValueError, r"shape \(2, 16, 24\): expected \(B, 2, 16, 24\)"),
        (
            torch.zeros(1, 3, 16, 24),
            ValueError,
            r"shape \(1, 3, 16, 24\): expected \(B, 2, 16, 24\)",
        ),
        (
            torch.zeros(1, 2, 24, 16),
            ValueError,
            r"shape \(1, 2, 24, 16\): expected \(B, 2, 16, 24\)",
        ),
        (torch.zeros(1, 2, 16, 25), ValueError, "Resize the images"),
        (torch.zeros(1, 2, 16, 24, dtype=torch.uint8), TypeError, "torch.uint8: expected floating"),
        (torch.zeros(1, 2, 16, 24, dtype=torch.bool), TypeError, "torch.bool: expected floating"),
    ],
    ids=["one image", "channels", "turned", "wider", "bytes", "booleans"],
)
def test_other_images_are_refused_in_one_line(gradients, x, error, message):
    config = replace(CONFIG, gradients=gradients)
    model = VisionTransformer(config)
    parameters = dict(model.named_parameters())
    for call in (model, model.tokens, lambda x: vit_forward(x, parameters, config)):
        with pytest.raises(error, match=message) as refusal:
            call(x)
        assert "\n" not in str(refusal.value)


def test_shapes_are_enforced_in_these_tests():
    """The import hook is at work: what a signature says is checked."""
    from vitlib.nn.linear import linear_forward

    with pytest.raises(TypeError, match="D_in"):
        linear_forward(torch.zeros(2, 3), torch.zeros(4, 5), None)
    with pytest.raises(TypeError, match="Float"):
        linear_forward(torch.zeros(2, 3, dtype=torch.int64), torch.zeros(4, 3), None)
