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
token and norm, Q K V, what enters its second half, and the activation's input; nothing else. In a
long sequence O stands in for what enters the second half, with T H sums beside it.

Where the class token alone is read, the last block has one row in place of T of everything but its
input; and in place of Q K V and A what a single query keeps (`vitlib.nn.single_query`), D numbers
and 2 D + T for each head. Rotary positions and dropped weights need K and V, and what stands in one
tensor with these.

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
from vitlib.fast.attention import goes_in_tiles
from vitlib.nn.activations import hidden_width
from vitlib.nn.blockwise import TILE
from vitlib.nn.multi_head import EXPLICIT_TOKENS
from vitlib.summary import asks_alone

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
    fast = is_fast(config, narrowing, on_cpu)
    block = _fast_block if fast else _block
    return Activations(
        tokens=_tokens(config, widths),
        blocks=tuple(
            block(config, widths, bool(rate), outputs)
            for rate, outputs in zip(config.drop_path_rates, leaving(config), strict=True)
        ),
        entrance=widths.stream * trained_tokens(config) * config.dim,
        readout=_readout(config, widths, narrowing),
        loss=config.num_classes * (widths.logit + WIDE),
        work=_work(config, widths, fast),
    )


def trained_tokens(config: ViTConfig) -> int:
    """T in a step of training, after `patch_dropout`."""
    return config.num_prefix_tokens + config.num_kept_patches


def leaving(config: ViTConfig) -> tuple[int, ...]:
    """How many tokens leave each block: the last one those that are read (`vitlib.nn.vit`)."""
    tokens = trained_tokens(config)
    return (*[tokens] * (config.depth - 1), 1 if config.pool == "cls" else tokens)


def is_fast(config: ViTConfig, narrowing: Narrowing, on_cpu: bool) -> bool:
    """Whether the derived blocks run as their fast twins."""
    return config.gradients == "derived" and on_cpu and narrowing == "none" and fits(config)


def fuses_attention(config: ViTConfig) -> bool:
    """Whether PyTorch's fused kernel attends, which keeps no T × T matrix.

    It draws masks of its own, so attention is written out where its weights are dropped.
    """
    return config.gradients == "autograd" and not config.attention_dropout


def tiles_attention(config: ViTConfig, outputs: int) -> bool:
    """Whether the derived attention of a block that so many tokens leave goes tile by tile.

    The fast twin does so sooner, in PyTorch's fused kernel (`tiles_fast`).
    """
    return config.gradients == "derived" and outputs * trained_tokens(config) > EXPLICIT_TOKENS**2


def tiles_fast(config: ViTConfig) -> bool:
    """Whether the attention of the fast twin goes tile by tile."""
    return goes_in_tiles(trained_tokens(config))


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


def _block(config: ViTConfig, widths: _Widths, drops_path: bool, outputs: int) -> int:
    T, R, D, M = trained_tokens(config), outputs, config.dim, config.mlp_dim
    U = hidden_width(config.activation, M)
    token = widths.normed * D + (1 if config.gradients == "derived" else 2) * widths.statistic
    norms = token * (R + (T if config.norm == "pre" else R))
    masks = 2 * (R * D * bool(config.dropout) + drops_path) + R * M * bool(config.dropout)
    linears = widths.read * (T + R) * D + widths.hidden * R * M
    scales = widths.read * 2 * R * D * (config.layer_scale is not None)
    return (
        norms
        + linears
        + scales
        + sum(_attention(config, widths, R))
        + _bend(config, widths, R, U)
        + masks
    )


def _fast_block(config: ViTConfig, widths: _Widths, drops_path: bool, outputs: int) -> int:
    T, R, D, M = trained_tokens(config), outputs, config.dim, config.mlp_dim
    before = widths.stream * D + 2 * widths.statistic
    thought = before + widths.hidden * M
    if R < T:
        attention = sum(_single_query(config, widths))
    else:
        attention = R * (widths.packed * 3 * D + WIDE * config.heads * tiles_fast(config))
    return T * before + attention + R * thought + 2 * drops_path


