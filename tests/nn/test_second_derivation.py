"""Two derivations that share nothing but the forward formulas lead to the same gradients."""

import importlib
import pkgutil
from dataclasses import replace

import pytest
import torch
from torch import Tensor

import vitlib.nn
from vitlib import VisionTransformer, ViTConfig
from vitlib.nn.activations import (
    gelu_backward,
    gelu_forward,
    gelu_tanh_backward,
    gelu_tanh_forward,
    relu_backward,
    relu_forward,
    swiglu_backward,
    swiglu_forward,
)
from vitlib.nn.attention import attention_backward, attention_forward
from vitlib.nn.block import (
    FACTORS,
    block_backward,
    block_forward,
    branch_backward,
    branch_forward,
    draw_drops,
    scaled_backward,
    scaled_forward,
)
from vitlib.nn.blockwise import blockwise_backward, blockwise_forward
from vitlib.nn.class_token import (
    class_token_backward,
    class_token_forward,
    registers_backward,
    registers_forward,
)
from vitlib.nn.dropout import draw, dropout_backward, dropout_forward
from vitlib.nn.embedding import embedding_backward, embedding_forward
from vitlib.nn.head import head_backward, head_forward, pre_logits_backward, pre_logits_forward
from vitlib.nn.layer_norm import layer_norm_backward, layer_norm_forward
from vitlib.nn.layer_scale import layer_scale_backward, layer_scale_forward
from vitlib.nn.linear import linear_backward, linear_forward
from vitlib.nn.loss import cross_entropy_backward, cross_entropy_forward
from vitlib.nn.mlp import mlp_backward, mlp_forward
from vitlib.nn.multi_head import multi_head_backward, multi_head_forward
from vitlib.nn.patch_dropout import draw_kept, keep_backward, keep_forward
from vitlib.nn.patches import patchify_backward, patchify_forward
from vitlib.nn.pooling import pool_backward, pool_forward
from vitlib.nn.positions import position_table, positions_backward, positions_forward
from vitlib.nn.readout import readout_backward, readout_forward
from vitlib.nn.resize import resize_backward, resize_forward, resize_matrix
from vitlib.nn.rotary import rope_table, rotary_backward, rotary_forward
from vitlib.nn.sigmoid_loss import binary_cross_entropy_backward, binary_cross_entropy_forward
from vitlib.nn.single_query import single_query_backward, single_query_forward
from vitlib.nn.softmax import softmax_backward, softmax_forward
from vitlib.nn.tokens import tokens_backward, tokens_forward
from vitlib.nn.vit import draw_masks, vit_backward, vit_forward

from . import by_indices

pytestmark = pytest.mark.usefixtures("float64")

DROPPED = pytest.mark.parametrize("rate", [0.0, 0.3])
CPU = torch.device("cpu")
CONFIGS = {
    "as in the paper": ViTConfig(
        image_size=(6, 4),
        patch_size=(3, 2),
        in_channels=2,
        num_classes=5,
        dim=6,
        depth=2,
        heads=3,
        mlp_dim=7,
        dropout=0.2,
        attention_dropout=0.3,
        drop_path=0.4,
        layer_scale=0.1,
    ),
    "rotary": ViTConfig(
        image_size=(4, 6),
        patch_size=2,
        in_channels=1,
        num_classes=3,
        dim=12,
        depth=2,
        heads=3,
        mlp_dim=5,
        position="rope2d",
        registers=2,
        activation="swiglu",
        qkv_bias=False,
        head="mlp",
    ),
    "mean of the patches": ViTConfig(
        image_size=6,
        patch_size=(2, 3),
        in_channels=3,
        num_classes=4,
        dim=8,
        depth=1,
        heads=2,
        mlp_dim=5,
        position="sincos2d",
        pool="mean",
        norm_after_pool=True,
        registers=3,
        activation="relu",
        dropout=0.3,
    ),
    "post-norm": ViTConfig(
        image_size=(2, 6),
        patch_size=2,
        num_classes=2,
        dim=4,
        depth=2,
        heads=1,
        mlp_dim=6,
        pool="mean",
        norm="post",
        activation="gelu_tanh",
        head="mlp",
        attention_dropout=0.3,
        drop_path=0.3,
        layer_scale=0.1,
    ),
}
FEWER = {
    f"{name}, of half the patches": replace(config, patch_dropout=0.5)
    for name, config in CONFIGS.items()
}
EACH_CONFIG = pytest.mark.parametrize(
    "config", [*CONFIGS.values(), *FEWER.values()], ids=[*CONFIGS, *FEWER]
)


