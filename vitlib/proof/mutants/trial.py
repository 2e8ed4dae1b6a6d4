"""Every mutant of a page put to the check of its display."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vitlib.proof.execute import executed
from vitlib.proof.ledger import Page

# What a chapter runs behind its own cells. The underscores keep clear of the chapter's names.
_LAST_CELL = """
from vitlib.proof.mutants import trial as __trial

__trial.report(globals())
"""


@dataclass(frozen=True)
class Survivor:
    """A mutant that a check does not notice.

    Attributes:
        label: Label of the display.
        kind: What is lost from it.
        row: The line in which it is lost, as it reads then.
    """

    label: str
    kind: str
    row: str


@dataclass(frozen=True)
class Trial:
    """What became of the mutants of one chapter.

    Attributes:
        mutants: How many there are.
        survivors: Those that are not noticed.
        problems: What kept the chapter from being tried, or a display from being checked.
    """

    mutants: int
    survivors: tuple[Survivor, ...]
    problems: tuple[str, ...] = ()


def try_page(page: Page) -> Trial:
    """Put every mutant of what a page has checked to the check."""
    mutants = [(label, mutant) for label in page.evidence for mutant in page.mutants(label)]
    survivors = tuple(
        Survivor(label, mutant.kind, mutant.row)
        for label, mutant in mutants
        if page.holds(label, mutant.latex)
    )
    return Trial(len(mutants), survivors)


def report(namespace: Mapping[str, object]) -> None:
    """Try all pages that have a name somewhere and print what became of them, for `try_chapter`."""
    pages = {id(value): value for value in namespace.values() if isinstance(value, Page)}
    print(json.dumps([asdict(try_page(page)) for page in pages.values()]))


def try_chapter(chapter: Path) -> Trial:
    """Run a chapter and try the mutants of its displays."""
    notebook, problems = executed(chapter, _LAST_CELL)
    if problems:
        return Trial(0, (), tuple(problems))
    trials: list[dict[str, Any]] = json.loads(notebook.cells[-1].outputs[-1].text)
    return Trial(
        sum(trial["mutants"] for trial in trials),
        tuple(Survivor(**survivor) for trial in trials for survivor in trial["survivors"]),
    )
