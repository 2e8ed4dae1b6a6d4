"""The commands around training: train, plan, sheet."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Literal, TypeVar

from vitlib.cli.using import RUNS
from vitlib.train import WEIGHTS, Recipe, draw_sheet, train
from vitlib.train.augmented import known_images, look_at_data
from vitlib.train.plan import decoding_rate, plan
from vitlib.train.report import REPORT

R = TypeVar("R", bound=Recipe)


@dataclass(frozen=True)
class Train(Generic[R]):
    """Train a model by a recipe.

    Attributes:
        recipe: How to train.
        out: Folder for log, checkpoints, weights and report; runs/RECIPE if none is given. A run
            that did not finish there goes on.
        overwrite: Replace the run in that folder.
        adjust: Go on there with another lr, warmup, clip or weight_decay.
    """

    recipe: R
    out: Path | None = None
    overwrite: bool = False
    adjust: bool = False

    def __call__(self) -> None:
        """Train, and say how to use the weights."""
        folder = self.out or RUNS / self.recipe.name
        run = train(self.recipe, folder, overwrite=self.overwrite, adjust=self.adjust)
        if not run.first:
            return
        result, weights = run.record["result"], str(folder / WEIGHTS)
        print(
            f"{result['correct']} of {result['images']} test images right "
            f"({result['accuracy']:.2%}), loss {result['loss']:.3f}, after "
            f"{self.recipe.epochs} epochs in {result['seconds']:.0f} s."
        )
        if faults := run.record["faults"]:
            print(f"Damaged images, left out: {len(faults)}. {folder / REPORT} lists them.")
        print(
            f"The weights are in {weights}. Use them with\n"
            f"    vitlib predict photo.png --weights {shlex.quote(weights)}\n"
            f"or in Python with vitlib.load_model({weights!r})."
        )


@dataclass(frozen=True)
class Sheet(Generic[R]):
    """Draw a batch as the model sees it, after augmentation, each image with its label.

    Attributes:
        recipe: Whose data and augmentation.
        out: The PNG file.
        images: How many.
    """

    recipe: R
    out: Path = Path("sheet.png")
    images: int = 32

    def __call__(self) -> None:
        """Write the file and say where it is."""
        draw_sheet(self.recipe, self.out, self.images)
        print(self.out)


@dataclass(frozen=True)
class Plan(Generic[R]):
    """Say what a run will cost, before anybody pays for it: memory, FLOPs, traffic, time.

    Attributes:
        recipe: What is to be trained.
        devices: How many, one for each process.
        device: a100-40, a100-80, h100, h200 …, or cpu for this computer's processor.
        nodes: Computers that the devices are in.
        network: Gbit/s of each of them, one way.
        images: Training images; by default those of the recipe's data, less what is held out.
        decodes: Whether each image is decoded from a file when it is needed.
        format: For reading, for a page, or for a program.
    """

    recipe: R
    devices: int = 1
    device: str = "h100"
    nodes: int = 1
    network: float = 100.0
    images: int | None = None
    decodes: bool = False
    format: Literal["text", "markdown", "json"] = "text"

    def __call__(self) -> None:
        """Print the plan."""
        recipe, engine = self.recipe, self.recipe.engine
        config, count = recipe.network(), self.images or known_images(recipe)
        if count is None:
            config, feed = look_at_data(recipe)
            count = feed.train_count
        computed = plan(
            config,
            batch_size=recipe.batch_size,
            epochs=recipe.epochs,
            train_count=count,
            accumulate=recipe.accumulate,
            optimiser=recipe.optimiser,
            ema=recipe.ema,
            precision=engine.precision,
            deterministic=engine.deterministic,
            parallel=engine.parallel,
            recompute=engine.recompute,
            workers=engine.workers,
            decoding=decoding_rate(config) if self.decodes else 0.0,
            devices=self.devices,
            device=self.device,
            nodes=self.nodes,
            network=self.network,
        )
        say = {
            "text": computed.to_text,
            "markdown": computed.to_markdown,
            "json": computed.to_json,
        }
        print(say[self.format]())