@pytest.fixture(name="agree")
def _agree(assert_near):
    def agree(found, expected):
        """The same tensors in the same order, or of the same name, whatever they are nested in."""
        found, expected = leaves(found), leaves(expected)
        assert len(found) == len(expected) > 0
        expected = [b.reshape(a.shape) for a, b in zip(found, expected, strict=True)]
        assert_near(found, expected, tolerance=1e-12)

    return agree


def leaves(nest):
    """The tensors of a nest in order, those of a dictionary by name; None is left out."""
    if isinstance(nest, Tensor):
        return [nest]
    if isinstance(nest, dict):
        nest = [nest[name] for name in sorted(nest)]
    return [leaf for branch in nest or () for leaf in leaves(branch)]


def run(forward, backward, *inputs):
    """A random cotangent, and what the pair makes of it."""
    y, saved = forward(*inputs)
    grad_y = torch.randn_like(y)
    return grad_y, backward(grad_y, saved)


def keep(drop):
    return None if drop is None else drop.mask / (1 - drop.rate)


def test_every_pair_is_in_this_file():
    modules = [
        importlib.import_module(f"vitlib.nn.{m.name}")
        for m in pkgutil.iter_modules(vitlib.nn.__path__)
    ]
    names = {name for module in modules for name in vars(module)}
    pairs = {name for name in names if name.endswith(("_forward", "_backward"))}
    assert {"linear_backward", "vit_backward"} < pairs <= globals().keys()


# Layers


@pytest.mark.parametrize("shape", [(5,), (1, 5), (3, 1, 5), (2, 3, 4, 5)])
def test_linear(agree, shape):
    x, weight, bias = torch.randn(shape), torch.randn(7, 5), torch.randn(7)
    for pair in ((linear_forward, linear_backward), (head_forward, head_backward)):
        grad_y, grads = run(*pair, x, weight, bias)
        agree(grads, by_indices.linear_grads(x, weight, grad_y))
    grad_y, grads = run(linear_forward, linear_backward, x, weight)
    assert grads[2] is None
    agree(grads, by_indices.linear_grads(x, weight, grad_y)[:2])


@pytest.mark.parametrize("size", [(2, 5), (3, 1), (6, 10)])
def test_patches(agree, size):
    images, weight, bias = torch.randn(2, 3, 6, 10), torch.randn(4, 3, *size), torch.randn(4)
    grad_y, grad = run(patchify_forward, patchify_backward, images, size)
    agree(grad, by_indices.patches_grads(grad_y, images.shape, size))
    grad_y, grads = run(embedding_forward, embedding_backward, images, weight, bias)
    agree(grads, by_indices.patch_embedding_grads(images, weight, grad_y))


@pytest.mark.parametrize("before", [0, 1, 5])
def test_what_joins_the_patches(agree, before):
    x = torch.randn(3, 5, 4)
    grad_y, grads = run(positions_forward, positions_backward, x, torch.randn(1, 5, 4))
    agree(grads, by_indices.positions_grads(grad_y))
    grad_y, grads = run(class_token_forward, class_token_backward, x, torch.randn(1, 1, 4))
    agree(grads, by_indices.class_token_grads(grad_y))
    registers = torch.randn(1, 2, 4)
    grad_y, grads = run(registers_forward, registers_backward, x, registers, before)
    agree(grads, by_indices.registers_grads(grad_y, 2, before))


@pytest.mark.parametrize("rate", [0.1, 0.6])
@pytest.mark.parametrize("prefix", [0, 3])
def test_patches_that_stay(agree, prefix, rate):
    config = ViTConfig(image_size=4, patch_size=(1, 2), patch_dropout=rate)
    kept = draw_kept(config, 3, CPU)
    grad_y, grad = run(keep_forward, keep_backward, torch.randn(3, prefix + 8, 5), kept, prefix)
    agree(grad, by_indices.patch_dropout_grads(kept, prefix + 8, prefix, grad_y))


