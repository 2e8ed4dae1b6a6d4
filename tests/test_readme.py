"""What the README tells a stranger to type does what it says."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

from vitlib import data

README = Path(__file__).parents[1] / "README.md"
CLASSES, OF_EACH = 10, 8


def commands(heading):
    """The lines of shell below a heading, without their comments."""
    text = README.read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [shlex.split(line, comments=True) for block in blocks for line in block.splitlines()]


@pytest.fixture
def start(tmp_path):
    """A process of the command, in a folder of its own."""

    def run(words):
        assert words[0] == "vitlib"
        return subprocess.Popen(
            [sys.executable, "-m", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    return run


def finish(process, status=0):
    out, err = process.communicate(timeout=240)
    assert process.returncode == status, err
    return out + err


def draw(folder, first):
    """A subfolder of images for each kind of clothes."""
    clothes = data.load("fashion_mnist_small")
    for label, name in enumerate(clothes.classes):
        (folder / name.replace("/", " or ")).mkdir(parents=True)
        some = clothes.train_images[clothes.train_labels == label][first : first + OF_EACH]
        for number, image in enumerate((some[:, 0] * 255).to(torch.uint8)):
            path = folder / name.replace("/", " or ") / f"{number}.png"
            Image.fromarray(image.numpy()).save(path)


def test_a_stranger_trains_stops_goes_on_tests_predicts_exports_and_tunes(start, tmp_path):
    draw(tmp_path / "pictures", 0)
    draw(tmp_path / "others", OF_EACH)
    shutil.copy(next((tmp_path / "others").rglob("*.png")), tmp_path / "photo.png")
    sheet, train, evaluate, predict, export, tune, torchrun, plan, *_ = commands(
        "Train on your own images"
    )
    shorter = ["--epochs", "3", "--batch-size", "16", "--workers", "1"]

    finish(start(sheet))
    assert (tmp_path / "sheet.png").exists()

    process = start([*train, *shorter, "--checkpoint-seconds", "0"])
    run, deadline = tmp_path / "runs" / "mine", time.monotonic() + 120
    while not list(run.glob("checkpoints/step-00000002")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    assert "The same command goes on" in finish(process, 75)
    said = finish(start([*train, *shorter, "--checkpoint-seconds", "0"]))
    assert "goes on after step" in said
    assert {"report.html", "curve.png", "log.csv", "weights.safetensors"} <= {
        path.name for path in run.iterdir()
    }

    assert re.search(r"of \d+ test images right", finish(start(evaluate)))
    assert "%" in finish(start(predict))
    finish(start(export))
    program = torch.export.load(tmp_path / "mine.pt2").module()
    assert program(torch.rand(3, 3, 64, 64)).shape == (3, CLASSES)
    finish(start([*tune, *shorter]))
    assert (tmp_path / "runs" / "others" / "weights.safetensors").exists()

    assert torchrun[0] == "torchrun"
    assert "memory" in finish(start(plan)).lower()
