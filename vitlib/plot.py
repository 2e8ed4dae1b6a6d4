"""The one figure style of the book, and the few drawings that more than one chapter needs.

A chapter begins with `plot.use()`, draws with matplotlib as usual and ends a figure with

    plot.show(fig, alt="What a reader who cannot see it has to know.")

What is shown is an inline SVG whose text and axes take the colour of the page's own text, so that
one figure reads in light and in dark, with a PNG on white for front ends that show no HTML.
"""

import hashlib
import html
import io
import re
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LinearSegmentedColormap, Normalize, to_rgb
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "BLUE",
    "DIVERGING",
    "GOLD",
    "GREEN",
    "INK",
    "MUTED",
    "ORANGE",
    "PALETTE",
    "PURPLE",
    "RED",
    "SEQUENTIAL",
    "TEAL",
    "WIDTH",
    "Picture",
    "contrast",
    "heatmap",
    "image",
    "patch_lines",
    "render",
    "show",
    "style",
    "use",
]

WIDTH = 6.8
"""The width of a figure that fills the column, in inches."""

INK = "#14171a"
"""Text, axes and whatever else belongs to the page: becomes the page's text colour."""

MUTED = "#75808c"
"""Secondary lines and notes, legible on white and on near-black."""

BLUE = "#3f83c8"
ORANGE = "#cf6f26"
GREEN = "#2f9a68"
RED = "#d14f61"
PURPLE = "#8c6bcf"
TEAL = "#1e95a6"
GOLD = "#a8832a"

PALETTE = (BLUE, ORANGE, GREEN, RED, PURPLE, TEAL, GOLD)
"""Colours for categories, in the order in which they are taken.

Each has a contrast of 3 or more on white and on near-black."""

SEQUENTIAL: Colormap = LinearSegmentedColormap.from_list(
    "book.sequential", ["#f5f8fc", "#b9d2eb", "#6fa5d8", "#2f6fb2", "#133a67"]
)
"""For amounts: nothing is pale, much is deep blue."""

DIVERGING: Colormap = LinearSegmentedColormap.from_list(
    "book.diverging", ["#87390f", "#d67a35", "#f4cba9", "#f8f8f8", "#adcdea", "#4585c6", "#143c6a"]
)
"""For signed numbers: negative is orange, zero is pale, positive is blue."""

_STYLE: dict[Any, Any] = {
    "axes.edgecolor": INK,
    "axes.grid": False,
    "axes.labelcolor": INK,
    "axes.labelsize": 11,
    "axes.prop_cycle": cycler(color=PALETTE),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 11.5,
    "axes.titlepad": 8,
    "axes.facecolor": "none",
    "figure.constrained_layout.use": True,
    "figure.facecolor": "none",
    "figure.figsize": (WIDTH, 3.0),
    "figure.titlesize": 12,
    "font.family": "DejaVu Sans",
    "font.size": 11,
    "grid.alpha": 0.35,
    "grid.color": MUTED,
    "grid.linewidth": 0.6,
    "hatch.color": INK,
    "image.cmap": "gray",
    "image.interpolation": "none",
    "legend.frameon": False,
    "lines.linewidth": 2.0,
    "mathtext.fontset": "cm",
    "patch.edgecolor": INK,
    "savefig.facecolor": "none",
    "svg.fonttype": "path",
    "svg.hashsalt": "vitlib",
    "text.color": INK,
    "xtick.color": INK,
    "xtick.labelsize": 10,
    "ytick.color": INK,
    "ytick.labelsize": 10,
}


def use() -> None:
    """Apply the book's style to every figure drawn from here on."""
    mpl.rcParams.update(_STYLE)


@contextmanager
def style() -> Generator[None]:
    """Apply the book's style to the figures drawn inside the `with` block only."""
    with mpl.rc_context(_STYLE):
        yield


class Picture:
    """A finished figure with its description, ready for any front end.

    Args:
        svg: one `<svg>` element.
        png: the same picture on white.
        alt: what to see in it.
    """

    def __init__(self, svg: str, png: bytes, alt: str) -> None:
        self.svg, self.png, self.alt = svg, png, alt
        self.width = int(svg.partition('width="')[2].partition('"')[0])

    def __repr__(self) -> str:
        return self.alt

    def _repr_mimebundle_(self, **_: object) -> dict[str, object]:
        style = f"--width: {self.width}px"  # for phones, where a wide figure scrolls
        return {
            "text/html": f'<figure class="plot" style="{style}">{self.svg}</figure>',
            "image/png": self.png,
            "text/plain": self.alt,
        }


