"""The law of vitlib.nn: a derivation is plain tensor operations and leans on nobody's gradients."""

import ast
from pathlib import Path

import pytest

import vitlib.nn

FOLDER = Path(vitlib.nn.__file__).parent
ADAPTER = "derived.py"
FILES = sorted(path for path in FOLDER.glob("*.py") if path.name not in ("__init__.py", ADAPTER))

# what would differentiate, or is somebody else's forward or backward pass in one call
FORBIDDEN_NAMES = {
    "aten",
    "autograd",
    "backward",
    "call_function",
    "derived",
    "enable_grad",
    "func",
    "functional",
    "functorch",
    "grad",
    "jacfwd",
    "jacrev",
    "jvp",
    "ops",
    "requires_grad",
    "requires_grad_",
    "retain_grad",
    "vjp",
    "vmap",
    # kernels that torch offers outside torch.nn.functional
    "celu",
    "conv2d",
    "convolution",
    "gelu",
    "layer_norm",
    "log_softmax",
    "native_layer_norm",
    "scaled_dot_product_attention",
    "softmax",
    "var_mean",
}


def functions(tree):
    return [node for node in tree.body if isinstance(node, ast.FunctionDef)]


def is_half_of_a_pair(function):
    return function.name.endswith(("_forward", "_backward"))


def derivation(tree):
    """The halves of pairs, and the functions of the same file that they call, however deep."""
    by_name = {function.name: function for function in functions(tree)}
    pending = [name for name, function in by_name.items() if is_half_of_a_pair(function)]
    reached = set()
    while pending:
        name = pending.pop()
        if name not in reached:
            reached.add(name)
            used = {node.id for node in ast.walk(by_name[name]) if isinstance(node, ast.Name)}
            pending.extend(used & by_name.keys())
    return [by_name[name] for name in sorted(reached)]


def offences(tree):
    """Where derivations use what the law forbids."""
    found = []
    for function in derivation(tree):
        for statement in function.body:
            for node in ast.walk(statement):
                names = {
                    ast.Name: lambda node: [node.id],
                    ast.Attribute: lambda node: [node.attr],
                    ast.Import: lambda node: [alias.name for alias in node.names],
                    ast.ImportFrom: lambda node: [alias.name for alias in node.names],
                }.get(type(node), lambda _: [])(node)
                found += [
                    f"{function.name}, line {node.lineno}: {name}"
                    for name in names
                    if name in FORBIDDEN_NAMES
                ]
    return found


def foreign_backwards(tree):
    """Imported names that end like a derivation but come from outside vitlib.nn."""
    return [
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and not (node.module or "").startswith("vitlib.nn.")
        for alias in node.names
        if alias.name.endswith(("_forward", "_backward"))
    ]


def attribute_backwards(tree):
    """Backward kernels taken from a module: torch.ops.aten.x_backward, torch._y_backward_data."""
    return [
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and "_backward" in node.attr
    ]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_derivations_lean_on_nobody(path):
    tree = ast.parse(path.read_text())
    assert not offences(tree)
    assert not foreign_backwards(tree)
    assert not attribute_backwards(tree)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_forward_has_its_backward_and_a_docstring_goes_before(path):
    tree = ast.parse(path.read_text())
    names = [function.name for function in functions(tree)]
    pairs = {name.removesuffix("_forward") for name in names if name.endswith("_forward")}
    assert pairs == {name.removesuffix("_backward") for name in names if name.endswith("_backward")}
    text = ast.get_docstring(tree)
    assert text
    if pairs:
        first_indented = next(line for line in text.splitlines() if line.startswith("    "))
        assert "(" in first_indented  # shapes first


def test_composites_are_short_and_the_network_fits_on_a_few_screens():
    assert len((FOLDER / "vit.py").read_text().splitlines()) < 200
    for path in FILES:
        for function in derivation(ast.parse(path.read_text())):
            body = [node for node in function.body if not is_docstring(node)]
            lines = body[-1].end_lineno - body[0].lineno + 1
            assert lines <= 30, (path.name, function.name, lines)


def is_docstring(node):
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


@pytest.mark.parametrize(
    "line",
    [
        "torch.autograd.grad(y, x)",
        "torch.func.vjp(f, x)",
        "y.backward(grad_y)",
        "torch.ops.aten.gelu_backward(grad_y, x)",
        "torch._softmax_backward_data(grad_y, y, -1, y.dtype)",
        "functional.layer_norm(x, x.shape[-1:])",
        "x.requires_grad_()",
        "torch.softmax(x, -1)",
        "helper(x)",
    ],
)
def test_the_law_is_enforced(line):
    source = f"""
def helper(x):
    return torch.autograd.grad(x.sum(), x)

def x_backward(grad_y, saved):
    return {line}
"""
    tree = ast.parse(source)
    assert offences(tree) or attribute_backwards(tree)
