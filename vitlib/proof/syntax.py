"""The syntax tree of a printed formula. Every node knows where in the LaTeX it stands."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Literal


@dataclass(frozen=True)
class Node:
    """Anything that has a value. `position` is its offset in the LaTeX."""

    position: int


@dataclass(frozen=True)
class Number(Node):
    """A number literal, as it is printed: `10000`, `0.044715`."""

    text: str


@dataclass(frozen=True)
class Subscript:
    r"""What stands below a symbol: the rest of its name (`W_Q`), or indices (`X_{td}`).

    Attributes:
        text: The subscript as part of a name.
        indices: The subscript as indices; None for words (`\text{pos}`), which are only names.
    """

    text: str
    indices: tuple[Node, ...] | None


@dataclass(frozen=True)
class Symbol(Node):
    r"""A named quantity: `\mathbf X` (bold, an array), `X_{td}` (an entry), `d` (a number).

    `\mathbf 0`, `\mathbf 1` and `\mathbf I` are bold symbols too.
    """

    name: str
    bold: bool
    subscript: Subscript | None = None


@dataclass(frozen=True)
class Entry(Node):
    r"""Indices on an expression: `(\mathbf Q \mathbf K^\top)_{tj}`."""

    base: Node
    indices: tuple[Node, ...]


@dataclass(frozen=True)
class Derivative(Node):
    r"""`\frac{\partial \ell}{\partial \mathbf X}` or `\frac{\partial a_j}{\partial s_k}`."""

    of: Symbol | Entry
    by: Symbol | Entry


@dataclass(frozen=True)
class Negative(Node):
    """`-x`."""

    operand: Node


@dataclass(frozen=True)
class Binary(Node):
    r"""Two operands.

    The operators are `+`, `-`, `/`, `odot`, `bmod`, `cdot` (a dot is printed) and `juxtaposed`
    (nothing is printed); the last two are the same product.
    """

    operator: Literal["+", "-", "/", "odot", "bmod", "cdot", "juxtaposed"]
    left: Node
    right: Node


@dataclass(frozen=True)
class Power(Node):
    r"""`x^n` of numbers, or with `elementwise` `\mathbf X^{\odot n}`."""

    base: Node
    exponent: Node
    elementwise: bool


@dataclass(frozen=True)
class Transpose(Node):
    r"""`\mathbf X^\top`."""

    operand: Node


@dataclass(frozen=True)
class Call(Node):
    r"""A function and its arguments; `bare` if there are no brackets, as in `\log p`."""

    function: str
    arguments: tuple[Node, ...]
    bare: bool = False


@dataclass(frozen=True)
class Reduction(Node):
    r"""`\sum_{j}`, `\sum_{j=1}^{d}`, `\sum_{k \neq j}`, `\prod_j`, `\max_k`, `\min_k` of a body."""

    operator: Literal["sum", "prod", "max", "min"]
    letters: tuple[str, ...]
    bounds: tuple[Node, Node] | None
    excluded: Node | None
    body: Node


@dataclass(frozen=True)
class Formula:
    """A display: one or more chains `a = b = c`, each a tuple of its sides.

    Attributes:
        latex: What is printed.
        chains: The equations, read.
    """

    latex: str
    chains: tuple[tuple[Node, ...], ...]


def children(node: Node) -> Iterator[Node]:
    """Nodes directly below `node`; a symbol has none, its subscript belongs to it."""
    for field in fields(node):
        value = getattr(node, field.name)
        for item in value if isinstance(value, tuple) else (value,):
            if isinstance(item, Node):
                yield item


def first_position(node: Node) -> int:
    """Where the expression begins; an operator stands behind its first operand."""
    return min([node.position, *(first_position(child) for child in children(node))])
