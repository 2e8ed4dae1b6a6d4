import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from vitlib.nn.dropout import Drop, draw, dropout, dropout_backward, dropout_forward

pytestmark = pytest.mark.usefixtures("float64")

CPU = torch.device("cpu")
sizes = st.integers(1, 4)


@given(sizes, sizes, sizes, st.floats(0.01, 0.9), st.booleans())
def test_gradients(assert_gradients, batch, tokens, dim, rate, whole_images):
    x = torch.randn(batch, tokens, dim)
    drop = draw((batch, 1, 1) if whole_images else x.shape, rate, CPU)
    assert_gradients(dropout_forward, dropout_backward, x, drop)


def test_with_the_same_mask_it_is_pytorchs():
    x = torch.randn(50, 40)
    torch.manual_seed(1)
    theirs = functional.dropout(x, 0.3)
    ours, _ = dropout_forward(x, Drop(theirs != 0, 0.3))
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_so_many_are_dropped_and_the_mean_stays(rate):
    drop = draw((400, 500), rate, CPU)
    assert abs((~drop.mask).double().mean() - rate) < 0.005
    y, _ = dropout_forward(torch.ones(400, 500), drop)
    assert abs(y.mean() - 1) < 0.02


def test_a_path_is_dropped_for_whole_images():
    drop = draw((64, 1, 1), 0.5, CPU)
    y, _ = dropout_forward(torch.ones(64, 3, 4), drop)
    assert set(y.unique().tolist()) == {0, 2}
    assert (y.amin((1, 2)) == y.amax((1, 2))).all()


def test_without_a_mask_nothing_happens():
    x = torch.randn(2, 3)
    state = torch.get_rng_state()
    assert draw(x.shape, 0.0, CPU) is None
    assert torch.equal(torch.get_rng_state(), state)  # and no random number is spent
    assert dropout_forward(x, None)[0] is x
    assert dropout_backward(x, None) is x


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_precision_is_the_inputs(dtype):
    x, drop = torch.ones(5, dtype=dtype), draw((5,), 0.2, CPU)
    assert dropout_forward(x, drop)[0].dtype == dropout_backward(x, drop).dtype == dtype


def test_both_kinds_of_gradients_agree():
    x, drop = torch.randn(3, 4, requires_grad=True), draw((3, 4), 0.4, CPU)
    cotangent = torch.randn(3, 4)
    grads = [
        torch.autograd.grad(dropout(x, drop, gradients=mode), x, cotangent)[0]
        for mode in ("autograd", "derived")
    ]
    torch.testing.assert_close(*grads)
