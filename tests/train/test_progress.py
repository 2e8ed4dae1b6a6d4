import contextlib
import math
import re
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from vitlib import VisionTransformer, ViTConfig
from vitlib.train import progress
from vitlib.train.progress import (
    Progress,
    gemm_rate,
    opening_lines,
    peak_memory,
    training_flops,
)

CPU = torch.device("cpu")
CONFIG = ViTConfig(
    image_size=(16, 24), patch_size=(4, 6), num_classes=7, dim=24, depth=2, heads=3, mlp_dim=40
)


class Clock:
    """A time that goes on only when it is told to."""

    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress.time, "perf_counter", clock)
    return clock


def start(**options):
    usual = {"steps": 40, "steps_per_epoch": 10, "batch_size": 32, "flops": 10**6, "rate": 1e9}
    return Progress(**{**usual, "device": CPU, **options})


@pytest.mark.parametrize(
    "options",
    [{}, {"pool": "mean", "registers": 2, "head": "mlp"}, {"patch_dropout": 0.4},
     {"patch_dropout": 0.5, "position": "rope2d", "dim": 36, "activation": "swiglu"}],
)  # fmt: skip
def test_flops_are_those_that_pytorch_counts_in_a_step(options):
    model = VisionTransformer(replace(CONFIG, **options))
    images = torch.rand(5, 3, 16, 24)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        model(images).sum().backward()
    assert training_flops(model.config) == counter.get_total_flops() / 5


@pytest.mark.parametrize("rate", [2e9, 5e10, 4e11, 7e14])
@pytest.mark.parametrize("disturbance", [0.0, 3.0])
def test_the_rate_is_that_of_the_device_whoever_disturbs_it(monkeypatch, clock, rate, disturbance):
    sizes = []

    def product(square):
        sizes.append(len(square))
        took = 2 * len(square) ** 3 / rate
        took *= 1 + disturbance * (len(sizes) % 3 == 0)  # each third product is held up
        clock.now += took
        return took

    monkeypatch.setattr(progress, "_time_of_product", product)
    monkeypatch.setattr(torch, "randn", lambda *size, **_: torch.empty(size, device="meta"))
    assert gemm_rate(CPU, torch.float32) == pytest.approx(rate)
    assert clock.now - 100 < 0.9 * (1 + disturbance)
    assert max(sizes) <= 8192


def test_a_real_rate_is_plausible_and_costs_no_random_numbers_of_others():
    before, started = torch.get_rng_state(), time.perf_counter()
    rate = gemm_rate(CPU, torch.float32)
    assert 1e8 < rate < 1e14
    assert time.perf_counter() - started < 20
    assert torch.equal(torch.get_rng_state(), before)


def test_speed_is_images_and_flops_over_the_time_of_the_steps(clock):
    with start(show=False) as bar:
        for _ in range(5):
            clock.now += 0.5
            bar.step()
        speed = bar.measured(1.0, 0.5)
        assert speed.images_per_second == pytest.approx(5 * 32 / 2.5)
        assert speed.utilisation == pytest.approx(64 * 10**6 / 1e9)
        assert speed.memory == peak_memory(CPU)
        clock.now += 4
        bar.step()
        assert bar.measured(1.0, 0.5).images_per_second == pytest.approx(32 / 4)


def test_tests_and_checkpoints_do_not_count_as_time_of_the_steps(clock):
    with start(show=False) as bar:
        clock.now += 1
        bar.step()
        with bar.pause():
            clock.now += 50
        with contextlib.suppress(OSError), bar.pause():
            clock.now += 50
            raise OSError("the disk is full")
        clock.now += 1
        bar.step()
        assert bar.measured(1.0, 0.5).images_per_second == pytest.approx(2 * 32 / 2)


def test_a_speed_of_no_steps_is_refused():
    with start(show=False, done=20) as bar:
        with pytest.raises(ValueError, match="no step was done"):
            bar.measured(1.0, 0.5)
        bar.step()
        bar.measured(1.0, 0.5)
        with pytest.raises(ValueError, match="no step was done"):
            bar.measured(1.0, 0.5)


def last_bar(capsys):
    out, err = capsys.readouterr()
    assert out == ""
    return re.split(r"[\r\n]+", err.strip())[-1]


