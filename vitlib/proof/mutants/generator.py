r"""A printed formula with one thing lost from it: a ⊤, a sign, a factor, a sum.

Every mutant is LaTeX again. What is lost, one at a time:

- ⊤: each `^\top`;
- sign: each `-` in front of an expression; each + and - between two terms is exchanged;
- term: each of the terms that are added up;
- factor: each factor of a product, each numerator and denominator;
- power: each exponent; root: each `\sqrt`;
- sum: each `\sum`, and each function that adds up, such as `rowsum` and `rowmean`.

A subscript that lists indices, such as `td`, is no product; in `iP + p` there are two terms and two
factors to lose. What is differentiated, and by what, stays.
"""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import pairwise

from vitlib.proof.latex import without_brackets
from vitlib.proof.mutants.parts import Part, Printed, printed
from vitlib.proof.syntax import Derivative, Reduction, Subscript

SUMS = {"rowsum", "rowmean", "colsum", "colmean", "tr", "E"}

_DELIMITER = re.compile(r"\\(?:left|right|[bB]igg?[lrm]?)\s*$")
_COMMAND = re.compile(r"\\[A-Za-z]+$")
_ROW = re.compile(r"\\\\(?:\[[^\]]*\])?")
_ENVIRONMENT = re.compile(r"\\(?:begin|end)\s*\{[a-z]+\*?\}")
_OPENING = {"=", "+", "-", "(", "[", "{", ",", "\\{"}
_CLOSING = {"=", "+", "-", ")", "]", "}", ",", ".", ";", "\\}"}


@dataclass(frozen=True)
class Mutant:
    r"""A formula from which something is lost.

    Attributes:
        kind: What is lost: `⊤`, `sign`, `term`, `factor`, `power`, `root` or `sum`.
        latex: The whole display without it.
        row: The line of the display in which it was lost, with all white space made alike.
    """

    kind: str
    latex: str
    row: str


def mutants(latex: str, functions: Collection[str] = ()) -> list[Mutant]:
    """All mutants of a display, in the order of what they have lost.

    Args:
        latex: The content of the display.
        functions: Names that are applied to the brackets behind them.

    Raises:
        FormulaError: The LaTeX is not in the grammar.
    """
    found: dict[str, Mutant] = {}
    for equation in printed(latex, functions):
        editor = _Editor(latex, equation)
        for side in equation.sides:
            for mutant in editor.mutants(side):
                found.setdefault(mutant.latex, mutant)
    return list(found.values())


