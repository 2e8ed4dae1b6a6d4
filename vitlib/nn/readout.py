"""From tokens to logits: the last layer norm, pooling, and the head.

    X (B, T, D)   y (B, D)   z (B, K)

    pre-norm                     y = pool(LN(X))     z = head(y)
    pre-norm, norm after pool    y = LN(pool(X))     z = head(y)
    post-norm                    y = pool(X)         z = head(y)

(Dosovitskiy et al. 2021, equation 4, is the first with the class token.) A post-norm block has
normalised its output already. The norm after pooling is called `fc_norm`, as in timm. The backward
pass is the parts' in opposite order. Saved: what the parts save.
"""

from collections.abc import Mapping
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from vitlib.config import ViTConfig
from vitlib.nn import head, layer_norm, linear, pooling
from vitlib.nn.head import head_backward, head_forward, pre_logits_backward, pre_logits_forward
from vitlib.nn.layer_norm import layer_norm_backward, layer_norm_forward
from vitlib.nn.linear import layer
from vitlib.nn.pooling import pool_backward, pool_forward


class Saved(NamedTuple):
    """What the backward pass of these stages needs; None for a stage that is not there."""

    norm: layer_norm.Saved | None
    pool: pooling.Saved
    fc_norm: layer_norm.Saved | None
    pre_logits: head.Saved | None
    head: linear.Saved


def readout_forward(
    x: Float[Tensor, "B T D"], parameters: Mapping[str, Tensor], config: ViTConfig
) -> tuple[Float[Tensor, "B K"], Saved]:
    """The logits of the tokens that leave the last block."""
    saved_norm = saved_fc_norm = saved_pre_logits = None
    if config.final_norm == "norm":
        x, saved_norm = layer_norm_forward(x, *layer(parameters, "norm"), config.layer_norm_eps)
    y, saved_pool = pool_forward(x, config.pool, config.num_prefix_tokens)
    if config.final_norm == "fc_norm":
        weights = layer(parameters, "fc_norm")
        y, saved_fc_norm = layer_norm_forward(y, *weights, config.layer_norm_eps)
    if config.head == "mlp":
        y, saved_pre_logits = pre_logits_forward(y, *layer(parameters, "pre_logits.fc"))
    logits, saved_head = head_forward(y, *layer(parameters, "head"))
    return logits, Saved(saved_norm, saved_pool, saved_fc_norm, saved_pre_logits, saved_head)


def readout_backward(
    grad_logits: Float[Tensor, "B K"], saved: Saved
) -> tuple[Float[Tensor, "B T D"], dict[str, linear.Weights]]:
    """The gradients of the tokens, and of weight and bias of each layer."""
    layers: dict[str, linear.Weights] = {}
    grad_y, weight, bias = head_backward(grad_logits, saved.head)
    layers["head"] = weight, bias
    if saved.pre_logits is not None:
        grad_y, weight, bias = pre_logits_backward(grad_y, saved.pre_logits)
        layers["pre_logits.fc"] = weight, bias
    if saved.fc_norm is not None:
        grad_y, weight, bias = layer_norm_backward(grad_y, saved.fc_norm)
        layers["fc_norm"] = weight, bias
    grad_x = pool_backward(grad_y, saved.pool)
    if saved.norm is not None:
        grad_x, weight, bias = layer_norm_backward(grad_x, saved.norm)
        layers["norm"] = weight, bias
    return grad_x, layers
