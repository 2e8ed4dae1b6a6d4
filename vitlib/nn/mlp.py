"""The MLP of an encoder block: each token thinks on its own.

    X Y (B, T, D)   U H (B, T, M)      U = X W_1 + b_1      H = GELU(U)      Y = H W_2 + b_2

(Dosovitskiy et al. 2021, appendix D.1; Vaswani et al. 2017 have a ReLU in place of the GELU.) With
a SwiGLU, U holds gate and value side by side and is twice as wide: [X W_G + b_G, X W_1 + b_1].
Dropout follows both layers. The backward pass is the parts' in opposite order. Saved: what the
parts save.
"""

from typing import Any, NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from vitlib.config import available
from vitlib.nn import linear
from vitlib.nn.activations import ACTIVATIONS, Activation, hidden_width
from vitlib.nn.derived import Unneeded, any_needed, derived
from vitlib.nn.dropout import Drop, dropout, dropout_backward, dropout_forward
from vitlib.nn.linear import NONE, Linear, Weights, linear_backward, linear_forward

Drops = tuple[Drop | None, Drop | None]
"""Of the hidden layer, and of the output."""
NO_DROPS: Drops = (None, None)
ALL = (True, (True, True), (True, True))
"""Input and both layers: the gradients that are needed."""


class Saved(NamedTuple):
    """What the backward pass of an MLP needs."""

    fc1: linear.Saved
    activation: str
    u: Float[Tensor, "B T U"]
    fc2: linear.Saved
    drops: Drops


def mlp_forward(
    x: Float[Tensor, "B T D"],
    fc1: Weights,
    fc2: Weights,
    activation: str = "gelu",
    drops: Drops = NO_DROPS,
) -> tuple[Float[Tensor, "B T D"], Saved]:
    """Widen, bend, narrow."""
    bend_forward, _ = ACTIVATIONS[activation]
    u, saved_fc1 = linear_forward(x, *fc1)
    hidden, saved_u = bend_forward(u)
    hidden, _ = dropout_forward(hidden, drops[0])
    y, saved_fc2 = linear_forward(hidden, *fc2)
    y, _ = dropout_forward(y, drops[1])
    return y, Saved(saved_fc1, activation, saved_u, saved_fc2, drops)


def mlp_backward(
    grad_y: Float[Tensor, "B T D"], saved: Saved, needed: tuple[Any, ...] = ALL
) -> tuple[Float[Tensor, "B T D"] | Unneeded, linear.Gradients, linear.Gradients]:
    """The gradients of the input and of both layers."""
    _, bend_backward = ACTIVATIONS[saved.activation]
    needed_x, needed_fc1, needed_fc2 = needed[:3]
    below = any_needed((needed_x, needed_fc1))
    grad_y = dropout_backward(grad_y, saved.drops[1])
    grad_hidden, *grads_fc2 = linear_backward(grad_y, saved.fc2, (below, *needed_fc2))
    if not below:
        return None, NONE, (grads_fc2[0], grads_fc2[1])
    grad_hidden = dropout_backward(grad_hidden, saved.drops[0])
    grad_u = bend_backward(grad_hidden, saved.u)
    grad_x, *grads_fc1 = linear_backward(grad_u, saved.fc1, (needed_x, *needed_fc1))
    return grad_x, (grads_fc1[0], grads_fc1[1]), (grads_fc2[0], grads_fc2[1])


mlp = derived(mlp_forward, mlp_backward)


class MLP(nn.Module):
    """The MLP of an encoder block, with timm's parameters `fc1` and `fc2`.

    With a SwiGLU, the first M rows of `fc1` are the gate's and the others the value's.

    Args:
        dim: D.
        mlp_dim: M.
        activation: "gelu", "gelu_tanh", "relu" or "swiglu".
        gradients: "autograd" or "derived".

    Raises:
        ValueError: if `activation` or `gradients` is something else.
    """

    def __init__(
        self, dim: int, mlp_dim: int, activation: str = "gelu", gradients: str = "autograd"
    ) -> None:
        super().__init__()
        self.gradients = available("gradients", gradients)
        self.act = Activation(activation)
        self.fc1 = Linear(dim, hidden_width(activation, mlp_dim))
        self.fc2 = Linear(mlp_dim, dim)

    def weights(self) -> tuple[Weights, Weights]:
        """The weights as `mlp_forward` takes them."""
        return self.fc1.weights(), self.fc2.weights()

    def forward(self, x: Float[Tensor, "B T D"], drops: Drops = NO_DROPS) -> Float[Tensor, "B T D"]:
        """Apply it to every token."""
        if self.gradients == "derived":
            return mlp(x, *self.weights(), self.act.name, drops)
        hidden = dropout(self.act(self.fc1(x)), drops[0], gradients="autograd")
        return dropout(self.fc2(hidden), drops[1], gradients="autograd")