class _Editor:
    """Takes things away from one equation of a display."""

    def __init__(self, latex: str, equation: Printed):
        self.latex = latex
        self.tokens = equation.tokens

    def mutants(self, part: Part) -> Iterator[Mutant]:
        """Those of a part, and of the parts below it."""
        match part:
            case Part(rule="expression"):
                yield from self.of_expression(part)
            case Part(rule="term"):
                yield from self.of_term(part)
            case Part(rule="above"):
                yield from self.of_superscript(part)
            case Part(rule="primary"):
                yield from self.of_root(part)
            case Part(rule="fraction"):
                yield from self.of_fraction(part)
            case Part(rule="reduction") if self.text(part.start) == "\\sum":
                (body,) = part.named("term")
                yield self.without("sum", part.start, body.start)
            case Part(rule="call") if self.text(part.start - 1) in SUMS:
                yield self.without("sum", part.start - 1, part.start)
            case _:
                pass
        if not _is_name(part):
            for inner in part.parts:
                yield from self.mutants(inner)

    def of_expression(self, expression: Part) -> Iterator[Mutant]:
        terms = expression.named("term")
        first = terms[0]
        if self.text(expression.start) == "-":
            yield self.without("sign", expression.start, first.start)
        for term in terms[1:]:
            sign = term.start - 1
            yield self.with_text("sign", sign, term.start, "-" if self.text(sign) == "+" else "+")
        if len(terms) > 1:
            plus = self.text(terms[1].start - 1) == "+"
            yield self.without("term", expression.start, terms[1].start if plus else first.stop)
            for before, term in pairwise(terms):
                yield self.without("term", before.stop, term.stop)

    def of_term(self, term: Part) -> Iterator[Mutant]:
        factors = term.named("factor")
        for n, factor in enumerate(factors):
            before = self.between(factors[n - 1], factor) if n else None
            after = self.between(factor, factors[n + 1]) if n + 1 < len(factors) else None
            begins = before in (None, "\\odot")
            if self.is_one(factor) or (before is None and after in (None, "\\bmod")):
                continue
            if begins and after == "/":
                yield self.with_text("factor", factor.start, factor.stop, "1")
            elif after is not None and (before is None or (before and after == "")):
                yield self.without("factor", factor.start, factors[n + 1].start)
            else:
                yield self.without("factor", factors[n - 1].stop, factor.stop)

    def of_superscript(self, above: Part) -> Iterator[Mutant]:
        transposed = any(self.text(n) == "\\top" for n in range(above.start, above.stop))
        yield self.without("⊤" if transposed else "power", above.start - 1, above.stop)

    def of_root(self, primary: Part) -> Iterator[Mutant]:
        if self.text(primary.start) == "\\sqrt":
            (radicand,) = primary.named("argument")
            yield self.only("root", primary, radicand)

    def of_fraction(self, fraction: Part) -> Iterator[Mutant]:
        if isinstance(fraction.node, Derivative):
            return
        above, _ = fraction.named("argument")
        if not self.is_one(above) and not self.is_product(above):
            yield self.with_text("factor", above.start, above.stop, "{1}")
        if not self.is_one(above) or self.stands_alone(fraction):
            yield self.only("factor", fraction, above)

    # What is printed

    def text(self, number: int) -> str:
        return self.tokens[number].text

    def between(self, left: Part, right: Part) -> str:
        """The operator between two factors; empty if none is printed."""
        return self.text(left.stop) if left.stop < right.start else ""

    def is_one(self, part: Part) -> bool:
        return "".join(self.text(n) for n in range(part.start, part.stop)) in ("1", "{1}")

    def is_product(self, argument: Part) -> bool:
        terms = [term for inner in argument.named("expression") for term in inner.named("term")]
        return len(terms) == 1 and len(terms[0].named("factor")) > 1

    def stands_alone(self, part: Part) -> bool:
        """Whether a part has neither a factor beside it nor a script."""
        before = self.text(part.start - 1) if part.start else "="
        behind = self.tokens[part.stop]
        return before in _OPENING and (behind.kind == "stop" or behind.text in _CLOSING)

    # Edits

    def without(self, kind: str, start: int, stop: int) -> Mutant:
        """What is left without some tokens."""
        return self.with_text(kind, start, stop, "")

    def only(self, kind: str, whole: Part, argument: Part) -> Mutant:
        """What is left when only one argument remains of a whole, in brackets if it needs them."""
        inside = argument.start, argument.stop
        if self.text(argument.start) == "{":
            inside = argument.start + 1, argument.stop - 1
        text = self.latex[self.begin(inside[0]) : self.tokens[inside[1] - 1].end]
        if not self.holds_together(argument, self.stands_alone(whole)):
            text = rf"\left( {text} \right)"
        return self.with_text(kind, whole.start, whole.stop, text)

    def holds_together(self, argument: Part, alone: bool) -> bool:
        """Whether an argument stays one thing where its braces are gone."""
        for expression in argument.named("expression"):
            terms = expression.named("term")
            if len(terms) > 1 or terms[0].start > expression.start:
                return False
            factors = terms[0].named("factor")
            if not alone and (len(factors) > 1 or _reaches_on(factors[0])):
                return False
        return True

    def with_text(self, kind: str, start: int, stop: int, text: str) -> Mutant:
        """What is printed with another text in place of some tokens."""
        left = self.latex[: self.begin(start)]
        right = self.latex[self.tokens[stop - 1].end :]
        if not text and left[-1:] in ("", "{", "("):
            right = right.lstrip()
        elif not text and (right[:1].isspace() or right[:1] in ("", "}", ")", ",")):
            left = left.rstrip()
        latex = _joined(_joined(left, text), right)
        return Mutant(kind, latex, _row(latex, len(left)))

    def begin(self, number: int) -> int:
        r"""Where a token begins, its `\left` included."""
        position = self.tokens[number].position
        delimiter = _DELIMITER.search(self.latex, 0, position)
        return delimiter.start() if delimiter else position


def _is_name(part: Part) -> bool:
    """Whether a part names something, so that what it consists of is not computed with."""
    match part:
        case Part(rule="subscript", node=Subscript(indices=indices)):
            return len(indices or ()) != len(part.named("expression"))
        case _:
            return part.rule == "differential"


def _reaches_on(factor: Part) -> bool:
    """Whether a factor would take in what is printed behind it."""
    return isinstance(factor.node, Reduction) or without_brackets(factor.node) is not None


def _joined(left: str, right: str) -> str:
    """Two pieces of LaTeX, apart where they would read as one."""
    command = _COMMAND.search(left) and right[:1].isalpha()
    number = left[-1:].isdigit() and right[:1].isdigit()
    return f"{left} {right}" if command or number else left + right


def _row(latex: str, position: int) -> str:
    """The row of a display in which a place is."""
    row = _ROW.split(latex[:position])[-1] + _ROW.split(latex[position:])[0]
    return " ".join(_ENVIRONMENT.sub("", row).split())
