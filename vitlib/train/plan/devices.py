"""What devices can do at most, by their makers' word; this computer's processor, measured.

Rates are dense: where a datasheet counts the zeros of "sparsity", its figure is halved. A gigabyte
is 10⁹ bytes, as in the datasheets. A link's bandwidth is one way; datasheets add both ways.
"""

import io
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from types import MappingProxyType

import numpy as np
import torch
from PIL import Image

from vitlib.config import ViTConfig
from vitlib.train.progress import gemm_rate

_TERA, _GIGA = 1e12, 1e9


@dataclass(frozen=True)
class Device:
    """A device that trains.

    Attributes:
        name: As users name it.
        flops: Floating-point operations a second by precision: "float32", "tf32", "bfloat16",
            "float16".
        memory: Bytes.
        bandwidth: Bytes a second between memory and processor.
        link: Bytes a second, one way, to the other devices of the node; None where there is no
            link but the network.
        measured: Whether flops, memory and bandwidth were measured, on this computer.
    """

    name: str
    flops: Mapping[str, float]
    memory: float
    bandwidth: float
    link: float | None
    measured: bool = False


def _gpu(
    name: str,
    *,
    bfloat16: float,
    tf32: float | None,
    float32: float,
    memory: float,
    bandwidth: float,
    link: float,
) -> Device:
    """A GPU in the units of datasheets: TFLOP/s, GB, GB/s."""
    # float16 is as fast as bfloat16 in all of them
    rates = {"bfloat16": bfloat16, "float16": bfloat16, "tf32": tf32, "float32": float32}
    flops = {precision: rate * _TERA for precision, rate in rates.items() if rate is not None}
    return Device(name, MappingProxyType(flops), memory * _GIGA, bandwidth * _GIGA, link * _GIGA)


_AMPERE = {"bfloat16": 312, "tf32": 156, "float32": 19.5, "link": 300}
_HOPPER = {"bfloat16": 989.5, "tf32": 494.5, "float32": 67, "link": 450}

_GPUS = (
    # NVIDIA A100 datasheet, 2021, SXM: 312, 156 and 19.5 TFLOPS; NVLink 600 GB/s
    _gpu("a100-40", **_AMPERE, memory=40, bandwidth=1555),
    _gpu("a100-80", **_AMPERE, memory=80, bandwidth=2039),
    # NVIDIA H100 datasheet, 2023, SXM: 1,979 and 989 TFLOPS with sparsity, 67; NVLink 900 GB/s
    _gpu("h100", **_HOPPER, memory=80, bandwidth=3350),
    # NVIDIA H200 datasheet, 2024, SXM: the same with other memory
    _gpu("h200", **_HOPPER, memory=141, bandwidth=4800),
    # NVIDIA Ada GPU architecture whitepaper, 2023: 165.2 TFLOPS where sums are in float32, 82.6 and
    # 82.6; no NVLink but PCI Express 4.0 × 16, 64 GB/s
    _gpu("rtx4090", bfloat16=165.2, tf32=82.6, float32=82.6, memory=24, bandwidth=1008, link=32),
    # NVIDIA L4 datasheet, 2023: 242 and 120 TFLOPS with sparsity, 30.3; PCI Express 64 GB/s
    _gpu("l4", bfloat16=121, tf32=60, float32=30.3, memory=24, bandwidth=300, link=32),
    # AMD Instinct MI300X data sheet, 2023: 1,307.4 and 163.4 TFLOPS; 7 Infinity Fabric links, 896
    # GB/s. Its TF32 is left out, since PyTorch does not use it by itself.
    _gpu("mi300x", bfloat16=1307.4, tf32=None, float32=163.4, memory=192, bandwidth=5300, link=448),
)

DEVICES: Mapping[str, Device] = MappingProxyType({device.name: device for device in _GPUS})
"""The devices whose datasheets are known, by name."""

CPU = "cpu"


def find_device(name: str, precision: str = "float32") -> Device:
    """A device by name; "cpu" is this computer's processor, and is measured on the spot.

    Args:
        name: One of `DEVICES`, or "cpu".
        precision: In which products the processor is measured.

    Raises:
        ValueError: No device has that name.
    """
    if name == CPU:
        return this_processor(precision)
    if name not in DEVICES:
        near = get_close_matches(name, [*DEVICES, CPU], n=1)
        meant = f" (did you mean {near[0]!r}?)" if near else ""
        raise ValueError(
            f"no device is called {name!r}{meant}: choose one of {', '.join([*DEVICES, CPU])}."
        )
    return DEVICES[name]


def this_processor(precision: str = "float32") -> Device:
    """This computer's processor, with the threads that PyTorch has: measured in a second or so.

    Args:
        precision: Of the products.
    """
    there, here = torch.ones(2, 2**24)  # larger than caches
    copy = _fastest(lambda: here.copy_(there))
    return Device(
        CPU,
        MappingProxyType({precision: gemm_rate(torch.device("cpu"), getattr(torch, precision))}),
        float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")),
        2 * there.nbytes / copy,  # read and written
        link=None,
        measured=True,
    )


def decoding_rate(config: ViTConfig) -> float:
    """Images a second that one core of this computer decodes and resizes for a model: measured.

    A JPEG of 500 × 375 pixels, the usual size in ImageNet, as `PIL` reads it.
    """
    height, width = config.image_shape
    rows, columns = np.mgrid[:375, :500]
    noise = np.random.default_rng(0).normal(scale=12, size=(375, 500, 3))
    scene = 128 + 80 * np.sin(rows / 23 + columns / 31)[..., None] + noise
    file = io.BytesIO()
    Image.fromarray(scene.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)

    def decode() -> None:
        file.seek(0)
        image = Image.open(file).convert("RGB")
        np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))

    return 1 / _fastest(decode)


def _fastest(run: Callable[[], object], times: int = 5) -> float:
    """Seconds of the fastest of some runs: what else the computer does only adds."""

    def seconds() -> float:
        started = time.perf_counter()
        run()
        return time.perf_counter() - started

    return min(seconds() for _ in range(times))
