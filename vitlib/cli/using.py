"""The commands that use models: eval, predict, export, info, study, bench, list."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro
from jaxtyping import Float
from torch import Tensor
from tyro.conf import Positional

from vitlib import data
from vitlib.bench import BENCHMARKS
from vitlib.config import ViTConfig, list_models, named_config
from vitlib.data.images import load_image
from vitlib.data.reader import CentreView, view_file
from vitlib.study import STUDIES
from vitlib.summary import summary
from vitlib.train import RECIPES, WEIGHTS, evaluate_saved, export, trained_model
from vitlib.weights import load_model, read_record

RUNS = Path("runs")
"""Where runs go that are given no folder: runs/digits for `vitlib train digits`."""


@dataclass(frozen=True)
class Eval:
    """Test saved weights on the test images of the data they were trained on, or of others.

    Attributes:
        weights: A file that `vitlib train` wrote.
        data: Other data of the same classes: whatever `vitlib train --data` takes. What is for
            testing there is used: of a folder without `test/` or `val/`, every fifth image.
    """

    weights: Annotated[Positional[Path], tyro.conf.arg(metavar="WEIGHTS")]
    data: str | None = None

    def __call__(self) -> None:
        """Print accuracy and loss."""
        name, result, notes, faults = evaluate_saved(self.weights, self.data)
        for note in (*notes, *(f"{image}: {why}" for image, why in faults.items())):
            print(note, file=sys.stderr)
        print(
            f"{name}: {result.correct} of {result.images} test images right "
            f"({result.accuracy:.2%}), loss {result.loss:.3f}."
        )


@dataclass(frozen=True)
class Predict:
    """Say what images show.

    Attributes:
        images: Image files: PNG, JPEG and other common kinds.
        weights: A file that `vitlib train` wrote; those of the last run without --out by default.
    """

    images: Annotated[Positional[tuple[Path, ...]], tyro.conf.arg(metavar="IMAGE…")] = ()
    weights: Path | None = None

    def __call__(self) -> None:
        """Print the likeliest three classes of each image."""
        if not self.images:
            raise ValueError("no image is given. Usage: vitlib predict IMAGE… [--weights WEIGHTS].")
        weights = self.weights or _latest_weights()
        model, known = load_model(weights), _data_record(weights)
        images = torch.stack([_as_tested(path, model.config, known) for path in self.images])
        with torch.inference_mode():
            logits = model(data.Normalisation(**known["normalisation"])(images))
        probabilities, labels = logits.softmax(1).topk(min(3, logits.shape[1]))
        for path, row, indices in zip(self.images, probabilities, labels, strict=True):
            classes = [
                f"{known['classes'][label]} ({probability:.1%})"
                for label, probability in zip(indices.tolist(), row.tolist(), strict=True)
            ]
            print(f"{path}: {', '.join(classes)}")


@dataclass(frozen=True)
class Export:
    """Write the weights of a run for others, also of one that is not finished.

    Attributes:
        source: The folder of a run (its weights, or its newest checkpoint), a checkpoint, or a
            file of weights.
        out: The file. NAME.safetensors holds the weights under timm's names; NAME.pt2 a program of
            PyTorch (torch.export) that needs no vitlib, from images normalised as the data say to
            logits, for any number of images.
    """

    source: Annotated[Positional[Path], tyro.conf.arg(metavar="RUN|CHECKPOINT|WEIGHTS")]
    out: Path

    def __call__(self) -> None:
        """Write the file and say what is in it."""
        model, record = trained_model(self.source)
        export(model, self.out, record)
        print(f"{self.out}: {sum(p.numel() for p in model.parameters()):,} parameters.")


@dataclass(frozen=True)
class Info:
    """Describe a named model or saved weights: configuration, layers, sizes, cost.

    Attributes:
        model: A name from `vitlib list`, or a file of weights.
        format: For reading, for a page, or for a program.
    """

    model: Annotated[Positional[str], tyro.conf.arg(metavar="NAME|WEIGHTS")]
    format: Literal["text", "markdown", "json"] = "text"

    def __call__(self) -> None:
        """Print the table."""
        record: dict[str, Any] = {}
        if self.model in list_models():
            config = named_config(self.model)
        elif Path(self.model).exists():
            config, record = load_model(self.model).config, read_record(self.model)
        else:
            raise ValueError(
                f"{self.model!r} is neither a model nor a file. vitlib list names the models."
            )
        layers = summary(config)
        if self.format == "json":
            print(layers.to_json())
            return
        if self.format == "markdown":
            print(f"# {self.model}\n\n{layers.to_markdown()}")
        else:
            print(f"{self.model}\n{layers.to_text()}")
        if "result" in record:
            name, accuracy = record["data"]["name"], record["result"]["accuracy"]
            print(f"\nTrained on {name}: {accuracy:.2%} of its test images right.")


@dataclass(frozen=True)
class Study:
    """Make the runs of an experiment of the book again.

    Attributes:
        name: Which, by its name in `vitlib list`.
        out: The folder of NAME.json, which is written after every run.
    """

    name: Annotated[Positional[str], tyro.conf.arg(metavar="NAME")]
    out: Path = RUNS / "study"

    def __call__(self) -> None:
        """Print and write what comes of each run."""
        if self.name not in STUDIES:
            raise ValueError(f"{self.name!r} is no study. The studies are {', '.join(STUDIES)}.")
        STUDIES[self.name](self.out)


@dataclass(frozen=True)
class Bench:
    """Measure speed and memory beside the libraries that are installed here.

    Attributes:
        name: What of, by its name in `vitlib list`.
        out: The folder of NAME.json and, for `step` beside other libraries, NAME.png.
        rounds: How often each contender is timed.
        compile: For `step`, whether to measure what torch.compile makes of them, too, which takes
            minutes.
    """

    name: Annotated[Positional[str], tyro.conf.arg(metavar="NAME")]
    out: Path = RUNS / "bench"
    rounds: int = 15
    compile: bool = True

    def __call__(self) -> None:
        """Print a table, and write it with a figure."""
        if self.name not in BENCHMARKS:
            known = ", ".join(BENCHMARKS)
            raise ValueError(f"{self.name!r} is no benchmark. The benchmarks are {known}.")
        BENCHMARKS[self.name](self.out, self.rounds, self.compile)


@dataclass(frozen=True)
class List:
    """Name the models, data sets, recipes, studies and benchmarks."""

    def __call__(self) -> None:
        """Print the names."""
        for kind, names in {
            "models": list_models(),
            "data sets": data.names(),
            "recipes": list(RECIPES),
            "studies": list(STUDIES),
            "benchmarks": list(BENCHMARKS),
        }.items():
            print(kind)
            for name in names:
                print(f"    {name}")


def _latest_weights() -> Path:
    finished = [path for name in RECIPES if (path := RUNS / name / WEIGHTS).exists()]
    if not finished:
        raise ValueError(
            f"no run without --out has left weights in {RUNS}/. Name a file with --weights, or "
            "train with vitlib train digits."
        )
    return max(finished, key=lambda path: path.stat().st_mtime)


def _as_tested(
    path: Path, config: ViTConfig, known: dict[str, Any]
) -> Float[Tensor, "C height width"]:
    """An image file as the model was given its test images."""
    channels, size, margin = config.in_channels, config.image_shape, known.get("margin")
    if margin is None:  # they were no files
        dark = known["bright_on_dark"]
        return load_image(path, channels=channels, size=size, bright_on_dark=dark)
    return view_file(path, channels=channels, view=CentreView(size, margin))


def _data_record(weights: Path) -> dict[str, Any]:
    record = read_record(weights)
    if "data" not in record:
        raise ValueError(
            f"{weights}: does not say which data it was trained on. Use weights that vitlib train "
            "wrote."
        )
    return record["data"]
