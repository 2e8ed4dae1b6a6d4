"""Data sets by name: ``load("digits")`` gives images, labels and how to read them.

Options of a data set are given by name too, as in ``load("shapes", size=64)``; what there is, its
module's `load` says. Two photographs come along, for what is better seen on one large picture.

What a run is trained on has a wider choice of names: ``open_source`` also opens images in files, a
folder's, Hugging Face's or those of shards, which are read when they are needed.
"""

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from vitlib.data import cifar10, digits, fashion_mnist, fashion_mnist_small, shapes
from vitlib.data.collection import Collection
from vitlib.data.dataset import Dataset, Normalisation
from vitlib.data.folder import open_folder
from vitlib.data.hub import Stream, open_hub, open_stream
from vitlib.data.photos import photographs
from vitlib.data.shards import open_shards

__all__ = [
    "Collection",
    "Dataset",
    "Normalisation",
    "Source",
    "Stream",
    "load",
    "names",
    "open_source",
    "photographs",
]

Source = Dataset | Collection | Stream
"""What a run can be trained on: in memory, in files, or as it comes."""

_LOADERS: Mapping[str, Callable[..., Dataset]] = MappingProxyType(
    {
        "cifar10": cifar10.load,
        "digits": digits.load,
        "fashion_mnist": fashion_mnist.load,
        "fashion_mnist_small": fashion_mnist_small.load,
        "shapes": shapes.load,
    }
)
_KINDS: Mapping[str, Callable[[str], Source]] = MappingProxyType(
    {"hf": open_hub, "hf-stream": open_stream, "shards": open_shards}
)


def names() -> list[str]:
    """The names that `load` knows, in alphabetical order."""
    return sorted(_LOADERS)


def load(name: str, **options: Any) -> Dataset:
    """The data set called `name`.

    Args:
        name: One of `names()`.
        options: What the data set can be told: ``folder`` of `cifar10` and `fashion_mnist`;
            ``count``, ``test_count``, ``size`` and ``seed`` of `shapes`.

    Raises:
        ValueError: There is no data set of that name, or an option has an impossible value.
        FileNotFoundError: A file of the data set is missing.
        TypeError: The data set has no such option, or the option is of another type.
    """
    if name not in _LOADERS:
        raise ValueError(
            f"no data set is called {name!r}: choose one of {', '.join(names())} "
            "(vitlib.data.names())."
        )
    known = inspect.signature(_LOADERS[name]).parameters
    for option in options:
        if option not in known:
            raise TypeError(
                f"the data set {name!r} has no option {option!r}: expected "
                f"{' or '.join(known) or 'none'}."
            )
    return _LOADERS[name](**options)


def open_source(name: str) -> Source:
    """What is called `name`.

    Args:
        name: One of `names()`; the path of a folder (`vitlib.data.folder`); ``hf:NAME`` or
            ``hf-stream:NAME`` (`vitlib.data.hub`); ``shards:PATTERN`` (`vitlib.data.shards`).

    Raises:
        ValueError: The data are damaged, or not what they should be.
        FileNotFoundError: There are no such data.
        ModuleNotFoundError: A library that they need is not installed.
    """
    if name in _LOADERS:
        return load(name)
    kind, _, rest = name.partition(":")
    if kind in _KINDS and rest:
        return _KINDS[kind](rest)
    if Path(name).is_dir():
        return open_folder(Path(name))
    raise FileNotFoundError(
        f"no data set and no folder is called {name!r}. Give one of {', '.join(names())}, a folder "
        f"with a subfolder of images for each class, or {':… or '.join(_KINDS)}:…."
    )
