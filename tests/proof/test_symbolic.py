import pytest
import torch
from torch.nn import functional

from vitlib import proof

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
    ("label", "computation", "old", "new", "forward", "variable"),
    [
        ("jacobian", ROW, r"s_j}}", r"2 s_j}}", "softmax", "s"),
        ("backward", ROWS, "softmax", "exp", "rows", "S"),
        ("slope", GELU, r"x \, \Phi", r"x x \Phi", "gelu", "x"),
        ("chain", CHAIN, "x_i^3", "x_i^2", ("inner", "outer"), "x"),
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
