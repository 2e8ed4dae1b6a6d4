"""A plan against what PyTorch allocates, computes and sends; its times against arithmetic."""

import gc
import json
import re
import subprocess
import sys
from dataclasses import asdict, replace
from math import prod
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import (
    apply_activation_checkpointing,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import (
    FlopCounterMode,
    addmm_flop,
    sdpa_backward_flop_count,
    sdpa_flop_count,
)

from vitlib import VisionTransformer, ViTConfig, list_models
from vitlib.config import named_config
from vitlib.nn.block import Block, block_forward
from vitlib.nn.loss import cross_entropy
from vitlib.summary import summary
from vitlib.train.ema import Ema
from vitlib.train.optimiser import make_optimisers
from vitlib.train.plan import DEVICES, MARK, Device, decoding_rate, find_device, plan
from vitlib.train.plan.activations import activations
from vitlib.train.plan.costs import traffic
from vitlib.train.plan.memory import USABLE, memory

PROCESS = Path(__file__).with_name("distributed_plan.py")
SMALL = ViTConfig(
    image_size=8, patch_size=4, in_channels=1, num_classes=10, dim=16, depth=2, heads=2, mlp_dim=24
)
MIDDLE = ViTConfig(
    image_size=32, patch_size=4, num_classes=10, dim=64, depth=4, heads=4, mlp_dim=256
)
WIDE = replace(MIDDLE, dim=96, heads=2, mlp_dim=384, depth=3)
# In these, attention goes tile by tile.
TILES = {"image_size": 33, "patch_size": 1, "depth": 1, "pool": "mean"}
TILED = {"image_size": 132, "depth": 1, "pool": "mean"}
OPTIONS = [
    {},
    {"pool": "mean"},
    {"pool": "mean", "norm_after_pool": True},
    {"pool": "mean", "position": "none"},
    {"pool": "mean", "position": "rope2d", "heads": 1},
    {"norm": "post"},
    {"norm": "post", "pool": "mean"},
    {"activation": "swiglu"},
    {"activation": "relu"},
    {"activation": "gelu_tanh"},
    {"head": "mlp"},
    {"head": "mlp", "pool": "mean", "norm_after_pool": True},
    {"registers": 3, "pool": "mean", "position": "none"},
    {"position": "sincos2d"},
    {"position": "rope2d"},
    {"qkv_bias": False},
    {"layer_scale": 0.1},
    {"layer_scale": 0.1, "norm": "post", "dropout": 0.3, "drop_path": 0.3},
    {"image_size": (8, 12), "patch_size": (4, 2), "in_channels": 3},
    {"patch_size": 8},
    {"patch_size": 1},
    TILES,
    {**TILES, "position": "rope2d", "heads": 1},
    {"dropout": 0.3},
    {"dropout": 0.3, "activation": "relu"},
    {"dropout": 0.3, "activation": "swiglu"},
    {"attention_dropout": 0.3},
    {"attention_dropout": 0.3, "position": "rope2d", "heads": 1},
    {"drop_path": 0.3},
    {"patch_dropout": 0.5},
    {"patch_dropout": 0.5, "position": "rope2d", "image_size": 16},
    {
        "dropout": 0.1, "attention_dropout": 0.2, "drop_path": 0.3, "norm": "post",
        "activation": "swiglu", "position": "rope2d", "head": "mlp", "registers": 2,
    },
]  # fmt: skip
EVERY_OPTION = pytest.mark.parametrize("options", OPTIONS, ids=str)
EITHER = pytest.mark.parametrize("gradients", ["autograd", "derived"])
# A device to reckon with: every rate is a round number.
ROUND = Device("round", {"float32": 1e9, "bfloat16": 4e9}, 1e9, 1e8, 1e6)
PROCESSOR = replace(ROUND, name="cpu", link=None, measured=True)
RUN = {"batch_size": 16, "epochs": 1, "train_count": 16, "device": PROCESSOR}


def allocated(work):
    """What PyTorch allocates on the processor meanwhile: bytes that stay, and most at a time."""
    gc.collect()
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        held = work()
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    total = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        total += event.nbytes()
        most = max(most, total)
    del held
    return total, most


def storage(tensors):
    """Bytes of all storages, each once."""
    storages = {t.untyped_storage()._cdata: t.untyped_storage() for t in tensors}
    return sum(each.nbytes() for each in storages.values())


def recomputing(model):
    apply_activation_checkpointing(model, check_fn=lambda module: isinstance(module, Block))
    return model


def autocast(enabled):
    return torch.autocast("cpu", torch.bfloat16, enabled=enabled)


def waiting(config, narrowing, *, recompute=False, batch=16):
    """What an image's forward pass leaves to wait for backward, and what autocast copied."""
    dtype = torch.bfloat16 if narrowing == "policy" else torch.float32
    model = VisionTransformer(config).to(dtype)
    if recompute:
        recomputing(model)
    labels = torch.zeros(batch, dtype=torch.long)

    def forward():
        images = torch.randn(batch, config.in_channels, *config.image_shape, dtype=dtype)
        with autocast(narrowing == "autocast"):
            logits = model(images)
            return logits, cross_entropy(logits, labels, 0.0, config.gradients)

    forward()
    total, _ = allocated(forward)
    weights = [p for name, p in model.named_parameters() if name.endswith("weight") and p.ndim > 1]
    if recompute:
        weights = [model.patch_embed.proj.weight, model.head.weight]
    copies = narrowing == "autocast" and config.gradients == "autograd"
    return (total - copies * 2 * sum(p.numel() for p in weights)) / batch


def step_of(config, optimisers, model, images, *, narrow=False):
    """A step of training, as the loop makes it."""
    batch = torch.rand(images, config.in_channels, *config.image_shape)
    labels = torch.zeros(images, dtype=torch.long)
    augmented = batch * 1.0
    with autocast(narrow):
        logits = model(augmented * 1.0)
        loss = cross_entropy(logits, labels, 0.0, config.gradients)
    loss.backward()
    for optimiser in optimisers:
        optimiser.step()


def optimisers_of(model, name):
    return make_optimisers(model, optimiser=name, lr=1e-3, weight_decay=0.1, betas=(0.9, 0.999))


# Memory


@EITHER
@pytest.mark.parametrize("optimiser", ["adamw", "muon"])
@pytest.mark.parametrize(
    "options", [{}, {"activation": "swiglu"}, {"position": "sincos2d"}], ids=str
)
def test_what_lasts_is_counted_to_the_byte(options, optimiser, gradients):
    config = replace(SMALL, gradients=gradients, **options)
    model = VisionTransformer(config)
    optimisers = optimisers_of(model, optimiser)
    average = Ema(model, 0.9)
    step_of(config, optimisers, model, 16)
    found = plan(config, optimiser=optimiser, ema=0.9, **RUN)
    states = [t for o in optimisers for s in o.state.values() for t in s.values()]
    assert found.parameters == sum(p.numel() for p in model.parameters())
    assert found.memory.parameters == storage(model.parameters())
    assert found.memory.gradients == storage(p.grad for p in model.parameters())
    assert found.memory.optimiser == storage(states)
    assert found.memory.average == storage(average.weights.values())


def assert_activations(config, narrowing):
    own = activations(config, narrowing, on_cpu=True)
    expected = own.kept(recompute=False) + own.loss
    if narrowing == "policy":  # stood in for by a narrow model; FSDP2 makes its logits wide
        expected -= 2 * config.num_classes
    # for all sixteen images the loss, and in autograd for each mask the number that it divides by
    masks = 1 + 6 * config.depth if config.gradients == "autograd" else 0
    scalars = (8 + 8 * masks) / 16
    assert expected <= waiting(config, narrowing) <= expected + scalars, config


@EITHER
@EVERY_OPTION
@pytest.mark.parametrize("narrowing", ["none", "autocast"])
def test_activations_are_those_that_wait(options, gradients, narrowing):
    assert_activations(replace(SMALL, gradients=gradients, **options), narrowing)


@EITHER
@pytest.mark.parametrize(
    "options",
    [
        {"head": "mlp"},
        {"norm": "post", "activation": "swiglu"},
        {"position": "rope2d", "activation": "relu"},
        {"pool": "mean", "norm_after_pool": True, "attention_dropout": 0.3},
        {"patch_dropout": 0.5, "dropout": 0.3, "image_size": 16},
        {"layer_scale": 0.1},
        TILES,
    ],
    ids=str,
)
def test_activations_are_narrow_where_the_model_is(options, gradients):
    assert_activations(replace(SMALL, gradients=gradients, **options), "policy")


@st.composite
def configs(draw):
    """Any model that is small enough to run."""
    count, rates = st.integers(1, 3), st.sampled_from([0.0, 0.0, 0.4])
    heads, patch = draw(count), draw(st.integers(1, 4))
    return ViTConfig(
        image_size=(patch * draw(count), patch * draw(count)),
        patch_size=patch,
        in_channels=draw(count),
        num_classes=draw(st.integers(1, 9)),
        dim=4 * heads * draw(count),
        depth=draw(count),
        heads=heads,
        mlp_dim=draw(st.integers(1, 9)),
        position=draw(st.sampled_from(["learned", "sincos2d", "rope2d", "none"])),
        pool=draw(st.sampled_from(["cls", "mean"])),
        norm=draw(st.sampled_from(["pre", "post"])),
        activation=draw(st.sampled_from(["gelu", "relu", "swiglu"])),
        head=draw(st.sampled_from(["linear", "mlp"])),
        dropout=draw(rates),
        attention_dropout=draw(rates),
        drop_path=draw(rates),
        patch_dropout=draw(rates),
        qkv_bias=draw(st.booleans()),
        registers=draw(st.integers(0, 2)),
        gradients=draw(st.sampled_from(["autograd", "derived"])),
    )


@settings(max_examples=12)
@given(configs(), st.sampled_from(["none", "autocast"]))
def test_activations_of_any_model(config, narrowing):
    assert_activations(config, narrowing)


# vitlib.summary counts all patches, and a copy that a single head does not need
SUMMED = [
    options for options in OPTIONS
    if "patch_dropout" not in options
    and (options.get("heads") != 1 or replace(SMALL, **options).num_tokens <= 1024)
]  # fmt: skip


@pytest.mark.parametrize("options", SUMMED, ids=str)
def test_derived_activations_are_those_of_the_summary(options):
    config = replace(SMALL, gradients="derived", **options)
    own = activations(config, "none", on_cpu=False)  # where no fast twin runs
    assert own.kept(recompute=False) == summary(config, whole=False).total.memory


@EITHER
@pytest.mark.parametrize("narrowing", ["none", "autocast", "policy"])
@pytest.mark.parametrize(
    "options", [{}, {"norm": "post", "pool": "mean"}, {"dropout": 0.3}], ids=str
)
def test_recomputing_keeps_what_enters_the_blocks(options, narrowing, gradients):
    config = replace(MIDDLE, gradients=gradients, **options)
    own = activations(config, narrowing, on_cpu=True)
    generators = config.depth * torch.get_rng_state().nbytes / 16  # so that masks are drawn again
    found = waiting(config, narrowing, recompute=True) - generators
    assert own.kept(recompute=True) + own.loss == pytest.approx(found, rel=5e-3)


@pytest.mark.parametrize("narrowing", ["none", "autocast"])
@pytest.mark.parametrize("options", [{}, {"qkv_bias": False}, {"activation": "swiglu"}], ids=str)
def test_a_derived_block_keeps_as_much_on_a_gpu_that_only_pretends(options, narrowing):
    """Its autocast is another than a processor's: exponentials stay wide."""
    config = replace(MIDDLE, gradients="derived", pool="mean", **options)
    with torch.device("meta"):
        block = VisionTransformer(config).blocks[0]

    def pretend(nest):
        if isinstance(nest, tuple):
            return tuple(map(pretend, nest))
        return nest if nest is None else torch.empty(nest.shape, device="cuda")

    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        weights = pretend(block.weights())
        x = torch.empty(16, config.num_tokens, config.dim, device="cuda")
        try:
            torch.set_autocast_dtype("cuda", torch.bfloat16)
            torch.set_autocast_enabled("cuda", narrowing == "autocast")
            saved = block_forward(x, weights, config.heads, 1e-6, "pre", config.activation)[1]
        finally:
            torch.set_autocast_enabled("cuda", False)
        own = {t.untyped_storage()._cdata for t in tree_leaves(weights) if t is not None}
        kept = [t for t in tree_leaves(saved) if isinstance(t, torch.Tensor)]
        found = storage(t for t in kept if t.untyped_storage()._cdata not in own)
    assert activations(config, narrowing, on_cpu=False).blocks[0] == found / 16


@EITHER
@pytest.mark.parametrize(
    ("precision", "recompute"), [("float32", False), ("bfloat16", False), ("bfloat16", True)]
)
@pytest.mark.parametrize(
    "options",
    [{}, {"activation": "relu"}, {"attention_dropout": 0.1}, {"layer_scale": 0.1}, TILED],
    ids=str,
)
def test_a_step_allocates_no_more_and_not_much_less(options, recompute, precision, gradients):
    config = replace(MIDDLE, gradients=gradients, **options)
    model = VisionTransformer(config)
    if recompute:
        recomputing(model)
    optimisers = optimisers_of(model, "adamw")
    images = 16 if config.num_tokens < 1000 else 2

    def step():
        step_of(config, optimisers, model, images, narrow=precision == "bfloat16")

    step()
    optimisers[0].zero_grad()
    _, most = allocated(step)
    run = {**RUN, "batch_size": images, "precision": precision, "recompute": recompute}
    own = plan(config, **run).memory
    planned = own.total - own.parameters - own.optimiser
    assert 0.97 * most <= planned <= 1.3 * most


def test_the_largest_batch_fits_and_one_more_image_each_does_not():
    config = replace(MIDDLE, gradients="derived")
    device = replace(ROUND, memory=3e8)
    run = {**RUN, "train_count": 10**6, "device": device, "devices": 4, "accumulate": 2}
    found = plan(config, **run)
    part = found.largest_batch // 8
    assert found.largest_batch == 8 * part > 0
    usable = USABLE * device.memory
    assert memory(found.setup, part).total <= usable < memory(found.setup, part + 1).total
    assert plan(config, **{**run, "batch_size": 8 * part}).fits
    assert not plan(config, **{**run, "batch_size": 8 * (part + 1)}).fits
    assert plan(config, **{**run, "device": replace(ROUND, memory=1e6)}).largest_batch == 0


# Operations


def operations(work):
    """What PyTorch counts, with the fused attention of a processor, sums in place and oneDNN's
    products, which it leaves out."""
    aten = torch.ops.aten
    left_out = {
        torch.ops.mkldnn._linear_pointwise: lambda x, *_, out_shape, **__: (
            2 * prod(out_shape) * x[-1]
        ),
        aten.addmm_: lambda x, a, b, **_: addmm_flop(x, a, b),
        aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **__: sdpa_flop_count(
            q, k, v
        ),
        aten._scaled_dot_product_flash_attention_for_cpu_backward: lambda g, q, k, v, *_, **__: (
            sdpa_backward_flop_count(g, q, k, v)
        ),
    }
    with FlopCounterMode(display=False, custom_mapping=left_out) as counter:
        result = work()
    return counter.get_total_flops(), result


@EITHER
@EVERY_OPTION
@pytest.mark.parametrize("recompute", [False, True])
def test_operations_are_those_that_pytorch_counts(options, recompute, gradients):
    config = replace(SMALL, gradients=gradients, **options)
    model = VisionTransformer(config)
    if recompute:
        recomputing(model)
    images = torch.randn(2, config.in_channels, *config.image_shape)
    forward, logits = operations(lambda: model(images))
    backward, _ = operations(lambda: logits.sum().backward())
    own = plan(config, **{**RUN, "batch_size": 2, "recompute": recompute}).work
    assert own.forward == forward
    assert own.backward + own.recomputed == backward


@pytest.mark.parametrize("activation", ["gelu", "swiglu"])
def test_muon_computes_what_pytorch_counts(activation):
    config = replace(SMALL, activation=activation)
    model = VisionTransformer(config)
    muon, _ = optimisers_of(model, "muon")
    model(torch.randn(2, 1, 8, 8)).sum().backward()
    count, _ = operations(muon.step)
    assert plan(config, optimiser="muon", **RUN).work.optimiser == count


@pytest.mark.parametrize("name", list_models())
def test_a_step_of_a_named_model_is_about_three_forward_passes(name):
    config = named_config(name)
    found = plan(config, batch_size=64, epochs=2, train_count=1000, device="h100")
    assert found.work.forward == 2 * 64 * summary(config, whole=False).total.multiply_adds
    assert 2.8 < found.work.total / found.work.forward < 3.2
    assert found.operations == 2 * 15 * found.work.total
    assert found.parameters == summary(config).parameters


# Traffic


class Moved(TorchDispatchMode):
    """Bytes that operations read and write, but for matrix products and views."""

    bytes = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        products = "mm|linear_pointwise|convolution|scaled_dot|empty|detach|_unsafe_view"
        if not function.is_view and not re.search(products, function._schema.name):
            tensors = [
                t for t in tree_leaves((args, kwargs, result)) if isinstance(t, torch.Tensor)
            ]
            # what is expanded is read from the few bytes that there are
            self.bytes += sum(min(t.nbytes, t.untyped_storage().nbytes()) for t in tensors)
        return result


@EITHER
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("config", [MIDDLE, WIDE, replace(MIDDLE, activation="swiglu")], ids=str)
def test_traffic_is_about_what_operations_read_and_write(config, precision, gradients):
    config = replace(config, gradients=gradients)
    model = VisionTransformer(config)
    images = torch.randn(16, 3, *config.image_shape)
    labels = torch.zeros(16, dtype=torch.long)
    with Moved() as moved:
        with autocast(precision == "bfloat16"):
            loss = cross_entropy(model(images), labels, 0.0, gradients)
        loss.backward()
    found = plan(config, precision=precision, **RUN)
    update = 4 * 7 * found.parameters  # AdamW's
    assert traffic(found.setup) - update == pytest.approx(moved.bytes, rel=0.25)


# Several processes


@pytest.mark.parametrize(
    ("parallel", "precision", "accumulate", "optimiser", "gradients"),
    [
        ("ddp", "float32", 1, "adamw", "derived"),
        ("ddp", "bfloat16", 2, "muon", "autograd"),
        ("fsdp", "float32", 2, "muon", "derived"),
        ("fsdp", "bfloat16", 1, "adamw", "autograd"),
    ],
)
def test_two_processes_hold_and_send_what_is_planned(
    parallel, precision, accumulate, optimiser, gradients
):
    config = replace(MIDDLE, gradients=gradients)
    order = {
        "config": asdict(config), "parallel": parallel, "precision": precision, "images": 4,
        "accumulate": accumulate, "optimiser": optimiser,
    }  # fmt: skip
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [sys.executable, *launch, PROCESS, json.dumps(order)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    found = json.loads(re.search(r"^\{.*\}$", run.stdout, re.M)[0])
    own = plan(
        config, batch_size=8 * accumulate, epochs=1, train_count=100, accumulate=accumulate,
        optimiser=optimiser, precision=precision, parallel=parallel, devices=2, device=PROCESSOR,
    )  # fmt: skip
    assert own.memory.parameters == found["parameters"]
    assert own.memory.optimiser == found["optimiser"]
    if accumulate == 1:
        assert own.memory.gradients == found["gradients"]
    sent = {name: count for name, count in asdict(own.wire).items() if count}
    assert sent == found["sent"]
    planned = own.memory.total - own.memory.parameters - own.memory.optimiser
    assert 0.97 * found["most"] <= planned <= 1.3 * found["most"]


def test_one_process_sends_nothing_and_shards_nothing():
    own, alone = (plan(SMALL, parallel=way, **RUN) for way in ("fsdp", "ddp"))
    assert own.wire.total == 0
    assert own.memory == alone.memory


def test_shards_shrink_with_the_number_of_processes():
    config = named_config("vit_huge_patch14_224")
    run = {"epochs": 1, "train_count": 10**6, "batch_size": 1024, "parallel": "fsdp"}
    few, many = (plan(config, devices=count, **run) for count in (2, 64))
    assert 30 < few.memory.parameters / many.memory.parameters < 32.01
    assert many.memory.copies > 0.9 * few.memory.copies
    assert many.wire.total > few.wire.total


# Devices and times


def test_times_follow_from_rates():
    run = {**RUN, "batch_size": 32, "train_count": 3200, "devices": 4, "nodes": 2, "share": 0.25}
    found = plan(SMALL, decoding=10, workers=2, network=8e-3, **{**run, "device": ROUND})
    own = found.times
    assert own.products == pytest.approx(found.work.total / (0.25 * 4e9))  # bfloat16: "auto"
    assert own.traffic == pytest.approx(traffic(found.setup) / 1e8)
    assert own.wire == pytest.approx(found.wire.total / 1e6)  # both links have as much
    assert own.decoding == pytest.approx(8 / 20)
    assert own.expected == own.decoding
    assert own.limit == "decoding"
    assert found.seconds == pytest.approx(100 * own.expected)
    faster = plan(SMALL, network=1.0, **{**run, "device": replace(ROUND, link=1e12)}).times
    assert faster.wire == pytest.approx(found.wire.total / 1.25e8)
    assert faster.expected == faster.products + faster.traffic + faster.wire - faster.hidden
    inside = plan(SMALL, network=1.0, **{**run, "device": ROUND, "nodes": 1}).times
    assert inside.wire == pytest.approx(found.wire.total / 1e6)


@pytest.mark.parametrize(
    ("way", "accumulate", "part"),
    [("ddp", 1, "backward"), ("ddp", 2, "backward"), ("fsdp", 2, "total")],
)
def test_the_wire_hides_behind_the_work_that_goes_on_beside_it(way, accumulate, part):
    """DDP's gradients behind the last part's backward pass, FSDP2's weights behind everything."""
    run = {**RUN, "batch_size": 32, "train_count": 32, "devices": 4, "parallel": way}
    for link, all_of_it in ((1e12, True), (1.0, False)):
        device = replace(ROUND, link=link)
        found = plan(SMALL, accumulate=accumulate, **{**run, "device": device})
        own, done = found.times, found.work
        busy = own.products + own.traffic
        beside = busy * getattr(done, part) / done.total / (accumulate if way == "ddp" else 1)
        assert own.hidden == pytest.approx(own.wire if all_of_it else beside)
        assert own.expected == pytest.approx(busy + own.wire - own.hidden)
        assert (own.limit == "wire") is not all_of_it


@pytest.mark.parametrize(
    ("rates", "limit"),
    [
        ({"flops": {"bfloat16": 1.0}}, "products"),
        ({"bandwidth": 1.0}, "traffic"),
        ({"link": 1.0}, "wire"),
    ],
)
def test_what_is_slow_is_the_limit(rates, limit):
    device = replace(DEVICES["h100"], **rates)
    assert plan(SMALL, **{**RUN, "device": device, "devices": 2}).times.limit == limit


def test_float32_uses_tf32_unless_everything_is_to_be_deterministic():
    run = {**RUN, "device": "a100-80", "precision": "float32"}
    assert plan(SMALL, **run).setup.precision == "tf32"
    assert plan(SMALL, deterministic=True, **run).setup.precision == "float32"
    assert plan(SMALL, **{**run, "device": "mi300x"}).setup.precision == "float32"
    assert plan(SMALL, **{**run, "precision": "auto"}).setup.precision == "bfloat16"
    assert plan(SMALL, **{**RUN, "device": PROCESSOR}).setup.precision == "float32"


@pytest.mark.parametrize("device", DEVICES.values(), ids=lambda device: device.name)
def test_datasheets_are_read_in_the_right_units(device):
    assert 1e14 < device.flops["bfloat16"] == device.flops["float16"] < 2e15
    assert 1e13 < device.flops["float32"] <= device.flops.get("tf32", 9e14) < 1e15
    assert 20e9 < device.memory < 200e9
    assert 3e11 <= device.bandwidth < 1e13
    assert 3e10 < device.link < 5e11
    assert not device.measured


def test_this_processor_is_measured():
    device = find_device("cpu")
    assert device.measured
    assert 1e9 < device.flops["float32"] < 1e14
    assert 1e8 < device.bandwidth < 1e13
    total = re.search(r"MemTotal: +(\d+) kB", Path("/proc/meminfo").read_text())
    assert device.memory == pytest.approx(1024 * int(total[1]), rel=0.01)
    assert 1 < decoding_rate(MIDDLE) < 1e5


# On paper


@pytest.fixture
def plans():
    config = named_config("vit_base_patch16_224")
    run = {"epochs": 300, "train_count": 1_281_167, "ema": 0.999, "optimiser": "muon"}
    return [
        plan(config, batch_size=1024, devices=8, decoding=200, workers=4, **run),
        plan(config, batch_size=1024, devices=16, nodes=2, parallel="fsdp", recompute=True,
             accumulate=2, device="mi300x", **run),
        plan(config, batch_size=64, device="l4", precision="float16", **run),
    ]  # fmt: skip


def test_every_form_says_that_nothing_was_measured(plans):
    assert MARK == "computed, not measured"
    for own in plans:
        for text in (own.to_text(), own.to_markdown(), own.to_json()):
            assert MARK in text.split("\n\n")[0]  # above all tables
    measured = plan(SMALL, **RUN)
    for text in (measured.to_text(), measured.to_markdown(), measured.to_json()):
        assert MARK not in text
        assert "measured here" in text


def test_a_terminal_of_80_columns_is_enough(plans):
    for own in [*plans, plan(SMALL, **RUN)]:
        assert max(map(len, own.to_text().splitlines())) <= 80


def test_every_table_adds_up(plans):
    for own in plans:
        for table in own.to_text().split("\n\n")[1:-2]:
            _, *lines = table.splitlines()
            *parts, whole = (
                float(re.search(r" (-?[\d,]+\.\d\d)", x)[1].replace(",", "")) for x in lines
            )
            assert sum(parts) == pytest.approx(whole, abs=0.005 * len(lines)), table


def test_markdown_says_the_same_numbers(plans):
    for own in plans:
        numbers = re.compile(r"-?[\d,]+\.\d\d\b")
        assert numbers.findall(own.to_text()) == numbers.findall(own.to_markdown())


def test_json_is_everything(plans):
    for own in plans:
        read = json.loads(own.to_json())
        assert read["memory"] == {**asdict(own.memory), "total": own.memory.total}
        assert read["operations"]["total"] == own.work.total
        assert read["wire"]["total"] == own.wire.total
        assert read["seconds"]["expected"] == own.times.expected
        assert read["largest_batch"] == own.largest_batch
        assert ViTConfig.from_dict(read["setup"]["config"]) == own.setup.config
        assert read["setup"]["device"]["bandwidth"] == own.setup.device.bandwidth


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"device": "h10"}, "no device is called 'h10' (did you mean 'h100'?)"),
        ({"device": "abacus"}, "no device is called 'abacus': choose one of a100-40"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"batch_size": 12, "devices": 8}, "batch_size=12 cannot be shared among devices=8"),
        ({"batch_size": 32}, "batch_size=32 is more than the 16 training images"),
        ({"devices": 3, "nodes": 2}, "devices=3 cannot be shared among nodes=2"),
        ({"precision": "float64"}, "precision='float64' is not available"),
        ({"precision": "float16", "device": ROUND}, "rate of round in float16 is not known"),
        ({"parallel": "tp"}, "parallel='tp' is not available: choose 'ddp' or 'fsdp'"),
        ({"optimiser": "sgd"}, "optimiser='sgd' is not available"),
        ({"network": 0}, "network=0: expected Gbit/s"),
        ({"network": float("nan")}, "network=nan: expected Gbit/s"),
        ({"share": 1.5}, "share=1.5: expected a part of the peak rate"),
        ({"decoding": -1}, "decoding=-1: expected images a second"),
        ({"ema": 2}, "ema=2: expected a decay"),
        ({"workers": -1}, "workers=-1"),
    ],
)  # fmt: skip
def test_mistakes_end_in_one_clear_line(wrong, said):
    with pytest.raises(ValueError, match=re.escape(said)) as error:
        plan(SMALL, **{**RUN, **wrong})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("wrong", [{"devices": 2.0}, {"share": "half"}, {"epochs": None}], ids=str)
def test_what_is_no_number_is_refused(wrong):
    with pytest.raises(TypeError, match=next(iter(wrong))):
        plan(SMALL, **{**RUN, **wrong})