def show(fig: Figure, *, alt: str) -> None:
    """Display a figure and close it.

    Args:
        fig: the figure, drawn under `use()` or `style()`.
        alt: what to see in it, for whoever cannot: the observation, not the list of its parts.

    Raises:
        ValueError: if `alt` is empty.
    """
    from IPython.display import display  # not above: a run draws its plot without a notebook

    display(render(fig, alt=alt))


def render(fig: Figure, *, alt: str) -> Picture:
    """Turn a figure into a `Picture` and close it.

    Raises:
        ValueError: if `alt` is empty.
    """
    alt = " ".join(alt.split())
    if not alt:
        raise ValueError(
            "alt is empty: say in a sentence or two what there is to see in the figure."
        )
    with style():
        vector, raster = io.StringIO(), io.BytesIO()
        # no date: the same figure is the same text in every run
        fig.savefig(
            vector, format="svg", bbox_inches="tight", pad_inches=0.04, metadata={"Date": None}
        )
        fig.savefig(raster, format="png", bbox_inches="tight", dpi=144, facecolor="white")
    plt.close(fig)
    return Picture(_inline(vector.getvalue(), alt), raster.getvalue(), alt)


def _inline(svg: str, alt: str) -> str:
    """Make matplotlib's SVG document an element that lives in a page."""
    svg = svg[svg.index("<svg") :]
    # the style sheet would apply to the whole page: what it says becomes attributes of the element
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", svg, flags=re.DOTALL)
    used = set(re.findall(r"(?:url\(#|href=\"#)([^\")]+)", svg))
    # two figures of a page must not share the names of their glyphs and clips
    prefix = "f" + hashlib.sha256((alt + svg).encode()).hexdigest()[:8] + "-"
    svg = re.sub(r' id="([^"]+)"', lambda m: f' id="{prefix}{m[1]}"' if m[1] in used else "", svg)
    svg = re.sub(r"(url\(#|href=\"#)", rf"\g<1>{prefix}", svg)
    svg = re.sub(rf"{INK}|#000000", "currentColor", svg)
    width, height = (float(size) for size in re.findall(r'(?:width|height)="([\d.]+)pt"', svg)[:2])
    view = re.search(r'viewBox="[^"]+"', svg)
    assert view is not None
    head = (
        f'<svg role="img" aria-label="{html.escape(alt)}" {view[0]} width="{width * 4 / 3:.0f}" '
        f'height="{height * 4 / 3:.0f}" fill="currentColor" stroke-linejoin="round" '
        'xmlns="http://www.w3.org/2000/svg" '
        'xmlns:xlink="http://www.w3.org/1999/xlink">'
    )
    body = re.sub(r"<defs>\s*</defs>|<g/>", "", svg[svg.index(">") + 1 :])
    return re.sub(r"\s*\n\s*", "\n", head + body).strip()


def heatmap(
    ax: Axes,
    matrix: ArrayLike,
    fmt: str | None = "{:.1f}",
    *,
    rows: Sequence[str] = (),
    columns: Sequence[str] = (),
    title: str = "",
    limit: float | None = None,
    cmap: Colormap | None = None,
) -> AxesImage:
    """Draw a matrix as coloured, numbered cells.

    Args:
        ax: where to draw.
        matrix: (rows, columns), finite numbers; a tensor will do.
        fmt: how a cell's number is written; `None` writes none.
        rows: labels of the rows.
        columns: labels of the columns.
        title: what the matrix is.
        limit: the absolute value at which the colour is deepest, the largest in the matrix if not
            given. Panels that are to be compared are given the same.
        cmap: the colours; `DIVERGING` if there is a negative number, otherwise `SEQUENTIAL`.

    Raises:
        ValueError: if `matrix` is not two-dimensional, or a label is missing or left over.
    """
    values = _array(matrix)
    if values.ndim != 2:
        raise ValueError(f"matrix has shape {values.shape}: expected (rows, columns).")
    for name, labels, size in (
        ("rows", rows, values.shape[0]),
        ("columns", columns, values.shape[1]),
    ):
        if labels and len(labels) != size:
            raise ValueError(f"{len(labels)} labels for {size} {name}: give one each, or none.")
    signed = bool((values < 0).any())
    cmap = cmap or (DIVERGING if signed else SEQUENTIAL)
    top = limit or float(np.abs(values).max()) or 1.0
    norm = Normalize(-top if signed else 0.0, top)
    drawn = ax.imshow(values, cmap=cmap, norm=norm, aspect="equal")
    if fmt is not None:
        for (row, column), value in np.ndenumerate(values):
            red, green, blue, _ = cmap(float(norm(value)))
            ax.text(
                column,
                row,
                _number(fmt, float(value)),
                ha="center",
                va="center",
                fontsize=9,
                color=_readable_on((red, green, blue)),
            )
    ax.set_xticks(range(len(columns)), columns)
    ax.set_yticks(range(len(rows)), rows)
    _frame(ax, title)
    return drawn


