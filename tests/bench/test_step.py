"""The benchmark measures what it says, fairly, and tells it so that a terminal shows it."""

import json
import time
from dataclasses import replace

import pytest
import torch
from torch import nn

from vitlib import VisionTransformer, ViTConfig, fast
from vitlib.bench import models, report, step
from vitlib.bench.meter import Step, allocations
from vitlib.bench.models import SIZES, Size
from vitlib.bench.outcome import read
from vitlib.cli import main

CONFIG = ViTConfig(image_size=8, patch_size=4, num_classes=3, dim=8, depth=2, heads=2, mlp_dim=12)


class Slow(nn.Module):
    """A model that takes its time."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, images):
        """The logits, late."""
        time.sleep(0.1)
        return self.model(images)


@pytest.fixture
def beside(monkeypatch):
    """A small size, and one peer that is slow."""
    monkeypatch.setattr(step, "SIZES", {"tiny": Size(CONFIG, batch=4)})
    monkeypatch.setattr(step, "PEERS", {"slow": lambda ours: Slow(VisionTransformer(ours.config))})
    monkeypatch.setattr(step, "installed", {"slow": "1.0"}.get)


def test_memory_is_what_is_allocated():
    assert allocations(lambda: torch.empty(1000)) == [4000, -4000]
    kept = []
    assert allocations(lambda: kept.append(torch.zeros(10))) == [40]


def test_memory_held_is_that_of_the_tensors_that_wait():
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.Sigmoid(), nn.Linear(5, 3))
    measured = Step(model, torch.randn(4, 3, 2, 2), torch.zeros(4, dtype=torch.long))
    held, peak = measured.memory()
    # Sigmoid's output and what cross-entropy keeps, log-probabilities, loss and weight, but for the
    # input, which was there; the first layer's output is gone
    assert held == 4 * (4 * 5 + 4 * 3 + 2)
    assert peak >= held


def test_a_step_trains_and_inference_does_not():
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(12, 3))
    measured = Step(model, torch.randn(4, 3, 2, 2), torch.zeros(4, dtype=torch.long))
    before = model[2].weight.detach().clone()
    measured.seconds("inference")
    assert not model.training
    assert torch.equal(model[2].weight, before)
    measured.seconds("training")
    assert model.training
    assert not torch.equal(model[2].weight, before)
    assert model[2].weight.grad is None


def test_contenders_take_turns_and_nobody_always_begins():
    order = []

    class Noted:
        def __init__(self, name):
            self.name = name

        def seconds(self, kind):
            order.append((self.name, kind))
            return float(len(order))

    rounds = 4
    taken = step.times([Noted("a"), Noted("b"), Noted("c")], rounds)
    assert {kind: list(map(len, of)) for kind, of in taken.items()} == {
        "training": [rounds] * 3,
        "inference": [rounds] * 3,
    }
    names = [name for name, kind in order if kind == "training"][-3 * rounds :]
    firsts = names[::3]
    assert set(firsts) == {"a", "b", "c"}
    for first in range(0, len(names), 3):
        assert sorted(names[first : first + 3]) == ["a", "b", "c"]


def test_who_is_faster_has_the_larger_ratio(beside):
    outcomes = {outcome.name: outcome for outcome in step.measure("tiny", 3, [False])}
    assert list(outcomes) == ["vitlib, derived", "vitlib, autograd", "slow"]
    slow, ours = outcomes["slow"], outcomes["vitlib, derived"]
    for kind in ("training", "inference"):
        assert getattr(slow, kind).ratio == (1, 1, 1)
        own = getattr(ours, kind)
        assert own.ratio[1] > 1.2
        assert own.images > 1.2 * getattr(slow, kind).images
        assert own.images == pytest.approx(4e3 / own.milliseconds, rel=1e-2)
    assert slow.difference > 1e-4  # other weights
    assert outcomes["vitlib, autograd"].difference < 1e-5
    assert ours.held < slow.held


def test_a_table_fits_a_terminal_and_a_file_is_read_as_it_was_written(beside, tmp_path, capsys):
    assert main(["bench", "step", "--out", str(tmp_path), "--rounds", "2", "--no-compile"]) == 0
    printed = capsys.readouterr().out
    outcomes = read(tmp_path / "step.json")
    text = report.table(outcomes)
    assert text in printed
    assert max(map(len, text.splitlines())) <= 80
    assert all(outcome.name in text for outcome in outcomes)
    about = json.loads((tmp_path / "step.json").read_text())["about"]
    assert about["command"] == "vitlib bench step"
    assert about["slow"] == "1.0"
    assert about.keys() >= {"date", "hardware", "python", "torch", "rounds"}
    assert (tmp_path / "step.png").read_bytes().startswith(b"\x89PNG")


def test_without_peers_ours_alone_are_measured(beside, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(step, "installed", lambda _: None)
    assert main(["bench", "step", "--out", str(tmp_path), "--rounds", "2", "--no-compile"]) == 0
    captured = capsys.readouterr()
    assert "not installed, so not measured: slow" in captured.err
    assert "vitlib, derived" in captured.out
    assert not (tmp_path / "step.png").exists()
    with pytest.raises(ValueError, match="no peer was measured"):
        report.draw(read(tmp_path / "step.json"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["stop"], "'stop' is no benchmark. The benchmarks are attention, ideas, step."),
        (["step", "--rounds", "1"], "rounds is 1: expected 2 or more"),
    ],
)
def test_mistakes_end_in_one_line(words, said, capsys):
    assert main(["bench", *words]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1


def test_hugging_faces_model_has_our_weights():
    ours = VisionTransformer(replace(CONFIG, num_classes=5)).eval()
    for parameter in ours.parameters():
        nn.init.normal_(parameter, std=0.3)
    theirs = models.hugging_face(ours).eval()
    images = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(theirs(images), ours(images), rtol=1e-4, atol=1e-5)
    assert sum(p.numel() for p in theirs.parameters()) == sum(p.numel() for p in ours.parameters())


def test_what_is_measured_takes_the_fast_form():
    assert len(SIZES) == 3
    assert all(fast.fits(size.config) for size in SIZES.values())
