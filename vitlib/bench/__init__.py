"""Side-by-side measurements of speed and memory: `vitlib bench NAME`."""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from vitlib.bench import attention, ideas, step

BENCHMARKS: Mapping[str, Callable[[Path, int, bool], None]] = MappingProxyType(
    {"attention": attention.main, "ideas": ideas.main, "step": step.main}
)
"""Each benchmark, which leaves its results in a folder."""
