import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from vitlib.nn.loss import (
    CrossEntropyLoss,
    cross_entropy,
    cross_entropy_backward,
    cross_entropy_forward,
)

pytestmark = pytest.mark.usefixtures("float64")

sizes = st.integers(2, 4)
MODES = ("autograd", "derived")


@given(st.integers(1, 4), sizes)
def test_gradients(assert_gradients, batch, classes):
    logits, labels = torch.randn(batch, classes), torch.randint(classes, (batch,))
    assert_gradients(cross_entropy_forward, cross_entropy_backward, logits, labels)


@given(st.integers(1, 4), sizes, st.floats(-1e6, 1e6), st.sampled_from([1, 100, 1e6]))
def test_it_is_pytorchs_cross_entropy_whatever_the_logits(batch, classes, shift, scale):
    logits, labels = scale * torch.randn(batch, classes) + shift, torch.randint(classes, (batch,))
    loss, saved = cross_entropy_forward(logits, labels)
    torch.testing.assert_close(loss, functional.cross_entropy(logits, labels))
    torch.testing.assert_close(saved.p, logits.softmax(-1))


def test_the_gradients_of_an_image_sum_to_zero():
    logits, labels = torch.randn(5, 4), torch.randint(4, (5,))
    _, saved = cross_entropy_forward(logits, labels)
    grad = cross_entropy_backward(torch.tensor(1.0), saved)
    torch.testing.assert_close(grad.sum(-1), torch.zeros(5))
    assert all(grad[i, label] < 0 for i, label in enumerate(labels))


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8])
def test_the_module_in_both_modes_and_labels_of_every_integer_type(assert_modes_agree, dtype):
    assert_modes_agree(CrossEntropyLoss, torch.randn(5, 4), torch.randint(4, (5,)).to(dtype))


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize("gradients", MODES)
@pytest.mark.parametrize(
    ("labels", "error", "says"),
    [
        ([0, 1, 4], ValueError, "label 4 is outside the model's 4 classes: expected 0 to 3"),
        ([0, -1, 2], ValueError, "label -1 is outside"),
        ([-100, 0, 1], ValueError, "label -100 is outside"),
        ([0, 1], ValueError, r"logits \(3, 4\) and labels \(2,\) do not fit"),
        ([[0], [1], [2]], ValueError, r"labels \(3, 1\) do not fit"),
        (0, ValueError, r"labels \(\) do not fit"),
        ([0.0, 1.0, 2.0], TypeError, "labels are torch.float64"),
        ([True, False, True], TypeError, "labels are torch.bool"),
    ],
)
def test_labels_that_cannot_be_are_told_in_one_line(gradients, labels, error, says):
    logits = torch.randn(3, 4, requires_grad=True)
    with pytest.raises(error, match=says) as caught:
        cross_entropy(logits, torch.tensor(labels), gradients)
    assert "\n" not in str(caught.value)
    assert "expected" in str(caught.value)


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize("shape", [(4,), (3, 4, 1), ()])
def test_logits_that_are_no_table_are_told(shape):
    with pytest.raises(ValueError, match="expected \\(B, K\\)"):
        cross_entropy(torch.randn(shape), torch.zeros(shape[:1], dtype=torch.int64))


@pytest.mark.usefixtures("unchecked_shapes")
def test_errors_that_are_not_the_labels_stay_what_they_are():
    with pytest.raises(RuntimeError, match="not implemented"):
        cross_entropy(torch.zeros(3, 4, dtype=torch.int64), torch.tensor([0, 1, 2]))
