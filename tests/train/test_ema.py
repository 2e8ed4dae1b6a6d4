import pytest
import torch

from vitlib import VisionTransformer, ViTConfig
from vitlib.train.ema import Ema, ramped

CONFIG = ViTConfig(
    image_size=8, patch_size=4, in_channels=1, num_classes=10, dim=8, depth=2, heads=2, mlp_dim=16
)


@pytest.fixture
def model():
    return VisionTransformer(CONFIG).double()


def wander(model):
    """Give the model other weights; return them."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return weights_of(model)


def weights_of(model):
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


@pytest.mark.parametrize("decay", [0.05, 0.5, 0.999])
def test_the_average_is_the_sum_that_the_recursion_stands_for(model, decay):
    """θ̄ = Σ θ_k w_k, where w_k is what was taken in and then kept in every later step."""
    ema, history = Ema(model, decay), [weights_of(model)]
    for step in range(20):
        history.append(wander(model))
        ema.update(model, step)
    decays = [min(decay, (1 + step) / (10 + step)) for step in range(20)]
    for name, average in ema.state_dict().items():
        expected = torch.zeros_like(average)
        for k, weights in enumerate(history):
            part = 1.0 if k == 0 else 1 - decays[k - 1]
            for kept in decays[k:]:
                part *= kept
            expected += part * weights[name]
        torch.testing.assert_close(average, expected, rtol=0, atol=1e-12)


def test_the_ramp_ends_at_the_decay_and_soon_forgets_the_first_weights():
    decays = [ramped(0.999, step) for step in range(20_000)]
    assert decays == sorted(decays)
    assert decays[0] == 0.1
    assert decays[-1] == 0.999
    assert torch.tensor(decays[:100]).prod() < 1e-9


def test_the_model_has_the_averages_only_for_a_while(model):
    ema = Ema(model, 0.9)
    for step in range(3):
        own = wander(model)
        ema.update(model, step)
    averages = {name: weight.clone() for name, weight in ema.state_dict().items()}
    images = torch.randn(2, 1, 8, 8, dtype=torch.float64)
    averaged = VisionTransformer(CONFIG).double()
    averaged.load_state_dict(averages)
    places = [parameter.data_ptr() for parameter in model.parameters()]
    with ema.replacing(model):
        assert torch.equal(model(images), averaged(images))
    for name, weight in model.named_parameters():
        assert torch.equal(weight, own[name])
        assert torch.equal(ema.state_dict()[name], averages[name])
    assert places == [parameter.data_ptr() for parameter in model.parameters()]


def test_the_models_own_weights_come_back_after_an_error(model):
    ema = Ema(model, 0.9)
    own = wander(model)
    with pytest.raises(KeyError), ema.replacing(model):
        raise KeyError
    assert all(torch.equal(weight, own[name]) for name, weight in model.named_parameters())


def test_frozen_weights_stay_what_they_are(model):
    model = model.float()
    model.patch_embed.requires_grad_(False)
    ema = Ema(model, 0.7)
    for step in range(10):
        ema.update(model, step)
    assert all(torch.equal(weight, ema.weights[n]) for n, weight in model.named_parameters())


def test_averages_go_on_from_their_state(model):
    ema = Ema(model, 0.9)
    wander(model)
    ema.update(model, 0)
    saved = {name: weight.clone() for name, weight in ema.state_dict().items()}
    assert saved.keys() == model.state_dict().keys()
    again = Ema(model, 0.9)
    again.load_state_dict(saved)
    for one in (ema, again):
        one.update(model, 1)
    for name, weight in ema.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name])
        assert not torch.equal(weight, saved[name])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state: state.pop("norm.weight"), "norm.weight is missing"),
        (lambda state: state.update({"norm.bias": torch.zeros(9)}), "norm.bias differs in shape"),
        (lambda state: state.update({"mask": torch.zeros(9)}), "it has no mask"),
    ],
)
def test_averages_of_another_model_are_refused_and_nothing_changes(model, change, words):
    ema = Ema(model, 0.9)
    before = {name: weight.clone() for name, weight in ema.state_dict().items()}
    state = wander(model)
    change(state)
    with pytest.raises(ValueError, match=rf"^the averaged weights do not fit .*{words}") as error:
        ema.load_state_dict(state)
    assert "\n" not in str(error.value)
    assert all(torch.equal(weight, before[name]) for name, weight in ema.state_dict().items())


@pytest.mark.parametrize("decay", [0.0, 1.0, -0.5, float("nan")])
def test_an_absurd_decay_is_named(model, decay):
    with pytest.raises(ValueError, match=f"^ema is {decay:g}: expected a decay above 0"):
        Ema(model, decay)
