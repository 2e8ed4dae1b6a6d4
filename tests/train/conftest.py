"""A small folder of real digits as image files, and runs of the real command line."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from vitlib import data

IMAGES = 120


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """DIGIT/NUMBER.png, 16 × 16 pixels: 12 of each digit."""
    folder = tmp_path_factory.mktemp("pictures")
    digits = data.load("digits")
    for label in range(10):
        (folder / str(label)).mkdir()
        of_class = digits.train_images[digits.train_labels == label][: IMAGES // 10]
        for number, image in enumerate((of_class[:, 0] * 255).round().to(torch.uint8)):
            picture = Image.fromarray(image.numpy()).resize((16, 16), Image.Resampling.NEAREST)
            picture.save(folder / str(label) / f"{number}.png")
    return folder


@dataclass(frozen=True)
class Command:
    """`vitlib train digits` on the pictures, with workers, augmentation and dropout."""

    pictures: Path
    out: Path

    def words(self, *more: str) -> list[str]:
        return [
            *("train", "digits", "--data", str(self.pictures), "--out", str(self.out)),
            *("--epochs", "4", "--batch-size", "16", "--lr", "3e-3", "--workers", "2"),
            *("--crop", "resized", "--crop-scale", "0.5", "1", "--mixup", "0.2", "--ema", "0.9"),
            *("--dropout", "0.1", "--drop-path", "0.1", "--validation", "0.25"),
            *("--checkpoint-seconds", "0", "--keep", "3", *more),
        ]

    def start(self, *more: str, **options) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-m", "vitlib", *self.words(*more)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.out.parent,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            **options,
        )

    def run(self, *more: str, **options) -> subprocess.CompletedProcess:
        process = self.start(*more, **options)
        out, err = process.communicate(timeout=300)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def checkpoints(self) -> list[Path]:
        return sorted((self.out / "checkpoints").glob("step-????????"))

    def weights(self) -> dict[str, bytes]:
        tensors = load_file(self.out / "weights.safetensors")
        return {name: tensor.numpy().tobytes() for name, tensor in tensors.items()}

    def log(self) -> list[dict]:
        """The log without what was measured with a clock."""
        clocks = ("seconds", "images_per_second", "utilisation", "memory")
        lines = [json.loads(line) for line in (self.out / "log.jsonl").read_text().splitlines()]
        return [{k: v for k, v in line.items() if k not in clocks} for line in lines]


@pytest.fixture(scope="session")
def whole_run():
    """Run the command to its end."""

    def run(pictures, out):
        command = Command(pictures, out)
        done = command.run()
        assert done.returncode == 0, done.stderr
        return command

    return run


@pytest.fixture
def command(pictures, tmp_path):
    return Command(pictures, tmp_path / "run")
