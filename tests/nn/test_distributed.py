"""Derived gradients on two processes: averaged by DDP, sharded by FSDP2."""

import subprocess
import sys
from pathlib import Path

import pytest

TRAINING = Path(__file__).with_name("distributed_training.py")


@pytest.mark.parametrize("way", ["ddp", "fsdp2", "fsdp2-bfloat16"])
def test_two_processes_train_as_one(way):
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    run = subprocess.run(
        [sys.executable, *launch, TRAINING, way], capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 0, run.stderr
