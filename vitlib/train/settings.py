"""What is chosen at the start of a run: precision, switches of the device, and why."""

from collections.abc import Generator
from contextlib import contextmanager, nullcontext
from typing import NamedTuple

import torch
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import (
    apply_activation_checkpointing,
)

from vitlib.config import ViTConfig
from vitlib.data.augment import Augment, Warp
from vitlib.nn.block import Block
from vitlib.nn.vit import VisionTransformer
from vitlib.train.heap import can_keep, kept
from vitlib.train.processes import Processes
from vitlib.train.recipe import Engine, Recipe, said


class Choice(NamedTuple):
    """One line at the start of a run: what was chosen, and why."""

    what: str
    chosen: str
    why: str


def working_precision(engine: Engine, device: torch.device) -> torch.dtype:
    """The type of the matrix products."""
    if engine.precision != "auto":
        return getattr(torch, engine.precision)
    if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.bfloat16
    return torch.float32


@contextmanager
def settings(engine: Engine, device: torch.device) -> Generator[None]:
    """Switch PyTorch to what training wants, and back afterwards.

    On a CPU, numbers too small to be normal count as zero: they are slow and teach nothing; and
    memory that is freed is kept for the next step (`vitlib.train.heap`). On an NVIDIA GPU, products
    of float32 may use TF32, unless everything is to be deterministic.
    """
    deterministic = torch.are_deterministic_algorithms_enabled()
    products = torch.get_float32_matmul_precision()
    torch.use_deterministic_algorithms(engine.deterministic or deterministic)
    if device.type == "cuda" and not engine.deterministic:
        torch.set_float32_matmul_precision("high")
    if device.type == "cpu":
        torch.set_flush_denormal(True)
    try:
        with kept() if device.type == "cpu" else nullcontext():
            yield
    finally:
        torch.use_deterministic_algorithms(deterministic)
        torch.set_float32_matmul_precision(products)
        if device.type == "cpu":
            torch.set_flush_denormal(False)


def prepare(model: VisionTransformer, engine: Engine) -> None:
    """Switch on, inside the model, what its steps are to do: recompute, compile.

    Raises:
        ValueError: What is compiled for a CPU is C++, and there is no compiler for that.
    """
    if engine.recompute:
        apply_activation_checkpointing(model, check_fn=lambda module: isinstance(module, Block))
    if engine.compile:
        if model.head.weight.device.type == "cpu":
            find_compiler()
        model.compile()


def find_compiler() -> None:
    """Look for what `torch.compile` needs on a CPU.

    Raises:
        ValueError: There is none.
    """
    from torch._inductor.cpp_builder import get_cpp_compiler  # takes long to import
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler as error:
        raise ValueError(
            "compile needs a C++ compiler on a CPU, and there is none. Install one (Debian: "
            "apt-get install g++), say in CXX where it is, or train without --compile."
        ) from error


def choices(recipe: Recipe, config: ViTConfig, us: Processes) -> list[Choice]:
    """What a run says before it starts: the recipe, and how it is computed."""
    engine, device = recipe.engine, us.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "the processor"
    count = torch.get_num_threads()
    threads = f"{count} thread{'s' * (count != 1)}" if device.type == "cpu" else str(device)
    precision = str(working_precision(engine, device)).removeprefix("torch.")
    changes = said(recipe.augment, but=Augment()), said(recipe.augment.warp, but=Warp())
    lines = [
        Choice("recipe", "", f"{recipe.name}: {said(recipe)}"),
        Choice("model", "", said(config)),
        Choice("augment", "", ", ".join(filter(None, changes)) or "nothing"),
        Choice("device", f"{name}, {threads}", "the fastest that PyTorch finds"),
        Choice(
            "precision",
            precision,
            "as asked"
            if engine.precision != "auto"
            else "many processors are slow in anything narrower"
            if device.type == "cpu"
            else "the narrowest type with the range of float32 that the device has",
        ),
        Choice("gradients", config.gradients, "as the recipe says"),
    ]
    if device.type == "cpu":
        lines.append(Choice("subnormals", "flushed to zero", "they are slow and teach nothing"))
        if can_keep():
            lines.append(Choice("freed memory", "kept", "the next step asks for it again"))
    elif device.type == "cuda":
        tf32 = "off" if engine.deterministic else "on"
        lines.append(Choice("TF32", tf32, "for what stays in float32"))
    if us.count > 1:
        part = f"{us.count} × {recipe.batch_size // us.count} images a step"
        lines.append(Choice("processes", f"{engine.parallel}, {part}", "started by torchrun"))
    if engine.compile:
        lines.append(Choice("compile", "on", "the first step takes minutes"))
    if engine.recompute:
        lines.append(Choice("recompute", "on", "less memory, a third more work"))
    return lines
