"""The IDX format of MNIST and its kin, compressed with gzip, read without trust.

A file starts with two zero bytes, a byte for the type of the values (8 for unsigned bytes) and one
for the number of dimensions; then the length of each dimension follows as a big-endian 32-bit
number, then the values, the last dimension fastest.
"""

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_UNSIGNED_BYTES = 8


def read_idx(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Read a gzipped IDX file of unsigned bytes.

    No more is unpacked than a file of this shape holds, whatever the file claims.

    Args:
        path: The file.
        shape: The lengths of the dimensions that the file must have.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is no gzip file, is truncated or damaged, or holds something else.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file. Expected a gzipped IDX file.")
    header = struct.pack(f">4B{len(shape)}I", 0, 0, _UNSIGNED_BYTES, len(shape), *shape)
    size = len(header) + math.prod(shape)
    try:
        with gzip.open(path) as file:
            content = file.read(size + 1)  # one too many: the end and its checksum are reached
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(
            f"{path}: not a whole gzip file ({_reason(error)}). Copy or download it again."
        ) from error
    if content[:4] != header[:4]:
        raise ValueError(
            f"{path}: starts with the bytes {content[:4].hex() or 'of nothing'}, expected "
            f"{header[:4].hex()}, the mark of an IDX file of unsigned bytes in {len(shape)} "
            "dimensions. Give the right file."
        )
    if content[: len(header)] != header:
        claimed = struct.unpack_from(f">{len(shape)}I", content.ljust(len(header), b"\0"), 4)
        raise ValueError(
            f"{path}: holds the shape {claimed}, expected {shape}. Give the right file."
        )
    if len(content) != size:
        found = f"more than {size:,}" if len(content) > size else f"{len(content):,}"
        raise ValueError(
            f"{path}: unpacks to {found} bytes, expected {size:,}. Copy or download it again."
        )
    return np.frombuffer(content, np.uint8, offset=len(header)).reshape(shape)


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")
