import json
from dataclasses import asdict

import pytest

from vitlib.data.shipped import shipped
from vitlib.study import optimisers


def stored():
    return json.loads(shipped(optimisers.FILE).read_text())


def test_the_shipped_file_holds_every_run_of_the_study():
    found = [{key: run[key] for key in ("optimiser", "lr", "seed")} for run in stored()["runs"]]
    assert found == [asdict(setting) for setting in optimisers.settings()]


def test_the_shipped_file_says_how_it_was_made():
    about = stored()["about"]
    assert about["seeds"] == list(optimisers.SEEDS)
    assert about["epochs"] == optimisers.EPOCHS
    assert about.keys() >= {"command", "date", "hardware", "python", "torch"}


def test_the_script_trains_and_writes_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(optimisers, "EPOCHS", 1)
    monkeypatch.setattr(optimisers, "RATES", (1e-3,))
    monkeypatch.setattr(optimisers, "SEEDS", (0,))
    optimisers.main(tmp_path)
    runs = json.loads((tmp_path / optimisers.FILE).read_text())["runs"]
    assert [run["optimiser"] for run in runs] == ["adamw", "muon"]
    for run in runs:
        assert 1 < run["loss"] < 3
        assert run["accuracy"] < 0.6


def test_a_run_that_diverges_is_stored_as_such(monkeypatch):
    def lost(*_, **__):
        raise ValueError("the loss is NaN or infinite in step 7.")

    monkeypatch.setattr(optimisers, "train", lost)
    outcome = optimisers.measure(optimisers.Setting(optimiser="adamw", lr=1e-3, seed=0))
    assert outcome.loss is None
    assert outcome.accuracy is None


def test_another_mistake_is_not_taken_for_divergence(monkeypatch):
    def wrong(*_, **__):
        raise ValueError("lr is 0: expected a number above 0, such as 1e-3.")

    monkeypatch.setattr(optimisers, "train", wrong)
    with pytest.raises(ValueError, match="lr is 0"):
        optimisers.measure(optimisers.Setting(optimiser="adamw", lr=1e-3, seed=0))
