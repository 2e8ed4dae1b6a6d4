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
step()
print(faults())
"""


@pytest.mark.skipif(not can_keep(), reason="the C library cannot be told to keep memory")
def test_pages_are_cleared_once_and_afterwards_handed_back_again():
    run = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    while_kept, afterwards = map(int, run.stdout.split())
    pages = 10 * 8 * 2**22 // 4096
    assert while_kept < pages / 20 < pages / 2 < afterwards


def test_a_library_without_such_a_setting_is_left_alone(monkeypatch):
    monkeypatch.setattr("ctypes.CDLL", lambda _: object())
    assert not can_keep()
    with kept():
        pass
