"""The report of a run: one HTML file with everything in it, to be read, mailed and archived."""

import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from vitlib.files import write_atomically
from vitlib.train.measures import BINS, Bin, ClassMeasures, Measures
from vitlib.train.page import (
    data_uri,
    folded,
    grouped_table,
    page,
    paragraph,
    scrolled,
    section,
    table,
    text,
)

REPORT = "report.html"

_MANY = 25  # classes, beyond which a table of all pairs of them is no longer read
_CONFUSIONS = 20
_SIDE = 128  # pixels at most along the side of a mistake's picture


def write_report(
    folder: Path,
    record: Mapping[str, Any],
    measures: Measures,
    worst_images: Float[Tensor, "n C height width"],
    worst_labels: Int[Tensor, " n"],
    classes: Sequence[str],
    curve: Path | None,
) -> Path:
    """Write a run's report, whole or not at all.

    Args:
        folder: Of the run.
        record: "recipe", "data", "result" and "environment" of the run, as in the weights file;
            "faults", if there are any, are the damaged images: path to reason.
        measures: On the test images.
        worst_images: In [0, 1], those of `measures.worst`, in that order.
        worst_labels: Theirs, to see that they are these.
        classes: Names of the K classes.
        curve: The plot of the run (`vitlib.train.records.curve`); None if there is none.

    Returns:
        The file, report.html in `folder`.

    Raises:
        ValueError: The images or the classes are not those of `measures`.
        OSError: The file cannot be written. An older report stays as it was.
    """
    if len(classes) != len(measures.classes):
        raise ValueError(
            f"{len(classes)} names for {len(measures.classes)} classes: expected one each."
        )
    labels = [mistake.label for mistake in measures.worst]
    if worst_labels.tolist() != labels or len(worst_images) != len(labels):
        raise ValueError(
            "worst_images are not those of measures.worst: expected the images of its indices, in "
            "its order."
        )
    title = f"{record['data']['name']}: {measures.accuracy:.2%} right"
    body = [
        f"<h1>{text(title)}</h1>",
        paragraph(_summary(record, measures)),
        section("The run", _curve(curve)),
        section("Worst mistakes", *_mistakes(measures, worst_images, classes)),
        section("Class by class", *_class_by_class(measures, classes)),
        section("What is taken for what", *_confusion(measures, classes)),
        section("Is it as sure as it is right?", *_calibration(measures)),
        section("Damaged images", *_faults(record.get("faults", {}))),
        section("Recipe", _settings("What the run was told", record["recipe"])),
        section("Environment", _settings("Where it ran", record["environment"])),
    ]
    write_atomically(folder / REPORT, page(title, body))
    return folder / REPORT


def _summary(record: Mapping[str, Any], measures: Measures) -> str:
    said = [
        f"Of the {measures.images:,} test images of {record['data']['name']}, which decided "
        f"nothing during training, the model tells {measures.correct:,} rightly: "
        f"{measures.accuracy:.2%}, at a loss of {measures.loss:.3f} nats."
    ]
    if measures.top5 is not None:
        part = measures.top5 / measures.images
        said.append(f"For {part:.2%} the right class is among its first five.")
    epochs, seconds = record["recipe"]["epochs"], record["result"]["seconds"]
    said.append(f"It is the model of the last of {epochs} epochs, after {_duration(seconds)}.")
    return " ".join(said)


def _curve(curve: Path | None) -> str:
    if curve is None:
        return paragraph("No plot was drawn.")
    content = curve.read_bytes()
    with Image.open(io.BytesIO(content)) as picture:
        width, height = picture.size
        alt = picture.info.get("Description", "Plot of the run.")
    return scrolled(
        "Plot of the run",
        f'<img class="curve" src="{data_uri(content)}" alt="{text(alt)}" width="{width}" '
        f'height="{height}">',
    )


