"""How weights start: as in timm, or as in big_vision.

*timm*: matrices and positions come from a normal distribution of standard deviation 0.02, cut off
at ±2; class token and registers likewise with 1e-6; biases are zero, gains one. The patch embedding
keeps the initialisation of a convolution. Factors of branches start, here and below, where the
model's configuration says.

*big_vision* (`big_vision/models/vit.py`): matrices are uniform in ± √(6 / (D_in + D_out)) (Glorot
and Bengio 2010), queries, keys and values each for themselves; the patch embedding is normal, cut
off at two standard deviations, with the variance 1 / (C P²) (LeCun et al. 1998); the biases of the
MLP are normal with 1e-6; positions are normal with 1 / √D; class token, registers, other biases and
the head are zero, so that the first loss is log K.
"""

from math import sqrt
from typing import Literal

from torch import nn

from vitlib.nn.tokens import TokenEmbedding

Initialisation = Literal["timm", "big_vision"]

_KEPT = 0.87962566103423978  # standard deviation of a standard normal, cut off at ±2


def initialise(model: TokenEmbedding, like: Initialisation = "timm") -> None:
    """Draw the weights of a `VisionTransformer` from the default generator."""
    (_as_in_timm if like == "timm" else _as_in_big_vision)(model)


def _as_in_timm(model: TokenEmbedding) -> None:
    for name, parameter in model.named_parameters(recurse=False):
        nn.init.trunc_normal_(parameter, std=0.02 if name == "pos_embed" else 1e-6)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            weight, *biases = module.parameters()
            nn.init.trunc_normal_(weight, std=0.02)
            for bias in biases:
                nn.init.zeros_(bias)


def _as_in_big_vision(model: TokenEmbedding) -> None:
    for name, parameter in model.named_parameters():
        *_, module, kind = ["", *name.split(".")]
        if kind == "gamma":
            nn.init.constant_(parameter, model.config.layer_scale or 0.0)
        elif kind == "pos_embed":
            nn.init.normal_(parameter, std=1 / sqrt(model.config.dim))
        elif kind == "bias" and module in ("fc1", "fc2"):
            nn.init.normal_(parameter, std=1e-6)
        elif parameter.ndim == 1 and kind == "weight":  # the gain of a norm
            nn.init.ones_(parameter)
        elif kind == "bias" or kind in ("cls_token", "reg_token") or module == "head":
            nn.init.zeros_(parameter)
        elif name == "patch_embed.proj.weight" or name.startswith("pre_logits."):
            std = 1 / sqrt(parameter[0].numel()) / _KEPT
            nn.init.trunc_normal_(parameter, std=std, a=-2 * std, b=2 * std)
        else:
            for part in parameter.chunk(packed_matrices(name, model.config.activation)):
                nn.init.xavier_uniform_(part)


def packed_matrices(name: str, activation: str) -> int:
    """How many matrices a block's weight packs, one below the other.

    Three in queries, keys and values, two in gate and value of a SwiGLU, one elsewhere.

    Args:
        name: Of the weight in the state dict.
        activation: Of the MLP.
    """
    if name.endswith("attn.qkv.weight"):
        return 3
    return 2 if activation == "swiglu" and name.endswith("mlp.fc1.weight") else 1
