"""The results of a study as a file: how it was made, and one line for each run.

    {
      "about": {"command": …, "date": …, "hardware": …, "python": …, "torch": …, …},
      "runs": [
        {…},
        …
      ]
    }

The chapters read such files in `vitlib/data`.
"""

import json
import platform
from collections.abc import Iterable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def about(command: str, **facts: Any) -> dict[str, Any]:
    """When and with what a study was made.

    Args:
        command: What follows `vitlib`.
        facts: What else a reader has to know: seeds, epochs.
    """
    threads = torch.get_num_threads()
    return {
        "command": f"vitlib {command}",
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


def store(path: Path, facts: dict[str, Any], runs: "Iterable[DataclassInstance]") -> None:
    """Print each run when it has been made, and write it beside those before it.

    Args:
        path: The file, which is replaced; its folder is made.
        facts: What `about` returned, and what the runs add to it.
        runs: One dataclass for each run; they may be made one by one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lines: list[str] = []
    for run in runs:
        print(run, flush=True)
        lines.append(f"    {json.dumps(asdict(run), ensure_ascii=False)}")
        listed = ",\n".join(lines)
        text = f'{{\n  "about": {json.dumps(facts)},\n  "runs": [\n{listed}\n  ]\n}}\n'
        path.write_text(text, encoding="utf-8")
    print(f"written: {path}")
