import base64
import io
import re
import resource

import numpy as np
import pytest
import torch
from axe_playwright_python.sync_playwright import Axe
from PIL import Image

from vitlib.train.measures import measure
from vitlib.train.records import Line, Records, curve
from vitlib.train.report import write_report

EVIL = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(2)>',
    "Ωμέγα & \u202e co",
    "{braces}",
)

RECORD = {
    "recipe": {
        "name": "digits",
        "epochs": 12,
        "lr": 1e-3,
        "betas": (0.9, 0.999),
        "weights": None,
        "validation": 0.0,
        "augment": {"warp": {"rotate": 15.0, "zoom": 0.1}, "flip": True},
        "engine": {"strict": False, "workers": 1},
    },
    "data": {"name": "digits"},
    "result": {"seconds": 83.4},
    "environment": {"python": "3.11.7", "device": "cpu"},
}
TOO_WIDE = "() => document.documentElement.scrollWidth - innerWidth"
ROWS = """(table) => [...table.querySelectorAll("tr")].map(
  row => [...row.cells].map(cell => cell.textContent))"""


class Case:
    """A test of a model that is often right, and its report."""

    def __init__(self, folder, classes, *, channels=1, side=8, images=400, **record):
        generator = torch.Generator().manual_seed(1)
        count = len(classes)
        self.folder, self.classes = folder, classes
        self.labels = torch.randint(count - 1, (images,), generator=generator)
        self.images = torch.rand(images, channels, side, side + 2, generator=generator)
        logits = torch.randn(images, count, generator=generator) * 2
        logits[torch.arange(images), self.labels] += 5
        self.measures = measure(logits, self.labels)
        self.record = {**RECORD, **record}

    def write(self, plot=None, **changes):
        worst = torch.tensor([mistake.index for mistake in self.measures.worst], dtype=torch.long)
        arguments = {
            "worst_images": self.images[worst],
            "worst_labels": self.labels[worst],
            "classes": self.classes,
            "measures": self.measures,
            **changes,
        }
        return write_report(self.folder, self.record, **arguments, curve=plot)


@pytest.fixture
def case(tmp_path):
    return Case(tmp_path, (*EVIL, "five", "six", "seven"))


@pytest.fixture
def page(browser):
    context = browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme="light")
    yield context.new_page()
    context.close()


def table(page, caption):
    """The rows of a table, head first."""
    return page.locator("table", has=page.locator("caption", has_text=caption)).evaluate(ROWS)


def numbers(row):
    return [int(cell.replace(",", "")) for cell in row]


def findings(page, **options):
    """What axe-core finds, one line a place."""
    found = Axe().run(page, options={"resultTypes": ["violations"], **options})
    return [
        f"{violation['id']}: {node['target']} {node['failureSummary']}"
        for violation in found.response["violations"]
        for node in violation["nodes"]
    ]


@pytest.mark.parametrize("kind", ["few classes", "many classes", "no mistake"])
def test_the_page_is_sound_in_light_and_dark_on_a_desk_and_on_a_phone(tmp_path, page, kind):
    faults = {"cats/" + "very" * 60 + ".png": "truncated " * 30}
    if kind == "many classes":
        names = [f"{'long ' * 8}name {'unbreakable' * 5} {i}" for i in range(40)]
        more = {"faults": faults, "data": {"name": "/folder" * 20}}
        case = Case(tmp_path, names, channels=3, side=150, images=3000, **more)
    else:
        case = Case(tmp_path, EVIL, faults=faults)
    if kind == "no mistake":
        case.measures = measure(100.0 * torch.eye(4)[case.labels], case.labels)
    with Records(tmp_path) as records:
        records.append(Line(step=1, epoch=1.0, loss=1.0, accuracy=0.5, lr=1e-3))
    path = case.write(curve(tmp_path))

    complaints, asked = [], set()
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("requestfailed", lambda request: complaints.append(request.url[:99]))
    page.on("request", lambda request: asked.add(request.url.partition(",")[0]))
    page.goto(path.as_uri())
    page.evaluate("document.querySelectorAll('details').forEach(node => { node.open = true })")
    for width in (1280, 390):
        page.set_viewport_size({"width": width, "height": 844})
        assert page.evaluate(TOO_WIDE) <= 0, width
        assert findings(page) == [], width
    page.emulate_media(color_scheme="dark")
    assert findings(page, runOnly=["color-contrast"]) == []
    assert complaints == []
    assert asked <= {path.as_uri(), "data:image/png;base64", "data:"}
    assert page.locator("h1").count() == page.locator("main").count() == 1
    broken = "() => [...document.images].filter(i => !i.alt.trim() || !i.naturalWidth).length"
    assert page.evaluate(broken) == 0
    assert page.evaluate("() => getComputedStyle(document.body).backgroundColor") == (
        "rgb(20, 23, 26)"
    )


