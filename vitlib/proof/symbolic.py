"""The derivative of a printed formula, taken by SymPy."""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import sympy

from vitlib.proof.environment import Environment
from vitlib.proof.evaluate import evaluate
from vitlib.proof.functions import Arithmetic
from vitlib.proof.syntax import Call, Formula, Node, Symbol
from vitlib.proof.values import Array

SYMBOLS = Arithmetic(symbolic=True)


@dataclass(frozen=True)
class _Definition:
    """A quantity or a function of one number, as a printed formula defines it."""

    name: str
    value: Array
    argument: str | None


def differentiated(
    forward: list[Formula], variable: str, case: Environment, indices: Mapping[str, str]
) -> Environment:
    r"""An environment of symbols in which the derivatives of printed formulas are SymPy's.

    Args:
        forward: Formulas whose left sides are defined one after the other by their right sides:
            `\mathbf A = ...`, `a_j = ...` or `f(x) = ...`.
        variable: Name of what the last one is differentiated by.
        case: A case from which the shapes are taken; its sizes stay numbers.
        indices: Ranges of index letters that stand alone nowhere.

    Returns:
        Symbols for all arrays and numbers, except that the quantities defined are expressions.
    """
    arrays = {name: _symbols(name, array.shape) for name, array in case.arrays.items()}
    scalars: dict[str, object] = {
        name: value if name in case.sizes else sympy.Symbol(name, real=True)
        for name, value in case.scalars.items()
    }
    functions: dict[str, Callable[..., Array]] = {}
    environment = Environment(arrays, scalars, case.sizes, functions)
    last: _Definition | None = None
    for formula in forward:
        last = _defined(formula, environment, indices)
        if last.argument:
            functions[last.name] = _function(last.value[()], scalars[last.argument])
        elif last.name in arrays:
            arrays[last.name] = last.value.reshape(arrays[last.name].shape)
        else:
            scalars[last.name] = last.value[()]
    if last is None:
        raise ValueError("derivative_of names no formula: give its label and the variable")
    if variable not in arrays and variable not in scalars:
        raise ValueError(f"derivative_of asks for {variable}, which the formula does not contain")
    by = arrays.get(variable, np.asarray(scalars.get(variable)))
    if last.argument:
        slope = sympy.diff(last.value[()], scalars[last.argument])
        functions[f"{last.name}'"] = _function(slope, scalars[last.argument])
    of = arrays.get(last.name, np.asarray(last.value))
    jacobian = np.empty((*of.shape, *by.shape), dtype=object)
    for place in np.ndindex(jacobian.shape):
        jacobian[place] = sympy.diff(of[place[: of.ndim]], by[place[of.ndim :]])
    cotangent = _symbols(f"grad_{last.name}", of.shape)
    gradients = {last.name: cotangent, variable: np.tensordot(cotangent, jacobian, of.ndim)}
    return Environment(
        arrays,
        scalars,
        case.sizes,
        functions,
        gradient=lambda name: gradients[name],
        jacobian=lambda a, b: {(last.name, variable): jacobian}[a, b],
    )


def unequal(
    sides: tuple[Node, ...], environment: Environment, latex: str, indices: Mapping[str, str]
) -> tuple[int, Any] | None:
    """The first side that SymPy does not find equal to the one before, and an entry that is left.

    Returns:
        Number of the side and the difference; None if all sides are equal.
    """
    values = evaluate(sides, environment, latex, arithmetic=SYMBOLS, indices=indices).sides
    for number, (left, right) in enumerate(itertools.pairwise(values), start=1):
        for entry in dict.fromkeys(np.ravel(left - right)):
            rest = sympy.simplify(entry)
            if rest != 0:
                return number, rest
    return None


def _symbols(name: str, shape: tuple[int, ...]) -> Array:
    array = np.empty(shape, dtype=object)
    for place in np.ndindex(shape):
        array[place] = sympy.Symbol("_".join([name, *map(str, place)]), real=True)
    return array


def _function(expression: Any, argument: Any) -> Callable[..., Array]:
    return np.frompyfunc(lambda x: expression.subs(argument, x), 1, 1)


def _defined(formula: Formula, environment: Environment, indices: Mapping[str, str]) -> _Definition:
    left, right = formula.chains[0][0], formula.chains[0][-1]
    if (
        isinstance(left, Call)
        and len(left.arguments) == 1
        and isinstance(left.arguments[0], Symbol)
    ):
        (value,) = evaluate((right,), environment, formula.latex, arithmetic=SYMBOLS).sides
        return _Definition(left.function, value, left.arguments[0].name)
    name = _name(left, environment)
    # The left side takes part so that its letters put the axes in order.
    sides = evaluate((left, right), environment, formula.latex, arithmetic=SYMBOLS, indices=indices)
    return _Definition(name, sides.sides[1], None)


def _name(node: Node, environment: Environment) -> str:
    if not isinstance(node, Symbol):
        raise ValueError("the left side of a formula that is differentiated must be a symbol")
    full = f"{node.name}_{node.subscript.text}" if node.subscript else node.name
    capital = node.name[0].upper() + node.name[1:]
    known = {*environment.arrays, *environment.scalars}
    return next((name for name in (full, node.name, capital) if name in known), node.name)
