"""Linear layers, rewritten for speed: the twin of `vitlib.nn.linear`, for the rows of all tokens.

    X (R, D_in)   W (D_in, D_out)   b (D_out)   Y S (R, D_out)

PyTorch has two libraries that multiply on a CPU. Its own products call the one that it was built
with, MKL as a rule. oneDNN (once called MKL-DNN) has others, and adds a bias, another sum or a GELU
while it still holds the numbers. Measured on two cores of an AMD EPYC: with AVX-512 it is faster in
float32 for X W and ∂ℓ/∂Y W⊤, by about a tenth, and no faster for ∂ℓ/∂W, which sums over all rows;
told to do with AVX2 it is no faster at all. So these functions leave the first two to it where the
processor has AVX-512. On other processors that was not measured.

`torch.backends.mkldnn.enabled = False` leaves it out.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from vitlib.nn.linear import Weights

_aten = torch.ops.aten
_product = torch.ops.mkldnn._linear_pointwise

Rows = Float[Tensor, "R D_in"]
NewRows = Float[Tensor, "R D_out"]


def by_onednn(x: Tensor) -> bool:
    """Whether oneDNN multiplies; where a program is exported, PyTorch has switched it off."""
    if x.dtype != torch.float32 or torch.backends.cpu.get_cpu_capability() != "AVX512":
        return False
    return torch.backends.mkldnn.is_available() and bool(torch.backends.mkldnn.enabled)


def linear(x: Rows, layer: Weights, gelu: str | None = None) -> NewRows:
    """X W + b, or its GELU.

    Args:
        x: X.
        layer: stored weight and bias.
        gelu: which one, as PyTorch calls it.
    """
    if by_onednn(x):
        return _product(x, *layer, "none" if gelu is None else "gelu", [], gelu)
    y = functional.linear(x, *layer)
    return y if gelu is None else _aten.gelu_(y, approximate=gelu)


def add_linear(s: NewRows, x: Rows, layer: Weights) -> NewRows:
    """S + X W + b."""
    weight, bias = layer
    if by_onednn(x):
        return _product.binary(x, s, weight, bias, "add")
    return torch.add(s, 0 if bias is None else bias).addmm_(x, weight.mT)


def linear_backward(grad_y: NewRows, weight: Float[Tensor, "D_out D_in"]) -> Rows:
    """∂ℓ/∂X = ∂ℓ/∂Y W⊤."""
    if by_onednn(grad_y):
        return _product(grad_y, weight.mT, None, "none", [], None)
    return grad_y @ weight


def weight_gradients(grad_y: NewRows, x: Rows, layer: Weights) -> tuple[Tensor, Tensor | None]:
    """The gradients of weight and bias."""
    return grad_y.mT @ x, None if layer[1] is None else grad_y.sum(0)
