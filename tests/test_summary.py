"""The table is the truth about the module: counted there, it comes to the same."""

import json
import re
from dataclasses import asdict, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from vitlib import VisionTransformer, ViTConfig, fast, list_models
from vitlib.config import named_config
from vitlib.summary import summary

# Dosovitskiy et al. 2021 and Touvron et al. 2021, with 1000 classes
PUBLISHED = {
    "vit_tiny_patch16_224": 5_717_416,
    "vit_small_patch16_224": 22_050_664,
    "vit_small_patch32_224": 22_878_952,
    "vit_base_patch16_224": 86_567_656,
    "vit_base_patch32_224": 88_224_232,
    "vit_large_patch16_224": 304_326_632,
    "vit_large_patch32_224": 306_535_400,
    "vit_huge_patch14_224": 632_045_800,
}
SMALL = ViTConfig(
    image_size=8, patch_size=4, in_channels=1, num_classes=10, dim=8, depth=2, heads=2, mlp_dim=12
)
OPTIONS = [
    {},
    {"pool": "mean"},
    {"pool": "mean", "norm_after_pool": True},
    {"norm": "post"},
    {"norm": "post", "pool": "mean"},
    {"activation": "swiglu"},
    {"activation": "relu"},
    {"activation": "gelu_tanh"},
    {"head": "mlp"},
    {"head": "mlp", "pool": "mean", "norm_after_pool": True},
    {"registers": 3},
    {"registers": 3, "pool": "mean", "position": "none"},
    {"position": "sincos1d"},
    {"position": "sincos2d"},
    {"position": "rope2d"},
    {"position": "rope2d", "pool": "mean", "heads": 1},
    {"qkv_bias": False},
    {"layer_scale": 0.1},
    {"layer_scale": 0.1, "norm": "post", "drop_path": 0.3, "dropout": 0.1},
    {"image_size": (8, 12), "patch_size": (4, 2), "in_channels": 3},
    {"patch_size": 8},
    {"patch_size": 1, "in_channels": 2},
    {"heads": 1, "depth": 1},
    {"dropout": 0.3},
    {"attention_dropout": 0.3},
    {"drop_path": 0.3},
    {"drop_path": 0.3, "depth": 1},
    {
        "dropout": 0.1, "attention_dropout": 0.2, "drop_path": 0.3, "norm": "post",
        "activation": "swiglu", "position": "rope2d", "head": "mlp", "registers": 2,
    },
]  # fmt: skip
WHOLE_OR_NOT = pytest.mark.parametrize("whole", [True, False])
EVERY_OPTION = pytest.mark.parametrize("options", OPTIONS, ids=str)


@st.composite
def configs(draw):
    """Any model that is small enough to run."""
    side, count = st.integers(1, 4), st.integers(1, 3)
    patch = draw(side), draw(side)
    heads = draw(count)
    pool, norm = draw(st.sampled_from(["cls", "mean"])), draw(st.sampled_from(["pre", "post"]))
    rates = st.sampled_from([0.0, 0.0, 0.4])
    return ViTConfig(
        image_size=(patch[0] * draw(count), patch[1] * draw(count)),
        patch_size=patch,
        in_channels=draw(count),
        num_classes=draw(side),
        dim=4 * heads * draw(count),
        depth=draw(count),
        heads=heads,
        mlp_dim=draw(st.integers(1, 9)),
        position=draw(st.sampled_from(["learned", "sincos1d", "sincos2d", "rope2d", "none"])),
        pool=pool,
        norm_after_pool=draw(st.booleans()) and pool == "mean" and norm == "pre",
        norm=norm,
        activation=draw(st.sampled_from(["gelu", "gelu_tanh", "relu", "swiglu"])),
        head=draw(st.sampled_from(["linear", "mlp"])),
        dropout=draw(rates),
        attention_dropout=draw(rates),
        drop_path=draw(rates),
        qkv_bias=draw(st.booleans()),
        registers=draw(st.integers(0, 2)),
        layer_scale=draw(st.sampled_from([None, 0.1])),
    )


CALLED = {"pre_logits.fc": "pre_logits"}  # who calls it, where a layer is not called as a module


