import json
import resource
from pathlib import Path

import pytest
import torch

from vitlib.train import checkpoint
from vitlib.train.processes import Processes

ALONE = Processes(0, 1, torch.device("cpu"))


def state(number=0):
    torch.manual_seed(number)
    return {
        "matrix": torch.randn(5, 3),
        "scalar": torch.randn(()),
        "narrow": torch.randn(4).bfloat16(),
        "whole": torch.arange(7),
        "empty": torch.zeros(0, 2),
    }


def save(folder, step):
    return checkpoint.save(folder, state(step), {"step": step, "best": None}, ALONE)


def test_what_was_saved_is_loaded_to_the_last_bit(tmp_path):
    save(tmp_path, 3)
    found, complaints = checkpoint.latest(tmp_path)
    loaded = {name: torch.zeros_like(tensor) for name, tensor in state().items()}
    found.load(loaded)
    assert (found.step, complaints) == (3, [])
    for name, tensor in state(3).items():
        assert torch.equal(loaded[name], tensor), name


def test_reading_runs_no_code(tmp_path):
    """Nothing is pickled: safetensors and JSON only."""
    path = save(tmp_path, 3).path
    assert {file.suffix for file in path.iterdir()} == {".safetensors", ".json"}


def test_a_part_can_be_loaded(tmp_path):
    save(tmp_path, 3)
    found, _ = checkpoint.latest(tmp_path)
    part = {"matrix": torch.zeros(5, 3)}
    found.load(part)
    assert torch.equal(part["matrix"], state(3)["matrix"])


@pytest.mark.parametrize(
    "other", [{"matrix": torch.zeros(5, 4)}, {"unknown": torch.zeros(3)}], ids=["shape", "name"]
)
def test_what_does_not_fit_is_told_in_one_line(tmp_path, other):
    save(tmp_path, 3)
    found, _ = checkpoint.latest(tmp_path)
    with pytest.raises(ValueError, match=r"does not fit this run .*--overwrite") as error:
        found.load(other)
    assert "\n" not in str(error.value)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-10])


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def remove(path):
    path.unlink()


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [truncate, flip_a_bit, remove, empty])
@pytest.mark.parametrize("pattern", ["*.safetensors", "manifest.json"])
def test_of_a_damaged_checkpoint_the_one_before_is_found(tmp_path, damage, pattern):
    for step in (1, 2):
        save(tmp_path, step)
    damage(next((tmp_path / "checkpoints" / "step-00000002").glob(pattern)))
    found, complaints = checkpoint.latest(tmp_path)
    assert found.step == 1
    assert len(complaints) == 1
    assert "step-00000002" in complaints[0]


def test_a_damaged_checkpoint_cannot_be_opened(tmp_path):
    path = save(tmp_path, 1).path
    truncate(next(path.glob("*.safetensors")))
    with pytest.raises(ValueError, match=r"has changed .*Use another checkpoint"):
        checkpoint.opened(path)


@pytest.mark.parametrize("place", range(0, 100, 7))
def test_each_bit_of_the_manifest_counts(tmp_path, place):
    path = save(tmp_path, 1).path / "manifest.json"
    content = bytearray(path.read_bytes())
    position = place * len(content) // 100
    content[position] ^= 1
    path.write_bytes(content)
    assert checkpoint.latest(tmp_path)[0] is None


def test_without_any_there_is_none(tmp_path):
    assert checkpoint.latest(tmp_path) == (None, [])


def test_one_that_was_never_finished_is_not_seen(tmp_path):
    save(tmp_path, 1)
    growing = tmp_path / "checkpoints" / "step-00000002.growing"
    growing.mkdir()
    assert checkpoint.latest(tmp_path)[0].step == 1
    save(tmp_path, 2)
    assert not growing.exists()
    assert checkpoint.latest(tmp_path)[0].step == 2


def test_a_full_disk_leaves_what_was_there(tmp_path):
    save(tmp_path, 1)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.raises(OSError, match="File too large") as error:
            save(tmp_path, 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert str(tmp_path) in str(error.value.filename)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000001"]
    assert checkpoint.latest(tmp_path)[0].step == 1


def test_the_newest_and_the_best_are_kept(tmp_path):
    for step in range(1, 7):
        save(tmp_path, step)
    checkpoint.prune(tmp_path, newest=6, keep=2, best=3)
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["step-00000003", "step-00000005", "step-00000006"]


def test_later_ones_are_damaged_and_make_room_for_those_that_are_written_again(tmp_path):
    for step in (10, 20, 30):
        truncate(next(save(tmp_path, step).path.glob("*.safetensors")))
    for step in (1, 2, 3):
        save(tmp_path, step)
        checkpoint.prune(tmp_path, newest=step, keep=2, best=None)
        assert checkpoint.latest(tmp_path)[0].step == step
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["step-00000002", "step-00000003"]


def test_the_manifest_says_what_it_was_given(tmp_path):
    path = save(tmp_path, 4).path
    assert checkpoint.opened(path).manifest["best"] is None
    assert checkpoint.opened(Path(tmp_path)) is None
    assert json.loads((path / "manifest.json").read_text())["step"] == 4