def image(
    ax: Axes,
    array: ArrayLike,
    *,
    title: str = "",
    limits: tuple[float, float] | None = None,
    cmap: str | Colormap = "gray",
) -> AxesImage:
    """Draw an image without axes: grey (height, width) or colour (height, width, 3).

    Args:
        ax: where to draw.
        array: the pixels; a tensor will do. Colour is in [0, 1], or 0–255 as integers.
        title: what it is.
        limits: the values that are black and white, the image's own extremes if not given.
        cmap: colours of a grey image.

    Raises:
        ValueError: if the shape is neither.
    """
    pixels = _array(array)
    if pixels.ndim != 2 and (pixels.ndim != 3 or pixels.shape[2] != 3):
        raise ValueError(
            f"array has shape {pixels.shape}: expected (height, width) or (height, width, 3)."
        )
    low, high = limits or (None, None)
    drawn = ax.imshow(pixels, cmap=cmap, vmin=low, vmax=high)
    ax.set_xticks([])
    ax.set_yticks([])
    _frame(ax, title)
    return drawn


def patch_lines(
    ax: Axes,
    image_size: tuple[int, int],
    patch_size: tuple[int, int],
    *,
    numbers: bool = False,
    colour: str = ORANGE,
) -> None:
    """Draw over an image the lines that cut it into patches.

    Args:
        ax: axes that hold the image.
        image_size: height and width in pixels.
        patch_size: height and width in pixels; divides `image_size`.
        numbers: write each patch's place in the sequence, counted row by row from 0.
        colour: of the lines.
    """
    (height, width), (patch_height, patch_width) = image_size, patch_size
    ax.hlines(
        np.arange(0, height + 1, patch_height) - 0.5, -0.5, width - 0.5, color=colour, linewidth=1.6
    )
    ax.vlines(
        np.arange(0, width + 1, patch_width) - 0.5, -0.5, height - 0.5, color=colour, linewidth=1.6
    )
    if numbers:
        across = width // patch_width
        for number in range(height // patch_height * across):
            row, column = divmod(number, across)
            ax.text(
                (column + 0.5) * patch_width - 0.5,
                (row + 0.5) * patch_height - 0.5,
                str(number),
                ha="center",
                va="center",
                color="white",
                weight="bold",
                bbox={"boxstyle": "circle,pad=0.25", "facecolor": "#a34f10", "edgecolor": "none"},
            )


def _array(values: ArrayLike) -> NDArray[Any]:
    detach = getattr(values, "detach", None)
    return np.asarray(values if detach is None else detach().cpu())


def _number(fmt: str, value: float) -> str:
    """Write a number with a typographic minus, and no minus before a rounded zero."""
    text = fmt.format(value)
    return (text if text.strip("-0.") else text.lstrip("-")).replace("-", "−")


def _frame(ax: Axes, title: str) -> None:
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    if title:
        ax.set_title(title)


Colour = str | tuple[float, float, float]


def contrast(one: Colour, other: Colour) -> float:
    """Contrast of two colours, from 1 to 21 (Web Content Accessibility Guidelines 2.2, 1.4.3)."""
    dark, light = sorted((_luminance(one), _luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: Colour) -> float:
    rgb = np.array(to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))


def _readable_on(cell: Colour) -> str:
    return max(("#040404", "#ffffff"), key=lambda colour: contrast(colour, cell))
