import pytest
import torch

from vitlib import VisionTransformer, ViTConfig
from vitlib.train.optimiser import adamw, parameter_groups


@pytest.fixture
def model():
    return VisionTransformer(
        ViTConfig(image_size=8, patch_size=4, in_channels=1, num_classes=10, dim=8, depth=2,
                  heads=2, mlp_dim=16)
    )  # fmt: skip


def names(model, parameters):
    name_of = {id(parameter): name for name, parameter in model.named_parameters()}
    return {name_of[id(parameter)] for parameter in parameters}


def test_every_parameter_is_in_exactly_one_group(model):
    grouped = [p for group in parameter_groups(model, 0.1) for p in group["params"]]
    assert len(grouped) == len({id(p) for p in grouped}) == len(list(model.parameters()))


def test_matrices_decay_and_nothing_else(model):
    decaying, others = parameter_groups(model, 0.1)
    assert decaying["weight_decay"] == 0.1
    assert others["weight_decay"] == 0
    blocks = {
        f"blocks.{block}.{part}.weight"
        for block in range(2)
        for part in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    }
    expected = blocks | {"patch_embed.proj.weight", "head.weight"}
    assert names(model, decaying["params"]) == expected
    rest = names(model, others["params"])
    assert {"cls_token", "pos_embed", "norm.weight", "norm.bias", "head.bias"} <= rest
    assert rest == {name for name, _ in model.named_parameters()} - expected


def test_frozen_parameters_are_left_out(model):
    model.patch_embed.requires_grad_(False)
    grouped = [p for group in parameter_groups(model, 0.1) for p in group["params"]]
    assert len(grouped) == len(list(model.parameters())) - 2


def test_a_step_is_adamw_as_written_in_the_paper(model):
    """Algorithm 2 of Loshchilov and Hutter, two steps, against the optimiser."""
    model = model.double()
    lr, decay, (beta1, beta2), eps = 0.01, 0.1, (0.9, 0.999), 1e-8
    ours = {n: p.detach().clone() for n, p in model.named_parameters()}
    first = {n: torch.zeros_like(p) for n, p in ours.items()}
    second = {n: torch.zeros_like(p) for n, p in ours.items()}
    optimiser = adamw(model, lr=lr, weight_decay=decay)
    decaying = names(model, optimiser.param_groups[0]["params"])
    for step in (1, 2):
        for name, parameter in model.named_parameters():
            grad = torch.randn_like(parameter)
            parameter.grad = grad
            first[name] = beta1 * first[name] + (1 - beta1) * grad
            second[name] = beta2 * second[name] + (1 - beta2) * grad**2
            direction = (
                first[name] / (1 - beta1**step) / ((second[name] / (1 - beta2**step)).sqrt() + eps)
                + (decay if name in decaying else 0) * ours[name]
            )
            ours[name] = ours[name] - lr * direction
        optimiser.step()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.detach(), ours[name], rtol=1e-10, atol=1e-12)
