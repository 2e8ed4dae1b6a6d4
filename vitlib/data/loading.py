"""Decoding in processes of their own, ahead of whoever waits for the batches."""

import os
import signal
import threading
import warnings
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from vitlib.data.reader import Read, Reads, collate


def load_batches(
    reader: Dataset[Read], batches: Iterable[list[Any]], *, workers: int, pin: bool
) -> Iterator[Reads]:
    """What a reader reads, batch after batch.

    The workers share the batches among them, and end when the iterator is closed, or its process
    dies. Nothing is drawn from PyTorch's own generator.

    Args:
        reader: Reads one image.
        batches: What to ask it for. Runs in this process, some batches ahead.
        workers: How many processes read; with none, this one does.
        pin: Put batches where a GPU can fetch them by itself.

    Raises:
        ChildProcessError: A worker was killed.
    """
    asking = True  # as long as that has not failed

    def asked() -> Iterator[list[Any]]:
        nonlocal asking
        try:
            yield from batches
        except BaseException:
            asking = False
            raise

    with _handlers_kept(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This DataLoader will create")  # more than cores
        loader = DataLoader(
            reader,
            batch_sampler=asked(),
            num_workers=workers,
            collate_fn=collate,
            pin_memory=pin,
            worker_init_fn=_start_worker,
            generator=torch.Generator(),
        )
        ready = iter(loader)
    while True:
        try:
            batch = next(ready)
        except StopIteration:
            return
        except (RuntimeError, OSError, EOFError) as error:
            # who takes a batch from a worker just when it dies finds a connection closed
            lost = not isinstance(error, RuntimeError) or "DataLoader worker" in str(error)
            if not (asking and lost and workers):
                raise
            raise ChildProcessError(
                f"one of the {workers} processes that read images was killed, perhaps for want of "
                "memory. Choose fewer (--workers), or allow more memory, shared memory (/dev/shm) "
                "too."
            ) from error
        yield batch


@contextmanager
def _handlers_kept() -> Generator[None]:
    """Undo what the block does to the handling of children's ends.

    PyTorch would have a worker's death raise an error wherever its parent is just then. Without
    that it is noticed where the next batch is waited for, within five seconds.
    """
    number = getattr(signal, "SIGCHLD", None)  # Windows has none
    before = None if number is None else signal.getsignal(number)
    try:
        yield
    finally:
        main = threading.current_thread() is threading.main_thread()
        if number is not None and before is not None and main:
            signal.signal(number, before)


def _start_worker(number: int) -> None:
    """Leave it to the main process when to stop.

    Ctrl-C and a scheduler's SIGTERM reach all processes of a job at once. The main one finishes
    its step and saves, for which it may still need a batch.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # Linux
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_obey_main, daemon=True).start()


def _obey_main() -> None:
    """End when the main process says so, whoever else does."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)
