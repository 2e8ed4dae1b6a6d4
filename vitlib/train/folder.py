"""The folder of a run: what it holds, and when a run may have it."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vitlib.files import write_atomically
from vitlib.train.checkpoint import CHECKPOINTS

WEIGHTS = "weights.safetensors"
LOG = "log.jsonl"
RECIPE = "recipe.json"
ADJUSTABLE = ("lr", "warmup", "clip", "weight_decay")
"""What a run may change on its way, if it is told to: how far a step goes, not where to."""


def claim_folder(
    folder: Path, recipe: Mapping[str, Any], *, overwrite: bool = False, adjust: bool = False
) -> None:
    """Make `folder` ready for a run.

    It may be new, empty, or the folder of a run of the same recipe that did not finish, which then
    goes on; only `engine`, which says how it is computed, may differ, and what is `ADJUSTABLE` if
    `adjust` is set. Of another run only if `overwrite` is set, and then everything that it left is
    removed.

    Args:
        folder: Created if it does not exist.
        recipe: What is going to be trained, as values that JSON can hold.
        overwrite: Replace the run that is there.
        adjust: Go on with it by another learning rate, warm-up, clipping or decay.

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
            _check_same(folder, recipe, adjust)
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


def _check_same(folder: Path, recipe: Mapping[str, Any], adjust: bool) -> None:
    try:
        before = json.loads((folder / RECIPE).read_text(encoding="utf-8"))
        found = differences(before, recipe)
    except (ValueError, AttributeError) as error:
        raise ValueError(
            f"{folder / RECIPE}: damaged, so nobody knows which run this is. Choose another folder "
            "(--out) or start anew (--overwrite)."
        ) from error
    others = {name: pair for name, pair in found.items() if name not in ADJUSTABLE}
    refused = others if adjust else found
    if refused:
        told = [f"{name} {old} there, {new} here" for name, (old, new) in refused.items()]
        change = "" if others else "go on all the same (--adjust), "
        raise ValueError(
            f"{folder}: holds an unfinished run of another recipe ({'; '.join(told[:3])}). Give "
            f"its own command to go on, {change}choose another folder (--out) or start anew "
            "(--overwrite)."
        )


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """In what two recipes differ, but for how they are computed: a name, what it was, what it is.

    Args:
        before: As it was stored.
        now: As values that JSON can hold.
    """
    found: dict[str, tuple[Any, Any]] = {}
    now = json.loads(json.dumps(now))
    for name in {**before, **now}:
        old, new = before.get(name), now.get(name)
        if name == "engine":
            continue
        if isinstance(old, dict) and isinstance(new, dict):
            found |= differences(old, new)
        elif old != new:
            found[name] = old, new
    return found
