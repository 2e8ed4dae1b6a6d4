r"""Mutants that a check cannot notice, as nothing is lost: reviewed, each with the reason.

They stand in `book/mutants.toml`::

    [[equivalent]]
    chapter = "attention/gradients"
    label = "eq-trace"
    row = '''\operatorname{tr}\left( ... \right)'''
    why = "the matrix is symmetric"
"""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vitlib.proof.mutants.trial import Survivor

FILE = "mutants.toml"


@dataclass(frozen=True)
class Excuse:
    """Why a mutant may survive.

    Attributes:
        chapter: Name of the chapter: `attention/gradients`.
        label: Label of the display.
        row: The line in which something is lost, as it reads then.
        why: Why nothing is lost.
    """

    chapter: str
    label: str
    row: str
    why: str


def excuses(book: Path) -> list[Excuse]:
    """What `mutants.toml` in the book's folder says; nothing if there is no such file.

    Raises:
        ValueError: The file is not TOML, or an entry has not these four texts.
    """
    path = book / FILE
    if not path.is_file():
        return []
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
        found = [Excuse(**entry) for entry in tables.pop("equivalent", [])]
    except (tomllib.TOMLDecodeError, TypeError) as error:
        raise ValueError(
            f"{path}: {error}: give chapter, label, row and why below each [[equivalent]]"
        ) from None
    if tables:
        raise ValueError(f"{path}: {', '.join(tables)}: give nothing but [[equivalent]]")
    for excuse in found:
        if not excuse.why.strip():
            raise ValueError(f"{path}: {excuse.label}: a survivor without a reason: say why")
    return found


def covers(excuse: Excuse, survivor: Survivor) -> bool:
    """Whether an excuse of its chapter is for this survivor."""
    return (excuse.label, excuse.row.split()) == (survivor.label, survivor.row.split())


def split(
    survivors: Sequence[Survivor], excuses: Sequence[Excuse]
) -> tuple[list[Survivor], list[Excuse]]:
    """Survivors without an excuse, and excuses without a survivor."""
    blamed = [s for s in survivors if not any(covers(excuse, s) for excuse in excuses)]
    gone = [excuse for excuse in excuses if not any(covers(excuse, s) for s in survivors)]
    return blamed, gone
