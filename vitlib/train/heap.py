"""Memory that the C library keeps for the next step, instead of handing it back.

A step of training frees what the next step asks for again. By default the GNU C library hands large
pieces back to the system when they are freed, and the system clears each page before it hands it
out again: an eighth of a step's time for a small ViT. Here it is told to keep them.
"""

import ctypes
from collections.abc import Generator
from contextlib import contextmanager

# mallopt(3), malloc.h: what a parameter is called there
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
_KEEP = {_TRIM_THRESHOLD: 2**31 - 1, _TOP_PAD: 64 * 2**20, _MMAP_MAX: 0}
_DEFAULT = {_TRIM_THRESHOLD: 128 * 2**10, _TOP_PAD: 128 * 2**10, _MMAP_MAX: 65_536}


def can_keep() -> bool:
    """Whether this process' C library can be told so: the GNU library can."""
    try:
        return hasattr(ctypes.CDLL(None), "mallopt")
    except (OSError, TypeError):  # TypeError: Windows has no library of the whole process
        return False


@contextmanager
def kept() -> Generator[None]:
    """Keep freed memory until the end; then hand back what is free. Without effect elsewhere."""
    if not can_keep():
        yield
        return
    library = ctypes.CDLL(None)
    for parameter, value in _KEEP.items():
        library.mallopt(parameter, value)
    try:
        yield
    finally:
        for parameter, value in _DEFAULT.items():
            library.mallopt(parameter, value)
        library.malloc_trim(0)
