"""Freed memory is kept while training, and the pages need not be cleared again."""

import subprocess
import sys

import pytest

from vitlib.train.heap import can_keep, kept

FAULTS = """
import resource
import torch
from vitlib.train.heap import kept

def step():
    pieces = [torch.ones(2**20) for _ in range(8)]  # 4 MiB each

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        step()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

with kept():
    step()
    print(faults())
"""


@pytest.mark.skipif(not can_keep(), reason="the C library cannot be told to keep memory")
def test_pages_are_cleared_once():
    run = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    pages = 10 * 8 * 2**22 // 4096
    assert int(run.stdout) < pages / 20


def test_afterwards_it_is_as_before_and_what_is_free_goes_back(monkeypatch):
    told = []

    class Library:
        def mallopt(self, parameter, value):
            told.append((parameter, value))

        def malloc_trim(self, padding):
            told.append("trim")

    monkeypatch.setattr("ctypes.CDLL", lambda _: Library())
    with kept():
        kept_settings = dict(told)
    # mallopt(3): the defaults that it names
    assert dict(told[len(kept_settings) : -1]) == {-1: 2**17, -2: 2**17, -4: 65_536}
    assert kept_settings.keys() == {-1, -2, -4}
    assert told[-1] == "trim"


def test_a_library_without_such_a_setting_is_left_alone(monkeypatch):
    monkeypatch.setattr("ctypes.CDLL", lambda _: object())
    assert not can_keep()
    with kept():
        pass
