"""What a run writes down while it goes, and the plot of it.

    RUN/log.jsonl    one JSON object a line, for programs
    RUN/log.csv      the same lines and columns, for spreadsheets
    RUN/tensorboard  the same numbers once more, if wanted
    RUN/curve.png    drawn from the log

The columns are the fields of `Line`: always all of them, in this order. A line reaches the
operating system before training goes on, so killing the process loses none. It reaches the disk
before the next checkpoint does, so a power cut loses none from before the step where a run goes on.

A run that goes on at step k forgets the lines of later steps, which the interrupted run had written
after its last checkpoint. It will write them again: they are the same, but for what was measured
with a clock.
"""

import csv
import io
import json
import math
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Self

from vitlib.files import write_atomically
from vitlib.train.folder import LOG

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TABLE = "log.csv"
CURVE = "curve.png"
TENSORBOARD = "tensorboard"


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of the log.

    What was not measured is None (`null` in JSON, an empty cell in CSV), and so becomes what is no
    finite number, for which JSON has no word.

    Attributes:
        step: Steps of the optimiser done so far.
        epoch: Passes over the training images done so far, such as 2.5.
        loss: Mean training loss since the line before, in nats; the recipe says which it is.
        accuracy: Part of the training images since the line before, as augmented, that were told
            rightly.
        validation_loss: Mean cross-entropy of a softmax on the images kept out for decisions, in
            nats.
        validation_accuracy: Part of these that were told rightly.
        lr: Learning rate of the last step.
        gradient_norm: Norm of the whole gradient in the last step, before clipping.
        seconds: Time spent on training so far, in all of the run's parts.
        images_per_second: Of all processes together, since the line before.
        utilisation: See `vitlib.train.progress`.
        memory: Bytes, see `vitlib.train.progress`; of process 0.
    """

    step: int
    epoch: float
    loss: float | None = None
    accuracy: float | None = None
    validation_loss: float | None = None
    validation_accuracy: float | None = None
    lr: float | None = None
    gradient_norm: float | None = None
    seconds: float | None = None
    images_per_second: float | None = None
    utilisation: float | None = None
    memory: int | None = None

    def to_dict(self) -> dict[str, int | float | None]:
        """Column to finite number or None."""
        return {
            name: value if value is None or math.isfinite(value) else None
            for name, value in asdict(self).items()
        }


COLUMNS = tuple(field.name for field in fields(Line))


class Records:
    """The log of a run, open for new lines.

    Args:
        folder: Of the run, which exists; None writes nothing, as all processes but the first do.
        resume_step: At which step the run goes on; lines of later steps are removed, and all others
            stay. 0: a new log.
        tensorboard: Write event files for TensorBoard, too.

    Raises:
        ValueError: TensorBoard is wanted and not installed. Nothing was changed then.
        OSError: The disk is full, or the folder is not there. log.jsonl is then as it was.
    """

    def __init__(
        self, folder: Path | None, *, resume_step: int = 0, tensorboard: bool = False
    ) -> None:
        self._folder, self._events = folder, None
        if folder is None:
            return
        if tensorboard:
            self._events = _event_writer(folder / TENSORBOARD, resume_step)
        kept = [line.to_dict() for line in read_log(folder) if line.step <= resume_step]
        write_atomically(folder / TABLE, (_csv([COLUMNS]) + _rows(kept)).encode())
        write_atomically(folder / LOG, _objects(kept).encode())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def append(self, line: Line) -> None:
        """Write one line.

        Raises:
            OSError: The disk is full or fails. What was written of the line is forgotten when the
                run goes on.
        """
        if self._folder is None:
            return
        row = line.to_dict()
        _append(self._folder / LOG, _objects([row]))
        _append(self._folder / TABLE, _rows([row]))
        if self._events is not None:
            for name, value in row.items():
                if name != "step" and value is not None:
                    self._events.add_scalar(name, value, line.step)
            self._events.flush()

    def sync(self) -> None:
        """Wait until the lines so far are on the disk.

        Raises:
            OSError: The disk fails.
        """
        if self._folder is None:
            return
        for name in (LOG, TABLE):
            with (self._folder / name).open("rb") as file:
                os.fsync(file.fileno())

    def close(self) -> None:
        """Close TensorBoard's files; the others are closed after each line."""
        if self._events is not None:
            self._events.close()


def read_log(folder: Path) -> list[Line]:
    """The lines of a run's log, as far as they can be read; none if there is no log.

    A line that a kill or a full disk cut short is left out, and so are columns that this version
    does not know.
    """
    path = folder / LOG
    if not path.exists():
        return []
    lines = (_line(text) for text in path.read_bytes().splitlines())
    return [line for line in lines if line is not None]


