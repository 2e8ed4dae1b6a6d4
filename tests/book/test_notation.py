"""Every symbol of the book has one meaning, and the notation page says which."""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from vitlib.proof import equations, vocabulary
from vitlib.proof.latex import parse
from vitlib.proof.syntax import Derivative, Node, Symbol, children

BOOK = Path(__file__).parents[2] / "book"
CHAPTERS = sorted(
    path for path in BOOK.rglob("*.md") if "{code-cell}" in path.read_text() and equations(path)
)


def rows() -> Iterator[str]:
    """The LaTeX in the first column of every table of symbols."""
    text = (BOOK / "start" / "notation.md").read_text()
    for table in re.findall(r"^\| symbol \|.*?\n\n", text, flags=re.DOTALL | re.MULTILINE):
        for line in table.strip().splitlines()[2:]:
            yield line.split("|")[1].strip()


def symbol_of(latex: str) -> tuple[bool, str]:
    """Whether it is bold, and its name with accents and a subscript that belongs to the name."""
    ((node, _),) = parse(f"{latex} = 0").chains
    assert isinstance(node, Symbol), latex
    return node.bold, key(node)


def key(symbol: Symbol) -> str:
    words = symbol.subscript and (symbol.bold or symbol.subscript.indices is None)
    return f"{symbol.name}_{symbol.subscript.text}" if words else symbol.name


def symbols(node: Node) -> Iterator[Symbol]:
    if isinstance(node, Symbol):
        yield node
        if (node.bold, key(node)) in KNOWN:  # the subscript is a word, not an index
            return
    for child in children(node):
        yield from symbols(child)
    if isinstance(node, Derivative):
        yield from symbols(node.of)
        yield from symbols(node.by)


# these rows declare a way of writing rather than a letter
WRITTEN = {
    *(r"$\ell$", r"$\delta_{jk}$", r"$\frac{\partial \ell}{\partial \mathbf X}$"),
    *(f"${name}$" for name in vocabulary.FUNCTIONS),
}
FUNCTIONS = [name for row in rows() for name in re.findall(r"^\$\\operatorname\{(\w+)\}\$$", row)]
DECLARED = [
    symbol_of(row.strip("$"))
    for row in rows()
    if row not in WRITTEN and not row.startswith(r"$\operatorname")
]
KNOWN = {*DECLARED, (False, "ell"), (False, "delta")}


def test_each_row_declares_exactly_one_symbol() -> None:
    for row in rows():
        assert re.fullmatch(r"\$[^$]+\$", row), row


def test_no_symbol_is_declared_twice() -> None:
    counted = Counter([*DECLARED, *FUNCTIONS])
    assert [symbol for symbol, count in counted.items() if count > 1] == []


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: str(path.relative_to(BOOK)))
def test_every_symbol_of_a_formula_is_declared(chapter: Path) -> None:
    for equation in equations(chapter):
        if equation.definition:
            continue
        for chain in parse(equation.latex, frozenset(FUNCTIONS)).chains:
            for side in chain:
                for symbol in symbols(side):
                    assert is_declared(symbol), f"{equation.label}: {symbol}"


def is_declared(symbol: Symbol) -> bool:
    entry = symbol.subscript is not None and symbol.subscript.indices is not None
    if (symbol.bold, key(symbol)) in KNOWN:
        return True
    # an italic letter with indices is an entry, a bold one a row, of the bold array
    return entry and ((True, symbol.name) in KNOWN or (True, symbol.name.upper()) in KNOWN)
