import json
from dataclasses import asdict, replace

from vitlib.data.shipped import shipped
from vitlib.study import patch_dropout


def stored():
    return json.loads(shipped(patch_dropout.FILE).read_text())


def test_the_shipped_file_holds_every_run_of_the_study():
    found = [{key: run[key] for key in ("rate", "epochs", "seed")} for run in stored()["runs"]]
    assert found == [asdict(setting) for setting in patch_dropout.settings()]


def test_the_shipped_file_says_how_it_was_made():
    about = stored()["about"]
    assert about["seeds"] == list(patch_dropout.SEEDS)
    assert about["epochs"] == patch_dropout.EPOCHS
    assert about.keys() >= {"command", "date", "hardware", "python", "torch"}


def test_at_equal_epochs_fewer_patches_teach_less(tmp_path, monkeypatch):
    small = replace(patch_dropout.RECIPE, data="fashion_mnist_small", batch_size=50)
    monkeypatch.setattr(patch_dropout, "RECIPE", small)
    monkeypatch.setattr(patch_dropout, "EPOCHS", 1)
    monkeypatch.setattr(patch_dropout, "SEEDS", (0,))
    monkeypatch.setattr(patch_dropout, "RATES", (0.0, 0.5))
    patch_dropout.main(tmp_path)
    whole, torn, longer = json.loads((tmp_path / patch_dropout.FILE).read_text())["runs"]
    assert (whole["patches"], torn["patches"], longer["patches"]) == (49, 25, 25)
    assert (whole["epochs"], torn["epochs"], longer["epochs"]) == (1, 1, 2)
    assert torn["loss"] > whole["loss"]
    assert longer["loss"] < torn["loss"]
    assert min(run["accuracy"] for run in (whole, torn, longer)) > 0.2
