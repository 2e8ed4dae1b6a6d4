import numpy as np
import pytest
import sympy
import torch
from torch.nn import functional

from vitlib import proof
from vitlib.proof.environment import Environment
from vitlib.proof.evaluate import evaluate
from vitlib.proof.latex import parse_expression
from vitlib.proof.symbolic import SYMBOLS

PAGE = {
    "softmax": r"a_j = \frac{e^{s_j}}{\sum_k e^{s_k}}",
    "jacobian": r"\frac{\partial a_j}{\partial s_k} = a_j (\delta_{jk} - a_k)",
    "rows": r"\mathbf A = \operatorname{softmax}(\mathbf S)",
    "backward": (
        r"\frac{\partial \ell}{\partial \mathbf S} = \mathbf A \odot \left("
        r"\frac{\partial \ell}{\partial \mathbf A} - \operatorname{rowsum}\left("
        r"\frac{\partial \ell}{\partial \mathbf A} \odot \mathbf A\right)\right)"
    ),
    "gelu": r"\operatorname{GELU}(x) = x \, \Phi(x)",
    "slope": r"\operatorname{GELU}'(x) = \Phi(x) + x \phi(x)",
    "inner": r"u_i = x_i^3",
    "outer": r"y_i = \exp(u_i)",
    "chain": r"\frac{\partial y_i}{\partial x_k} = 3 x_i^2 y_i \delta_{ik}",
}
ROW = proof.Computation({"s": "n"}, {"a": lambda s: torch.softmax(s, -1)})
ROWS = proof.Computation({"S": "T U"}, {"A": lambda S: torch.softmax(S, -1)})
GELU = proof.Computation(
    {"x": ""}, {"y": lambda x: functional.gelu(x)}, functions={"GELU": functional.gelu}
)
MEANS = proof.Computation(
    {"X": "T D"}, {"mu": lambda X: X.mean(-1, keepdim=True), "Y": lambda X, mu: X - mu}
)
CHAIN = proof.Computation({"x": "n"}, {"u": lambda x: x**3, "y": lambda u: torch.exp(u)})


@pytest.mark.parametrize(
    ("label", "computation", "forward", "variable"),
    [
        ("jacobian", ROW, "softmax", "s"),
        ("backward", ROWS, "rows", "S"),
        ("slope", GELU, "gelu", "x"),
        ("chain", CHAIN, ("inner", "outer"), "x"),
    ],
)
def test_sympy_finds_the_printed_derivative_of_the_printed_formula(
    label, computation, forward, variable
):
    page = proof.open_page("page", PAGE)
    page.check(label, computation, derivative_of=(forward, variable))
    assert page.evidence[label].oracles[-1] == "SymPy"


@pytest.mark.parametrize(
    ("computation", "forward", "variable", "printed"),
    [
        (
            MEANS,
            [r"\mu_t = \frac1D \sum_j X_{tj}", r"\mathbf Y = \mathbf X - \boldsymbol\mu"],
            "X",
            r"\frac{\partial Y_{tj}}{\partial X_{uk}} = \delta_{tu} (\delta_{jk} - 1 / D)",
        ),
        (
            proof.Computation({"X": "T D"}, {"mu": lambda X: X.mean(-1, keepdim=True)}),
            [r"\mu_t = \frac1D \sum_j X_{tj}"],
            "X",
            r"\frac{\partial \ell}{\partial \mathbf X} ="
            r" \frac1D \frac{\partial \ell}{\partial \boldsymbol\mu} \mathbf 1_{D}^\top",
        ),
        (
            proof.Computation({"x": "n"}, {"z": lambda x: x @ x, "y": lambda x, z: z * x}),
            [r"z = \sum_j x_j^2", "y_j = z x_j"],
            "x",
            r"\frac{\partial y_j}{\partial x_k} = 2 x_k x_j + z \delta_{jk}",
        ),
        (
            proof.Computation({"s": "n"}, {"a": lambda s: s.abs()}),
            [r"a_n = |s_n|"],
            "s",
            r"\frac{\partial a_n}{\partial s_k} = \operatorname{sign}(s_n) \delta_{nk}",
        ),
        (
            proof.Computation({"X": "T D"}, {"X_hat": lambda X: 2 * X}),
            [r"\hat x_{tj} = 2 x_{tj}"],
            "X",
            r"\frac{\partial \ell}{\partial \mathbf X} ="
            r" 2 \frac{\partial \ell}{\partial \hat{\mathbf X}}",
        ),
        (
            proof.Computation({"X": "T D"}, {"Y_out": lambda X: 2 * X}),
            [r"\mathbf Y_\text{out} = 2 \mathbf X"],
            "X",
            r"\frac{\partial \ell}{\partial \mathbf X} ="
            r" 2 \frac{\partial \ell}{\partial \mathbf Y_\text{out}}",
        ),
    ],
)
def test_what_is_defined_may_be_any_quantity(computation, forward, variable, printed):
    labels = [f"step {number}" for number in range(len(forward))]
    page = proof.open_page("page", dict(zip(labels, forward, strict=True)) | {"slope": printed})
    page.check("slope", computation, derivative_of=(labels, variable))


