"""The experiments behind what the book says: commands whose results are stored.

`vitlib study NAME` makes the runs again. Those that are shipped in `vitlib/data` were made so.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from vitlib.study import data_hunger, engine, fashion_mnist, optimisers, patch_dropout

STUDIES: Mapping[str, Callable[[Path], None]] = MappingProxyType(
    {
        "data_hunger": data_hunger.main,
        "engine": engine.main,
        "fashion_mnist_accuracy": fashion_mnist.accuracy,
        "fashion_mnist_speed": fashion_mnist.speed,
        "optimisers": optimisers.main,
        "patch_dropout": patch_dropout.main,
    }
)
"""Each study, which writes its results to a folder."""
