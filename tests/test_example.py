"""The running example is the model that its weights make, and small enough for a pencil."""

import pytest
import torch

from vitlib.example import CONFIG, running_example


def test_the_stages_end_in_the_model_s_own_logits() -> None:
    example = running_example()
    expected = example.model()(example.image)[0]
    torch.testing.assert_close(example.stages()["logits"], expected, rtol=0, atol=1e-12)


def test_the_gradients_are_those_of_the_derived_backward_pass() -> None:
    example = running_example()
    image = example.image.clone().requires_grad_()
    logits = example.model(gradients="derived")(image)
    torch.nn.functional.cross_entropy(logits, torch.tensor([example.label])).backward()
    torch.testing.assert_close(example.gradients()["I"], image.grad[0], rtol=0, atol=1e-12)


def test_every_weight_has_one_decimal_and_every_pixel_is_a_sixteenth() -> None:
    example = running_example()
    assert sum(weight.numel() for weight in example.parameters.values()) == 322
    for weight in example.parameters.values():
        torch.testing.assert_close(weight * 10, (weight * 10).round(), rtol=0, atol=1e-12)
        assert weight.abs().max() <= 2
    assert torch.equal(example.image * 16, (example.image * 16).round())


def test_it_reads_its_digit_and_its_sizes_are_those_of_the_book() -> None:
    example = running_example()
    stages = example.stages()
    assert stages["p"].argmax() == example.label == 2
    assert (CONFIG.num_patches, CONFIG.num_tokens, CONFIG.head_dim) == (4, 5, 2)
    assert stages["A"].shape == (2, 5, 5)
    assert len(example.token_names) == CONFIG.num_tokens


@pytest.mark.parametrize("name", ["I", "P", "E", "X", "X_hat", "Y", "Q", "K", "V", "S", "A", "O"])
def test_a_gradient_has_the_shape_of_its_stage(name: str) -> None:
    example = running_example()
    assert example.gradients()[name].shape == example.stages()[name].shape
