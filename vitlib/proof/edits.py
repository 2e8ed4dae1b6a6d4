"""Tempting mistakes: edits of a printed formula."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Edit:
    """A mistake that a reader could make; made by `edit`.

    Attributes:
        old: LaTeX that is replaced.
        new: LaTeX that replaces it.
        why: What the mistake is, in words.
        occurrence: Which occurrence, from 0, or from the end if negative; None for all of them.
    """

    old: str
    new: str
    why: str
    occurrence: int | None = None

    def of(self, latex: str) -> str:
        """The formula with the mistake in it.

        Raises:
            ValueError: `old` does not stand in the formula, or not often enough.
        """
        parts = latex.split(self.old)
        found = len(parts) - 1
        if found == 0:
            raise ValueError(f"the mistake {self.why!r} edits {self.old!r}, which is not printed")
        if self.occurrence is None:
            return _without_empty_lines(self.new.join(parts))
        if not -found <= self.occurrence < found:
            raise ValueError(
                f"the mistake {self.why!r} edits occurrence {self.occurrence} of {self.old!r},"
                f" of which there are {found}"
            )
        place = self.occurrence % found + 1
        return _without_empty_lines(
            self.old.join(parts[:place]) + self.new + self.old.join(parts[place:])
        )


def _without_empty_lines(latex: str) -> str:
    """An empty line would end the formula where it is typeset."""
    return "\n".join(line for line in latex.splitlines() if line.strip())


def edit(old: str, new: str, why: str, *, occurrence: int | None = None) -> Edit:
    """A tempting mistake in a printed formula.

    Args:
        old: LaTeX as it is printed.
        new: What a mistaken reader would print.
        why: The mistake in words: `"divides by d instead of √d"`.
        occurrence: Which of several to replace, from 0 (-1 is the last); all if None.

    Raises:
        ValueError: `old` is empty, or the edit changes nothing.
    """
    if not old or old == new:
        raise ValueError(
            f"the mistake {why!r} changes nothing: give what is printed and what is not"
        )
    return Edit(old, new, why, occurrence)