def _line(text: bytes) -> Line | None:
    try:
        values = json.loads(text)
        known = {name: values[name] for name in COLUMNS if name in values}
        numbers = all(isinstance(value, int | float | None) for value in known.values())
        return Line(**known) if numbers and isinstance(known["step"], int) else None
    except (ValueError, TypeError, KeyError):
        return None


def _objects(rows: Iterable[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def _rows(rows: Iterable[dict[str, Any]]) -> str:
    return _csv(row.values() for row in rows)


def _csv(rows: Iterable[Iterable[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _append(path: Path, text: str) -> None:
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:  # writing, other than opening, does not say where
        raise OSError(error.errno, error.strerror, str(path)) from error


def _event_writer(folder: Path, resume_step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ValueError(
            "TensorBoard is not installed, and its event files are wanted. Install it with "
            "pip install 'vitlib[train]', or leave out --tensorboard: log.jsonl and log.csv hold "
            "the same numbers."
        ) from error
    # From purge_step on, TensorBoard hides what earlier event files say.
    return SummaryWriter(str(folder), purge_step=resume_step + 1)


def curve(folder: Path) -> Path:
    """Draw the run: loss, accuracy, learning rate, images a second, over the epochs.

    What there is to see is written into the picture's file, too, as its text "Description".

    Returns:
        The PNG file, in `folder`.

    Raises:
        ModuleNotFoundError: What draws is not installed. The message says that there is no plot,
            and how there would be one.
        ValueError: The log holds no line.
        OSError: The file cannot be written.
    """
    lines = read_log(folder)
    if not lines:
        raise ValueError(f"{folder / LOG}: holds no line to draw. Train first.")
    try:
        from matplotlib.figure import Figure

        from vitlib import plot
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"no plot of the run was drawn, since {error.name} is not installed. For one: "
            "pip install 'vitlib[train]'"
        ) from error
    content = io.BytesIO()
    with plot.style():
        figure = Figure(figsize=(plot.WIDTH, 4.6))  # pyplot would ask for a screen
        (loss, accuracy), (lr, speed) = figure.subplots(2, 2, sharex=True)
        _panel(loss, lines, "loss (nats)", loss=plot.BLUE, validation_loss=plot.ORANGE)
        _panel(accuracy, lines, "accuracy", accuracy=plot.BLUE, validation_accuracy=plot.ORANGE)
        _panel(lr, lines, "learning rate", lr=plot.BLUE)
        _panel(speed, lines, "images a second", images_per_second=plot.BLUE)
        accuracy.yaxis.set_major_formatter("{x:.0%}")
        for axes in (loss, speed):
            axes.set_ylim(0, 1.05 * axes.get_ylim()[1])
        speed.yaxis.set_major_formatter("{x:,.0f}")
        for axes in (lr, speed):
            axes.set_xlabel("epoch")
        if loss.get_legend_handles_labels()[1] == ["training", "validation"]:
            loss.legend()
        figure.savefig(
            content,
            format="png",
            dpi=144,
            facecolor="white",
            metadata={"Description": _description(lines)},
        )
    write_atomically(folder / CURVE, content.getvalue())
    return folder / CURVE


def _panel(axes: "Axes", lines: list[Line], title: str, **columns: str) -> None:
    """One panel: each column in its colour, where it was measured."""
    for column, colour in columns.items():
        epochs, values = _measured(lines, column)
        if values:
            label = "validation" if column.startswith("validation") else "training"
            marker = "o" if len(values) < 20 else ""  # a single point is no line
            axes.plot(epochs, values, color=colour, label=label, marker=marker, markersize=3.5)
    axes.set_title(title)
    axes.grid(True)


def _measured(lines: list[Line], column: str) -> tuple[list[float], list[float]]:
    pairs = [(line.epoch, getattr(line, column)) for line in lines]
    pairs = [(epoch, value) for epoch, value in pairs if value is not None]
    return [epoch for epoch, _ in pairs], [value for _, value in pairs]


def _description(lines: list[Line]) -> str:
    """What there is to see, for whoever does not."""
    said = [f"{lines[-1].epoch:g} epochs in four panels"]
    for name, column, form in (
        ("training loss", "loss", ".3g"),
        ("validation loss", "validation_loss", ".3g"),
        ("training accuracy", "accuracy", ".1%"),
        ("validation accuracy", "validation_accuracy", ".1%"),
    ):
        _, values = _measured(lines, column)
        if values:
            said.append(f"{name} goes from {values[0]:{form}} to {values[-1]:{form}}")
    _, rates = _measured(lines, "lr")
    if rates:
        said.append(f"the learning rate is at most {max(rates):.2g} and ends at {rates[-1]:.2g}")
    _, speeds = _measured(lines, "images_per_second")
    if speeds:
        said.append(f"{median(speeds):,.0f} images a second in the median")
    return f"{'; '.join(said)}."
