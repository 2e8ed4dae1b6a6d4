"""The library's own source, shown on a page: what a chapter prints is what is imported."""

import inspect
import textwrap
from collections.abc import Callable

__all__ = ["Source", "show_source"]


class Source:
    """Python source that a notebook shows highlighted.

    Args:
        code: the source.
    """

    def __init__(self, code: str) -> None:
        self.code = code

    def __repr__(self) -> str:
        return self.code

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        return {"text/markdown": f"```python\n{self.code}\n```", "text/plain": self.code}


def show_source(*objects: Callable[..., object] | type) -> Source:
    """Show the source of functions and classes, in the order given.

    Args:
        *objects: functions, classes or methods written in Python.

    Raises:
        ValueError: if nothing is given.
        TypeError: if something given has no Python source.
    """
    if not objects:
        raise ValueError("nothing to show: give one function or class, or several.")
    return Source("\n\n\n".join(_source(item) for item in objects))


def _source(item: Callable[..., object] | type) -> str:
    try:
        code = inspect.getsource(item)
    except (TypeError, OSError):
        raise TypeError(
            f"{item!r} has no Python source: give a function or a class that is written in Python."
        ) from None
    return textwrap.dedent(code).strip("\n")
