"""A run on its way: where it goes on, and what it leaves behind to go on from."""

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from vitlib.train import checkpoint
from vitlib.train.folder import claim_folder, differences
from vitlib.train.processes import Processes
from vitlib.train.trainee import Trainee
from vitlib.train.window import Window


class Journey:
    """The steps that are done, the time that they took, and the checkpoints.

    Args:
        folder: Of the run; None saves nothing, and starts at step 0.
        us: The processes, which call all methods together.
        trainee: What a checkpoint holds, beside
        window: the sums since the last line of the log.
        about: What stands beside them, for who wants the weights alone: "config" and "record". The
            record's "faults" are those that this process has found; all of them are saved.
        every: Seconds from one checkpoint to the next.
        keep: How many checkpoints stay, the best apart.
    """

    def __init__(
        self,
        folder: Path | None,
        us: Processes,
        trainee: Trainee,
        window: Window,
        about: Mapping[str, Any],
        *,
        every: float,
        keep: int,
    ) -> None:
        self._folder, self._us, self._trainee, self._window = folder, us, trainee, window
        self._about, self._every, self._keep = about, every, keep
        self._faults: dict[str, str] = about["record"]["faults"]
        self._best: tuple[float, int] | None = None
        self._before, self._started = 0.0, time.perf_counter()
        self._saved = self._started
        self._unproved = False  # whether no step has been looked at since the last checkpoint
        self.done = 0

    @property
    def seconds(self) -> float:
        """How long the run has taken, in all of its parts."""
        return self._before + time.perf_counter() - self._started

    @property
    def due(self) -> bool:
        """Whether it is time for a checkpoint; processes may differ."""
        return time.perf_counter() - self._saved >= self._every

    def begin(self, recipe: Mapping[str, Any], *, overwrite: bool, adjust: bool) -> None:
        """Take the folder, and everything from its newest whole checkpoint, if there is one.

        The record's "adjusted" then lists after which steps the recipe was adjusted, and how.

        Raises:
            ValueError: The folder cannot be had, or its checkpoint does not fit.
        """
        folder, us = self._folder, self._us
        if folder is None:
            return
        anew = overwrite and not us.restarted  # the same command, given by torchrun
        us.once(lambda: claim_folder(folder, recipe, overwrite=anew, adjust=adjust))
        found, complaints = checkpoint.latest(folder) if us.first else (None, [])
        for line in complaints:
            print(line, file=sys.stderr)
        step = us.first_says(found.step if found else 0)
        if step == 0:
            return
        found = found or checkpoint.at(folder, step)
        sums = torch.zeros_like(self._window.sums)
        self._trainee.restore(found, {"window": sums})
        if us.first:  # they are those of all processes
            self._window.sums.copy_(sums)
        before = found.manifest["record"]
        self._faults.update(before["faults"])
        adjusted = before.get("adjusted", [])
        if changed := differences(before["recipe"], recipe):
            adjusted = [*adjusted, {"step": step, **changed}]
        if adjusted:
            self._about["record"]["adjusted"] = adjusted
        self.done, self._before, self._unproved = step, found.manifest["seconds"], True
        best = found.manifest["best"]
        self._best = None if best is None else (best[0], best[1])

    def compare(self, accuracy: float, done: int) -> bool:
        """Whether the model after so many steps is the best so far, by the validation images."""
        better = self._best is None or accuracy > self._best[0]
        if better:
            self._best = accuracy, done
        return better

    def prove(self, sound: bool) -> None:
        """Say whether the last step was sound; what the checkpoint before it holds may not be.

        A step that ruins the weights shows it in the next loss, when the weights may be saved
        already. Such a checkpoint is removed, unless there is no other.
        """
        if self._unproved and not sound and self._folder is not None and self._us.first:
            checkpoint.drop(self._folder, self.done)
        self._unproved = False

    def save(self, done: int) -> None:
        """Write a checkpoint after so many steps, and remove those that are no longer needed.

        Raises:
            OSError: The disk is full or fails; the checkpoints before are as they were.
        """
        if self._folder is None:
            return
        sums = self._us.sum(self._window.sums.clone())
        self._us.share(self._faults)
        checkpoint.save(
            self._folder,
            {**self._trainee.tensors(), "window": sums},
            {
                "step": done,
                "seconds": round(self.seconds, 2),
                "best": self._best,
                **self._about,
            },
            self._us,
        )
        if self._us.first:
            best = None if self._best is None else self._best[1]
            checkpoint.prune(self._folder, done, self._keep, best)
        self.done, self._saved, self._unproved = done, time.perf_counter(), True