def _mistakes(measures: Measures, images: Tensor, classes: Sequence[str]) -> Iterable[str]:
    shown, wrong = len(measures.worst), measures.images - measures.correct
    if not wrong:
        yield paragraph("There is no mistake.")
        return
    which = f"The worst {shown:,} of" if shown < wrong else "All"
    yield paragraph(
        f"{which} {wrong:,} mistakes, beginning with that in which the model gave the right class "
        "the least probability."
    )
    figures: list[str] = []
    for mistake, image in zip(measures.worst, images, strict=True):
        truth, chosen = classes[mistake.label], classes[mistake.chosen]
        alt = f"Test image {mistake.index}: {truth}, taken for {chosen}"
        figures.append(
            f'<figure><img src="{data_uri(_png(image))}" alt="{text(alt)}"><figcaption>'
            f"<b>{text(truth)}</b> taken for <b>{text(chosen)}</b> with a probability of "
            f"{mistake.confidence:.1%}</figcaption></figure>"
        )
    kind = "mistakes pixels" if max(images.shape[2:]) < _SIDE else "mistakes"
    yield f'<div class="{kind}">{"".join(figures)}</div>'


def _png(image: Float[Tensor, "C height width"]) -> bytes:
    """A small picture, in colour if there are three channels, else their mean in grey."""
    pixels = image if len(image) == 3 else image.mean(0, keepdim=True)
    pixels = (pixels.float().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
    picture = Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[:, :, 0])
    picture.thumbnail((_SIDE, _SIDE))
    content = io.BytesIO()
    picture.save(content, "PNG", optimize=True)
    return content.getvalue()


def _class_by_class(measures: Measures, classes: Sequence[str]) -> Iterable[str]:
    yield paragraph(
        "Recall is the part of a class's images that are told rightly; precision the part of the "
        "images taken for a class that are of it."
    )
    pairs = list(zip(classes, measures.classes, strict=True))
    if len(pairs) <= _MANY:
        yield _class_table("Classes", pairs)
        return
    pairs.sort(key=lambda pair: 2.0 if pair[1].recall is None else pair[1].recall)
    yield _class_table(f"The {_MANY} classes of lowest recall", pairs[:_MANY])
    yield folded(f"All {len(pairs):,} classes", _class_table("All classes, by recall", pairs))


def _class_table(caption: str, pairs: Iterable[tuple[str, ClassMeasures]]) -> str:
    return table(
        caption,
        ["class", "images", "taken for it", "rightly", "recall", "precision"],
        (
            [name, *(f"{count:,}" for count in (each.count, each.chosen, each.correct)),
             _percent(each.recall), _percent(each.precision)]
            for name, each in pairs
        ),
    )  # fmt: skip


def _confusion(measures: Measures, classes: Sequence[str]) -> Iterable[str]:
    if len(classes) > _MANY:
        yield _largest_confusions(measures, classes)
        return
    yield paragraph(
        "Rows: what the images show. Columns: what they were taken for. Right is blue and wrong is "
        "orange, deeper where a cell holds more of its row (by the square root)."
    )
    rows = [
        (name, "".join(_count(n, sum(row), right=i == j) for j, n in enumerate(row)))
        for i, (name, row) in enumerate(zip(classes, measures.confusion.tolist(), strict=True))
    ]
    kind = "confusion upright" if max(map(len, classes)) > 3 else "confusion"
    yield grouped_table("Test images", ["class", *classes], [("", rows)], kind=kind)


def _count(count: int, of: int, *, right: bool) -> str:
    if not count:
        return "<td>0</td>"
    colour = "63 131 200" if right else "207 111 38"
    depth = 0.5 * (count / of) ** 0.5  # on half of either colour, text is legible in light and dark
    return f'<td style="background-color: rgb({colour} / {depth:.3f})">{count:,}</td>'


