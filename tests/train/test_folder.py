import pytest

from vitlib.train.folder import LOG, WEIGHTS, claim_folder


def complaint(folder, **options):
    with pytest.raises(ValueError, match="--out") as error:
        claim_folder(folder, **options)
    assert str(folder) in str(error.value)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_new_empty_and_unfinished_folders_are_free(tmp_path):
    for folder in (tmp_path / "new" / "deeper", tmp_path / "empty"):
        (tmp_path / "empty").mkdir(exist_ok=True)
        claim_folder(folder)
        (folder / LOG).write_text("from an interrupted run")
        claim_folder(folder)
        assert (folder / LOG).read_text() == ""


def test_a_finished_run_is_kept_unless_told(tmp_path):
    claim_folder(tmp_path)
    (tmp_path / LOG).write_text("a log")
    (tmp_path / WEIGHTS).write_text("weights")
    assert "finished run" in complaint(tmp_path)
    assert (tmp_path / LOG).read_text() == "a log"
    assert (tmp_path / WEIGHTS).read_text() == "weights"
    claim_folder(tmp_path, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == [LOG]


def test_other_peoples_files_are_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("…")
    for overwrite in (False, True):
        assert "no training run" in complaint(tmp_path, overwrite=overwrite)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_where_nothing_can_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    assert "cannot be written to" in complaint(tmp_path / "file")
    assert "Not a directory" in complaint(tmp_path / "file" / "run")
    assert "cannot be written to" in complaint(tmp_path / ("x" * 300))
