import itertools
import json
import math
import os
import signal
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from vitlib import data, load_model
from vitlib.data.augment import Augment
from vitlib.train import Digits, Interrupted, evaluate, loop, train
from vitlib.train.journey import Journey
from vitlib.train.judge import judge
from vitlib.train.processes import Processes
from vitlib.train.recipe import Engine
from vitlib.weights import read_record

SHORT = Digits(epochs=1, batch_size=200)


@pytest.mark.parametrize("gradients", ["autograd", "derived"])
def test_a_few_epochs_already_tell_most_digits_apart(gradients):
    recipe = Digits(epochs=14, lr=3e-3)
    recipe = replace(recipe, model=replace(recipe.model, gradients=gradients))
    run = train(recipe, progress=False)
    assert run.record["result"]["accuracy"] > 0.8
    assert not run.model.training


def test_a_whole_run_reaches_what_the_recipe_states():
    assert train(Digits(), progress=False).record["result"]["accuracy"] >= 0.97


def test_the_same_seed_gives_the_same_weights_and_another_seed_others():
    first, again = (train(SHORT, progress=False).model.state_dict() for _ in range(2))
    other = train(replace(SHORT, seed=1), progress=False).model.state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["head.weight"], other["head.weight"])


def test_a_folder_gets_weights_that_say_how_they_came_about_and_a_log(tmp_path):
    run = train(replace(SHORT, epochs=2), tmp_path / "deep" / "run", progress=False)
    folder = tmp_path / "deep" / "run"
    assert {path.name for path in folder.iterdir()} == {
        *("weights.safetensors", "recipe.json", "log.jsonl", "log.csv", "curve.png", "report.html")
    }
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2]
    assert lines[1]["loss"] < lines[0]["loss"] < 3
    record = read_record(folder / "weights.safetensors")
    assert record == json.loads(json.dumps(run.record))
    assert record["recipe"]["epochs"] == 2
    assert record["recipe"]["model"]["dim"] == SHORT.model.dim
    images = torch.rand(3, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(load_model(folder / "weights.safetensors")(images), run.model(images))


def test_the_disk_has_the_log_before_it_has_a_checkpoint_or_the_weights(tmp_path, monkeypatch):
    """So that a power cut takes no line from before the step where the run goes on."""
    safe, rest = {}, []
    sync, save, leave = os.fsync, Journey.save, loop._leave

    def noting(descriptor):
        sync(descriptor)
        found = os.fstat(descriptor)
        safe[found.st_ino] = found.st_size

    def look():
        found = [(tmp_path / name).stat() for name in ("log.jsonl", "log.csv")]
        rest.append([each.st_size - safe.get(each.st_ino, 0) for each in found])

    monkeypatch.setattr(os, "fsync", noting)
    monkeypatch.setattr(Journey, "save", lambda *given: (look(), save(*given)))
    monkeypatch.setattr(loop, "_leave", lambda *given: (look(), leave(*given)))
    recipe = replace(SHORT, engine=Engine(checkpoint_seconds=0), log_every=2)
    train(recipe, tmp_path, progress=False)
    assert len(rest) > 3
    assert not any(map(any, rest))


def test_the_stated_result_is_that_of_the_last_epochs_weights():
    run = train(SHORT, progress=False)
    digits = data.load("digits")
    with torch.no_grad():
        logits = run.model(digits.normalisation(digits.test_images))
    accuracy = (logits.argmax(1) == digits.test_labels).double().mean().item()
    result = run.record["result"]
    assert result["accuracy"] == pytest.approx(accuracy)
    assert result["loss"] == pytest.approx(
        functional.cross_entropy(logits, digits.test_labels).item(), rel=1e-5
    )


@pytest.fixture
def at_each_step(monkeypatch):
    """Have something done within each step, behind the backward pass."""
    clip = loop.clip

    def register(action):
        steps = itertools.count()

        def act_and_clip(model, largest):
            action(next(steps), model)
            return clip(model, largest)

        monkeypatch.setattr(loop, "clip", act_and_clip)

    return register


def test_subnormals_are_flushed_while_training_and_kept_afterwards(at_each_step):
    seen = []
    at_each_step(lambda *_: seen.append((torch.tensor(1e-40) * 1).item()))
    train(SHORT, progress=False)
    assert set(seen) == {0.0}
    assert torch.tensor(1e-40) * 1 > 0


@pytest.mark.parametrize("deterministic", [True, False])
def test_what_is_not_deterministic_is_refused_while_training(at_each_step, deterministic):
    seen = set()
    at_each_step(lambda *_: seen.add(torch.are_deterministic_algorithms_enabled()))
    train(replace(SHORT, engine=Engine(deterministic=deterministic)), progress=False)
    assert seen == {deterministic}
    assert not torch.are_deterministic_algorithms_enabled()


def test_the_test_images_are_looked_at_once(monkeypatch):
    splits = []

    def noting(model, feed, split, *others):
        splits.append(split)
        return judge(model, feed, split, *others)

    monkeypatch.setattr(loop, "judge", noting)
    train(replace(SHORT, epochs=3, validation=0.2), progress=False)
    assert splits == ["validation"] * 3 + ["test"]


def test_the_recipe_is_told_before_it_is_followed(capsys):
    train(SHORT)
    told = " ".join(capsys.readouterr().err.split())
    for words in (
        "recipe digits: data digits, validation 0, epochs 1, batch_size 200",
        "lr 0.008, weight_decay 0.05, betas 0.9 0.999",
        "model image_size 8, patch_size 2, in_channels 1",
        "augment rotate 15, zoom 0.15, bend 0.05 device",
        "gradients autograd as the recipe says",
    ):
        assert words in told
    train(replace(SHORT, augment=Augment()))
    assert "augment nothing device" in " ".join(capsys.readouterr().err.split())


def test_who_leaves_the_other_processes_can_still_say_why(monkeypatch):
    """A process that has lost another is soon sent SIGTERM by torchrun: it must not die of it."""

    @contextmanager
    def left_slowly():
        try:
            yield Processes(0, 1, torch.device("cpu"))
        finally:
            signal.raise_signal(signal.SIGTERM)

    deadly = []
    before = signal.signal(signal.SIGTERM, lambda *_: deadly.append("SIGTERM"))
    try:
        monkeypatch.setattr(loop, "processes", left_slowly)
        with pytest.raises(ValueError, match="Choose a smaller batch"):
            train(replace(SHORT, batch_size=2_000), progress=False)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert deadly == []


def test_torchrun_gives_the_same_command_and_does_not_mean_to_overwrite(tmp_path, monkeypatch):
    recipe = replace(SHORT, engine=Engine(checkpoint_seconds=0))
    first = train(recipe, tmp_path / "run", progress=False).model
    (tmp_path / "run" / "weights.safetensors").unlink()
    kept = {path.name for path in (tmp_path / "run" / "checkpoints").iterdir()}
    begun = []
    begin = Journey.begin

    def noting(journey, *given, **options):
        begin(journey, *given, **options)
        begun.append(journey.done)

    monkeypatch.setattr(Journey, "begin", noting)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    again = train(recipe, tmp_path / "run", overwrite=True, progress=False).model
    assert begun == [max(int(name.removeprefix("step-")) for name in kept)]
    assert torch.equal(again.head.weight, first.head.weight)


def test_who_is_told_to_overwrite_is_told_to_leave_that_out(tmp_path, monkeypatch):
    monkeypatch.setattr(loop.Stop, "asked", True)
    with pytest.raises(Interrupted, match=r"The same command, without --overwrite, goes on\.$"):
        train(SHORT, tmp_path, overwrite=True, progress=False)
    with pytest.raises(Interrupted, match=r"The same command goes on\.$"):
        train(SHORT, tmp_path, progress=False)


def test_more_processes_than_devices_are_told_how_many_there_are(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 4)
    monkeypatch.setenv("LOCAL_RANK", "4")
    with pytest.raises(ValueError, match=r"process 4 .* there are 4.*--nproc-per-node 4"):
        train(SHORT, progress=False)


def test_evaluating_does_not_depend_on_the_batch_and_restores_the_mode():
    run, digits = train(SHORT, progress=False), data.load("digits")
    images = digits.normalisation(digits.test_images)
    run.model.train()
    whole = evaluate(run.model, images, digits.test_labels)
    parts = evaluate(run.model, images, digits.test_labels, batch_size=7)
    assert run.model.training
    assert (whole.images, whole.correct) == (parts.images, parts.correct) == (355, whole.correct)
    assert whole.loss == pytest.approx(parts.loss, rel=1e-5)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"image_size": 16}, "(1, 8, 8)"),
        ({"in_channels": 3}, "in_channels"),
        ({"num_classes": 9}, "num_classes is 9"),
    ],
)
def test_a_model_that_does_not_fit_the_data_is_refused_before_anything_is_written(
    tmp_path, change, words
):
    recipe = replace(SHORT, model=replace(SHORT.model, **change))
    with pytest.raises(ValueError, match=r"the data 'digits'") as error:
        train(recipe, tmp_path / "run", progress=False)
    assert words in str(error.value)
    assert not (tmp_path / "run").exists()


