"""Checkpoints: everything that a run needs to go on, on this number of processes or another.

    RUN/checkpoints/step-00001200/   shard-…safetensors   one for each process
                                     manifest.json        position, and a checksum of each shard

PyTorch's `torch.distributed.checkpoint` divides the tensors among the processes and puts them
together again on any number of them; it writes them as safetensors, so that reading runs no code.
A checkpoint grows under another name and takes its own in one indivisible step, when its bytes have
reached the disk. It is believed only if every checksum is right; otherwise the one before it is.
"""

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import (
    HuggingFaceStorageReader,
    HuggingFaceStorageWriter,
)
from torch.distributed.checkpoint.state_dict_loader import load as load_parts
from torch.distributed.checkpoint.state_dict_saver import save as save_parts

from vitlib.train.processes import Processes

CHECKPOINTS = "checkpoints"
_MANIFEST = "manifest.json"
_GROWING, _GOING = ".growing", ".going"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that lies on the disk, whole.

    Attributes:
        path: Its folder.
        manifest: What is not a tensor: "step" and whatever the run has put there.
    """

    path: Path
    manifest: dict[str, Any]

    @property
    def step(self) -> int:
        """How many steps were done when it was written."""
        return self.manifest["step"]

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Fill tensors with those of the checkpoint, each process its own parts.

        Args:
            state: The tensors that `save` was given, by the same names; plain or distributed, on
                any number of processes.

        Raises:
            ValueError: A tensor is not in the checkpoint or has another shape there.
        """
        try:
            with _quiet():
                load_parts(dict(state), storage_reader=HuggingFaceStorageReader(str(self.path)))
        except (CheckpointException, ValueError, RuntimeError, OSError) as error:
            said = " ".join(str(error).split())[:200]
            raise ValueError(
                f"{self.path}: does not fit this run ({said}). Give the same command as before, or "
                "start anew (--overwrite)."
            ) from error


def save(
    folder: Path, state: Mapping[str, Tensor], manifest: Mapping[str, Any], us: Processes
) -> Checkpoint:
    """Write a checkpoint, whole or not at all. All processes call it together.

    Args:
        folder: Of the run.
        state: Tensors, plain or distributed. What is plain is written by process 0.
        manifest: "step", and anything else that JSON can hold.
        us: The processes.

    Raises:
        OSError: The disk is full or fails. What was there before stays as it was.
    """
    final = _path(folder, manifest["step"])
    growing = final.with_name(final.name + _GROWING)

    def begin() -> None:
        shutil.rmtree(growing, ignore_errors=True)
        growing.parent.mkdir(exist_ok=True)  # but not the run's own folder: if it is gone, stop
        growing.mkdir()

    def finish() -> None:
        sums = {path.name: _sha256(path) for path in sorted(growing.glob("*.safetensors"))}
        content = {**manifest, "sha256": sums}
        _write(growing / _MANIFEST, json.dumps({**content, "checksum": _checksum(content)}))
        if final.exists():  # a damaged one: the run has come here again
            shutil.rmtree(final)
        growing.replace(final)
        _sync(final.parent)

    try:
        us.once(begin)
        us.fail_together(_written(state, growing))
        us.once(finish)
    except (OSError, ValueError):
        if us.first:
            shutil.rmtree(growing, ignore_errors=True)
        raise
    return Checkpoint(final, dict(manifest))


def _written(state: Mapping[str, Tensor], growing: Path) -> OSError | None:
    """Write this process's part; the disk's complaint, if it has one."""
    writer = HuggingFaceStorageWriter(str(growing), save_distributed=True)
    try:
        with _quiet():
            save_parts(dict(state), storage_writer=writer)
    except CheckpointException as error:
        causes = [cause for cause, _ in error.failures.values()]
        disk = next((cause for cause in causes if isinstance(cause, OSError)), None)
        if disk is None:
            raise
        return OSError(disk.errno, disk.strerror, str(growing))
    except OSError as error:
        return error
    return None


def latest(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint of a run that is whole.

    Returns:
        The checkpoint, or None if there is none; and a line for each newer one that is damaged.
    """
    complaints: list[str] = []
    for path in _by_age(folder):
        manifest, fault = _verify(path)
        if manifest is not None:
            return Checkpoint(path, manifest), complaints
        complaints.append(f"{path}: {fault}; an earlier checkpoint is used, if there is one.")
    return None, complaints


def opened(path: Path) -> Checkpoint | None:
    """The checkpoint in a folder of its own, if it is one.

    Raises:
        ValueError: It is one, and damaged.
    """
    if not (path / _MANIFEST).exists():
        return None
    manifest, fault = _verify(path)
    if manifest is None:
        raise ValueError(f"{path}: {fault}. Use another checkpoint of the run.")
    return Checkpoint(path, manifest)


def at(folder: Path, step: int) -> Checkpoint:
    """The checkpoint of a step, which another process has found to be whole."""
    path = _path(folder, step)
    return Checkpoint(path, json.loads((path / _MANIFEST).read_text(encoding="utf-8")))


def prune(folder: Path, newest: int, keep: int, best: int | None) -> None:
    """Remove all checkpoints but the last `keep` up to step `newest`, and that of step `best`.

    Those of later steps were damaged, or the run would have gone on from there.
    """
    paths = list(_by_age(folder))
    good = [path for path in paths if path <= _path(folder, newest)][:keep]
    for path in paths:
        if path in good:
            continue
        if best is None or path != _path(folder, best):
            path.rename(path.with_name(path.name + _GOING))
    _sweep(folder)


def _sweep(folder: Path) -> None:
    """Remove what is going: under its other name it is none any more, were it half gone."""
    for path in (folder / CHECKPOINTS).glob(f"*{_GOING}"):
        shutil.rmtree(path, ignore_errors=True)


def drop(folder: Path, step: int) -> None:
    """Remove the checkpoint of a step, unless there is no other."""
    path, paths = _path(folder, step), list(_by_age(folder))
    if path in paths and len(paths) > 1:
        path.rename(path.with_name(path.name + _GOING))
    _sweep(folder)


def _path(folder: Path, step: int) -> Path:
    return folder / CHECKPOINTS / f"step-{step:08}"


def _by_age(folder: Path) -> Iterator[Path]:
    """The checkpoints of a run, newest first; none that is not all there yet or any more."""
    return iter(sorted((folder / CHECKPOINTS).glob("step-????????"), reverse=True))


def _verify(path: Path) -> tuple[dict[str, Any] | None, str]:
    try:
        manifest = json.loads((path / _MANIFEST).read_text(encoding="utf-8"))
        if manifest.pop("checksum") != _checksum(manifest):
            return None, f"{_MANIFEST} has changed since it was written"
        for name, expected in manifest["sha256"].items():
            if _sha256(path / name) != expected:
                return None, f"{name} has changed since it was written"
    except FileNotFoundError as error:
        return None, f"{Path(error.filename).name} is missing"
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None, f"{_MANIFEST} cannot be read"
    return manifest, ""


def _checksum(content: Mapping[str, Any]) -> str:
    """Of what stands in a manifest, in whatever order."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    """The folder's own entry, so that the new name survives a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _quiet() -> Generator[None]:
    """Without the warning that a single process is a single process."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)
        yield
