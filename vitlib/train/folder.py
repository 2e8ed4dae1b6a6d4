"""The folder of a run: what it holds, and when a run may have it."""

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vitlib.files import write_atomically
from vitlib.train.checkpoint import CHECKPOINTS

WEIGHTS = "weights.safetensors"
LOG = "log.jsonl"
RECIPE = "recipe.json"


def claim_folder(folder: Path, recipe: Mapping[str, Any], *, overwrite: bool = False) -> None:
    """Make `folder` ready for a run.

    It may be new, empty, or the folder of a run of the same recipe that did not finish, which then
    goes on; only `engine`, which says how it is computed, may differ. Of another run only if
    `overwrite` is set, and then everything that it left is removed.

    Args:
        folder: Created if it does not exist.
        recipe: What is going to be trained, as values that JSON can hold.
        overwrite: Replace the run that is there.

    Raises:
        ValueError: The folder holds another run, a finished one or other things, or cannot be
            written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        is_run = (folder / RECIPE).exists()
        if not is_run and any(folder.iterdir()):
            raise ValueError(
                f"{folder}: holds files that are no training run's. Choose a new folder (--out)."
            )
        if is_run and overwrite:
            _clear(folder)
        elif (folder / WEIGHTS).exists():
            raise ValueError(
                f"{folder}: holds a finished run. Choose another folder (--out) or replace it "
                "(--overwrite)."
            )
        elif is_run:
            _check_same(folder, recipe)
        write_atomically(folder / RECIPE, json.dumps(recipe, indent=1).encode())
    except OSError as error:
        raise ValueError(
            f"{folder}: cannot be written to ({error.strerror}). Choose another folder (--out)."
        ) from error


def _clear(folder: Path) -> None:
    """Remove what a run has left. The weights go first: they say that it is finished."""
    (folder / WEIGHTS).unlink(missing_ok=True)
    for path in folder.iterdir():
        if path.name == CHECKPOINTS or path.name == "tensorboard":
            shutil.rmtree(path)
        elif path.suffix in (".jsonl", ".csv", ".png", ".html"):
            path.unlink()


def _check_same(folder: Path, recipe: Mapping[str, Any]) -> None:
    try:
        before = json.loads((folder / RECIPE).read_text(encoding="utf-8"))
        differences = list(_differences(before, json.loads(json.dumps(recipe))))
    except (ValueError, AttributeError) as error:
        raise ValueError(
            f"{folder / RECIPE}: damaged, so nobody knows which run this is. Choose another folder "
            "(--out) or start anew (--overwrite)."
        ) from error
    if differences:
        raise ValueError(
            f"{folder}: holds an unfinished run of another recipe ({'; '.join(differences[:3])}). "
            "Give its own command to go on, choose another folder (--out) or start anew "
            "(--overwrite)."
        )


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    for name in before.keys() | now.keys():
        old, new = before.get(name), now.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            if name != "engine":
                yield from _differences(old, new)
        elif old != new:
            yield f"{name} {old} there, {new} here"
