import json
from dataclasses import FrozenInstanceError

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vitlib import VisionTransformer, ViTConfig, create_model, list_models
from vitlib.config import named_config

TI = "vit_tiny_patch16_224"

# 1000 classes, 224 pixels: counted in timm
PARAMETERS = {
    "vit_tiny_patch16_224": 5_717_416,
    "vit_small_patch16_224": 22_050_664,
    "vit_small_patch32_224": 22_878_952,
    "vit_base_patch16_224": 86_567_656,
    "vit_base_patch32_224": 88_224_232,
    "vit_large_patch16_224": 304_326_632,
    "vit_large_patch32_224": 306_535_400,
    "vit_huge_patch14_224": 632_045_800,
}

FAULTS = [
    ({"image_size": 0}, ValueError, "image_size=0: expected a whole number"),
    ({"image_size": (224, -1)}, ValueError, "image_size=-1: expected"),
    ({"image_size": [8, 8]}, TypeError, r"image_size=\[8, 8\]: expected .* tuple"),
    ({"image_size": (8, 8, 8)}, ValueError, r"image_size=\(8, 8, 8\): expected"),
    ({"image_size": ()}, ValueError, r"image_size=\(\): expected"),
    ({"image_size": 224.0}, TypeError, "image_size=224.0: expected"),
    ({"image_size": "224"}, TypeError, "image_size='224': expected"),
    ({"patch_size": True}, TypeError, "patch_size=True: expected"),
    ({"patch_size": (16, 16.0)}, TypeError, "patch_size=16.0: expected"),
    ({"patch_size": None}, TypeError, "patch_size=None: expected"),
    ({"patch_size": 15}, ValueError, "patch_size=15 does not divide image_size=224"),
    ({"patch_size": 448}, ValueError, "patch_size=448 does not divide"),
    ({"image_size": (32, 30), "patch_size": 4}, ValueError, r"image_size=\(32, 30\)"),
    ({"in_channels": 0}, ValueError, "in_channels=0: expected"),
    ({"num_classes": -1}, ValueError, "num_classes=-1: expected"),
    ({"num_classes": "ten"}, TypeError, "num_classes='ten': expected"),
    ({"dim": 192.0}, TypeError, "dim=192.0: expected"),
    ({"dim": (192, 192)}, TypeError, "dim=.* expected"),
    ({"depth": 0}, ValueError, "depth=0: expected"),
    ({"depth": True}, TypeError, "depth=True: expected"),
    ({"heads": 0}, ValueError, "heads=0: expected"),
    ({"heads": 5}, ValueError, "dim=192 is not divisible by heads=5"),
    ({"mlp_dim": None}, TypeError, "mlp_dim=None: expected"),
    ({"position": "sincos"}, ValueError, "position='sincos' is not available: choose 'learned'"),
    ({"pool": "max"}, ValueError, "pool='max' is not available: choose"),
    ({"norm": "none"}, ValueError, "norm='none' is not available: choose"),
    ({"norm_after_pool": 1}, ValueError, "norm_after_pool=1 is not available: choose True or"),
    ({"norm_after_pool": True}, ValueError, "contradicts pool='cls'.* Choose pool='mean'"),
    (
        {"norm_after_pool": True, "pool": "mean", "norm": "post"},
        ValueError,
        "contradicts norm='post'.* Choose norm='pre'",
    ),
    ({"activation": "GELU"}, ValueError, "activation='GELU' is not available: choose"),
    ({"head": ["linear"]}, ValueError, "head=.* is not available: choose"),
    ({"dropout": 1}, ValueError, "dropout=1: expected a number from 0 to below 1"),
    ({"dropout": False}, TypeError, "dropout=False: expected a number"),
    ({"dropout": -0.1}, ValueError, "dropout=-0.1: expected a number"),
    ({"attention_dropout": None}, TypeError, "attention_dropout=None: expected a number"),
    ({"attention_dropout": 50}, ValueError, "attention_dropout=50: expected a number"),
    ({"drop_path": float("nan")}, ValueError, "drop_path=nan: expected a number"),
    ({"drop_path": "0.1"}, TypeError, "drop_path='0.1': expected a number"),
    ({"patch_dropout": 1.0}, ValueError, "patch_dropout=1.0: expected a number from 0 to below 1"),
    ({"patch_dropout": True}, TypeError, "patch_dropout=True: expected a number"),
    ({"registers": -1}, ValueError, "registers=-1: expected a whole number, from 0"),
    ({"registers": 0.5}, TypeError, "registers=0.5: expected a whole number"),
    ({"layer_scale": 0}, ValueError, "layer_scale=0: expected a number above 0, to 1, such as"),
    ({"layer_scale": 2.0}, ValueError, "layer_scale=2.0: expected .* or None"),
    ({"layer_scale": float("nan")}, ValueError, "layer_scale=nan: expected"),
    ({"layer_scale": True}, TypeError, "layer_scale=True: expected a number"),
    ({"layer_scale": "1e-4"}, TypeError, "layer_scale='1e-4': expected a number"),
    (
        {"position": "rope2d", "dim": 198},
        ValueError,
        "dim / heads=66 is not divisible by 4: position='rope2d'",
    ),
    (
        {"position": "sincos2d", "dim": 198},
        ValueError,
        "dim=198 is not divisible by 4: position='sincos2d'",
    ),
    (
        {"position": "sincos1d", "dim": 189},
        ValueError,
        "dim=189 is not divisible by 2: position='sincos1d'",
    ),
    ({"dim": 10**12}, ValueError, "dim=1000000000000: expected .* to 1,000,000"),
    ({"image_size": 10**9, "patch_size": 10**3}, ValueError, "image_size=1000000000: expected"),
    ({"depth": 1_000_001}, ValueError, "depth=1000001: expected"),
    ({"qkv_bias": 0}, ValueError, "qkv_bias=0 is not available: choose True or False"),
    ({"gradients": "backprop"}, ValueError, "choose 'autograd' or 'derived'"),
    ({"layer_norm_eps": 0}, ValueError, "layer_norm_eps=0: expected a small positive number"),
    ({"layer_norm_eps": 1.0}, ValueError, "layer_norm_eps=1.0: expected"),
    ({"layer_norm_eps": float("nan")}, ValueError, "layer_norm_eps=nan: expected"),
    ({"layer_norm_eps": "1e-6"}, TypeError, "layer_norm_eps='1e-6': expected"),
]


