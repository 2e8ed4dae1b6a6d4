"""Weights in files: one safetensors file holds weights, configuration and record of a model.

The tensors are the state dict, under timm's names. The file's metadata, which the format keeps as
strings, holds `config` and `record` as JSON. Reading such a file runs no code, unlike unpickling.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from vitlib.config import ViTConfig
from vitlib.files import write_atomically
from vitlib.nn.resize import resize_forward
from vitlib.nn.vit import VisionTransformer

# What compiling, data parallelism, sharding and checkpointing put into the names of parameters.
_WRAPPERS = {"_orig_mod", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}


@dataclass(frozen=True)
class WeightsReport:
    """What `load_weights` did.

    Attributes:
        source: The file, or "state dict".
        loaded: The names of the parameters that were set, in the model's order.
        resized: Of these, the ones that came from another grid of patches.
        dropped: What the source had and was not used, by rule.
    """

    source: str
    loaded: tuple[str, ...]
    resized: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()


def save_weights(
    model: nn.Module, path: str | PathLike[str], record: Mapping[str, Any] | None = None
) -> None:
    """Write a model to one safetensors file, whole or not at all.

    Args:
        model: A `VisionTransformer`, compiled or wrapped or as it is; the names in the file are
            always the plain ones.
        path: The file; replaced if it exists.
        record: How the weights came about, as values that JSON can hold: the recipe, the data and
            the result of a training run. `read_record` gives it back.

    Raises:
        TypeError: There is no `VisionTransformer` in `model`, or `record` is not for JSON.
        OSError: The file cannot be written. A file of that name stays as it was.
    """
    config = _unwrap(model).config
    tensors = {
        plain_name(name): tensor.detach().cpu().contiguous()
        for name, tensor in model.state_dict().items()
    }
    metadata = {
        "format": "pt",
        "config": json.dumps(config.to_dict()),
        "record": json.dumps(dict(record or {})),
    }
    write_atomically(Path(path), safetensors.torch.save(tensors, metadata))


def load_model(path: str | PathLike[str]) -> VisionTransformer:
    """The model that `save_weights` wrote, in eval mode, on the CPU.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is damaged or not one that `save_weights` wrote.
    """
    tensors, metadata = _read(Path(path))
    if "config" not in metadata:
        raise ValueError(
            f"{path}: weights without a vitlib configuration. Make the model yourself and give it "
            "these weights with load_weights(model, path)."
        )
    config = _config(metadata["config"], path)
    with torch.random.fork_rng(devices=[]):  # initial values are drawn only to be replaced
        model = VisionTransformer(config)
    _set_weights(model, tensors, str(path))
    return model.eval()


def load_weights(
    model: nn.Module,
    source: str | PathLike[str] | Mapping[str, Tensor],
    *,
    new_head: bool = False,
) -> WeightsReport:
    """Give a model other weights: all of them, or none.

    A table of positions that was learned on another grid of patches is read off on the model's
    (`vitlib.nn.resize`). The other grid stands in a file that `save_weights` wrote; that of a state
    dict is taken to be square.

    Args:
        model: A `VisionTransformer`, compiled or wrapped or as it is.
        source: A safetensors file, or a state dict. Names are timm's, which are ours.
        new_head: Leave the model's head as it is, for classes other than the source's.

    Returns:
        Which weights were set, and what was read off on another grid or left out.

    Raises:
        FileNotFoundError: There is no such file.
        TypeError: There is no `VisionTransformer` in `model`, or `source` is neither path nor dict.
        ValueError: The file is damaged; or a weight is missing, left over, of the wrong shape, not
            of floating point or not finite. The model stays as it was.
    """
    model = _unwrap(model)
    if isinstance(source, Mapping):
        return _set_weights(model, source, "state dict", new_head=new_head)
    tensors, metadata = _read(Path(source))
    grid = _config(metadata["config"], source).grid if "config" in metadata else None
    return _set_weights(model, tensors, str(source), grid, new_head=new_head)


def read_record(path: str | PathLike[str]) -> dict[str, Any]:
    """The record that was saved with the weights; empty if there was none.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is damaged or not a safetensors file.
    """
    _, metadata = _read(Path(path))
    return json.loads(metadata.get("record", "{}"))


def read_config(path: str | PathLike[str]) -> ViTConfig | None:
    """The configuration that was saved with the weights; None in a file of another library.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is damaged or not a safetensors file.
    """
    _, metadata = _read(Path(path))
    return _config(metadata["config"], path) if "config" in metadata else None


def _set_weights(
    model: VisionTransformer,
    tensors: Mapping[str, Tensor],
    source: str,
    grid: tuple[int, int] | None = None,
    *,
    new_head: bool = False,
) -> WeightsReport:
    given = {plain_name(name): tensor for name, tensor in tensors.items()}
    own = model.state_dict()
    dropped: tuple[str, ...] = ()
    if new_head:
        dropped = tuple(sorted(name for name in given if name.startswith("head.")))
        given = {name: tensor for name, tensor in given.items() if name not in dropped}
        own = {name: tensor for name, tensor in own.items() if not name.startswith("head.")}
    given, resized = _on_the_models_grid(given, own, model.config, grid)
    faults = [
        _count("missing", own.keys() - given.keys()),
        _count("left over", given.keys() - own.keys()),
        *(
            f"{name} is {tuple(given[name].shape)} where the model has {tuple(tensor.shape)}"
            for name, tensor in own.items()
            if name in given and given[name].shape != tensor.shape
        ),
        _count(
            "not finite floating-point numbers",
            {n for n, t in given.items() if not (t.is_floating_point() and t.isfinite().all())},
        ),
    ]
    faults = [fault for fault in faults if fault]
    if faults:
        raise ValueError(
            f"{source}: the weights do not fit the model: {'; '.join(faults[:3])}"
            f"{' …' if len(faults) > 3 else ''}. Expected the {len(own)} tensors of its state "
            "dict; make the model with the configuration that the weights were trained with"
            f"{'' if new_head else ', or set new_head=True if only the classes differ'}."
        )
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(given[name])
    return WeightsReport(source, tuple(own), resized, dropped)


def _on_the_models_grid(
    given: Mapping[str, Tensor],
    own: Mapping[str, Tensor],
    config: ViTConfig,
    grid: tuple[int, int] | None,
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The weights with their positions on the model's grid, and the names of what changed.

    Nothing changes where the grids agree, or where the table cannot be one of positions; what is
    then wrong with it, the comparison of shapes will say.
    """
    name, prefix = "pos_embed", config.num_positions - config.num_patches
    table = given.get(name)
    if table is None or name not in own or table.ndim != 3 or not table.is_floating_point():
        return dict(given), ()
    side = math.isqrt(max(table.shape[1] - prefix, 0))
    rows, columns = grid or (side, side)
    if table.shape[1] != prefix + rows * columns or (rows, columns) in ((0, 0), config.grid):
        return dict(given), ()
    resized, _ = resize_forward(table.to(own[name].dtype), (rows, columns), config.grid)
    return {**given, name: resized}, (name,)


