import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics
from torch import nn

from vitlib.train.evaluate import Evaluation, evaluate
from vitlib.train.measures import ClassMeasures, measure


def draw(n, classes, seed=0, sharpness=2.0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (n,), generator=generator)
    logits = torch.randn(n, classes, generator=generator)
    logits[torch.arange(n), labels] += 1
    return sharpness * logits, labels


sizes = st.tuples(st.integers(1, 300), st.integers(2, 12), st.integers(0, 10**6))


@given(sizes)
def test_it_is_what_scikit_learn_finds(size):
    logits, labels = draw(*size)
    n, classes, _ = size
    found = measure(logits, labels)
    chosen, every = logits.argmax(1), range(classes)
    assert (found.confusion.numpy() == metrics.confusion_matrix(labels, chosen, labels=every)).all()
    precision, recall, _, count = metrics.precision_recall_fscore_support(
        labels, chosen, labels=every, zero_division=np.nan
    )
    for mine, theirs in ((  [c.precision for c in found.classes], precision),
                         ([c.recall for c in found.classes], recall)):  # fmt: skip
        np.testing.assert_allclose([np.nan if x is None else x for x in mine], theirs, rtol=1e-12)
    assert [c.count for c in found.classes] == count.tolist()
    assert found.accuracy == metrics.accuracy_score(labels, chosen)
    probabilities = logits.double().softmax(1).numpy()
    assert found.loss == pytest.approx(
        metrics.log_loss(labels, probabilities, labels=every), rel=1e-9
    )
    if classes > 5:
        top5 = metrics.top_k_accuracy_score(labels, logits.numpy(), k=5, labels=every)
        assert found.top5 / n == pytest.approx(top5)
    else:
        assert found.top5 is None


@given(sizes, st.floats(0.1, 20))
def test_calibration_is_that_of_the_paper(size, sharpness):
    """Guo et al. 2017, equations 2 and 3, image by image and bin by bin."""
    logits, labels = draw(*size, sharpness)
    probabilities = logits.double().softmax(1).numpy()
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels.numpy()
    found, total = measure(logits, labels), 0.0
    for m in range(1, 16):
        inside = [i for i, c in enumerate(confidence) if (m - 1) / 15 < c <= m / 15]
        row = found.bins[m - 1]
        assert row.count == len(inside)
        if not inside:
            assert row.accuracy is row.confidence is None
            continue
        accuracy = sum(right[i] for i in inside) / len(inside)
        mean = sum(confidence[i] for i in inside) / len(inside)
        assert (row.accuracy, row.confidence) == pytest.approx((accuracy, mean))
        total += len(inside) / len(labels) * abs(accuracy - mean)
    assert found.calibration_error == pytest.approx(total, abs=1e-12)


def test_a_model_that_is_as_sure_as_it_is_right_is_calibrated():
    """Four classes; the first gets 60 %, and is right in three cases of five."""
    logits = torch.tensor([0.6, 0.2, 0.1, 0.1], dtype=torch.float64).log().repeat(5, 1)
    found = measure(logits, torch.tensor([0, 0, 0, 1, 2]))
    assert found.calibration_error == pytest.approx(0, abs=1e-12)
    assert measure(logits, torch.zeros(5, dtype=torch.long)).calibration_error == (
        pytest.approx(0.4)
    )


@pytest.mark.parametrize("classes", [3, 5, 15])
def test_a_confidence_on_an_edge_belongs_to_the_bin_below(classes):
    """Undecided among K classes, a model has a confidence of 1/K: exactly 5/15, 3/15 or 1/15."""
    found = measure(torch.zeros(1, classes), torch.tensor([0]))
    (filled,) = (b for b in found.bins if b.count)
    assert filled.confidence == filled.high == 1 / classes
    assert filled.low == pytest.approx(1 / classes - 1 / 15)


def test_all_sure_belong_to_the_last_bin():
    found = measure(torch.eye(3) * 1e4, torch.arange(3))
    assert [b.count for b in found.bins] == [0] * 14 + [3]
    assert found.calibration_error == 0


