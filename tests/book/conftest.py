"""The built book, as a reader meets it: files and a server."""

import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "_build"


def pages() -> list[str]:
    """Every page of the book, in the order of its contents."""
    contents = yaml.safe_load((ROOT / "_toc.yml").read_text())
    parts = contents["parts"]
    return [contents["root"], *(page["file"] for part in parts for page in part["chapters"])]


def chapters() -> list[str]:
    """Every page with code."""
    return [page for page in pages() if "{code-cell}" in (ROOT / f"{page}.md").read_text()]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that takes `page_name` or `chapter_name` once for each of them."""
    for argument, names in (("page_name", pages()), ("chapter_name", chapters())):
        if argument in metafunc.fixturenames:
            metafunc.parametrize(argument, names)


@pytest.fixture(scope="session")
def chapter_with_proofs() -> str:
    """The shortest chapter that checks equations."""
    texts = {name: (ROOT / f"{name}.md").read_text() for name in chapters()}
    return min(
        (name for name in texts if "page.check(" in texts[name]), key=lambda n: len(texts[n])
    )


@pytest.fixture(scope="session")
def html() -> Path:
    """The folder of the built pages."""
    folder = BUILD / "html"
    if not (folder / "index.html").is_file():
        pytest.fail(f"no book in {folder}: run `make book` first")
    return folder


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="session")
def server(html: Path) -> Iterator[str]:
    """Address of a local server of the book."""
    handler = functools.partial(QuietHandler, directory=str(html))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as instance:
        threading.Thread(target=instance.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{instance.server_port}"
        instance.shutdown()
