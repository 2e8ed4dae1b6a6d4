"""How far a formula is from holding, in one case."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf

import numpy as np

from vitlib.proof.environment import Environment
from vitlib.proof.errors import ShapeError
from vitlib.proof.evaluate import Evaluated, evaluate
from vitlib.proof.syntax import Formula, first_position

# Below this part of the largest value that enters, a side is taken to be zero.
_VANISHING = 1e-9


@dataclass(frozen=True)
class Gap:
    """The difference between the two sides of one `=`.

    Attributes:
        error: Largest difference of entries, relative to the scale of the equation; infinite if it
            is not finite.
        position: Where the side behind the `=` begins.
    """

    error: float
    position: int


@dataclass(frozen=True)
class Measurement:
    """A formula in one case.

    Attributes:
        gaps: One for each `=`.
        scales: For each equation what its errors are relative to.
        symbols: Names that the formula uses.
    """

    gaps: tuple[Gap, ...]
    scales: tuple[float, ...]
    symbols: frozenset[str]

    @property
    def worst(self) -> Gap:
        """The gap with the largest error."""
        return max(self.gaps, key=lambda gap: gap.error)


def measure(
    formula: Formula,
    environment: Environment,
    indices: Mapping[str, str],
    scales: Sequence[float] = (),
) -> Measurement:
    """Evaluate a formula and compare neighbouring sides.

    Errors are relative to the largest value of the sides; where gradients occur, to the largest
    gradient of the computation if that is larger, since some gradients are exactly zero; where all
    sides vanish, to the largest value that enters them.

    Args:
        formula: What is printed, or an edit of it.
        environment: What the symbols stand for.
        indices: Ranges of index letters that stand alone nowhere.
        scales: Scales of the true formula, if this is an edit of it.

    Raises:
        FormulaError: The formula has no value.
    """
    gaps: list[Gap] = []
    own: list[float] = []
    symbols: frozenset[str] = frozenset()
    for number, chain in enumerate(formula.chains):
        evaluated = evaluate(chain, environment, formula.latex, indices=indices)
        own.append(_scale(evaluated, environment))
        symbols |= evaluated.symbols
        scale = scales[min(number, len(scales) - 1)] if scales else own[-1]
        for left, right, side in zip(evaluated.sides, evaluated.sides[1:], chain[1:], strict=False):
            difference = float(np.abs(left - right).max())
            error = difference / scale if difference else 0.0
            gaps.append(Gap(error if np.isfinite(error) else inf, first_position(side)))
    return Measurement(tuple(gaps), tuple(own), symbols)


def least_error(
    formula: Formula,
    cases: Sequence[Environment],
    truths: Sequence[Measurement],
    indices: Mapping[str, str],
) -> float | None:
    """The least error of an edited formula over all cases; None if its shapes do not fit."""
    try:
        return min(
            measure(formula, case, indices, truth.scales).worst.error
            for case, truth in zip(cases, truths, strict=True)
        )
    except ShapeError:
        return None


def _scale(evaluated: Evaluated, environment: Environment) -> float:
    largest = max(float(np.abs(side).max()) for side in evaluated.sides)
    if any(name.startswith("grad_") for name in evaluated.symbols):
        return max(largest, environment.gradient_scale())
    entering = [_size(name, environment) for name in evaluated.symbols]
    enters = max(entering, default=0.0)
    return largest if largest > _VANISHING * enters else enters


def _size(name: str, environment: Environment) -> float:
    """Largest entry of what a name of `Evaluated.symbols` stands for."""
    of, _, by = name.partition(" by ")
    if by:
        return float(np.abs(environment.jacobian(of, by)).max())
    return float(np.abs(environment.arrays.get(name, np.zeros(1))).max())
