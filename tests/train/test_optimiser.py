import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from vitlib import VisionTransformer, ViTConfig
from vitlib.train.muon import Muon
from vitlib.train.optimiser import clip, make_optimisers, parameter_groups, set_rate

CONFIG = ViTConfig(
    image_size=8, patch_size=4, in_channels=1, num_classes=10, dim=8, depth=2, heads=2, mlp_dim=16
)
OPTIONS = [
    {},
    {"registers": 2},
    {"position": "sincos1d"},
    {"position": "sincos2d"},
    {"position": "rope2d"},
    {"position": "none"},
    {"pool": "mean"},
    {"pool": "mean", "norm_after_pool": True, "registers": 1},
    {"norm": "post"},
    {"activation": "swiglu"},
    {"head": "mlp"},
    {"qkv_bias": False},
    {"layer_scale": 0.1},
    {"gradients": "derived"},
]
SETTINGS = {"lr": 0.01, "weight_decay": 0.1, "betas": (0.9, 0.999)}


@pytest.fixture
def model():
    return VisionTransformer(CONFIG).double()


def names(model, parameters):
    name_of = {id(parameter): name for name, parameter in model.named_parameters()}
    return [name_of[id(parameter)] for parameter in parameters]


def settings_by_name(model, groups):
    return {name: group for group in groups for name in names(model, group["params"])}


def gradients_for(model):
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)


@pytest.mark.parametrize("layer_decay", [1.0, 0.7])
@pytest.mark.parametrize("optimiser", ["adamw", "muon"])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_every_trained_parameter_is_in_exactly_one_group(options, optimiser, layer_decay):
    model = VisionTransformer(replace(CONFIG, **options))
    model.head.bias.requires_grad_(False)
    made = make_optimisers(model, optimiser=optimiser, layer_decay=layer_decay, **SETTINGS)
    grouped = [
        name for one in made for group in one.param_groups for name in names(model, group["params"])
    ]
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert len(grouped) == len(set(grouped))
    assert set(grouped) == trained
    assert "head.bias" not in grouped


def test_one_kernel_moves_all_weights_where_there_is_one(model):
    (adamw,) = make_optimisers(model, optimiser="adamw", **SETTINGS)
    assert adamw.defaults["fused"]


def test_matrices_decay_and_nothing_else():
    model = VisionTransformer(replace(CONFIG, registers=1, head="mlp", layer_scale=0.1))
    groups = parameter_groups(model, 0.1)
    assert sorted(group["weight_decay"] for group in groups) == [0, 0.1]
    assert {group["lr_scale"] for group in groups} == {1}
    decaying = {n for n, g in settings_by_name(model, groups).items() if g["weight_decay"]}
    blocks = {
        f"blocks.{block}.{part}.weight"
        for block in range(2)
        for part in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    }
    assert decaying == blocks | {"patch_embed.proj.weight", "pre_logits.fc.weight", "head.weight"}


def test_frozen_parameters_are_left_out_and_something_must_be_trained(model):
    model.patch_embed.requires_grad_(False)
    grouped = [p for group in parameter_groups(model, 0.1) for p in group["params"]]
    assert len(grouped) == len(list(model.parameters())) - 2
    model.requires_grad_(False)
    with pytest.raises(ValueError, match=r"^no parameter is trained: .* Set requires_grad"):
        parameter_groups(model, 0.1)


def test_each_layer_learns_slower_than_the_one_above():
    model = VisionTransformer(
        replace(CONFIG, pool="mean", norm_after_pool=True, registers=1, head="mlp")
    )
    groups = settings_by_name(model, parameter_groups(model, 0.1, 0.5))
    scales = {name: group["lr_scale"] for name, group in groups.items()}
    for name in ("patch_embed.proj.weight", "patch_embed.proj.bias", "pos_embed", "reg_token"):
        assert scales.pop(name) == 0.5**3
    for name in ("fc_norm.weight", "fc_norm.bias", "pre_logits.fc.weight", "pre_logits.fc.bias",
                 "head.weight", "head.bias"):  # fmt: skip
        assert scales.pop(name) == 1
    assert {name.split(".")[0] for name in scales} == {"blocks"}
    for name, scale in scales.items():
        assert scale == (0.5**2 if name.startswith("blocks.0.") else 0.5)


def test_a_rate_is_peak_times_layer_times_schedule(model):
    made = make_optimisers(model, optimiser="muon", layer_decay=0.5, **SETTINGS)
    for factor in (0.25, 1.0, 0.5):
        set_rate(made, factor)
        for optimiser in made:
            for group in optimiser.param_groups:
                assert group["lr"] == pytest.approx(0.01 * group["lr_scale"] * factor)
    state = made[1].state_dict()
    other = make_optimisers(model, optimiser="muon", layer_decay=0.5, **{**SETTINGS, "lr": 1.0})
    other[1].load_state_dict(state)
    set_rate(other, 1.0)
    assert max(group["lr"] for group in other[1].param_groups) == 1.0


