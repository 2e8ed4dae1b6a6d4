r"""Formulas that must be refused, with the place: the mark ▸ stands before it and is taken out."""

import numpy as np
import pytest

from vitlib.proof.environment import Environment
from vitlib.proof.errors import FormulaError, ShapeError
from vitlib.proof.evaluate import evaluate
from vitlib.proof.latex import parse

RNG = np.random.default_rng(0)
ENVIRONMENT = Environment(
    arrays={
        "X": RNG.normal(size=(5, 3)),
        "Y": RNG.normal(size=(5, 3)),
        "W": RNG.normal(size=(3, 4)),
        "S": RNG.normal(size=(5, 5)),
        "W_Q": RNG.normal(size=(3, 4)),
        "b": RNG.normal(size=(3,)),
        "I": RNG.normal(size=(2, 6, 6)),
        "C": RNG.normal(size=(2, 4, 5)),
        "c": RNG.normal(size=(5, 1)),
    },
    scalars={"T": 5, "d": 3, "a": 1.5, "y": 2},
    sizes=frozenset({"T", "d"}),
)

SYNTAX = {
    "unknown command": (r"\mathbf X = ▸\foo \mathbf Y", r"unknown command \foo"),
    "relation that is not =": (r"\mathbf X = \mathbf Y ▸\leq a", r"unknown command \leq"),
    "brace not closed": (r"\mathbf X = \sqrt▸{a", "not closed"),
    "brace not opened": (r"\mathbf X = a▸}", "closes nothing"),
    "bracket not closed": (r"\mathbf X = (a + \mathbf Y▸", "expected )"),
    "brackets of two kinds": (r"\mathbf X = (a + \mathbf Y▸]", "expected )"),
    "bracket not opened": (r"\mathbf X = \mathbf Y▸)", "left over"),
    "nothing stated": (r"▸\mathbf X + \mathbf Y", "no ="),
    "side missing before another equation": (r"a =▸ \qquad d = d", "expected a quantity"),
    "side missing": (r"\mathbf X =▸", "expected a quantity"),
    "operand missing": (r"\mathbf X = \mathbf Y +▸", "expected a quantity"),
    "factor missing": (r"\mathbf X = \mathbf Y \odot▸", "expected a quantity"),
    "double subscript": (r"X_{tj} = Y_t▸_j", "double subscript"),
    "double superscript": (r"\mathbf X = \mathbf Y^\top▸^2", "double superscript"),
    "fraction without a denominator": (r"\mathbf X = \frac{a}▸", "expected a quantity"),
    "root of another order": (r"\mathbf X = \sqrt▸[3]{a}", "only square roots"),
    "a / b c": (r"\mathbf X = a / d ▸\mathbf Y", "two ways"),
    "log p q": (r"X_{tj} = \log a ▸Y_{tj}", "where the argument of log ends"),
    "log^2 p q": (r"X_{tj} = \log^2 a ▸Y_{tj}", "where the argument of log ends"),
    "function without argument": (r"\mathbf X = ▸\exp", "no argument"),
    "index before the argument": (
        r"X_{tj} = \operatorname{softmax}▸_j(\mathbf X)",
        "behind its arg",
    ),
    "sum without an index": (r"X_{tj} = ▸\sum X_{tj}", "needs its index"),
    "sum with one bound": (r"X_{tj} = ▸\sum_{k}^{d} X_{tk}", "one bound"),
    "sum over a number": (r"X_{tj} = \sum_{▸3} X_{tj}", "expected an index"),
    "sum over a set": (r"X_{tj} = \sum_{k ▸\in a} X_{tk}", r"expected }"),
    "foreign character": (r"\mathbf X = \mathbf Y ▸≤ a", "not read"),
    "foreign environment": (r"\mathbf X = ▸\begin{cases} a \end{cases}", "expected a quantity"),
    "environment that is no alignment": (r"▸\begin{cases} a = a \end{cases}", "cases"),
    "environment without end": (r"▸\begin{aligned} a &= a", r"no \end"),
    "two & in a row": (r"\begin{aligned} a &= a ▸& d &= d \end{aligned}", "one &"),
    "comma within a chain": (r"\begin{aligned} a &= a▸, \\ &= a \end{aligned}", "left over"),
    "two & in the last row": (r"\begin{aligned} a &= a ▸& + d \end{aligned}", "one &"),
    "digit behind an argument": (r"a = \log a^2▸3", "where the argument of log ends"),
    "root as an argument": (r"a = \frac▸\sqrt 2 d", "in braces"),
    "bold letter as an argument": (r"a = a^▸\mathbf d", "in braces"),
    "accent as an argument": (r"a = a^▸\hat d", "in braces"),
    "fraction as an argument": (r"a = a^▸\frac 1 2", "in braces"),
    "derivative of an entry of a sum": (r"a = \frac{\partial ▸(a + d)_j}{\partial d}", "a symbol"),
    "derivative of a product": (r"a = \frac{\partial a ▸\cdot d}{\partial d}", "expected }"),
    "derivative of a sum": (r"a = \frac{\partial ▸(a + d)}{\partial d}", "before a symbol"),
    "half a derivative": (r"a = \frac{\partial \ell}{▸a}", r"expected \partial"),
    "words on the line": (r"a = d \quad ▸\text{for all}", "no argument"),
    "words below an expression": (r"a = (a + d)▸_{\text{max}}", "words below"),
    "bold expression": (r"\mathbf{X ▸+ Y} = a", "bold is for names"),
    "accent on an expression": (r"a = \hat{a ▸+ d}", "expected }"),
    "accent on a number": (r"a = ▸\hat{2}", "stands on a symbol"),
    "norm that is not read": (r"a = \lVert \mathbf X \rVert_▸1", "norms 2 and F"),
    "inner product of one": (r"a = ▸\langle \mathbf X \rangle", "takes 2"),
    "dots": (r"a = d + ▸\ldots + d", r"unknown command \ldots"),
    "prime on brackets": (r"a = (a)▸'", "prime"),
    "nothing": ("▸", "empty"),
}

