r"""What a display is read as: its equations, and what stays together in them."""

import pytest

from vitlib.proof.latex import parse, parse_expression
from vitlib.proof.syntax import Binary, Call, Derivative, Power, Reduction, Symbol, children


def plain(node):
    """A tree as text, fully bracketed."""
    match node:
        case Symbol(name=name, subscript=None):
            return name
        case Symbol(name=name, subscript=subscript):
            indices = subscript.indices
            below = subscript.text if indices is None else ",".join(map(plain, indices))
            return f"{name}[{below}]"
        case Binary(operator=operator, left=left, right=right):
            mark = {"juxtaposed": " ", "odot": " ⊙ ", "cdot": " · "}.get(operator, f" {operator} ")
            return f"({plain(left)}{mark}{plain(right)})"
        case Power(base=base, exponent=exponent):
            return f"{plain(base)}^{plain(exponent)}"
        case Reduction(operator=operator, letters=letters, body=body):
            return f"{operator}_{''.join(letters)}({plain(body)})"
        case Derivative(of=of, by=by):
            return f"d{plain(of)}/d{plain(by)}"
        case Call(function=function, arguments=arguments):
            return f"{function}({', '.join(map(plain, arguments))})"
    inner = [plain(child) for child in children(node)]
    return f"{type(node).__name__}({', '.join(inner)})" if inner else node.text


def chains(latex):
    return [" = ".join(map(plain, sides)) for sides in parse(latex).chains]


@pytest.mark.parametrize(
    ("latex", "expected"),
    [
        ("a = b", ["a = b"]),
        ("a = b = c.", ["a = b = c"]),
        ("a = b;", ["a = b"]),
        (r"a = b, \qquad c = d,", ["a = b", "c = d"]),
        (r"a = b \qquad c = d \qquad e = f", ["a = b", "c = d", "e = f"]),
        (r"\begin{aligned} a &= b \\ &= c \end{aligned}", ["a = b = c"]),
        (r"\begin{aligned} a &= b \\ c &= d \end{aligned}", ["a = b", "c = d"]),
        (r"\begin{aligned} a &= b, \\[4pt] c &= d \\ &= e \end{aligned}.", ["a = b", "c = d = e"]),
        (
            r"\begin{aligned} a &= b + c \\ &\quad + d \\ &= e \end{aligned}",
            ["a = ((b + c) + d) = e"],
        ),
        (r"\begin{aligned} a &= b \\ &\qquad + c \end{aligned}", ["a = (b + c)"]),
        (r"\begin{aligned} & a \\ &= b \\ \end{aligned}", ["a = b"]),
        (r"\begin{gathered} a = b \\ c = d \end{gathered}", ["a = b", "c = d"]),
        (r"\begin{gathered} a = b \\ + c \end{gathered}", ["a = (b + c)"]),
        (r"\begin{aligned} a &= b \end{aligned} + c", ["a = (b + c)"]),
        ("\\begin{split}\na\n= b \\\\\n= c\n\\end{split}", ["a = b = c"]),
    ],
)
def test_equations_of_a_display(latex, expected):
    assert chains(latex) == expected


@pytest.mark.parametrize(
    ("latex", "expected"),
    [
        ("a b c", "((a b) c)"),
        ("a - b + c", "((a - b) + c)"),
        (r"a + b c \odot d", "(a + ((b c) ⊙ d))"),
        (r"-a b", "Negative((a b))"),
        (r"+a - b", "(a - b)"),
        (r"a [b] {c} d", "(((a b) c) d)"),
        (r"a / b \cdot c", "((a / b) · c)"),
        (r"2 i / D", "((2 i) / D)"),
        (r"n \bmod w + q", "((n bmod w) + q)"),
        (r"a \times b \cdot c", "((a · b) · c)"),
        (r"\ln p + \varphi(a)", "(log(p) + phi(a))"),
        (r"\sum_j a_j b \odot c + d", "(sum_j(((a[j] b) ⊙ c)) + d)"),
        (r"a \sum_{j,k} b \max_t c", "(a sum_jk((b max_t(c))))"),
        (r"\sum_{jk} a", "sum_jk(a)"),
        (r"\log p_k^2 + q", "(log(p[k]^2) + q)"),
        (r"\exp\left(a\right) b", "(exp(a) b)"),
        (r"\exp\left[a\right] b", "(exp(a) b)"),
        (r"\log(p)^2", "log(p)^2"),
        (r"\log^2(p)", "log(p)^2"),
        (r"(\log^2 p) q", "(log(p)^2 q)"),
        (r"\log \sum_k p_k", "log(sum_k(p[k]))"),
        (r"f(a) g(b)", "((f(a) g) b)"),
        (r"f[a] g[b]", "((f(a) g) b)"),
        (r"f'(a, b)", "f'(a, b)"),
        (r"a' b''", "(a_prime b_prime_prime)"),
        (r"\mathbf a' \mathbf b''", "(a_prime b_prime_prime)"),
        (r"\mathbf{A1} \mathbf{0}", "(A1 0)"),
        (r"\hat x^2 \hat{x_j}", "(x_hat^2 x_hat[j])"),
        (r"\varepsilon \lambda \vartheta", "((epsilon lambda_) theta)"),
        (r"X_{td} X_{t,d} X_t", "((X[t,d] X[t,d]) X[t])"),
        (r"X_{2i} X_{t+1} X_{t0}", "((X[(2 i)] X[(t + 1)]) X[t,0])"),
        (r"\delta_{k\,y_b}", "delta[k,y[b]]"),
        (r"\mathbf W_Q \mathbf{dO} E_\text{pos} E_{\mathrm{pos}}", "(((W[Q] dO) E[pos]) E[pos])"),
        (r"\hat{\mathbf X} \hat x_{tj} \overline{g}", "((X_hat x_hat[t,j]) g_bar)"),
        (r"|a| b |c|", "((abs(a) b) abs(c))"),
        (r"\frac12 a^23", "(((1 / 2) a^2) 3)"),
        (r"\frac{\partial \ell}{\partial X_{td}}", "dell/dX[t,d]"),
        (r"10{,}000 + 2\,000", "(10000 + 2000)"),
    ],
)
def test_what_belongs_together(latex, expected):
    node = parse_expression(latex, functions={"f"})
    assert plain(node) == expected
