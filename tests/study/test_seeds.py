import json
import statistics
from dataclasses import replace

import pytest

from vitlib.data.shipped import shipped
from vitlib.study import STUDIES, seeds
from vitlib.train import Interrupted
from vitlib.train.recipes import Digits

SHORT = Digits(epochs=6, batch_size=96)


def written(folder):
    return json.loads((folder / "trial.json").read_text())


def study(folder, recipe=SHORT, places=(0, 1)):
    seeds.main(folder, "trial", recipe, places)


@pytest.mark.parametrize(
    ("name", "accuracy", "seconds", "parameters"),
    [("digits_accuracy", 0.985, 60, 100_000), ("fashion_mnist_accuracy", 0.935, 3_600, 500_000)],
)
def test_the_shipped_files_hold_what_was_asked_for(name, accuracy, seconds, parameters):
    found, asked = json.loads(shipped(f"{name}.json").read_text()), STUDIES[name].keywords
    about, runs = found["about"], found["runs"]
    assert about["command"] == f"vitlib study {name}"
    assert about.keys() >= {"date", "hardware", "python", "torch"}
    assert about["seeds"] == list(asked["seeds"]) == [run["seed"] for run in runs]
    assert {run["epochs"] for run in runs} == {asked["recipe"].epochs}
    assert {run["threads"] for run in runs} == {2}
    assert max(run["parameters"] for run in runs) <= parameters
    assert max(run["seconds"] for run in runs) <= seconds
    assert statistics.mean(run["accuracy"] for run in runs) >= accuracy


def test_the_recipe_is_trained_from_each_seed_and_what_is_finished_not_again(monkeypatch, tmp_path):
    study(tmp_path)
    found = written(tmp_path)
    assert found["about"]["command"] == "vitlib study trial"
    assert [run["seed"] for run in found["runs"]] == [0, 1]
    assert found["runs"][0]["accuracy"] != found["runs"][1]["accuracy"]
    assert all(0.2 < run["accuracy"] < 0.99 and run["seconds"] > 0 for run in found["runs"])
    monkeypatch.setattr(seeds, "train", None)
    study(tmp_path)
    assert written(tmp_path) == found
    with pytest.raises(ValueError, match=r"digits-0: holds a run of another recipe.*--out"):
        study(tmp_path, replace(SHORT, lr=2e-3))


def test_a_run_that_is_asked_to_stop_ends_the_study(monkeypatch, tmp_path):
    def stopped(*_, **__):
        raise Interrupted("stopped after step 7 of 9 and saved. The same command goes on.")

    monkeypatch.setattr(seeds, "train", stopped)
    with pytest.raises(Interrupted, match="stopped after step 7"):
        study(tmp_path)
