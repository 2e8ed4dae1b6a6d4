"""What waits between the forward and the backward pass of a training step, in bytes.

Autograd keeps what each operation's gradient needs, the derived gradients what their own backward
passes need; what two operations need is kept once. For one image, in numbers, with T tokens of
width D, H heads, an MLP of width M whose activation reads U numbers (2 M with gates):

                  autograd                          derived
    norm          its input, 2 T                    X̂, T
    qkv           T D, what it reads                the same
    attention     Q K V, O and T H sums (fused)     Q K V and A, or in tiles Q K V, O, T H sums
    rotary        turned Q K, and O once more       turned Q K
    proj          what it reads: O itself           O, with the heads side by side
    activation    its input; a ReLU its output      its input
    fc1, fc2      what they read                    the same
    LayerScale    its input, T D                    the same

Where the fast twin of a derived block runs (`vitlib.fast`), a block keeps its input, 2 numbers a
token and norm, Q K V, what enters its second half, and the activation's input; nothing else.

How many bytes a number has depends on who narrows it. `torch.autocast` narrows what matrix products
read and make. A derived linear layer keeps what it was given, not the narrowed copy, and adds a
bias in float32, so most of what it keeps stays wide. FSDP2's `MixedPrecisionPolicy` narrows the
weights and what enters a block, and with them nearly everything.

Recomputing (Chen et al. 2016) keeps what enters each block, and rebuilds one block at a time.
Operations run one by one; what `torch.compile` makes of them may keep less.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from vitlib.config import ViTConfig
from vitlib.fast import fits
from vitlib.nn.activations import hidden_width
from vitlib.nn.blockwise import TILE
from vitlib.nn.multi_head import EXPLICIT_TOKENS

Narrowing = Literal["none", "autocast", "policy"]
"""Who makes numbers narrow: nobody, `torch.autocast`, or FSDP2's `MixedPrecisionPolicy`."""

WIDE, NARROW, INDEX = 4, 2, 8
"""Bytes of a float32, of a bfloat16 or float16, and of an int64."""


@dataclass(frozen=True)
class Activations:
    """Bytes that one image keeps.

    Attributes:
        tokens: What the embedding and what follows it keep, up to the first block.
        blocks: What each block keeps.
        entrance: What enters a block.
        readout: What the last norm, the pooling and the head keep.
        loss: The logits, and what the loss keeps.
        work: What the backward pass of one block needs beside all this while it runs.
    """

    tokens: int
    blocks: tuple[int, ...]
    entrance: int
    readout: int
    loss: int
    work: int

    def kept(self, recompute: bool) -> int:
        """Between forward and backward, without `loss`."""
        inner = self.entrance * len(self.blocks) if recompute else sum(self.blocks)
        return self.tokens + inner + self.readout

    def rebuilt(self, recompute: bool) -> int:
        """What one block keeps while it is computed again."""
        return max(self.blocks) if recompute else 0


@dataclass(frozen=True)
class _Widths:
    """Bytes of a number, by what it is.

    Attributes:
        stream: What enters a block.
        normed: What a norm keeps.
        statistic: μ and 1/σ of a token.
        read: What a linear layer keeps of its input.
        packed: Q, K, V as they are projected.
        turned: Q and K after rotary positions.
        weights: A.
        powers: A before it is divided and dropped, where autograd keeps it.
        output: O.
        hidden: Inside the MLP.
        logit: Of a class.
    """

    stream: int = WIDE
    normed: int = WIDE
    statistic: int = WIDE
    read: int = WIDE
    packed: int = WIDE
    turned: int = WIDE
    weights: int = WIDE
    powers: int = WIDE
    output: int = WIDE
    hidden: int = WIDE
    logit: int = WIDE


