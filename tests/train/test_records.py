import csv
import json
import math
import resource
import signal
import subprocess
import sys
import textwrap
from dataclasses import asdict, fields

import matplotlib as mpl
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from vitlib import plot
from vitlib.train.records import COLUMNS, Line, Records, curve, read_log


def line(step, **more):
    """What the run has to say after a step: a function of the step, as training is."""
    return Line(
        step=step,
        epoch=step / 4,
        loss=2.3 / (step + 1 / 3),
        accuracy=1 - 0.9**step,
        lr=1e-3,
        **more,
    )


def written(folder, steps, **options):
    with Records(folder, **options) as records:
        for step in steps:
            records.append(line(step))


def logs(folder):
    return [(folder / name).read_bytes() for name in ("log.jsonl", "log.csv")]


def refuse(constant):
    raise ValueError(f"{constant} is not JSON")


def scalars(folder):
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


@pytest.fixture
def small_disk():
    """Files cannot grow beyond some bytes, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def shrink(size):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))

    yield shrink
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_both_files_hold_every_number_exactly(tmp_path):
    lines = [line(1), line(2, validation_loss=math.pi, memory=2**40), line(3, utilisation=0.5)]
    with Records(tmp_path) as records:
        for each in lines:
            records.append(each)
    objects = [json.loads(text) for text in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert objects == [asdict(each) for each in lines]
    rows = list(csv.DictReader((tmp_path / "log.csv").open(newline="")))
    assert [
        {name: float(cell) if cell else None for name, cell in row.items()} for row in rows
    ] == (objects)
    assert read_log(tmp_path) == lines


def test_the_columns_are_the_same_from_the_first_line_to_the_last(tmp_path):
    with Records(tmp_path) as records:
        assert (tmp_path / "log.csv").read_text() == ",".join(COLUMNS) + "\n"
        records.append(Line(step=1, epoch=0.5))
        records.append(line(2, gradient_norm=1.5))
    assert tuple(field.name for field in fields(Line)) == COLUMNS
    assert {text.count(",") for text in (tmp_path / "log.csv").read_text().splitlines()} == {
        len(COLUMNS) - 1
    }
    for text in (tmp_path / "log.jsonl").read_text().splitlines():
        assert tuple(json.loads(text)) == COLUMNS


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_finite_number_is_left_out_since_json_has_no_word_for_it(tmp_path, value):
    with Records(tmp_path) as records:
        records.append(Line(step=1, epoch=1, loss=value))
    (text,) = (tmp_path / "log.jsonl").read_text().splitlines()
    assert json.loads(text, parse_constant=refuse)["loss"] is None
    (row,) = csv.DictReader((tmp_path / "log.csv").open(newline=""))
    assert row["loss"] == ""


def test_each_line_can_be_read_at_once_by_others(tmp_path):
    with Records(tmp_path, tensorboard=True) as records:
        for step in (1, 2):
            records.append(line(step))
            assert len((tmp_path / "log.jsonl").read_bytes().splitlines()) == step
            assert len((tmp_path / "log.csv").read_bytes().splitlines()) == step + 1
            assert len(scalars(tmp_path)["loss"]) == step


@settings(max_examples=40)
@given(st.data())
def test_the_log_of_an_interrupted_run_is_that_of_an_uninterrupted_one(tmp_path_factory, data):
    """Wherever the last write of each file was cut off, after the checkpoint of step k."""
    whole, halted = (tmp_path_factory.mktemp(name) for name in ("whole", "halted"))
    written(whole, range(1, 10))
    k = data.draw(st.integers(0, 6), label="checkpoint")
    written(halted, range(1, k + data.draw(st.integers(1, 3), label="further steps") + 1))
    for name in ("log.jsonl", "log.csv"):
        content = (halted / name).read_bytes()
        safe = len(b"".join(content.splitlines(keepends=True)[: k + (name == "log.csv")]))
        (halted / name).write_bytes(content[: data.draw(st.integers(safe, len(content)))])
    written(halted, range(k + 1, 10), resume_step=k)
    assert logs(halted) == logs(whole)
    assert {path.name for path in halted.iterdir()} == {"log.jsonl", "log.csv"}


def test_a_new_run_begins_a_new_log(tmp_path):
    written(tmp_path, [1, 2])
    written(tmp_path, [1])
    assert read_log(tmp_path) == [line(1)]
    assert len((tmp_path / "log.csv").read_text().splitlines()) == 2


def test_a_killed_process_has_left_all_its_lines_but_perhaps_the_last(tmp_path):
    program = f"""
        from pathlib import Path
        from vitlib.train.records import Line, Records
        records, step = Records(Path({str(tmp_path)!r})), 0
        while True:
            step += 1
            records.append(Line(step=step, epoch=step / 4))
            print(step, flush=True)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, text=True
    )
    for _ in range(50):
        process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    told = 50 + len(process.stdout.read().split())
    process.wait()
    steps = [each.step for each in read_log(tmp_path)]
    assert steps == list(range(1, len(steps) + 1))
    assert len(steps) >= told
    Records(tmp_path, resume_step=33)
    assert [each.step for each in read_log(tmp_path)] == list(range(1, 34))
    assert len((tmp_path / "log.csv").read_text().splitlines()) == 34


