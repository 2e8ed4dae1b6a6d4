"""Several processes train one model as one process would; one that dies takes nothing with it."""

import json
import os
import signal
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from vitlib.train import export, trained_model

TRAINING = Path(__file__).with_name("shared_training.py")


def launch(processes, *words, restarts=0):
    torchrun = ["-m", "torch.distributed.run", "--standalone"]
    torchrun += [f"--nproc-per-node={processes}", f"--max-restarts={restarts}"]
    return subprocess.Popen(
        [sys.executable, *(torchrun if processes > 1 else []), TRAINING, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # After a restart processes meet in a new store. In the old one, which torchrun would reuse
        # by default, they may find the addresses of those that have died.
        env={**os.environ, "OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"},
    )


def finish(process, timeout=180):
    out, err = process.communicate(timeout=timeout)
    return process.returncode, out, err


def complete(*words, **options):
    status, out, err = finish(launch(*words, **options))
    assert status == 0, err
    return out, err


def weights(out):
    return load_file(out / "weights.safetensors")


def check_close(out, other, tolerance):
    found, expected = weights(out), weights(other)
    assert found.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=0, atol=tolerance)


@pytest.fixture(scope="module")
def by_one(tmp_path_factory):
    """From a rule to the run of a single process."""

    @cache
    def run(rule):
        out = tmp_path_factory.mktemp(rule) / "run"
        complete(1, "ddp", rule, out)
        return out

    return run


@pytest.fixture
def alone(by_one):
    return by_one("sgd")


@pytest.mark.parametrize("way", ["ddp", "fsdp"])
def test_two_processes_train_as_one(way, alone, tmp_path):
    complete(2, way, "sgd", tmp_path / "run")
    check_close(tmp_path / "run", alone, 1e-6)
    results = [
        json.loads((path / "log.jsonl").read_text().splitlines()[-1])
        for path in (tmp_path / "run", alone)
    ]
    assert results[0]["loss"] == pytest.approx(results[1]["loss"], abs=1e-6)
    assert results[0]["accuracy"] == results[1]["accuracy"]


@pytest.mark.parametrize(("rule", "tolerance"), [("recompute", 1e-6), ("bfloat16", 2e-3)])
def test_shards_are_recomputed_narrowed_and_validated_as_a_whole_is(
    rule, tolerance, by_one, tmp_path
):
    complete(2, "fsdp", rule, tmp_path / "run")
    check_close(tmp_path / "run", by_one(rule), tolerance)
    logs = [
        [json.loads(line) for line in (path / "log.jsonl").read_text().splitlines()]
        for path in (tmp_path / "run", by_one(rule))
    ]
    for line, expected in zip(*logs, strict=True):
        assert line["validation_loss"] == pytest.approx(expected["validation_loss"], abs=tolerance)


def test_a_process_that_dies_ends_the_job_with_a_clear_line(tmp_path):
    status, _, err = finish(launch(2, "ddp", "sgd", tmp_path / "run", 3))
    assert status != 0
    assert "vitlib: error:" in err
    assert "another of the 2 processes" in err
    assert "the same command goes on" in err


def test_an_elastic_restart_goes_on_from_the_last_checkpoint(alone, tmp_path):
    _, said = complete(2, "ddp", "sgd", tmp_path / "run", 3, restarts=1)
    assert (tmp_path / "run.dead").exists()
    assert "goes on after step 2 of" in said
    check_close(tmp_path / "run", alone, 1e-6)


@pytest.mark.parametrize(
    ("before", "after", "rule", "tolerance"), [(2, 1, "muon", 1e-5), (1, 2, "sgd", 1e-6)]
)
def test_a_sharded_run_goes_on_with_another_number_of_processes(
    before, after, rule, tolerance, by_one, tmp_path
):
    out, alone = tmp_path / "run", by_one(rule)
    process = launch(before, "fsdp", rule, out)
    deadline = time.monotonic() + 120
    while not list(out.glob("checkpoints/step-????????")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert finish(process)[0] != 0
    newest = sorted(out.glob("checkpoints/step-????????"))[-1]
    assert len(list(newest.glob("*.safetensors"))) == before

    # all shards in one file, without any process group
    model, record = trained_model(newest)
    export(model, tmp_path / "one.safetensors", record)
    one = load_file(tmp_path / "one.safetensors")
    assert {n: t.shape for n, t in one.items()} == {n: t.shape for n, t in weights(alone).items()}
    shards = [load_file(path) for path in sorted(newest.glob("*.safetensors"))]
    of_model = "ema." if any(name.startswith("ema.") for name in shards[0]) else "model."
    for name, tensor in one.items():
        parts = [shard[of_model + name] for shard in shards if of_model + name in shard]
        assert torch.equal(tensor, torch.cat(parts)), name
    assert "result" not in record

    _, said = complete(after, "fsdp", rule, out)
    assert "goes on after step" in said
    check_close(out, alone, tolerance)
