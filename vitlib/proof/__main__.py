"""Run the checks of chapters without building pages: `python -m vitlib.proof [chapter.md ...]`.

Prints a line for each equation. Ends with status 0 if all hold, 1 if anything fails, 2 if asked for
something that is not there.
"""

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from vitlib.proof.chapter import audit, equations, evidence_in, evidence_of
from vitlib.proof.evidence import Evidence

_LABEL = re.compile(r"(?P<label>[\w:.-]+): ")
_LEDGER_CELL = re.compile(r"^:tags:.*\bledger\b", re.MULTILINE)
_SECONDS = 600  # for one cell


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: Those of the command line if None.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(prog="python -m vitlib.proof", description=__doc__)
    parser.add_argument("chapters", nargs="*", type=Path, help="chapters (.md); all if none")
    named: list[Path] = parser.parse_args(arguments).chapters
    try:
        chapters = named or _all_chapters()
        for chapter in chapters:
            equations(chapter)
        failures = sum(_run(chapter) for chapter in chapters)
    except ModuleNotFoundError as error:
        if error.name not in ("jupytext", "nbclient", "nbformat"):
            raise
        print(f"{error.name} is not installed: pip install 'vitlib[book]'", file=sys.stderr)
        return 2
    except (FileNotFoundError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    if failures:
        print(f"{failures} problem{'s' * (failures != 1)}")
    return 1 if failures else 0


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


def _run(chapter: Path) -> int:
    """Run one chapter, print what was found and count the problems."""
    print(chapter)
    notebook, stopped = _executed(chapter)
    failures = 0
    if stopped:
        failures += 1
        print(f"  FAIL  {stopped}")
    for number, cell in enumerate(notebook.cells, start=1):
        for evidence in evidence_of(cell):
            print(f"  ok    {_summary(evidence)}")
        for label, reason in _errors(cell, number):
            failures += 1
            print(f"  FAIL  {label}: {reason}")
    for problem in audit(equations(chapter), evidence_in(notebook)):
        failures += 1
        print(f"  FAIL  {problem}")
    return failures


def _summary(evidence: Evidence) -> str:
    refuted = f"mistakes refuted: {len(evidence.mistakes)}"
    return (
        f"{evidence.label:<28} error ≤ {evidence.bound:.0e}  {evidence.cases} cases"
        f"  {refuted}  {', '.join(evidence.oracles)}"
    )


def _executed(chapter: Path) -> tuple[Any, str | None]:
    """The chapter as a notebook, run in a kernel of its own, and why the kernel stopped if it did.

    Cells run on after an error in one before.
    """
    import jupytext
    from nbclient import NotebookClient
    from nbclient.exceptions import CellTimeoutError, DeadKernelError

    notebook: Any = jupytext.read(chapter, fmt="md:myst")
    client = NotebookClient(
        notebook,
        timeout=_SECONDS,
        kernel_name="python3",
        allow_errors=True,
        extra_arguments=["--IPKernelApp.log_level=ERROR"],
        resources={"metadata": {"path": str(chapter.resolve().parent)}},
    )
    try:
        client.execute()
    except (DeadKernelError, CellTimeoutError) as error:
        return notebook, f"the kernel stopped: {error}"
    return notebook, None


def _errors(cell: Any, number: int) -> Iterator[tuple[str, str]]:
    """Label, or else cell, and reason of each error among the outputs of a cell."""
    if "raises-exception" in cell.metadata.get("tags", []):
        return
    for output in cell.get("outputs", []):
        if output.output_type == "error":
            label = _LABEL.match(output.evalue)
            reason = output.evalue.replace("\n", "\n        ")
            if label:
                yield label["label"], reason[label.end() :]
            else:
                yield f"cell {number}", f"{output.ename}: {reason}"


if __name__ == "__main__":
    sys.exit(main())
