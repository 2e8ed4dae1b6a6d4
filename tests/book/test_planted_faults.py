"""The book's own safety net: a fault planted in a copy of a chapter has to be caught."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[2]
CHAPTER = "attention/gradients"

TRANSPOSED = r"= \mathbf A^\top \frac{\partial \ell}{\partial \mathbf O}"
SIGNED = "\n- " + r"\operatorname{rowsum}\left( \frac{\partial \ell}{\partial \mathbf A} \odot"
KEPT = {"eq-grad-v", "eq-grad-s"}

BLOCK = re.compile(r"^```\{(code-cell|math)\}.*?^```\n", re.DOTALL | re.MULTILINE)


def excerpt(chapter: str) -> str:
    """The chapter's first cell, two of its equations and what checks them."""
    head, first, rest = BLOCK.split(chapter, maxsplit=1)[0], BLOCK.search(chapter), []
    assert first is not None
    for block in BLOCK.finditer(chapter, first.end()):
        labels = set(re.findall(r"\beq-[\w-]+", block[0]))
        if labels <= KEPT and ("ledger" in block[0] or block[1] == "math"):
            rest.append(block[0])
    return "\n".join([head, first[0], *rest])


def plant(text: str, old: str, new: str) -> str:
    """Replace the one place in the chapter where something stands."""
    assert text.count(old) == 1
    return text.replace(old, new)


FAULTS = {
    "sound": lambda text: text,
    "transpose-lost": lambda text: plant(text, TRANSPOSED, TRANSPOSED.replace(r"^\top", "")),
    "sign-flipped": lambda text: plant(text, SIGNED, SIGNED.replace("-", "+")),
    "wrong-assertion": lambda text: f"{text}\n```{{code-cell}} ipython3\nassert 1 + 1 == 3\n```\n",
    "undeclared": lambda text: (
        f"{text}\n```{{math}}\n\\mathbf A = \\mathbf B\n```\n"
        "\n```{math}\n:label: eq-unchecked\n\\mathbf C = \\mathbf D\n```\n"
    ),
}

CAUGHT = {
    "transpose-lost": r"eq-transpose-lost-grad-v: does not hold as printed",
    "sign-flipped": r"eq-sign-flipped-grad-s: does not hold as printed",
    "wrong-assertion": r"AssertionError",
    "undeclared": r"a display without a label: \\mathbf A",
}


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    """A book of copies of one chapter, each named after the fault that it carries."""
    chapter = excerpt((ROOT / "book" / f"{CHAPTER}.md").read_text(encoding="utf-8"))
    folder = tmp_path / "book"
    folder.mkdir()
    for name, fault in FAULTS.items():
        text = fault(chapter).replace(f'open_page("{CHAPTER}")', f'open_page("{name}")')
        (folder / f"{name}.md").write_text(re.sub(r"\beq-", f"eq-{name}-", text), encoding="utf-8")
    return folder


def run(*command: object, where: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=where,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def test_command_line_catches_every_fault(shelf):
    result = run("-m", "vitlib.proof", *(shelf / f"{name}.md" for name in FAULTS), where=shelf)
    assert result.returncode == 1, result.stdout
    reports = dict(
        re.findall(r"^\S+/([\w-]+)\.md\n(.*?)(?=^\S+\.md\n|\Z)", result.stdout, re.M | re.S)
    )
    assert "FAIL" not in reports["sound"]
    for name, message in CAUGHT.items():
        assert re.search(rf"FAIL  .*{message}", reports[name]), reports[name]
    assert "eq-undeclared-unchecked: printed on line" in reports["undeclared"]


def test_build_catches_every_fault(shelf):
    book = shelf.parent
    for name in ("extensions", "assets", "templates"):
        (shelf / name).symlink_to(ROOT / "book" / name)
    shutil.copy(ROOT / "book" / "references.bib", shelf)
    shutil.copy(ROOT / "_config.yml", book)
    contents = "\n".join(f"  - file: book/{name}" for name in FAULTS if name != "sound")
    (book / "_toc.yml").write_text(f"format: jb-book\nroot: book/sound\nchapters:\n{contents}\n")
    command = "from jupyter_book.cli.main import main; main()"
    result = run("-c", command, "build", book, "-W", "--keep-going", where=book)
    assert result.returncode != 0, result.stdout
    warnings = re.sub(r"\x1b\[\d+(;\d+)*m", "", result.stdout)
    found = {
        name: "\n".join(
            re.findall(rf"{name}\.md(?::\d+)?: WARNING: (.*?)(?=\n\S*WARNING|\Z)", warnings, re.S)
        )
        for name in FAULTS
    }
    for name, message in CAUGHT.items():
        assert re.search(message, found[name]), warnings
    assert "eq-undeclared-unchecked: printed on line" in found["undeclared"]
    page = (book / "_build/html/book/sound.html").read_text(encoding="utf-8")
    assert "eq-sound" not in found["sound"]
    assert page.count('class="run-as-printed"') == page.count('class="eqno"')


def test_changed_output_is_noticed(tmp_path):
    executed = ROOT / "_build" / "jupyter_execute" / "book" / f"{CHAPTER}.ipynb"
    if not executed.is_file():
        pytest.fail(f"{executed} is not there: run `make book` first")
    notebook = nbformat.read(executed, as_version=4)
    notebook.cells = notebook.cells[:1]
    cell = nbformat.v4.new_code_cell("print(2 + 2)", execution_count=1)
    for printed in ("4", "5"):
        cell.outputs = [nbformat.v4.new_output("stream", name="stdout", text=f"{printed}\n")]
        notebook.cells = [cell]
        nbformat.write(notebook, tmp_path / f"prints-{printed}.ipynb")
    nbval = ("-m", "pytest", "--nbval", "--nbval-current-env", "-p", "no:cacheprovider")
    assert run(*nbval, tmp_path / "prints-4.ipynb", where=tmp_path).returncode == 0
    changed = run(*nbval, tmp_path / "prints-5.ipynb", where=tmp_path)
    assert changed.returncode == 1
    assert "Cell outputs differ" in changed.stdout
