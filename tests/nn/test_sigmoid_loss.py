from math import exp, inf, log, log1p, nan

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from vitlib.nn.sigmoid_loss import (
    BinaryCrossEntropyLoss,
    binary_cross_entropy,
    binary_cross_entropy_backward,
    binary_cross_entropy_forward,
)

pytestmark = pytest.mark.usefixtures("float64")

sizes = st.integers(1, 4)
KINDS = ["labels", "present", "probabilities", "numbers"]
kinds = st.sampled_from(KINDS)
MODES = ("autograd", "derived")


def draw_targets(kind, batch, classes):
    """Labels, or rows: zeros and ones, several or none; numbers from 0 to 1; any numbers."""
    return {
        "labels": torch.randint(classes, (batch,)),
        "present": torch.randint(2, (batch, classes)).double(),
        "probabilities": torch.rand(batch, classes),
        "numbers": torch.randn(batch, classes),
    }[kind]


def rows_of(targets, classes):
    one_hot = functional.one_hot
    return targets if targets.is_floating_point() else one_hot(targets, classes).double()


def by_definition(logits, rows):
    """The mean of −(y log s + (1 − y) log(1 − s)), s = sigmoid(z), in float64."""
    present = logits.sigmoid()
    return -(rows * present.log() + (1 - rows) * (1 - present).log()).mean()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("gradients", MODES)
def test_it_is_what_the_definition_says(kind, gradients):
    logits, targets = 2 * torch.randn(5, 4), draw_targets(kind, 5, 4)
    loss = binary_cross_entropy(logits, targets, gradients)
    torch.testing.assert_close(loss, by_definition(logits, rows_of(targets, 4)), rtol=0, atol=1e-12)


@given(kinds, sizes, sizes)
def test_gradients(assert_gradients, kind, batch, classes):
    logits, targets = torch.randn(batch, classes), draw_targets(kind, batch, classes)
    pair = binary_cross_entropy_forward, binary_cross_entropy_backward
    assert_gradients(*pair, logits, targets)


@given(kinds, sizes, sizes, st.floats(-1e6, 1e6), st.sampled_from([1, 100, 1e4, 1e6]))
def test_it_is_pytorchs_whatever_the_logits(kind, batch, classes, shift, scale):
    logits = scale * torch.randn(batch, classes) + shift
    targets = draw_targets(kind, batch, classes)
    loss, saved = binary_cross_entropy_forward(logits, targets)
    rows = rows_of(targets, classes)
    truth = functional.binary_cross_entropy_with_logits(logits, rows)
    torch.testing.assert_close(loss, truth, rtol=1e-9, atol=1e-9)
    grads = binary_cross_entropy_backward(torch.ones(()), saved)
    grad = grads[0] if targets.is_floating_point() else grads
    expected = (logits.sigmoid() - rows) / (batch * classes)
    torch.testing.assert_close(grad, expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("gradients", MODES)
def test_values_and_gradients_are_pytorchs(kind, gradients):
    logits, targets = torch.randn(5, 4), draw_targets(kind, 5, 4)
    results = []
    for function in (
        lambda z, y: binary_cross_entropy(z, y, gradients),
        lambda z, y: functional.binary_cross_entropy_with_logits(z, rows_of(y, 4)),
    ):
        z, y = logits.clone().requires_grad_(), targets.clone()
        y.requires_grad_(y.is_floating_point())
        loss = function(z, y)
        loss.backward()
        results.append((loss.detach(), z.grad, y.grad if y.requires_grad else None))
    torch.testing.assert_close(*results, rtol=0, atol=1e-12)


def test_every_class_is_asked_on_its_own():
    logits, rows = torch.randn(3, 4), torch.randint(2, (3, 4)).double()
    alone = [binary_cross_entropy(logits[:, [k]], rows[:, [k]]) for k in range(4)]
    torch.testing.assert_close(binary_cross_entropy(logits, rows), torch.stack(alone).mean())


def test_of_two_classes_a_softmax_asks_what_one_sigmoid_does():
    margin, first = torch.randn(6, 1), torch.randint(2, (6,))
    two = torch.cat([torch.zeros_like(margin), margin], dim=1)
    torch.testing.assert_close(
        binary_cross_entropy(margin, first[:, None].double(), "derived"),
        functional.cross_entropy(two, first),
    )


@pytest.mark.parametrize("classes", [1, 10, 1000])
def test_who_knows_nothing_loses_log_two(classes):
    loss = binary_cross_entropy(torch.zeros(3, classes), torch.zeros(3, dtype=torch.int64))
    assert loss.item() == pytest.approx(log(2))


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8])
def test_the_module_in_both_modes_and_labels_of_every_integer_type(assert_modes_agree, dtype):
    assert_modes_agree(BinaryCrossEntropyLoss, torch.randn(5, 4), torch.randint(4, (5,)).to(dtype))


def test_the_module_with_rows(assert_modes_agree):
    assert_modes_agree(BinaryCrossEntropyLoss, torch.randn(5, 4), torch.rand(5, 4))


def test_targets_that_need_no_gradient_get_none():
    logits, rows = torch.randn(5, 4), torch.randn(5, 4)
    _, saved = binary_cross_entropy_forward(logits, rows)
    both = binary_cross_entropy_backward(torch.tensor(1.0), saved, (True, True))
    one = binary_cross_entropy_backward(torch.tensor(1.0), saved, (True, False))
    assert torch.equal(one[0], both[0])
    assert one[1] is None


