"""Arrows point one way: who may import whom inside vitlib."""

import ast
from pathlib import Path

import pytest

import vitlib

ROOT = Path(vitlib.__file__).parent

NETWORK = {"config", "nn"}
LIBRARY = NETWORK | {"data", "weights"}

# part: what it may import beside itself
ARROWS = {
    "config": set(),
    "files": set(),
    "nn": {"config"},
    "fast": NETWORK,
    "data": {"config", "files"},
    "weights": NETWORK | {"files"},
    "summary": NETWORK,
    "train": LIBRARY | {"fast", "files", "plot", "summary"},
    "explain": LIBRARY,
    "interop": LIBRARY,
    "study": LIBRARY | {"train", "explain", "interop", "example"},
    "bench": LIBRARY | {"files", "plot", "summary", "fast", "train", "interop", "study"},
    "cli": LIBRARY | {"summary", "train", "explain", "interop", "study", "bench"},
    "__main__": {"cli"},
    "__init__": NETWORK | {"fast", "weights"},
    # the book's own
    "example": LIBRARY,
    "exercises": LIBRARY | {"example", "summary"},
    "plot": set(),
    "source": set(),
    "proof": set(),
}


def part(path):
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported_parts(path):
    """The parts of vitlib that a file imports, wherever in the file the import stands."""
    package = ["vitlib", *path.relative_to(ROOT).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            names = [f"{module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            first, _, rest = name.partition(".")
            if first == "vitlib":
                inner = rest.split(".")[0]
                exists = (ROOT / inner).is_dir() or (ROOT / f"{inner}.py").exists()
                yield inner if inner and exists else "__init__"


FILES = sorted(ROOT.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_follow_the_arrows(path):
    own = part(path)
    assert own in ARROWS, f"{own} has no place among the arrows: give it one"
    against = set(imported_parts(path)) - ARROWS[own] - {own}
    assert not against, f"{own} may not import {', '.join(sorted(against))}"


def test_the_arrows_themselves_point_one_way():
    def reached(start, path=()):
        assert start not in path, f"a circle: {path}"
        for target in ARROWS[start]:
            reached(target, (*path, start))

    for own in ARROWS:
        reached(own)


def test_every_way_of_importing_is_seen(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    for name in ("config", "cli", "train", "data"):
        (tmp_path / f"{name}.py").write_text("")
    (tmp_path / "nn").mkdir()
    file = tmp_path / "nn" / "x.py"
    for line, expected in {
        "import vitlib": "__init__",
        "import vitlib.cli as c": "cli",
        "from vitlib import data": "data",
        "from vitlib import ViTConfig": "__init__",
        "from vitlib.train.loop import train": "train",
        "from ..cli import main": "cli",
        "from .. import config": "config",
        "from . import linear": "nn",
        "def f():\n    import vitlib.cli": "cli",
    }.items():
        file.write_text(line)
        assert list(imported_parts(file)) == [expected], line
