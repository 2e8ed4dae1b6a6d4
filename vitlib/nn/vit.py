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
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vitlib.config import ViTConfig, named_config
from vitlib.nn import block, embedding, layer_norm, linear
from vitlib.nn.block import Block, Parameters, block_backward, block_forward
from vitlib.nn.class_token import class_token, class_token_backward, class_token_forward
from vitlib.nn.embedding import PatchEmbedding, embedding_backward, embedding_forward
from vitlib.nn.head import Head, head_backward, head_forward
from vitlib.nn.layer_norm import LayerNorm, layer_norm_backward, layer_norm_forward
from vitlib.nn.pooling import pool, pool_backward, pool_forward
from vitlib.nn.positions import positions, positions_backward, positions_forward

_LAYERS = ("norm1", ("attn.qkv", "attn.proj"), "norm2", ("mlp.fc1", "mlp.fc2"))
"""The layers of a block in the order and nesting of `block.Parameters`."""


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
    """The logits of a batch of images."""
    x, saved_embedding = embedding_forward(images, *_layer(parameters, "patch_embed.proj"))
    x, _ = class_token_forward(x, parameters["cls_token"])
    x, _ = positions_forward(x, parameters["pos_embed"])
    saved_blocks: list[block.Saved] = []
    for i in range(config.depth):
        weights = _block_parameters(parameters, f"blocks.{i}")
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
    grads: dict[str, Tensor] = {}
    grad_y, *grad_head = head_backward(grad_logits, saved.head)
    grad_x = pool_backward(grad_y, saved.tokens)
    grad_x, *grad_norm = layer_norm_backward(grad_x, saved.norm)
    for i, saved_block in reversed(list(enumerate(saved.blocks))):
        grad_x, grad_block = block_backward(grad_x, saved_block)
        _name(grads, f"blocks.{i}.", _LAYERS, grad_block)
    grad_x, grads["pos_embed"] = positions_backward(grad_x, None)
    grad_x, grads["cls_token"] = class_token_backward(grad_x, None)
    grad_images, *grad_embedding = embedding_backward(grad_x, saved.embedding)
    _name(grads, "", ("patch_embed.proj", "norm", "head"), (grad_embedding, grad_norm, grad_head))
    return grad_images, grads


def _layer(parameters: Mapping[str, Tensor], name: str) -> tuple[Tensor, Any]:
    return parameters[f"{name}.weight"], parameters.get(f"{name}.bias")


def _block_parameters(parameters: Mapping[str, Tensor], prefix: str) -> Parameters:
    def find(names: Any) -> Any:
        if isinstance(names, tuple):
            return tuple(find(name) for name in names)
        return _layer(parameters, f"{prefix}.{names}")

    return find(_LAYERS)


def _name(grads: dict[str, Tensor], prefix: str, names: Any, found: Any) -> None:
    """Enter the (weight, bias) gradients of layers under their names."""
    for name, grad in zip(names, found, strict=True):
        if isinstance(name, tuple):
            _name(grads, prefix, name, grad)
        else:
            weight, bias = grad
            grads[f"{prefix}{name}.weight"] = weight
            if bias is not None:
                grads[f"{prefix}{name}.bias"] = bias


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
        dim, gradients = config.dim, config.gradients
        self.patch_embed = PatchEmbedding(config.in_channels, config.patch_shape, dim, gradients)
        self.cls_token = nn.Parameter(torch.empty(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.empty(1, config.num_tokens, dim))
        self.blocks = nn.Sequential(
            *(
                Block(
                    dim,
                    config.heads,
                    config.mlp_dim,
                    config.qkv_bias,
                    config.layer_norm_eps,
                    gradients,
                )
                for _ in range(config.depth)
            )
        )
        self.norm = LayerNorm(dim, config.layer_norm_eps, gradients)
        self.head = Head(dim, config.num_classes, gradients=gradients)
        self._initialise()

    def _initialise(self) -> None:
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        nn.init.trunc_normal_(self.cls_token, std=1e-6)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

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
        """The tokens after the last layer norm, the class token first.

        Raises:
            ValueError: if the images' shape is not the model's.
            TypeError: if the images are integers.
        """
        self._check(images)
        x = self.patch_embed(images)
        if self.config.gradients == "derived":
            x = positions(class_token(x, self.cls_token), self.pos_embed)
        else:
            x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1) + self.pos_embed
        return self.norm(self.blocks(x))

    def _check(self, images: Tensor) -> None:
        expected = (self.config.in_channels, *self.config.image_shape)
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


def create_model(name: str, **options: Any) -> VisionTransformer:
    """A named model with fresh weights.

    Args:
        name: one of `list_models()`.
        **options: fields of `ViTConfig` that differ from the named model's.

    Raises:
        ValueError: if no model has that name, or an option is refused.
        TypeError: if an option is not a field.
    """
    return VisionTransformer(replace(named_config(name), **options))