@pytest.mark.parametrize("room", [0, 1, 100])
def test_on_a_full_disk_the_run_is_told_which_file_and_can_go_on_later(tmp_path, small_disk, room):
    records = Records(tmp_path)
    records.append(line(1))
    small_disk((tmp_path / "log.jsonl").stat().st_size + room)
    with pytest.raises(OSError, match="File too large") as error:
        records.append(line(2))
    assert error.value.filename == str(tmp_path / "log.jsonl")
    small_disk(10**9)
    written(tmp_path, [2], resume_step=1)
    assert read_log(tmp_path) == [line(1), line(2)]


@pytest.mark.parametrize("fits", ["neither", "log.csv"])
def test_a_disk_that_is_full_when_a_run_goes_on_costs_no_line(tmp_path, small_disk, fits):
    written(tmp_path, range(1, 9))
    before = (tmp_path / "log.jsonl").read_bytes()
    small_disk(200 if fits == "neither" else (tmp_path / fits).stat().st_size)
    with pytest.raises(OSError, match="File too large"):
        Records(tmp_path, resume_step=7)
    assert (tmp_path / "log.jsonl").read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"log.jsonl", "log.csv"}


def test_a_folder_that_has_gone_is_named(tmp_path):
    records = Records(tmp_path)
    (tmp_path / "log.jsonl").unlink()
    (tmp_path / "log.csv").unlink()
    tmp_path.rmdir()
    with pytest.raises(FileNotFoundError, match=r"log\.jsonl"):
        records.append(line(1))


@pytest.mark.parametrize(
    "damage",
    [b"\0" * 40, b"\xff\xfe", b"[1, 2]", b"7", b"{}", b'{"epoch": 1}', b'{"step": "3", "epoch": 1}',
     b'{"step": 1.5, "epoch": 1}', b'{"step": 3}', b'{"step": 3, "epoch": 1, "loss": "low"}'],
)  # fmt: skip
def test_lines_that_are_none_are_left_out(tmp_path, damage):
    written(tmp_path, [1, 2])
    content = (tmp_path / "log.jsonl").read_bytes()
    (tmp_path / "log.jsonl").write_bytes(content.replace(b"\n", b"\n" + damage + b"\n", 1))
    assert read_log(tmp_path) == [line(1), line(2)]
    Records(tmp_path, resume_step=2)
    assert (tmp_path / "log.jsonl").read_bytes() == content


def test_columns_of_another_version_do_not_stop_a_run_from_going_on(tmp_path):
    (tmp_path / "log.jsonl").write_text('{"step": 4, "epoch": 1.0, "gone": 7}\n')
    Records(tmp_path, resume_step=4)
    assert read_log(tmp_path) == [Line(step=4, epoch=1.0)]
    assert "gone" not in (tmp_path / "log.jsonl").read_text()


def test_without_a_folder_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written(None, [1], tensorboard=True)
    assert list(tmp_path.iterdir()) == []
    assert read_log(tmp_path) == []


