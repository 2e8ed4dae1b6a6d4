"""Asked to stop, a run finishes its step, saves, and says how to go on.

A GPU has some steps waiting, up to ten; it finishes those.
"""

import signal
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType


class Interrupted(Exception):  # noqa: N818, since nothing has gone wrong
    """A run was asked to stop and has saved where it was."""


class Stop:
    """Whether somebody has asked: with SIGINT (Ctrl-C) or SIGTERM (what schedulers send)."""

    asked = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """What the system calls when a signal comes; a second Ctrl-C ends the process at once."""
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = True


@contextmanager
def listening() -> Generator[Stop]:
    """Listen for requests to stop, for as long as the block runs.

    Only a process's main thread may set such handlers; elsewhere nothing is listened for.
    """
    stop, before = Stop(), {}
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, stop)
    except ValueError:  # not the main thread
        pass
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
