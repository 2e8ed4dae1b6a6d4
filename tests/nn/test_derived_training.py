"""Not one gradient but a trajectory: 200 steps of training on the same curve as autograd's."""

from dataclasses import replace
from itertools import cycle, islice

import pytest
import torch

from vitlib import VisionTransformer, ViTConfig
from vitlib.data import load
from vitlib.nn.loss import cross_entropy, cross_entropy_backward, cross_entropy_forward
from vitlib.nn.vit import vit_backward, vit_forward

CONFIG = ViTConfig(
    image_size=8, patch_size=4, in_channels=1, num_classes=10, dim=16, depth=2, heads=2, mlp_dim=32
)
STEPS, RATE, BATCH = 200, 0.05, 16
TOLERANCE = 1e-9


@pytest.fixture(scope="module")
def batches():
    """Batches of real digits, in float64; the training set twice and a little more."""
    digits = load("digits")
    images = digits.train_images.double().split(BATCH)
    labels = digits.train_labels.long().split(BATCH)
    return list(islice(cycle(zip(images, labels, strict=True)), STEPS))


@pytest.fixture(scope="module")
def start():
    """Larger weights than a model starts with, so that plain steps lead somewhere."""
    torch.manual_seed(0)
    model = VisionTransformer(CONFIG).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return model.state_dict()


def descent(parameters):
    return torch.optim.SGD(parameters, lr=RATE)


def adamw(parameters):
    return torch.optim.AdamW(parameters, lr=3e-3, weight_decay=0.05)


def train(start, batches, gradients, method):
    """The losses and the final parameters of a model trained by one method."""
    model = VisionTransformer(replace(CONFIG, gradients=gradients)).double()
    model.load_state_dict(start)
    optimiser = method(model.parameters())
    losses = []
    for images, labels in batches:
        loss = cross_entropy(model(images), labels, gradients=gradients)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses, model.state_dict()


@torch.inference_mode()
def train_by_hand(start, batches):
    """The same on a dictionary of parameters, where no autograd is to be had."""
    parameters = {name: parameter.clone() for name, parameter in start.items()}
    losses = []
    for images, labels in batches:
        logits, saved = vit_forward(images, parameters, CONFIG)
        loss, saved_loss = cross_entropy_forward(logits, labels)
        grad_logits = cross_entropy_backward(torch.ones_like(loss), saved_loss)
        _, grads = vit_backward(grad_logits, saved)
        for name, grad in grads.items():
            parameters[name] -= RATE * grad
        losses.append(loss.item())
    return losses, parameters


@pytest.fixture(scope="module")
def reference(start, batches):
    return train(start, batches, "autograd", descent)


def assert_same_training(found, expected):
    (losses, parameters), (expected_losses, expected_parameters) = found, expected
    assert max(abs(a - b) for a, b in zip(losses, expected_losses, strict=True)) <= TOLERANCE
    assert parameters.keys() == expected_parameters.keys()
    for name, parameter in expected_parameters.items():
        assert (parameters[name] - parameter).abs().max() <= TOLERANCE, name


def test_the_reference_learns(reference, start):
    losses, parameters = reference
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])
    for name, parameter in parameters.items():
        assert (parameter - start[name]).abs().max() > 1e-6, name


@pytest.mark.parametrize("method", [descent, adamw])
def test_derived_training_follows_autograds_curve(start, batches, method):
    expected = train(start, batches, "autograd", method)
    assert_same_training(train(start, batches, "derived", method), expected)


def test_training_without_autograd_follows_the_same_curve(start, batches, reference):
    assert_same_training(train_by_hand(start, batches), reference)
