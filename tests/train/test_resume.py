"""No run is lost: killed, stopped, out of disk or damaged, the same command goes on to its end."""

import json
import os
import re
import resource
import shutil
import signal
import time
from dataclasses import replace

import pytest

STEPS = 4 * 5  # epochs, whole batches of 16 in three quarters of 120 images


@pytest.fixture(scope="module")
def uninterrupted(pictures, tmp_path_factory, whole_run):
    """What a run leaves that nothing ever stopped."""
    return whole_run(pictures, tmp_path_factory.mktemp("whole") / "run")


def wait_for(process, command, steps):
    """Let a run do so many steps."""
    deadline = time.monotonic() + 120
    while not any(path.name >= f"step-{steps:08}" for path in command.checkpoints()):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def ended(process):
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def check_same(command, uninterrupted, again):
    """It has gone on, not begun anew, and ends as if nothing had happened."""
    assert again.returncode == 0, again.stderr
    assert re.search(rf"^goes on after step [1-9]\d* of {STEPS}$", again.stderr, re.MULTILINE)
    check_end(command, uninterrupted)


def check_end(command, uninterrupted):
    assert (command.out / "weights.safetensors").exists()
    assert command.weights() == uninterrupted.weights()
    assert command.log() == uninterrupted.log()


@pytest.mark.parametrize("steps", [1, 13])
def test_killed_at_any_moment_the_same_command_ends_with_the_same_bits(
    command, uninterrupted, steps
):
    process = command.start()
    wait_for(process, command, steps)
    time.sleep(0.02 * steps)  # anywhere within a step
    process.kill()
    assert ended(process)[0] == -signal.SIGKILL
    assert not (command.out / "weights.safetensors").exists()
    check_same(command, uninterrupted, command.run())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_stop_it_finishes_the_step_saves_and_says_how_to_go_on(
    command, uninterrupted, number
):
    process = command.start("--checkpoint-seconds", "1000")  # nothing is due by itself
    deadline = time.monotonic() + 120
    while not (command.out / "log.jsonl").exists() or not command.log():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(number)
    status, _, err = ended(process)
    assert status == 75
    assert "stopped after step" in err
    assert "The same command goes on" in err
    assert "Traceback" not in err
    check_same(command, uninterrupted, command.run())


def test_workers_end_with_the_run(command):
    process = command.start()
    wait_for(process, command, 2)
    children = [
        int(pid) for pid in
        open(f"/proc/{process.pid}/task/{process.pid}/children").read().split()  # noqa: PTH123, SIM115
    ]  # fmt: skip
    assert children
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 30
    while any(os.path.exists(f"/proc/{child}/cmdline") for child in children):  # noqa: PTH110
        assert time.monotonic() < deadline, "a worker lives on"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def killed(pictures, tmp_path_factory, uninterrupted):
    """What a run leaves that was killed after some six steps."""
    command = replace(uninterrupted, out=tmp_path_factory.mktemp("killed") / "run")
    process = command.start()
    wait_for(process, command, 6)
    process.kill()
    process.communicate()
    return command


@pytest.fixture
def interrupted(killed, command):
    shutil.copytree(killed.out, command.out)
    return command


@pytest.mark.parametrize("newest_only", [True, False])
def test_of_a_damaged_checkpoint_the_one_before_is_used(interrupted, uninterrupted, newest_only):
    damaged = interrupted.checkpoints()[-1:] if newest_only else interrupted.checkpoints()
    for checkpoint in damaged:
        path = next(checkpoint.glob("*.safetensors"))
        path.write_bytes(path.read_bytes()[:-100])
    again = interrupted.run()
    assert again.returncode == 0, again.stderr
    for checkpoint in damaged:
        assert f"{checkpoint}: {path.name} has changed" in again.stderr
    assert ("goes on after step" in again.stderr) == newest_only
    check_end(interrupted, uninterrupted)


def test_a_full_disk_costs_no_checkpoint_that_was_there(interrupted, uninterrupted):
    command = interrupted
    before = command.checkpoints()
    size = next(before[-1].glob("*.safetensors")).stat().st_size

    def full():
        resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, size // 2))

    limited = command.run(preexec_fn=full)
    assert limited.returncode == 2
    assert "File too large" in limited.stderr
    assert "Traceback" not in limited.stderr
    assert set(command.checkpoints()) >= set(before)
    assert not list((command.out / "checkpoints").glob("*.growing"))
    check_same(command, uninterrupted, command.run())


def test_a_folder_that_is_gone_is_named(command):
    process = command.start()
    wait_for(process, command, 2)
    command.out.rename(command.out.with_name("elsewhere"))
    status, _, err = ended(process)
    assert status == 2
    assert str(command.out) in err
    assert "Traceback" not in err


def test_another_recipe_does_not_go_on(interrupted):
    before = interrupted.checkpoints()
    other = interrupted.run("--lr", "1e-3", "--seed", "1")
    assert other.returncode == 2
    assert "another recipe" in other.stderr
    assert "lr 0.003 there, 0.001 here" in other.stderr
    assert interrupted.checkpoints() == before


def test_how_it_is_computed_may_differ(interrupted, uninterrupted):
    again = interrupted.run("--workers", "0", "--keep", "1", "--deterministic")
    check_same(interrupted, uninterrupted, again)


def test_a_finished_run_is_only_replaced_when_told(command, uninterrupted):
    shutil.copytree(uninterrupted.out, command.out)
    refused = command.run()
    assert refused.returncode == 2
    assert "holds a finished run" in refused.stderr
    assert command.weights() == uninterrupted.weights()
    replaced = command.run("--overwrite", "--epochs", "1")
    assert replaced.returncode == 0, replaced.stderr
    assert len(command.log()) == 1


def test_the_last_checkpoints_and_the_best_stay(uninterrupted):
    names = [path.name for path in uninterrupted.checkpoints()]
    assert names[-3:] == [f"step-{step:08}" for step in range(STEPS - 3, STEPS)]
    accuracy = {line["step"]: line["validation_accuracy"] for line in uninterrupted.log()}
    manifest = json.loads((uninterrupted.checkpoints()[-1] / "manifest.json").read_text())
    last = STEPS - 1  # of the checkpoints; the last step of all leaves weights
    assert manifest["best"][1] == max(
        (step for step in accuracy if step <= last), key=lambda step: (accuracy[step], -step)
    )
    assert f"step-{manifest['best'][1]:08}" in names


def test_after_a_loss_that_is_no_number_the_last_good_checkpoint_goes_on(interrupted):
    before = interrupted.checkpoints()
    run = interrupted.run("--lr", "1e30", "--adjust")
    assert run.returncode == 2
    assert re.search(r"is NaN or infinite in step \d+ \(batch \d of epoch \d\)", run.stderr)
    assert "Lower lr" in run.stderr
    assert "Traceback" not in run.stderr
    assert interrupted.checkpoints()[-1] == before[-1]
    again = interrupted.run("--lr", "1e-3", "--adjust")
    assert again.returncode == 0, again.stderr
    assert f"goes on after step {int(before[-1].name[-8:])} of" in again.stderr
