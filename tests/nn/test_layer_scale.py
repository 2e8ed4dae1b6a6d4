import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vitlib.nn.layer_scale import LayerScale, layer_scale_backward, layer_scale_forward

pytestmark = pytest.mark.usefixtures("float64")


@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 5))
def test_gradients(assert_gradients, batch, tokens, dim):
    x, gamma = torch.randn(batch, tokens, dim), torch.randn(dim)
    assert_gradients(layer_scale_forward, layer_scale_backward, x, gamma)


def test_it_is_a_product_with_a_diagonal_matrix():
    x, gamma = torch.randn(2, 3, 4), torch.randn(4)
    y, _ = layer_scale_forward(x, gamma)
    torch.testing.assert_close(y, x @ gamma.diag())


def test_without_factors_everything_stays_and_nothing_is_kept():
    x, grad_y = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    y, saved = layer_scale_forward(x, None)
    assert y is x
    assert saved is None
    grad_x, grad_gamma = layer_scale_backward(grad_y, saved)
    assert grad_x is grad_y
    assert grad_gamma is None


@pytest.mark.parametrize("needed", [(True, False), (False, True), (False, False)])
def test_only_what_is_needed_is_computed(needed):
    y, saved = layer_scale_forward(torch.randn(2, 3, 4), torch.randn(4))
    grads = layer_scale_backward(torch.randn_like(y), saved, needed)
    assert tuple(grad is not None for grad in grads) == needed


def test_the_module_in_both_modes(assert_modes_agree):
    assert_modes_agree(
        lambda gradients: LayerScale(4, 0.1, gradients=gradients), torch.randn(2, 3, 4)
    )


@pytest.mark.parametrize("initial", [1.0, 0.1, 1e-6])
def test_every_factor_starts_at_the_same_number(initial):
    gamma = LayerScale(4, initial).gamma
    assert gamma.shape == (4,)
    assert (gamma == initial).all()


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize(
    ("initial", "error"), [(0, ValueError), (-0.1, ValueError), (1.5, ValueError), ("1", TypeError)]
)
def test_a_start_that_cannot_be_is_told_in_one_line(initial, error):
    with pytest.raises(error, match=f"layer_scale={initial!r}: expected a number above") as caught:
        LayerScale(4, initial)
    assert "\n" not in str(caught.value)
