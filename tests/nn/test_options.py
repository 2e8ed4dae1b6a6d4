"""Every option of the network against a reference that is written out with other means."""

import itertools
from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from vitlib import VisionTransformer, ViTConfig
from vitlib.nn.patches import patchify, unpatchify
from vitlib.nn.vit import draw_masks, vit_backward, vit_forward

pytestmark = pytest.mark.usefixtures("float64")

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
)
CHOICES = {
    "position": ["learned", "sincos1d", "sincos2d", "rope2d", "none"],
    "readout": [("cls", False), ("mean", False), ("mean", True)],
    "norm": ["pre", "post"],
    "activation": ["gelu", "gelu_tanh", "relu", "swiglu"],
    "head": ["linear", "mlp"],
    "registers": [0, 2],
    "qkv_bias": [True, False],
    "layer_scale": [None, 0.1],
}


def configurations():
    """A part of the full product in which each pair of choices meets."""
    product = itertools.product(*CHOICES.values())
    for number, values in enumerate(product):
        options = dict(zip(CHOICES, values, strict=True))
        pool, after = options.pop("readout")
        contradiction = after and options["norm"] == "post"
        if number % 11 == 0 and not contradiction:
            yield {**options, "pool": pool, "norm_after_pool": after}


CONFIGURATIONS = list(configurations())