@pytest.mark.parametrize("layer_decay", [1.0, 0.5])
def test_a_step_is_adamw_as_written_in_the_paper(model, layer_decay):
    """Algorithm 2 of Loshchilov and Hutter, three steps, against the optimiser."""
    lr, decay, (beta1, beta2), eps = 0.01, 0.1, (0.8, 0.99), 1e-8
    ours = {n: p.detach().clone() for n, p in model.named_parameters()}
    first = {n: torch.zeros_like(p) for n, p in ours.items()}
    second = {n: torch.zeros_like(p) for n, p in ours.items()}
    (optimiser,) = make_optimisers(
        model, optimiser="adamw", lr=lr, weight_decay=decay, betas=(beta1, beta2),
        layer_decay=layer_decay,
    )  # fmt: skip
    group_of = settings_by_name(model, optimiser.param_groups)
    for step, factor in ((1, 0.5), (2, 1.0), (3, 0.25)):
        gradients_for(model)
        for name, parameter in model.named_parameters():
            grad = parameter.grad
            first[name] = beta1 * first[name] + (1 - beta1) * grad
            second[name] = beta2 * second[name] + (1 - beta2) * grad**2
            adam = (
                first[name] / (1 - beta1**step) / ((second[name] / (1 - beta2**step)).sqrt() + eps)
            )
            is_matrix = name.endswith(("proj.weight", "qkv.weight", "fc1.weight", "fc2.weight"))
            kept = decay if is_matrix or name == "head.weight" else 0
            rate = factor * group_of[name]["lr_scale"]
            ours[name] = ours[name] - rate * (lr * adam + lr * kept * ours[name])
        set_rate([optimiser], factor)
        optimiser.step()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.detach(), ours[name], rtol=0, atol=1e-12)


def test_without_gradients_to_speak_of_a_step_shrinks_by_big_visions_decay(model):
    """Their decay of 1e-4 beside a learning rate of 1e-3, times the schedule, is 0.1 here."""
    (optimiser,) = make_optimisers(
        model, optimiser="adamw", lr=1e-3, weight_decay=1e-4 / 1e-3, betas=(0.9, 0.999)
    )
    before = model.head.weight.detach().clone()
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    set_rate([optimiser], 0.5)
    optimiser.step()
    torch.testing.assert_close(
        model.head.weight.detach(), before * (1 - 0.5 * 1e-4), rtol=0, atol=1e-15
    )


@pytest.mark.parametrize("activation", ["gelu", "swiglu"])
def test_muon_has_the_matrices_of_the_blocks_and_knows_what_they_pack(activation):
    model = VisionTransformer(replace(CONFIG, activation=activation, head="mlp"))
    muon, adamw = make_optimisers(model, optimiser="muon", layer_decay=0.5, **SETTINGS)
    assert isinstance(muon, Muon)
    assert isinstance(adamw, torch.optim.AdamW)
    groups = settings_by_name(model, muon.param_groups)
    expected = {
        "attn.qkv.weight": 3,
        "attn.proj.weight": 1,
        "mlp.fc1.weight": 2 if activation == "swiglu" else 1,
        "mlp.fc2.weight": 1,
    }
    assert {name: group["parts"] for name, group in groups.items()} == {
        f"blocks.{block}.{name}": parts for block in range(2) for name, parts in expected.items()
    }
    assert {group["weight_decay"] for group in groups.values()} == {0.1}
    assert {group["lr_scale"] for group in groups.values()} == {0.25, 0.5}


def test_there_is_no_optimiser_of_nothing(model):
    model.blocks.requires_grad_(False)
    (only,) = make_optimisers(model, optimiser="muon", **SETTINGS)
    assert isinstance(only, torch.optim.AdamW)
    model.requires_grad_(False)
    model.blocks[0].mlp.fc1.weight.requires_grad_(True)
    (only,) = make_optimisers(model, optimiser="muon", **SETTINGS)
    assert isinstance(only, Muon)


def test_another_optimiser_is_refused(model):
    with pytest.raises(ValueError, match=r"^optimiser='sgd' is not available: choose adamw or"):
        make_optimisers(model, optimiser="sgd", **SETTINGS)


@pytest.mark.parametrize("optimiser", ["adamw", "muon"])
def test_the_loss_falls(optimiser):
    model = VisionTransformer(CONFIG)
    images, labels = torch.randn(32, 1, 8, 8), torch.randint(10, (32,))
    made = make_optimisers(model, optimiser=optimiser, **{**SETTINGS, "lr": 0.03})
    losses = []
    for _ in range(40):
        loss = torch.nn.functional.cross_entropy(model(images), labels)
        model.zero_grad()
        loss.backward()
        for one in made:
            one.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2


def test_long_gradients_are_shortened_and_short_ones_left_alone(model):
    gradients_for(model)
    before = [parameter.grad.clone() for parameter in model.parameters()]
    length = torch.cat([grad.flatten() for grad in before]).norm()
    for largest in (0.0, 2 * length.item()):
        assert clip(model, largest) == pytest.approx(length.item(), rel=1e-12)
        for parameter, grad in zip(model.parameters(), before, strict=True):
            assert torch.equal(parameter.grad, grad)
    norm = clip(model, 0.5)
    assert norm.shape == ()
    assert norm == pytest.approx(length.item(), rel=1e-12)
    for parameter, grad in zip(model.parameters(), before, strict=True):
        torch.testing.assert_close(parameter.grad, grad * 0.5 / length, rtol=1e-6, atol=0)


def test_parameters_without_gradient_do_not_count(model):
    assert clip(model, 1.0) == 0
    model.head.bias.grad = torch.full_like(model.head.bias, 2.0)
    assert clip(model, 0.0) == pytest.approx(2 * 10**0.5)


def test_two_processes_with_sharded_weights_do_the_same():
    script = Path(__file__).with_name("sharded_steps.py")
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    run = subprocess.run(
        [sys.executable, *launch, script], capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 0, run.stderr