def on_meta(config, whole=True):
    with torch.device("meta"):
        return model_of(config, whole)


def images(config, batch=1, device="cpu"):
    return torch.randn(batch, config.in_channels, *config.image_shape, device=device)


def counted_parameters(model):
    """Weights and biases of every layer that has some."""
    counts = {}
    for name, parameter in model.named_parameters():
        layer, _, kind = name.rpartition(".")
        # the tokens and positions of a model are no layer's
        layer, kind = (layer, kind) if layer else (name, "weight")
        kind = "weight" if kind == "gamma" else kind
        counts.setdefault(layer, {"weight": 0, "bias": 0})[kind] += parameter.numel()
    return {name: (count["weight"], count["bias"]) for name, count in counts.items()}


def model_of(config, whole):
    """A model whose `forward` lets all tokens through, if it is to be whole: somebody looks."""
    model = VisionTransformer(config)
    if whole:
        model.blocks[-1].mlp.register_forward_hook(lambda *_: None)
    return model


def kept_bytes(config, whole, batch=2):
    """What the graph holds on to: every storage once, without the model's own tensors.

    Of the readable form; its fast twins keep less.
    """
    model = model_of(replace(config, gradients="derived"), whole)
    own = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage
        return tensor

    with fast.readable(), saved_tensors_hooks(pack, lambda x: x):
        logits = model(images(config, batch))
    size = sum(storage.nbytes() for storage in kept.values())
    assert logits.requires_grad
    assert size % batch == 0
    return size // batch


def assert_parameters(config):
    own = {x.name: (x.weights, x.biases) for x in summary(config).layers if x.parameters}
    assert own == counted_parameters(on_meta(config))


def assert_multiply_adds(config, whole):
    model = on_meta(config, whole)  # in training, where weights of attention may be dropped
    with FlopCounterMode(display=False) as counter:
        model(images(config, device="meta"))
    layers = summary(config, whole=whole)
    assert 2 * layers.total.multiply_adds == counter.get_total_flops()
    by_module = {
        name.removeprefix("VisionTransformer."): sum(flops.values())
        for name, flops in counter.get_flop_counts().items()
    }
    for layer in layers.layers:
        inner = [x for x in layers.layers if x.name.startswith(f"{layer.name}.")]
        expected = 2 * (layer.multiply_adds + sum(x.multiply_adds for x in inner))
        assert by_module.get(CALLED.get(layer.name, layer.name), 0) == expected, layer.name


# Against the module


@WHOLE_OR_NOT
@pytest.mark.parametrize("name", list_models())
def test_named_models_are_counted_as_they_are_built(name, whole):
    assert_parameters(named_config(name))
    assert_multiply_adds(named_config(name), whole)


@pytest.mark.parametrize(("name", "published"), PUBLISHED.items())
def test_parameters_are_the_published_ones(name, published):
    assert summary(named_config(name)).parameters == published


def test_another_image_size_has_the_published_parameters_too():
    config = named_config("vit_base_patch16_224", image_size=384)
    assert summary(config).parameters == 86_859_496


@WHOLE_OR_NOT
@EVERY_OPTION
def test_every_option_is_counted(options, whole):
    config = replace(SMALL, **options)
    assert_parameters(config)
    assert_multiply_adds(config, whole)


@WHOLE_OR_NOT
@EVERY_OPTION
def test_every_option_keeps_what_is_said(options, whole):
    config = replace(SMALL, **options)
    assert summary(config, whole=whole).total.memory == kept_bytes(config, whole)


@settings(max_examples=40)
@given(configs(), st.booleans())
def test_any_model(config, whole):
    assert_parameters(config)
    assert_multiply_adds(config, whole)
    assert summary(config, whole=whole).total.memory == kept_bytes(config, whole)


