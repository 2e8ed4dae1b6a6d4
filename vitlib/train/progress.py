"""What a run shows while it goes: where it is, how well it does, how fast, and for how long yet.

**Model FLOPs** are what the mathematics of a step asks for, however it is computed: two for each
multiply–add of the forward pass (`vitlib.summary`), and twice as many again for the backward pass,
where each matrix product has two of its size, but for the first, since nobody asks for the gradient
of the images. What is computed again to save memory does not count.

**Utilisation** is the model FLOPs a second over those that the devices reach in one large matrix
product of the working precision (`gemm_rate`). It is not the share of a data sheet's peak (the MFU
of Chowdhery et al. 2022, "PaLM", appendix B), which no product reaches and a CPU does not state.

**Memory** is the peak, since the process began, of what PyTorch has allocated on the device, or, on
a CPU, of what the process holds in memory. Processes that decode images are not in it.
"""

import math
import sys
import textwrap
import time
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Self

import torch
from tqdm import tqdm

from vitlib.config import ViTConfig
from vitlib.summary import summary

_LINE = 88  # columns of the lines at the start
_SECONDS = 0.2  # for measuring a device, unless one product takes longer


@dataclass(frozen=True)
class Speed:
    """How fast a run was over some steps.

    Attributes:
        images_per_second: Of all processes together.
        utilisation: Model FLOPs a second over the devices' rate (see the module's text).
        memory: Bytes; None where the system does not say.
    """

    images_per_second: float
    utilisation: float
    memory: int | None