def test_a_batch_larger_than_the_data_is_refused():
    with pytest.raises(ValueError, match="1442 training images"):
        train(replace(SHORT, batch_size=1443), progress=False)


def test_a_loss_that_is_no_number_ends_the_run_without_weights(tmp_path):
    with pytest.raises(ValueError, match=r"loss .* is NaN or infinite in step 1 .*Lower lr"):
        train(replace(SHORT, lr=1e30, warmup=0.0), tmp_path, progress=False)
    assert not (tmp_path / "weights.safetensors").exists()


EAGER = replace(SHORT, epochs=3, engine=Engine(checkpoint_seconds=0, keep=2))
"""A checkpoint after each of 21 steps."""


def saved(folder):
    return [path.name for path in sorted(folder.glob("checkpoints/step-*"))]


def test_what_a_gradient_that_is_no_number_ruins_is_not_saved(tmp_path, at_each_step):
    def ruin(step, model):
        if step == 9:
            model.head.weight.grad[0, 0] = torch.nan

    at_each_step(ruin)
    with pytest.raises(ValueError, match=r"gradient is NaN or infinite in step 9 .*--adjust"):
        train(EAGER, tmp_path, progress=False)
    # the tenth step would have been step-00000010; the checkpoint that it began from is doubted
    assert saved(tmp_path) == ["step-00000008"]


