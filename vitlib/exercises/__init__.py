"""The book's graded exercises.

A chapter asks for a function and ends the cell with `grade("name-of-the-exercise", function)`,
which says what is right or what is not yet. A grade never raises: a stub is where everybody starts.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib import import_module
from numbers import Real
from pkgutil import iter_modules
from typing import Any

import torch
from torch import Tensor

__all__ = ["Grade", "exercise", "expect", "grade", "names", "results"]

Answer = Callable[..., Any]

_CHECKS: dict[str, Callable[[Answer], None]] = {}
_passed: list[str] = []  # of the answer that is being graded


@dataclass(frozen=True)
class Grade:
    """What became of an answer.

    Args:
        exercise: its name.
        passed: whether every check passed.
        remarks: one for each check that passed, and the reason of the one that did not.
    """

    exercise: str
    passed: bool
    remarks: tuple[str, ...] = field(default=())

    def __repr__(self) -> str:
        head = f"{'✓' if self.passed else '✗'} {self.exercise}"
        return "\n".join([head, *(f"    {remark}" for remark in self.remarks)])


def exercise(name: str) -> Callable[[Callable[[Answer], None]], Callable[[Answer], None]]:
    """Register the checks of an exercise: a function of the reader's answer that calls `expect`."""

    def register(checks: Callable[[Answer], None]) -> Callable[[Answer], None]:
        _CHECKS[name] = checks
        return checks

    return register


def expect(actual: object, expected: Tensor | float, what: str, *, atol: float = 1e-9) -> None:
    """Hold one result of the reader's function against the right one.

    Args:
        actual: what the reader's function returned.
        expected: the right tensor or number.
        what: what is checked, as a statement that is true of a right answer.
        atol: largest absolute difference allowed.

    Raises:
        AssertionError: saying what is not yet right.
    """
    reference = _tensor(expected)
    if actual is None:
        raise AssertionError(f"returns nothing yet. Wanted: {what}.")
    if not isinstance(actual, Tensor | Real):
        raise AssertionError(f"returns a {type(actual).__name__}, not a tensor. Wanted: {what}.")
    result = actual if isinstance(actual, Tensor) else _tensor(float(actual))
    if result.shape != reference.shape:
        raise AssertionError(
            f"returns shape {tuple(result.shape)} where {tuple(reference.shape)} is right. "
            f"Wanted: {what}."
        )
    error = (result.double() - reference.double()).abs().max().item() if result.numel() else 0.0
    if not error <= atol:
        raise AssertionError(f"is off by {error:.1g}. Wanted: {what}.")
    _passed.append(what)


def results(returned: object, count: int) -> tuple[Any, ...]:
    """What the reader's function returned, where it should return several things.

    Args:
        returned: what came back; nothing, from a stub, counts as so many times nothing.
        count: how many things there should be.

    Raises:
        AssertionError: if there are more, or fewer.
    """
    if returned is None:
        return (None,) * count
    if not isinstance(returned, tuple | list):
        raise AssertionError(f"returns a {type(returned).__name__}, not {count} results.")
    found: tuple[Any, ...] = tuple(returned)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    if len(found) != count:
        raise AssertionError(f"returns {len(found)} results, not {count}.")
    return found


def _tensor(value: Tensor | float) -> Tensor:
    """A tensor as it is; a plain number in the precision that Python has it."""
    return value if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.float64)


def grade(name: str, answer: Answer) -> Grade:
    """Run the checks of an exercise on the reader's answer.

    Args:
        name: the exercise, as the chapter writes it.
        answer: the reader's function.

    Raises:
        ValueError: if there is no such exercise.
    """
    checks = _all().get(name)
    if checks is None:
        near = get_close_matches(name, _CHECKS, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else f" There are: {', '.join(names())}."
        raise ValueError(f"no exercise is called {name!r}.{hint}")
    _passed.clear()
    try:
        checks(answer)
    except AssertionError as reason:
        return Grade(name, False, (*_passed, str(reason)))
    except Exception as error:  # whatever the reader's code raises is a remark, not a crash
        return Grade(name, False, (*_passed, f"raises {type(error).__name__}: {error}"))
    return Grade(name, True, tuple(_passed))


def names() -> tuple[str, ...]:
    """The names of all exercises, in alphabetical order."""
    return tuple(sorted(_all()))


def _all() -> dict[str, Callable[[Answer], None]]:
    """All checks; the parts register theirs when they are imported."""
    for part in iter_modules(__path__):
        import_module(f"{__name__}.{part.name}")
    return _CHECKS
