"""Files that are there as a whole, or not at all."""

import os
from pathlib import Path


def write_atomically(path: Path, content: bytes) -> None:
    """All of `content` at `path`, or an OSError and no trace.

    The file grows beside its destination, reaches the disk, and only then takes its name, which
    is one indivisible step within a folder.

    Args:
        path: The file; replaced if it exists.
        content: What it is to hold.

    Raises:
        OSError: The file cannot be written. A file of that name stays as it was.
    """
    growing = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with growing.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        growing.replace(path)
    finally:
        growing.unlink(missing_ok=True)
