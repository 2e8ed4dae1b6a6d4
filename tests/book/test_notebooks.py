"""Published notebooks: plain Markdown, images inside. `make test` runs them in an empty folder."""

import ast
import base64
import re
from pathlib import Path

import nbformat
import pytest

MYST = re.compile(
    r"""
    \{[a-z][a-z0-9:_-]*\}`        # a role
    | ^\s*(?:```+|~~~+|:::+)\{    # a directive
    | ^:::                        # its end
    | ^\([\w-]+\)=\s*$            # a target
    | ^:[\w-]+:\s                 # an option
    | \]\(\#                      # a link that leads nowhere in a notebook
    | \]\([^)]*\.(?:md|html)\b(?<!https)   # a link into the book's folder
    | \[\^\w+\]                   # a footnote
    """,
    re.VERBOSE | re.MULTILINE,
)


@pytest.fixture
def notebook(html: Path, chapter_name: str) -> nbformat.NotebookNode:
    path = html.parent / "notebooks" / f"{chapter_name.removeprefix('book/')}.ipynb"
    if not path.is_file():
        pytest.fail(f"no notebook {path}: run `make book` first")
    return nbformat.read(path, as_version=4)


def prose(notebook: nbformat.NotebookNode) -> list[str]:
    """The Markdown of a notebook without its code."""
    texts = (cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    return [re.sub(r"```.*?```|`[^`\n]+`", "", text, flags=re.DOTALL) for text in texts]


def test_notebook_is_valid_and_says_what_runs_it(notebook):
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"


def test_text_is_plain_markdown(notebook):
    assert [hit for text in prose(notebook) for hit in MYST.findall(text)] == []


def test_every_display_is_closed(notebook):
    for text in prose(notebook):
        assert text.count("$$") % 2 == 0


def test_images_are_inside(notebook):
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            for image in re.findall(r"!\[[^\]]*\]\(([^)]*)\)", cell.source):
                name = image.removeprefix("attachment:")
                assert image.startswith("attachment:")
                assert base64.b64decode(next(iter(cell.attachments[name].values())))
            assert "<img" not in cell.source
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            assert not {"text/html", "image/png"} <= data.keys()


def names(source: str) -> tuple[set[str], set[str]]:
    """The names that some code uses, and those that it defines."""
    used, defined = set(), set()
    for node in ast.walk(ast.parse(re.sub(r"^[%!].*", "", source, flags=re.MULTILINE))):
        if isinstance(node, ast.Name):
            (used if isinstance(node.ctx, ast.Load) else defined).add(node.id)
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            defined.add(node.name)
        elif isinstance(node, ast.alias):
            defined.add(node.asname or node.name.partition(".")[0])
    return used, defined


def test_what_nbval_runs_runs_as_published_too(html, notebook, chapter_name):
    """nbval runs solutions as well, of which the published notebook has the text alone."""
    path = html.parent / "nbval" / f"{chapter_name.removeprefix('book/')}.ipynb"
    run = [cell.source for cell in nbformat.read(path, as_version=4).cells]
    published = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    left, known, of_solutions = list(published), set(), set()
    for source in run:
        used, defined = names(source)
        if left and left[0] == source:
            left.pop(0)
            assert not used & (of_solutions - known - defined)
            known |= defined
        else:
            of_solutions |= defined
    assert left == []


def test_checks_hold_as_printed(notebook):
    for cell in notebook.cells:
        if cell.cell_type == "code" and "page.check(" in cell.source:
            assert any("holds as printed" in str(output) for output in cell.outputs)


def test_a_check_prints_nothing_since_no_page_shows_it(html, chapter_name):
    executed = nbformat.read(html.parent / "jupyter_execute" / f"{chapter_name}.ipynb", 4)
    checks = [cell for cell in executed.cells if "ledger" in cell.metadata.get("tags", ())]
    assert not [cell.source for cell in checks for out in cell.outputs if "text" in out]