@pytest.mark.parametrize("images", [(), (2,)], ids=["one table", "each image its own"])
@pytest.mark.parametrize("prefix", [0, 2])
def test_rotary(agree, prefix, images):
    angles = 3 * torch.randn(*images, 5, 3)
    by_entry = angles.repeat_interleave(2, dim=-1)
    table = torch.stack([by_entry.cos(), by_entry.sin()])
    if images:
        table = table[:, :, None]  # for all heads
    grad_y, grad = run(rotary_forward, rotary_backward, torch.randn(2, 3, prefix + 5, 6), table)
    agree(grad, by_indices.rotary_grads(angles, grad_y))


@pytest.mark.parametrize("new", [(5, 7), (2, 3), (1, 9)])
def test_resize(agree, new):
    table = torch.randn(1, 2 + 3 * 4, 5)
    grad_y, grad = run(resize_forward, resize_backward, table, (3, 4), new)
    rows, columns = resize_matrix(3, new[0]), resize_matrix(4, new[1])
    agree(grad, by_indices.resize_grads(grad_y[0], rows, columns, prefix=2))


def test_softmax(agree):
    scores = 3 * torch.randn(2, 3, 5)
    grad_y, grad = run(softmax_forward, softmax_backward, scores)
    agree(grad, by_indices.softmax_grads(by_indices.softmax_values(scores), grad_y))


@DROPPED
@pytest.mark.parametrize("tokens", [1, 7])
def test_attention(agree, tokens, rate):
    q, k, v = torch.randn(3, 2, 3, tokens, 5)
    drop = draw((2, 3, tokens, tokens), rate, CPU)
    grad_o, grads = run(attention_forward, attention_backward, q, k, v, drop)
    agree(grads, by_indices.attention_grads(q, k, v, grad_o, keep(drop)))


@DROPPED
@pytest.mark.parametrize("tile", [1, 3, 8])
def test_blockwise_attention(agree, tile, rate):
    q, k, v = torch.randn(3, 2, 3, 7, 5)
    drop = draw((2, 3, 7, 7), rate, CPU)
    grad_o, grads = run(blockwise_forward, blockwise_backward, q, k, v, drop, tile)
    agree(grads, by_indices.attention_grads(q, k, v, grad_o, keep(drop)))
    o, _ = by_indices.attention_values(q, k, v, keep(drop))
    lse = (torch.einsum("bhtj,bhuj->bhtu", q, k) / 5**0.5).logsumexp(-1)
    agree(grads, by_indices.attention_grads_by_key(q, k, v, o, lse, grad_o, keep(drop)))


