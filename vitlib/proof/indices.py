"""Which letters of a formula are indices, and how far each of them runs."""

from abc import abstractmethod
from collections.abc import Collection, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from typing import NoReturn

import numpy as np

from vitlib.proof.environment import Environment
from vitlib.proof.errors import FormulaError, ShapeError
from vitlib.proof.functions import Arithmetic
from vitlib.proof.latex import parse_expression
from vitlib.proof.syntax import Entry, Node, Reduction, Symbol, children, first_position
from vitlib.proof.values import Value


@dataclass(frozen=True)
class _Scope:
    """Where letters are bound: a sum, or the whole equation for the free ones."""

    letters: Collection[str]
    nodes: tuple[Node, ...]
    counts: range | None = None


class Indices:
    """The part of the evaluator that finds names and index letters.

    Args:
        sides: All sides of the equation.
        environment: What the symbols stand for.
        latex: The whole formula, for errors.
        arithmetic: What the entries are.
        indices: Ranges of letters that stand alone nowhere, as LaTeX.
    """

    def __init__(
        self,
        sides: tuple[Node, ...],
        environment: Environment,
        latex: str,
        arithmetic: Arithmetic,
        indices: Mapping[str, str],
    ):
        self.environment = environment
        self.latex = latex
        self.arithmetic = arithmetic
        self.given = indices
        self.scopes: list[_Scope] = []
        self.searched: set[str] = set()
        self.used: set[str] = set()
        free = {letter for side in sides for letter, _ in self.places(side)}
        self.scopes.append(_Scope(free | set(indices), sides))

    @abstractmethod
    def value(self, node: Node) -> Value:
        """The value of a node."""

    def fail(self, problem: str, node: Node) -> NoReturn:
        """Raise a `FormulaError` at a node."""
        raise FormulaError(problem, self.latex, first_position(node))

    # Names

    def is_special(self, symbol: Symbol) -> bool:
        r"""Whether this is `\mathbf 0`, `\mathbf 1` or `\mathbf I`; an array of the name wins."""
        special = symbol.bold and symbol.name in ("0", "1", "I")
        return special and symbol.name not in self.environment.arrays

    def is_kronecker(self, symbol: Symbol) -> bool:
        r"""Whether this is `\delta_{jk}`: italic, with two indices."""
        indices = symbol.subscript.indices if symbol.subscript else None
        return symbol.name == "delta" and not symbol.bold and len(indices or ()) == 2

    def locate(self, node: Symbol | Entry) -> tuple[str, tuple[Node, ...]]:
        r"""Name of a quantity and indices into it.

        The longest name wins: `\mathbf W_Q` is W_Q if there is such an array, else it is indexed.
        A lower-case letter with indices may stand for the array of the capital letter.
        """
        if isinstance(node, Entry):
            if not isinstance(node.base, Symbol):
                self.fail("only a symbol can be differentiated", node)
            name, indices = self.locate(node.base)
            if indices:
                self.fail("indices on indices", node)
            return name, node.indices
        arrays, scalars = self.environment.arrays, self.environment.scalars
        subscript = node.subscript
        full = f"{node.name}_{subscript.text}" if subscript else node.name
        if full in (arrays if node.bold else scalars):
            return full, ()
        if full in arrays:
            self.fail(f"{full} is an array: print it bold", node)
        if subscript and subscript.indices is not None:
            for name in (node.name, node.name[0].upper() + node.name[1:]):
                if name in arrays:
                    return name, subscript.indices
        if subscript is None and not node.bold and self.arithmetic.constant(full):
            return full, ()
        if full in scalars:
            self.fail(f"{full} is a number: print it in italics", node)
        return self.unknown(node)

    def unknown(self, symbol: Symbol) -> NoReturn:
        """Raise: the environment does not know the symbol."""
        name = f"{symbol.name}_{symbol.subscript.text}" if symbol.subscript else symbol.name
        known = {*self.environment.arrays, *self.environment.scalars}
        self.fail(f"unknown symbol {name}{self.near(name, known)}", symbol)

    def near(self, name: str, known: Collection[str]) -> str:
        """What may have been meant, for errors."""
        close = get_close_matches(name, known)
        if close:
            return f" (did you mean {close[0]}?)"
        return f" (known: {', '.join(sorted(known))})" if known else ""

    def shape_of(self, name: str) -> tuple[int, ...]:
        """Shape of a quantity without hidden axes; () for numbers."""
        if name not in self.environment.arrays:
            return ()
        return self.environment.arrays[name].shape[len(self.environment.hidden.get(name, ())) :]

    def axes(self, shape: tuple[int, ...], count: int, bold: bool, node: Node) -> list[int]:
        """Axes that `count` indices belong to; axes of length 1 need none.

        Raises:
            ShapeError: The number of indices is wrong.
        """
        if not count:
            return []
        longer = [axis for axis, size in enumerate(shape) if size > 1]
        whole = isinstance(node, Entry) or not bold
        if count == len(shape) and whole:
            return list(range(count))
        if count == len(longer) and whole:
            return longer
        if bold and count < len(longer):
            return longer[:count]
        here = f"{count} {'index' if count == 1 else 'indices'} on {len(longer)} axes"
        advice = "; an entry is printed in italics" if bold else ""
        raise ShapeError(f"{here} of shape {shape}{advice}", self.latex, node.position)

    # Index letters

    def is_letter(self, symbol: Symbol) -> bool:
        """Whether a subscript is an index letter, not a number such as a class label."""
        if symbol.bold or symbol.subscript:
            return False
        name, scalars, sizes = symbol.name, self.environment.scalars, self.environment.sizes
        summed = any(name in scope.letters for scope in self.scopes[1:])
        return summed or name not in scalars or name in sizes

    def is_letter_here(self, symbol: Symbol) -> bool:
        """Whether a symbol on the line is an index letter that is computed with.

        Raises:
            FormulaError: It is the name of a number too.
        """
        if not any(symbol.name in scope.letters for scope in self.scopes):
            return False
        if symbol.name in self.environment.scalars:
            self.fail(f"{symbol.name} is an index here and a number too: rename the index", symbol)
        return True

    def letter(self, symbol: Symbol) -> Value:
        """An index letter as a number: 0, 1, 2, ..."""
        counts = self.scope(symbol.name).counts
        if counts and counts.start != 0:
            self.fail(
                f"{symbol.name} is computed with, and entries count from 0: sum from 0", symbol
            )
        numbers = np.arange(self.size(symbol.name, symbol))
        return Value(self.arithmetic.array(numbers), (symbol.name,))

    def index(self, node: Node, length: int | None = None) -> Value:
        """Whole numbers of a subscript, on an axis of known length or (None) on none."""
        if not (isinstance(node, Symbol) and self.is_letter(node)):
            return self.value(node)
        counts = self.scope(node.name).counts
        if counts is not None and length not in (None, len(counts)):
            raise ShapeError(
                f"{node.name} takes {len(counts)} values in its sum, this axis has {length}",
                self.latex,
                node.position,
            )
        size = self.size(node.name, node) if length is None else length
        return Value(np.arange(size), (node.name,))

    def scope(self, letter: str) -> _Scope:
        """The innermost sum that binds a letter, or the equation."""
        inner = (scope for scope in reversed(self.scopes) if letter in scope.letters)
        return next(inner, self.scopes[0])

    @contextmanager
    def binding(self, reduction: Reduction, counts: range | None) -> Generator[None]:
        """While the body of a sum is evaluated."""
        self.scopes.append(_Scope(reduction.letters, (reduction.body,), counts))
        try:
            yield
        finally:
            self.scopes.pop()

    def size(self, letter: str, node: Node) -> int:
        """How many values a letter takes.

        Raises:
            FormulaError: Nothing says so.
        """
        scope = self.scope(letter)
        if scope.counts is not None:
            return len(scope.counts)
        if letter in self.given:
            return self.given_size(letter)
        if letter not in self.searched:
            self.searched.add(letter)
            try:
                for place in scope.nodes:
                    for found, size in self.places(place, groups=True):
                        if found == letter and size is not None:
                            return size
            finally:
                self.searched.remove(letter)
        return self.fail(
            f'the index {letter} has no range: give it, as in indices={{"{letter}": "N"}}', node
        )

    def given_size(self, letter: str) -> int:
        """A range that the check gives: an expression of sizes."""
        expression = parse_expression(self.given[letter])
        inner = type(self)((), self.environment, self.given[letter], self.arithmetic, {})
        return int(inner.value(expression).data)

    def places(
        self, node: Node, bound: frozenset[str] = frozenset(), groups: bool = False
    ) -> Iterator[tuple[str, int | None]]:
        """Letters alone in a subscript and not bound below `node`, with the lengths of their axes.

        The length is None where it is not to be had: on a Kronecker delta, and on an expression in
        brackets unless `groups` are evaluated.
        """
        if isinstance(node, Reduction):
            bound |= set(node.letters)
        indices: tuple[Node, ...] = ()
        shape: tuple[int, ...] | None = None
        if isinstance(node, Symbol) and node.subscript and not self.is_special(node):
            if self.is_kronecker(node):
                indices = node.subscript.indices or ()
            else:
                name, indices = self.locate(node)
                shape = self.shape_of(name)
        elif isinstance(node, Entry):
            indices = node.indices
            shape = self.group_shape(node) if groups else None
        bold = not isinstance(node, Symbol) or node.bold
        axes = self.axes(shape, len(indices), bold, node) if shape and indices else None
        for n, index in enumerate(indices):
            if isinstance(index, Symbol) and self.is_letter(index):
                if index.name not in bound:
                    yield index.name, shape[axes[n]] if shape and axes else None
            else:
                yield from self.places(index, bound, groups)
        for child in children(node):
            if child not in indices:
                yield from self.places(child, bound, groups)

    def group_shape(self, node: Entry) -> tuple[int, ...] | None:
        """Shape of an expression in brackets; None if it depends on the letter that is sought."""
        try:
            return self.value(node.base).shape
        except FormulaError:
            return None