def test_tensorboard_shows_an_interrupted_run_as_an_uninterrupted_one(tmp_path):
    whole, halted = tmp_path / "whole", tmp_path / "halted"
    for folder in (whole, halted):
        folder.mkdir()
    written(whole, range(1, 10), tensorboard=True)
    written(halted, range(1, 8), tensorboard=True)
    written(halted, range(6, 10), resume_step=5, tensorboard=True)
    shown = scalars(whole)
    assert shown == scalars(halted)
    assert set(shown) == {"epoch", "loss", "accuracy", "lr"}
    assert shown["loss"] == [(step, pytest.approx(line(step).loss)) for step in range(1, 10)]


def test_missing_tensorboard_is_told_before_anything_happens(tmp_path, monkeypatch):
    written(tmp_path, [1, 2])
    before = logs(tmp_path)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ValueError, match=r"pip install 'vitlib\[train\]'") as error:
        Records(tmp_path, tensorboard=True)
    assert "\n" not in str(error.value)
    assert logs(tmp_path) == before


def pixels(path):
    return np.asarray(Image.open(path).convert("RGB"))


def shows(path, colour):
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return bool((pixels(path) == wanted).all(2).any())


def test_the_curve_is_a_picture_that_says_what_it_shows(tmp_path):
    with Records(tmp_path) as records:
        for step in range(1, 41):
            records.append(line(step, images_per_second=5000.0 + step))
    path = curve(tmp_path)
    assert path == tmp_path / "curve.png"
    picture = Image.open(path)
    assert picture.width > 900
    told = picture.info["Description"]
    for words in ("10 epochs", "from 1.72 to 0.057", "from 10.0% to 98.5%", "at most 0.001"):
        assert words in told
    assert "validation" not in told
    assert "5,020 images a second" in told
    assert Image.open(path).convert("RGBA").getpixel((0, 0)) == (255, 255, 255, 255)
    assert shows(path, plot.BLUE)
    assert not shows(path, plot.ORANGE)


@pytest.mark.parametrize(
    ("column", "value", "told"),
    [("validation_loss", 1.5, "validation loss goes from 1.5 to 1.5"),
     ("validation_accuracy", 0.25, "validation accuracy goes from 25.0% to 25.0%")],
)  # fmt: skip
def test_validation_is_drawn_where_it_was_measured(tmp_path, column, value, told):
    with Records(tmp_path) as records:
        for step in range(1, 41):
            records.append(line(step, **({column: value} if step % 10 == 0 else {})))
    path = curve(tmp_path)
    assert shows(path, plot.ORANGE)
    assert told in Image.open(path).info["Description"]


def test_one_line_is_enough_for_a_curve_and_none_is_not(tmp_path):
    with pytest.raises(ValueError, match="no line to draw"):
        curve(tmp_path)
    written(tmp_path, [1])
    assert shows(curve(tmp_path), plot.BLUE)


def test_drawing_leaves_the_settings_and_the_figures_of_others_alone(tmp_path):
    from matplotlib import pyplot as plt

    written(tmp_path, [1, 2])
    with mpl.rc_context():
        mpl.rcdefaults()
        before = dict(mpl.rcParams)
        curve(tmp_path)
        assert dict(mpl.rcParams) == before
    assert plt.get_fignums() == []


@pytest.mark.parametrize("missing", ["matplotlib.figure", "vitlib.plot"])
def test_what_cannot_be_drawn_is_told_in_one_line(tmp_path, monkeypatch, missing):
    written(tmp_path, [1])
    monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.delattr("vitlib.plot")
    with pytest.raises(ModuleNotFoundError, match=r"no plot .* pip install 'vitlib\[train\]'") as e:
        curve(tmp_path)
    assert "\n" not in str(e.value)
    assert not (tmp_path / "curve.png").exists()


def test_a_full_disk_leaves_the_old_curve(tmp_path, small_disk):
    written(tmp_path, [1])
    before = curve(tmp_path).read_bytes()
    written(tmp_path, [2], resume_step=1)
    small_disk(1000)
    with pytest.raises(OSError, match="File too large"):
        curve(tmp_path)
    assert (tmp_path / "curve.png").read_bytes() == before
