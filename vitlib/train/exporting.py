"""The weights of a run for others: from where they are, into a file."""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from vitlib.config import ViTConfig
from vitlib.files import write_atomically
from vitlib.nn.vit import VisionTransformer
from vitlib.train import checkpoint
from vitlib.train.folder import WEIGHTS
from vitlib.weights import load_model, load_weights, read_record, save_weights


def trained_model(source: Path) -> tuple[VisionTransformer, dict[str, Any]]:
    """The model of a run, finished or not, and its record.

    Args:
        source: The folder of a run, whose weights count, or else its newest whole checkpoint; the
            folder of a checkpoint, written by any number of processes; or a file of weights.

    Returns:
        The model in eval mode, on the CPU, with averaged weights if the run averages them; and the
        record, without a result if the run is not finished.

    Raises:
        FileNotFoundError: There is nothing there.
        ValueError: It is damaged, or no run.
    """
    if not source.exists():
        raise FileNotFoundError(
            f"{source}: there is no such file or folder. Give a run, a checkpoint or weights."
        )
    weights = source / WEIGHTS if source.is_dir() else source
    if weights.exists():
        return load_model(weights), read_record(weights)
    found = checkpoint.opened(source)
    if found is None:
        found, complaints = checkpoint.latest(source)
        if found is None:
            why = f" ({complaints[0]})" if complaints else ""
            raise ValueError(
                f"{source}: holds neither weights nor a whole checkpoint{why}. Give the folder of "
                "a run."
            )
    return _of_checkpoint(found)


def _of_checkpoint(found: checkpoint.Checkpoint) -> tuple[VisionTransformer, dict[str, Any]]:
    model = VisionTransformer(ViTConfig.from_dict(found.manifest["config"]))
    kind = "ema" if found.manifest["record"]["recipe"]["ema"] else "model"
    weights = {name: torch.empty_like(tensor) for name, tensor in model.state_dict().items()}
    found.load({f"{kind}.{name}": tensor for name, tensor in weights.items()})
    load_weights(model, weights)
    return model.eval(), found.manifest["record"]


def export(model: VisionTransformer, path: Path, record: Mapping[str, Any]) -> None:
    """Write a model to a file, whole or not at all.

    Args:
        model: In eval mode.
        path: NAME.safetensors for weights, configuration and record; NAME.pt2 for a program of
            `torch.export`, from any number of images (B, C, height, width), normalised, to logits,
            with the record's "data" in the extra file data.json.
        record: Of the run.

    Raises:
        ValueError: The name ends in something else.
        OSError: The file cannot be written.
    """
    if path.suffix == ".safetensors":
        save_weights(model, path, record)
    elif path.suffix == ".pt2":
        write_atomically(path, _program(model, record))
    else:
        raise ValueError(f"{path}: expected a name that ends in .safetensors or .pt2.")


def _program(model: VisionTransformer, record: Mapping[str, Any]) -> bytes:
    config = model.config
    images = torch.zeros(2, config.in_channels, *config.image_shape)
    batch = torch.export.Dim("batch")
    plain = VisionTransformer(_without_derivations(config))
    plain.load_state_dict(model.state_dict())
    program = torch.export.export(plain.eval(), (images,), dynamic_shapes=({0: batch},))
    content = io.BytesIO()
    extra = {"data.json": json.dumps(record.get("data", {}))}
    torch.export.save(program, content, extra_files=extra)
    return content.getvalue()


def _without_derivations(config: ViTConfig) -> ViTConfig:
    """The same network; a program that only runs forward has no use for whose gradients it has."""
    return ViTConfig.from_dict({**config.to_dict(), "gradients": "autograd"})
