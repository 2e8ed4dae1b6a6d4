"""AdamW, with weight decay where it belongs."""

from typing import Any

import torch
from torch import nn


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Each trained parameter in exactly one of two groups: matrices decay, the rest does not.

    A matrix is what is multiplied with tokens: a `weight` of two or more axes. Biases, the gains
    of layer norms, the class token and the position embedding are added or scale one entry at a
    time; pulling them towards zero would bias what the model says rather than keep it simple.
    """
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            is_matrix = name.endswith("weight") and parameter.ndim >= 2
            (matrices if is_matrix else others).append(parameter)
    return [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]


def adamw(model: nn.Module, *, lr: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter 2019, algorithm 2) over `parameter_groups`.

    One fused kernel updates all parameters where PyTorch has one for the device; elsewhere it
    picks the fastest way that it has.
    """
    devices = {parameter.device.type for parameter in model.parameters()}
    fused = True if devices <= {"cpu", "cuda", "mps", "xpu"} else None
    return torch.optim.AdamW(parameter_groups(model, weight_decay), lr=lr, fused=fused)