VALUE = {
    "unknown array": (r"\mathbf X = ▸\mathbf Z", "unknown symbol Z"),
    "unknown number": (r"a = ▸q", "unknown symbol q"),
    "unknown entry": (r"X_{tj} = ▸Z_{tj}", "unknown symbol Z_tj"),
    "accent on an unknown number": (r"a = ▸\hat q", "unknown symbol q_hat"),
    "number in bold below": (r"X_{tj} = X_{t▸\mathbf y}", "print it in italics"),
    "letter without a range": (r"a = \sum_k ▸k", "no range"),
    "letter without a range below": (r"a = \sum_k \delta_{▸k y}", "no range"),
    "product that leaves one out": (r"X_{tj} = ▸\prod_{k \neq j} X_{tk}", "only a sum over one"),
    "near miss": (r"\mathbf X \mathbf W_Q = \mathbf X ▸\mathbf E_Q", "did you mean W_Q"),
    "unknown function": (r"\mathbf X = ▸\operatorname{softmin}(\mathbf X)", "softmax"),
    "word that reads like a sign": (r"a = d ▸\text{-} d", "unknown function -"),
    "word that reads like a sign in front": (r"a = ▸\text{-} d", "unknown function -"),
    "function with too many arguments": (r"a = ▸\exp(a, d)", "takes 1"),
    "array in italics": (r"a = ▸W_Q", "print it bold"),
    "number in bold": (r"a = ▸\mathbf a", "print it in italics"),
    "constant in bold": (r"a = ▸\mathbf e", "unknown symbol e"),
    "gradient of nothing known": (r"a = ▸\frac{\partial \ell}{\partial \mathbf X}", "of ell by X"),
    "index without a range": (r"X_{tj} = X_{t,▸p+0}", "unknown symbol p"),
    "sum without a range": (r"a = ▸\sum_k a", "no range"),
    "index that is a size as well": (
        r"X_{tj} = \sum_{d} \frac{X_{td} Y_{td}}{\sqrt ▸d}",
        "rename the index",
    ),
    "sum from 1 computed with": (r"a = \sum_{k=1}^{d} ▸k b_k", "sum from 0"),
    "sum from 2": (r"a = \sum_{k=▸2}^{d} b_k", "starts at 0 or 1"),
    "only zeros": (r"▸\mathbf 0 = \mathbf 0", "no side has a shape"),
}