@EVERY_OPTION
def test_shapes_are_those_that_pass(options):
    config = replace(SMALL, **options)
    model = VisionTransformer(config)
    passed = {}

    def note(name):
        def hook(module, inputs, output):
            passed[name] = tuple(inputs[0].shape[1:]), tuple(output.shape[1:])

        return hook

    layers = {CALLED.get(layer.name, layer.name): layer for layer in summary(config).layers}
    for name, module in model.named_modules():
        if name in layers:
            module.register_forward_hook(note(name))
    model(images(config))
    # what projects patches is a convolution here; what attends receives tokens, and projects them
    patches, tokens = (config.num_patches, config.dim), (config.num_tokens, config.dim)
    for name, shapes in passed.items():
        layer = layers[name]
        if name.endswith(".attn"):
            assert shapes == (tokens, layer.output)
        elif name == "patch_embed.proj":
            assert shapes == (layer.input, (config.dim, *config.grid))
            assert layer.output == patches
        else:
            assert shapes == (layer.input, layer.output), name
    without = {"cls_token", "pos_embed", "reg_token", "dropout", "pool"}
    assert layers.keys() - passed.keys() <= without


@given(configs())
def test_layers_fit_one_another(config):
    whole = summary(config)
    for one, next_one in zip(whole.layers, whole.layers[1:], strict=False):
        assert one.output == next_one.input, next_one.name
    assert whole.total.input == (config.in_channels, *config.image_shape)
    assert whole.total.output == (config.num_classes,)


@given(configs())
def test_whose_backward_it_is_changes_nothing(config):
    other = replace(config, gradients="derived")
    assert summary(other).layers == summary(config).layers


# On paper


def test_json_is_everything():
    whole = summary(replace(SMALL, norm="post", image_size=(8, 16)))
    read = json.loads(whole.to_json())
    assert ViTConfig.from_dict(read["config"]) == whole.config
    told, layers = [*read["layers"], read["total"]], [*whole.layers, whole.total]
    assert told == [json.loads(json.dumps(asdict(layer))) for layer in layers]


def rows(text):
    """The cells of each line of a text."""
    return [re.split(r"  +", line.strip()) for line in text.splitlines()]


def test_text_and_markdown_say_every_number_once():
    whole = summary(SMALL)
    block = [layer for layer in whole.layers if layer.name.startswith("blocks.0.")]
    printed = [x for x in whole.layers if not x.name.startswith("blocks.1.")]
    for layer in [*printed, whole.total]:
        name = layer.name.removeprefix("blocks.0.")
        numbers = [f"{x:,}" if x else "–" for x in list(asdict(layer).values())[3:]]
        shapes = ["×".join(map(str, shape)) for shape in (layer.input, layer.output)]
        assert rows(whole.to_text()).count([name, *shapes, *numbers]) == 1
        cells = re.escape(" | ".join([*shapes, *numbers]))
        assert len(re.findall(rf"^\| \W+{name}\W+ \| {cells} \|$", whole.to_markdown(), re.M)) == 1
    for text in (whole.to_text(), whole.to_markdown()):
        assert text.count("blocks.0 … blocks.1 (×2)") == 1
        assert text.count(f"{sum(x.weights for x in block):,}") == 1


def test_blocks_that_differ_are_printed_apart():
    text = summary(replace(SMALL, depth=4, drop_path=0.1)).to_text()
    assert "\nblocks.0\n" in text
    assert "\nblocks.1 … blocks.3 (×3)\n" in text


@pytest.mark.parametrize(
    ("config", "units"),
    [
        (SMALL, ["bytes"]),
        (replace(SMALL, image_size=32, dim=64, mlp_dim=256), ["thousand", "kB"]),
        (named_config("vit_base_patch16_224"), ["million", "MB"]),
    ],
)
def test_units_suit_the_model(config, units):
    _, table, _ = summary(config).to_text().split("\n\n")
    assert table.splitlines()[1].split()[5:] == units


def test_patches_that_training_drops_are_counted_and_told():
    plain, fewer = summary(SMALL), summary(replace(SMALL, patch_dropout=0.3))
    assert fewer.layers == plain.layers
    told = "All patches are counted; in training, an image keeps 3 of 4."
    for one, other in (
        (plain.to_text(), fewer.to_text()),
        (plain.to_markdown(), fewer.to_markdown()),
    ):
        assert told not in one
        assert other.endswith(f"\n{told}")


@given(configs())
def test_columns_are_straight(config):
    table = summary(config).to_text().split("\n\n")[1].splitlines()
    assert len({len(line) for line in table if not line.startswith("blocks.")}) == 1
