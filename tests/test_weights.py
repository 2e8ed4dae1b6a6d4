import json
import subprocess
import sys
import textwrap
from dataclasses import replace

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from torch import nn
from torch.nn import functional

from vitlib import VisionTransformer, ViTConfig, load_model, load_weights, save_weights
from vitlib.weights import read_record

CONFIG = ViTConfig(
    image_size=(8, 12), patch_size=4, in_channels=1, num_classes=10, dim=8, depth=2, heads=2,
    mlp_dim=16, gradients="derived",
)  # fmt: skip


@pytest.fixture
def model():
    return VisionTransformer(CONFIG)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


def same(first, second):
    first, second = first.state_dict(), second.state_dict()
    return list(first) == list(second) and all(torch.equal(first[n], second[n]) for n in first)


def test_what_is_saved_is_loaded(model, path):
    save_weights(model.train(), path)
    loaded = load_model(path)
    assert same(loaded, model)
    assert loaded.config == CONFIG
    assert not loaded.training
    assert model.training
    images = torch.rand(2, 1, 8, 12)
    assert torch.equal(loaded(images), model.eval()(images))
    assert all(parameter.requires_grad for parameter in loaded.parameters())


def test_any_library_reads_the_file(model, path):
    save_weights(model, path)
    arrays = safetensors.numpy.load_file(path)
    assert arrays.keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        np.testing.assert_array_equal(arrays[name], tensor.numpy())


def test_the_record_comes_back(model, path):
    save_weights(model, path)
    assert read_record(path) == {}
    save_weights(model, path, {"data": "Ziffern, süß", "result": {"accuracy": 0.5}})
    assert read_record(path) == {"data": "Ziffern, süß", "result": {"accuracy": 0.5}}


def test_a_record_that_is_not_for_json_is_refused_and_the_old_file_kept(model, path):
    save_weights(model, path, {"run": 1})
    with pytest.raises(TypeError):
        save_weights(model, path, {"run": torch.zeros(1)})
    assert read_record(path) == {"run": 1}
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_wrapping_leaves_no_trace_in_the_names(model, path):
    for wrapped in (
        nn.DataParallel(model),
        torch.compile(model),
        torch.compile(nn.DataParallel(model)),
    ):
        save_weights(wrapped, path)
        assert same(load_model(path), model)
        other = VisionTransformer(CONFIG)
        load_weights(other, wrapped.state_dict())
        assert same(other, model)


def test_weights_go_into_a_wrapped_model(model, path):
    save_weights(model, path)
    other = VisionTransformer(CONFIG)
    load_weights(torch.compile(nn.DataParallel(other)), path)
    assert same(other, model)


def test_loading_draws_no_random_numbers(model, path):
    save_weights(model, path)
    before = torch.get_rng_state()
    load_model(path)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_report_names_what_was_loaded(model, path):
    save_weights(model, path)
    other = VisionTransformer(CONFIG)
    for source, called in ((path, str(path)), (str(path), str(path)),
                           (model.state_dict(), "state dict")):  # fmt: skip
        report = load_weights(other, source)
        assert report.source == called
        assert report.loaded == tuple(model.state_dict())
    assert same(other, model)


def test_parameters_keep_their_identity_type_and_place(model):
    other = VisionTransformer(CONFIG).double()
    before = [id(parameter) for parameter in other.parameters()]
    load_weights(other, model.state_dict())
    assert [id(parameter) for parameter in other.parameters()] == before
    assert other.head.weight.dtype == torch.float64
    assert torch.equal(other.head.weight.float(), model.head.weight)


