"""Patch embedding: one linear map turns every patch into a vector of the model's width.

    images (B, C, height, width)   P (B, N, C·P²)   W_E (C·P², D)   b_E (D)   E (B, N, D)

    E = P W_E + b_E

(Dosovitskiy et al. 2021, equation 1.) The weight is kept as timm keeps it, as the kernel of a
convolution of stride P, which is the same map: (D, C, P, P), flattened in the order of a patch.
Backward: the linear layer's, then the patches'. Saved: the patches.
"""

from typing import Any, NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from vitlib.config import Size, available
from vitlib.nn import linear
from vitlib.nn.derived import Unneeded, derived
from vitlib.nn.linear import Weights, linear_backward, linear_forward
from vitlib.nn.patches import Sizes, patchify_backward, patchify_forward


class Saved(NamedTuple):
    """What the backward pass of the patch embedding needs."""

    sizes: Sizes
    linear: linear.Saved
    kernel_shape: tuple[int, ...]


def embedding_forward(
    images: Float[Tensor, "B C height width"],
    weight: Float[Tensor, "D C P_height P_width"],
    bias: Float[Tensor, " D"] | None = None,
) -> tuple[Float[Tensor, "B N D"], Saved]:
    """Cut into patches and project each."""
    p, q = weight.shape[-2:]
    patches, sizes = patchify_forward(images, (p, q))
    embeddings, saved = linear_forward(patches, weight.flatten(1), bias)
    return embeddings, Saved(sizes, saved, tuple(weight.shape))


def embedding_backward(
    grad_embeddings: Float[Tensor, "B N D"], saved: Saved, needed: tuple[Any, ...] = linear.ALL
) -> tuple[
    Float[Tensor, "B C height width"] | Unneeded,
    Float[Tensor, "D C P_height P_width"] | Unneeded,
    Float[Tensor, " D"] | Unneeded,
]:
    """The gradients of images, weight and bias."""
    grad_patches, grad_weight, grad_bias = linear_backward(grad_embeddings, saved.linear, needed)
    grad_images = patchify_backward(grad_patches, saved.sizes) if needed[0] else None
    return grad_images, grad_weight.view(saved.kernel_shape) if needed[1] else None, grad_bias


embedding = derived(embedding_forward, embedding_backward)


class PatchEmbedding(nn.Module):
    """The patch embedding, with timm's parameter names `proj.weight` and `proj.bias`.

    Args:
        in_channels: C.
        patch_size: P, or (height, width) of a patch.
        dim: D.
        gradients: "autograd" or "derived".

    Raises:
        ValueError: if `gradients` is something else.
    """

    def __init__(
        self, in_channels: int, patch_size: Size, dim: int, gradients: str = "autograd"
    ) -> None:
        super().__init__()
        self.gradients = available("gradients", gradients)
        self.proj = nn.Conv2d(in_channels, dim, kernel_size=patch_size, stride=patch_size)

    def weights(self) -> Weights:
        """The weights as `embedding_forward` takes them."""
        return self.proj.weight, self.proj.bias

    def forward(self, images: Float[Tensor, "B C height width"]) -> Float[Tensor, "B N D"]:
        """Embed every patch."""
        if self.gradients == "derived":
            return embedding(images, *self.weights())
        return self.proj(images).flatten(2).mT
