"""The folder of a run: what it holds, and when a run may have it."""

from pathlib import Path

WEIGHTS = "weights.safetensors"
LOG = "log.jsonl"


def claim_folder(folder: Path, *, overwrite: bool = False) -> None:
    """Make `folder` ready for a new run.

    It may be new, empty, or the folder of a run that did not finish; of a finished run only if
    `overwrite` is set, and then the old weights are removed, so that weights and log always belong
    together.

    Raises:
        ValueError: The folder holds a finished run or other things, or cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        finished, started = (folder / WEIGHTS).exists(), (folder / LOG).exists()
        if not started and any(folder.iterdir()):
            raise ValueError(
                f"{folder}: holds files that are no training run's. Choose a new folder (--out)."
            )
        if finished and not overwrite:
            raise ValueError(
                f"{folder}: holds a finished run. Choose another folder (--out) or replace it "
                "(--overwrite)."
            )
        (folder / LOG).write_text("", encoding="utf-8")
        (folder / WEIGHTS).unlink(missing_ok=True)
    except OSError as error:
        raise ValueError(
            f"{folder}: cannot be written to ({error.strerror}). Choose another folder (--out)."
        ) from error