def activations(config: ViTConfig, narrowing: Narrowing, on_cpu: bool) -> Activations:
    """What one image keeps.

    Args:
        config: Of the model.
        narrowing: Who makes numbers narrow.
        on_cpu: Whether the device is a CPU. Elsewhere autocast computes norms and exponentials in
            float32.
    """
    widths = _widths(config, narrowing, on_cpu)
    rates = config.drop_path_rates
    fast = is_fast(config, narrowing, on_cpu)
    block = _fast_block if fast else _block
    return Activations(
        tokens=_tokens(config, widths),
        blocks=tuple(block(config, widths, bool(rate)) for rate in rates),
        entrance=widths.stream * trained_tokens(config) * config.dim,
        readout=_readout(config, widths, narrowing),
        loss=config.num_classes * (widths.logit + WIDE),
        work=_work(config, widths, fast),
    )


def trained_tokens(config: ViTConfig) -> int:
    """T in a step of training, after `patch_dropout`."""
    return config.num_prefix_tokens + config.num_kept_patches


def is_fast(config: ViTConfig, narrowing: Narrowing, on_cpu: bool) -> bool:
    """Whether the derived blocks run as their fast twins."""
    return config.gradients == "derived" and on_cpu and narrowing == "none" and fits(config)


def fuses_attention(config: ViTConfig) -> bool:
    """Whether PyTorch's fused kernel attends, which keeps no T × T matrix.

    It draws masks of its own, so attention is written out where its weights are dropped.
    """
    return config.gradients == "autograd" and not config.attention_dropout


def tiles_attention(config: ViTConfig) -> bool:
    """Whether the derived attention goes tile by tile."""
    return config.gradients == "derived" and trained_tokens(config) > EXPLICIT_TOKENS


def _widths(config: ViTConfig, narrowing: Narrowing, on_cpu: bool) -> _Widths:
    if narrowing == "none":
        return _Widths()
    derived = config.gradients == "derived"
    # on a GPU autocast computes exponentials, and what follows, in float32, and autograd's norms
    powers = NARROW if on_cpu else WIDE
    if derived and narrowing == "autocast":
        packed = WIDE if config.qkv_bias else NARROW
        return _Widths(packed=packed, weights=powers, powers=powers, output=NARROW)
    products = _Widths(
        read=NARROW,
        packed=NARROW,
        turned=NARROW,
        weights=powers if derived else NARROW,
        powers=powers,
        output=NARROW,
        hidden=NARROW,
        logit=NARROW,
    )
    if narrowing == "autocast":
        # what joins the narrow embedding (class token, positions, registers) is wide, and widens it
        joined = config.pool == "cls" or config.position not in ("none", "rope2d")
        stream = WIDE if joined or config.registers else NARROW
        return replace(products, stream=stream, normed=stream if on_cpu else WIDE)
    return replace(
        products,
        stream=NARROW,
        normed=NARROW if on_cpu or derived else WIDE,
        statistic=NARROW if on_cpu and not derived else WIDE,  # as wide as autograd's norm is
        logit=WIDE,
    )


def _tokens(config: ViTConfig, widths: _Widths) -> int:
    height, width = config.image_shape
    kept = widths.read * config.in_channels * height * width
    tokens = trained_tokens(config)
    if config.patch_dropout:  # which patches, or which image and tokens
        derived = config.gradients == "derived"
        places = config.num_kept_patches if derived else 1 + tokens - config.registers
        kept += INDEX * places
        if config.position == "rope2d":  # the cosines and sines of each image's own patches
            kept += 2 * WIDE * config.num_kept_patches * config.head_dim
    if config.dropout:
        kept += tokens * config.dim
    return kept


def _block(config: ViTConfig, widths: _Widths, drops_path: bool) -> int:
    T, D, M = trained_tokens(config), config.dim, config.mlp_dim
    U = hidden_width(config.activation, M)
    norm = (
        widths.normed * T * D + (1 if config.gradients == "derived" else 2) * widths.statistic * T
    )
    masks = 2 * (T * D * bool(config.dropout) + drops_path) + T * M * bool(config.dropout)
    linears = widths.read * 2 * T * D + widths.hidden * T * M
    scales = widths.read * 2 * T * D * (config.layer_scale is not None)
    return (
        2 * norm
        + linears
        + scales
        + sum(_attention(config, widths))
        + _bend(config, widths, T, U)
        + masks
    )


