"""Chapters run from the command line, each in a kernel of its own."""

import argparse
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from vitlib.proof.chapter import equations

_LABEL = re.compile(r"(?P<label>[\w:.-]+): ")
_LEDGER_CELL = re.compile(r"^:tags:.*\bledger\b", re.MULTILINE)
_SECONDS = 600  # for one cell


def command(
    name: str,
    description: str | None,
    arguments: Sequence[str] | None,
    run: Callable[[list[Path]], int],
) -> int:
    """A command that takes chapters.

    Args:
        name: What comes behind `python -m`.
        description: What it does.
        arguments: Those of the command line if None.
        run: Runs the chapters, prints what is found and counts the problems.

    Returns:
        The exit status: 0 if there are no problems, 1 if there are, 2 if chapters or what is needed
        to run them are not there.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {name}", description=description)
    parser.add_argument("chapters", nargs="*", type=Path, help="chapters (.md); all if none")
    named: list[Path] = parser.parse_args(arguments).chapters
    try:
        chapters = named or _all_chapters()
        for chapter in chapters:
            equations(chapter)
        problems = run(chapters)
    except ModuleNotFoundError as error:
        if error.name not in ("jupytext", "nbclient", "nbformat"):
            raise
        print(f"{error.name} is not installed: pip install 'vitlib[book]'", file=sys.stderr)
        return 2
    except (FileNotFoundError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    if problems:
        print(f"{problems} problem{'s' * (problems != 1)}")
    return 1 if problems else 0


def executed(chapter: Path, last: str | None = None) -> tuple[Any, list[str]]:
    """Run a chapter; cells run on after an error in one before.

    Args:
        chapter: Its file.
        last: Code of a further cell behind all others.

    Returns:
        The notebook with its outputs, and what went wrong.
    """
    import jupytext
    from nbclient import NotebookClient
    from nbclient.exceptions import CellTimeoutError, DeadKernelError
    from nbformat.v4 import new_code_cell

    notebook: Any = jupytext.read(chapter, fmt="md:myst")
    if last is not None:
        notebook.cells.append(new_code_cell(last))
    client = NotebookClient(
        notebook,
        timeout=_SECONDS,
        kernel_name="python3",
        allow_errors=True,
        extra_arguments=["--IPKernelApp.log_level=ERROR"],
        resources={"metadata": {"path": str(chapter.resolve().parent)}},
    )
    problems: list[str] = []
    try:
        client.execute()
    except (DeadKernelError, CellTimeoutError) as error:
        problems.append(f"the kernel stopped: {error}")
    for number, cell in enumerate(notebook.cells, start=1):
        problems.extend(_errors(cell, number))
    return notebook, problems


def _all_chapters() -> list[Path]:
    """Chapters of the book above the working directory in which something is to be checked."""
    for folder in (Path.cwd(), *Path.cwd().parents):
        chapters = sorted((folder / "book").rglob("*.md"))
        found = [chapter for chapter in chapters if _has_checks(chapter)]
        if found:
            return found
    raise FileNotFoundError(
        f"no chapters under book/ in {Path.cwd()} or above: name the chapters' .md files"
    )


def _has_checks(chapter: Path) -> bool:
    stated = any(not display.definition for display in equations(chapter))
    return stated or bool(_LEDGER_CELL.search(chapter.read_text(encoding="utf-8")))


def _errors(cell: Any, number: int) -> Iterator[str]:
    """Label, or else cell, and reason of each error among the outputs of a cell."""
    if "raises-exception" in cell.metadata.get("tags", []):
        return
    for output in cell.get("outputs", []):
        if output.output_type == "error":
            reason = output.evalue.replace("\n", "\n        ")
            labelled = _LABEL.match(output.evalue)
            yield reason if labelled else f"cell {number}: {output.ename}: {reason}"