def test_names_of_classes_and_files_are_text_and_nothing_else(case, page):
    case.record["faults"] = {"<i>x</i>.png": "<b onclick='alert(3)'>", "caf\udce9.jpg": "cut"}
    case.record["data"] = {"name": "</title><script>alert(4)</script>"}
    page.on("dialog", lambda dialog: pytest.fail(dialog.message))
    page.goto(case.write().as_uri())
    for element in ("script", "[onerror]", "[onclick]", "i", "td b"):
        assert page.locator(element).count() == 0, element
    assert page.title().startswith(case.record["data"]["name"])
    assert [row[0] for row in table(page, "Classes")[1:]] == list(case.classes)
    assert table(page, "Test images")[0] == ["class", *case.classes]
    assert table(page, "Damaged images")[1:] == [
        ["<i>x</i>.png", "<b onclick='alert(3)'>"],
        ["caf\\udce9.jpg", "cut"],
    ]


def test_the_tables_say_what_was_measured(case, page):
    page.goto(case.write().as_uri())
    measures = case.measures
    _, *rows = table(page, "Classes")
    for row, found in zip(rows, measures.classes, strict=True):
        assert numbers(row[1:4]) == [found.count, found.chosen, found.correct]
        assert row[4] == ("–" if found.recall is None else f"{found.recall:.1%}")
        assert row[5] == ("–" if found.precision is None else f"{found.precision:.1%}")
    assert rows[-1][4] == "–"  # no image is of the last class
    _, *rows = table(page, "Test images")
    assert [numbers(row[1:]) for row in rows] == measures.confusion.tolist()
    _, *rows = table(page, "Reliability")
    assert [int(row[1]) for row in rows] == [b.count for b in measures.bins]
    assert rows[-1][2:] == [
        f"{measures.bins[-1].confidence:.1%}",
        f"{measures.bins[-1].accuracy:.1%}",
    ]
    said = page.locator("main > p").text_content()
    for words in (f"{measures.correct} rightly", f"{measures.accuracy:.2%}", f"{measures.loss:.3f}",
                  f"{measures.top5 / measures.images:.2%}", "12 epochs", "83 s"):  # fmt: skip
        assert words in said
    assert f"{measures.calibration_error:.2%}" in page.locator("main").text_content()


def test_recipe_and_environment_are_shown_as_they_were_set(case, page):
    page.goto(case.write().as_uri())
    assert table(page, "What the run was told") == [
        ["name", "value"],
        ["name", "digits"],
        ["epochs", "12"],
        ["lr", "0.001"],
        ["betas", "0.9, 0.999"],
        ["weights", "none"],
        ["validation", "0"],
        ["augment"],
        ["warp", "rotate 15, zoom 0.1"],
        ["flip", "yes"],
        ["engine"],
        ["strict", "no"],
        ["workers", "1"],
    ]
    assert table(page, "Where it ran")[1:] == [["python", "3.11.7"], ["device", "cpu"]]


def test_right_is_blue_wrong_is_orange_and_more_is_deeper(case, page):
    page.goto(case.write().as_uri())
    cells = page.locator(".confusion td").evaluate_all(
        "cells => cells.map(cell => getComputedStyle(cell).backgroundColor)"
    )
    counts, size = case.measures.confusion, len(case.classes)
    for place, colour in enumerate(cells):
        row, column = divmod(place, size)
        count = int(counts[row, column])
        *rgb, alpha = [float(x) for x in re.findall(r"[\d.]+", colour)]
        if not count:
            assert alpha == 0
            continue
        assert rgb == ([63, 131, 200] if row == column else [207, 111, 38])
        assert alpha == pytest.approx(0.5 * (count / counts[row].sum().item()) ** 0.5, abs=0.01)