def _fast_block(config: ViTConfig, widths: _Widths, drops_path: bool) -> int:
    T, D, M = trained_tokens(config), config.dim, config.mlp_dim
    numbers = 2 * widths.stream * D + 4 * widths.statistic + widths.packed * 3 * D
    return T * (numbers + widths.hidden * M) + 2 * drops_path


def _attention(config: ViTConfig, widths: _Widths) -> Iterable[int]:
    T, D, H = trained_tokens(config), config.dim, config.heads
    turned = config.position == "rope2d"
    fused, tiled = fuses_attention(config), tiles_attention(config)
    if config.attention_dropout:
        yield H * T * T  # the mask
    if config.gradients == "autograd" and not fused:  # scores, powers, what is not dropped
        yield widths.packed * 3 * T * D
        yield (2 * widths.weights + widths.powers) * H * T * T
        yield 2 * widths.powers * H * T
        yield widths.output * T * D
        return
    yield widths.packed * 3 * T * D
    yield widths.turned * 2 * T * D * turned
    yield WIDE * H * T if fused or tiled else widths.weights * H * T * T
    yield widths.output * T * D
    # side by side again, unless they lie so already
    copied = tiled or (fused and turned)
    yield widths.output * T * D * (copied and H > 1)


def _bend(config: ViTConfig, widths: _Widths, T: int, U: int) -> int:
    """What the activation keeps beside what fc2 reads."""
    M, autograd = config.mlp_dim, config.gradients == "autograd"
    if autograd and config.activation == "relu":
        return widths.hidden * T * M if config.dropout else 0
    gates = T * M if autograd and config.activation == "swiglu" else 0
    return widths.hidden * (T * U + gates)


def _readout(config: ViTConfig, widths: _Widths, narrowing: Narrowing) -> int:
    T, D, derived = trained_tokens(config), config.dim, config.gradients == "derived"
    statistics = widths.statistic * (1 if derived else 2)
    kept = 0
    if config.final_norm == "norm":
        kept += widths.normed * T * D + statistics * T
    elif config.final_norm == "fc_norm":
        kept += widths.normed * D + statistics
    # the class token is a part of the tensor of all tokens, unless autocast copies it
    copied = narrowing == "autocast" and not derived
    kept += widths.read * D * (T if config.pool == "cls" and not copied else 1)
    if config.head == "mlp":  # tanh's output, and autocast's copy of it
        kept += (WIDE + NARROW if copied else widths.read) * D
    return kept


def _work(config: ViTConfig, widths: _Widths, fast: bool) -> int:
    """The most that a block's backward pass holds at a time, beside what it frees meanwhile."""
    T, D, M, H = trained_tokens(config), config.dim, config.mlp_dim, config.heads
    U = hidden_width(config.activation, M)
    attention = widths.packed * 4 * T * D
    if config.gradients == "autograd":
        mlp = widths.hidden * T * (U + M * (config.activation == "relu"))
        attention += widths.weights * H * T * T * bool(config.attention_dropout)
    elif fast:  # A and its gradient; Q K V, their gradients, in two orders; O
        mlp = widths.hidden * T * M
        attention = widths.packed * 13 * T * D + 2 * widths.weights * H * T * T
    else:
        mlp = 4 * widths.hidden * T * U
        # some matrices of weights and their gradients, all of them or a tile of each head
        side = min(T, TILE) if tiles_attention(config) else T
        attention += widths.weights * 3 * H * T * T if side == T else WIDE * 5 * H * side * side
    return 2 * widths.stream * T * D + max(mlp, attention)
