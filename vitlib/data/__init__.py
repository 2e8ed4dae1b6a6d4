"""Data sets by name: ``load("digits")`` gives images, labels and how to read them."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from vitlib.data import digits
from vitlib.data.dataset import Dataset, Normalisation

__all__ = ["Dataset", "Normalisation", "load", "names"]

_LOADERS: Mapping[str, Callable[[], Dataset]] = MappingProxyType({"digits": digits.load})


def names() -> list[str]:
    """The names that `load` knows, in alphabetical order."""
    return sorted(_LOADERS)


def load(name: str) -> Dataset:
    """The data set called `name`.

    Args:
        name: One of `names()`.

    Raises:
        ValueError: There is no data set of that name.
    """
    if name not in _LOADERS:
        raise ValueError(
            f"no data set is called {name!r}: choose one of {', '.join(names())} "
            "(vitlib.data.names())."
        )
    return _LOADERS[name]()
