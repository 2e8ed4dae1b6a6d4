r"""Expressions that hypothesis makes up, printed as LaTeX, against PyTorch.

Each strategy builds a pair: what is printed and what PyTorch computes. The printer puts brackets
where the grammar needs them and, at random, where it does not.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from vitlib.proof.environment import Environment
from vitlib.proof.evaluate import evaluate
from vitlib.proof.latex import parse_expression

SIZES = {"m": 2, "n": 3, "k": 4}
LETTERS = {"i": "m", "j": "n", "l": "k"}
GENERATOR = torch.Generator().manual_seed(0)


def draw(*shape):
    return torch.rand(shape, dtype=torch.float64, generator=GENERATOR) + 0.5


# One array for each pair of sizes, such as A_{mn}: its name is a letter.
MATRICES = {
    (rows, columns): (name, draw(SIZES[rows], SIZES[columns]))
    for name, (rows, columns) in zip(
        "ABCDEFGHJ", [(r, c) for r in SIZES for c in SIZES], strict=True
    )
}
NUMBERS = {"x": 1.5, "y": -0.75, "z": 2.0}
ENVIRONMENT = Environment(
    arrays={name: value.numpy() for name, value in MATRICES.values()},
    scalars={**NUMBERS, **SIZES},
    sizes=frozenset(SIZES),
)

SUM, HADAMARD, PRODUCT, FACTOR, SYMBOL = range(5)  # how closely what is printed holds together


@dataclass(frozen=True)
class Printed:
    latex: str
    value: torch.Tensor
    binding: int = FACTOR

    def __post_init__(self):
        # Large values would turn rounding into differences that are no fault of the evaluator.
        if self.value.abs().max() > 100:
            reject()

    def within(self, binding):
        """What is printed, in brackets unless it holds together closely enough."""
        if self.binding >= binding:
            return self.latex
        return rf"\left( {self.latex} \right)"


def number_literal():
    return st.integers(0, 10).map(lambda n: Printed(f"{n / 4}", torch.tensor(n / 4).double()))


def numbers():
    named = st.sampled_from(sorted(NUMBERS)).map(
        lambda name: Printed(name, torch.tensor(NUMBERS[name]).double())
    )
    return st.recursive(number_literal() | named, bigger_number, max_leaves=5)


def bigger_number(inner):
    return st.one_of(
        st.builds(lambda a, b: plus(a, b, "+"), inner, inner),
        st.builds(lambda a, b: plus(a, b, "-"), inner, inner),
        st.builds(lambda a, b: times(a, b, r"\cdot", torch.mul), inner, inner),
        inner.map(lambda a: Printed(rf"\tanh({a.latex})", a.value.tanh())),
        inner.map(lambda a: Printed(rf"\left| {a.latex} \right|", a.value.abs())),
        inner.map(lambda a: Printed(rf"\sqrt{{|{a.latex}| + 1}}", (a.value.abs() + 1).sqrt())),
        inner.map(lambda a: Printed(rf"{a.within(SYMBOL)}^2", a.value**2)),
        inner.map(lambda a: Printed(rf"\frac{{{a.latex}}}{{3}}", a.value / 3)),
    )


def plus(a, b, sign):
    value = a.value + b.value if sign == "+" else a.value - b.value
    return Printed(f"{a.within(SUM)} {sign} {b.within(HADAMARD)}", value, SUM)


def times(a, b, mark, function):
    return Printed(
        f"{a.within(PRODUCT)} {mark} {b.within(FACTOR)}", function(a.value, b.value), PRODUCT
    )


@cache
def matrices(rows, columns, depth=3):
    name, value = MATRICES[rows, columns]
    leaf = st.just(Printed(rf"\mathbf {name}", value))
    flipped, transposed = MATRICES[columns, rows]
    leaf |= st.just(Printed(rf"\mathbf {flipped}^\top", transposed.mT))
    if depth == 0:
        return leaf
    same = st.deferred(lambda: matrices(rows, columns, depth - 1))
    choices = [
        leaf,
        st.builds(lambda a, b: plus(a, b, "+"), same, same),
        st.builds(lambda a, b: plus(a, b, "-"), same, same),
        st.builds(hadamard, same, same),
        st.builds(lambda a, b: times(a, b, "", torch.mul), numbers(), same),
        same.map(lambda a: Printed(rf"\exp(-{a.within(PRODUCT)})", (-a.value).exp())),
        same.map(lambda a: Printed(rf"\operatorname{{softmax}}({a.latex})", a.value.softmax(-1))),
        same.map(lambda a: Printed(rf"{a.within(SYMBOL)}^{{\odot 2}}", a.value**2)),
        same.map(
            lambda a: Printed(
                rf"{a.within(PRODUCT)} - \operatorname{{rowmean}}[{a.latex}]",
                a.value - a.value.mean(-1, keepdim=True),
                SUM,
            )
        ),
        same.map(
            lambda a: Printed(
                rf"\frac{{{a.latex}}}{{1 + \operatorname{{colsum}}({a.latex})^{{\odot 2}}}}",
                a.value / (1 + a.value.sum(-2, keepdim=True) ** 2),
            )
        ),
    ]
    for inner in SIZES:
        choices.append(
            st.builds(
                lambda a, b: times(a, b, "", torch.matmul),
                st.deferred(lambda inner=inner: matrices(rows, inner, depth - 1)),
                st.deferred(lambda inner=inner: matrices(inner, columns, depth - 1)),
            )
        )
    return st.one_of(choices)


def hadamard(a, b):
    # ⊙ is looser than juxtaposition and closer than +
    return Printed(rf"{a.within(PRODUCT)} \odot {b.within(PRODUCT)}", a.value * b.value, HADAMARD)


def along(value, *letters):
    """Axes of `letters` in their places among the axes i, j, l."""
    order = sorted(range(len(letters)), key=lambda n: letters[n])
    shape = [SIZES[size] if letter in letters else 1 for letter, size in LETTERS.items()]
    return value.permute(order).reshape(shape)


def entry(first, second):
    """`A_{ij}`; both letters may be the same."""
    name, value = MATRICES[LETTERS[first], LETTERS[second]]
    latex = f"{name}_{{{first}{second}}}"
    if first == second:
        return Printed(latex, along(value.diagonal(), first))
    return Printed(latex, along(value, first, second))


def kronecker(first, second):
    if first == second:
        return Printed(rf"\delta_{{{first}{first}}}", torch.ones(1, 1, 1).double())
    equal = torch.eye(SIZES[LETTERS[first]], SIZES[LETTERS[second]], dtype=torch.float64)
    return Printed(rf"\delta_{{{first}{second}}}", along(equal, first, second))


def summed(letter, other, body):
    """A sum whose letter may be free, or bound once more, in the body."""
    body = plus(entry(letter, other), body, "+")
    total = body.value.sum(list(LETTERS).index(letter), keepdim=True)
    # What is printed behind a sum belongs to it, up to the next + or -.
    return Printed(rf"\sum_{{{letter}}} {body.within(PRODUCT)}", total, HADAMARD)


def entries():
    letter = st.sampled_from(sorted(LETTERS))
    leaf = st.builds(entry, letter, letter) | st.builds(kronecker, letter, letter) | numbers()

    def bigger(inner):
        return st.one_of(
            st.builds(lambda a, b: plus(a, b, "+"), inner, inner),
            st.builds(lambda a, b: plus(a, b, "-"), inner, inner),
            st.builds(lambda a, b: times(a, b, "", torch.mul), inner, inner),
            st.builds(summed, letter, letter, inner),
            inner.map(lambda a: Printed(rf"\cos({a.latex})", a.value.cos())),
            inner.map(lambda a: Printed(rf"{a.within(SYMBOL)}^2", a.value**2)),
        )

    return st.recursive(leaf, bigger, max_leaves=8)


def evaluated(latex):
    node = parse_expression(latex)
    return evaluate((node,), ENVIRONMENT, latex).sides[0]


def assert_close(expected, found):
    expected = expected.numpy()
    scale = max(1.0, np.abs(expected).max())
    np.testing.assert_allclose(found / scale, expected / scale, rtol=0, atol=1e-9)


@settings(max_examples=150, deadline=None)
@given(numbers())
def test_numbers(printed):
    assert_close(printed.value, evaluated(printed.latex))


@settings(max_examples=200, deadline=None)
@given(matrices("m", "n"))
def test_matrices(printed):
    assert_close(printed.value.expand(SIZES["m"], SIZES["n"]), evaluated(printed.latex))


@settings(max_examples=200, deadline=None)
@given(entries())
def test_entries(printed):
    # Weighted and summed over all letters, so that every entry counts and the axes need no order.
    weight, other = entry("i", "j"), entry("j", "l")
    latex = rf"\sum_{{i,j,l}} {weight.latex} {other.latex} \left({printed.latex}\right)"
    value = (weight.value * other.value * printed.value).sum()
    assert_close(value, evaluated(latex))
