"""The ledger of a page: every labelled formula is run as it is printed."""

import json
import sys
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from vitlib.proof.chapter import equations as displays_of
from vitlib.proof.edits import Edit
from vitlib.proof.environment import Environment
from vitlib.proof.errors import FormulaError, pointed
from vitlib.proof.evidence import Evidence, Refutation, one_digit
from vitlib.proof.latex import parse
from vitlib.proof.measure import Measurement, least_error, measure
from vitlib.proof.mutants import Mutant, mutants
from vitlib.proof.oracles import Computation, array_functions, given
from vitlib.proof.symbolic import differentiated, unequal
from vitlib.proof.syntax import Formula, first_position

REFUTED = 1e-3
_SMALL = 3  # largest size in symbolic checks

Truth = Computation | Callable[[np.random.Generator], Mapping[str, object]]


@dataclass(frozen=True)
class _Check:
    """A check that passed, with all that is needed to run it on another formula."""

    functions: frozenset[str]
    cases: list[Environment]
    truths: list[Measurement]
    indices: Mapping[str, str]
    tolerance: float


class Page:
    """The formulas of a page and the evidence for them; made by `open_page`.

    Attributes:
        name: The chapter, such as `attention/gradients`.
        equations: LaTeX of the displays by label.
        evidence: Evidence by label, for the checks that passed.
    """

    def __init__(self, name: str, equations: Mapping[str, str], root: Path | None = None):
        self.name = name
        self.equations = dict(equations)
        self.evidence: dict[str, Evidence] = {}
        self._root = root
        self._checks: dict[str, _Check] = {}
        self._errors: dict[str, list[float]] = {}

    def check(
        self,
        label: str,
        truth: Truth,
        *,
        tolerance: float = 1e-12,
        cases: int = 5,
        mistakes: Sequence[Edit] = (),
        functions: Mapping[str, Callable[..., Tensor]] | None = None,
        indices: Mapping[str, str] | None = None,
        derivative_of: tuple[str | Sequence[str], str] | None = None,
        oracle: str | None = None,
    ) -> None:
        r"""Check that a display holds as printed and that mistakes in it do not.

        The evidence is shown (in a notebook as output of the cell) and kept in `evidence`.

        Args:
            label: Label of the display.
            truth: A computation, or a function of a random generator that returns values by name
                (arrays, numbers, `outcomes`; `grad_X` is the gradient of X).
            tolerance: Largest error, relative to the largest value or gradient.
            cases: Number of random cases.
            mistakes: Edits of the formula, each of which must fail in every case.
            functions: Functions that the formula names, from tensors to a tensor; `f'` is then
                the derivative of `f`.
            indices: Ranges of index letters that stand alone below no array: `{"p": "P"}`.
            derivative_of: Label (or labels, in order) of the formula whose derivative this is, and
                the name of what it is differentiated by: SymPy differentiates what is printed
                there and must find what is printed here.
            oracle: What to call the truth, if not PyTorch's forward pass.

        Raises:
            AssertionError: The formula does not hold, a mistake does, or two oracles disagree.
            FormulaError: The formula cannot be read or has no value.
            ValueError: No such label, or a mistake that edits what is not printed.
        """
        latex = self._latex(label)
        names = frozenset(functions or {}) | _functions_of(truth)
        indices = dict(indices or {})
        try:
            formula = parse(latex, names)
            environments = [_case(label, n, truth, functions or {}) for n in range(cases)]
            truths = [measure(formula, environment, indices) for environment in environments]
        except FormulaError as error:
            raise type(error)(f"{label}: {error.problem}", error.latex, error.position) from None
        except AssertionError as error:
            raise AssertionError(f"{label}: {error}") from None
        for number, measurement in enumerate(truths):
            gap = measurement.worst
            if not gap.error <= tolerance:
                raise AssertionError(
                    f"{label}: does not hold as printed: relative error {gap.error:.1e} in case"
                    f" {number + 1}, allowed {tolerance:.0e}; this side differs from the one before"
                    f"\n{pointed(latex, gap.position)}"
                )
        if derivative_of:
            self._check_derivative(
                label,
                formula,
                derivative_of,
                _case(label, 0, truth, functions or {}, _SMALL),
                names,
                indices,
            )
        check = _Check(names, environments, truths, indices, tolerance)
        refutations = tuple(_refute(label, latex, mistake, check) for mistake in mistakes)
        symbols = frozenset[str]().union(*(measurement.symbols for measurement in truths))
        evidence = Evidence(
            label=label,
            latex=latex,
            oracles=_oracles(truth, symbols, oracle, derivative_of is not None),
            cases=cases,
            bound=tolerance,
            mistakes=refutations,
            symbols=tuple(sorted(symbols)),
        )
        self._checks[label] = check
        self.evidence[label] = evidence
        self._record(label, truths)
        _show(evidence)

    def recheck(self, label: str, latex: str) -> float:
        """Error of another formula under a check that passed before.

        Args:
            label: Label of the display.
            latex: What to put in its place.

        Returns:
            The least relative error over all cases; infinite if the shapes do not fit.

        Raises:
            FormulaError: The formula cannot be read.
            ValueError: Nothing was checked under this label.
        """
        check = self._checked(label)
        error = least_error(parse(latex, check.functions), check.cases, check.truths, check.indices)
        return inf if error is None else error

    def mutants(self, label: str) -> list[Mutant]:
        """What is printed, with one thing lost from it at a time.

        Args:
            label: Label of a display that was checked.

        Raises:
            ValueError: Nothing was checked under this label.
        """
        return mutants(self._latex(label), self._checked(label).functions)

    def holds(self, label: str, latex: str) -> bool:
        """Whether a check that passed before would pass with another formula.

        Args:
            label: Label of the display.
            latex: What to put in its place.

        Returns:
            Whether it has a value in every case, to within the tolerance of the check.

        Raises:
            FormulaError: The formula cannot be read.
            ValueError: Nothing was checked under this label.
        """
        check = self._checked(label)
        formula = parse(latex, check.functions)
        try:
            return all(
                measure(formula, case, check.indices).worst.error <= check.tolerance
                for case in check.cases
            )
        except FormulaError:
            return False

    def _checked(self, label: str) -> _Check:
        if label not in self._checks:
            raise ValueError(f"{label} was not checked on {self.name}: check it first")
        return self._checks[label]

    def _latex(self, label: str) -> str:
        if label not in self.equations:
            close = get_close_matches(label, self.equations)
            advice = f"did you mean {close[0]}?" if close else "label a {math} directive with it"
            raise ValueError(f"no display of {self.name} has the label {label}: {advice}")
        return self.equations[label]

    def _check_derivative(
        self,
        label: str,
        formula: Formula,
        derivative_of: tuple[str | Sequence[str], str],
        case: Environment,
        functions: frozenset[str],
        indices: Mapping[str, str],
    ) -> None:
        sources, variable = derivative_of
        labels = [sources] if isinstance(sources, str) else list(sources)
        forward = [parse(self._latex(source), functions) for source in labels]
        environment = differentiated(forward, variable, case, indices)
        for chain in formula.chains:
            found = unequal(chain, environment, formula.latex, indices)
            if found is not None:
                number, rest = found
                raise AssertionError(
                    f"{label}: SymPy's derivative of {' and '.join(labels)} is not what is printed:"
                    f" this side differs from the one before by {rest}"
                    f"\n{pointed(formula.latex, first_position(chain[number]))}"
                )

    def _record(self, label: str, truths: list[Measurement]) -> None:
        """Write the raw errors beside the build; they differ from machine to machine."""
        self._errors[label] = [measurement.worst.error for measurement in truths]
        if self._root is not None:
            path = self._root / "_build" / "ledger" / f"{self.name}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(self._errors, indent=1) + "\n", encoding="utf-8")


