"""Published notebooks: plain Markdown, images inside, runnable from an empty folder."""

import base64
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

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


def test_notebook_runs_from_an_empty_folder(notebook, tmp_path):
    code = (cell for cell in notebook.cells if cell.cell_type == "code")
    proofs = [cell for cell in code if "page.check(" in cell.source]
    client = NotebookClient(
        notebook,
        timeout=300,
        kernel_name="python3",
        extra_arguments=["--IPKernelApp.log_level=ERROR"],
        resources={"metadata": {"path": str(tmp_path)}},
    )
    client.execute()
    for cell in proofs:
        assert any("holds as printed" in str(output) for output in cell.outputs)