def test_many_classes_are_shown_by_their_largest_confusions(tmp_path, page):
    case = Case(tmp_path, [f"class {i}" for i in range(30)], images=2000)
    page.goto(case.write().as_uri())
    assert page.locator(".confusion").count() == 0
    _, *rows = table(page, "20 most frequent confusions")
    counts = case.measures.confusion.clone().fill_diagonal_(0)
    shown = [int(row[2]) for row in rows]
    assert shown == sorted(counts.flatten().tolist(), reverse=True)[:20]
    for truth, chosen, count, part in rows:
        i, j = case.classes.index(truth), case.classes.index(chosen)
        assert counts[i, j] == int(count)
        assert part == f"{int(count) / case.measures.classes[i].count:.1%}"
    _, *lowest = table(page, "25 classes of lowest recall")
    _, *every = table(page, "All classes, by recall")
    assert len(every) == 30
    assert lowest == every[:25]
    recalls = [float(row[4].rstrip("%")) for row in every[:-1]]
    assert recalls == sorted(recalls)
    assert every[-1][4] == "–"


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_each_mistake_is_shown_as_it_is_with_what_it_was_taken_for(tmp_path, page, channels):
    case = Case(tmp_path, EVIL, channels=channels)
    page.goto(case.write().as_uri())
    figures = page.locator(".mistakes figure")
    assert figures.count() == len(case.measures.worst) > 5
    for i, mistake in enumerate(case.measures.worst):
        picture = figures.nth(i).locator("img")
        content = base64.b64decode(picture.get_attribute("src").partition(",")[2])
        pixels = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"), float) / 255
        image = case.images[mistake.index]
        image = image if channels == 3 else image.mean(0, keepdim=True).expand(3, -1, -1)
        np.testing.assert_allclose(pixels, image.permute(1, 2, 0), atol=0.503 / 255)
        truth, chosen = case.classes[mistake.label], case.classes[mistake.chosen]
        assert figures.nth(i).text_content() == (
            f"{truth} taken for {chosen} with a probability of {mistake.confidence:.1%}"
        )
        assert picture.get_attribute("alt") == (
            f"Test image {mistake.index}: {truth}, taken for {chosen}"
        )


def test_large_pictures_are_shown_small(tmp_path, page):
    case = Case(tmp_path, EVIL, channels=3, side=300)
    page.goto(case.write().as_uri())
    sizes = page.evaluate("() => [...document.images].map(i => [i.naturalHeight, i.naturalWidth])")
    assert all(size == [127, 128] for size in sizes)


def test_the_diagram_draws_each_bin_where_it_belongs(case, page):
    page.goto(case.write().as_uri())
    filled = [b for b in case.measures.bins if b.count]
    bars = page.locator("svg rect").evaluate_all(
        "all => all.map(r => ['x', 'y', 'width', 'height'].map(k => r[k].baseVal.value))"
    )
    for (x, y, width, height), b in zip(bars, filled, strict=True):
        assert (x - 44) / 240 == pytest.approx(b.low, abs=0.01)
        assert (x + width - 44) / 240 == pytest.approx(b.high, abs=0.01)
        assert height / 240 == pytest.approx(b.accuracy, abs=0.001)
        assert y + height == pytest.approx(250, abs=0.1)
    marks = page.locator("svg .sure").evaluate_all("all => all.map(p => p.getBBox().y)")
    assert [(250 - y) / 240 for y in marks] == pytest.approx(
        [b.confidence for b in filled], abs=0.001
    )
    told = page.locator("svg").get_attribute("aria-label")
    assert told.count("right") == len(filled)


def test_damaged_images_are_counted(case, page):
    case.record["faults"] = {f"{i}.png": "cut" for i in range(1234)}
    page.goto(case.write().as_uri())
    assert "1,234 images were damaged" in page.locator("main").text_content()
    assert len(table(page, "Damaged images")) == 1235
    case.record["faults"] = {}
    page.goto(case.write().as_uri())
    assert "No image was found damaged" in page.locator("main").text_content()


def test_the_curve_comes_with_its_description_or_its_absence_is_told(case, page):
    page.goto(case.write().as_uri())
    assert "No plot was drawn" in page.locator("main").text_content()
    with Records(case.folder) as records:
        records.append(Line(step=1, epoch=1.0, loss=1.25))
    path = curve(case.folder)
    page.goto(case.write(path).as_uri())
    picture = page.locator(".curve")
    assert "training loss goes from 1.25 to 1.25" in picture.get_attribute("alt")
    assert base64.b64decode(picture.get_attribute("src").partition(",")[2]) == path.read_bytes()
    Image.new("L", (4, 4)).save(path)  # somebody's own picture
    page.goto(case.write(path).as_uri())
    assert page.locator(".curve").get_attribute("alt") == "Plot of the run."


def test_images_of_others_are_not_shown_as_mistakes(case):
    worst = len(case.measures.worst)
    for changes in (
        {"worst_labels": (case.labels[:worst] + 1) % 6},
        {"worst_images": case.images[: worst - 1]},
        {"worst_images": case.images[:0], "worst_labels": case.labels[:0]},
    ):
        with pytest.raises(ValueError, match=r"not those of measures\.worst"):
            case.write(**changes)
    with pytest.raises(ValueError, match="6 names for 7 classes"):
        case.write(classes=case.classes[1:])
    assert list(case.folder.iterdir()) == []


def test_a_full_disk_leaves_the_old_report(case):
    path = case.write()
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            case.write()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    assert [each.name for each in case.folder.iterdir()] == ["report.html"]