FAULTS = {
    "1 missing (head.bias)": lambda w: w.pop("head.bias"),
    "1 left over (tail)": lambda w: w.update(tail=torch.zeros(1)),
    "head.weight is (9, 8) where the model has (10, 8)": lambda w: w.update(
        {"head.weight": torch.zeros(9, 8)}
    ),
    "1 not finite floating-point numbers (norm.bias)": lambda w: w.update(
        {"norm.bias": torch.full((8,), torch.nan)}
    ),
    "1 not finite floating-point numbers (norm.weight)": lambda w: w.update(
        {"norm.weight": torch.ones(8, dtype=torch.int64)}
    ),
    "24 missing (blocks.0.attn.proj.bias, blocks.0.attn.proj.weight, blocks.0.attn.qkv.bias …)": (
        lambda w: [w.pop(name) for name in list(w) if name.startswith("blocks")]
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_weights_that_do_not_fit_change_nothing(model, path, fault):
    weights = {name: tensor + 1 for name, tensor in model.state_dict().items()}
    FAULTS[fault](weights)
    safetensors.torch.save_file(weights, path)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for source in (weights, path):
        with pytest.raises(ValueError, match="do not fit the model") as error:
            load_weights(model, source)
        assert fault in str(error.value)
        assert "\n" not in str(error.value)
        assert all(torch.equal(before[n], t) for n, t in model.state_dict().items())


def damaged(path):
    content = path.read_bytes()
    yield "empty", b""
    yield "text", b"hello"
    yield "truncated in the header", content[:100]
    yield "truncated in the tensors", content[:-1]
    yield "a pickle", b"PK\x03\x04" + bytes(200)
    yield "a header that claims too much", b"\xff" * 8 + content[8:]


def test_damaged_and_foreign_files_are_told_in_one_line(model, path, tmp_path):
    save_weights(model, path)
    for what, content in damaged(path):
        bad = tmp_path / f"{what}.safetensors"
        bad.write_bytes(content)
        for read in (load_model, read_record, lambda file: load_weights(model, file)):
            with pytest.raises(ValueError, match="not a whole safetensors file") as error:
                read(bad)
            assert str(bad) in str(error.value)
            assert "\n" not in str(error.value)


def test_missing_files_and_folders_are_told(model, tmp_path):
    for read in (load_model, read_record, lambda file: load_weights(model, file)):
        with pytest.raises(FileNotFoundError, match=r"none\.safetensors: there is no such file"):
            read(tmp_path / "none.safetensors")
        with pytest.raises(ValueError, match="not a file"):
            read(tmp_path)


def test_a_file_without_a_configuration_says_what_to_do(model, path):
    safetensors.torch.save_file(model.state_dict(), path)
    with pytest.raises(ValueError, match="load_weights"):
        load_model(path)
    load_weights(VisionTransformer(CONFIG), path)


@pytest.mark.parametrize("config", ["{", "[]", '{"colour": 3}', '{"dim": 7}', "null"])
def test_a_configuration_that_cannot_be_is_told(model, path, config):
    safetensors.torch.save_file(model.state_dict(), path, {"config": config})
    with pytest.raises(ValueError, match="configuration") as error:
        load_model(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_only_a_vision_transformer_is_saved(path):
    with pytest.raises(TypeError, match="Linear holds no VisionTransformer"):
        save_weights(nn.Linear(2, 2), path)
    assert not path.exists()


def test_a_source_that_is_neither_file_nor_dict_is_a_type_error(model):
    with pytest.raises(TypeError):
        load_weights(model, 3)


def test_a_full_disk_leaves_the_old_file_and_nothing_else(model, path):
    save_weights(model, path, {"run": "first"})
    program = f"""
        import resource, sys
        from vitlib import load_model, save_weights
        model = load_model({str(path)!r})
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        try:
            save_weights(model, {str(path)!r}, {{"run": "second"}})
        except OSError as error:
            print(error.strerror)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "File too large"
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert read_record(path) == {"run": "first"}
    assert same(load_model(path), model)


def test_the_configuration_is_readable_without_us(model, path):
    save_weights(model, path)
    header = path.read_bytes()[8 : 8 + int.from_bytes(path.read_bytes()[:8], "little")]
    config = json.loads(json.loads(header)["__metadata__"]["config"])
    assert config["dim"] == 8
    assert config["image_size"] == [8, 12]


def test_who_reads_the_old_file_reads_it_to_its_end(model, path):
    """A new file takes the name; the old one is never written into."""
    save_weights(model, path, {"run": "first"})
    before = path.read_bytes()
    with path.open("rb") as reader:
        start = reader.read(100)
        save_weights(VisionTransformer(CONFIG), path, {"run": "second"})
        assert start + reader.read() == before


# Other options, other grids, other classes


@pytest.mark.parametrize(
    "options",
    [
        {"position": "sincos1d", "activation": "swiglu"},
        {"position": "sincos2d", "pool": "mean", "norm_after_pool": True},
        {"position": "rope2d", "norm": "post", "registers": 2, "layer_scale": 0.1},
        {"position": "none", "head": "mlp", "dropout": 0.1, "drop_path": 0.2},
    ],
    ids=str,
)
def test_every_option_survives_saving(options, path):
    model = VisionTransformer(replace(CONFIG, **options)).eval()
    save_weights(model, path)
    loaded, images = load_model(path), torch.rand(2, 1, 8, 12)
    assert loaded.config == model.config
    assert torch.equal(loaded(images), model(images))


def interpolated(table, old, new):
    """PyTorch's own resizing of a table with a class token in front."""
    grid = table[:, 1:].transpose(1, 2).unflatten(2, old)
    grid = functional.interpolate(grid, size=new, mode="bicubic", antialias=True)
    return torch.cat([table[:, :1], grid.flatten(2).transpose(1, 2)], dim=1)


@pytest.mark.parametrize("size", [(16, 24), (4, 8), (8, 20)], ids=str)
def test_positions_from_another_grid_are_resized(model, path, size):
    save_weights(model, path)
    other = VisionTransformer(replace(CONFIG, image_size=size, pool="cls"))
    report = load_weights(other, path)
    assert report.resized == ("pos_embed",)
    expected = interpolated(model.pos_embed.detach(), CONFIG.grid, other.config.grid)
    torch.testing.assert_close(other.pos_embed.detach(), expected)
    assert torch.equal(other.head.weight, model.head.weight)
    assert load_weights(VisionTransformer(CONFIG), path).resized == ()


def test_a_transposed_grid_of_as_many_places_is_another_grid(model, path):
    save_weights(model, path)
    turned = VisionTransformer(replace(CONFIG, image_size=(12, 8)))
    assert load_weights(turned, path).resized == ("pos_embed",)
    assert not torch.equal(turned.pos_embed, model.pos_embed)


def test_the_grid_of_a_state_dict_is_square_or_an_error(model):
    square = VisionTransformer(replace(CONFIG, image_size=16))
    large = VisionTransformer(replace(CONFIG, image_size=24))
    assert load_weights(large, square.state_dict()).resized == ("pos_embed",)
    expected = interpolated(square.pos_embed.detach(), (4, 4), (6, 6))
    torch.testing.assert_close(large.pos_embed.detach(), expected)
    before = {name: tensor.clone() for name, tensor in large.state_dict().items()}
    with pytest.raises(ValueError, match=r"pos_embed is \(1, 7, 8\) where the model has \(1, 37"):
        load_weights(large, model.state_dict())  # 2 × 3 patches
    assert all(torch.equal(before[name], tensor) for name, tensor in large.state_dict().items())


def test_a_new_head_keeps_its_weights(model, path):
    save_weights(model, path)
    other = VisionTransformer(replace(CONFIG, num_classes=3))
    head = other.head.weight.clone()
    with pytest.raises(ValueError, match="set new_head=True if only the classes differ"):
        load_weights(other, path)
    report = load_weights(other, path, new_head=True)
    assert report.dropped == ("head.bias", "head.weight")
    assert not any(name.startswith("head.") for name in report.loaded)
    assert torch.equal(other.head.weight, head)
    assert torch.equal(other.blocks[1].mlp.fc2.weight, model.blocks[1].mlp.fc2.weight)
