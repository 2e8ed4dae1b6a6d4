from math import inf, nan

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
smoothings = st.sampled_from([0.0, 0.1, 1.0])
MODES = ("autograd", "derived")


def draw_targets(kind, batch, classes):
    """Labels, or rows that sum to one, or rows of any numbers, zeros and negative ones included."""
    if kind == "labels":
        return torch.randint(classes, (batch,))
    rows = torch.randn(batch, classes) * (torch.rand(batch, classes) > 0.3)
    return rows.softmax(-1) if kind == "probabilities" else rows


kinds = st.sampled_from(["labels", "probabilities", "numbers"])


@given(kinds, st.integers(1, 4), sizes, smoothings)
def test_gradients(assert_gradients, kind, batch, classes, smoothing):
    logits, targets = torch.randn(batch, classes), draw_targets(kind, batch, classes)
    assert_gradients(cross_entropy_forward, cross_entropy_backward, logits, targets, smoothing)


@given(
    kinds,
    st.integers(1, 4),
    sizes,
    smoothings,
    st.floats(-1e6, 1e6),
    st.sampled_from([1, 100, 1e4, 1e6]),
)
def test_it_is_pytorchs_cross_entropy_whatever_the_logits(
    kind, batch, classes, smoothing, shift, scale
):
    logits, targets = (
        scale * torch.randn(batch, classes) + shift,
        draw_targets(kind, batch, classes),
    )
    loss, saved = cross_entropy_forward(logits, targets, smoothing)
    truth = functional.cross_entropy(logits, targets, label_smoothing=smoothing)
    torch.testing.assert_close(loss, truth)
    torch.testing.assert_close(saved.log_p.exp(), logits.softmax(-1))


@pytest.mark.parametrize("kind", ["labels", "probabilities", "numbers"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("gradients", MODES)
def test_values_and_gradients_are_pytorchs(kind, smoothing, gradients):
    logits, targets = torch.randn(5, 4), draw_targets(kind, 5, 4)
    results = []
    for function in (
        lambda z, y: cross_entropy(z, y, smoothing, gradients),
        lambda z, y: functional.cross_entropy(z, y, label_smoothing=smoothing),
    ):
        z, y = logits.clone().requires_grad_(), targets.clone()
        y.requires_grad_(y.is_floating_point())
        loss = function(z, y)
        loss.backward()
        results.append((loss.detach(), z.grad, y.grad if y.requires_grad else None))
    torch.testing.assert_close(*results, rtol=0, atol=1e-12)


def test_the_gradients_of_an_image_sum_to_zero_whatever_its_target():
    logits = torch.randn(5, 4)
    for targets in (torch.randint(4, (5,)), torch.randn(5, 4)):
        _, saved = cross_entropy_forward(logits, targets, 0.1)
        grads = cross_entropy_backward(torch.tensor(1.0), saved)
        grad = grads[0] if targets.is_floating_point() else grads
        torch.testing.assert_close(grad.sum(-1), torch.zeros(5))


@given(sizes, st.floats(0, 1))
def test_smoothed_labels_are_soft_targets(classes, smoothing):
    logits, labels = torch.randn(3, classes), torch.randint(classes, (3,))
    rows = (1 - smoothing) * functional.one_hot(labels, classes) + smoothing / classes
    torch.testing.assert_close(
        cross_entropy(logits, labels, smoothing, "derived"), cross_entropy(logits, rows)
    )


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8])
def test_the_module_in_both_modes_and_labels_of_every_integer_type(assert_modes_agree, dtype):
    assert_modes_agree(CrossEntropyLoss, torch.randn(5, 4), torch.randint(4, (5,)).to(dtype))


def test_nothing_is_smoothed_unless_asked():
    logits, labels = torch.randn(5, 4), torch.randint(4, (5,))
    truth = functional.cross_entropy(logits, labels)
    assert CrossEntropyLoss()(logits, labels) == truth
    assert cross_entropy(logits, labels) == truth
    torch.testing.assert_close(cross_entropy_forward(logits, labels)[0], truth)


def test_targets_that_need_no_gradient_get_none():
    logits, rows = torch.randn(5, 4), torch.randn(5, 4)
    _, saved = cross_entropy_forward(logits, rows)
    both = cross_entropy_backward(torch.tensor(1.0), saved, (True, True))
    one = cross_entropy_backward(torch.tensor(1.0), saved, (True, False))
    assert torch.equal(one[0], both[0])
    assert one[1] is None


def test_the_module_smooths(assert_modes_agree):
    def smoothing(gradients):
        return CrossEntropyLoss(0.1, gradients)

    logits, rows = torch.randn(5, 4), torch.randn(5, 4)
    assert_modes_agree(smoothing, logits, rows)
    truth = functional.cross_entropy(logits, rows, label_smoothing=0.1)
    torch.testing.assert_close(smoothing("derived")(logits, rows), truth)


