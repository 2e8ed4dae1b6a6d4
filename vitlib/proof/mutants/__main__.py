"""Take a ⊤, a sign, a factor, a sum out of each checked display, and see the check fail.

`python -m vitlib.proof.mutants [chapter.md ...]` prints what became of the mutants of each chapter.
Ends with status 0 if every mutant was noticed or is excused in `book/mutants.toml`, 1 if one was
not or an excuse is for nothing, 2 if asked for something that is not there.
"""

import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from vitlib.proof.execute import command
from vitlib.proof.mutants.excused import FILE, Excuse, excuses, split
from vitlib.proof.mutants.trial import Trial, try_chapter


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: Those of the command line if None.

    Returns:
        The exit status.
    """
    return command("vitlib.proof.mutants", __doc__, arguments, _run)


def _run(chapters: list[Path]) -> int:
    books = {chapter: _book(chapter) for chapter in chapters}
    known = {book: excuses(book) for book in set(books.values())}
    print(_COLUMNS.format("chapter", "mutants", "killed", "excused", "survived"))
    problems = 0
    with ProcessPoolExecutor() as pool:
        for chapter, trial in zip(chapters, pool.map(try_chapter, chapters), strict=True):
            book = books[chapter]
            name = chapter.resolve().relative_to(book).with_suffix("").as_posix()
            own = [excuse for excuse in known[book] if excuse.chapter == name]
            problems += _report(name, trial, own)
    for book, listed in known.items():
        for excuse in listed:
            if not (book / f"{excuse.chapter}.md").is_file():
                problems += 1
                print(f"  FAIL  {FILE}: there is no chapter {excuse.chapter}")
    return problems


_COLUMNS = "{:<32}{:>8}{:>8}{:>9}{:>10}"


def _book(chapter: Path) -> Path:
    """The folder `book` that a chapter is in, else its own folder."""
    folders = chapter.resolve().parents
    return next((folder for folder in folders if folder.name == "book"), folders[0])


def _report(name: str, trial: Trial, own: list[Excuse]) -> int:
    """Print a chapter's line and what is below it, and count the problems."""
    blamed, gone = split(trial.survivors, own)
    survived = len(trial.survivors)
    excused = survived - len(blamed)
    print(_COLUMNS.format(name, trial.mutants, trial.mutants - survived, excused, len(blamed)))
    problems = list(trial.problems)
    problems += [f"{s.label} does not miss this {s.kind}:\n        {s.row}" for s in blamed]
    if not trial.problems:
        problems += [
            f"{FILE}: {excuse.label} has no such survivor:\n        {excuse.row.strip()}"
            for excuse in gone
        ]
    for problem in problems:
        print(f"  FAIL  {problem}")
    return len(problems)


if __name__ == "__main__":
    sys.exit(main())
