r"""The value of a printed formula.

One evaluator serves matrix notation and index notation, floats and SymPy expressions: see
`vitlib.proof.values` for the first pair and `vitlib.proof.functions` for the second.

A letter alone in a subscript is an index, and runs over the axis it stands on. Entries count from
0, which matters where indices are computed with (`I_{c,\, iP+p,\, jP+q}`): the letter i is then one
of the numbers 0, 1, 2, ... Where a letter stands on no axis alone, its range comes from the bounds
of its sum or from `indices`.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from vitlib.proof import operators
from vitlib.proof.environment import Environment
from vitlib.proof.errors import MismatchError, ShapeError
from vitlib.proof.functions import ELEMENTWISE, OF_MATRICES, OF_RANDOM_VARIABLES, Arithmetic
from vitlib.proof.indices import Indices
from vitlib.proof.operators import Operand
from vitlib.proof.syntax import (
    Binary,
    Call,
    Derivative,
    Entry,
    Negative,
    Node,
    Number,
    Power,
    Reduction,
    Symbol,
    Transpose,
    first_position,
)
from vitlib.proof.values import (
    Array,
    Unshaped,
    Value,
    aligned,
    elementwise,
    entries,
    transpose,
)

_OPERATORS = {
    "+": operators.add,
    "-": operators.subtract,
    "/": operators.quotient,
    "odot": operators.hadamard,
    "bmod": operators.remainder,
    "cdot": operators.product,
    "juxtaposed": operators.product,
}


class Evaluated(NamedTuple):
    """An equation with values.

    Attributes:
        sides: One array for each side, all of one shape.
        symbols: Names of the arrays, numbers and derivatives that occur.
    """

    sides: list[Array]
    symbols: frozenset[str]


def evaluate(
    sides: tuple[Node, ...],
    environment: Environment,
    latex: str,
    *,
    arithmetic: Arithmetic | None = None,
    indices: Mapping[str, str] | None = None,
) -> Evaluated:
    """Evaluate all sides of an equation.

    Args:
        sides: The sides, as parsed.
        environment: What the symbols stand for.
        latex: The formula that the sides come from, for errors.
        arithmetic: Floats if None.
        indices: Ranges of index letters that stand alone nowhere, as LaTeX: `{"p": "P"}`.

    Returns:
        The sides and the names they use.

    Raises:
        ShapeError: Shapes or free indices do not fit, within a side or between sides.
        FormulaError: Anything else that keeps the formula from having a value.
    """
    evaluator = _Evaluator(sides, environment, latex, arithmetic or Arithmetic(), indices or {})
    with np.errstate(all="ignore"):
        return Evaluated(evaluator.sides(sides), frozenset(evaluator.used))


class _Evaluator(Indices):
    def sides(self, sides: tuple[Node, ...]) -> list[Array]:
        found = [self.operand(side) for side in sides]
        shaped = next((value for value in found if isinstance(value, Value)), None)
        if shaped is None:
            self.fail("no side has a shape", sides[0])
        values: list[Value] = []
        for side, value in zip(sides, found, strict=True):
            try:
                if isinstance(value, Value):
                    self.comparable(value, shaped)
                values.append(value if isinstance(value, Value) else value.filled(shaped.shape))
            except MismatchError as mismatch:
                raise ShapeError(str(mismatch), self.latex, first_position(side)) from None
        _, arrays = aligned(*values)
        shape = np.broadcast_shapes(*(array.shape for array in arrays))
        return [np.broadcast_to(array, shape) for array in arrays]

    def comparable(self, value: Value, other: Value) -> None:
        if other.is_number and value.is_number and not (value.letters and other.letters):
            return  # a plain number is compared with every entry
        for letter in sorted(set(value.letters) ^ set(other.letters)):
            raise MismatchError(f"the index {letter} is free on one side only")
        if value.shape != other.shape and not (value.is_number and other.is_number):
            raise MismatchError(f"this side has the shape {value.shape}, another {other.shape}")
        aligned(value, other)

    def operand(self, node: Node) -> Operand:
        """Value of a node; what does not fit together is reported at the node."""
        try:
            return self.dispatch(node)
        except MismatchError as mismatch:
            raise ShapeError(str(mismatch), self.latex, node.position) from None

    def value(self, node: Node) -> Value:
        operand = self.operand(node)
        if isinstance(operand, Unshaped):
            self.fail("the shape is not clear from here", node)
        return operand

    def dispatch(self, node: Node) -> Operand:
        match node:
            case Number(text=text):
                return self.arithmetic.number(text)
            case Symbol():
                return self.symbol(node)
            case Entry(base=base, indices=indices):
                value = self.value(base)
                return self.lookup(node, value.data, indices, bold=True, hidden=value.letters)
            case Derivative(of=of, by=by):
                return self.derivative(node, of, by)
            case Negative(operand=inner):
                minus_one = Value(self.arithmetic.array(-1))
                return operators.product(minus_one, self.operand(inner))
            case Binary(operator=operator, left=left, right=right):
                return _OPERATORS[operator](self.operand(left), self.operand(right))
            case Power(base=base, exponent=exponent, elementwise=each_entry):
                return operators.power(self.value(base), self.value(exponent), each_entry)
            case Transpose(operand=inner):
                value = self.operand(inner)
                if isinstance(value, Unshaped):
                    return replace(value, transposed=not value.transposed)
                return transpose(value)
            case Call(function=name, arguments=arguments):
                return self.call(node, name, [self.value(argument) for argument in arguments])
            case Reduction():
                return self.reduction(node)
            case _:
                raise TypeError(f"{type(node).__name__} has no value")

    def symbol(self, symbol: Symbol) -> Operand:
        environment = self.environment
        subscript = symbol.subscript
        if self.is_special(symbol):
            one = Value(self.arithmetic.array(1))
            special = Unshaped("0" if symbol.name == "0" else "1", one)
            if symbol.name == "I":
                special = Unshaped("I", one)
            if subscript is None or subscript.indices is None:
                return special
            size = int(self.value(subscript.indices[0]).data)
            return special.filled((size, size if symbol.name == "I" else 1))
        if self.is_kronecker(symbol) and subscript and subscript.indices:
            first, second = (self.index(index) for index in subscript.indices)
            equal = elementwise(np.equal, first, second)
            return replace(equal, data=self.arithmetic.array(equal.data.astype(int)))
        if subscript is None and not symbol.bold and self.is_letter_here(symbol):
            return self.letter(symbol)
        name, indices = self.locate(symbol)
        if name in environment.scalars and not (symbol.bold or indices):
            self.used.add(name)
            return Value(self.arithmetic.array(environment.scalars[name]))
        if name not in environment.arrays:
            constant = self.arithmetic.constant(name)
            return constant or self.unknown(symbol)
        self.used.add(name)
        array = self.arithmetic.array(environment.arrays[name])
        hidden = environment.hidden.get(name, ())
        return self.lookup(symbol, array, indices, symbol.bold, hidden)

    def lookup(
        self,
        node: Node,
        array: Array,
        indices: tuple[Node, ...],
        bold: bool,
        hidden: tuple[str, ...],
    ) -> Value:
        """Entries, rows or all of an array."""
        first = len(hidden)
        shape = array.shape[first:]
        axes = self.axes(shape, len(indices), bold, node)
        if axes and len(axes) >= sum(size > 1 for size in shape):  # what is left are numbers
            array = array.reshape(array.shape[:first] + tuple(shape[axis] for axis in axes))
            axes = list(range(len(axes)))
        places = [
            self.index(index, array.shape[first + axis])
            for index, axis in zip(indices, axes, strict=True)
        ]
        return entries(array, axes, places, hidden)

    def derivative(self, node: Node, of: Symbol | Entry, by: Symbol | Entry) -> Value:
        target, below = self.locate(by)
        loss = isinstance(of, Symbol) and of.name == "ell" and of.subscript is None
        source, above = ("ell", ()) if loss else self.locate(of)
        environment = self.environment
        try:
            found = environment.gradient(target) if loss else environment.jacobian(source, target)
        except KeyError:
            self.fail(f"nothing is known of the derivative of {source} by {target}", node)
        self.used.add(f"grad_{target}" if loss else f"{source} by {target}")
        array = self.arithmetic.array(found)
        bold = isinstance(by, Entry) or by.bold
        if loss:
            return self.lookup(by, array, below, bold, ())
        return self.jacobian(node, array, (source, above), (target, below))

    def jacobian(
        self,
        node: Node,
        array: Array,
        of: tuple[str, tuple[Node, ...]],
        by: tuple[str, tuple[Node, ...]],
    ) -> Value:
        """Entries of a Jacobian, or the matrix that two rows have: its rows are those of `of`."""
        shapes = [self.shape_of(name) for name, _ in (of, by)]
        kept = [tuple(size for size in shape if size > 1) for shape in shapes]
        array = array.reshape(kept[0] + kept[1])
        axes: list[int] = []
        for (name, indices), sizes, start in ((of, kept[0], 0), (by, kept[1], len(kept[0]))):
            if len(indices) not in (len(sizes), len(sizes) - 1):
                self.fail(f"{name} has {len(sizes)} axes, here are {len(indices)} indices", node)
            axes.extend(range(start, start + len(indices)))
        if (array.ndim - len(axes)) % 2:
            self.fail("one of the two is a number and the other a row: index both", node)
        places = [
            self.index(index, array.shape[axis])
            for index, axis in zip((*of[1], *by[1]), axes, strict=True)
        ]
        return entries(array, axes, places, ())

    def call(self, node: Call, name: str, arguments: list[Value]) -> Value:
        given = self.environment.functions.get(name)
        if given:
            self.used.add(name)
            letters, arrays = aligned(*arguments)
            try:
                return Value(given(*arrays), letters)
            except (RuntimeError, IndexError, ValueError, AssertionError) as error:
                reason = str(error).partition("\n")[0]
                raise MismatchError(f"{name} does not take these arguments: {reason}") from None
        if name in ("max", "min") and len(arguments) == 1:
            reduce: Any = self.arithmetic.function(name)
            (value,) = arguments
            axes = tuple(range(len(value.letters), value.data.ndim))
            return Value(reduce.reduce(value.data, axis=axes), value.letters)
        expected = 2 if name in ("max", "min", "inner") else 1
        known = {*ELEMENTWISE, *OF_MATRICES, *OF_RANDOM_VARIABLES, "inner"}
        if name not in known:
            self.fail(f"unknown function {name}{self.near(name, known)}", node)
        if len(arguments) != expected:
            self.fail(f"{name} takes {expected}, here are {len(arguments)}", node)
        if name in ELEMENTWISE:
            return elementwise(self.arithmetic.function(name), *arguments)
        if name == "inner":
            value = elementwise(np.multiply, *arguments)
            axes = tuple(range(len(value.letters), value.data.ndim))
            return Value(value.data.sum(axis=axes), value.letters)
        if name in OF_RANDOM_VARIABLES:
            return OF_RANDOM_VARIABLES[name](arguments[0], self.arithmetic)
        if not arguments[0].shape:
            raise MismatchError(f"{name} takes a matrix, not a number")
        return OF_MATRICES[name](arguments[0], self.arithmetic)

    def reduction(self, node: Reduction) -> Value:
        excluded = None if node.excluded is None else self.index(node.excluded)
        with self.binding(node, self.range_of(node)):
            body = self.value(node.body)
            for letter in node.letters:
                if letter not in body.letters:
                    every = Value(np.zeros(self.size(letter, node), dtype=int), (letter,))
                    body = elementwise(np.add, body, every)
        if excluded is not None:
            if node.operator != "sum" or len(node.letters) != 1:
                self.fail("only a sum over one letter leaves out a value", node)
            (letter,) = node.letters
            every = Value(np.arange(body.data.shape[body.letters.index(letter)]), (letter,))
            kept = elementwise(np.not_equal, every, excluded)
            kept = replace(kept, data=self.arithmetic.array(kept.data.astype(int)))
            body = elementwise(np.multiply, body, kept)
        reduce: Any = {"sum": np.add, "prod": np.multiply}.get(node.operator)
        reduce = reduce or self.arithmetic.function(node.operator)
        axes = tuple(body.letters.index(letter) for letter in node.letters)
        letters = tuple(letter for letter in body.letters if letter not in node.letters)
        return Value(reduce.reduce(body.data, axis=axes), letters)

    def range_of(self, node: Reduction) -> range | None:
        """What the letters of a sum count from and to, if its bounds are printed."""
        if node.bounds is None:
            return None
        lower, upper = (int(self.value(bound).data) for bound in node.bounds)
        if lower not in (0, 1):
            self.fail("a sum starts at 0 or 1", node.bounds[0])
        return range(lower, upper + 1)
