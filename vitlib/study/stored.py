"""The results of a study as a file: how it was made, and one line for each run.

    {
      "about": {"command": …, "date": …, "hardware": …, "python": …, "torch": …, …},
      "runs": [
        {…},
        …
      ]
    }

`vitlib/data` holds the files, and the chapters read them.
"""

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def about(study: str, **facts: Any) -> dict[str, Any]:
    """When and with what a study was made.

    Args:
        study: Name of its module in `vitlib.study`.
        facts: What else a reader has to know: seeds, epochs.
    """
    threads = torch.get_num_threads()
    return {
        "command": f"python -m vitlib.study.{study}",
        "date": datetime.now(UTC).date().isoformat(),
        "hardware": f"{threads} core{'s' if threads > 1 else ''} of {processor()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        **facts,
    }


def processor() -> str:
    """The name of the processor, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def store(path: Path, facts: dict[str, Any], runs: "Sequence[DataclassInstance]") -> None:
    """Write what was found so far.

    Args:
        path: The file, which is replaced.
        facts: What `about` returned.
        runs: One dataclass for each run.
    """
    lines = ",\n".join(f"    {json.dumps(asdict(run))}" for run in runs)
    path.write_text(f'{{\n  "about": {json.dumps(facts)},\n  "runs": [\n{lines}\n  ]\n}}\n')
