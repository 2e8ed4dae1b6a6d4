"""The Vision Transformer: patches in, logits out (Dosovitskiy et al. 2021, equations 1 to 4).

    images (B, C, height, width)   X (B, T, D), T = N + 1   logits (B, K)

    X = [c; patches W_E + b_E] + E_pos       L times X = block(X)       logits = head(LN(X)_0)

`vit_forward` and `vit_backward` are the whole network on a dictionary of parameters, keyed like the
state dict; no autograd is needed to train with them:

    logits, saved = vit_forward(images, parameters, config)
    _, grads = vit_backward(grad_logits, saved)
    for name, grad in grads.items():
        parameters[name] -= rate * grad

`VisionTransformer` is the module. Its names and shapes are timm's.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vitlib.config import ViTConfig, named_config
from vitlib.nn import block, embedding, layer_norm, linear
from vitlib.nn.block import LAYERS, Block, Parameters, block_backward, block_forward
from vitlib.nn.class_token import class_token, class_token_backward, class_token_forward
from vitlib.nn.embedding import PatchEmbedding, embedding_backward, embedding_forward
from vitlib.nn.head import Head, head_backward, head_forward
from vitlib.nn.layer_norm import LayerNorm, layer_norm_backward, layer_norm_forward
from vitlib.nn.linear import Weights
from vitlib.nn.pooling import pool, pool_backward, pool_forward
from vitlib.nn.positions import positions, positions_backward, positions_forward


class Saved(NamedTuple):
    """What the backward pass of the network needs."""

    embedding: embedding.Saved
    blocks: tuple[block.Saved, ...]
    norm: layer_norm.Saved
    tokens: int
    head: linear.Saved


def vit_forward(
    images: Float[Tensor, "B C height width"], parameters: Mapping[str, Tensor], config: ViTConfig
) -> tuple[Float[Tensor, "B K"], Saved]:
    """The logits of a batch of images.

    Raises:
        ValueError: if the images' shape is not the model's.
        TypeError: if the images are integers.
    """
    _check_images(images, config)
    x, saved_embedding = embedding_forward(images, *_layer(parameters, "patch_embed.proj"))
    x, _ = class_token_forward(x, parameters["cls_token"])
    x, _ = positions_forward(x, parameters["pos_embed"])
    saved_blocks: list[block.Saved] = []
    for i in range(config.depth):
        weights = _block(parameters, f"blocks.{i}")
        x, saved = block_forward(x, weights, config.heads, config.layer_norm_eps)
        saved_blocks.append(saved)
    x, saved_norm = layer_norm_forward(x, *_layer(parameters, "norm"), config.layer_norm_eps)
    y, tokens = pool_forward(x)
    logits, saved_head = head_forward(y, *_layer(parameters, "head"))
    return logits, Saved(saved_embedding, tuple(saved_blocks), saved_norm, tokens, saved_head)


def vit_backward(
    grad_logits: Float[Tensor, "B K"], saved: Saved
) -> tuple[Float[Tensor, "B C height width"], dict[str, Tensor]]:
    """The gradients of the images and of all parameters, keyed like the state dict."""
    layers: dict[str, Weights] = {}
    grad_y, grad_weight, grad_bias = head_backward(grad_logits, saved.head)
    layers["head"] = grad_weight, grad_bias
    grad_x = pool_backward(grad_y, saved.tokens)
    grad_x, grad_weight, grad_bias = layer_norm_backward(grad_x, saved.norm)
    layers["norm"] = grad_weight, grad_bias
    for i, saved_block in reversed(list(enumerate(saved.blocks))):
        grad_x, (norm1, attn, norm2, mlp) = block_backward(grad_x, saved_block)
        names = (f"blocks.{i}.{layer}" for layer in LAYERS)
        layers.update(zip(names, (norm1, *attn, norm2, *mlp), strict=True))
    grad_x, grad_pos_embed = positions_backward(grad_x, None)
    grad_x, grad_cls_token = class_token_backward(grad_x, None)
    grad_images, grad_weight, grad_bias = embedding_backward(grad_x, saved.embedding)
    layers["patch_embed.proj"] = grad_weight, grad_bias

    grads = {"cls_token": grad_cls_token, "pos_embed": grad_pos_embed}
    for name, (weight, bias) in layers.items():
        grads[f"{name}.weight"] = weight
        if bias is not None:
            grads[f"{name}.bias"] = bias
    return grad_images, grads


def _layer(parameters: Mapping[str, Tensor], name: str) -> tuple[Tensor, Any]:
    return parameters[f"{name}.weight"], parameters.get(f"{name}.bias")


def _block(parameters: Mapping[str, Tensor], name: str) -> Parameters:
    norm1, qkv, proj, norm2, fc1, fc2 = (_layer(parameters, f"{name}.{layer}") for layer in LAYERS)
    return norm1, (qkv, proj), norm2, (fc1, fc2)


def _check_images(images: Tensor, config: ViTConfig) -> None:
    """Refuse images that are not what the model reads."""
    expected = (config.in_channels, *config.image_shape)
    if images.ndim != 4 or images.shape[1:] != expected:
        sizes = ", ".join(map(str, expected))
        raise ValueError(
            f"images have shape {tuple(images.shape)}: expected (B, {sizes}). Resize the images, "
            "or create the model with another image_size or in_channels."
        )
    if not images.is_floating_point():
        raise TypeError(
            f"images are {images.dtype}: expected floating point. Divide by the largest pixel "
            "value and normalise as for training."
        )


class VisionTransformer(nn.Module):
    """A Vision Transformer.

    Weights start as timm's do: matrices and positions from a normal distribution of standard
    deviation 0.02, cut off at ±2; the class token likewise with 1e-6; biases zero. The patch
    embedding keeps the initialisation of a convolution.

    Args:
        config: its sizes and options.
    """

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.config = config
        dim, eps, gradients = config.dim, config.layer_norm_eps, config.gradients
        self.patch_embed = PatchEmbedding(config.in_channels, config.patch_size, dim, gradients)
        self.cls_token = nn.Parameter(torch.empty(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.empty(1, config.num_tokens, dim))
        self.blocks = nn.Sequential(
            *(
                Block(dim, config.heads, config.mlp_dim, config.qkv_bias, eps, gradients)
                for _ in range(config.depth)
            )
        )
        self.norm = LayerNorm(dim, eps, gradients)
        self.head = Head(dim, config.num_classes, gradients=gradients)
        self._initialise()

    def _initialise(self) -> None:
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        nn.init.trunc_normal_(self.cls_token, std=1e-6)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                weight, *biases = module.parameters()
                nn.init.trunc_normal_(weight, std=0.02)
                for bias in biases:
                    nn.init.zeros_(bias)

    def forward(self, images: Float[Tensor, "B C height width"]) -> Float[Tensor, "B K"]:
        """Logits of a batch of images.

        Args:
            images: (B, C, height, width), floating point, normalised as the data says.

        Raises:
            ValueError: if the images' shape is not the model's.
            TypeError: if the images are integers.
        """
        x = self.tokens(images)
        pooled = pool(x) if self.config.gradients == "derived" else x[:, 0]
        return self.head(pooled)

    def tokens(self, images: Float[Tensor, "B C height width"]) -> Float[Tensor, "B T D"]:
        """The tokens after the last layer norm, the class token first; as strict as `forward`."""
        _check_images(images, self.config)
        x = self.patch_embed(images)
        if self.config.gradients == "derived":
            x = positions(class_token(x, self.cls_token), self.pos_embed)
        else:
            x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1) + self.pos_embed
        return self.norm(self.blocks(x))


def create_model(name: str, **options: Any) -> VisionTransformer:
    """A named model with fresh weights.

    Args:
        name: one of `list_models()`.
        **options: fields of `ViTConfig` that differ from the named model's.

    Raises:
        ValueError: if no model has that name, or an option is unknown or refused.
        TypeError: if a size is not a whole number.
    """
    return VisionTransformer(named_config(name, **options))
