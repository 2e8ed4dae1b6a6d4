import json

from vitlib.config import ViTConfig
from vitlib.data.shipped import shipped
from vitlib.study import engine
from vitlib.train import Engine


def stored():
    return json.loads(shipped(engine.FILE).read_text())


def test_the_shipped_file_holds_every_run_and_every_cost():
    file = stored()
    found = [(run["switch"], run["seed"]) for run in file["runs"]]
    assert found == [(switch, seed) for switch in engine.SWITCHES for seed in engine.SEEDS]
    assert [cost["switch"] for cost in file["about"]["costs"]] == list(engine.SWITCHES)


def test_the_shipped_file_says_how_it_was_made():
    about = stored()["about"]
    assert about["seeds"] == list(engine.SEEDS)
    assert about["epochs"] == engine.EPOCHS
    assert about.keys() >= {"command", "date", "hardware", "python", "torch"}


def test_no_switch_changes_more_than_a_seed_does_and_recomputing_changes_nothing():
    losses = {switch: [] for switch in engine.SWITCHES}
    for run in stored()["runs"]:
        losses[run["switch"]].append(run["loss"])
    spread = max(losses["float32"]) - min(losses["float32"])
    for switch, those in losses.items():
        for loss, wide in zip(those, losses["float32"], strict=True):
            assert abs(loss - wide) < spread, switch
    assert losses["recompute"] == losses["float32"]


def test_the_command_trains_times_and_writes_the_file(tmp_path, monkeypatch):
    tiny = ViTConfig(
        image_size=32, patch_size=16, num_classes=10, dim=8, depth=1, heads=1, mlp_dim=8
    )
    switches = {"float32": Engine(precision="float32"), "bfloat16": Engine(precision="bfloat16")}
    monkeypatch.setattr(engine, "EPOCHS", 1)
    monkeypatch.setattr(engine, "SEEDS", (0,))
    monkeypatch.setattr(engine, "LARGER", tiny)
    monkeypatch.setattr(engine, "SWITCHES", switches)
    engine.main(tmp_path)
    file = json.loads((tmp_path / engine.FILE).read_text())
    wide, narrow = file["runs"]
    assert (wide["switch"], narrow["switch"]) == tuple(switches)
    assert wide["loss"] != narrow["loss"]
    assert abs(wide["loss"] - narrow["loss"]) < 0.02
    for cost in file["about"]["costs"]:
        assert cost["first"] > 0
        assert cost["step"] > 0
