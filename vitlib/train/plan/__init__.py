"""What a run will cost, before anybody pays for it: `plan(config, …)` computes it.

Memory, operations and bytes on the wire follow from the configuration; tests hold them against what
PyTorch allocates, computes and sends on this processor. Times follow from a device's datasheet, or
for "cpu" from what this computer's processor was just seen to do: they say which limit binds, and
about how long a step takes if nothing else gets in the way. Not counted: a data set that lies on
the device as a whole (digits, Fashion-MNIST, CIFAR-10: at most 740 MB).
"""

from math import inf, isfinite
from typing import get_args

from vitlib.config import ViTConfig, check_whole
from vitlib.summary import summary
from vitlib.train.optimiser import OptimiserName
from vitlib.train.plan.costs import Times, Wire, Work, times, wire, work
from vitlib.train.plan.devices import CPU, DEVICES, Device, decoding_rate, find_device
from vitlib.train.plan.memory import Memory, largest_batch, memory
from vitlib.train.plan.report import MARK, Plan
from vitlib.train.plan.setup import Setup
from vitlib.train.processes import Parallel
from vitlib.train.recipe import Precision

__all__ = [
    "DEVICES",
    "MARK",
    "Device",
    "Memory",
    "Plan",
    "Setup",
    "Times",
    "Wire",
    "Work",
    "decoding_rate",
    "find_device",
    "plan",
]

_SHARE, _SHARE_MEASURED = 0.5, 0.9
_LEAST, _MANY = 1e-6, 10**12


def plan(
    config: ViTConfig,
    *,
    batch_size: int,
    epochs: int,
    train_count: int,
    accumulate: int = 1,
    optimiser: OptimiserName = "adamw",
    ema: float = 0.0,
    precision: Precision = "auto",
    deterministic: bool = False,
    parallel: Parallel = "ddp",
    recompute: bool = False,
    workers: int = 0,
    decoding: float = 0.0,
    devices: int = 1,
    device: str | Device = "h100",
    nodes: int = 1,
    network: float = 100.0,
    share: float | None = None,
) -> Plan:
    """What a run costs each process: memory, operations, bytes on the wire, time.

    Args:
        config: Of the model.
        batch_size: Images in each step, over all processes and parts together.
        epochs: Passes over the training images.
        train_count: Training images.
        accumulate: Parts that each process works through one after the other.
        optimiser: "adamw", or "muon" for the matrices of the blocks and AdamW for the rest.
        ema: Decay of the weights' moving average; 0 for none.
        precision: Of the matrix products. "auto": bfloat16, but float32 on a processor. "float32"
            products use TF32 where a GPU has it, unless the run is deterministic.
        deterministic: Whether TF32 is refused.
        parallel: "ddp" or "fsdp", for more than one device.
        recompute: Whether blocks are computed again for the backward pass.
        workers: Processes that decode images, for each process that trains.
        decoding: Images a second that one of them decodes (`decoding_rate`); 0 where the images are
            in memory.
        devices: How many, one for each process.
        device: One of `DEVICES`, "cpu" for this computer's processor, or a device of one's own.
        nodes: Computers that the devices are in, equally many in each.
        network: Gbit/s of each node, one way.
        share: Attainable part of the peak rate of matrix products, an assumption. By default 0.5
            of a datasheet's rate and 0.9 of a measured one.

    Raises:
        ValueError: A name is unknown, a number is out of range, or the batch cannot be shared.
        TypeError: A number is not of its kind.
    """
    counts = {
        "batch_size": batch_size, "epochs": epochs, "train_count": train_count,
        "accumulate": accumulate, "devices": devices, "nodes": nodes,
    }  # fmt: skip
    for name, value in counts.items():
        check_whole(name, value, most=_MANY)
    check_whole("workers", workers, least=0)
    _check_choice("optimiser", optimiser, get_args(OptimiserName))
    _check_choice("parallel", parallel, get_args(Parallel))
    _check_choice("precision", precision, get_args(Precision))
    _check_number("ema", ema, 0, 1, "a decay from 0 to below 1")
    _check_number("decoding", decoding, 0, inf, "images a second, 0 or more")
    _check_number("network", network, _LEAST, inf, "Gbit/s, above 0")
    if share is not None:
        _check_number("share", share, _LEAST, 1, "a part of the peak rate, above 0, to 1")
    _check_fit(batch_size, train_count, accumulate, devices, nodes)
    found, products = _resolve(device, precision, deterministic)
    if share is None:
        share = _SHARE_MEASURED if found.measured else _SHARE
    setup = Setup(
        config=config,
        device=found,
        batch_size=batch_size,
        epochs=epochs,
        train_count=train_count,
        accumulate=accumulate,
        optimiser=optimiser,
        ema=ema,
        precision=products,
        parallel=parallel,
        recompute=recompute,
        workers=workers,
        decoding=decoding,
        devices=devices,
        nodes=nodes,
        network=network,
        share=share,
    )
    return Plan(
        setup,
        summary(config).parameters,
        memory(setup, setup.images),
        largest_batch(setup),
        work(setup),
        wire(setup),
        times(setup),
    )


def _resolve(device: str | Device, precision: Precision, deterministic: bool) -> tuple[Device, str]:
    """The device, and the precision of its matrix products."""
    name = device if isinstance(device, str) else device.name
    wanted: str = precision
    if precision == "auto":
        wanted = "float32" if name == CPU else "bfloat16"
    found = find_device(device, wanted) if isinstance(device, str) else device
    if wanted == "float32" and "tf32" in found.flops and not deterministic:
        wanted = "tf32"
    if wanted not in found.flops:
        raise ValueError(
            f"the rate of {name} in {wanted} is not known: choose {' or '.join(found.flops)}."
        )
    return found, wanted


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        known = " or ".join(repr(choice) for choice in choices)
        raise ValueError(f"{name}={value!r} is not available: choose {known}.")


def _check_number(name: str, value: object, least: float, most: float, expected: str) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"{name}={value!r}: expected {expected}.")
    if not least <= value <= most or not isfinite(value):
        raise ValueError(f"{name}={value:g}: expected {expected}.")


def _check_fit(
    batch_size: int, train_count: int, accumulate: int, devices: int, nodes: int
) -> None:
    if devices % nodes:
        raise ValueError(
            f"devices={devices} cannot be shared among nodes={nodes}: expected a multiple of nodes."
        )
    if batch_size % (devices * accumulate):
        raise ValueError(
            f"batch_size={batch_size} cannot be shared among devices={devices} with "
            f"accumulate={accumulate} parts each: choose a multiple of {devices * accumulate}."
        )
    if batch_size > train_count:
        raise ValueError(
            f"batch_size={batch_size} is more than the {train_count} training images: choose a "
            "smaller batch."
        )
