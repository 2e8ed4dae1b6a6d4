"""The same numbers as Hugging Face's models, for every option that they have."""

from dataclasses import replace

import pytest
import torch
import transformers

from vitlib import VisionTransformer, ViTConfig

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
    layer_norm_eps=1e-12,
)
MODES = pytest.mark.parametrize("gradients", ["autograd", "derived"])
ACTIVATIONS = {"gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh", "relu": "relu"}


def sizes(config):
    """What their configurations call our sizes."""
    return {
        "image_size": config.image_shape,
        "patch_size": config.patch_size,
        "num_channels": config.in_channels,
        "num_labels": config.num_classes,
        "hidden_size": config.dim,
        "num_hidden_layers": config.depth,
        "num_attention_heads": config.heads,
        "intermediate_size": config.mlp_dim,
        "layer_norm_eps": config.layer_norm_eps,
        "hidden_act": ACTIVATIONS.get(config.activation, "gelu"),
        "qkv_bias": config.qkv_bias,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }


def names(config, body, block, norms, fc1=("mlp.fc1",), fc2="mlp.fc2"):
    """Our name of each parameter, and theirs: one, or several that are stacked.

    Args:
        config: ours.
        body: the prefix of their encoder's names.
        block: their name of a block, with a place for its number.
        norms: their names of a block's two norms and of the last.
        fc1: their names of the first layer of the MLP: one, or gate and value.
        fc2: their name of the second.
    """
    own = {
        "pos_embed": ["embeddings.position_embeddings"],
        "patch_embed.proj.weight": ["embeddings.patch_embeddings.projection.weight"],
        "patch_embed.proj.bias": ["embeddings.patch_embeddings.projection.bias"],
    }
    if config.pool == "cls":
        own["cls_token"] = ["embeddings.cls_token"]
    if config.registers:
        own["reg_token"] = ["embeddings.register_tokens"]
    layers = {"norm": [norms[2]]}
    for i in range(config.depth):
        parts = {
            "norm1": [norms[0]],
            "attn.qkv": [f"attention.{x}_proj" for x in "qkv"],
            "attn.proj": ["attention.o_proj"],
            "norm2": [norms[1]],
            "mlp.fc1": fc1,
            "mlp.fc2": [fc2],
        }
        for ours, theirs in parts.items():
            layers[f"blocks.{i}.{ours}"] = [f"{block.format(i)}.{name}" for name in theirs]
    for ours, theirs in layers.items():
        for kind in ("weight", "bias"):
            if kind == "weight" or config.qkv_bias or not ours.endswith("qkv"):
                own[f"{ours}.{kind}"] = [f"{name}.{kind}" for name in theirs]
    return {name: [f"{body}{part}" for part in theirs] for name, theirs in own.items()}


VIT = "layernorm_before", "layernorm_after", "layernorm"


def vit(config):
    model = transformers.ViTForImageClassification(transformers.ViTConfig(**sizes(config)))
    head = {f"head.{kind}": [f"classifier.{kind}"] for kind in ("weight", "bias")}
    return model, names(config, "vit.", "layers.{}", VIT) | head


def ijepa(config):
    """No class token; the head reads the mean of the normalised tokens."""
    model = transformers.IJepaForImageClassification(transformers.IJepaConfig(**sizes(config)))
    head = {f"head.{kind}": [f"classifier.{kind}"] for kind in ("weight", "bias")}
    return model, names(config, "ijepa.", "layers.{}", VIT) | head


def draw(model):
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model.double().eval()


def copy_weights(theirs, ours, names, unused=()):
    parameters = dict(theirs.named_parameters())
    used = [name for stack in names.values() for name in stack]
    assert sorted([*used, *unused]) == sorted(parameters)  # each exactly once
    ours.load_state_dict(
        {name: torch.cat([parameters[x] for x in stack]) for name, stack in names.items()}
    )


def images(config):
    return torch.randn(3, config.in_channels, *config.image_shape)


