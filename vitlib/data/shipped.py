"""The data files that come with the package, or one line on why not."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FOLDER = Path(__file__).parent


def shipped(name: str) -> Path:
    """Where a shipped file lies.

    Raises:
        FileNotFoundError: It is missing from the installation.
    """
    path = FOLDER / name
    if not path.is_file():
        raise FileNotFoundError(f"{path}: missing from the installation. Install vitlib again.")
    return path


def shipped_arrays(name: str, **shapes: tuple[int, ...]) -> dict[str, NDArray[np.uint8]]:
    """Arrays of bytes from a shipped npz file.

    Args:
        name: The file's name.
        shapes: The arrays to read, and the shape that each must have.

    Raises:
        FileNotFoundError: The file is missing from the installation.
        ValueError: The file is damaged or holds something else.
    """
    path = shipped(name)
    try:
        with np.load(path) as stored:
            arrays = {key: stored[key] for key in shapes}
    except Exception as error:  # a damaged archive makes zipfile, zlib and NumPy raise many kinds
        raise ValueError(
            f"{path}: damaged, or no npz file of {', '.join(shapes)}. Install vitlib again."
        ) from error
    for key, shape in shapes.items():
        array = arrays[key]
        if array.shape != shape or array.dtype != np.uint8:
            raise ValueError(
                f"{path}: {key} is {array.dtype} {array.shape}, expected uint8 {shape}. "
                "Install vitlib again."
            )
    return arrays
