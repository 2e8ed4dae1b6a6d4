"""The class token and registers: learned vectors that join the patches.

    E (B, N, D)   c (1, 1, D)   X (B, N + 1, D)      X = [c; E]

(Dosovitskiy et al. 2021, after Devlin et al. 2019.) The class token stands in front and gathers
what the patches know. Registers (Darcet et al. 2024) come after the positions are added, between
the class token, where there is one, and the patches; nothing reads them in the end:

    X (B, T, D)   C_reg (1, R, D)   Y (B, T + R, D)      Y = [c; C_reg; E]

Every image of the batch gets the same vectors, so their gradient is the sum over the batch of their
rows'. Nothing is saved but where they stand.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from vitlib.nn.derived import Unneeded, derived


def class_token_forward(
    x: Float[Tensor, "B N D"], cls_token: Float[Tensor, "1 1 D"]
) -> tuple[Float[Tensor, "B T D"], None]:
    """Put the class token in front of the patches."""
    return torch.cat([cls_token.expand(x.shape[0], -1, -1), x], dim=1), None


def class_token_backward(
    grad_y: Float[Tensor, "B T D"], saved: None, needed: tuple[Any, ...] = (True, True)
) -> tuple[Float[Tensor, "B N D"], Float[Tensor, "1 1 D"] | Unneeded]:
    """The gradients of patches and class token."""
    return grad_y[:, 1:], grad_y[:, :1].sum(0, keepdim=True) if needed[1] else None


class_token = derived(class_token_forward, class_token_backward)


def registers_forward(
    x: Float[Tensor, "B T D"], reg_token: Float[Tensor, "1 R D"], before: int
) -> tuple[Float[Tensor, "B T_and_R D"], tuple[int, int]]:
    """Insert the registers behind the first `before` tokens."""
    tokens = torch.cat([x[:, :before], reg_token.expand(x.shape[0], -1, -1), x[:, before:]], dim=1)
    return tokens, (before, before + reg_token.shape[1])


def registers_backward(
    grad_y: Float[Tensor, "B T_and_R D"],
    places: tuple[int, int],
    needed: tuple[Any, ...] = (True, True),
) -> tuple[Float[Tensor, "B T D"] | Unneeded, Float[Tensor, "1 R D"] | Unneeded]:
    """The gradients of the other tokens and of the registers."""
    start, end = places
    grad_x = torch.cat([grad_y[:, :start], grad_y[:, end:]], dim=1) if needed[0] else None
    return grad_x, grad_y[:, start:end].sum(0, keepdim=True) if needed[1] else None


registers = derived(registers_forward, registers_backward)
