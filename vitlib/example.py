"""The running example: one real digit, a Vision Transformer small enough for pencil and paper.

The digit is 8 × 8 pixels, cut into four patches. The model has width 4, two heads and one block,
and each of its 322 weights has a single decimal. Every worked example of the book is the next stage
of this one; `start/notation` prints all of it, `vitlib.study.running_example` made the weights.
"""

import json
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files

import torch
from torch import Tensor

from vitlib.config import ViTConfig
from vitlib.data import load
from vitlib.nn.activations import gelu_forward
from vitlib.nn.class_token import class_token_forward
from vitlib.nn.layer_norm import layer_norm_forward
from vitlib.nn.linear import linear_forward
from vitlib.nn.loss import cross_entropy
from vitlib.nn.multi_head import merge_heads, split_heads
from vitlib.nn.patches import patchify
from vitlib.nn.positions import positions_forward
from vitlib.nn.softmax import softmax_forward
from vitlib.nn.vit import VisionTransformer

__all__ = ["CONFIG", "RunningExample", "running_example"]

CONFIG = ViTConfig(
    image_size=8, patch_size=4, in_channels=1, num_classes=10, dim=4, depth=1, heads=2, mlp_dim=8
)
"""The sizes of the running example: N = 4, T = 5, D = 4, H = 2, d = 2, M = 8, K = 10."""

DIGIT = 22
"""Which of the test digits it is."""


@dataclass(frozen=True)
class RunningExample:
    """The digit, the weights, and everything that happens to them.

    Attributes:
        image: (1, 1, 8, 8), float64, multiples of 1/16 in [0, 1].
        label: the digit that it is.
        parameters: the weights, float64, keyed like the model's state dict.
    """

    image: Tensor
    label: int
    parameters: dict[str, Tensor]

    config = CONFIG
    token_names = ("cls", "p0", "p1", "p2", "p3")

    def model(self, gradients: str = "autograd") -> VisionTransformer:
        """The running example as a model like any other, in float64.

        Args:
            gradients: whose backward pass it has, "autograd" or "derived".
        """
        model = VisionTransformer(replace(CONFIG, gradients=gradients)).double()
        model.load_state_dict(self.parameters)
        return model

    def stages(self) -> dict[str, Tensor]:
        """Every intermediate result under the letter that it has in the book.

        `I` (C, height, width), `P` (N, C·P²), `E` (N, D), `X` (T, D), of the block's first layer
        norm `mu` and `sigma` (T, 1), `X_hat` and `Y` (T, D), of its attention `Q`, `K`, `V`, `O`
        (H, T, d), `S` and `A` (H, T, T), `O_all` and what is added to X, `Y_attention` (T, D). Then
        X' as `X_mid` and its layer norm `Y_mid` (T, D), of the MLP `U` and `H` (T, M) and what is
        added, `Y_mlp` (T, D), the block's output `X_out`, the last layer norm's `Y_out` (T, D), and
        at the end `logits` and `p` (K).
        """
        return {name: value.detach()[0] for name, value in self._forward().items()}

    def gradients(self) -> dict[str, Tensor]:
        """The gradients of the loss, the cross-entropy of the true class, for the same letters.

        They come from autograd, since the chapters hold their own derivations against them. `mu`,
        `sigma` and `p` have none: nothing is computed from them here.
        """
        stages = self._forward()
        for value in stages.values():
            value.retain_grad()
        cross_entropy(stages["logits"], torch.tensor([self.label])).backward()
        return {name: value.grad[0] for name, value in stages.items() if value.grad is not None}

    def _forward(self) -> dict[str, Tensor]:
        """The stages with their graph and a batch of one."""
        eps, heads = CONFIG.layer_norm_eps, CONFIG.heads

        def layer(name: str) -> tuple[Tensor, Tensor]:
            return self.parameters[f"{name}.weight"], self.parameters[f"{name}.bias"]

        images = self.image.clone().requires_grad_()
        patches = patchify(images, CONFIG.patch_shape)
        kernel, bias = layer("patch_embed.proj")
        embeddings, _ = linear_forward(patches, kernel.flatten(1), bias)
        x, _ = class_token_forward(embeddings, self.parameters["cls_token"])
        x, _ = positions_forward(x, self.parameters["pos_embed"])

        y, norm = layer_norm_forward(x, *layer("blocks.0.norm1"), eps)
        packed, _ = linear_forward(y, *layer("blocks.0.attn.qkv"))
        q, k, v = split_heads(packed, heads)
        scores = q @ k.mT / CONFIG.head_dim**0.5
        weights, _ = softmax_forward(scores)
        o = weights @ v
        joined = merge_heads(o)
        exchanged, _ = linear_forward(joined, *layer("blocks.0.attn.proj"))
        between = x + exchanged
        normed, _ = layer_norm_forward(between, *layer("blocks.0.norm2"), eps)
        hidden, _ = linear_forward(normed, *layer("blocks.0.mlp.fc1"))
        bent, _ = gelu_forward(hidden)
        thought, _ = linear_forward(bent, *layer("blocks.0.mlp.fc2"))
        after = between + thought
        final, _ = layer_norm_forward(after, *layer("norm"), eps)
        logits, _ = linear_forward(final[:, 0], *layer("head"))
        return {
            "I": images,
            "P": patches,
            "E": embeddings,
            "X": x,
            "mu": x.mean(-1, keepdim=True),
            "sigma": 1 / norm.inverse_sigma,
            "X_hat": norm.x_hat,
            "Y": y,
            "Q": q,
            "K": k,
            "V": v,
            "S": scores,
            "A": weights,
            "O": o,
            "O_all": joined,
            "Y_attention": exchanged,
            "X_mid": between,
            "Y_mid": normed,
            "U": hidden,
            "H": bent,
            "Y_mlp": thought,
            "X_out": after,
            "Y_out": final,
            "logits": logits,
            "p": softmax_forward(logits)[0],
        }


@cache
def running_example() -> RunningExample:
    """The running example: one test digit, a 2, and the weights that `vitlib/data` ships."""
    tenths = json.loads((files("vitlib.data") / "running_example.json").read_text())
    digits = load("digits")
    return RunningExample(
        image=digits.test_images[DIGIT : DIGIT + 1].double(),
        label=int(digits.test_labels[DIGIT]),
        parameters={
            name: torch.tensor(values, dtype=torch.float64) / 10 for name, values in tenths.items()
        },
    )
