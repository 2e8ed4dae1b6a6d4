import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vitlib.nn.softmax import softmax_backward, softmax_forward

pytestmark = pytest.mark.usefixtures("float64")

sizes = st.integers(1, 4)


@given(st.lists(sizes, max_size=2), sizes)
def test_gradients(assert_gradients, batch, tokens):
    # A single score has the weight 1 whatever it is; beside it a gradient of zero has no measure.
    scores = torch.randn(*batch, tokens + 1)
    assert_gradients(softmax_forward, softmax_backward, scores)


@given(st.lists(sizes, max_size=2), sizes, st.floats(-1e4, 1e4), st.sampled_from([1, 30, 1e4]))
def test_rows_are_positive_and_sum_to_one_whatever_the_scores(batch, tokens, shift, scale):
    weights, _ = softmax_forward(torch.randn(*batch, tokens) * scale + shift)
    assert (weights >= 0).all()
    torch.testing.assert_close(weights.sum(-1), torch.ones(batch))


def test_it_is_pytorchs_softmax_over_the_last_axis():
    scores = torch.randn(2, 3, 4, 5)
    torch.testing.assert_close(softmax_forward(scores)[0], scores.softmax(-1))


def test_large_scores_neither_overflow_nor_vanish():
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        scores = torch.tensor([6e4, 6e4, -6e4], dtype=dtype)
        weights, saved = softmax_forward(scores)
        assert weights.tolist() == [0.5, 0.5, 0]
        grad_scores = softmax_backward(torch.tensor([1, 0, 0], dtype=dtype), saved)
        assert grad_scores.tolist() == [0.25, -0.25, 0]


def test_a_shift_of_a_row_changes_nothing():
    scores = torch.randn(3, 4)
    shifted = softmax_forward(scores + torch.randn(3, 1))[0]
    torch.testing.assert_close(shifted, softmax_forward(scores)[0])


def test_a_single_score_has_no_gradient():
    weights, saved = softmax_forward(torch.randn(3, 1))
    assert torch.equal(weights, torch.ones(3, 1))
    assert torch.equal(softmax_backward(torch.randn(3, 1), saved), torch.zeros(3, 1))