@MODES
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@pytest.mark.parametrize(
    ("options", "their"),
    [
        ({}, vit),
        ({"qkv_bias": False}, vit),
        ({"activation": "gelu_tanh"}, vit),
        ({"activation": "relu"}, vit),
        ({"pool": "mean"}, ijepa),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_logits_and_gradients(gradients, dtype, tolerance, options, their):
    config = replace(CONFIG, gradients=gradients, **options)
    (theirs, stacks), ours = their(config), VisionTransformer(config)
    copy_weights(draw(theirs), ours, stacks)
    theirs, ours, x = theirs.to(dtype), ours.to(dtype), images(config).to(dtype)

    logits, their_logits = ours(x), theirs(x).logits
    torch.testing.assert_close(logits, their_logits, rtol=0, atol=tolerance)

    cotangent = torch.randn_like(logits)
    logits.backward(cotangent)
    their_logits.backward(cotangent)
    their_gradients = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    largest = max(gradient.abs().max() for gradient in their_gradients.values())
    for name, parameter in ours.named_parameters():
        expected = torch.cat([their_gradients[x] for x in stacks[name]])
        assert (parameter.grad - expected).abs().max() <= tolerance * largest, name


@MODES
def test_tokens(gradients):
    config = replace(CONFIG, gradients=gradients)
    (theirs, stacks), ours = vit(config), VisionTransformer(config)
    copy_weights(draw(theirs), ours, stacks)
    tokens = ours.tokens(x := images(config))
    assert tokens.shape == (3, config.num_tokens, config.dim) == (3, 7, 24)
    torch.testing.assert_close(tokens, theirs.vit(x).last_hidden_state, rtol=0, atol=1e-10)
    torch.testing.assert_close(ours.head(tokens[:, 0]), ours(x))


@MODES
def test_the_mlp_head_begins_with_their_pooler(gradients):
    config = replace(CONFIG, gradients=gradients, head="mlp")
    theirs = draw(transformers.ViTModel(transformers.ViTConfig(**sizes(config))))
    ours = draw(VisionTransformer(config))
    stacks = names(config, "", "layers.{}", VIT)
    stacks |= {f"pre_logits.fc.{kind}": [f"pooler.dense.{kind}"] for kind in ("weight", "bias")}
    parameters = dict(theirs.named_parameters())
    weights = {name: torch.cat([parameters[x] for x in some]) for name, some in stacks.items()}
    ours.load_state_dict(ours.state_dict() | weights)
    x = images(config)
    expected = ours.head(theirs(x).pooler_output)
    torch.testing.assert_close(ours(x), expected, rtol=0, atol=1e-10)


@MODES
@pytest.mark.parametrize("activation", ["gelu", "swiglu"])
@pytest.mark.parametrize("registers", [1, 4])
def test_registers_layer_scale_and_swiglu_are_dinov2s(gradients, activation, registers):
    config = replace(
        CONFIG,
        image_size=24,
        gradients=gradients,
        activation=activation,
        registers=registers,
        layer_scale=0.1,
        mlp_dim=64 if activation == "swiglu" else 96,
    )
    gated = activation == "swiglu"
    theirs = draw(
        transformers.Dinov2WithRegistersModel(
            transformers.Dinov2WithRegistersConfig(
                **sizes(config) | {"image_size": 24},
                mlp_ratio=4,
                num_register_tokens=registers,
                use_swiglu_ffn=gated,
            )
        )
    )
    fc1 = ("mlp.gate_proj", "mlp.up_proj") if gated else ("mlp.fc1",)
    fc2 = "mlp.down_proj" if gated else "mlp.fc2"
    norms = "norm1", "norm2", "layernorm"
    stacks = names(config, "", "encoder.layer.{}", norms, fc1, fc2)
    ours = draw(VisionTransformer(config))
    stacks |= {f"head.{kind}": [f"head.{kind}"] for kind in ("weight", "bias")}
    stacks |= {
        f"blocks.{i}.ls{number}.gamma": [f"encoder.layer.{i}.layer_scale{number}.lambda1"]
        for i in range(config.depth)
        for number in (1, 2)
    }
    theirs.head = ours.head
    copy_weights(theirs, ours, stacks, unused=["embeddings.mask_token"])
    x = images(config)
    expected = theirs(x).last_hidden_state
    torch.testing.assert_close(ours.tokens(x), expected, rtol=0, atol=1e-10)
