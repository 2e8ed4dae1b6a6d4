"""Make the weights of the running example.

    python -m vitlib.study.running_example

trains the smallest useful Vision Transformer on the digits so that its weights survive being
rounded to one decimal, and writes them to `vitlib/data/running_example.json`. Rounding is part of
training: after a third of the steps the forward pass sees rounded weights, while the gradient
reaches the exact ones (straight-through, Bengio, Léonard and Courville 2013, arXiv:1308.3432).

Takes about half a minute on one CPU core. The rounded weights read 83.1 % of the training digits
and 81.7 % of the test digits.
"""

import json
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from vitlib.config import ViTConfig
from vitlib.data import load
from vitlib.example import CONFIG
from vitlib.nn.vit import VisionTransformer, vit_forward

STEPS, BATCH, PEAK_RATE, LIMIT, SEED = 4000, 256, 1e-2, 2.0, 2


def rounded(parameters: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights to one decimal and at most `LIMIT` in size; the gradient is the exact ones'."""
    return {
        name: weight + (weight.clamp(-LIMIT, LIMIT).mul(10).round().div(10) - weight).detach()
        for name, weight in parameters.items()
    }


def start(config: ViTConfig, generator: torch.Generator) -> dict[str, Tensor]:
    """Random matrices large enough for so narrow a model: variance 1 / (number of inputs)."""
    parameters = VisionTransformer(config).state_dict()
    for weight in parameters.values():
        if weight.ndim > 1:
            inputs = weight[0].numel() if weight.ndim != 3 else config.dim
            weight.normal_(std=inputs**-0.5, generator=generator)
    return {name: weight.requires_grad_() for name, weight in parameters.items()}


def train(config: ViTConfig) -> dict[str, Tensor]:
    """Train and return the rounded weights."""
    data = load("digits")
    generator = torch.Generator().manual_seed(SEED)
    parameters = start(config, generator)
    optimiser = torch.optim.AdamW(parameters.values(), lr=PEAK_RATE, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, PEAK_RATE, STEPS)
    for step in range(STEPS):
        batch = torch.randint(len(data.train_labels), (BATCH,), generator=generator)
        weights = parameters if step < STEPS // 3 else rounded(parameters)
        logits, _ = vit_forward(data.train_images[batch], weights, config)
        optimiser.zero_grad()
        cross_entropy(logits, data.train_labels[batch]).backward()
        optimiser.step()
        schedule.step()
    return {name: weight.detach() for name, weight in rounded(parameters).items()}


def main() -> None:
    """Train, report the accuracy and write the file that `vitlib.example` reads."""
    torch.set_num_threads(1)
    weights = train(CONFIG)
    data = load("digits")
    for part, images, labels in (
        ("training", data.train_images, data.train_labels),
        ("test", data.test_images, data.test_labels),
    ):
        logits, _ = vit_forward(images, weights, CONFIG)
        print(f"{part}: {(logits.argmax(1) == labels).double().mean():.1%}")
    tenths = {name: weight.mul(10).round().int().tolist() for name, weight in weights.items()}
    path = Path(__file__).parents[1] / "data" / "running_example.json"
    lines = (f"  {json.dumps(name)}: {json.dumps(values)}" for name, values in tenths.items())
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    print(f"written: {path}")


if __name__ == "__main__":
    main()