def _attention(config: ViTConfig, widths: _Widths, outputs: int) -> Iterable[int]:
    T, R, D, H = trained_tokens(config), outputs, config.dim, config.heads
    if R < T and asks_alone(config):
        yield from _single_query(config, widths)
        return
    turned = config.position == "rope2d"
    fused, tiled = fuses_attention(config), tiles_attention(config, R)
    written_out = config.gradients == "autograd" and not fused
    # Q of those that ask is a part of a larger tensor, unless autocast or a product copies it
    narrowed = turned and widths.turned < widths.stream
    asked = R if narrowed or (written_out and H > 1 and not turned) else T
    if config.attention_dropout:
        yield H * R * T  # the mask
    if written_out:  # scores, powers, what is not dropped
        yield widths.packed * (2 * T + asked) * D
        yield widths.packed * 2 * T * D * (turned and H == 1)  # V of one head is a part of Q K V
        yield (2 * widths.weights + widths.powers) * H * R * T
        yield 2 * widths.powers * H * R
        yield widths.output * R * D
        return
    yield widths.packed * 3 * T * D
    yield widths.turned * (T + asked) * D * turned
    yield WIDE * H * R if fused or tiled else widths.weights * H * R * T
    yield widths.output * R * D
    # side by side again, unless they lie so already
    copied = tiled or (fused and turned)
    yield widths.output * R * D * (copied and H > 1 and R > 1)


def _single_query(config: ViTConfig, widths: _Widths) -> Iterable[int]:
    T, D, H = trained_tokens(config), config.dim, config.heads
    yield widths.packed * 2 * D  # the query, and what it receives
    yield widths.output * 2 * H * D
    yield widths.weights * H * T
    if config.gradients == "autograd":  # scores, powers, and their largest and sum
        yield (widths.weights + widths.powers) * H * T + 2 * widths.powers * H
        # autocast makes a copy for each product
        yield widths.read * (T + 1) * D * (widths.read < widths.stream)


def _bend(config: ViTConfig, widths: _Widths, R: int, U: int) -> int:
    """What the activation keeps beside what fc2 reads."""
    M, autograd = config.mlp_dim, config.gradients == "autograd"
    if autograd and config.activation == "relu":
        return widths.hidden * R * M if config.dropout else 0
    gates = R * M if autograd and config.activation == "swiglu" else 0
    return widths.hidden * (R * U + gates)


def _readout(config: ViTConfig, widths: _Widths, narrowing: Narrowing) -> int:
    R, D, derived = leaving(config)[-1], config.dim, config.gradients == "derived"
    statistics = widths.statistic * (1 if derived else 2)
    kept = 0
    if config.final_norm == "norm":
        kept += (widths.normed * D + statistics) * R
    elif config.final_norm == "fc_norm":
        kept += widths.normed * D + statistics
    copied = narrowing == "autocast" and not derived
    kept += widths.read * D
    if config.head == "mlp":  # tanh's output, and autocast's copy of it
        kept += (WIDE + NARROW if copied else widths.read) * D
    return kept


def _work(config: ViTConfig, widths: _Widths, fast: bool) -> int:
    """The most that a block's backward pass holds at a time, beside what it frees meanwhile."""
    T, D, M, H = trained_tokens(config), config.dim, config.mlp_dim, config.heads
    R = max(leaving(config))  # the last block needs less than another
    U = hidden_width(config.activation, M)
    attention = widths.packed * 4 * T * D
    if config.gradients == "autograd":
        mlp = widths.hidden * R * (U + M * (config.activation == "relu"))
        attention += widths.weights * H * R * T * bool(config.attention_dropout)
    elif fast:  # A and its gradient; Q K V, their gradients, in two orders; O
        mlp = widths.hidden * R * M
        attention = widths.packed * 13 * T * D
        attention += 2 * widths.weights * H * R * T * (not tiles_fast(config))
    else:
        mlp = 4 * widths.hidden * R * U
        # some matrices of weights and their gradients, all of them or a tile of each head
        tiled = tiles_attention(config, R)
        attention += WIDE * 5 * H * TILE**2 if tiled else widths.weights * 3 * H * R * T
    return 2 * widths.stream * T * D + max(mlp, attention)
