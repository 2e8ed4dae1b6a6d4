"""The references of every gradient: autograd, differences of the forward pass, the other mode."""

from contextlib import contextmanager

import jaxtyping
import pytest
import torch
from torch import Tensor

from vitlib import fast

TOLERANCE = 1e-9
STEP = 1e-3


@pytest.fixture(autouse=True)
def _readable():
    """What is tested here is vitlib.nn itself; tests/fast compares its fast twins with it."""
    with fast.readable():
        yield


def tensors(nest):
    """The tensors in nested tuples and dictionaries, in order."""
    if isinstance(nest, Tensor):
        return [nest]
    if isinstance(nest, dict):
        nest = tuple(nest.values())
    return [t for branch in nest for t in tensors(branch)] if isinstance(nest, tuple) else []


def central_differences(function, x):
    """∂function/∂x entry by entry, with an error of fourth order in the step."""
    gradient = torch.empty_like(x)
    for i in range(x.numel()):
        entry, original = x.view(-1)[i : i + 1], x.view(-1)[i].item()
        difference = 0.0
        for steps, weight in ((-2, 1 / 12), (-1, -2 / 3), (1, 2 / 3), (2, -1 / 12)):
            entry.fill_(original + steps * STEP)
            difference += weight * function().item()
        entry.fill_(original)
        gradient.view(-1)[i] = difference / STEP
    return gradient


def assert_near(found, expected, tolerance=TOLERANCE):
    """The largest error, measured against the largest of all gradients.

    Some gradients are exactly zero, the key bias's for one, so no tensor is its own measure.
    """
    assert [t.shape for t in found] == [t.shape for t in expected]
    largest = max(t.abs().max() for t in expected)
    error = max((a - b).abs().max() for a, b in zip(found, expected, strict=True))
    assert error <= tolerance * largest


def assert_gradients(forward, backward, *inputs):
    """The pair's gradients are those of autograd and those of central differences.

    Args:
        forward: of the pair.
        backward: of the pair; runs under `inference_mode`, where there is no autograd to lean on.
        *inputs: tensors, also nested in tuples and dictionaries, and constants.
    """
    variables = [x for x in tensors(inputs) if x.is_floating_point()]
    with torch.inference_mode():
        y, saved = forward(*inputs)
        cotangent = torch.randn_like(y)
        found = [grad.clone() for grad in tensors(backward(cotangent, saved))]
    cotangent = cotangent.clone()

    def loss():
        return (forward(*inputs)[0] * cotangent).sum()

    for variable in variables:
        variable.requires_grad_()
    by_autograd = torch.autograd.grad(loss(), variables)
    # the shapes have been checked by now, and a check takes as long as the forward pass
    with torch.no_grad(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(jaxtyping.config, "jaxtyping_disable", True)
        by_differences = [central_differences(loss, variable) for variable in variables]
    assert_near(found, by_autograd)
    assert_near(found, by_differences)


def node_names(y):
    """The names of the nodes of the graph that leads to a tensor."""
    nodes, frontier = set(), [y.grad_fn]
    while frontier:
        node = frontier.pop()
        if node not in nodes:
            nodes.add(node)
            frontier.extend(parent for parent, _ in node.next_functions if parent is not None)
    return [node.name() for node in nodes]


def assert_mode(y, mode):
    """All nodes of the graph are ours in the one mode, none is in the other."""
    ours = ["Derived" in name for name in node_names(y) if "AccumulateGrad" not in name]
    assert ours
    assert all(ours) if mode == "derived" else not any(ours)


def assert_modes_agree(make, *inputs):
    """A module gives the same output and the same gradients in either mode, and has no third.

    Args:
        make: the module, given `gradients`.
        *inputs: of the module.
    """
    with pytest.raises(ValueError, match="gradients='numeric' is not available") as refusal:
        make(gradients="numeric")
    assert "\n" not in str(refusal.value)
    modules = {mode: make(gradients=mode) for mode in ("autograd", "derived")}
    modules["derived"].load_state_dict(modules["autograd"].state_dict())
    results = []
    for mode, module in modules.items():
        leaves = [x.clone().requires_grad_(x.is_floating_point()) for x in inputs]
        y = module(*leaves)
        assert_mode(y, mode)
        torch.manual_seed(1)
        y.backward(torch.randn(y.shape))
        variables = [*(x for x in leaves if x.requires_grad), *module.parameters()]
        results.append([y.detach(), *(x.grad for x in variables)])
    assert_near(results[1], results[0], tolerance=1e-12)


@pytest.fixture(scope="session", name="assert_near")
def _assert_near():
    return assert_near


@pytest.fixture(scope="session", name="assert_gradients")
def _assert_gradients():
    return assert_gradients


@pytest.fixture(scope="session", name="node_names")
def _node_names():
    return node_names


@pytest.fixture(scope="session", name="assert_mode")
def _assert_mode():
    return assert_mode


@pytest.fixture(scope="session", name="assert_modes_agree")
def _assert_modes_agree():
    return assert_modes_agree


@pytest.fixture
def bfloat16_by_default():
    """A context in which new numbers are bfloat16, unless they say otherwise."""

    @contextmanager
    def switched():
        before = torch.get_default_dtype()
        torch.set_default_dtype(torch.bfloat16)
        try:
            yield
        finally:
            torch.set_default_dtype(before)

    return switched


@pytest.fixture(scope="module")
def float64():
    """All numbers of a module's tests are float64, unless they say otherwise."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)
