"""Every option with every other: derived gradients are autograd's, in three precisions."""

import itertools
from dataclasses import replace
from statistics import geometric_mean

import pytest
import torch

from vitlib import VisionTransformer, ViTConfig

CONFIG = ViTConfig(
    in_channels=2,
    num_classes=3,
    dim=8,
    depth=2,
    heads=2,
    mlp_dim=6,
    layer_norm_eps=1e-3,
)
POSITIONS = ["learned", "sincos1d", "sincos2d", "rope2d", "none"]
CHOICES = {
    "readout": [("cls", False), ("mean", False), ("mean", True)],
    "activation": ["gelu", "gelu_tanh", "relu", "swiglu"],
    "head": ["linear", "mlp"],
    "registers": [(0, None), (2, 0.1)],  # and LayerScale, to whose gradients they do nothing
    "qkv_bias": [True, False],
    "dropped": [(0.0, 0.0), (0.3, 0.0), (0.3, 0.5)],  # numbers, weights and paths; patches
    "sizes": [(4, 2), ((4, 6), (2, 3))],
}


def configurations(position, norm):
    """All that is left to choose."""
    for values in itertools.product(*CHOICES.values()):
        options = dict(zip(CHOICES, values, strict=True))
        (pool, after), (rate, patch_rate) = options.pop("readout"), options.pop("dropped")
        image_size, patch_size = options.pop("sizes")
        registers, layer_scale = options.pop("registers")
        if not (after and norm == "post"):
            yield replace(
                CONFIG,
                position=position,
                norm=norm,
                pool=pool,
                norm_after_pool=after,
                dropout=rate,
                attention_dropout=rate,
                drop_path=rate,
                patch_dropout=patch_rate,
                registers=registers,
                layer_scale=layer_scale,
                image_size=image_size,
                patch_size=patch_size,
                **options,
            )


def random(*shape, scale=1.0):
    """Numbers that every precision has."""
    return (scale * torch.randn(*shape)).bfloat16()


def gradients(model, dtype, weights, images, cotangent):
    """Those of the image and of all parameters, in training."""
    model.zero_grad()
    model.to(dtype).load_state_dict(weights)
    images = images.to(dtype, copy=True).requires_grad_()
    torch.manual_seed(1)  # the masks
    model(images).backward(cotangent.to(dtype))
    return [x.grad.double() for x in (images, *model.parameters())]


# the other tests check shapes; here, that would take most of the time
@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("position", POSITIONS)
def test_derived_gradients_are_autograds(position, norm):
    narrow = []
    for config in configurations(position, norm):
        autograd, derived = (
            VisionTransformer(replace(config, gradients=mode)) for mode in ("autograd", "derived")
        )
        inputs = (
            {name: random(*p.shape, scale=0.3) for name, p in derived.named_parameters()},
            random(3, config.in_channels, *config.image_shape),
            random(3, config.num_classes),
        )
        expected = gradients(autograd, torch.float64, *inputs)
        largest = max(gradient.abs().max() for gradient in expected)

        def error(model, dtype, inputs=inputs, expected=expected, largest=largest):
            found = gradients(model, dtype, *inputs)
            errors = [(a - b).abs().max() for a, b in zip(found, expected, strict=True)]
            return (max(errors) / largest).item()

        assert error(derived, torch.float64) <= 1e-10, config
        assert error(derived, torch.float32) <= 1e-5, config
        if not config.patch_dropout:  # it moves numbers and rounds none
            narrow.append(error(derived, torch.bfloat16) / error(autograd, torch.bfloat16))
    # Rounding is a lottery for one model, and either may win. Over hundreds of them it is not.
    assert len(narrow) == (384 if norm == "pre" else 256)
    assert geometric_mean(narrow) <= 1