def open_page(name: str, equations: Mapping[str, str] | None = None) -> Page:
    """Open the ledger of a chapter.

    Args:
        name: The chapter without its ending: `attention/gradients` is
            `book/attention/gradients.md`, sought from the working directory upwards.
        equations: LaTeX by label, in place of a file.

    Raises:
        FileNotFoundError: There is no such chapter.
        ValueError: Two displays have one label.
    """
    if equations is not None:
        return Page(name, equations)
    for folder in (Path.cwd(), *Path.cwd().parents):
        path = folder / "book" / f"{name}.md"
        if path.is_file():
            break
    else:
        raise FileNotFoundError(
            f"no book/{name}.md in {Path.cwd()} or above: run this in the book, or give equations="
        )
    found: dict[str, str] = {}
    for display in displays_of(path):
        if display.label in found:
            raise ValueError(f"{path}, line {display.line}: the label {display.label} is taken")
        if display.label:
            found[display.label] = display.latex
    return Page(name, found, folder)


def _case(
    label: str,
    number: int,
    truth: Truth,
    functions: Mapping[str, Callable[..., Tensor]],
    largest: int | None = None,
) -> Environment:
    """One random case, the same whenever the same label is checked."""
    rng = np.random.default_rng([zlib.crc32(label.encode()), number])
    drawn = truth(rng, largest) if isinstance(truth, Computation) else given(truth(rng))
    return replace(drawn, functions={**drawn.functions, **array_functions(functions)})


def _functions_of(truth: Truth) -> frozenset[str]:
    return frozenset(truth.functions) if isinstance(truth, Computation) else frozenset()


def _refute(label: str, latex: str, mistake: Edit, check: _Check) -> Refutation:
    try:
        edited = mistake.of(latex)
    except ValueError as error:
        raise ValueError(f"{label}: {error}") from None
    try:
        formula = parse(edited, check.functions)
        error = least_error(formula, check.cases, check.truths, check.indices)
    except FormulaError as problem:
        text = f"{label}: the mistake {mistake.why!r} is no formula: {problem.problem}"
        raise FormulaError(text, problem.latex, problem.position) from None
    if error is not None and not error > REFUTED:
        raise AssertionError(
            f"{label}: the mistake {mistake.why!r} is not refuted: with {mistake.new!r} for"
            f" {mistake.old!r} the relative error is {error:.1e}, to be refuted it must exceed"
            f" {REFUTED:.0e}"
        )
    return Refutation(edited, mistake.why, "wrong shape" if error is None else one_digit(error))


def _oracles(
    truth: Truth, symbols: frozenset[str], oracle: str | None, symbolic: bool
) -> tuple[str, ...]:
    found = [oracle] if oracle else []
    derived = any(s.startswith("grad_") or " by " in s or s.endswith("'") for s in symbols)
    if derived and isinstance(truth, Computation):
        found += ["autograd", "finite differences"]
    if symbolic:
        found.append("SymPy")
    if not found:
        found.append("PyTorch" if isinstance(truth, Computation) else "random values")
    return tuple(found)


def _show(evidence: Evidence) -> None:
    """Once, whatever the number of checks in a cell: as output, or as a line of text."""
    ipython: Any = sys.modules.get("IPython")
    if ipython is not None and ipython.get_ipython() is not None:
        ipython.display.display(evidence)
    else:
        print(evidence)
