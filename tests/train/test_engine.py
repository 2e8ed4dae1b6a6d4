"""How a run is computed does not change what is learned; what it starts from may be old weights."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from vitlib import create_model, save_weights
from vitlib.data.augment import Augment
from vitlib.train import (
    Digits,
    Engine,
    Interrupted,
    augmented,
    checkpoint,
    draw_sheet,
    evaluate_saved,
    export,
    loop,
    train,
    trained_model,
)
from vitlib.train.optimiser import clip
from vitlib.train.recipes import Finetune
from vitlib.train.settings import find_compiler

ONE_STEP = Digits(
    epochs=2, batch_size=1442, optimiser="adamw", lr=1e-3, warmup=0.0, augment=Augment()
)


def log_of(recipe, folder):
    train(recipe, folder, progress=False)
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return log_of(ONE_STEP, tmp_path_factory.mktemp("plain") / "run")


@pytest.mark.parametrize(
    ("change", "tolerance"),
    [
        ({"accumulate": 7}, 1e-5),
        ({"engine": Engine(recompute=True)}, 1e-5),
        ({"engine": Engine(workers=0, deterministic=True)}, 0),
        ({"engine": Engine(precision="bfloat16")}, 0.02),
        ({"engine": Engine(precision="float16")}, 0.02),
    ],
    ids=["accumulate", "recompute", "deterministic", "bfloat16", "float16"],
)
@pytest.mark.parametrize("gradients", ["autograd", "derived"])
def test_how_it_is_computed_changes_nothing_else(change, tolerance, gradients, plain, tmp_path):
    recipe = replace(ONE_STEP, **change)
    recipe = replace(recipe, model=replace(recipe.model, gradients=gradients))
    if gradients == "derived":
        tolerance = max(tolerance, 1e-5)
    for line, expected in zip(log_of(recipe, tmp_path / "run"), plain, strict=True):
        assert line["loss"] == pytest.approx(expected["loss"], rel=tolerance)
        assert line["gradient_norm"] == pytest.approx(expected["gradient_norm"], rel=10 * tolerance)


def test_the_scale_of_the_loss_goes_on(tmp_path, monkeypatch):
    scaler_of, made = torch.amp.GradScaler, []

    def train_with(scale, **options):
        def make(*given, **settings):
            made.append(scaler_of(*given, init_scale=scale, **settings))
            return made[-1]

        monkeypatch.setattr(torch.amp, "GradScaler", make)
        engine = Engine(precision="float16", checkpoint_seconds=0)
        return train(replace(ONE_STEP, engine=engine), tmp_path, progress=False, **options)

    with monkeypatch.context() as patched:
        patched.setattr(loop.Stop, "asked", True)
        with pytest.raises(Interrupted):
            train_with(2.0**9)
    train_with(2.0**16)
    assert made[-1].get_scale() == 2.0**9


def has_compiler():
    try:
        find_compiler()
    except ValueError:
        return False
    return True


@pytest.mark.skipif(not has_compiler(), reason="needs a C++ compiler")
@pytest.mark.usefixtures("unchecked_shapes")
def test_a_compiled_model_learns_the_same(plain, tmp_path):
    recipe = replace(ONE_STEP, epochs=1, engine=Engine(compile=True))
    line = log_of(recipe, tmp_path / "run")[0]
    assert line["loss"] == pytest.approx(plain[0]["loss"], rel=1e-5)


def test_without_a_compiler_nothing_begins(tmp_path):
    recipe = replace(ONE_STEP, engine=Engine(compile=True))
    with (
        torch._inductor.config.patch({"cpp.cxx": (str(tmp_path / "none"),)}),
        pytest.raises(ValueError, match=r"C\+\+ compiler .* there is none.*without --compile"),
    ):
        train(recipe, tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_a_gradient_is_clipped_to_the_norm(plain, tmp_path, monkeypatch):
    norm = plain[0]["gradient_norm"]
    assert log_of(replace(ONE_STEP, clip=norm / 10), tmp_path / "a")[0]["gradient_norm"] == norm
    before, after = {}, {}

    def gradients(model):
        return torch.cat([p.grad.flatten() for p in model.parameters()]).clone()

    def noting(model, largest):
        before[largest] = gradients(model)
        found = clip(model, largest)
        after[largest] = gradients(model)
        return found

    monkeypatch.setattr(loop, "clip", noting)
    largest = norm / 10
    train(replace(ONE_STEP, epochs=1, clip=largest), progress=False)
    assert after[largest].norm().item() == pytest.approx(largest, rel=1e-4)
    torch.testing.assert_close(after[largest], before[largest] * (largest / norm))
    with pytest.raises(ValueError, match="clip is -1"):
        replace(ONE_STEP, clip=-1)


@pytest.mark.parametrize("optimiser", ["adamw", "muon"])
def test_what_is_held_out_is_not_trained_on(optimiser, tmp_path):
    recipe = Digits(
        epochs=3, batch_size=100, validation=0.2, lr=8e-3, optimiser=optimiser, ema=0.9, clip=1.0,
        log_every=5,
    )  # fmt: skip
    lines = log_of(recipe, tmp_path / "run")
    ends = [line for line in lines if line["validation_accuracy"] is not None]
    assert [line["step"] for line in ends] == [11, 22, 33]  # of 1,442 less a fifth of each class
    assert [line["step"] for line in lines] == [5, 10, 11, 15, 20, 22, 25, 30, 33]
    assert ends[-1]["validation_loss"] < ends[0]["validation_loss"]


def test_tensorboard_gets_the_same_numbers(tmp_path):
    recipe = replace(ONE_STEP, epochs=1, engine=Engine(tensorboard=True))
    (line,) = log_of(recipe, tmp_path / "run")
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    for name in ("loss", "accuracy", "lr", "gradient_norm", "seconds"):
        (scalar,) = events.Scalars(name)
        assert (scalar.step, scalar.value) == (line["step"], pytest.approx(line[name]))


def test_old_weights_are_tuned_to_new_images(pictures, tmp_path):
    first = train(Digits(epochs=10, lr=3e-3, batch_size=48), tmp_path / "first", progress=False)
    weights = tmp_path / "first" / "weights.safetensors"
    recipe = Finetune(
        weights=weights, data=str(pictures), epochs=6, batch_size=24, lr=3e-3,
        engine=Engine(workers=0),
        image_size=16,
    )  # fmt: skip
    run = train(recipe, tmp_path / "second", progress=False)
    assert run.model.config.image_size == 16
    assert run.model.config.drop_path == 0.1
    assert run.model.pos_embed.shape[1] == 1 + 64
    assert run.record["recipe"]["weights"] == str(weights)
    moved = [
        (old.mlp.fc1.weight - new.mlp.fc1.weight).abs().mean()
        for old, new in zip(first.model.blocks, run.model.blocks, strict=True)
    ]
    assert 0 < moved[0] < moved[1]  # what lies low moves less
    measures = evaluate_saved(tmp_path / "second" / "weights.safetensors").measures
    assert measures.correct == run.record["result"]["correct"]
    assert measures.images == run.record["result"]["images"] == 20


def test_weights_of_another_library_need_a_name(pictures, tmp_path):
    from safetensors.torch import save_file

    model = create_model("vit_tiny_patch16_224", image_size=32, num_classes=3)
    save_file(model.state_dict(), tmp_path / "timm.safetensors")
    recipe = Finetune(weights=tmp_path / "timm.safetensors", data=str(pictures))
    with pytest.raises(ValueError, match="Name the model"):
        recipe.network(10)
    named = replace(recipe, architecture="vit_tiny_patch16_224", image_size=32)
    config = named.network(10)
    assert (config.dim, config.num_classes, config.image_size) == (192, 10, 32)
    own = create_model("vit_tiny_patch16_224", image_size=32, num_classes=10)
    named.begin(own)
    assert torch.equal(own.blocks[3].attn.qkv.weight, model.blocks[3].attn.qkv.weight)


def test_other_classes_are_not_what_weights_can_be_tested_on(tmp_path):
    train(replace(ONE_STEP, epochs=1), tmp_path / "run", progress=False)
    with pytest.raises(ValueError, match="has 10 classes that are not the 10"):
        evaluate_saved(tmp_path / "run" / "weights.safetensors", "fashion_mnist_small")
    bare = create_model("vit_tiny_patch16_224", image_size=32)
    save_weights(bare, tmp_path / "bare.safetensors")
    with pytest.raises(ValueError, match="does not say which data"):
        evaluate_saved(tmp_path / "bare.safetensors")


def test_a_run_is_exported_by_its_folder(tmp_path):
    run = train(replace(ONE_STEP, epochs=1), tmp_path / "run", progress=False)
    model, record = trained_model(tmp_path / "run")
    assert record == json.loads(json.dumps(run.record))
    with pytest.raises(ValueError, match=r"\.safetensors or \.pt2"):
        export(model, tmp_path / "model.onnx", record)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="neither weights nor a whole checkpoint"):
        trained_model(tmp_path / "empty")
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        trained_model(tmp_path / "nowhere")


def test_an_unfinished_run_is_exported_and_goes_on(tmp_path):
    recipe = replace(ONE_STEP, ema=0.5, engine=Engine(recompute=True, checkpoint_seconds=0))
    finished = train(recipe, tmp_path / "run", progress=False).model
    (tmp_path / "run" / "weights.safetensors").unlink()
    model, record = trained_model(tmp_path / "run")
    assert "result" not in record
    found, _ = checkpoint.latest(tmp_path / "run")
    saved = {name: torch.zeros(10, 64) for name in ("model.head.weight", "ema.head.weight")}
    found.load(saved)
    assert torch.equal(model.head.weight, saved["ema.head.weight"])
    assert not torch.equal(model.head.weight, saved["model.head.weight"])
    again = train(recipe, tmp_path / "run", progress=False).model
    assert torch.equal(again.head.weight, finished.head.weight)


def test_damage_met_before_an_interruption_is_not_forgotten(pictures, tmp_path):
    folder = tmp_path / "pictures"
    shutil.copytree(pictures, folder)
    damaged = folder / "3" / "0.png"
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:40])
    recipe = Digits(
        data=str(folder), epochs=2, batch_size=24, engine=Engine(workers=0, checkpoint_seconds=0)
    )
    run = train(recipe, tmp_path / "run", progress=False)
    assert list(run.record["faults"]) == [str(damaged)]
    (tmp_path / "run" / "weights.safetensors").unlink()
    damaged.write_bytes(whole)
    assert train(recipe, tmp_path / "run", progress=False).record["faults"] == run.record["faults"]


def test_a_sheet_is_what_the_first_step_sees(tmp_path, monkeypatch):
    drawn, seen = [], []
    monkeypatch.setattr(
        augmented, "contact_sheet", lambda images, labels, _: drawn.append((images, labels))
    )
    recipe = Digits(epochs=1)
    draw_sheet(recipe, tmp_path / "sheet.png", 5)
    monkeypatch.setattr(
        loop, "augmented", lambda *given: seen.append(augmented.augmented(*given)) or seen[-1]
    )
    train(recipe, progress=False)
    (images, labels), (shown, told) = drawn[0], seen[0]
    assert torch.equal(images, shown[:5])
    assert labels == [str(int(label)) for label in told[:5]]
    with pytest.raises(ValueError, match="images is 9: expected 1 to 8, the batch_size divided by"):
        draw_sheet(replace(recipe, batch_size=96, accumulate=12), tmp_path / "a.png", 9)
