"""What a check that passed leaves behind: on the page, in the notebook and for the build."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import floor, isfinite, log10
from typing import Any

MIME = "application/vnd.vitlib.evidence+json"


@dataclass(frozen=True)
class Refutation:
    """A tempting mistake that the check refuted.

    Attributes:
        latex: The formula with the mistake in it.
        why: The mistake in words.
        error: Its least relative error over all cases to one digit, rounded down; or
            `wrong shape`, or `not finite`.
    """

    latex: str
    why: str
    error: str

    @property
    def sentence(self) -> str:
        """The mistake and its error."""
        numeric = self.error[0].isdigit()
        return f"{self.why}: {f'relative error at least {self.error}' if numeric else self.error}"


@dataclass(frozen=True)
class Evidence:
    """That a formula holds as printed.

    Attributes:
        label: Label of the display.
        latex: What was evaluated, as printed.
        oracles: Where the truth came from.
        cases: Number of random cases.
        bound: The relative error was at most this, at each `=` in each case.
        mistakes: Edits of the formula that do not hold.
        symbols: Names that the formula uses.
    """

    label: str
    latex: str
    oracles: tuple[str, ...]
    cases: int
    bound: float
    mistakes: tuple[Refutation, ...]
    symbols: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """All of it in one line."""
        cases = [f"{self.cases} case{'s' * (self.cases != 1)}"]
        if self.mistakes:
            count = len(self.mistakes)
            cases.append(f"{count} mistake{'s' * (count != 1)} refuted")
        what = "; ".join([", ".join(self.oracles), *cases])
        return f"{self.label}: holds as printed, error ≤ {self.bound:.0e} ({what})"

    def __repr__(self) -> str:
        return self.sentence

    def to_json(self) -> dict[str, Any]:
        """The same as what JSON can hold; the same for every run."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Evidence":
        """Read back what `to_json` wrote."""
        return cls(
            label=data["label"],
            latex=data["latex"],
            oracles=tuple(data["oracles"]),
            cases=data["cases"],
            bound=data["bound"],
            mistakes=tuple(Refutation(**mistake) for mistake in data["mistakes"]),
            symbols=tuple(data["symbols"]),
        )

    def _repr_mimebundle_(self, **options: object) -> dict[str, Any]:
        lines = [self.sentence]
        for mistake in self.mistakes:
            lines += [f"Refuted: {mistake.sentence}.", f"$$\n{mistake.latex}\n$$"]
        return {
            "text/plain": self.sentence,
            "text/markdown": "\n\n".join(lines),
            MIME: self.to_json(),
        }


def one_digit(error: float) -> str:
    """A relative error rounded down to one digit, so that a second run prints the same."""
    if not isfinite(error):
        return "not finite"
    magnitude = 10.0 ** floor(log10(error))
    return f"{floor(error / magnitude) * magnitude:g}"
