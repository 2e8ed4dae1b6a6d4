"""The MLP of an encoder block: each token thinks on its own.

    X Y (B, T, D)   U (B, T, M)      U = X W_1 + b_1      Y = GELU(U) W_2 + b_2

(Dosovitskiy et al. 2021, appendix D.1; Vaswani et al. 2017 have a ReLU in place of the GELU.) The
backward pass is the three parts' in opposite order. Saved: what the parts save.
"""

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from vitlib.config import available
from vitlib.nn import linear
from vitlib.nn.activations import GELU, gelu_backward, gelu_forward
from vitlib.nn.derived import derived
from vitlib.nn.linear import Linear, Weights, linear_backward, linear_forward


class Saved(NamedTuple):
    """What the backward pass of an MLP needs."""

    fc1: linear.Saved
    u: Float[Tensor, "B T M"]
    fc2: linear.Saved


def mlp_forward(
    x: Float[Tensor, "B T D"], fc1: Weights, fc2: Weights
) -> tuple[Float[Tensor, "B T D"], Saved]:
    """Widen, bend, narrow."""
    hidden, saved_fc1 = linear_forward(x, *fc1)
    bent, saved_u = gelu_forward(hidden)
    y, saved_fc2 = linear_forward(bent, *fc2)
    return y, Saved(saved_fc1, saved_u, saved_fc2)


def mlp_backward(
    grad_y: Float[Tensor, "B T D"], saved: Saved
) -> tuple[Float[Tensor, "B T D"], Weights, Weights]:
    """The gradients of the input and of both layers."""
    grad_bent, grad_weight2, grad_bias2 = linear_backward(grad_y, saved.fc2)
    grad_hidden = gelu_backward(grad_bent, saved.u)
    grad_x, grad_weight1, grad_bias1 = linear_backward(grad_hidden, saved.fc1)
    return grad_x, (grad_weight1, grad_bias1), (grad_weight2, grad_bias2)


mlp = derived(mlp_forward, mlp_backward)


class MLP(nn.Module):
    """The MLP of an encoder block, with timm's parameters `fc1` and `fc2`.

    Args:
        dim: D.
        mlp_dim: M.
        gradients: "autograd" or "derived".

    Raises:
        ValueError: if `gradients` is something else.
    """

    def __init__(self, dim: int, mlp_dim: int, gradients: str = "autograd") -> None:
        super().__init__()
        self.gradients = available("gradients", gradients)
        self.fc1 = Linear(dim, mlp_dim)
        self.act = GELU()
        self.fc2 = Linear(mlp_dim, dim)

    def weights(self) -> tuple[Weights, Weights]:
        """The weights as `mlp_forward` takes them."""
        return self.fc1.weights(), self.fc2.weights()

    def forward(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        """Apply it to every token."""
        if self.gradients == "derived":
            return mlp(x, *self.weights())
        return self.fc2(self.act(self.fc1(x)))
