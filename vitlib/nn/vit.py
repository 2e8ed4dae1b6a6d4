"""The Vision Transformer: patches in, logits out (Dosovitskiy et al. 2021, equations 1 to 4).

    images (B, C, height, width)   X (B, T, D)   logits (B, K)

    X = tokens(images)       L times X = block(X)       logits = head(LN(X)_0)

The first line is `vitlib.nn.tokens`. With mean pooling the head reads the mean of the patches, and
the layer norm may come after it; post-norm blocks leave nothing to normalise at the end.

`vit_forward` and `vit_backward` are the whole network on a dictionary of parameters, keyed like the
state dict; no autograd is needed to train with them:

    logits, saved = vit_forward(images, parameters, config)
    _, grads = vit_backward(grad_logits, saved)
    for name, grad in grads.items():
        parameters[name] -= rate * grad

`VisionTransformer` is the module, with timm's names and shapes. Where the class token alone is
read, it computes no other in the last block: the same logits and gradients with less work.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from vitlib.config import ViTConfig, named_config
from vitlib.nn import block, readout, tokens
from vitlib.nn.block import FACTORS, LAYERS, Block, draw_drops, scaled_backward, scaled_forward
from vitlib.nn.dropout import Drop, draw
from vitlib.nn.head import Head, PreLogits
from vitlib.nn.hooks import is_hooked
from vitlib.nn.initialise import initialise
from vitlib.nn.layer_norm import LayerNorm
from vitlib.nn.linear import layer
from vitlib.nn.patch_dropout import draw_kept, keep_places
from vitlib.nn.pooling import pool
from vitlib.nn.readout import readout_backward, readout_forward
from vitlib.nn.rotary import rope_table
from vitlib.nn.tokens import TokenEmbedding, tokens_backward, tokens_forward


class Drops(NamedTuple):
    """What one training step keeps and drops: whole patches, of the tokens, and in each block."""

    kept: Int[Tensor, "B N_kept"] | None
    tokens: Drop | None
    blocks: tuple[block.Drops, ...]


class Saved(NamedTuple):
    """What the backward pass of the network needs."""

    tokens: tokens.Saved
    blocks: tuple[block.Saved, ...]
    readout: readout.Saved


def draw_masks(config: ViTConfig, batch: int, device: torch.device) -> Drops:
    """The masks that `VisionTransformer` draws in a training step, in the same order."""
    kept = draw_kept(config, batch, device)
    shape = (batch, config.num_prefix_tokens + config.num_kept_patches, config.dim)
    rates = [(config.dropout, config.attention_dropout, path) for path in config.drop_path_rates]
    first = draw(shape, config.dropout, device)
    heads, mlp_dim = config.heads, config.mlp_dim
    return Drops(kept, first, tuple(draw_drops(shape, heads, mlp_dim, r, device) for r in rates))


def vit_forward(
    images: Float[Tensor, "B C height width"],
    parameters: Mapping[str, Tensor],
    config: ViTConfig,
    drops: Drops | None = None,
) -> tuple[Float[Tensor, "B K"], Saved]:
    """The logits of a batch of images.

    Args:
        images: (B, C, height, width), floating point, normalised as the data says.
        parameters: keyed like the state dict.
        config: of the model.
        drops: what is dropped (`draw_masks`); nothing if it is not given.

    Raises:
        ValueError: if the images' shape is not the model's.
        TypeError: if the images are integers.
    """
    kept, first, inner = drops or Drops(None, None, (block.NO_DROPS,) * config.depth)
    x, saved_tokens = tokens_forward(images, parameters, config, first, kept)
    rope = rope_table(config.grid, config.head_dim).to(x) if config.position == "rope2d" else None
    rope = keep_places(rope, kept)
    saved_blocks: list[block.Saved] = []
    for i, some in enumerate(inner):
        norm1, qkv, proj, norm2, fc1, fc2 = (
            layer(parameters, f"blocks.{i}.{name}") for name in LAYERS
        )
        weights = norm1, (qkv, proj), norm2, (fc1, fc2)
        factor1, factor2 = (parameters.get(f"blocks.{i}.{name}") for name in FACTORS)
        options = config.heads, config.layer_norm_eps, config.norm, config.activation
        x, saved = scaled_forward(x, weights, (factor1, factor2), *options, rope, some)
        saved_blocks.append(saved)
    logits, saved_readout = readout_forward(x, parameters, config)
    return logits, Saved(saved_tokens, tuple(saved_blocks), saved_readout)


def vit_backward(
    grad_logits: Float[Tensor, "B K"], saved: Saved
) -> tuple[Float[Tensor, "B C height width"], dict[str, Tensor]]:
    """The gradients of the images and of all parameters, keyed like the state dict."""
    grad_x, layers = readout_backward(grad_logits, saved.readout)
    scales: dict[str, Tensor | None] = {}
    for i, saved_block in reversed(list(enumerate(saved.blocks))):
        grad_x, (norm1, attn, norm2, mlp), factors = scaled_backward(grad_x, saved_block)
        names = (f"blocks.{i}.{layer}" for layer in LAYERS)
        layers.update(zip(names, (norm1, *attn, norm2, *mlp), strict=True))
        scales.update(zip((f"blocks.{i}.{name}" for name in FACTORS), factors, strict=True))
    grad_images, grads = tokens_backward(grad_x, saved.tokens)
    grads.update((name, scale) for name, scale in scales.items() if scale is not None)
    for name, (weight, bias) in layers.items():
        grads[f"{name}.weight"] = weight
        if bias is not None:
            grads[f"{name}.bias"] = bias
    return grad_images, grads


class VisionTransformer(TokenEmbedding):
    """A Vision Transformer. Its weights start as timm's do (`vitlib.nn.initialise`).

    Args:
        config: its sizes and options.
    """

    def __init__(self, config: ViTConfig) -> None:
        super().__init__(config)
        dim, eps, gradients = config.dim, config.layer_norm_eps, config.gradients
        self.blocks = nn.Sequential(
            *(
                Block(
                    dim, config.heads, config.mlp_dim, qkv_bias=config.qkv_bias, eps=eps,
                    norm=config.norm, activation=config.activation, layer_scale=config.layer_scale,
                    dropout=config.dropout, attention_dropout=config.attention_dropout,
                    drop_path=rate, gradients=gradients,
                )
                for rate in config.drop_path_rates
            )
        )  # fmt: skip
        last = LayerNorm(dim, eps, gradients)
        self.norm = last if config.final_norm == "norm" else nn.Identity()
        self.fc_norm = last if config.final_norm == "fc_norm" else nn.Identity()
        self.pre_logits = PreLogits(dim, gradients) if config.head == "mlp" else nn.Identity()
        self.head = Head(dim, config.num_classes, gradients=gradients)
        initialise(self)

    def forward(self, images: Float[Tensor, "B C height width"]) -> Float[Tensor, "B K"]:
        """Logits of a batch of images.

        Args:
            images: (B, C, height, width), floating point, normalised as the data says.

        Raises:
            ValueError: if the images' shape is not the model's.
            TypeError: if the images are integers.
        """
        config = self.config
        seen = config.pool != "cls" or is_hooked(self.blocks[-1]) or is_hooked(self.norm)
        x = self.tokens(images, None if seen else 1)
        y = pool(x, config.pool, config.num_prefix_tokens, gradients=config.gradients)
        return self.head(self.pre_logits(self.fc_norm(y)))

    def tokens(
        self, images: Float[Tensor, "B C height width"], read: int | None = None
    ) -> Float[Tensor, "B R D"]:
        """The tokens after the last layer norm; as strict as `forward`.

        Class token, registers, those patches that stay; of these the first R, if it is said how
        many are read. Where the norm comes after the pooling, they are what leaves the last block.
        """
        kept = self.draw_kept(images)
        x, rope = self.embed(images, kept), keep_places(self.rope, kept)
        *most, last = self.blocks
        for encoder_block in most:
            x = encoder_block(x, rope)
        return self.norm(last(x, rope, read))


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
