"""Data sets by name: ``load("digits")`` gives images, labels and how to read them.

Options of a data set are given by name too, as in ``load("shapes", size=64)``; what there is, its
module's `load` says. Two photographs come along, for what is better seen on one large picture.
"""

import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from vitlib.data import digits, fashion_mnist, fashion_mnist_small, shapes
from vitlib.data.dataset import Dataset, Normalisation
from vitlib.data.photos import photographs

__all__ = ["Dataset", "Normalisation", "load", "names", "photographs"]

_LOADERS: Mapping[str, Callable[..., Dataset]] = MappingProxyType(
    {
        "digits": digits.load,
        "fashion_mnist": fashion_mnist.load,
        "fashion_mnist_small": fashion_mnist_small.load,
        "shapes": shapes.load,
    }
)


def names() -> list[str]:
    """The names that `load` knows, in alphabetical order."""
    return sorted(_LOADERS)


def load(name: str, **options: Any) -> Dataset:
    """The data set called `name`.

    Args:
        name: One of `names()`.
        options: What the data set can be told: ``folder`` of `fashion_mnist`; ``count``,
            ``test_count``, ``size`` and ``seed`` of `shapes`.

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
