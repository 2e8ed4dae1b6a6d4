r"""Which tokens each rule of the grammar has read: the syntax as it is printed.

The syntax tree says what a formula means, and `\frac{a}{b}` and `a / b` are one there. Who edits
what is printed needs to know from where to where each part of it reaches.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TypeVar

from vitlib.proof.latex import Parser
from vitlib.proof.syntax import Entry, Node, Subscript, Symbol
from vitlib.proof.tokens import Token, equations, tokenise

T = TypeVar("T")


@dataclass(frozen=True)
class Part:
    """What one rule has read.

    Attributes:
        rule: Name of the rule: that of the parser's method.
        start: Number of its first token.
        stop: Number of the token behind its last.
        node: What the rule has made of it.
        parts: What it consists of.
    """

    rule: str
    start: int
    stop: int
    node: object
    parts: tuple["Part", ...]

    def named(self, rule: str) -> list["Part"]:
        """The parts of one rule directly below this one."""
        return [part for part in self.parts if part.rule == rule]


@dataclass(frozen=True)
class Printed:
    """One equation: its tokens, the last of kind `stop`, and its sides."""

    tokens: list[Token]
    sides: tuple[Part, ...]


def printed(latex: str, functions: Collection[str] = ()) -> list[Printed]:
    """The parts of each equation of a display.

    Args:
        latex: The content of the display.
        functions: As for `vitlib.proof.latex.parse`.

    Raises:
        FormulaError: The LaTeX is not in the grammar.
    """
    found: list[Printed] = []
    for tokens in equations(tokenise(latex), latex):
        parser = _PartsParser(tokens, latex, functions)
        parser.equation()
        found.append(Printed(parser.tokens, tuple(parser.parts)))
    return found


class _PartsParser(Parser):
    def __init__(self, tokens: list[Token], latex: str, functions: Collection[str]):
        super().__init__(tokens, latex, functions)
        self.parts: list[Part] = []

    def noted(self, rule: str, read: Callable[[], T]) -> T:
        start = self.place
        outer, self.parts = self.parts, []
        node = read()
        outer.append(Part(rule, start, self.place, node, tuple(self.parts)))
        self.parts = outer
        return node

    def expression(self) -> Node:
        return self.noted("expression", super().expression)

    def term(self) -> Node:
        return self.noted("term", super().term)

    def factor(self) -> Node:
        return self.noted("factor", super().factor)

    def primary(self) -> Node:
        return self.noted("primary", super().primary)

    def argument(self) -> Node:
        return self.noted("argument", super().argument)

    def fraction(self) -> Node:
        return self.noted("fraction", super().fraction)

    def reduction(self) -> Node:
        return self.noted("reduction", super().reduction)

    def differential(self) -> Symbol | Entry:
        return self.noted("differential", super().differential)

    def subscript(self) -> Subscript:
        return self.noted("subscript", super().subscript)

    def call(self, token: Token, name: str) -> Node:
        return self.noted("call", lambda: super(_PartsParser, self).call(token, name))

    def above(self, mark: Token) -> Callable[[Node], Node]:
        return self.noted("above", lambda: super(_PartsParser, self).above(mark))