def _count(what: str, names: set[str]) -> str:
    first = ", ".join(sorted(names)[:3])
    return f"{len(names)} {what} ({first}{' …' if len(names) > 3 else ''})" if names else ""


def _config(text: str, path: str | PathLike[str]) -> ViTConfig:
    """The configuration in a file's metadata."""
    try:
        return ViTConfig.from_dict(json.loads(text))
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"{path}: its configuration is not one of this version of vitlib ({error}). Load it "
            "with the version that wrote it."
        ) from error


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    if not path.exists():
        raise FileNotFoundError(f"{path}: there is no such file. Give the path of saved weights.")
    if not path.is_file():
        raise ValueError(f"{path}: not a file. Give the path of saved weights (.safetensors).")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return tensors, file.metadata() or {}
    except (safetensors.SafetensorError, OSError) as error:
        raise ValueError(
            f"{path}: not a whole safetensors file ({error}). Expected one that "
            "vitlib.save_weights wrote; copy it again or train again."
        ) from error


def _unwrap(model: nn.Module) -> VisionTransformer:
    while not isinstance(model, VisionTransformer):
        inner = [child for name, child in model.named_children() if name in _WRAPPERS]
        if not inner:
            raise TypeError(f"{type(model).__name__} holds no VisionTransformer: expected one.")
        model = inner[0]
    return model


def plain_name(name: str) -> str:
    """The name of a parameter without what compiling, sharding and the like put into it."""
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)