SHAPE = {
    "product of matrices": (r"\mathbf X = \mathbf X ▸\mathbf Y", "(5, 3) and (5, 3)"),
    "product of matrices with a dot": (
        r"\mathbf X = \mathbf X ▸\cdot \mathbf Y",
        "(5, 3) and (5, 3)",
    ),
    "remainder of matrices": (
        r"\mathbf X = \mathbf X ▸\bmod \mathbf W",
        "(5, 3) and (3, 4)",
    ),
    "quotient of matrices": (r"\mathbf X = \mathbf X ▸/ \mathbf Y", "divisor"),
    "sum of matrices": (r"\mathbf X = \mathbf X ▸+ \mathbf W", "(5, 3) and (3, 4)"),
    "elementwise product": (r"\mathbf X = \mathbf X ▸\odot \mathbf S", "(5, 3) and (5, 5)"),
    "sides": (r"\mathbf X = ▸\mathbf X^\top", "(3, 5), another (5, 3)"),
    "matrix and number": (r"\mathbf X = ▸0", "(), another (5, 3)"),
    "power of a matrix": (r"\mathbf X = \mathbf X▸^2", r"^{\odot 2}"),
    "matrix as exponent": (r"\mathbf X = a▸^{\mathbf X}", "exponent of shape"),
    "division by a matrix": (r"\mathbf X = ▸\frac{\mathbf X}{\mathbf Y}", "divisor"),
    "transposed entry": (r"X_{tj} = X_{tj}▸^\top", "a number is transposed"),
    "transposed entry of a column": (r"X_{tj} = c_t▸^\top X_{tj}", "a number is transposed"),
    "too few indices": (r"X_{tj} = ▸X_t", "1 index on 2 axes"),
    "too many indices": (r"X_{tj} = ▸X_{tjk}", "3 indices on 2 axes"),
    "entry in bold": (r"X_{tj} = ▸\mathbf X_{tj}", "in italics"),
    "index on one side only": (r"X_{tj} = ▸Y_{tk} X_{tj}", "k is free on one side only"),
    "index lost in a sum": (r"X_{tj} = ▸\sum_j X_{tj}", "j is free on one side only"),
    "two lengths of an index": (r"X_{tj} = X_{tj} ▸W_{jt}", "index t has 5 values"),
    "two lengths of an index of two sides": (
        r"X_{tj} = ▸W_{tj}",
        "index t has 3 values in one place and 5 in another",
    ),
    "bound against axis": (r"a = \sum_{k=0}^{T-1} b_▸k", "5 values in its sum, this axis has 3"),
    "subscript beyond the axis": (r"X_{tj} = ▸X_{t+1,j}", "1 to 5, its axis has 0 to 4"),
    "subscript that is no whole number": (r"X_{tj} = ▸X_{t/2,j}", "not a whole number"),
    "trace of no square": (r"a = ▸\operatorname{tr}(\mathbf X)", "square"),
    "trace of no squares": (r"a = ▸\operatorname{tr}(\mathbf C)", "square"),
    "row sum of a number": (r"a = ▸\operatorname{rowsum}(a)", "takes a matrix"),
    "ones without a length": (r"\mathbf X = \mathbf 1 ▸\mathbf X", r"\mathbf 1_{T}"),
}


def place(text):
    position = text.index("▸")
    return text.replace("▸", ""), position


def evaluate_all(latex):
    for sides in parse(latex).chains:
        evaluate(sides, ENVIRONMENT, latex)


def refused(cases, name, kind):
    latex, position = place(cases[name][0])
    with pytest.raises(kind) as caught:
        evaluate_all(latex)
    assert cases[name][1] in caught.value.problem
    assert caught.value.position == position, str(caught.value)