def _largest_confusions(measures: Measures, classes: Sequence[str]) -> str:
    wrong = measures.confusion.clone().fill_diagonal_(0)
    places = wrong.flatten().argsort(descending=True, stable=True)[:_CONFUSIONS]
    rows: list[list[str]] = []
    for label, chosen in (divmod(int(place), len(classes)) for place in places):
        count = int(wrong[label, chosen])
        if count:
            part = _percent(count / measures.classes[label].count)
            rows.append([classes[label], classes[chosen], f"{count:,}", part])
    head = ["class", "taken for", "images", "part of the class"]
    return table(f"The {len(rows)} most frequent confusions", head, rows)


def _calibration(measures: Measures) -> Iterable[str]:
    yield paragraph(
        "Where the model gives its choice a probability of 80%, its confidence, it should be right "
        "in 80% of cases. The expected calibration error, the mean distance from that, is "
        f"{measures.calibration_error:.2%}."
    )
    yield (
        f'<figure class="diagram">{_diagram(measures.bins)}<figcaption>How often the model is '
        f"right (blue bars) and how sure it is (orange marks), in {BINS} bins of equal width. On "
        "the broken line both are the same.</figcaption></figure>"
    )
    head = ["confidence", "images", "mean confidence", "right"]
    rows = (
        [
            f"{b.low:.1%} to {b.high:.1%}",
            f"{b.count:,}",
            _percent(b.confidence),
            _percent(b.accuracy),
        ]
        for b in measures.bins
    )
    yield folded("The same in numbers", table("Reliability", head, rows))


def _diagram(bins: Sequence[Bin]) -> str:
    """A reliability diagram: a square of 240 units a side, from (44, 10) to (284, 250)."""
    marks, told = "", "Reliability diagram"
    for b in bins:
        if b.confidence is None or b.accuracy is None:
            continue
        left, width, height = 45 + 240 * b.low, 240 * (b.high - b.low) - 2, 240 * b.accuracy
        marks += (
            f'<rect class="right" x="{left:.1f}" y="{250 - height:.1f}" width="{width:.1f}" '
            f'height="{height:.1f}"/>'
            f'<path class="sure" d="M{left:.1f} {250 - 240 * b.confidence:.1f}h{width:.1f}"/>'
        )
        told += f"; {b.confidence:.0%} sure, {b.accuracy:.0%} right"
    ticks = "".join(
        f'<text x="{44 + 240 * value:.0f}" y="266" text-anchor="middle">{value:.0%}</text>'
        f'<text x="39" y="{254 - 240 * value:.0f}" text-anchor="end">{value:.0%}</text>'
        for value in (0, 0.5, 1)
    )
    return (
        f'<svg role="img" aria-label="{told}" viewBox="-6 0 316 290"><path class="axis" '
        f'd="M44 10V250H284"/>{marks}<path class="ideal" d="M44 250L284 10"/>{ticks}'
        '<text x="164" y="284" text-anchor="middle">confidence</text>'
        '<text transform="rotate(-90)" x="-130" y="6" text-anchor="middle">right</text></svg>'
    )


def _faults(faults: Mapping[str, str]) -> Iterable[str]:
    if not faults:
        yield paragraph("No image was found damaged.")
        return
    count = "1 image was" if len(faults) == 1 else f"{len(faults):,} images were"
    yield paragraph(f"{count} damaged and left out.")
    rows = [(path, f"<td>{text(why)}</td>") for path, why in faults.items()]
    yield grouped_table("Damaged images", ["image", "why"], [("", rows)], kind="faults")


def _settings(caption: str, settings: Mapping[str, Any]) -> str:
    """A table of names and values; what is nested comes below, under its own name."""
    plain = {name: value for name, value in settings.items() if not isinstance(value, Mapping)}
    nested = {name: value for name, value in settings.items() if isinstance(value, Mapping)}
    groups = [
        (name, [(key, f"<td>{text(_value(value))}</td>") for key, value in group.items()])
        for name, group in {"": plain, **nested}.items()
    ]
    return grouped_table(caption, ["name", "value"], groups, kind="settings")


def _value(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_value(each)}" for name, each in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_value, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _percent(part: float | None) -> str:
    return "–" if part is None else f"{part:.1%}"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