@pytest.mark.parametrize(("keep", "newest"), [(2, "step-00000008"), (1, "step-00000009")])
def test_what_has_diverged_is_not_saved(tmp_path, monkeypatch, keep, newest):
    """The loss is far too large for some steps before a line of the log is due, and says so.

    It is so first with the weights of step 9: they are doubted, but kept if there are no others.
    """
    loss_of, calls = loop.training_loss, itertools.count()

    def astray(*given, **options):
        return loss_of(*given, **options) + 100.0 * (next(calls) >= 9)

    monkeypatch.setattr(loop, "training_loss", astray)
    recipe = replace(EAGER, engine=replace(EAGER.engine, keep=keep))
    with pytest.raises(ValueError, match=r"has grown to .* in step 13 .*--adjust"):
        train(recipe, tmp_path, progress=False)
    assert saved(tmp_path) == [newest]


def test_a_run_goes_on_with_another_rate_when_told(tmp_path, at_each_step):
    def ruin(step, model):
        if step == 9:
            model.head.weight.grad[0, 0] = torch.nan

    at_each_step(ruin)
    with pytest.raises(ValueError, match="--adjust"):
        train(EAGER, tmp_path, progress=False)
    at_each_step(lambda *_: None)
    slower = replace(EAGER, lr=1e-3, clip=1.0)
    with pytest.raises(ValueError, match="--adjust"):
        train(slower, tmp_path, progress=False)
    run = train(slower, tmp_path, adjust=True, progress=False)
    changes = {"step": 8, "lr": [EAGER.lr, 1e-3], "clip": [0.0, 1.0]}
    assert json.loads(json.dumps(run.record["adjusted"])) == [changes]
    assert read_record(tmp_path / "weights.safetensors")["adjusted"] == [changes]
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [7, 14, 21]
    assert lines[0]["lr"] > 4e-3
    assert lines[1]["lr"] < 1e-3


def test_adjustments_are_remembered_through_the_next_interruption(tmp_path, monkeypatch):
    def until(step, recipe, **options):
        asked = itertools.count(1)
        monkeypatch.setattr(loop.Stop, "asked", property(lambda _: next(asked) >= step))
        with pytest.raises(Interrupted):
            train(recipe, tmp_path, progress=False, **options)

    until(3, EAGER)
    until(2, replace(EAGER, lr=1e-3), adjust=True)
    until(2, replace(EAGER, lr=2e-3), adjust=True)
    monkeypatch.undo()
    record = train(replace(EAGER, lr=2e-3), tmp_path, progress=False).record
    assert json.loads(json.dumps(record["adjusted"])) == [
        {"step": 3, "lr": [EAGER.lr, 1e-3]},
        {"step": 5, "lr": [1e-3, 2e-3]},
    ]


@pytest.mark.parametrize(
    ("field", "value"),
    [("epochs", 0), ("batch_size", -1), ("lr", 0.0), ("lr", float("nan")), ("weight_decay", -1.0),
     ("warmup", 1.5), ("label_smoothing", -0.1), ("label_smoothing", 1.1),
     ("label_smoothing", float("nan")), ("seed", -1)],
)  # fmt: skip
def test_an_absurd_setting_is_named(field, value):
    with pytest.raises(ValueError, match=f"{field} is {value:g}"):
        replace(SHORT, **{field: value})


def test_smoothed_labels_are_what_the_model_is_trained_on(tmp_path):
    """Against a uniform target no model does better than log K, against labels each soon does."""
    losses = []
    for part in (0.0, 1.0):
        recipe = replace(SHORT, epochs=5, batch_size=96, lr=3e-3, label_smoothing=part)
        run = train(recipe, tmp_path / str(part), progress=False)
        assert run.record["recipe"]["label_smoothing"] == part
        last = (tmp_path / str(part) / "log.jsonl").read_text().splitlines()[-1]
        losses.append(json.loads(last)["loss"])
    assert losses[0] < math.log(10) - 0.05
    assert math.log(10) <= losses[1] < math.log(10) + 0.1
