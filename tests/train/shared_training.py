"""What several processes do together: run by `torchrun`, started by test_distributed.py.

    shared_training.py WAY RULE OUT [DIES_AT]

trains the digits for some steps, and leaves the weights in OUT. With the RULE "sgd" by stochastic
gradient descent, whose steps show the gradients themselves; with "muon" by what the engine has for
that, and an average of the weights; with "recompute" and "bfloat16" as with "sgd", but computed so,
for two epochs with a validation behind each. With DIES_AT, process 1 ends without a word in that
step, once.
"""

import os
import sys
from pathlib import Path

import torch

from vitlib.cli import main
from vitlib.train import loop


def sgd(model, **_):
    group = {"params": list(model.parameters()), "lr_scale": 1.0}
    return (torch.optim.SGD([group], lr=0.5),)


def dying(clip, at, marker):
    calls = 0

    def clip_or_die(model, largest):
        nonlocal calls
        calls += 1
        if calls == at and os.environ.get("RANK") == "1" and not marker.exists():
            marker.write_text("dead")
            os._exit(1)
        return clip(model, largest)

    return clip_or_die


def run(way, rule, out, dies_at=None):
    if rule == "muon":
        words = ["--epochs", "1", "--optimiser", "muon", "--lr", "3e-3", "--ema", "0.5"]
    else:
        loop.make_optimisers = sgd
        words = {
            "sgd": ["--epochs", "1"],
            "recompute": ["--epochs", "2", "--validation", "0.2", "--recompute"],
            "bfloat16": ["--epochs", "2", "--validation", "0.2", "--precision", "bfloat16"],
        }[rule]
    if dies_at:
        loop.clip = dying(loop.clip, int(dies_at), Path(out).with_suffix(".dead"))
    return main(
        ["train", "digits", "--out", out, "--parallel", way, "--gradients", "derived",
         "--batch-size", "240", "--accumulate", "2", "--clip", "0.5",
         "--label-smoothing", "0.1", "--rotate", "0", "--zoom", "0", "--bend", "0",
         "--checkpoint-seconds", "0", *words]
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(run(*sys.argv[1:]))