def test_the_bar_says_where_how_well_how_fast_and_how_long(capsys, clock):
    with start() as bar:
        for _ in range(15):
            clock.now += 0.001
            bar.step()
        bar.measured(1.23456, 0.875)
    said = last_bar(capsys)
    for words in ("epoch 2/4", "38%", "left", "loss 1.235", "accuracy 87.5%", "32,000 images/s",
                  "utilisation 3200%"):  # fmt: skip
        assert words in said
    assert re.search(r"\d+ MB|\d+\.\d GB", said)


@pytest.mark.parametrize(("done", "epoch"), [(0, 1), (9, 1), (10, 2), (39, 4), (40, 4)])
def test_a_run_that_goes_on_is_shown_where_it_is(capsys, done, epoch):
    with start(done=done):
        pass
    said = last_bar(capsys)
    assert f"epoch {epoch}/4" in said
    assert f"{done / 40:3.0%}" in said


def test_slow_steps_are_told_with_a_decimal(capsys, clock):
    with start() as bar:
        clock.now += 10
        bar.step()
        bar.measured(math.nan, 0.0)
    assert " 3.2 images/s" in last_bar(capsys)


def test_a_file_is_not_filled_with_bars(capsys, monkeypatch, clock):
    assert not sys.stderr.isatty()
    monkeypatch.setattr("tqdm.std.time", clock)
    with start(steps=1200) as bar:
        for _ in range(1200):
            clock.now += 0.5  # ten minutes in all
            bar.step()
            bar.measured(1.0, 0.5)
    assert 10 <= capsys.readouterr().err.count("% |") <= 13


def test_lines_are_put_beside_the_bar_and_nothing_is_said_without_one(capsys):
    with start() as bar:
        bar.write("checkpoint saved")
    assert "checkpoint saved\n" in capsys.readouterr().err
    with start(show=False) as bar:
        bar.step()
        bar.measured(1.0, 0.5)
        bar.write("checkpoint saved")
    assert capsys.readouterr() == ("", "")


def test_memory_is_at_least_what_the_process_holds_and_rises_with_it():
    before = peak_memory(CPU)
    held = torch.ones(100_000_000, dtype=torch.uint8)
    after = peak_memory(CPU)
    if Path("/proc/self/statm").exists():
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        assert 0.9 * pages * 4096 < after
    assert before <= after < 10**12
    assert after >= held.sum()


def test_memory_is_left_out_where_the_system_does_not_say(monkeypatch, capsys, clock):
    monkeypatch.setitem(sys.modules, "resource", None)
    assert peak_memory(CPU) is None
    with start() as bar:
        clock.now += 1
        bar.step()
        assert bar.measured(1.0, 0.5).memory is None
    assert "MB" not in last_bar(capsys)


@pytest.mark.parametrize(
    ("count", "words"),
    [(0, "0 M"), (999_400_000, "999 M"), (1e9, "1.0 G"), (75.26e9, "75.3 G"), (1e12, "1.0 T"),
     (412.3e12, "412 T"), (2.5e15, "2.5 P"), (3e18, "3,000 P")],
)  # fmt: skip
def test_large_numbers_are_told_in_the_units_of_people(count, words):
    assert progress._scaled(count) == words


def test_what_was_chosen_stands_below_one_another_with_the_reason():
    text = opening_lines(
        [
            ("device", "cpu", "no accelerator was found"),
            ("precision", "float32", "word " * 40),
            ("compile", "no", ""),
        ]
    )
    lines = text.splitlines()
    assert lines[0] == "device     cpu      no accelerator was found"
    assert lines[1].startswith("precision  float32  word word")
    assert lines[-1] == "compile    no"
    assert all(line.startswith(" " * 20 + "word") for line in lines[2:-1])
    assert text.count("word") == 40
    assert max(map(len, lines)) <= 88


def test_what_was_not_chosen_takes_the_whole_line():
    lines = opening_lines([("model", "", "dim 64, " * 12), ("device", "cpu", "")]).splitlines()
    assert lines[0].startswith("model   dim 64, dim 64")
    assert lines[1].startswith("        dim 64")


def test_reasons_keep_room_beside_long_choices():
    (first, *_) = opening_lines([("what", "x" * 100, "because of this")]).splitlines()
    assert first.endswith("because of this")


def test_nothing_chosen_is_nothing_said():
    assert opening_lines([]) == ""
