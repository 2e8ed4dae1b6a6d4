"""The experiments behind what the book says: commands whose results are stored.

`vitlib study NAME` makes the runs again. Those that are shipped in `vitlib/data` were made so.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType

from vitlib.study import data_hunger, engine, fashion_mnist, optimisers, patch_dropout, seeds
from vitlib.train.recipes import Digits, FashionMNIST

STUDIES: Mapping[str, Callable[[Path], None]] = MappingProxyType(
    {
        "data_hunger": data_hunger.main,
        "digits_accuracy": partial(
            seeds.main, study="digits_accuracy", recipe=Digits(), seeds=range(10)
        ),
        "engine": engine.main,
        "fashion_mnist_accuracy": partial(
            seeds.main, study="fashion_mnist_accuracy", recipe=FashionMNIST(), seeds=range(3)
        ),
        "fashion_mnist_speed": fashion_mnist.main,
        "optimisers": optimisers.main,
        "patch_dropout": patch_dropout.main,
    }
)
"""Each study, which writes its results to a folder."""
