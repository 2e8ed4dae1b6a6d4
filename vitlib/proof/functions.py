"""Functions a formula may name, each for numbers and for SymPy expressions."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import sympy

from vitlib.proof.errors import MismatchError
from vitlib.proof.values import Array, Value

_erf: Callable[[Array], Array] = np.vectorize(math.erf, otypes=[float])


def _entries(function: Callable[..., Any], arguments: int = 1) -> Callable[..., Array]:
    return np.frompyfunc(function, arguments, 1)


# name: (on floats, on SymPy expressions), entry by entry
ELEMENTWISE: dict[str, tuple[Callable[..., Array], Callable[..., Array]]] = {
    "exp": (np.exp, _entries(sympy.exp)),
    "log": (np.log, _entries(sympy.log)),
    "sqrt": (np.sqrt, _entries(sympy.sqrt)),
    "tanh": (np.tanh, _entries(sympy.tanh)),
    "sin": (np.sin, _entries(sympy.sin)),
    "cos": (np.cos, _entries(sympy.cos)),
    "abs": (np.abs, _entries(sympy.Abs)),
    "sign": (np.sign, _entries(sympy.sign)),
    "floor": (np.floor, _entries(sympy.floor)),
    "ceil": (np.ceil, _entries(sympy.ceiling)),
    "erf": (_erf, _entries(sympy.erf)),
    "Phi": (
        lambda x: (1 + _erf(x / math.sqrt(2))) / 2,
        _entries(lambda x: (1 + sympy.erf(x / sympy.sqrt(2))) / 2),
    ),
    "phi": (
        lambda x: np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi),
        _entries(lambda x: sympy.exp(-(x**2) / 2) / sympy.sqrt(2 * sympy.pi)),
    ),
    "max": (np.maximum, _entries(sympy.Max, 2)),
    "min": (np.minimum, _entries(sympy.Min, 2)),
}


@dataclass(frozen=True)
class Arithmetic:
    """What the entries of arrays are: floats, or SymPy expressions.

    Attributes:
        symbolic: Whether entries are SymPy expressions.
    """

    symbolic: bool = False

    def array(self, values: Any) -> Array:
        """Numbers as entries of this kind; whole numbers stay whole."""
        array = np.asarray(values)
        if self.symbolic:
            return np.asarray(_entries(sympy.sympify)(array), dtype=object)
        return array if array.dtype.kind in "iu" else array.astype(float)

    def number(self, text: str) -> Value:
        """A number literal, exact if symbolic."""
        if self.symbolic:
            return Value(self.array(sympy.Rational(text)))
        return Value(self.array(float(text) if "." in text else int(text)))

    def constant(self, name: str) -> Value | None:
        """Euler's number `e` and `pi`."""
        constants = {"e": sympy.E, "pi": sympy.pi}
        if name not in constants:
            return None
        return Value(self.array(constants[name]))

    def function(self, name: str) -> Callable[..., Array]:
        """The elementwise function of this name."""
        return ELEMENTWISE[name][int(self.symbolic)]


def _sum(axis: int, value: Value, arithmetic: Arithmetic) -> Value:
    return Value(value.data.sum(axis=axis, keepdims=True), value.letters)


def _mean(axis: int, value: Value, arithmetic: Arithmetic) -> Value:
    total = _sum(axis, value, arithmetic)
    return Value(total.data / arithmetic.array(value.data.shape[axis]), value.letters)


def _rowmax(value: Value, arithmetic: Arithmetic) -> Value:
    function: Any = arithmetic.function("max")
    return Value(function.reduce(value.data, axis=-1, keepdims=True), value.letters)


def _softmax(value: Value, arithmetic: Arithmetic) -> Value:
    powers = arithmetic.function("exp")(value.data)
    return Value(powers / powers.sum(axis=-1, keepdims=True), value.letters)


def _diagonal(value: Value, arithmetic: Arithmetic) -> Value:
    """A row or column as a diagonal matrix; the diagonal of a square matrix as a row."""
    rows, columns = value.shape[-2:]
    if rows == columns:
        diagonal = np.diagonal(value.data, axis1=-2, axis2=-1)
        return Value(diagonal[..., None, :], value.letters)
    if 1 not in (rows, columns):
        raise MismatchError(f"diag takes a row, a column or a square matrix, not {value.shape}")
    size = max(rows, columns)
    row = value.data.reshape(*value.data.shape[:-2], 1, size)
    return Value(row * arithmetic.array(np.eye(size, dtype=int)), value.letters)


def _trace(value: Value, arithmetic: Arithmetic) -> Value:
    if value.shape[-1] != value.shape[-2]:
        raise MismatchError(f"tr takes a square matrix, not {value.shape}")
    return Value(np.trace(value.data, axis1=-2, axis2=-1), value.letters)


def _norm(value: Value, arithmetic: Arithmetic) -> Value:
    axes = tuple(range(len(value.letters), value.data.ndim))
    return Value(
        arithmetic.function("sqrt")(np.asarray((value.data**2).sum(axis=axes))), value.letters
    )


# Functions of whole matrices; those of rows and columns keep the axis, with length 1.
OF_MATRICES: Mapping[str, Callable[[Value, Arithmetic], Value]] = {
    "softmax": _softmax,
    "rowsum": partial(_sum, -1),
    "rowmean": partial(_mean, -1),
    "rowmax": _rowmax,
    "colsum": partial(_sum, -2),
    "colmean": partial(_mean, -2),
    "diag": _diagonal,
    "tr": _trace,
    "norm": _norm,
}

# Over the outcomes of a random variable, all equally likely: see `vitlib.proof.outcomes`.
OUTCOMES = "outcomes"


def expectation(value: Value, arithmetic: Arithmetic) -> Value:
    """Mean over the outcomes."""
    if OUTCOMES not in value.letters:
        return value
    axis = value.letters.index(OUTCOMES)
    letters = tuple(letter for letter in value.letters if letter != OUTCOMES)
    return Value(value.data.sum(axis=axis) / arithmetic.array(value.data.shape[axis]), letters)


def variance(value: Value, arithmetic: Arithmetic) -> Value:
    """Mean square minus squared mean, over the outcomes."""
    mean = expectation(value, arithmetic)
    square = expectation(Value(value.data**2, value.letters), arithmetic)
    return Value(square.data - mean.data**2, mean.letters)


OF_RANDOM_VARIABLES: Mapping[str, Callable[[Value, Arithmetic], Value]] = {
    "E": expectation,
    "Var": variance,
}