@pytest.mark.parametrize("gradients", MODES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("level", [0.0, 1e4, -1e4, 6e4])
def test_large_logits_in_narrow_numbers(gradients, dtype, level):
    logits = torch.full((2, 10), level, dtype=dtype)
    logits[1, 3] = -level
    logits.requires_grad_()
    loss = binary_cross_entropy(logits, torch.tensor([3, 4]), gradients)
    rows = functional.one_hot(torch.tensor([3, 4]), 10).double()
    truth = functional.binary_cross_entropy_with_logits(logits.double(), rows)
    loss.backward()
    assert loss.dtype == torch.float32
    assert logits.grad.dtype == dtype
    torch.testing.assert_close(loss.double(), truth, rtol=1e-6, atol=1e-6)
    expected = (logits.detach().double().sigmoid() - rows) / 20
    torch.testing.assert_close(logits.grad.double(), expected, rtol=1e-2, atol=1e-9)


@pytest.mark.parametrize("right", [20.0, 40.0, 80.0])
def test_nearly_certain_and_right_is_not_rounded_to_certain(right):
    """The loss is then about exp(−|z|), far below the last digit of z; PyTorch's is half of it."""
    truth = log1p(exp(-right))
    logits = torch.tensor([[right, -right]], dtype=torch.float32)
    loss = binary_cross_entropy(logits, torch.tensor([0]), "derived")
    assert loss.item() == pytest.approx(truth, rel=1e-5, abs=0)


@pytest.mark.parametrize("gradients", MODES)
@pytest.mark.parametrize("fault", ["a logit is nan", "a logit is inf", "a target is nan"])
def test_what_is_no_number_is_not_hidden(gradients, fault):
    logits, targets = torch.randn(2, 4), torch.zeros(2, 4)
    if "logit" in fault:
        logits[0, 1] = float(fault.split()[-1])
    else:
        targets[0, 1] = nan
    logits.requires_grad_()
    loss = binary_cross_entropy(logits, targets, gradients)
    loss.backward()
    assert not loss.isfinite()
    if "nan" in fault:
        assert logits.grad[0, 1].isnan()


def test_a_class_that_is_ruled_out_and_there_costs_everything():
    assert binary_cross_entropy(torch.tensor([[0.0, -inf]]), torch.tensor([1]), "derived") == inf


@pytest.mark.parametrize("gradients", MODES)
def test_the_loss_is_as_wide_as_the_logits_and_each_gradient_as_what_it_is_of(gradients):
    logits, rows = torch.randn(3, 4), torch.rand(3, 4)
    truth = functional.binary_cross_entropy_with_logits(logits, rows)
    for one, other in ((logits.float(), rows), (logits, rows.float()), (logits.bfloat16(), rows)):
        leaves = one.clone().requires_grad_(), other.clone().requires_grad_()
        loss = binary_cross_entropy(*leaves, gradients)
        loss.backward()
        assert loss.dtype == torch.promote_types(one.dtype, torch.float32)
        assert [leaf.grad.dtype for leaf in leaves] == [one.dtype, other.dtype]
        torch.testing.assert_close(loss.double(), truth, rtol=1e-2, atol=0)


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize("gradients", MODES)
@pytest.mark.parametrize(
    ("targets", "error", "says"),
    [
        ([0, 1, 4], ValueError, "label 4 is outside the model's 4 classes: expected 0 to 3"),
        ([0, -1, 2], ValueError, "label -1 is outside"),
        ([0, 1], ValueError, r"logits \(3, 4\) and targets \(2,\) do not fit"),
        ([0.0, 1.0, 2.0], TypeError, "labels are torch.float64"),
        ([True, False, True], TypeError, "labels are torch.bool"),
        ([[0, 0, 0, 1]] * 3, TypeError, "rows of targets are torch.int64"),
        ([[0.0] * 3] * 3, ValueError, r"targets \(3, 3\) do not fit"),
    ],
)
def test_targets_that_cannot_be_are_told_in_one_line(gradients, targets, error, says):
    logits = torch.randn(3, 4, requires_grad=True)
    with pytest.raises(error, match=says) as caught:
        binary_cross_entropy(logits, torch.tensor(targets), gradients)
    assert "\n" not in str(caught.value)
    assert "expected" in str(caught.value)


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize("gradients", MODES)
@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64])
def test_logits_that_have_no_gradients_are_told(gradients, dtype):
    logits = torch.zeros(3, 4, dtype=dtype)
    with pytest.raises(TypeError, match=f"binary_cross_entropy was given {dtype}: expected float"):
        binary_cross_entropy(logits, torch.tensor([0, 1, 2]), gradients)


@pytest.mark.parametrize("targets", [torch.tensor([0, 1, 2]), torch.zeros(3, 4)])
def test_errors_that_are_not_the_labels_stay_what_they_are(targets, monkeypatch):
    def fail(*inputs, **options):
        raise RuntimeError("out of memory")

    monkeypatch.setattr("torch.nn.functional.binary_cross_entropy_with_logits", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        binary_cross_entropy(torch.zeros(3, 4), targets)