@pytest.mark.parametrize("gradients", MODES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("level", [0.0, 1e4, -1e4, 6e4])
def test_large_logits_in_narrow_numbers(gradients, dtype, level):
    logits = torch.full((2, 10), level, dtype=dtype)
    logits[1, 3] = -level
    logits.requires_grad_()
    loss = cross_entropy(logits, torch.tensor([3, 4]), 0.1, gradients)
    truth = functional.cross_entropy(logits.double(), torch.tensor([3, 4]), label_smoothing=0.1)
    loss.backward()
    assert loss.dtype == torch.float32
    assert logits.grad.dtype == dtype
    assert logits.grad.isfinite().all()
    torch.testing.assert_close(loss.double(), truth, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("gradients", MODES)
def test_an_impossible_class_is_no_fault_until_it_is_the_true_one(gradients):
    logits = torch.randn(2, 4).index_fill(1, torch.tensor([1]), -inf).requires_grad_()
    loss = cross_entropy(logits, torch.tensor([0, 2]), gradients=gradients)
    loss.backward()
    assert loss.isfinite()
    assert logits.grad.isfinite().all()
    assert (logits.grad[:, 1] == 0).all()
    assert cross_entropy(logits, torch.tensor([0, 1]), gradients=gradients) == inf


@pytest.mark.parametrize("gradients", MODES)
@pytest.mark.parametrize(
    "fault", ["a logit is nan", "a logit is inf", "all logits are -inf", "a target is nan"]
)
def test_what_is_no_number_is_not_hidden(gradients, fault):
    logits, targets = torch.randn(2, 4), torch.zeros(2, 4)
    if "logit" in fault:
        logits[0, slice(None) if "all" in fault else 1] = float(fault.split()[-1])
    else:
        targets[0, 1] = nan
    logits.requires_grad_()
    loss = cross_entropy(logits, targets, gradients=gradients)
    loss.backward()
    assert loss.isnan()
    assert logits.grad[0].isnan().any()
    if "logit" in fault:
        assert cross_entropy(logits, torch.tensor([0, 2]), 0.1, gradients).isnan()


def test_numbers_of_two_widths_meet_as_in_pytorch():
    logits, rows = torch.randn(3, 4, dtype=torch.float32), torch.randn(3, 4)
    for one, other in ((logits, rows), (logits.double(), rows.float())):
        grads = []
        for gradients in MODES:
            leaves = one.clone().requires_grad_(), other.clone().requires_grad_()
            loss = cross_entropy(*leaves, gradients=gradients)
            loss.backward()
            grads.append((loss.detach(), *(leaf.grad for leaf in leaves)))
        torch.testing.assert_close(*grads, rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize("gradients", MODES)
@pytest.mark.parametrize(
    ("targets", "error", "says"),
    [
        ([0, 1, 4], ValueError, "label 4 is outside the model's 4 classes: expected 0 to 3"),
        ([0, -1, 2], ValueError, "label -1 is outside"),
        ([-100, 0, 1], ValueError, "label -100 is outside"),
        ([0, 1], ValueError, r"logits \(3, 4\) and targets \(2,\) do not fit"),
        ([[0], [1], [2]], ValueError, r"targets \(3, 1\) do not fit"),
        (0, ValueError, r"targets \(\) do not fit"),
        ([0.0, 1.0, 2.0], TypeError, "labels are torch.float64"),
        ([True, False, True], TypeError, "labels are torch.bool"),
        ([[0, 0, 0, 1]] * 3, TypeError, "rows of targets are torch.int64"),
        ([[False] * 4] * 3, TypeError, "rows of targets are torch.bool"),
        ([[0.0] * 4], ValueError, r"targets \(1, 4\) do not fit"),
        ([[0.0] * 3] * 3, ValueError, r"targets \(3, 3\) do not fit"),
    ],
)
def test_targets_that_cannot_be_are_told_in_one_line(gradients, targets, error, says):
    logits = torch.randn(3, 4, requires_grad=True)
    with pytest.raises(error, match=says) as caught:
        cross_entropy(logits, torch.tensor(targets), gradients=gradients)
    assert "\n" not in str(caught.value)
    assert "expected" in str(caught.value)


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize("shape", [(4,), (3, 4, 1), ()])
def test_logits_that_are_no_table_are_told(shape):
    with pytest.raises(ValueError, match="expected \\(B, K\\)"):
        cross_entropy(torch.randn(shape), torch.zeros(shape[:1], dtype=torch.int64))


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize(
    ("smoothing", "error"),
    [(-0.1, ValueError), (1.5, ValueError), (nan, ValueError), ("derived", TypeError)],
)
def test_a_smoothing_that_is_no_part_of_the_target_is_told(smoothing, error):
    for call in (
        lambda: cross_entropy(torch.randn(3, 4), torch.tensor([0, 1, 2]), smoothing),
        lambda: CrossEntropyLoss(smoothing),
    ):
        with pytest.raises(error, match=f"label_smoothing is .*{smoothing}.*: expected") as caught:
            call()
        assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize("gradients", MODES)
@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64])
def test_logits_that_have_no_gradients_are_told(gradients, dtype):
    logits = torch.zeros(3, 4, dtype=dtype)
    with pytest.raises(TypeError, match=f"cross_entropy was given {dtype}: expected floating"):
        cross_entropy(logits, torch.tensor([0, 1, 2]), gradients=gradients)


@pytest.mark.parametrize("targets", [torch.tensor([0, 1, 2]), torch.zeros(3, 4)])
def test_errors_that_are_not_the_labels_stay_what_they_are(targets, monkeypatch):
    def fail(*inputs, **options):
        raise RuntimeError("out of memory")

    monkeypatch.setattr("torch.nn.functional.cross_entropy", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        cross_entropy(torch.zeros(3, 4), targets)
