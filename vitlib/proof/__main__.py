"""Run the checks of chapters without building pages: `python -m vitlib.proof [chapter.md ...]`.

Prints a line for each equation. Ends with status 0 if all hold, 1 if anything fails, 2 if asked for
something that is not there.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from vitlib.proof.chapter import audit, equations, evidence_in
from vitlib.proof.evidence import Evidence
from vitlib.proof.execute import command, executed


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: Those of the command line if None.

    Returns:
        The exit status.
    """
    return command("vitlib.proof", __doc__, arguments, lambda chapters: sum(map(_run, chapters)))


def _run(chapter: Path) -> int:
    """Run one chapter, print what was found and count the problems."""
    print(chapter)
    notebook, problems = executed(chapter)
    found = evidence_in(notebook)
    for evidence in found:
        print(f"  ok    {_summary(evidence)}")
    problems += audit(equations(chapter), found)
    for problem in problems:
        print(f"  FAIL  {problem}")
    return len(problems)


def _summary(evidence: Evidence) -> str:
    refuted = f"mistakes refuted: {len(evidence.mistakes)}"
    return (
        f"{evidence.label:<28} error ≤ {evidence.bound:.0e}  {evidence.cases} cases"
        f"  {refuted}  {', '.join(evidence.oracles)}"
    )


if __name__ == "__main__":
    sys.exit(main())
