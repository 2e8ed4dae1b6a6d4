"""From image to tokens: patches, their embedding, positions, and the tokens in front of them.

    images (B, C, height, width)   X (B, T, D)      X = [c; C_reg; patches W_E + b_E], plus E_pos

Positions are added before the registers come in, which have none (`vitlib.nn.class_token`); with
rotary positions nothing is added here. In between, a step of training may leave patches out
(`vitlib.nn.patch_dropout`). Dropout comes last. The backward pass is the parts' in opposite order.
Saved: what the parts save.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from vitlib.config import ViTConfig
from vitlib.nn import embedding, patch_dropout
from vitlib.nn.class_token import (
    class_token,
    class_token_backward,
    class_token_forward,
    registers,
    registers_backward,
    registers_forward,
)
from vitlib.nn.dropout import Drop, draw, dropout, dropout_backward, dropout_forward
from vitlib.nn.embedding import PatchEmbedding, embedding_backward, embedding_forward
from vitlib.nn.linear import layer
from vitlib.nn.patch_dropout import draw_kept, keep, keep_backward, keep_forward
from vitlib.nn.positions import (
    position_table,
    positions,
    positions_backward,
    positions_forward,
)
from vitlib.nn.rotary import rope_table


class Saved(NamedTuple):
    """What the backward pass of these stages needs."""

    embedding: embedding.Saved
    has_class_token: bool
    has_learned_positions: bool
    kept: patch_dropout.Saved | None
    registers: tuple[int, int] | None
    drop: Drop | None


def tokens_forward(
    images: Float[Tensor, "B C height width"],
    parameters: Mapping[str, Tensor],
    config: ViTConfig,
    drop: Drop | None = None,
    kept: Int[Tensor, "B N_kept"] | None = None,
) -> tuple[Float[Tensor, "B T D"], Saved]:
    """The tokens that enter the first block.

    Raises:
        ValueError: if the images' shape is not the model's.
        TypeError: if the images are integers.
    """
    check_images(images, config)
    x, saved = embedding_forward(images, *layer(parameters, "patch_embed.proj"))
    has_class_token, saved_kept, places = config.pool == "cls", None, None
    if has_class_token:
        x, _ = class_token_forward(x, parameters["cls_token"])
    if config.position == "learned":
        x, _ = positions_forward(x, parameters["pos_embed"])
    elif (table := position_table(config)) is not None:
        x, _ = positions_forward(x, table.to(x))
    if kept is not None:
        x, saved_kept = keep_forward(x, kept, int(has_class_token))
    if config.registers:
        x, places = registers_forward(x, parameters["reg_token"], int(has_class_token))
    x, _ = dropout_forward(x, drop)
    has_table = config.position == "learned"
    return x, Saved(saved, has_class_token, has_table, saved_kept, places, drop)


def tokens_backward(
    grad_x: Float[Tensor, "B T D"], saved: Saved
) -> tuple[Float[Tensor, "B C height width"], dict[str, Tensor]]:
    """The gradients of the images and of the parameters, keyed like the state dict."""
    grads: dict[str, Tensor] = {}
    grad_x = dropout_backward(grad_x, saved.drop)
    if saved.registers is not None:
        grad_x, grads["reg_token"] = registers_backward(grad_x, saved.registers)
    if saved.kept is not None:
        grad_x = keep_backward(grad_x, saved.kept)
    if saved.has_learned_positions:
        grad_x, grads["pos_embed"] = positions_backward(grad_x, None)
    if saved.has_class_token:
        grad_x, grads["cls_token"] = class_token_backward(grad_x, None)
    grad_images, grads["patch_embed.proj.weight"], grad_bias = embedding_backward(
        grad_x, saved.embedding
    )
    if grad_bias is not None:
        grads["patch_embed.proj.bias"] = grad_bias
    return grad_images, grads


class TokenEmbedding(nn.Module):
    """The part of a Vision Transformer that turns images into tokens.

    A base class rather than a part, since timm's names of its parameters stand at the top of the
    state dict. Fixed positions are no weights: they are buffers outside the state dict, computed
    anew for each precision and device.

    Args:
        config: of the model.
    """

    pos_embed: Tensor | None
    rope: Tensor | None

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.config = config
        self.patch_embed = PatchEmbedding(
            config.in_channels, config.patch_size, config.dim, config.gradients
        )
        self.cls_token = _vectors(1, config) if config.pool == "cls" else None
        self.reg_token = _vectors(config.registers, config) if config.registers else None
        if config.position == "learned":
            self.pos_embed = _vectors(config.num_positions, config)
        else:
            self.register_buffer("pos_embed", None, persistent=False)
        self.register_buffer("rope", None, persistent=False)
        self._compute_fixed_positions()

    def draw_kept(
        self, images: Float[Tensor, "B C height width"]
    ) -> Int[Tensor, "B N_kept"] | None:
        """The patches that each image keeps in a step of training; None if all of them.

        Raises:
            ValueError: if the images' shape is not the model's.
            TypeError: if the images are integers.
        """
        if not (self.training and self.config.patch_dropout):
            return None
        check_images(images, self.config)
        return draw_kept(self.config, len(images), images.device)

    def embed(
        self,
        images: Float[Tensor, "B C height width"],
        kept: Int[Tensor, "B N_kept"] | None = None,
    ) -> Float[Tensor, "B T D"]:
        """The tokens that enter the first block.

        Args:
            images: as `forward` takes them.
            kept: the patches that stay, for each image; all if they are not given.

        Raises:
            ValueError: if the images' shape is not the model's.
            TypeError: if the images are integers.
        """
        config, mode = self.config, self.config.gradients
        check_images(images, config)
        x = self.patch_embed(images)
        if self.cls_token is not None:
            x = class_token(x, self.cls_token, gradients=mode)
        if self.pos_embed is not None:
            x = positions(x, self.pos_embed, gradients=mode)
        before = int(self.cls_token is not None)
        if kept is not None:
            x = keep(x, kept, before, gradients=mode)
        if self.reg_token is not None:
            x = registers(x, self.reg_token, before, gradients=mode)
        if self.training and config.dropout:
            x = dropout(x, draw(x.shape, config.dropout, x.device), gradients=mode)
        return x

    def _compute_fixed_positions(self) -> None:
        weight = self.patch_embed.proj.weight
        if (table := position_table(self.config)) is not None:
            self.pos_embed = table.to(weight.device, weight.dtype)
        if self.config.position == "rope2d":
            table = rope_table(self.config.grid, self.config.head_dim)
            self.rope = table.to(weight.device, weight.dtype)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
        # what to(), double(), to_empty() and the like come down to
        super()._apply(fn, recurse)
        self._compute_fixed_positions()
        return self


def _vectors(count: int, config: ViTConfig) -> nn.Parameter:
    return nn.Parameter(torch.empty(1, count, config.dim))


def check_images(images: Tensor, config: ViTConfig) -> None:
    """Refuse images that are not what the model reads.

    Raises:
        ValueError: if their shape is not the model's.
        TypeError: if they are integers.
    """
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
