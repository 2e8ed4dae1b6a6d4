"""The command `vitlib`: train, eval, predict, info, list.

Each command is a dataclass that `tyro` fills from the command line and that is then called. Every
mistake that a user can make ends in one line on stderr and exit status 2.
"""

import io
import os
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar

import torch
import tyro
from tyro.conf import OmitArgPrefixes, Positional
from tyro.extras import SubcommandApp

from vitlib import data
from vitlib.config import list_models, named_config
from vitlib.data.images import load_image
from vitlib.summary import summary
from vitlib.train import RECIPES, WEIGHTS, Recipe, evaluate, train
from vitlib.weights import load_model, read_record

RUNS = Path("runs")
"""Where runs go that are given no folder: runs/digits for `vitlib train digits`."""

R = TypeVar("R", bound=Recipe)


@dataclass(frozen=True)
class Train(Generic[R]):
    """Train a model by a recipe.

    Attributes:
        recipe: How to train.
        out: Folder for the weights and the log; runs/RECIPE if none is given.
        overwrite: Replace the finished run in that folder.
    """

    recipe: R
    out: Path | None = None
    overwrite: bool = False

    def __call__(self) -> None:
        """Train, and say how to use the weights."""
        folder = self.out or RUNS / self.recipe.data
        record = train(self.recipe, folder, overwrite=self.overwrite).record
        result, weights = record["result"], str(folder / WEIGHTS)
        print(
            f"{result['correct']} of {result['images']} test images right "
            f"({result['accuracy']:.2%}), loss {result['loss']:.3f}, after "
            f"{self.recipe.epochs} epochs in {result['seconds']:.0f} s."
        )
        print(
            f"The weights are in {weights}. Use them with\n"
            f"    vitlib predict photo.png --weights {shlex.quote(weights)}\n"
            f"or in Python with vitlib.load_model({weights!r})."
        )


@dataclass(frozen=True)
class Eval:
    """Test saved weights on the test images of the data they were trained on.

    Attributes:
        weights: A file that `vitlib train` wrote.
    """

    weights: Annotated[Positional[Path], tyro.conf.arg(metavar="WEIGHTS")]

    def __call__(self) -> None:
        """Print accuracy and loss."""
        model = load_model(self.weights)
        dataset = data.load(_data_record(self.weights)["name"])
        images = dataset.normalisation(dataset.test_images)
        result = evaluate(model, images, dataset.test_labels)
        print(
            f"{dataset.name}: {result.correct} of {result.images} test images right "
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
            raise ValueError("no image is given. Say vitlib predict IMAGE… [--weights WEIGHTS].")
        weights = self.weights or _latest_weights()
        model, known = load_model(weights), _data_record(weights)
        images = torch.stack(
            [
                load_image(
                    path,
                    channels=model.config.in_channels,
                    size=model.config.image_shape,
                    bright_on_dark=known["bright_on_dark"],
                )
                for path in self.images
            ]
        )
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
        if record:
            name, accuracy = record["data"]["name"], record["result"]["accuracy"]
            print(f"\nTrained on {name}: {accuracy:.2%} of its test images right.")


@dataclass(frozen=True)
class List:
    """Name the models, data sets and recipes."""

    def __call__(self) -> None:
        """Print the names."""
        for kind, names in {
            "models": list_models(),
            "data sets": data.names(),
            "recipes": list(RECIPES),
        }.items():
            print(kind)
            for name in names:
                print(f"    {name}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status.

    Args:
        arguments: The words after `vitlib`; those of the process if none are given.

    Returns:
        0 when all went well, 2 after a user's mistake, 130 after Ctrl-C.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        command = _parse(words)
        command()
        sys.stdout.flush()
    except SystemExit as finished:
        return int(finished.code or 0)
    except KeyboardInterrupt:
        return _complain("interrupted.", 130)
    except BrokenPipeError:  # who read our output has left; the interpreter must not flush to it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _complain(f"{where}{error.strerror or error}")
    except ValueError as error:
        return _complain(str(error))
    except RuntimeError as error:
        if "allocate" not in str(error):
            raise
        return _complain(
            "the machine has not the memory for this. Choose smaller sizes of the model, such as "
            "dim, mlp_dim or depth, or a smaller batch_size."
        )
    return 0


def _parse(words: list[str]) -> Callable[[], None]:
    """The command that the words spell; help and version are printed and end the process."""
    if words == ["--version"]:
        print(f"vitlib {version('vitlib')}")
        raise SystemExit(0)
    box = io.StringIO()
    try:
        with redirect_stderr(box):
            return _application().cli(
                prog="vitlib",
                description="The Vision Transformer, derived: train small ViTs and use them.",
                args=words or ["--help"],
                config=(OmitArgPrefixes, tyro.conf.FlagCreatePairsOff),
            )
    except SystemExit as stopped:
        if stopped.code:
            raise ValueError(_condense(box.getvalue())) from None
        raise


def _application() -> SubcommandApp:
    recipes = SubcommandApp()
    for name, recipe in RECIPES.items():
        summary = (recipe.__doc__ or "").splitlines()[0]
        recipes.command(name=name, help=summary)(Train[recipe])
    application = SubcommandApp()
    application.command(recipes, name="train", help="Train a model by a recipe.")
    for command in (Eval, Predict, Info, List):
        application.command(name=command.__name__.lower())(command)
    return application


def _condense(box: str) -> str:
    """Tyro's boxed complaint in one line: what was wrong, what was perhaps meant, where to look.

    The box has a title in its border, or above a rule where the terminal knows ASCII only, and
    rules between its parts.
    """
    lines = [line.strip(" │") for line in box.splitlines() if not line.startswith(("╭", "╰"))]
    parts = [part.strip() for part in re.split(r"[─-]{9,}", "\n".join(lines))]
    complaint, *hints = parts if "╭" in box else parts[1:]
    said = [re.sub(r"^Error parsing [^-]\S*: ", "", " ".join(complaint.split())).rstrip(".")]
    for hint in hints:
        if hint.startswith("Perhaps you meant"):
            options = dict.fromkeys(re.findall(r"^--\S+", hint, re.MULTILINE))
            said.append(f"Perhaps you meant {' or '.join(options)}")
        elif hint.startswith("Available subcommands"):
            said.append(" ".join(hint.split()))
    where = re.search(r"vitlib[a-z ]* --help", box)
    return ". ".join([*said, f"See {where[0] if where else 'vitlib --help'}"])


def _complain(what: str, status: int = 2) -> int:
    print(f"vitlib: error: {' '.join(what.split())}", file=sys.stderr)
    return status


def _latest_weights() -> Path:
    finished = [path for name in RECIPES if (path := RUNS / name / WEIGHTS).exists()]
    if not finished:
        raise ValueError(
            f"there are no weights in {RUNS}/ yet. Train with vitlib train digits, or name a file "
            "with --weights."
        )
    return max(finished, key=lambda path: path.stat().st_mtime)


def _data_record(weights: Path) -> dict[str, Any]:
    record = read_record(weights)
    if "data" not in record:
        raise ValueError(
            f"{weights}: does not say which data it was trained on. Use weights that vitlib train "
            "wrote."
        )
    return record["data"]