@DROPPED
@pytest.mark.parametrize("turned", [0, 4])
@pytest.mark.parametrize("with_bias", [True, False])
def test_multi_head(agree, with_bias, turned, rate):
    B, T, D, H, d = 2, 6, 5, 3, 4
    x, angles, table = torch.randn(B, T, D), None, None
    if turned:
        angles = 3 * torch.randn(turned, d // 2)
        by_entry = angles.repeat_interleave(2, dim=1)
        table = torch.stack([by_entry.cos(), by_entry.sin()])
    qkv = torch.randn(3 * H * d, D), torch.randn(3 * H * d) if with_bias else None
    proj = torch.randn(D, H * d), torch.randn(D)
    drops = draw((B, H, T, T), rate, CPU), draw((B, T, D), rate, CPU)
    grad_y, grads = run(multi_head_forward, multi_head_backward, x, qkv, proj, H, table, drops)
    grad_x, params = by_indices.multi_head_grads(
        x, (*qkv, *proj), H, grad_y, angles, *map(keep, drops)
    )
    if not with_bias:
        params = params[:1] + params[2:]
    agree(grads, [grad_x, params])


@pytest.mark.parametrize("with_bias", [True, False])
def test_single_query(agree, with_bias):
    """By indices, all tokens ask, and what the others receive is not read."""
    B, T, D, H, d = 2, 6, 5, 3, 4
    x = torch.randn(B, T, D)
    qkv = torch.randn(3 * H * d, D), torch.randn(3 * H * d) if with_bias else None
    grad_o, grads = run(single_query_forward, single_query_backward, x, qkv, H)
    of_all = torch.cat([grad_o, torch.zeros(B, T - 1, H * d)], dim=1)
    proj = torch.eye(H * d), torch.zeros(H * d)
    grad_x, params = by_indices.multi_head_grads(x, (*qkv, *proj), H, of_all, None, None, None)
    agree(grads, [grad_x, params[:2] if with_bias else params[:1]])


@pytest.mark.parametrize("eps", [1e-6, 0.3])
@pytest.mark.parametrize("shape", [(1, 7), (2, 3, 5)])
def test_layer_norm(agree, shape, eps):
    x, gain, bias = 3 + torch.randn(shape), torch.randn(shape[-1]), torch.randn(shape[-1])
    grad_y, grads = run(layer_norm_forward, layer_norm_backward, x, gain, bias, eps)
    agree(grads, by_indices.layer_norm_grads(x, gain, eps, grad_y))


@pytest.mark.parametrize(
    ("name", "forward", "backward"),
    [
        ("gelu", gelu_forward, gelu_backward),
        ("gelu_tanh", gelu_tanh_forward, gelu_tanh_backward),
        ("relu", relu_forward, relu_backward),
        ("swiglu", swiglu_forward, swiglu_backward),
    ],
)
def test_activations(agree, name, forward, backward):
    u = 3 * torch.randn(3, 5, 8)
    grad_y, grad = run(forward, backward, u)
    agree(grad, by_indices.ACTIVATIONS[name][1](u, grad_y))


@pytest.mark.parametrize("shape", [(3, 5, 4), (3, 1, 1)])
def test_dropout(agree, shape):
    drop = draw(shape, 0.4, CPU)
    grad_y, grad = run(dropout_forward, dropout_backward, torch.randn(3, 5, 4), drop)
    agree(grad, by_indices.dropout_grads(drop.mask, 0.4, grad_y))


@DROPPED
@pytest.mark.parametrize("activation", by_indices.ACTIVATIONS)
def test_mlp(agree, activation, rate):
    x, M = torch.randn(2, 3, 5), 4
    U = 2 * M if activation == "swiglu" else M
    fc1, fc2 = (torch.randn(U, 5), torch.randn(U)), (torch.randn(5, M), torch.randn(5))
    drops = draw((2, 3, M), rate, CPU), draw((2, 3, 5), rate, CPU)
    grad_y, grads = run(mlp_forward, mlp_backward, x, fc1, fc2, activation, drops)
    agree(grads, by_indices.mlp_grads(x, (*fc1, *fc2), activation, grad_y, *map(keep, drops)))


@pytest.mark.parametrize(("pool", "prefix"), [("cls", 1), ("cls", 3), ("mean", 0), ("mean", 3)])
def test_pool(agree, pool, prefix):
    grad_y, grad = run(pool_forward, pool_backward, torch.randn(2, 5, 3), pool, prefix)
    agree(grad, by_indices.pool_grads(pool, 5, prefix, grad_y))


def test_the_head_with_a_hidden_layer(agree):
    x, hidden = torch.randn(3, 5), (torch.randn(5, 5), torch.randn(5))
    head = torch.randn(2, 5), torch.randn(2)
    h, saved_hidden = pre_logits_forward(x, *hidden)
    _, saved_head = head_forward(h, *head)
    grad_z = torch.randn(3, 2)
    grad_h, *grad_head = head_backward(grad_z, saved_head)
    grad_x, *grad_hidden = pre_logits_backward(grad_h, saved_hidden)
    agree([grad_x, grad_hidden, grad_head], by_indices.tanh_head_grads(x, (*hidden, *head), grad_z))


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_cross_entropy(agree, smoothing):
    z, rows, labels = 3 * torch.randn(4, 5), torch.randn(4, 5), torch.tensor([0, 4, 2, 2])
    for targets in (rows, labels):
        grad, grads = run(cross_entropy_forward, cross_entropy_backward, z, targets, smoothing)
        expected = by_indices.cross_entropy_grads(z, targets, smoothing, grad)
        agree(grads, expected if targets is rows else expected[:1])


def test_binary_cross_entropy(agree):
    z, rows, labels = 3 * torch.randn(4, 5), torch.randn(4, 5), torch.tensor([0, 4, 2, 2])
    for targets in (rows, labels):
        grad, grads = run(binary_cross_entropy_forward, binary_cross_entropy_backward, z, targets)
        expected = by_indices.binary_cross_entropy_grads(z, targets, grad)
        agree(grads, expected if targets is rows else expected[:1])


# Compositions


def attention_of(params, heads, angles=None, drops=(None, None)):
    """Multi-head attention as a branch takes it: values and gradients."""
    options = heads, angles, *map(keep, drops)
    return (
        lambda x: by_indices.multi_head_values(x, params, *options),
        lambda x, grad: by_indices.multi_head_grads(x, params, heads, grad, *options[1:]),
    )


def mlp_of(params, activation, drops=(None, None)):
    """The MLP as a branch takes it."""
    options = activation, *map(keep, drops)
    return (
        lambda x: by_indices.mlp_values(x, params, *options),
        lambda x, grad: by_indices.mlp_grads(x, params, activation, grad, *options[1:]),
    )


def test_layer_scale(agree):
    x, gamma = torch.randn(3, 4, 5), torch.randn(5)
    grad_y, grads = run(layer_scale_forward, layer_scale_backward, x, gamma)
    agree(grads, by_indices.layer_scale_grads(x, gamma, grad_y))


@DROPPED
@pytest.mark.parametrize("place", ["pre", "post"])
@pytest.mark.parametrize("gamma", [None, torch.tensor([0.3, -1.0, 2.0, 0.01, 0.7]).double()])
def test_branch(agree, gamma, place, rate):
    x, norm = torch.randn(3, 4, 5), (torch.randn(5), torch.randn(5))
    params = torch.randn(7, 5), torch.randn(7), torch.randn(5, 7), torch.randn(5)
    path = draw((3, 1, 1), rate, CPU)
    y, saved = branch_forward(
        x, lambda x: mlp_forward(x, params[:2], params[2:]), norm, 0.1, place, gamma, path
    )
    grad_y = torch.randn_like(y)
    needed = True, ((True, True), (True, True)), (True, True), gamma is not None
    grad_x, *parts = branch_backward(grad_y, mlp_backward, saved, needed)
    grad_layer, grad_norm, grad_gamma = parts
    _, grads = by_indices.BRANCHES[place]
    layer = by_indices.scaled(mlp_of(params, "gelu"), gamma)
    expected = grads(x, norm, 0.1, layer, grad_y, keep(path))
    agree([grad_x, grad_norm, grad_layer, grad_gamma], expected)


@DROPPED
@pytest.mark.parametrize("place", ["pre", "post"])
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("activation", by_indices.ACTIVATIONS)
def test_block(agree, activation, scaled, place, rate):
    B, T, D, H, M = 3, 4, 6, 2, 5
    x, U = torch.randn(B, T, D), 2 * M if activation == "swiglu" else M
    norm1, norm2, qkv, proj, fc1, fc2 = (
        (torch.randn(shape), torch.randn(shape[0]))
        for shape in ((D,), (D,), (3 * D, D), (D, D), (U, D), (D, M))
    )
    drops = draw_drops((B, T, D), H, M, (rate, rate, rate), CPU)
    weights, options = (norm1, (qkv, proj), norm2, (fc1, fc2)), (H, 0.1, place, activation, None)
    scales = (torch.randn(D), torch.randn(D)) if scaled else (None, None)
    if scaled:
        pair, inputs = (scaled_forward, scaled_backward), (x, weights, scales)
    else:
        pair, inputs = (block_forward, block_backward), (x, weights)
    grad_y, grads = run(*pair, *inputs, *options, drops)
    grad_x, grad_norms, grad_attn, grad_mlp = by_indices.block_grads(
        x, (*norm1, *norm2), 0.1,
        by_indices.scaled(attention_of((*qkv, *proj), H, None, drops.attn), scales[0]),
        by_indices.scaled(mlp_of((*fc1, *fc2), activation, drops.mlp), scales[1]), place, grad_y,
        keep(drops.attn_path), keep(drops.mlp_path),
    )  # fmt: skip
    grad_scales = grad_attn[4:], grad_mlp[4:]
    expected = [grad_x, grad_norms[:2], grad_attn[:4], grad_norms[2:], grad_mlp[:4], grad_scales]
    agree(grads, expected)


def weight_and_bias(*layers):
    return [f"{layer}.{part}" for layer in layers for part in ("weight", "bias")]


TOKENS = [*weight_and_bias("patch_embed.proj"), "cls_token", "pos_embed", "reg_token"]


def token_params(p, config):
    """Those of the tokens, None where there is none, without an axis for the one image."""
    first, positions, registers = (None if name not in p else p[name][0] for name in TOKENS[2:])
    if (table := position_table(config)) is not None:
        positions = table[0]
    return (*map(p.get, TOKENS[:2]), None if first is None else first[0], positions, registers)


def tokens_by_indices(images, p, config, grad_x, drop, kept):
    params = token_params(p, config)
    grad, grads = by_indices.tokens_grads(images, params, grad_x, keep(drop), kept)
    by_name = zip(TOKENS, grads, strict=True)
    return grad, {name: g.reshape(p[name].shape) for name, g in by_name if name in p}


def readout_by_indices(x, p, config, grad_z):
    norm = weight_and_bias(config.final_norm) if config.final_norm else []
    head = weight_and_bias(*["pre_logits.fc"] * (config.head == "mlp"), "head")
    grad, *grads = by_indices.readout_grads(
        x, [p[name] for name in norm], config.layer_norm_eps, config.norm_after_pool,
        config.pool, config.num_prefix_tokens, [p[name] for name in head], grad_z,
    )  # fmt: skip
    return grad, dict(zip((*norm, *head), (*grads[0], *grads[1]), strict=True))


def network_by_indices(images, p, config, grad_z, drops):
    """The gradients of the whole network: forward from block to block, then back."""
    angles, kept = None, drops.kept
    if config.position == "rope2d":
        cos, sin = rope_table(config.grid, config.head_dim)[..., ::2]
        angles = torch.atan2(sin, cos)
        angles = angles if kept is None else angles[kept]
    x = by_indices.tokens_values(images, token_params(p, config), keep(drops.tokens), kept)
    blocks = []
    for i, drop in enumerate(drops.blocks):
        norm, attn, mlp = (
            [f"blocks.{i}.{name}" for name in weight_and_bias(*layers)]
            for layers in (("norm1", "norm2"), ("attn.qkv", "attn.proj"), ("mlp.fc1", "mlp.fc2"))
        )
        scales = [f"blocks.{i}.{name}" for name in FACTORS if config.layer_scale]
        gamma1, gamma2 = [p[name] for name in scales] or (None, None)
        exchange = attention_of([p.get(name) for name in attn], config.heads, angles, drop.attn)
        think = mlp_of([p[name] for name in mlp], config.activation, drop.mlp)
        layers = (
            [p[name] for name in norm],
            config.layer_norm_eps,
            by_indices.scaled(exchange, gamma1),
            by_indices.scaled(think, gamma2),
            config.norm,
        )
        paths = keep(drop.attn_path), keep(drop.mlp_path)
        blocks.append((x, layers, paths, (*norm, *attn, *scales[:1], *mlp, *scales[1:])))
        x = by_indices.block_values(x, *layers, *paths)
    grad, grads = readout_by_indices(x, p, config, grad_z)
    for x, layers, paths, names in reversed(blocks):
        grad, *of_block = by_indices.block_grads(x, *layers, grad, *paths)
        by_name = zip(names, (g for part in of_block for g in part), strict=True)
        grads |= {name: g for name, g in by_name if name in p}
    grad, of_tokens = tokens_by_indices(images, p, config, grad, drops.tokens, kept)
    return grad, grads | of_tokens


def parameters_and_images(config):
    p = {name: torch.randn_like(p) for name, p in VisionTransformer(config).state_dict().items()}
    return p, torch.randn(3, config.in_channels, *config.image_shape)


@EACH_CONFIG
def test_tokens(agree, config):
    p, images = parameters_and_images(config)
    kept, drop, _ = draw_masks(config, 3, CPU)
    grad_x, (grad, grads) = run(tokens_forward, tokens_backward, images, p, config, drop, kept)
    expected, by_name = tokens_by_indices(images, p, config, grad_x, drop, kept)
    assert grads.keys() == by_name.keys()
    agree([grad, grads], [expected, by_name])


@EACH_CONFIG
def test_readout(agree, config):
    p, _ = parameters_and_images(config)
    x = torch.randn(3, config.num_tokens, config.dim)
    grad_z, (grad, grads) = run(readout_forward, readout_backward, x, p, config)
    expected, by_name = readout_by_indices(x, p, config, grad_z)
    names = weight_and_bias(*grads)
    assert sorted(names) == sorted(by_name)
    agree([grad, dict(zip(names, leaves([*grads.values()]), strict=True))], [expected, by_name])


@EACH_CONFIG
def test_the_whole_network(agree, config):
    p, images = parameters_and_images(config)
    drops = draw_masks(config, 3, CPU)
    grad_z, (grad, grads) = run(vit_forward, vit_backward, images, p, config, drops)
    expected, by_name = network_by_indices(images, p, config, grad_z, drops)
    assert grads.keys() == by_name.keys() == p.keys()
    agree([grad, grads], [expected, by_name])
