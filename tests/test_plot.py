import io
import re
import xml.etree.ElementTree as ET

import matplotlib as mpl

mpl.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from vitlib import plot


@pytest.fixture
def fig():
    with plot.style():
        fig, ax = plt.subplots()
        ax.plot([1, 2, 3], label="score")
        ax.legend()
        ax.set_title("A title")
        yield fig
    plt.close("all")


def test_contrast_is_that_of_the_guidelines():
    assert plot.contrast("white", "black") == pytest.approx(21)
    assert plot.contrast("#767676", "white") == pytest.approx(4.54, abs=0.01)


@pytest.mark.parametrize("colour", [*plot.PALETTE, plot.MUTED])
@pytest.mark.parametrize("ground", ["#ffffff", "#121212", "#1e1e1e"])
def test_palette_is_legible_in_light_and_dark(colour, ground):
    assert plot.contrast(colour, ground) >= 3


def test_picture_is_accessible_svg_that_takes_the_colour_of_its_page(fig):
    picture = plot.render(fig, alt='Three <scores> "rise".')
    root = ET.fromstring(picture.svg)
    assert root.get("role") == "img"
    assert root.get("aria-label") == 'Three <scores> "rise".'
    assert "currentColor" in picture.svg
    assert plot.INK not in picture.svg
    assert plot.BLUE in picture.svg
    assert not re.search(r"fill: *#fff|<metadata|<style|<!--|<\?xml", picture.svg)


def test_bundle_offers_html_and_png_on_white(fig):
    bundle = plot.render(fig, alt="A line.")._repr_mimebundle_()
    assert re.match(
        r'<figure class="plot" style="--width: \d{3}px"><svg role="img"', bundle["text/html"]
    )
    assert bundle["text/plain"] == "A line."
    pixels = plt.imread(io.BytesIO(bundle["image/png"]))
    assert (pixels[0, 0] == 1).all()


def test_figure_is_closed(fig):
    plot.render(fig, alt="A line.")
    assert not plt.fignum_exists(fig.number)


def test_same_figure_gives_the_same_text():
    def draw():
        with plot.style():
            fig, ax = plt.subplots()
            plot.heatmap(ax, [[1.0, -2.0]], title=r"$\mathbf{S}$")
        return plot.render(fig, alt="Two cells.").svg

    assert draw() == draw()


def test_ids_of_two_figures_are_apart_and_all_references_resolve():
    svgs = []
    for value in (1.0, 2.0):
        with plot.style():
            fig, ax = plt.subplots()
            ax.plot([0, value])
        svgs.append(plot.render(fig, alt=f"Up to {value}.").svg)
    ids = [set(re.findall(r' id="([^"]+)"', svg)) for svg in svgs]
    assert ids[0]
    assert not ids[0] & ids[1]
    for svg, own in zip(svgs, ids, strict=True):
        assert set(re.findall(r'(?:url\(#|href="#)([^")]+)', svg)) == own


@pytest.mark.parametrize("alt", ["", "  \n "])
def test_figure_without_description_is_refused(fig, alt):
    with pytest.raises(ValueError, match="alt is empty"):
        plot.render(fig, alt=alt)


def test_show_displays_once(fig, monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    plot.show(fig, alt="A line.")
    assert [picture.alt for picture in shown] == ["A line."]


def cells(ax):
    return [text.get_text() for text in ax.texts]


def test_heatmap_writes_every_number_legibly():
    fig, ax = plt.subplots()
    matrix = torch.tensor([[1.0, -0.04], [-3.0, 0.5]], requires_grad=True)
    drawn = plot.heatmap(ax, matrix, rows=["a", "b"], columns=["c", "d"])
    assert cells(ax) == ["1.0", "0.0", "−3.0", "0.5"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "b"]
    for text, value in zip(ax.texts, matrix.flatten().tolist(), strict=True):
        assert plot.contrast(text.get_color(), drawn.cmap(drawn.norm(value))[:3]) >= 4.5
    plt.close(fig)


@pytest.mark.parametrize("cmap", [plot.SEQUENTIAL, plot.DIVERGING])
def test_some_text_is_legible_on_every_colour_of_a_map(cmap):
    for value in np.linspace(0, 1, 101):
        cell = cmap(value)[:3]
        assert max(plot.contrast(c, cell) for c in ("#040404", "#ffffff")) >= 4.5


def test_heatmap_centres_signed_numbers_on_zero():
    fig, (signed, plain) = plt.subplots(1, 2)
    assert plot.heatmap(signed, [[-1.0, 3.0]]).get_clim() == (-3, 3)
    assert plot.heatmap(plain, [[0.0, 3.0]], limit=5).get_clim() == (0, 5)
    plt.close(fig)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"matrix": [1.0]}, r"shape \(1,\): expected \(rows, columns\)"),
        ({"matrix": [[1.0]], "rows": ["a", "b"]}, "2 labels for 1 rows"),
        ({"matrix": [[1.0]], "columns": ["a", "b"]}, "2 labels for 1 columns"),
    ],
)
def test_heatmap_refuses(arguments, message):
    fig, ax = plt.subplots()
    with pytest.raises(ValueError, match=message):
        plot.heatmap(ax, **arguments)
    plt.close(fig)


def test_image_takes_grey_and_colour_and_nothing_else():
    fig, ax = plt.subplots()
    plot.image(ax, torch.zeros(8, 8), title="digit")
    plot.image(ax, np.zeros((8, 8, 3)))
    with pytest.raises(ValueError, match=r"shape \(3, 8, 8\): expected \(height, width\)"):
        plot.image(ax, np.zeros((3, 8, 8)))
    plt.close(fig)


def test_patch_lines_number_patches_row_by_row():
    fig, ax = plt.subplots()
    plot.patch_lines(ax, (8, 12), (4, 4), numbers=True)
    where = {text.get_text(): text.get_position() for text in ax.texts}
    assert where == {
        str(3 * row + column): (4 * column + 1.5, 4 * row + 1.5)
        for row in range(2)
        for column in range(3)
    }
    plt.close(fig)