class Progress:
    """A bar on stderr, and the clock of the steps behind it.

    Where stderr is no terminal but a file, the bar is written once a minute.

    Args:
        steps: Of the whole run.
        done: Steps that an earlier part of the run has done.
        steps_per_epoch: To say which epoch it is.
        batch_size: Images of a step, over all processes.
        flops: Model FLOPs of training on one image (`training_flops`).
        rate: FLOPs a second of all devices together (`gemm_rate` times their number).
        device: Whose memory is shown.
        show: Whether there is a bar; the clock runs without it, too.
    """

    def __init__(
        self,
        *,
        steps: int,
        done: int = 0,
        steps_per_epoch: int,
        batch_size: int,
        flops: int,
        rate: float,
        device: torch.device,
        show: bool = True,
    ) -> None:
        self._epochs, self._steps_per_epoch = steps // steps_per_epoch, steps_per_epoch
        self._batch_size, self._flops, self._rate = batch_size, flops, rate
        self._device = device
        self._done = self._since = done
        self._bar = tqdm(
            total=steps,
            initial=done,
            unit="step",
            disable=not show,
            dynamic_ncols=True,
            smoothing=0,  # time left at the mean speed so far, tests of the model included
            mininterval=0.1 if sys.stderr.isatty() else 60,
            miniters=1,
            bar_format="{desc}{percentage:3.0f}% |{bar}| {remaining} left{postfix}",
        )
        self._name_epoch()
        self._started = time.perf_counter()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def step(self) -> None:
        """One more step is done."""
        self._done += 1
        self._name_epoch()
        self._bar.update()

    def measured(self, loss: float, accuracy: float) -> Speed:
        """Show how well the last steps went, and say how fast they were; the next ones begin.

        Call it when their results are known, so that what the device still had to do is done.

        Args:
            loss: Of the steps since the last call, in nats.
            accuracy: Of the same, as a part of 1.

        Raises:
            ValueError: No step was done since the last call.
        """
        if self._done == self._since:
            raise ValueError("no step was done since the speed was last measured: do one first.")
        images = (self._done - self._since) * self._batch_size
        per_second = images / max(time.perf_counter() - self._started, 1e-9)
        speed = Speed(per_second, per_second * self._flops / self._rate, peak_memory(self._device))
        words = _words(loss, accuracy, speed, per_second * self._flops)
        self._bar.set_postfix_str(words, refresh=False)
        self._since, self._started = self._done, time.perf_counter()
        return speed

    @contextmanager
    def pause(self) -> Generator[None]:
        """What is done inside, such as testing or saving, does not count as time of the steps."""
        before = time.perf_counter()
        try:
            yield
        finally:
            self._started += time.perf_counter() - before

    def write(self, text: str) -> None:
        """Put a line above the bar, on stderr."""
        if not self._bar.disable:
            tqdm.write(text, file=sys.stderr)

    def close(self) -> None:
        """Leave the bar as it is."""
        self._bar.close()

    def _name_epoch(self) -> None:
        epoch = min(self._done // self._steps_per_epoch + 1, self._epochs)
        self._bar.set_description_str(f"epoch {epoch}/{self._epochs} ", refresh=False)


def _words(loss: float, accuracy: float, speed: Speed, flops: float) -> str:
    words = [
        f"loss {loss:.3f}",
        f"accuracy {accuracy:.1%}",
        f"{speed.images_per_second:,.{0 if speed.images_per_second >= 100 else 1}f} images/s",
        f"{_scaled(flops)}FLOP/s",
        f"utilisation {speed.utilisation:.0%}",
    ]
    if speed.memory is not None:
        words.append(f"{_scaled(speed.memory)}B")
    return ", ".join(words)


def _scaled(number: float) -> str:
    """A number in the largest unit from a million up of which there is one."""
    power = min(max(int(math.log10(max(number, 1))) // 3, 2), 5)
    shown = number / 1000**power
    return f"{shown:,.{0 if power == 2 or shown >= 100 else 1}f} {' kMGTP'[power]}"


def opening_lines(choices: Iterable[Sequence[str]]) -> str:
    """What was chosen at the start of a run, and why, for people.

    Args:
        choices: What, which and why of each, such as ("precision", "bfloat16", "the device has
            it"). Where there was nothing to choose, which is empty, and why a text of its own.

    Returns:
        Aligned lines, as wide as a terminal at most, without a line end behind the last.
    """
    table = [tuple(choice) for choice in choices]
    first, second = (max((len(row[i]) for row in table), default=0) for i in (0, 1))
    lines: list[str] = []
    for what, chosen, why in table:
        head = f"{what:{first}}  " + (f"{chosen:{second}}  " if chosen else "")
        room = max(_LINE - len(head), 24)
        reason = textwrap.wrap(why, room) or [""]
        lines.append((head + reason[0]).rstrip())
        lines += [" " * len(head) + more for more in reason[1:]]
    return "\n".join(lines)


def training_flops(config: ViTConfig) -> int:
    """Model FLOPs of a step of training, for one image (see the module's text)."""
    (height, width), kept = config.patch_shape, config.num_kept_patches
    embedding, *_ = summary(config).layers
    # behind the embedding go on the patches that stay, as if the image held no others
    shorter = replace(config, image_size=(height, width * kept), patch_dropout=0.0)
    _, *others = summary(shorter, whole=False).layers
    return 4 * embedding.multiply_adds + 6 * sum(layer.multiply_adds for layer in others)


def gemm_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOPs a second that a device reaches in a large matrix product, measured in about 0.2 s.

    Square matrices of normal numbers grow until a product takes 40 ms, to 8,192 rows at most; the
    fastest of some products counts, since other work on the machine can only slow them down. No
    random generator but its own is used, and the device's memory is given back.

    Args:
        device: To measure.
        dtype: Of the factors; float32 counts as the device is set to compute it (TF32 or not).
    """
    # All alike, or zero, the numbers would cost a GPU less energy and be multiplied faster.
    generator = torch.Generator(device).manual_seed(0)
    deadline = time.perf_counter() + _SECONDS
    size = 512
    while True:
        square = torch.randn(size, size, generator=generator, device=device).to(dtype)
        # the first of a size also loads and chooses kernels
        seconds = min(_time_of_product(square), _time_of_product(square))
        if seconds >= 0.04 or size == 8192:
            break
        size *= 2
    while time.perf_counter() + seconds < deadline:
        seconds = min(seconds, _time_of_product(square))
    del square
    if device.type != "cpu":
        torch.get_device_module(device).empty_cache()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    return 2 * size**3 / seconds


@torch.inference_mode()
def _time_of_product(square: torch.Tensor) -> float:
    _wait(square.device)
    started = time.perf_counter()
    torch.mm(square, square)
    _wait(square.device)
    return time.perf_counter() - started


def _wait(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def peak_memory(device: torch.device) -> int | None:
    """Bytes in use at the peak (see the module's text); None where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in kibibytes
