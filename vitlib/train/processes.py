"""The processes that train one model together: one on its own, or those that `torchrun` started.

`torchrun` tells each process through the environment who it is (RANK, LOCAL_RANK, WORLD_SIZE) and
where the others are. A process without these works alone, by the same code: a sum over one process
is the number itself.
"""

import os
import warnings
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.nn.parallel import DistributedDataParallel

from vitlib.nn.vit import VisionTransformer

Parallel = Literal["ddp", "fsdp"]

_PATIENCE = timedelta(minutes=10)  # how long a process waits for another before it gives up


@dataclass(frozen=True)
class Processes:
    """Who this process is among how many, and the device that it works on.

    Attributes:
        rank: From 0; process 0 writes the files and speaks.
        count: How many there are.
        device: Of this process.
    """

    rank: int
    count: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    @property
    def restarted(self) -> bool:
        """Whether `torchrun` has started the processes again, after one had died."""
        return os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"

    def sum(self, numbers: Tensor) -> Tensor:
        """The sum over all processes, in every one of them."""
        if self.count > 1:
            dist.all_reduce(numbers)
        return numbers

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """For each flag, whether it is so in some process; the answer is the same in all."""
        if self.count == 1:
            return flags
        return tuple(number > 0 for number in self.sum(self._tensor(flags)).tolist())

    def first_says(self, number: int) -> int:
        """The number of process 0, in every one of them."""
        if self.count == 1:
            return number
        said = self._tensor([number if self.first else 0]).long()
        return int(self.sum(said))

    def once(self, action: Callable[[], None]) -> None:
        """Let process 0 do something; if it fails there, no process goes on.

        Raises:
            ValueError, OSError: What process 0 met; in the others, that it met something.
        """
        failure: ValueError | OSError | None = None
        if self.first:
            try:
                action()
            except (ValueError, OSError) as error:
                failure = error
        self.fail_together(failure)

    def fail_together(self, failure: ValueError | OSError | None) -> None:
        """Raise what this process has met; if only another has met something, say so."""
        (anybody,) = self.any(failure is not None)
        if failure is not None:
            raise failure
        if anybody:
            raise ValueError("another process cannot go on; it says why.")

    def gather(self, numbers: Tensor) -> Tensor:
        """Tensors of one shape from all processes, one after the other along the first axis."""
        if self.count == 1:
            return numbers
        parts = [torch.empty_like(numbers) for _ in range(self.count)]
        dist.all_gather(parts, numbers.contiguous())
        return torch.cat(parts)

    def share(self, found: dict[str, str]) -> None:
        """Add to what this process has found what the others have, who do the same."""
        if self.count > 1:
            parts: list[dict[str, str] | None] = [None] * self.count
            dist.all_gather_object(parts, found)
            for part in parts:
                found.update(part or {})

    def _tensor(self, numbers: Sequence[float]) -> Tensor:
        return torch.tensor(numbers, dtype=torch.float64, device=self.device)

    def wait(self) -> None:
        """Go on when all have come here."""
        if self.count > 1:
            dist.barrier()


@contextmanager
def processes() -> Generator[Processes]:
    """Join the other processes, if there are any, for as long as the block runs.

    Raises:
        ConnectionError: Another process has ended or cannot be reached.
        ValueError: There are more processes than devices.
    """
    accelerator = torch.accelerator.current_accelerator()
    count = int(os.environ.get("WORLD_SIZE", "1"))
    device = torch.device("cpu")
    if accelerator is not None:
        device = torch.device(accelerator.type, int(os.environ.get("LOCAL_RANK", "0")))
        there = torch.accelerator.device_count()
        if device.index >= there:
            raise ValueError(
                f"process {device.index} of this computer has no device of its own: there are "
                f"{there}, counted from 0. Start as many processes (--nproc-per-node {there})."
            )
        torch.accelerator.set_device_index(device.index)
    if count == 1:
        yield Processes(0, 1, device)
        return
    if dist.is_initialized():  # by the caller, who will end it, too
        yield Processes(dist.get_rank(), dist.get_world_size(), device)
        return
    backend = "cpu:gloo" if device.type == "cpu" else f"cpu:gloo,{device.type}:nccl"
    try:
        dist.init_process_group(backend, timeout=_PATIENCE)
        yield Processes(dist.get_rank(), count, device)
    except RuntimeError as error:
        if not _is_lost_connection(error):
            raise
        raise ConnectionError(
            f"another of the {count} processes has ended or cannot be reached "
            f"({' '.join(str(error).split())[:120]}). See what it said; the same command goes on "
            "from the last checkpoint (without --overwrite)."
        ) from error
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def _is_lost_connection(error: RuntimeError) -> bool:
    """Whether a collective failed because of another process: gloo has no type of its own."""
    words = ("Connection closed by peer", "Connection reset", "Timed out waiting", "Broken pipe")
    return isinstance(error, dist.DistError) or any(word in str(error) for word in words)


def distribute(
    model: VisionTransformer, parallel: Parallel, us: Processes, narrow: torch.dtype | None
) -> nn.Module:
    """The model as the processes train it together.

    "ddp" keeps all of it in each process and averages the gradients while they are computed
    (Li et al. 2020); "fsdp" keeps a part of every weight, gradient and optimiser state in each,
    and gathers the weights of a block when it is their turn (Zhao et al. 2023; `fully_shard`).

    Args:
        model: On the processes' device, the same in each.
        parallel: Which of the two; one process alone uses neither.
        us: The processes.
        narrow: With "fsdp", the type of gathered weights and of what the blocks compute; gradients
            are reduced in float32. With "ddp" autocast decides.
    """
    if us.count == 1:
        return model
    if parallel == "ddp":
        ids = None if us.device.type == "cpu" else [us.device]
        with warnings.catch_warnings():
            # the option that is to take the place of broadcast_buffers came with PyTorch 2.13
            warnings.simplefilter("ignore", FutureWarning)
            return DistributedDataParallel(
                model,
                device_ids=ids,
                gradient_as_bucket_view=True,
                broadcast_buffers=False,  # fixed positions are the same everywhere
            )
    wide = torch.float32 if narrow else None
    inner = MixedPrecisionPolicy(param_dtype=narrow, reduce_dtype=wide)
    for block in model.blocks:
        fully_shard(block, mp_policy=inner)
    fully_shard(model, mp_policy=replace(inner, output_dtype=wide))
    return model


@contextmanager
def only_accumulating(model: nn.Module, accumulating: bool) -> Generator[None]:
    """Within the block, gradients are added up in each process and not yet exchanged."""
    if isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(not accumulating)
        yield
    elif isinstance(model, DistributedDataParallel) and accumulating:
        with model.no_sync():
            yield
    else:
        yield
