"""The configuration of a Vision Transformer, and the models that the literature has named.

Sizes of the named models: Dosovitskiy et al. 2021, table 1 (base, large, huge); Touvron et al.
2021, table 1 (tiny, small). The names are timm's.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from difflib import get_close_matches
from typing import Any, Literal, Self, get_args

__all__ = [
    "Size",
    "ViTConfig",
    "available",
    "check_heads",
    "check_layer_scale",
    "check_position_width",
    "check_rate",
    "check_whole",
    "list_models",
    "named_config",
    "sides",
]

Size = int | tuple[int, int]
"""Pixels: one number for a square, or (height, width)."""

Position = Literal["learned", "sincos1d", "sincos2d", "rope2d", "none"]
Pool = Literal["cls", "mean"]
Norm = Literal["pre", "post"]
Activation = Literal["gelu", "gelu_tanh", "relu", "swiglu"]
HeadKind = Literal["linear", "mlp"]
Gradients = Literal["autograd", "derived"]

_SIZES = ("image_size", "patch_size")
_COUNTS = ("in_channels", "num_classes", "dim", "depth", "heads", "mlp_dim")
_LARGEST = 1_000_000  # of any size: beyond it something else was meant
_RATES = ("dropout", "attention_dropout", "drop_path", "patch_dropout")
_POSITION_WIDTHS = {
    "sincos1d": ("dim", 2, "a sine and a cosine for each frequency"),
    "sincos2d": ("dim", 4, "a sine and a cosine of row and column for each frequency"),
    "rope2d": ("dim / heads", 4, "pairs turned by row and pairs turned by column"),
}
_CHOICES: dict[str, tuple[Any, ...]] = {
    "position": get_args(Position),
    "pool": get_args(Pool),
    "norm": get_args(Norm),
    "activation": get_args(Activation),
    "head": get_args(HeadKind),
    "norm_after_pool": (True, False),
    "qkv_bias": (True, False),
    "gradients": get_args(Gradients),
}


def available(name: str, value: Any) -> Any:
    """The value of an option, if it can be chosen.

    Args:
        name: a field of `ViTConfig` with a few possible values.
        value: the value that is asked for.

    Raises:
        ValueError: if it is none of them.
    """
    for choice in _CHOICES[name]:
        # 1 is no True here, though Python says True == 1
        if isinstance(value, bool) == isinstance(choice, bool) and value == choice:
            return value
    choices = " or ".join(repr(choice) for choice in _CHOICES[name])
    raise ValueError(f"{name}={value!r} is not available: choose {choices}.")


def check_whole(
    name: str,
    value: object,
    kind: str = "a whole number",
    least: int = 1,
    most: int = _LARGEST,
) -> None:
    """Refuse what is no whole number, or lies outside the range.

    Args:
        name: what the number is called, for the error.
        value: the number.
        kind: what is expected, for the error.
        least: the smallest that makes sense.
        most: the largest that makes sense.

    Raises:
        ValueError: if it lies outside.
        TypeError: if it is not a whole number.
    """
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name}={value!r}: expected {kind}.")
    if not least <= value <= most:
        raise ValueError(f"{name}={value}: expected {kind}, from {least:,} to {most:,}.")


def check_rate(name: str, rate: object) -> None:
    """Refuse a rate of dropout that is no part of a whole, or drops everything.

    Raises:
        ValueError: if it is not in [0, 1).
        TypeError: if it is not a number.
    """
    expected = f"{name}={rate!r}: expected a number from 0 to below 1, such as 0.1."
    if not isinstance(rate, int | float) or isinstance(rate, bool):
        raise TypeError(expected)
    if not 0 <= rate < 1:
        raise ValueError(expected)


def _small(name: str, value: object) -> None:
    expected = f"{name}={value!r}: expected a small positive number such as 1e-6."
    if not isinstance(value, int | float):
        raise TypeError(expected)
    if not 0 < value < 1:
        raise ValueError(expected)


def check_layer_scale(initial: object) -> None:
    """Refuse what the factors of LayerScale cannot start at.

    Raises:
        ValueError: if it is not above 0 and at most 1.
        TypeError: if it is not a number.
    """
    expected = f"layer_scale={initial!r}: expected a number above 0, to 1, such as 1e-4, or None."
    if not isinstance(initial, int | float) or isinstance(initial, bool):
        raise TypeError(expected)
    if not 0 < initial <= 1:
        raise ValueError(expected)


def sides(name: str, size: Size) -> tuple[int, int]:
    """Height and width of a size that is one number or both.

    Args:
        name: what it is the size of, for the error.
        size: pixels, one number for a square or (height, width).

    Raises:
        ValueError: if a side is less than 1 or absurdly large, or there are not two of them.
        TypeError: if a side is not a whole number.
    """
    expected = "a whole number or a tuple (height, width) of two"
    pair = size if isinstance(size, tuple) else (size, size)
    if len(pair) != 2:
        raise ValueError(f"{name}={size!r}: expected {expected}.")
    for side in pair:
        check_whole(name, side, expected)
    return pair


def check_heads(dim: int, heads: int) -> None:
    """Refuse a number of heads among which the width cannot be divided.

    Raises:
        ValueError: if `heads` does not divide `dim`.
    """
    if dim % heads:
        raise ValueError(
            f"dim={dim} is not divisible by heads={heads}: every head has dim / heads entries."
        )


def check_position_width(position: str, width: int) -> None:
    """Refuse a width that a scheme of positions cannot divide among its sines and cosines.

    Args:
        position: the scheme; those that have no sines take any width.
        width: D of an added table, d of rotary positions.

    Raises:
        ValueError: if the width is not divisible as the scheme needs it.
        TypeError: if it is not a whole number.
    """
    name, divisor, parts = _POSITION_WIDTHS.get(position, ("dim", 1, ""))
    check_whole(name, width)
    if width % divisor:
        raise ValueError(
            f"{name}={width} is not divisible by {divisor}: position={position!r} divides it into "
            f"{parts}. Choose another dim, number of heads or position."
        )


def _near(name: object, known: Iterable[str]) -> str:
    near = get_close_matches(str(name), known, n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


@dataclass(frozen=True)
class ViTConfig:
    """Everything that distinguishes one Vision Transformer from another.

    Args:
        image_size: pixels, one number for a square or (height, width).
        patch_size: P, one number or (height, width); divides `image_size`.
        in_channels: C.
        num_classes: K.
        dim: D, the model's width; divisible by `heads`.
        depth: L, the number of encoder blocks.
        heads: H.
        mlp_dim: M, the width of the MLP's hidden layer.
        position: how tokens know their place: "learned" (a table), "sincos1d" (a fixed table; D
            even), "sincos2d" (the same by row and column; D divisible by 4), "rope2d" (queries and
            keys of patches are rotated; d divisible by 4) or "none".
        pool: what the head reads: "cls", the class token, or "mean", the mean of the patch tokens;
            then there is no class token.
        norm_after_pool: with mean pooling, the last layer norm comes after the pooling (timm's
            fc_norm), not before.
        norm: where a block normalises: "pre", what attention and MLP read, or "post", the sums that
            they are added to; then no layer norm follows the last block.
        activation: of the MLP: "gelu" (exact), "gelu_tanh" (its approximation), "relu" or
            "swiglu", with a gate and a value of width M each.
        head: "linear", D → K, or "mlp", D → D, tanh, D → K.
        dropout: rate for the embedded tokens, the attention's projection and the MLP's two layers.
        attention_dropout: rate for the attention weights.
        drop_path: rate, in the last block, at which an image skips attention or MLP; it grows
            linearly from 0 in the first block.
        patch_dropout: part of the patch tokens that every image loses in training, drawn for each
            anew (timm's patch_drop_rate); at least one stays.
        layer_norm_eps: ε of every layer norm.
        qkv_bias: whether queries, keys and values have a bias.
        registers: R, learned tokens without position between class token and patches.
        layer_scale: what the learned factors of each branch start at (timm's init_values;
            `vitlib.nn.layer_scale`); None for none.
        gradients: whose backward pass trains the model, "autograd" or "derived".

    Raises:
        ValueError: if a value is out of range, not available, or does not fit another.
        TypeError: if a size is not a whole number, or a rate not a number.
    """

    image_size: Size = 224
    patch_size: Size = 16
    in_channels: int = 3
    num_classes: int = 1000
    dim: int = 192
    depth: int = 12
    heads: int = 3
    mlp_dim: int = 768
    position: Position = "learned"
    pool: Pool = "cls"
    norm_after_pool: bool = False
    norm: Norm = "pre"
    activation: Activation = "gelu"
    head: HeadKind = "linear"
    dropout: float = 0.0
    attention_dropout: float = 0.0
    drop_path: float = 0.0
    patch_dropout: float = 0.0
    layer_norm_eps: float = 1e-6
    qkv_bias: bool = True
    registers: int = 0
    layer_scale: float | None = None
    gradients: Gradients = "autograd"

    def __post_init__(self) -> None:
        for name in _SIZES:
            sides(name, getattr(self, name))
        for name in _COUNTS:
            check_whole(name, getattr(self, name))
        for name in _CHOICES:
            available(name, getattr(self, name))
        for name in _RATES:
            check_rate(name, getattr(self, name))
        _small("layer_norm_eps", self.layer_norm_eps)
        check_whole("registers", self.registers, least=0)
        if self.layer_scale is not None:
            check_layer_scale(self.layer_scale)
        (height, width), (p, q) = self.image_shape, self.patch_shape
        if height % p or width % q:
            raise ValueError(
                f"patch_size={self.patch_size} does not divide image_size={self.image_size}: "
                "choose a patch size that fills the image exactly."
            )
        check_heads(self.dim, self.heads)
        check_position_width(
            self.position, self.head_dim if self.position == "rope2d" else self.dim
        )
        if self.norm_after_pool and self.pool == "cls":
            raise ValueError(
                "norm_after_pool=True contradicts pool='cls': only a mean can be normalised after "
                "pooling. Choose pool='mean', or leave norm_after_pool out."
            )
        if self.norm_after_pool and self.norm == "post":
            raise ValueError(
                "norm_after_pool=True contradicts norm='post': post-norm blocks end in their norm "
                "and there is no further one. Choose norm='pre', or leave norm_after_pool out."
            )

    @property
    def image_shape(self) -> tuple[int, int]:
        """Height and width of an image, in pixels."""
        return sides("image_size", self.image_size)

    @property
    def patch_shape(self) -> tuple[int, int]:
        """Height and width of a patch, in pixels."""
        return sides("patch_size", self.patch_size)

    @property
    def grid(self) -> tuple[int, int]:
        """Patches from top to bottom, and from left to right."""
        (height, width), (p, q) = self.image_shape, self.patch_shape
        return height // p, width // q

    @property
    def head_dim(self) -> int:
        """d, the width of a head."""
        return self.dim // self.heads

    @property
    def num_patches(self) -> int:
        """N."""
        rows, columns = self.grid
        return rows * columns

    @property
    def num_kept_patches(self) -> int:
        """The patches that an image keeps in training, N (1 − ρ), rounded, and at least one."""
        lost = self.num_patches * self.patch_dropout
        return max(1, int(self.num_patches - lost + 0.5))

    @property
    def num_positions(self) -> int:
        """The rows of a position table, one for each patch and one for the class token."""
        return self.num_patches + (self.pool == "cls")

    @property
    def num_prefix_tokens(self) -> int:
        """The class token, if there is one, and the registers."""
        return (self.pool == "cls") + self.registers

    @property
    def num_tokens(self) -> int:
        """T, the patches and what stands in front of them."""
        return self.num_prefix_tokens + self.num_patches

    @property
    def final_norm(self) -> Literal["norm", "fc_norm"] | None:
        """The last layer norm, which is before pooling or after it; None after post-norm blocks."""
        if self.norm == "post":
            return None
        return "fc_norm" if self.norm_after_pool else "norm"

    @property
    def drop_path_rates(self) -> tuple[float, ...]:
        """The rate of each block, from 0 in the first to `drop_path` in the last."""
        steps = max(self.depth - 1, 1)
        return tuple(
            self.drop_path * (i if self.depth > 1 else 1) / steps for i in range(self.depth)
        )

    def to_dict(self) -> dict[str, Any]:
        """The fields by name, as values that JSON can hold."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`, also after a journey through JSON, which knows no tuples.

        Fields that are not given keep their defaults.

        Raises:
            ValueError: if a name is not a field, or a value is refused.
            TypeError: if a size is not a whole number.
        """
        known = {field.name for field in fields(cls)}
        given: dict[str, Any] = {}
        for name, value in values.items():
            if name not in known:
                raise ValueError(f"the configuration has no field {name!r}{_near(name, known)}.")
            given[name] = tuple(value) if name in _SIZES and isinstance(value, list) else value
        return cls(**given)


# name: (dim, depth, heads, mlp_dim, patch sizes)
_FAMILIES = {
    "tiny": (192, 12, 3, 768, (16,)),
    "small": (384, 12, 6, 1536, (8, 16, 32)),
    "base": (768, 12, 12, 3072, (8, 16, 32)),
    "large": (1024, 24, 16, 4096, (14, 16, 32)),
    "huge": (1280, 32, 16, 5120, (14,)),
}

_MODELS = {
    f"vit_{family}_patch{patch}_224": ViTConfig(
        patch_size=patch, dim=dim, depth=depth, heads=heads, mlp_dim=mlp_dim
    )
    for family, (dim, depth, heads, mlp_dim, patches) in _FAMILIES.items()
    for patch in patches
}


def list_models() -> list[str]:
    """The names that `create_model` knows, from the smallest family to the largest."""
    return list(_MODELS)


def named_config(name: str, **options: Any) -> ViTConfig:
    """The configuration of a named model.

    Args:
        name: one of `list_models()`.
        **options: fields that differ from the named model's.

    Raises:
        ValueError: if no model has that name, or an option is unknown or refused.
        TypeError: if a size is not a whole number.
    """
    if name not in _MODELS:
        raise ValueError(
            f"no model is called {name!r}{_near(name, _MODELS)}: list_models() has all names."
        )
    return ViTConfig.from_dict({**_MODELS[name].to_dict(), **options})
