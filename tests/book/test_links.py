"""Every link inside the book leads to something that is there."""

from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

import pytest


class Links(HTMLParser):
    """Collects a page's links and the names one can link to."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.names: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        for name, value in attributes:
            if name == "id" and value:
                self.names.append(value)
            if tag == "a" and name == "href" and value:
                self.links.append(value)


@cache
def read(path: Path) -> Links:
    parser = Links()
    parser.feed(path.read_text(encoding="utf-8"))
    return parser


@pytest.fixture(scope="session")
def all_pages(html: Path) -> list[Path]:
    return sorted(html.glob("book/**/*.html"))


def test_internal_links_and_anchors_exist(html, all_pages):
    broken = []
    for page in all_pages:
        for link in read(page).links:
            target = urlsplit(urljoin(page.as_uri(), link))
            if target.scheme != "file":
                continue
            path = Path(unquote(target.path))
            if not path.is_file():
                broken.append(f"{page.relative_to(html)}: no file {link}")
            elif target.fragment and unquote(target.fragment) not in read(path).names:
                broken.append(f"{page.relative_to(html)}: no anchor {link}")
    assert broken == []


def test_names_are_given_once_a_page(html, all_pages):
    twice = {
        str(page.relative_to(html)): sorted({n for n in names if names.count(n) > 1})
        for page in all_pages
        if len(names := read(page).names) != len(set(names))
    }
    assert twice == {}