@pytest.mark.parametrize(("values", "error", "says"), FAULTS, ids=[str(f[0]) for f in FAULTS])
def test_a_value_that_cannot_be_is_told_in_one_line(values, error, says):
    with pytest.raises(error, match=says) as caught:
        ViTConfig(**values)
    assert "\n" not in str(caught.value)


def test_sizes():
    config = ViTConfig(image_size=(8, 12), patch_size=(4, 2))
    assert (config.image_shape, config.patch_shape) == ((8, 12), (4, 2))
    assert (config.grid, config.num_patches, config.num_tokens) == ((2, 6), 12, 13)
    config = ViTConfig()
    assert (config.image_shape, config.patch_shape) == ((224, 224), (16, 16))
    assert (config.grid, config.num_patches, config.num_tokens) == ((14, 14), 196, 197)


@pytest.mark.parametrize(
    "values",
    [
        {"position": "rope2d"},
        {"position": "sincos2d", "pool": "mean", "norm_after_pool": True},
        {"position": "none", "norm": "post", "head": "mlp", "registers": 4},
        {"layer_scale": 1e-4},
        {"position": "sincos1d", "activation": "swiglu"},
        {"activation": "relu", "dropout": 0.1, "attention_dropout": 0.5, "drop_path": 0.99},
        {"patch_dropout": 0.75, "pool": "mean"},
        {"activation": "gelu_tanh", "dropout": 0, "dim": 1_000_000, "heads": 1},
    ],
    ids=str,
)
def test_values_that_can_be(values):
    config = ViTConfig(**values)
    assert {name: getattr(config, name) for name in values} == values


def test_tokens_and_positions_are_counted():
    counts = {
        (pool, registers): (config.num_prefix_tokens, config.num_positions, config.num_tokens)
        for pool in ("cls", "mean")
        for registers in (0, 4)
        for config in [ViTConfig(pool=pool, registers=registers)]
    }
    assert counts == {
        ("cls", 0): (1, 197, 197),
        ("cls", 4): (5, 197, 201),
        ("mean", 0): (0, 196, 196),
        ("mean", 4): (4, 196, 200),
    }


@pytest.mark.parametrize(
    ("rows", "columns", "rate", "kept"),
    [
        (14, 14, 0, 196),
        (14, 14, 0.5, 98),
        (14, 14, 0.75, 49),
        (2, 2, 0.1, 4),
        (2, 2, 0.25, 3),
        (2, 2, 0.99, 1),
        (1, 1, 0.5, 1),
        (3, 3, 0.5, 5),  # half a patch is one
        (10, 10, 0.9, 10),  # 100 (1 − 0.9) is 9.999… in floating point
        (9, 5, 0.9, 5),  # 45 (1 − 0.9) is 4.499…
    ],
)
def test_so_many_patches_stay_in_training(rows, columns, rate, kept):
    config = ViTConfig(image_size=(rows, columns), patch_size=1, patch_dropout=rate)
    assert config.num_kept_patches == kept


