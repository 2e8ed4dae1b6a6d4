"""Patches that training leaves out: how many, which, and that the rest goes on as if alone."""

import itertools
from collections import Counter
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vitlib import VisionTransformer, ViTConfig
from vitlib.nn.patch_dropout import draw_kept, keep, keep_backward, keep_forward, keep_places
from vitlib.nn.patches import patchify
from vitlib.nn.pooling import pool_forward
from vitlib.nn.vit import draw_masks, vit_backward, vit_forward

pytestmark = pytest.mark.usefixtures("float64")

CPU = torch.device("cpu")
CONFIG = ViTConfig(
    image_size=(4, 6),
    patch_size=2,
    in_channels=2,
    num_classes=3,
    dim=8,
    depth=2,
    heads=2,
    mlp_dim=6,
    layer_norm_eps=1e-3,
    patch_dropout=0.4,
)
POSITIONS = ["learned", "sincos1d", "sincos2d", "rope2d", "none"]


def random_model(config):
    model = VisionTransformer(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def images():
    return torch.randn(3, CONFIG.in_channels, *CONFIG.image_shape)


# The pair


@st.composite
def selections(draw):
    """The tokens of a few images, the places of patches that stay, and the tokens in front."""
    batch, patches, dim = (draw(st.integers(1, 4)) for _ in range(3))
    prefix, count = draw(st.integers(0, 3)), draw(st.integers(1, patches))
    kept = [sorted(draw(st.permutations(range(patches)))[:count]) for _ in range(batch)]
    return torch.randn(batch, prefix + patches, dim), torch.tensor(kept), prefix


@given(selections())
def test_tokens_in_front_and_chosen_patches_stay_as_they_are(selection):
    x, kept, prefix = selection
    y, _ = keep_forward(*selection)
    for image, places, result in zip(x, kept.tolist(), y, strict=True):
        rows = [*image[:prefix], *(image[prefix + place] for place in places)]
        assert torch.equal(result, torch.stack(rows))


@given(selections())
def test_gradients(assert_gradients, selection):
    assert_gradients(keep_forward, keep_backward, *selection)


@given(selections())
def test_as_a_node_of_the_graph(selection):
    x, kept, prefix = selection
    x.requires_grad_()
    cotangent = torch.randn_like(keep_forward(x, kept, prefix)[0])
    grads = [
        torch.autograd.grad(keep(x, kept, prefix, gradients=mode), x, cotangent)[0]
        for mode in ("autograd", "derived")
    ]
    assert torch.equal(*grads)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_precision_is_the_inputs(dtype):
    y, saved = keep_forward(torch.ones(1, 3, 2, dtype=dtype), torch.tensor([[1]]), 1)
    assert y.dtype == keep_backward(y, saved).dtype == dtype


def test_a_mean_of_patches_needs_no_factor():
    """Over all choices of patches it comes to the mean of all patches."""
    x, kept = torch.randn(1, 2 + 5, 3), torch.tensor([*itertools.combinations(range(5), 2)])
    y, _ = keep_forward(x.expand(len(kept), -1, -1), kept, 2)
    means, _ = pool_forward(y, "mean", 2)
    torch.testing.assert_close(means.mean(0, keepdim=True), pool_forward(x, "mean", 2)[0])


def test_a_table_follows_its_patches():
    table, kept = torch.randn(2, 5, 4), torch.tensor([[0, 3], [1, 4], [3, 4]])
    own = keep_places(table, kept)
    assert own.shape == (2, 3, 1, 2, 4)
    for b, n in itertools.product(range(3), range(2)):
        assert torch.equal(own[:, b, 0, n], table[:, kept[b, n]])
    assert keep_places(table, None) is table
    assert keep_places(None, kept) is None


# What is drawn


@given(st.integers(1, 5), st.integers(1, 5), st.floats(0.01, 0.99))
def test_each_image_keeps_the_same_number_in_order(rows, columns, rate):
    config = ViTConfig(image_size=(rows, columns), patch_size=1, patch_dropout=rate)
    kept = draw_kept(config, 7, CPU)
    assert kept.shape == (7, config.num_kept_patches)
    assert (kept.diff() > 0).all()  # so none comes twice
    assert kept.min() >= 0
    assert kept.max() < rows * columns


def test_every_choice_is_as_likely_and_images_choose_alone():
    config = ViTConfig(image_size=(1, 5), patch_size=1, patch_dropout=0.6)
    chosen = Counter(map(tuple, draw_kept(config, 10_000, CPU).tolist()))
    assert chosen.keys() == set(itertools.combinations(range(5), 2))
    assert all(abs(count - 1000) < 5 * 30 for count in chosen.values())  # σ is 30


def test_without_a_rate_nothing_is_drawn():
    state = torch.get_rng_state()
    assert draw_kept(replace(CONFIG, patch_dropout=0.0), 3, CPU) is None
    assert torch.equal(torch.get_rng_state(), state)


def test_the_device_is_that_of_the_arguments_and_not_the_default():
    x = torch.randn(2, 5, 3)
    with torch.device("meta"):
        kept = draw_kept(CONFIG, 2, CPU)
        y, saved = keep_forward(x, torch.tensor([[0, 2], [1, 3]], device=CPU), 1)
        grad_x = keep_backward(y, saved)
    assert kept.device == y.device == grad_x.device == CPU
    assert torch.equal(y[:, 1], x[[0, 1], [1, 2]])


# In the network


def alone(model, image, places):
    """The logits of one image of which the model is shown these patches and no others."""
    config, prefix = model.config, model.config.num_prefix_tokens
    x = model.embed(image[None])
    x = torch.stack([*x[0, :prefix], *(x[0, prefix + place] for place in places)])[None]
    rope = None if model.rope is None else model.rope[:, places]
    for block in model.blocks:
        x = block(x, rope)
    x = model.norm(x)
    y = x[:, 0] if config.pool == "cls" else x[:, prefix:].mean(1)
    return model.head(model.pre_logits(model.fc_norm(y)))[0]


@pytest.mark.parametrize("registers", [0, 2])
@pytest.mark.parametrize("pool", ["cls", "mean"])
@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("gradients", ["autograd", "derived"])
def test_the_patches_that_stay_go_on_as_if_there_were_no_others(
    gradients, position, pool, registers
):
    options = {"position": position, "pool": pool, "registers": registers, "gradients": gradients}
    config = replace(CONFIG, **options)
    model, x = random_model(config), images()
    torch.manual_seed(3)
    kept = draw_kept(config, 3, CPU)
    assert len(set(map(tuple, kept.tolist()))) > 1
    torch.manual_seed(3)
    logits = model(x)
    expected = [alone(model, *one) for one in zip(x, kept.tolist(), strict=True)]
    torch.testing.assert_close(logits, torch.stack(expected))
    assert model.tokens(x).shape == (3, config.num_prefix_tokens + 4, config.dim)


@pytest.mark.parametrize("position", POSITIONS)
def test_in_use_all_patches_are_read(position):
    model = random_model(replace(CONFIG, position=position)).eval()
    plain = VisionTransformer(replace(CONFIG, position=position, patch_dropout=0.0))
    plain.load_state_dict(model.state_dict())
    x = images()
    assert torch.equal(model(x), plain(x))
    assert (model.train()(x) - plain(x)).abs().max() > 1e-3


@pytest.mark.parametrize("position", POSITIONS)
def test_pixels_of_patches_that_are_left_out_have_a_gradient_of_exactly_zero(position):
    config = replace(CONFIG, position=position, pool="mean")
    weights = {name: p.detach() for name, p in random_model(config).named_parameters()}
    x, cotangent = images(), torch.randn(3, config.num_classes)
    grads = []
    for gradients in ("autograd", "derived"):
        model = VisionTransformer(replace(config, gradients=gradients))
        model.load_state_dict(weights)
        torch.manual_seed(3)
        pixels = x.clone().requires_grad_()
        grads += torch.autograd.grad(model(pixels), pixels, cotangent)
    torch.manual_seed(3)
    drops = draw_masks(config, 3, CPU)
    grads.append(vit_backward(cotangent, vit_forward(x, weights, config, drops)[1])[0])
    stays = torch.zeros(3, config.num_patches, dtype=torch.bool)
    for row, places in zip(stays, drops.kept.tolist(), strict=True):
        row[places] = True
    for grad in grads:
        by_patch = patchify(grad, config.patch_size)
        assert (by_patch[~stays] == 0).all()
        assert (by_patch[stays] != 0).all()


def test_patches_are_drawn_before_any_other_mask():
    config = replace(CONFIG, dropout=0.3, attention_dropout=0.3, drop_path=0.3, registers=1)
    torch.manual_seed(3)
    kept = draw_kept(config, 2, CPU)
    torch.manual_seed(3)
    drops = draw_masks(config, 2, CPU)
    assert torch.equal(drops.kept, kept)
    tokens = 2 + config.num_kept_patches
    assert drops.tokens.mask.shape == (2, tokens, config.dim)
    for block in drops.blocks:
        assert block.attn[0].mask.shape == (2, config.heads, tokens, tokens)
        assert block.mlp[0].mask.shape == (2, tokens, config.mlp_dim)


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("x", "error"),
    [
        (torch.zeros(()), ValueError),
        (torch.zeros(2, 4, 6), ValueError),
        (torch.zeros(3, 2, 4, 8), ValueError),
        (torch.zeros(3, 2, 4, 6, dtype=torch.uint8), TypeError),
    ],
    ids=lambda x: str(tuple(x.shape)) if isinstance(x, torch.Tensor) else x.__name__,
)
def test_other_images_are_refused_as_ever(x, error, training):
    with pytest.raises(error, match=r"^images ") as refusal:
        VisionTransformer(CONFIG).train(training)(x)
    assert "\n" not in str(refusal.value)
