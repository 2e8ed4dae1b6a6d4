"""The class token: one learned vector that stands in front and gathers what the patches know.

    E (B, N, D)   c (1, 1, D)   X (B, N + 1, D)      X = [c; E]

(Dosovitskiy et al. 2021, after Devlin et al. 2019.) Every image of the batch starts with the same
vector, so its gradient is the sum over the batch of the first row's. Nothing is saved.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from vitlib.nn.derived import derived


def class_token_forward(
    x: Float[Tensor, "B N D"], cls_token: Float[Tensor, "1 1 D"]
) -> tuple[Float[Tensor, "B T D"], None]:
    """Put the class token in front of the patches."""
    return torch.cat([cls_token.expand(len(x), -1, -1), x], dim=1), None


def class_token_backward(
    grad_y: Float[Tensor, "B T D"], saved: None
) -> tuple[Float[Tensor, "B N D"], Float[Tensor, "1 1 D"]]:
    """The gradients of patches and class token."""
    return grad_y[:, 1:], grad_y[:, :1].sum(0, keepdim=True)


class_token = derived(class_token_forward, class_token_backward)
