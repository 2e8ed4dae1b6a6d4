"""Side-by-side measurements of speed and memory: `vitlib bench NAME`."""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from vitlib.bench import step

BENCHMARKS: Mapping[str, Callable[[Path, int, bool], None]] = MappingProxyType({"step": step.main})
"""Each benchmark, which leaves its results in a folder."""