@pytest.mark.parametrize("name", SYNTAX)
def test_what_is_not_in_the_grammar_is_refused_at_its_place(name):
    refused(SYNTAX, name, FormulaError)


@pytest.mark.parametrize("name", VALUE)
def test_what_has_no_value_is_refused_at_its_place(name):
    refused(VALUE, name, FormulaError)


@pytest.mark.parametrize("name", SHAPE)
def test_what_does_not_fit_together_is_refused_at_its_place(name):
    refused(SHAPE, name, ShapeError)


@pytest.mark.parametrize(
    ("counted", "kind", "problem"),
    [("X_0", ShapeError, "1 index on 2 axes"), ("", FormulaError, "expected a quantity")],
)
def test_a_range_that_is_none_is_refused(counted, kind, problem):
    (sides,) = parse(r"a = \sum_k k").chains
    with pytest.raises(kind, match=problem):
        evaluate(sides, ENVIRONMENT, "", indices={"k": counted})


@pytest.mark.parametrize("name", [*SYNTAX, *VALUE])
def test_only_shapes_are_shape_errors(name):
    latex, _ = place((SYNTAX | VALUE)[name][0])
    with pytest.raises(FormulaError) as caught:
        evaluate_all(latex)
    assert not isinstance(caught.value, ShapeError)


def test_the_message_shows_the_line_and_points_at_the_place():
    latex = "\\begin{aligned}\n\\mathbf X\n&= \\mathbf Y + \\mathbf Z\n\\end{aligned}"
    with pytest.raises(FormulaError) as caught:
        evaluate_all(latex)
    problem, line, caret = str(caught.value).split("\n")
    assert problem.startswith("unknown symbol Z")
    assert line == r"  &= \mathbf Y + \mathbf Z"
    assert line[caret.index("^") :] == r"\mathbf Z"


@pytest.mark.parametrize(
    ("latex", "problem"),
    [
        ("a = (a + d", "expected ) but the formula ends"),
        ("a = (a + d]", "expected ) but found ]"),
        ("X_{tj} = X_t", "1 index on 2 axes of shape (5, 3)"),
        (
            r"X_{tj} = \mathbf X_{tj}",
            "2 indices on 2 axes of shape (5, 3); an entry is printed in italics",
        ),
    ],
)
def test_the_message_says_what_stands_there(latex, problem):
    with pytest.raises(FormulaError) as caught:
        evaluate_all(latex)
    assert caught.value.problem == problem


@pytest.mark.parametrize(
    ("scalars", "known"), [({"width": 2, "height": 3}, " (known: height, width)"), ({}, "")]
)
def test_the_message_lists_what_is_known(scalars, known):
    with pytest.raises(FormulaError) as caught:
        evaluate(parse("q = 1").chains[0], Environment({}, scalars), "q = 1")
    assert caught.value.problem == f"unknown symbol q{known}"


@pytest.mark.parametrize(
    ("expression", "problem"),
    [
        ("P / 2", "unknown symbol P"),
        ("2 +", "expected a quantity but the formula ends"),
        (r"\delta_{kk}", "the index k has no range"),
    ],
)
def test_a_range_that_has_no_value_is_shown(expression, problem):
    latex = "X_{tj} = X_{t+0p,j}"
    with pytest.raises(FormulaError) as caught:
        evaluate(parse(latex).chains[0], ENVIRONMENT, latex, indices={"p": expression})
    assert caught.value.problem.startswith(problem)
    assert caught.value.latex == expression


@pytest.mark.parametrize("shape", [(5, 3), (2, 5, 3)])
def test_an_identity_is_square(shape):
    latex = r"\mathbf X = \mathbf X - \mathbf I"
    with pytest.raises(ShapeError, match="an identity cannot have the shape"):
        evaluate(parse(latex).chains[0], Environment({"X": np.ones(shape)}, {}), latex)


def test_a_number_is_no_identity():
    latex = r"a = \mathbf I"
    with pytest.raises(ShapeError, match=r"an identity cannot have the shape \(\)"):
        evaluate(parse(latex).chains[0], Environment({}, {"a": 1.0}), latex)
