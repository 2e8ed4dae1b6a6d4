import json
import math
from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from vitlib import data
from vitlib.data.augment import Augment
from vitlib.train import Digits, train
from vitlib.train.objective import loss_of_ignorance, training_loss
from vitlib.train.recipes import ImageNetB16

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.0, 3.0, -2.0]])
MODES = pytest.mark.parametrize("gradients", ["autograd", "derived"])


@MODES
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_softmax_is_asked_for_the_parts_of_a_mixture(gradients, smoothing):
    rows = torch.tensor([[0.7, 0.0, 0.3], [0.0, 1.0, 0.0]])
    loss = training_loss("softmax", LOGITS, rows, label_smoothing=smoothing, gradients=gradients)
    truth = functional.cross_entropy(LOGITS, rows, label_smoothing=smoothing)
    torch.testing.assert_close(loss, truth)


@MODES
def test_a_sigmoid_is_asked_what_is_there_at_all(gradients):
    rows = torch.tensor([[0.7, 0.0, 0.3], [0.0, 1.0, 0.0]])
    there = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    loss = training_loss("sigmoid", LOGITS, rows, label_smoothing=0.0, gradients=gradients)
    torch.testing.assert_close(loss, torch.nn.BCEWithLogitsLoss()(LOGITS, there))


@MODES
def test_a_sigmoid_takes_labels_as_they_are(gradients):
    labels = torch.tensor([0, 2])
    loss = training_loss("sigmoid", LOGITS, labels, label_smoothing=0.0, gradients=gradients)
    truth = torch.nn.BCEWithLogitsLoss()(LOGITS, functional.one_hot(labels, 3).float())
    torch.testing.assert_close(loss, truth)


@pytest.mark.parametrize("name", ["softmax", "sigmoid"])
def test_ignorance_is_what_logits_of_zero_cost(name):
    labels = torch.tensor([3, 6])
    loss = training_loss(name, torch.zeros(2, 7), labels, label_smoothing=0.0, gradients="autograd")
    assert loss.item() == pytest.approx(loss_of_ignorance(name, 7))


@pytest.mark.parametrize(("gradients", "mixed"), [("autograd", True), ("derived", False)])
def test_digits_are_learned_by_it(gradients, mixed, tmp_path):
    recipe = Digits(epochs=14, loss="sigmoid")
    augment = replace(recipe.augment, cutmix=1.0) if mixed else Augment()
    model = replace(recipe.model, gradients=gradients)
    run = train(replace(recipe, augment=augment, model=model), tmp_path, progress=False)
    assert run.record["result"]["accuracy"] > 0.7
    assert run.record["recipe"]["loss"] == "sigmoid"
    losses = [
        json.loads(line)["loss"] for line in (tmp_path / "log.jsonl").read_text().splitlines()
    ]
    assert losses[-1] < losses[0] < math.log(2)


def test_a_test_reads_the_softmax_of_the_logits_whatever_was_trained_with():
    run = train(Digits(epochs=2, loss="sigmoid"), progress=False)
    digits = data.load("digits")
    with torch.no_grad():
        logits = run.model(digits.normalisation(digits.test_images))
    truth = functional.cross_entropy(logits, digits.test_labels).item()
    assert run.record["result"]["loss"] == pytest.approx(truth, rel=1e-5)


def test_a_loss_that_has_grown_ends_the_run():
    """A softmax might lose as much for a while: three times log 10 is 6.9."""
    recipe = Digits(epochs=1, loss="sigmoid", lr=0.5, warmup=0.0, optimiser="adamw")
    with pytest.raises(ValueError, match=r"the loss has grown to [2-6]\.\d+ in .*Lower lr"):
        train(recipe, progress=False)


def test_the_recipe_after_deit_iii_takes_it():
    assert ImageNetB16().loss == "sigmoid"
    assert ImageNetB16().model.layer_scale == 1e-4
    assert Digits().loss == "softmax"


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"loss": "hinge"}, "loss is 'hinge': choose softmax or sigmoid"),
        (
            {"loss": "sigmoid", "label_smoothing": 0.1},
            r"label_smoothing is 0.1, .* loss is sigmoid, .*Choose 0 or softmax",
        ),
    ],
)
def test_a_loss_that_cannot_be_is_told_in_one_line(settings, says):
    with pytest.raises(ValueError, match=says) as caught:
        Digits(**settings)
    assert "\n" not in str(caught.value)