@given(sizes)
def test_it_is_an_evaluation_and_agrees_with_the_other(size):
    logits, labels = draw(*size)
    found, other = measure(logits, labels), evaluate(nn.Identity(), logits, labels)
    assert isinstance(found, Evaluation)
    assert (found.images, found.correct) == (other.images, other.correct)
    assert found.accuracy == other.accuracy
    assert found.loss == pytest.approx(other.loss, rel=1e-4)


@given(sizes, st.integers(0, 30))
def test_the_worst_are_the_mistakes_of_largest_loss(size, wanted):
    logits, labels = draw(*size)
    found = measure(logits, labels, worst=wanted)
    losses = torch.nn.functional.cross_entropy(logits.double(), labels, reduction="none")
    wrong = [i for i in range(len(labels)) if logits[i].argmax() != labels[i]]
    wrong.sort(key=lambda i: -losses[i])
    assert len(found.worst) == min(wanted, len(wrong))
    for mistake in found.worst:
        i = mistake.index
        assert mistake.label == labels[i] != mistake.chosen == logits[i].argmax()
        assert mistake.loss == pytest.approx(losses[i].item())
        assert mistake.confidence == pytest.approx(logits[i].double().softmax(0).max().item())
    assert [m.loss for m in found.worst] == pytest.approx(
        [losses[i].item() for i in wrong[:wanted]]
    )


def test_who_is_right_without_being_sure_is_no_mistake():
    undecided, wrong = [0.1, 0.0, 0.0, 0.0], [5.0, 5.1, -9.0, -9.0]  # losses 1.3 and 0.74
    found = measure(torch.tensor([undecided, undecided, wrong]), torch.tensor([0, 0, 0]))
    assert [mistake.index for mistake in found.worst] == [2]


@given(sizes, st.integers(1, 40))
def test_rows_without_an_image_do_not_count(size, padding):
    logits, labels = draw(*size)
    place = torch.randperm(len(labels) + padding)
    padded = torch.cat([logits, torch.full((padding, logits.shape[1]), math.nan)])[place]
    found = measure(padded, torch.cat([labels, torch.full((padding,), -1)])[place])
    plain = measure(logits, labels)
    assert found.to_dict() == pytest.approx(plain.to_dict())
    assert found.confusion.equal(plain.confusion)
    assert [place[m.index] for m in found.worst] == [m.index for m in plain.worst]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_precision_of_the_logits_does_not_matter_to_how_they_are_summed(dtype):
    logits, labels = draw(500, 8)
    narrow = measure(logits.to(dtype), labels)
    assert narrow.loss == pytest.approx(measure(logits.to(dtype).double(), labels).loss, rel=1e-12)


def test_a_class_that_is_never_seen_or_never_chosen_has_no_share():
    assert ClassMeasures(count=0, chosen=3, correct=0).recall is None
    assert ClassMeasures(count=3, chosen=0, correct=0).precision is None
    found = measure(torch.tensor([[1.0, 0, 0]] * 2), torch.tensor([0, 1]))
    assert [c.recall for c in found.classes] == [1, 0, None]
    assert [c.precision for c in found.classes] == [0.5, None, None]


def test_the_record_is_for_json():
    few, many = (measure(*draw(50, classes)).to_dict() for classes in (5, 6))
    assert json.loads(json.dumps(many)) == many
    assert set(many) - set(few) == {"top5"}
    assert 0 < many["accuracy"] < many["top5"] < 1


@pytest.mark.parametrize(
    ("logits", "labels", "words"),
    [
        (torch.zeros(3), torch.zeros(3).long(), r"expected \(n, K\)"),
        (torch.zeros(3, 2), torch.zeros(2).long(), r"expected \(n, K\)"),
        (torch.zeros(0, 2), torch.zeros(0).long(), "no image"),
        (torch.zeros(2, 2), torch.tensor([-1, -1]), "no image"),
        (torch.zeros(2, 2), torch.tensor([0, 2]), "expected 0 to 1"),
        (torch.zeros(2, 2), torch.tensor([0, -2]), "labels reach from -2"),
        (torch.tensor([[0.0, math.nan]]), torch.tensor([0]), "1 images are not finite"),
        (torch.tensor([[0.0, math.inf]]), torch.tensor([0]), "not finite"),
    ],
)
def test_what_cannot_be_measured_is_told(logits, labels, words):
    with pytest.raises(ValueError, match=words) as error:
        measure(logits, labels)
    assert "\n" not in str(error.value)
