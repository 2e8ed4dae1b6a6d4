"""The softmax over the last axis: scores become weights that sum to one.

    S (*, T)   A (*, T)      A_tu = exp(S_tu) / Σ_j exp(S_tj)

The row's largest score is subtracted first, which changes nothing and keeps the exponentials in
range. The gradient, derived in `attention/gradients`, needs no Jacobian:

    ∂ℓ/∂S = A ⊙ (∂ℓ/∂A − rowsum(∂ℓ/∂A ⊙ A))

Saved: the output, in terms of which the derivative is written; the scores can be forgotten.
"""

from jaxtyping import Float
from torch import Tensor

from vitlib.nn.checks import check_cotangent
from vitlib.nn.derived import derived


def softmax_forward(
    scores: Float[Tensor, "*batch T"],
) -> tuple[Float[Tensor, "*batch T"], Float[Tensor, "*batch T"]]:
    """Weights that are positive and sum to one in each row."""
    powers = (scores - scores.amax(dim=-1, keepdim=True)).exp()
    weights = powers / powers.sum(dim=-1, keepdim=True)
    return weights, weights


def softmax_backward(
    grad_weights: Float[Tensor, "*batch T"], weights: Float[Tensor, "*batch T"]
) -> Float[Tensor, "*batch T"]:
    """The gradient of the scores."""
    check_cotangent(grad_weights, weights.shape, weights.dtype)
    average = (grad_weights * weights).sum(dim=-1, keepdim=True)
    return weights * (grad_weights - average)


softmax = derived(softmax_forward, softmax_backward)
