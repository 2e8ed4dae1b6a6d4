r"""`python -m vitlib.proof` on books of one chapter; each starts a kernel, so there are few."""

import subprocess
import sys
from pathlib import Path

import pytest

from vitlib.proof import execute
from vitlib.proof.__main__ import main
from vitlib.proof.execute import command, executed

HEADER = """---
jupytext:
  text_representation:
    extension: .md
    format_name: myst
---

# Chapter

```{math}
:label: eq-a
\\mathbf Y = \\mathbf X^\\top
```

```{math}
:label: eq-b
\\mathbf Y^\\top = \\mathbf X
```

"""
CELL = """```{code-cell} ipython3
:tags: [ledger]
from vitlib import proof

page = proof.open_page(NAME)
flipped = proof.Computation({"X": "T d"}, {"Y": lambda X: X.mT})
page.check("eq-a", flipped, mistakes=[proof.edit(r"^\\top", "", "the transpose is lost")])
page.check("eq-b", flipped)
```
"""
PRINTED = r"\mathbf Y^\top = \mathbf X"


def chapter(opening, printed=PRINTED):
    return HEADER.replace(PRINTED, printed) + CELL.replace("NAME", opening)


@pytest.fixture
def book(tmp_path, monkeypatch):
    (tmp_path / "book" / "part").mkdir(parents=True)

    def write(name, text):
        (tmp_path / "book" / "part" / f"{name}.md").write_text(text, encoding="utf-8")

    monkeypatch.chdir(tmp_path)
    return write


def test_failing_and_drifted_chapters_end_with_status_1(book, capsys):
    book("broken", chapter('"part/broken"', printed=r"\mathbf Y^\top = 2 \mathbf X"))
    # The cell brings its own equations, as an exported notebook does, and one is not the printed.
    own = {"eq-a": r"\mathbf Y = \mathbf X^\top", "eq-b": r"\mathbf X = \mathbf Y^\top"}
    book("drifted", chapter(f'"part/drifted", equations={own!r}'))
    book("plain", "# No formula\n\ntext\n")

    assert main([]) == 1
    chapters = capsys.readouterr().out.split(f"{Path.cwd()}/book/part/")[1:]
    broken, drifted = (part.splitlines() for part in chapters)
    assert broken[0] == "broken.md"
    assert broken[1].split()[:2] == ["ok", "eq-a"]
    assert broken[2].startswith("  FAIL  eq-b: does not hold as printed: relative error")
    assert broken[-1] == "  FAIL  eq-b: printed on line 15, but nothing checks it"
    assert drifted[0] == "drifted.md"
    assert [line.split()[:2] for line in drifted[1:3]] == [["ok", "eq-a"], ["ok", "eq-b"]]
    assert drifted[3:] == [
        "  FAIL  eq-b: what was checked is not what is printed",
        "3 problems",
    ]


def test_all_chapters_are_those_that_state_or_check_something(book):
    book("plain", "# Ü\n")
    book("defined", "```{math}\n:label: eq-a\n:class: definition\na\n```\n")
    book("stated", HEADER)
    book("checked", CELL)
    found = []
    assert command("name", None, [], lambda chapters: found.extend(chapters) or 0) == 0
    assert [chapter.stem for chapter in found] == ["checked", "stated"]


def test_a_good_chapter_ends_with_status_0(book, capsys):
    book("good", chapter('"part/good"'))
    assert main(["book/part/good.md"]) == 0
    found = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in found[1:]] == [["ok", "eq-a"], ["ok", "eq-b"]]
    assert "mistakes refuted: 1" in found[1]


def test_what_goes_wrong_in_a_chapter_is_told_with_its_cell(book):
    cells = [
        "from pathlib import Path\n\nassert Path.cwd().name == 'part'",
        ":tags: [raises-exception]\n1 / 0",
        "raise ValueError('one\\ntwo')",
        "import os\n\nos._exit(1)",
    ]
    book("broken", "".join(f"```{{code-cell}}\n{cell}\n```\n\n" for cell in cells))
    _, problems = executed(Path("book/part/broken.md"))
    assert problems == [
        "the kernel stopped: Kernel died",
        "cell 3: ValueError: one\n        two",
    ]


def test_a_cell_that_does_not_end_is_stopped_in_pythons_kernel_whatever_the_header_says(
    book, monkeypatch
):
    monkeypatch.setattr(execute, "_SECONDS", 2)
    header = "---\nkernelspec:\n  display_name: Other\n  name: other\n---\n\n"
    book("endless", header + "```{code-cell}\nimport time\n\ntime.sleep(20)\n```\n")
    _, (problem, *_) = executed(Path("book/part/endless.md"))
    assert problem.startswith("the kernel stopped: A cell timed out")


def test_a_book_without_chapters_ends_with_status_2(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([]) == 2
    assert capsys.readouterr().err.startswith(f"no chapters under book/ in {tmp_path} or above")


def test_help_says_what_the_command_does(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    said = capsys.readouterr().out
    assert said.startswith("usage: python -m vitlib.proof [-h] [chapters ...]\n")
    assert "Run the checks of chapters without building pages" in said
    assert " chapters (.md); all if none\n" in said


@pytest.mark.parametrize("missing", ["jupytext", "nbclient", "nbformat"])
def test_what_is_not_installed_is_named(book, capsys, missing):
    def run(chapters):
        raise ModuleNotFoundError("not found", name=missing)

    book("stated", HEADER)
    assert command("name", None, [], run) == 2
    assert capsys.readouterr().err == f"{missing} is not installed: pip install 'vitlib[book]'\n"


def test_what_a_chapter_misses_is_not_taken_for_it(book):
    def run(chapters):
        raise ModuleNotFoundError("not found", name="something")

    book("stated", HEADER)
    with pytest.raises(ModuleNotFoundError, match="not found"):
        command("name", None, [], run)


def test_a_chapter_that_is_not_there_ends_with_status_2_and_one_line(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "vitlib.proof", "nothing.md"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == "no chapter nothing.md: give the path of a chapter's .md file\n"