def test_functions_may_be_defined_by_functions():
    page = proof.open_page(
        "page",
        {
            "f": "f(x) = a x^2",
            "g": "g(x) = f(x) + |x|",
            "slope": r"g'(x) = 2 a x + \operatorname{sign}(x)",
        },
    )
    computation = proof.Computation(
        {"x": ""},
        {"y": lambda x: 3 * x**2 + x.abs()},
        scalars={"a": 3.0},
        functions={"f": lambda x: 3 * x**2, "g": lambda x: 3 * x**2 + x.abs()},
    )
    page.check("slope", computation, derivative_of=(["f", "g"], "x"))


def test_ranges_of_letters_are_known_in_both_formulas():
    page = proof.open_page(
        "page",
        {
            "pool": r"a_i = \sum_p s_{P i + p}",
            "slope": r"\frac{\partial a_i}{\partial s_k} = \sum_p \delta_{k,P i + p}",
        },
    )
    asked = []

    class Recorded(proof.Computation):
        def __call__(self, rng, largest=None):
            asked.append(largest)
            return super().__call__(rng, largest)

    pool = Recorded(
        {"s": "n"},
        {"a": lambda s, P: s.reshape(-1, P).sum(-1)},
        sizes={"P": 2, "n": lambda m, P: m * P},
    )
    page.check("slope", pool, indices={"p": "P"}, derivative_of=("pool", "s"))
    assert asked == [None] * 5 + [3]  # SymPy takes its time over large sizes


@pytest.mark.parametrize(
    "latex",
    [
        r"\mathbf S + \mathbf I",
        r"\operatorname{diag}(\mathbf s)",
        r"s_j \sum_{k \neq j} s_k",
        r"\sum_{k=1}^{n} s_0",
        r"\sum_{k=1}^{n} 2",
        r"\delta_{jk} + S_{jk}",
    ],
)
def test_sympy_gets_whole_numbers_as_they_are(latex):
    S = np.array(sympy.symbols("S:2:2")).reshape(2, 2)
    environment = Environment({"S": S, "s": S[0]}, {"n": 2}, frozenset("n"))
    (found,) = evaluate((parse_expression(latex),), environment, latex, arithmetic=SYMBOLS).sides
    assert not any(sympy.sympify(entry).has(sympy.Float) for entry in found.ravel())


@pytest.mark.parametrize(
    ("forward", "printed"),
    [
        ("f(x) = x^2", "f'(x) = g(x)"),
        ("f(x) = q x^2", "f'(x) = 2 x"),
        ("w = x^2", "f'(x) = 2 x"),
        ("y = q x^2", r"\frac{\partial \ell}{\partial x} = 2 x \frac{\partial \ell}{\partial y}"),
    ],
)
def test_what_only_sympy_cannot_read_is_pointed_at(forward, printed):
    page = proof.open_page("page", {"forward": forward, "slope": printed})
    computation = proof.Computation(
        {"x": ""},
        {"y": lambda x: x**2},
        functions={"f": torch.square, "g": lambda x: 2 * x},
    )
    with pytest.raises(proof.FormulaError, match=r"unknown (function g|symbol [qw])"):
        page.check("slope", computation, derivative_of=("forward", "x"))


def test_the_message_points_at_the_side_that_is_not_the_derivative():
    page = proof.open_page("page", PAGE | {"gelu": r"\operatorname{GELU}(x) = x^2"})
    with pytest.raises(AssertionError, match="SymPy") as caught:
        page.check("slope", GELU, derivative_of=("gelu", "x"))
    _, line, caret = str(caught.value).split("\n")
    assert line[caret.index("^") :] == r"\Phi(x) + x \phi(x)"


def test_some_formula_must_be_named():
    page = proof.open_page("page", PAGE)
    with pytest.raises(ValueError, match="derivative_of names no formula"):
        page.check("jacobian", ROW, derivative_of=([], "s"))


@pytest.mark.parametrize(
    ("label", "computation", "old", "new", "forward", "variable"),
    [
        ("jacobian", ROW, r"s_j}}", r"2 s_j}}", "softmax", "s"),
        ("backward", ROWS, "softmax", "exp", "rows", "S"),
        ("slope", GELU, r"x \, \Phi", r"x x \Phi", "gelu", "x"),
        ("chain", CHAIN, "x_i^3", "x_i^2", ("inner", "outer"), "x"),
        ("chain", CHAIN, "x_i^3", "x_i^3 = x_i^2", ("inner", "outer"), "x"),
    ],
)
def test_it_differentiates_what_is_printed_not_what_is_meant(
    label, computation, old, new, forward, variable
):
    source = forward if isinstance(forward, str) else forward[0]
    assert old in PAGE[source]
    page = proof.open_page("page", PAGE | {source: PAGE[source].replace(old, new)})
    with pytest.raises(AssertionError, match=f"{label}: SymPy's derivative of .* differs"):
        page.check(label, computation, derivative_of=(forward, variable))


def test_the_variable_must_occur():
    page = proof.open_page("page", PAGE)
    with pytest.raises(ValueError, match="asks for z"):
        page.check("jacobian", ROW, derivative_of=("softmax", "z"))


def test_the_forward_formula_must_be_on_the_page():
    page = proof.open_page("page", PAGE)
    with pytest.raises(ValueError, match="did you mean softmax"):
        page.check("jacobian", ROW, derivative_of=("softmaxx", "s"))