def random_model(config):
    model = VisionTransformer(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def images(config=CONFIG):
    return torch.randn(3, config.in_channels, *config.image_shape)


# The reference: loops over places, complex numbers, PyTorch's layers


def sinusoids(place, count):
    """e^(i place ω) for each frequency, as a complex row."""
    return torch.polar(
        torch.ones(count), torch.tensor([place * 10000 ** (-i / count) for i in range(count)])
    )


def fixed_table(config):
    rows = [(r, s) for r in range(config.grid[0]) for s in range(config.grid[1])]
    if config.position == "sincos1d":
        waves = [sinusoids(t, config.dim // 2) for t in range(config.num_positions)]
        return torch.stack([torch.stack([w.imag, w.real], -1).flatten() for w in waves])
    table = []
    for r, s in rows:
        down, right = sinusoids(r, config.dim // 4), sinusoids(s, config.dim // 4)
        table.append(torch.cat([down.imag, right.imag, down.real, right.real]))
    if config.pool == "cls":
        table.insert(0, torch.zeros(config.dim))
    return torch.stack(table)


def turned(x, config):
    """Rotary positions: pairs of neighbours are complex numbers, multiplied by unit ones."""
    quarter, x = config.head_dim // 4, x.clone()
    for n in range(config.num_patches):
        r, s = divmod(n, config.grid[1])
        angles = [100 ** (-i / quarter) for i in range(quarter)]
        angle = torch.tensor([r * a for a in angles] + [s * a for a in angles])
        place = config.num_prefix_tokens + n
        pairs = torch.view_as_complex(x[..., place, :].unflatten(-1, (-1, 2)).contiguous())
        rotated = pairs * torch.polar(torch.ones_like(angle), angle)
        x[..., place, :] = torch.view_as_real(rotated).flatten(-2)
    return x


def reference(x, weights, config):
    def linear(x, name):
        return functional.linear(x, weights[f"{name}.weight"], weights.get(f"{name}.bias"))

    def norm(x, name):
        weight, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
        return functional.layer_norm(x, (config.dim,), weight, bias, config.layer_norm_eps)

    def attention(x, name):
        q, k, v = (
            part.unflatten(-1, (config.heads, -1)).transpose(1, 2)
            for part in linear(x, f"{name}.qkv").chunk(3, -1)
        )
        if config.position == "rope2d":
            q, k = turned(q, config), turned(k, config)
        scores = torch.einsum("bhtj,bhuj->bhtu", q, k) / config.head_dim**0.5
        output = torch.einsum("bhtu,bhuj->bthj", functional.softmax(scores, -1), v)
        return linear(output.flatten(2), f"{name}.proj")

    def mlp(x, name):
        u = linear(x, f"{name}.fc1")
        hidden = {
            "gelu": functional.gelu,
            "gelu_tanh": lambda u: functional.gelu(u, approximate="tanh"),
            "relu": functional.relu,
            "swiglu": lambda u: functional.silu(u[..., :6]) * u[..., 6:],
        }[config.activation](u)
        return linear(hidden, f"{name}.fc2")

    kernel, bias = weights["patch_embed.proj.weight"], weights["patch_embed.proj.bias"]
    x = functional.conv2d(x, kernel, bias, stride=config.patch_shape).flatten(2).transpose(1, 2)
    front = []
    if config.pool == "cls":
        front = [weights["cls_token"].expand(len(x), 1, -1)]
        x = torch.cat([*front, x], 1)
    if config.position == "learned":
        x = x + weights["pos_embed"]
    elif config.position.startswith("sincos"):
        x = x + fixed_table(config)
    if config.registers:
        some = weights["reg_token"].expand(len(x), -1, -1)
        x = torch.cat([x[:, : len(front)], some, x[:, len(front) :]], 1)
    for i in range(config.depth):
        for layer, name in ((attention, "attn"), (mlp, "mlp")):
            number = 1 if name == "attn" else 2
            own = f"blocks.{i}.norm{number}"
            scale = weights.get(f"blocks.{i}.ls{number}.gamma", torch.ones(config.dim)).diag()
            if config.norm == "pre":
                x = x + layer(norm(x, own), f"blocks.{i}.{name}") @ scale
            else:
                x = norm(x + layer(x, f"blocks.{i}.{name}") @ scale, own)
    if config.norm == "pre" and not config.norm_after_pool:
        x = norm(x, "norm")
    y = x[:, 0] if config.pool == "cls" else x[:, config.registers :].mean(1)
    if config.norm_after_pool:
        y = norm(y, "fc_norm")
    if config.head == "mlp":
        y = linear(y, "pre_logits.fc").tanh()
    return linear(y, "head")


@pytest.mark.parametrize("options", CONFIGURATIONS, ids=lambda x: "-".join(map(str, x.values())))
def test_logits_and_gradients_of_all_three_ways(options):
    """The module by autograd, the module by derivation, and the pair on a dictionary."""
    config = replace(CONFIG, **options)
    weights = {name: p.detach() for name, p in random_model(config).named_parameters()}
    x, cotangent = images(), torch.randn(3, config.num_classes)

    leaves = {name: weight.clone().requires_grad_() for name, weight in weights.items()}
    pixels = x.clone().requires_grad_()
    expected = reference(pixels, leaves, config)
    expected.backward(cotangent)
    largest = max(leaf.grad.abs().max() for leaf in leaves.values())

    found = []
    for gradients in ("autograd", "derived"):
        model = VisionTransformer(replace(config, gradients=gradients))
        model.load_state_dict(weights)
        own = x.clone().requires_grad_()
        logits = model(own)
        logits.backward(cotangent)
        found.append((logits, own.grad, {name: p.grad for name, p in model.named_parameters()}))
    with torch.inference_mode():
        logits, saved = vit_forward(x, weights, config)
        found.append((logits, *vit_backward(cotangent, saved)))

    for logits, grad_images, grads in found:
        torch.testing.assert_close(logits, expected, rtol=0, atol=1e-12)
        assert (grad_images - pixels.grad).abs().max() <= 1e-12 * largest
        assert grads.keys() == leaves.keys()
        for name, leaf in leaves.items():
            assert grads[name].shape == leaf.shape
            assert (grads[name] - leaf.grad).abs().max() <= 1e-12 * largest, name


def test_each_choice_meets_each_other():
    names = list(CONFIGURATIONS[0])
    for one, other in itertools.combinations(names, 2):
        met = {(some[one], some[other]) for some in CONFIGURATIONS}
        values = [{some[name] for some in CONFIGURATIONS} for name in (one, other)]
        apart = {("cls", True), ("post", True), (True, "cls"), (True, "post")}
        assert met | apart >= set(itertools.product(*values)), (one, other)


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("rate", ["dropout", "attention_dropout", "drop_path", "patch_dropout"])
def test_all_three_ways_drop_the_same(rate, norm):
    options = {"registers": 1, "activation": "swiglu", "layer_scale": 0.1, rate: 0.4}
    config = replace(CONFIG, norm=norm, **options)
    weights = {name: p.detach() for name, p in random_model(config).named_parameters()}
    x, cotangent = images(), torch.randn(3, config.num_classes)
    found = []
    for gradients in ("autograd", "derived"):
        model = VisionTransformer(replace(config, gradients=gradients)).train()
        model.load_state_dict(weights)
        torch.manual_seed(5)
        logits = model(x)
        logits.backward(cotangent)
        found.append((logits.detach(), {name: p.grad for name, p in model.named_parameters()}))
    torch.manual_seed(5)
    logits, saved = vit_forward(x, weights, config, draw_masks(config, 3, x.device))
    found.append((logits, vit_backward(cotangent, saved)[1]))
    for logits, grads in found[1:]:
        torch.testing.assert_close(logits, found[0][0], rtol=0, atol=1e-12)
        for name, expected in found[0][1].items():
            torch.testing.assert_close(grads[name], expected, rtol=1e-9, atol=1e-12)
    model.eval()
    torch.testing.assert_close(model(x), reference(x, weights, config))
    assert (found[0][0] - model(x)).abs().max() > 1e-3


def test_drop_path_grows_with_depth():
    assert replace(CONFIG, depth=3, drop_path=0.2).drop_path_rates == (0, 0.1, 0.2)
    assert replace(CONFIG, depth=1, drop_path=0.2).drop_path_rates == (0.2,)
    model = VisionTransformer(replace(CONFIG, depth=3, drop_path=0.2))
    assert [block.rates[2] for block in model.blocks] == [0, 0.1, 0.2]


@pytest.mark.parametrize(
    ("options", "more", "fewer"),
    [
        ({}, [], []),
        ({"pool": "mean"}, [], ["cls_token"]),
        (
            {"pool": "mean", "norm_after_pool": True},
            ["fc_norm.weight", "fc_norm.bias"],
            ["cls_token", "norm.weight", "norm.bias"],
        ),
        ({"norm": "post"}, [], ["norm.weight", "norm.bias"]),
        ({"position": "none"}, [], ["pos_embed"]),
        ({"position": "sincos1d"}, [], ["pos_embed"]),
        ({"position": "sincos2d"}, [], ["pos_embed"]),
        ({"position": "rope2d"}, [], ["pos_embed"]),
        ({"registers": 2}, ["reg_token"], []),
        (
            {"layer_scale": 0.1},
            [f"blocks.{i}.ls{number}.gamma" for i in (0, 1) for number in (1, 2)],
            [],
        ),
        ({"head": "mlp"}, ["pre_logits.fc.weight", "pre_logits.fc.bias"], []),
    ],
    ids=str,
)
def test_an_option_adds_and_removes_these_parameters(options, more, fewer):
    plain = VisionTransformer(CONFIG).state_dict().keys()
    own = VisionTransformer(replace(CONFIG, **options)).state_dict().keys()
    assert own - plain == set(more)
    assert plain - own == set(fewer)


def test_tokens_stand_in_this_order():
    for pool, registers in itertools.product(["cls", "mean"], [0, 3]):
        config = replace(CONFIG, pool=pool, registers=registers, position="none")
        model, x = random_model(config), images()
        front = [model.cls_token] if pool == "cls" else []
        front += [model.reg_token] if registers else []
        expected = torch.cat([*(f.expand(3, -1, -1) for f in front), model.patch_embed(x)], 1)
        assert torch.equal(model.embed(x), expected)
        assert model.tokens(x).shape == (3, config.num_tokens, config.dim)


@pytest.mark.parametrize(
    ("pool", "after", "norm"),
    [
        *(("cls", False, norm) for norm in ("pre", "post")),
        *(("mean", False, norm) for norm in ("pre", "post")),
        ("mean", True, "pre"),
    ],
)
def test_tokens_are_after_the_last_norm(pool, after, norm):
    config = replace(CONFIG, pool=pool, norm_after_pool=after, norm=norm, registers=1)
    model, x = VisionTransformer(config), images()
    tokens = model.tokens(x)
    if not after:  # fresh norms have gain 1 and bias 0
        torch.testing.assert_close(tokens.mean(-1), torch.zeros(tokens.shape[:-1]))
    y = tokens[:, 0] if pool == "cls" else tokens[:, 1:].mean(1)
    torch.testing.assert_close(model(x), model.head(model.fc_norm(y)))


# Fixed positions


@pytest.mark.parametrize("position", ["sincos1d", "sincos2d", "rope2d"])
def test_fixed_positions_are_buffers_in_the_weights_precision_and_place(position):
    config = replace(CONFIG, position=position)
    name = "rope" if position == "rope2d" else "pos_embed"
    fine = dict(VisionTransformer(config).double().named_buffers())
    rough = VisionTransformer(config).float()
    assert list(fine) == [name]
    assert rough.get_buffer(name).dtype == torch.float32
    again = rough.double().get_buffer(name)
    assert torch.equal(again, fine[name])  # computed anew: no digit was lost on the way

    with torch.device("meta"):
        model = VisionTransformer(config)
    assert model.get_buffer(name).is_meta
    assert torch.equal(model.to_empty(device="cpu").get_buffer(name), fine[name])
    assert model.to("meta").get_buffer(name).is_meta


@pytest.mark.parametrize("position", CHOICES["position"])
def test_the_pair_computes_in_the_weights_precision(position):
    config = replace(CONFIG, position=position)
    parameters = dict(random_model(config).float().named_parameters())
    logits, _ = vit_forward(images().float(), parameters, config)
    assert logits.dtype == torch.float32


@pytest.mark.parametrize("recurse", [True, False])
def test_what_moves_the_model_alone_leaves_its_parts(recurse):
    model = VisionTransformer(CONFIG).to_empty(device="meta", recurse=recurse)
    assert model.cls_token.is_meta
    assert model.norm.weight.is_meta == recurse


def test_only_positions_tell_patches_apart():
    x = images()
    order = torch.randperm(6)
    while torch.equal(order, torch.arange(6)):
        order = torch.randperm(6)
    shuffled = unpatchify(patchify(x, 2)[:, order], 2, (4, 6))
    for position in CHOICES["position"]:
        for pool in ("cls", "mean"):
            model = random_model(replace(CONFIG, position=position, pool=pool, registers=1))
            difference = (model(shuffled) - model(x)).abs().max()
            assert (difference < 1e-12) == (position == "none"), (position, pool)
