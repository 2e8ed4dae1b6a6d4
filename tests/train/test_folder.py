import pytest

from vitlib.train import Digits
from vitlib.train.folder import LOG, RECIPE, WEIGHTS, claim_folder

MINE = Digits().to_dict()


def complaint(folder, recipe=MINE, **options):
    with pytest.raises(ValueError, match="--out") as error:
        claim_folder(folder, recipe, **options)
    assert str(folder) in str(error.value)
    assert "\n" not in str(error.value)
    return str(error.value)


def names(folder):
    return {path.name for path in folder.iterdir()}


def test_new_empty_and_unfinished_folders_are_free(tmp_path):
    for folder in (tmp_path / "new" / "deeper", tmp_path / "empty"):
        (tmp_path / "empty").mkdir(exist_ok=True)
        claim_folder(folder, MINE)
        (folder / LOG).write_text("from an interrupted run")
        claim_folder(folder, MINE)
        assert (folder / LOG).read_text() == "from an interrupted run"


def test_of_another_recipe_an_unfinished_run_is_left_alone(tmp_path):
    claim_folder(tmp_path, MINE)
    other = Digits(lr=2e-3, seed=1).to_dict()
    before = (tmp_path / RECIPE).read_text()
    said = complaint(tmp_path, other)
    assert f"lr {MINE['lr']} there, 0.002 here" in said
    assert "seed 0 there, 1 here" in said
    assert (tmp_path / RECIPE).read_text() == before
    claim_folder(tmp_path, other, overwrite=True)
    claim_folder(tmp_path, other)


def test_how_a_run_is_computed_may_change(tmp_path):
    claim_folder(tmp_path, MINE)
    claim_folder(tmp_path, {**MINE, "engine": {**MINE["engine"], "workers": 7}})


def test_how_far_a_step_goes_may_change_when_told(tmp_path):
    claim_folder(tmp_path, MINE)
    adjusted = Digits(lr=2e-3, warmup=0.2, clip=1.0, weight_decay=0.0).to_dict()
    assert "go on all the same (--adjust)" in complaint(tmp_path, adjusted)
    said = complaint(tmp_path, {**adjusted, "seed": 1}, adjust=True)
    assert "seed 0 there, 1 here" in said
    assert "--adjust" not in said
    assert "lr" not in said
    claim_folder(tmp_path, adjusted, adjust=True)
    claim_folder(tmp_path, adjusted)
    complaint(tmp_path, MINE)


def test_a_damaged_recipe_is_told(tmp_path):
    claim_folder(tmp_path, MINE)
    (tmp_path / RECIPE).write_text('{"epochs": ')
    assert "damaged" in complaint(tmp_path)
    claim_folder(tmp_path, MINE, overwrite=True)


def test_a_finished_run_is_kept_unless_told(tmp_path):
    claim_folder(tmp_path, MINE)
    (tmp_path / LOG).write_text("a log")
    (tmp_path / WEIGHTS).write_text("weights")
    (tmp_path / "checkpoints" / "step-00000001").mkdir(parents=True)
    (tmp_path / "notes.txt").write_text("mine")
    assert "finished run" in complaint(tmp_path)
    assert (tmp_path / LOG).read_text() == "a log"
    assert (tmp_path / WEIGHTS).read_text() == "weights"
    claim_folder(tmp_path, MINE, overwrite=True)
    assert names(tmp_path) == {RECIPE, "notes.txt"}


def test_other_peoples_files_are_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("…")
    for overwrite in (False, True):
        assert "no training run" in complaint(tmp_path, overwrite=overwrite)
    assert names(tmp_path) == {"thesis.tex"}


def test_where_nothing_can_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    assert "cannot be written to" in complaint(tmp_path / "file")
    assert "Not a directory" in complaint(tmp_path / "file" / "run")
    assert "cannot be written to" in complaint(tmp_path / ("x" * 300))
