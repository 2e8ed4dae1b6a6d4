"""A Vision Transformer layer by layer: shapes, parameters, multiply–adds, memory.

Everything is computed from the configuration alone, and is exact. All figures but the parameters
are for one image.

**Weights** are matrices, gains, and the vectors that are learned as such: class token, registers,
positions. **Biases** are what a linear layer or a norm adds.

**Multiply–adds** are those of matrix products: a layer from D_in to D_out takes T · D_in · D_out of
them, the scores and the weighted averages of attention T² D each. Sums, norms, softmax, activations
and the turning of rotary positions are not counted.

**Memory** is what waits between the forward pass and the derived backward pass as it is derived
(its fast twins, `vitlib.fast`, keep less), in bytes, at four bytes a number and one a mask entry;
weights and fixed tables are not in it. What two layers need is kept once, and listed with the layer
that reads it:

    linear layer   its input
    norm           X̂ and 1/σ, D + 1 numbers a token
    attention      Q, K, V and A, 3 T D + H T² numbers, and where there are more than 1,024 tokens
                   Q, K, V, O and L, 4 T D + H T; with rotary positions Q and K are kept as they
                   were projected, too, since V is a part of the same tensor
    activation     its input
    LayerScale     its input
    dropout        its mask, listed with the layer in front of it

A class token is a part of the tensor of all tokens, so whoever reads it keeps them all.

**The last block** lets all tokens through here, as in the literature and for
`VisionTransformer.tokens`. Where the class token alone is read, `VisionTransformer.forward` leaves
out what concerns the outputs of the others, and their keys and values (`vitlib.nn.single_query`);
with `whole=False` so does the table, where what is left of the packed projection's products stands
with the attention.

**Patches** are all there, as when the model is used. A step of training with `patch_dropout` passes
fewer, and takes and keeps less.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from math import prod
from typing import Any

from vitlib.config import ViTConfig
from vitlib.nn.activations import hidden_width
from vitlib.nn.multi_head import EXPLICIT_TOKENS

__all__ = ["Layer", "Summary", "asks_alone", "summary"]

Shape = tuple[int, ...]

_NUMBER = 4  # bytes of a float32


@dataclass(frozen=True)
class Layer:
    """One layer, or a whole of several.

    Attributes:
        name: Path of the module or parameter in the model; `pool` and `dropout` are neither.
        input: Shape of what goes in, for one image.
        output: Shape of what comes out.
        weights: Learned numbers, biases apart.
        biases: Learned numbers that are added.
        multiply_adds: Of its matrix products, for one image.
        memory: Bytes that it keeps for its backward pass, for one image.
    """

    name: str
    input: Shape
    output: Shape
    weights: int = 0
    biases: int = 0
    multiply_adds: int = 0
    memory: int = 0

    @property
    def parameters(self) -> int:
        """Weights and biases."""
        return self.weights + self.biases


@dataclass(frozen=True)
class Summary:
    """All layers of a model in the order in which an image passes them.

    Attributes:
        config: Of the model.
        layers: One after the other; those of all blocks.
    """

    config: ViTConfig
    layers: tuple[Layer, ...]

    @property
    def total(self) -> Layer:
        """The whole model as one layer."""
        return _sum("total", self.layers)

    @property
    def parameters(self) -> int:
        """Of the whole model."""
        return self.total.parameters

    def to_json(self) -> str:
        """Configuration, every layer and the total."""
        content = {
            "config": self.config.to_dict(),
            "layers": [asdict(layer) for layer in self.layers],
            "total": asdict(self.total),
        }
        return json.dumps(content, indent=2)

    def to_markdown(self) -> str:
        """Two tables, exact to the digit, blocks that are alike written once."""
        config = [["option", "value"], *([f"`{k}`", f"`{v}`"] for k, v in self._options())]
        table = [["layer", "in", "out", "weights", "biases", "multiply–adds", "memory (bytes)"]]
        for name, layer in self._lines():
            cells = _cells(layer, 1, 1) if layer else [""] * 6
            mark = "`" if layer and name.strip() not in _SUMS else "**"
            table.append([f"{mark}{name.strip()}{mark}", *cells])
        return "\n\n".join([_markdown(config, 2), _markdown(table, 3), self._legend()])

    def to_text(self) -> str:
        """The same for a terminal of 80 columns, large numbers rounded."""
        scale, unit = _unit(self.total.multiply_adds, ("", "thousand", "million"))
        size, byte = _unit(self.total.memory, ("bytes", "kB", "MB"))
        head = [
            ["", "", "", "", "", "mult–adds", "memory"],
            ["layer", "in", "out", "weights", "biases", unit, byte],
        ]
        body = [
            [name, *(_cells(layer, scale, size) if layer else [])] for name, layer in self._lines()
        ]
        options = [f"    {name:20} {value}" for name, value in self._options()]
        return "\n".join([*options, "", *_columns(head, body), "", self._legend()])

    def _legend(self) -> str:
        text = f"{self.parameters:,} parameters in all.\n{_LEGEND}"
        if not self.config.patch_dropout:
            return text
        kept, patches = self.config.num_kept_patches, self.config.num_patches
        return f"{text}\nAll patches are counted; in training, an image keeps {kept} of {patches}."

    def _options(self) -> Iterable[tuple[str, Any]]:
        return self.config.to_dict().items()

    def _lines(self) -> Iterable[tuple[str, Layer | None]]:
        """Names and layers as they are printed; a heading has no layer."""

        def block(layer: Layer) -> str:
            return ".".join(layer.name.split(".")[:2]) if layer.name.startswith("blocks.") else ""

        def alike(group: tuple[str, list[Layer]]) -> list[Any]:
            name, layers = group
            return [_without(name, layer) for layer in layers] if name else []

        groups = [(name, list(layers)) for name, layers in groupby(self.layers, block)]
        for _, run in groupby(groups, alike):
            (first, layers), *others = run
            if not first:
                yield from ((layer.name, layer) for layer in layers)
                continue
            yield (f"{first} … {others[-1][0]} (×{1 + len(others)})" if others else first), None
            for layer in layers:
                yield f"  {layer.name.removeprefix(first + '.')}", layer
            yield "  one block", _sum("one block", layers)
        yield "total", self.total


_SUMS = ("one block", "total")
_LEGEND = (
    "For one image: multiply–adds of the matrix products; memory that the derived\n"
    "backward pass needs from the forward pass, in float32."
)


def summary(config: ViTConfig, *, whole: bool = True) -> Summary:
    """The layers of the model that a configuration describes.

    Args:
        config: Of the model.
        whole: Whether all tokens pass the last block, or those alone that the head reads.
    """
    read = config.num_tokens if whole or config.pool != "cls" else 1
    *most, last = config.drop_path_rates
    reads = [*((rate, config.num_tokens) for rate in most), (last, read)]
    blocks = (
        layer
        for i, (rate, outputs) in enumerate(reads)
        for layer in _block(f"blocks.{i}", config, bool(rate), outputs)
    )
    return Summary(config, (*_tokens(config), *blocks, *_readout(config, read)))


def asks_alone(config: ViTConfig) -> bool:
    """Whether a token that alone is read needs no keys and values (`vitlib.nn.single_query`)."""
    return config.position != "rope2d" and not config.attention_dropout


def _linear(
    name: str, shape: Shape, width: int, bias: bool = True, masks: int = 0, view: int = 1
) -> Layer:
    """A linear layer.

    Args:
        name: of the layer.
        shape: of its input, for one image.
        width: D_out.
        bias: whether there is one.
        masks: bytes of the masks of what is dropped behind it.
        view: how many times as large is the tensor that its input is a part of.
    """
    *rows, fan_in = shape
    memory = _NUMBER * prod(shape) * view + masks
    return Layer(
        name, shape, (*rows, width), fan_in * width, width * bias, prod(shape) * width, memory
    )


def _norm(name: str, shape: Shape) -> Layer:
    *rows, width = shape
    return Layer(name, shape, shape, width, width, 0, _NUMBER * (prod(shape) + prod(rows)))


def _tokens(config: ViTConfig) -> Iterable[Layer]:
    count, dim = config.num_patches, config.dim
    image = (config.in_channels, *config.image_shape)
    flat = _linear("", (count, prod(image) // count), dim)
    yield Layer(
        "patch_embed.proj", image, flat.output, flat.weights, dim, flat.multiply_adds, flat.memory
    )
    if config.pool == "cls":
        yield Layer("cls_token", (count, dim), (count + 1, dim), dim)
    shape = (config.num_positions, dim)
    if config.position not in ("rope2d", "none"):
        yield Layer("pos_embed", shape, shape, prod(shape) * (config.position == "learned"))
    all_tokens = (config.num_tokens, dim)
    if config.registers:
        yield Layer("reg_token", shape, all_tokens, config.registers * dim)
    if config.dropout:
        yield Layer("dropout", all_tokens, all_tokens, memory=prod(all_tokens))


def _block(name: str, config: ViTConfig, drops_path: bool, outputs: int) -> Iterable[Layer]:
    """The layers of a block that so many tokens leave; its norms stand where they act."""
    T, R, D, H, M = config.num_tokens, outputs, config.dim, config.heads, config.mlp_dim
    U, drops = hidden_width(config.activation, M), bool(config.dropout)
    tiled = R * T > EXPLICIT_TOKENS**2
    kept = _NUMBER * (4 * T * D + H * T if tiled else 3 * T * D + H * R * T)
    if config.position == "rope2d":
        kept += _NUMBER * 2 * T * D
    if config.attention_dropout:
        kept += H * R * T
    path, scaled = int(drops_path), config.layer_scale is not None
    masks = R * D * drops + path * (not scaled)
    scale1, scale2 = (
        [Layer(f"{name}.ls{i}", (R, D), (R, D), D, memory=_NUMBER * R * D + path)] * scaled
        for i in (1, 2)
    )
    qkv = _linear(f"{name}.attn.qkv", (T, D), 3 * D, config.qkv_bias)
    attended = 2 * R * T * D
    if outputs < T and asks_alone(config):
        qkv, attended = replace(qkv, multiply_adds=0), 3 * D**2 + 2 * H * T * D
        kept = _NUMBER * (D + 2 * H * D + H * T)
    place1 = T if config.norm == "pre" else R
    norm1, norm2 = _norm(f"{name}.norm1", (place1, D)), _norm(f"{name}.norm2", (R, D))
    exchange = (
        qkv,
        Layer(f"{name}.attn", (T, 3 * D), (R, D), multiply_adds=attended, memory=kept),
        _linear(f"{name}.attn.proj", (R, D), D, masks=masks),
        *scale1,
    )
    think = (
        _linear(f"{name}.mlp.fc1", (R, D), U),
        Layer(f"{name}.mlp.act", (R, U), (R, M), memory=_NUMBER * R * U + R * M * drops),
        _linear(f"{name}.mlp.fc2", (R, M), D, masks=masks),
        *scale2,
    )
    if config.norm == "pre":
        return norm1, *exchange, norm2, *think
    return *exchange, norm1, *think, norm2


def _readout(config: ViTConfig, read: int) -> Iterable[Layer]:
    tokens, dim = (read, config.dim), config.dim
    if config.final_norm == "norm":
        yield _norm("norm", tokens)
    yield Layer("pool", tokens, (dim,))
    if config.final_norm == "fc_norm":
        yield _norm("fc_norm", (dim,))
    view = read if config.pool == "cls" else 1
    if config.head == "mlp":
        yield _linear("pre_logits.fc", (dim,), dim, view=view)
        view = 1
    yield _linear("head", (dim,), config.num_classes, view=view)


def _sum(name: str, layers: Sequence[Layer]) -> Layer:
    return Layer(
        name,
        layers[0].input,
        layers[-1].output,
        sum(layer.weights for layer in layers),
        sum(layer.biases for layer in layers),
        sum(layer.multiply_adds for layer in layers),
        sum(layer.memory for layer in layers),
    )


def _without(prefix: str, layer: Layer) -> tuple[Any, ...]:
    name, *rest = asdict(layer).values()
    return name.removeprefix(prefix), *rest


def _unit(largest: int, names: tuple[str, str, str]) -> tuple[int, str]:
    """The unit in which the largest number of a column is easily read."""
    power = 0 if largest < 10**5 else 1 if largest < 10**8 else 2
    return 1000**power, names[power]


def _cells(layer: Layer, scale: int, size: int) -> list[str]:
    return [
        "×".join(map(str, layer.input)),
        "×".join(map(str, layer.output)),
        _number(layer.weights, 1),
        _number(layer.biases, 1),
        _number(layer.multiply_adds, scale),
        _number(layer.memory, size),
    ]


def _number(value: int, scale: int) -> str:
    if not value:
        return "–"
    return f"{value:,}" if scale == 1 else f"{value / scale:,.2f}"


def _columns(head: list[list[str]], body: list[list[str]]) -> list[str]:
    """Lines of aligned columns, shapes to the left and numbers to the right.

    Headings of one cell do not widen the first column.
    """
    table = [*head, *(row for row in body if len(row) > 1)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]

    def line(row: list[str]) -> str:
        cells = [
            f"{cell:{'<' if i < 3 else '>'}{width}}"
            for i, (cell, width) in enumerate(zip(row, widths, strict=False))
        ]
        return "  ".join(cells).rstrip()

    rule = "─" * (sum(widths) + 2 * (len(widths) - 1))
    *layers, total = body
    rows = [row[0] if len(row) == 1 else line(row) for row in layers]
    return [*map(line, head), rule, *rows, rule, line(total)]


def _markdown(table: list[list[str]], left: int) -> str:
    rule = ["---" if i < left else "--:" for i in range(len(table[0]))]
    return "\n".join(f"| {' | '.join(row)} |" for row in [table[0], rule, *table[1:]])
