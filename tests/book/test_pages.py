"""What a reader meets in the browser, on every page."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

PHONE = {"width": 390, "height": 844}
DESKTOP = {"width": 1280, "height": 900}
AXE = Axe()

# What stands on the page, seen from inside: problems only.
PROBLEMS = r"""
() => {
  const problems = [];
  for (const error of document.querySelectorAll("mjx-merror, [data-mjx-error]"))
    problems.push(`formula in error: ${error.textContent}`);
  for (const math of document.querySelectorAll(".math"))
    if (!math.querySelector("mjx-container")) problems.push(`not typeset: ${math.textContent}`);
  const walker = document.createTreeWalker(document.querySelector("article"), NodeFilter.SHOW_TEXT);
  for (let text; (text = walker.nextNode()); ) {
    if (text.parentElement.closest("pre, code, script, style, mjx-container")) continue;
    if (/\$|\\[([]/.test(text.data)) problems.push(`raw TeX: ${text.data.trim()}`);
  }
  for (const image of document.querySelectorAll("img"))
    if (!image.alt.trim()) problems.push(`image without alt text: ${image.src}`);
  for (const figure of document.querySelectorAll("article svg"))
    if (figure.getAttribute("role") === "img" && !figure.ariaLabel?.trim())
      problems.push("figure without description");
  for (const figure of document.querySelectorAll("figure.plot > svg"))
    if (figure.getAttribute("role") !== "img") problems.push("figure without role");
  return problems;
}
"""

# Whatever is wider than the window and does not scroll in a box of its own.
TOO_WIDE = """
() => document.documentElement.scrollWidth <= innerWidth ? [] :
  [...document.querySelectorAll("article *")]
    .filter(node => node.getBoundingClientRect().right > innerWidth + 1)
    .map(node => `${node.tagName}.${node.className}`).slice(0, 5)
    .concat(`page is ${document.documentElement.scrollWidth} wide`)
"""

# Whether what scrolls sideways can be reached without a mouse.
SCROLLS_BY_KEYBOARD = """
() => [...document.querySelectorAll("article *")].every(node =>
  node.tabIndex >= 0 || node.scrollWidth <= node.clientWidth ||
  !["auto", "scroll"].includes(getComputedStyle(node).overflowX))
"""

# Formulas and figures as the boxes that they are, and of code one word of each colour: inside stand
# thousands of elements that differ in nothing that matters here.
ABRIDGE = """
() => {
  for (const box of document.querySelectorAll("mjx-container, figure.plot > svg"))
    box.replaceChildren();
  const words = [...document.querySelectorAll(":is(pre, .sig) span[class]")];
  const ground = word =>
    getComputedStyle(word.closest("pre, .sig").parentElement).backgroundColor;
  // all are read before any goes: to read on after a change, the browser computes every style again
  const kinds = words.map(word => `${word.className} ${ground(word)}`);
  const seen = new Set();
  words.forEach((word, i) => {
    if (!word.isConnected) return;
    if (seen.has(kinds[i])) word.remove();
    seen.add(kinds[i]);
  });
}
"""

TYPESET = """
() => document.readyState === "complete" &&
  (!document.querySelector(".math") || window.MathJax?.startup?.promise?.then(() => true))
"""
OPEN_ALL = "() => document.querySelectorAll('details').forEach(node => { node.open = true; })"


class Visit:
    """A page, opened, and everything that it complained about or asked for."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.complaints: list[str] = []
        self.hosts: set[str] = set()
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.complaints.append(f"page error: {error}"))
        page.on("requestfailed", lambda request: self.complaints.append(f"failed: {request.url}"))
        page.on("response", self._response)
        page.on("request", lambda request: self.hosts.add(urlsplit(request.url).netloc))

    def _console(self, message: object) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(f"console {message.type}: {message.text}")

    def _response(self, response: object) -> None:
        if response.status >= 400:
            self.complaints.append(f"{response.status}: {response.url}")

    def open(self, address: str) -> None:
        self.page.goto(address)
        self.page.wait_for_function(TYPESET)


@pytest.fixture
def visit(browser: Browser) -> Iterator[Callable[..., Visit]]:
    contexts = []

    def start(**options: object) -> Visit:
        context = browser.new_context(
            **{"viewport": DESKTOP, "reduced_motion": "reduce", **options}
        )
        contexts.append(context)
        return Visit(context.new_page())

    yield start
    for context in contexts:
        context.close()


def findings(page: Page, **options: object) -> list[str]:
    """What axe-core finds, one line a place."""
    page.evaluate(ABRIDGE)
    options |= {"preload": False, "resultTypes": ["violations"]}
    return [
        f"{violation['id']}: {node['target']} {node['failureSummary'].splitlines()[-1].strip()}"
        for violation in AXE.run(page, options=options).response["violations"]
        for node in violation["nodes"]
    ]


def test_page_is_sound(visit, server, page_name):
    seen = visit(color_scheme="light")
    seen.open(f"{server}/{page_name}.html")
    assert seen.page.evaluate(PROBLEMS) == []
    seen.page.set_viewport_size(PHONE)
    assert seen.page.evaluate(TOO_WIDE) == []
    seen.page.wait_for_function(SCROLLS_BY_KEYBOARD)
    seen.page.set_viewport_size(DESKTOP)
    assert findings(seen.page) == []
    seen.page.emulate_media(color_scheme="dark")
    expect(seen.page.locator("html")).to_have_attribute("data-theme", "dark")
    assert findings(seen.page, runOnly=["color-contrast"]) == []
    assert seen.complaints == []
    assert seen.hosts == {urlsplit(server).netloc}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_is_sound_with_everything_unfolded(visit, server, chapter_with_proofs, scheme):
    seen = visit(color_scheme=scheme, viewport=PHONE)
    seen.open(f"{server}/{chapter_with_proofs}.html")
    seen.page.evaluate(OPEN_ALL)
    assert seen.page.evaluate(TOO_WIDE) == []
    seen.page.wait_for_function(SCROLLS_BY_KEYBOARD)
    assert findings(seen.page) == []
    assert seen.complaints == []


@pytest.mark.parametrize("start", ["index", "a chapter"])
def test_page_opens_from_disk(visit, html, chapter_with_proofs, start):
    seen = visit()
    name = start if start == "index" else chapter_with_proofs
    seen.open((html / f"{name}.html").as_uri())
    seen.page.wait_for_url("**/book/**")
    seen.page.wait_for_function(TYPESET)
    assert seen.page.locator("article h1").count() == 1
    assert seen.page.evaluate(PROBLEMS) == []
    assert seen.complaints == []
    assert seen.hosts == {""}


def test_theme_switches_and_is_remembered(visit, server, chapter_with_proofs):
    seen = visit(color_scheme="light")
    seen.open(f"{server}/book/index.html")
    theme = seen.page.locator("html")
    expect(theme).to_have_attribute("data-theme", "light")
    seen.page.get_by_role("button", name="light/dark").click()
    expect(theme).to_have_attribute("data-theme", "dark")
    seen.page.wait_for_load_state("networkidle")  # leaving a page breaks off what it still asks for
    seen.open(f"{server}/{chapter_with_proofs}.html")
    expect(theme).to_have_attribute("data-theme", "dark")
    assert seen.complaints == []


def test_dark_system_gets_dark_pages_before_any_script_of_the_theme(visit, server):
    seen = visit(color_scheme="dark")
    seen.page.route("**/pydata-sphinx-theme.js*", lambda route: route.abort())
    seen.page.goto(f"{server}/book/index.html")
    expect(seen.page.locator("html")).to_have_attribute("data-theme", "dark")


def test_mark_opens_by_keyboard_and_shows_its_evidence(visit, server, chapter_with_proofs):
    seen = visit()
    seen.open(f"{server}/{chapter_with_proofs}.html")
    mark = seen.page.locator(".run-as-printed").first
    expect(mark.locator(".evidence")).to_be_hidden()
    mark.locator("summary").press("Enter")
    expect(mark.locator(".evidence")).to_be_visible()
    expect(mark).to_contain_text("random cases")
    expect(mark.locator("pre").last).to_contain_text("page.check(")


def test_one_search_box_finds_what_is_asked(visit, server):
    seen = visit()
    seen.open(f"{server}/book/index.html")
    box = seen.page.locator("form.bd-search input")
    assert box.count() == 1
    seen.page.keyboard.press("Control+k")
    box.fill("softmax")
    box.press("Enter")
    expect(seen.page.locator("#search-results li a").first).to_be_visible()
    assert seen.complaints == []


def test_chapter_offers_its_notebook(html, chapter_name):
    text = (html / f"{chapter_name}.html").read_text(encoding="utf-8")
    link = re.search(r'<a class="[^"]*btn-notebook" href="([^"]+)" download', text)
    assert link is not None
    assert ((html / chapter_name).parent / link[1]).resolve().is_file()


def test_no_page_names_another_host_as_a_source(html: Path):
    asks = re.compile(r'<(?:script|link|img|iframe|source)[^>]+(?:src|href)="(?:https?:)?//[^"]*"')
    found = {
        path.name: asks.findall(path.read_text(encoding="utf-8")) for path in html.rglob("*.html")
    }
    assert {name: hits for name, hits in found.items() if hits} == {}