def test_the_last_norm_is_before_pooling_after_it_or_nowhere():
    assert ViTConfig().final_norm == "norm"
    assert ViTConfig(pool="mean", norm_after_pool=True).final_norm == "fc_norm"
    assert ViTConfig(norm="post").final_norm is None


def test_a_configuration_does_not_change():
    with pytest.raises(FrozenInstanceError):
        ViTConfig().dim = 7


sides = st.integers(1, 5)


@given(sides, sides, sides, sides, sides, sides, st.booleans(), st.booleans())
def test_it_survives_a_journey_through_json(rows, columns, p, q, heads, width, bias, derived):
    config = ViTConfig(
        image_size=(rows * p, columns * q),
        patch_size=(p, q),
        dim=heads * width,
        heads=heads,
        qkv_bias=bias,
        gradients="derived" if derived else "autograd",
    )
    again = ViTConfig.from_dict(json.loads(json.dumps(config.to_dict())))
    assert again == config
    assert hash(again) == hash(config)


def test_fields_that_are_not_given_keep_their_defaults():
    assert ViTConfig.from_dict({"dim": 6, "heads": 2}) == ViTConfig(dim=6, heads=2)


@pytest.mark.parametrize(
    ("values", "error", "says"),
    [
        ({"colour": 3}, ValueError, "has no field 'colour'"),
        ({"patchsize": 4}, ValueError, r"no field 'patchsize' \(did you mean 'patch_size'\?\)"),
        ({3: 4}, ValueError, "no field 3"),
        ({"dim": [6]}, TypeError, r"dim=\[6\]"),
        ({"image_size": [8]}, ValueError, r"image_size=\(8,\): expected"),
        ({"image_size": [8, "8"]}, TypeError, "image_size='8': expected"),
    ],
)
def test_a_dictionary_that_is_no_configuration_is_told_in_one_line(values, error, says):
    with pytest.raises(error, match=says) as caught:
        ViTConfig.from_dict(values)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", list_models())
def test_named_models_have_the_parameters_that_their_name_promises(name):
    with torch.device("meta"):
        model = create_model(name)
    count = sum(parameter.numel() for parameter in model.parameters())
    config = named_config(name)
    dim, hidden, (p, q) = config.dim, config.mlp_dim, config.patch_shape
    assert p == q == int(name.split("patch")[1].split("_")[0])
    attention, mlp = 4 * dim * dim + 4 * dim, 2 * dim * hidden + hidden + dim
    around = dim * (3 * p * q + 1) + dim * (1 + config.num_tokens) + 2 * dim + 1000 * (dim + 1)
    assert count == config.depth * (attention + mlp + 4 * dim) + around
    assert count == PARAMETERS.get(name, count)


def test_the_published_counts_are_all_of_models_that_exist():
    assert PARAMETERS.keys() <= set(list_models())
    with torch.device("meta"):
        large = create_model("vit_base_patch16_224", image_size=384)
    assert sum(parameter.numel() for parameter in large.parameters()) == 86_859_496


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("vit_tiny_patch16_225", f"did you mean '{TI}'?"),
        ("vit_tiny", "list_models() has all names"),
        ("resnet50", "list_models() has all names"),
        (None, "no model is called None"),
    ],
)
def test_an_unknown_model_is_told_with_the_nearest_name(name, hint):
    with pytest.raises(ValueError, match="no model is called") as caught:
        create_model(name)
    assert hint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_options_differ_from_the_named_model():
    model = create_model(
        TI, image_size=(8, 16), patch_size=4, in_channels=1, num_classes=10, gradients="derived"
    )
    assert model.config == ViTConfig(
        image_size=(8, 16), patch_size=4, in_channels=1, num_classes=10, gradients="derived"
    )
    assert model(torch.randn(2, 1, 8, 16)).shape == (2, 10)


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"class_count": 10}, ValueError, "has no field 'class_count'"),
        ({"num_clases": 10}, ValueError, "did you mean 'num_classes'"),
        ({"heads": 5}, ValueError, "dim=192 is not divisible by heads=5"),
        ({"num_classes": 10.0}, TypeError, "num_classes=10.0: expected"),
    ],
)
def test_an_option_that_cannot_be_is_told(options, error, says):
    with pytest.raises(error, match=says):
        create_model(TI, **options)


def test_the_model_keeps_its_configuration():
    config = ViTConfig(image_size=8, patch_size=4, dim=4, depth=1, heads=2, mlp_dim=8)
    assert VisionTransformer(config).config is config
