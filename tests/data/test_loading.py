import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch.utils.data import Dataset

from vitlib.data.loading import load_batches
from vitlib.data.reader import Read

TWELVE = [[number, number + 1] for number in range(0, 24, 2)]


class Asked(Dataset):
    """Images that are their number; label: the process that made them."""

    def __init__(self, seconds=0.0):
        self.seconds = seconds

    def __getitem__(self, number):
        time.sleep(self.seconds)
        return Read(torch.full((1, 2, 2), number, dtype=torch.uint8), os.getpid())


def load(batches=TWELVE, *, workers=2, seconds=0.0):
    return load_batches(Asked(seconds), batches, workers=workers, pin=False)


def alive(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state not in "ZX"


def ends(pids, seconds):
    until = time.monotonic() + seconds
    while any(map(alive, pids)) and time.monotonic() < until:
        time.sleep(0.05)
    return not any(map(alive, pids))


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_batches_come_in_order_from_as_many_processes_as_asked_for(workers):
    reads = list(load(workers=workers))
    assert [batch.images[:, 0, 0, 0].tolist() for batch in reads] == TWELVE
    pids = {pid for batch in reads for pid in batch.labels.tolist()}
    assert len(pids) == max(1, workers)
    assert (os.getpid() in pids) == (workers == 0)


@pytest.mark.parametrize("workers", [0, 2])
def test_what_to_read_is_asked_for_a_few_batches_ahead_only(workers):
    asked = []
    batches = load((asked.append(number) or [number] for number in range(100)), workers=workers)
    next(batches)
    assert len(asked) <= 1 + 3 * workers


def test_pytorchs_generator_is_left_alone():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    list(load())
    assert torch.equal(torch.get_rng_state(), before)


def test_workers_end_when_nobody_wants_more():
    batches = load(seconds=0.01)
    pids = [next(batches).labels[0].item() for _ in range(2)]
    batches.close()
    assert ends(pids, 1)


def test_a_worker_that_is_killed_gives_one_line_and_no_hang():
    batches = load([[number] for number in range(1000)], seconds=0.01)
    victim = next(batches).labels[0].item()
    os.kill(victim, signal.SIGKILL)
    time.sleep(0.5)  # no error comes from anywhere else
    started = time.monotonic()
    with pytest.raises(ChildProcessError) as error:
        list(batches)
    assert time.monotonic() - started < 30
    assert "\n" not in str(error.value)
    assert "one of the 2 processes that read images was killed" in str(error.value)


@pytest.mark.parametrize("error", [ValueError, ConnectionError, RuntimeError])
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("count", [0, 20])
def test_an_error_in_the_list_of_what_to_read_is_an_error_here(error, workers, count):
    def batches():
        yield from ([number] for number in range(count))
        raise error("no more")

    with pytest.raises(error, match=r"^no more$"):
        list(load(batches(), workers=workers))


@pytest.mark.parametrize("count", [0, 20])
def test_an_error_leaves_no_process_behind(count):
    def batches():
        yield from ([number] for number in range(count))
        raise KeyError

    before = set(multiprocessing.active_children())
    with contextlib.suppress(KeyError):
        list(load(batches()))
    assert set(multiprocessing.active_children()) <= before


@pytest.mark.parametrize("error", [ConnectionResetError, EOFError, FileNotFoundError])
def test_a_connection_that_a_dying_worker_closes_is_a_worker_that_was_killed(monkeypatch, error):
    def closed(*_, **__):
        raise error("closed")

    batches = load()
    next(batches)
    monkeypatch.setattr("torch.utils.data.dataloader._BaseDataLoaderIter.__next__", closed)
    with pytest.raises(ChildProcessError):
        next(batches)


def test_workers_let_the_main_process_finish_when_all_are_asked_to_stop():
    batches = load([[number] for number in range(8)], seconds=0.02)
    first = next(batches)
    for name in ("INT", "TERM"):  # from another process, such as a terminal or a scheduler
        subprocess.run(["kill", f"-{name}", str(first.labels[0].item())], check=True)
    assert [batch.images.flatten()[0].item() for batch in batches] == list(range(1, 8))


def test_workers_end_when_the_main_process_says_so():
    batches = load([[number] for number in range(1000)], seconds=0.01)
    worker = next(batches).labels[0].item()
    os.kill(worker, signal.SIGTERM)
    assert ends([worker], 2)


MAIN = """
import os, sys, time, torch
from torch.utils.data import Dataset
from vitlib.data.loading import load_batches
from vitlib.data.reader import Read

class Asked(Dataset):
    def __getitem__(self, number):
        return Read(torch.zeros(1, 2, 2, dtype=torch.uint8), os.getpid())

batches = load_batches(Asked(), ([n] for n in range(10**6)), workers=2, pin=False)
print(*[next(batches).labels.item() for _ in range(2)], flush=True)
"""


def test_a_main_process_that_fails_ends_at_once_and_with_it_the_workers():
    main = subprocess.run(
        [sys.executable, "-c", MAIN + "print(time.time(), flush=True)\nraise KeyError"],
        capture_output=True, text=True,
    )  # fmt: skip
    pids, failed = main.stdout.splitlines()
    assert main.stderr.splitlines()[-1] == "KeyError"
    assert time.time() - float(failed) < 8
    assert ends([int(pid) for pid in pids.split()], 1)


def test_workers_die_with_the_main_process():
    code = MAIN + "time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as main:
        pids = [int(pid) for pid in main.stdout.readline().split()]
        assert all(map(alive, pids))
        main.kill()
    assert len(set(pids)) == 2
    assert ends(pids, 20)
