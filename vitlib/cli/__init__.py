"""The command `vitlib`: train, plan, sheet, eval, predict, export, info, study, bench, list.

Each command is a dataclass that `tyro` fills from the command line and that is then called. Every
mistake that a user can make ends in one line on stderr and exit status 2.
"""

import io
import os
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from importlib.metadata import version

from tyro.conf import FlagCreatePairsOff, OmitArgPrefixes
from tyro.extras import SubcommandApp

from vitlib.cli.training import Plan, Sheet, Train
from vitlib.cli.using import Bench, Eval, Export, Info, List, Predict, Study
from vitlib.train import RECIPES, Interrupted, Recipe

GO_ON = 75
"""Exit status of a run that was asked to stop and can go on: EX_TEMPFAIL of sysexits.h."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status.

    Args:
        arguments: The words after `vitlib`; those of the process if none are given.

    Returns:
        0 when all went well, 2 after a user's mistake, 75 when training was asked to stop and has
        saved, 130 after Ctrl-C elsewhere.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        command = _parse(words)
        command()
        sys.stdout.flush()
    except SystemExit as finished:
        return int(finished.code or 0)
    except Interrupted as interrupted:
        print(f"vitlib: {interrupted}", file=sys.stderr)
        return GO_ON
    except KeyboardInterrupt:
        return _complain("interrupted.", 130)
    except BrokenPipeError:  # who read our output has left; the interpreter must not flush to it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _complain(f"{where}{error.strerror or error}")
    except (ValueError, ModuleNotFoundError) as error:
        return _complain(str(error))
    except RuntimeError as error:
        if "allocate" not in str(error):
            raise
        return _complain(
            "there is not enough memory for this. Choose smaller sizes of the model, such as "
            "dim, mlp_dim or depth, or a smaller batch_size."
        )
    return 0


def _parse(words: list[str]) -> Callable[[], None]:
    """The command that the words spell; help and version are printed and end the process."""
    if words == ["--version"]:
        print(f"vitlib {version('vitlib')}")
        raise SystemExit(0)
    box = io.StringIO()
    try:
        with redirect_stderr(box):
            return _application().cli(
                prog="vitlib",
                description="The Vision Transformer, derived: train small ViTs and use them.",
                args=words or ["--help"],
                config=(OmitArgPrefixes, FlagCreatePairsOff),
            )
    except SystemExit as stopped:
        if stopped.code:
            raise ValueError(_condense(box.getvalue())) from None
        raise


def _application() -> SubcommandApp:
    of_recipes: dict[type, Callable[[type[Recipe]], type]] = {
        Train: lambda recipe: Train[recipe],
        Plan: lambda recipe: Plan[recipe],
        Sheet: lambda recipe: Sheet[recipe],
    }
    application = SubcommandApp()
    for command, of in of_recipes.items():
        recipes = SubcommandApp()
        for name, recipe in RECIPES.items():
            recipes.command(name=name, help=_summary(recipe))(of(recipe))
        application.command(recipes, name=command.__name__.lower(), help=_summary(command))
    for command in (Eval, Predict, Export, Info, Study, Bench, List):
        application.command(name=command.__name__.lower())(command)
    return application


def _summary(documented: type) -> str:
    return (documented.__doc__ or "").splitlines()[0]


def _condense(box: str) -> str:
    """Tyro's boxed complaint in one line: what was wrong, what was perhaps meant, where to look.

    The box has a title in its border, or above a rule where the terminal knows ASCII only, and
    rules between its parts.
    """
    lines = [line.strip(" │") for line in box.splitlines() if not line.startswith(("╭", "╰"))]
    parts = [part.strip() for part in re.split(r"[─-]{9,}", "\n".join(lines))]
    complaint, *hints = parts if "╭" in box else parts[1:]
    said = [re.sub(r"^Error parsing [^-]\S*: ", "", " ".join(complaint.split())).rstrip(".")]
    for hint in hints:
        if hint.startswith("Perhaps you meant"):
            options = dict.fromkeys(re.findall(r"^--\S+", hint, re.MULTILINE))
            said.append(f"Perhaps you meant {' or '.join(options)}")
        elif hint.startswith("Available subcommands"):
            said.append(" ".join(hint.split()))
    where = re.search(r"vitlib[a-z ]* --help", box)
    return ". ".join([*said, f"See {where[0] if where else 'vitlib --help'}"])


def _complain(what: str, status: int = 2) -> int:
    print(f"vitlib: error: {' '.join(what.split())}", file=sys.stderr)
    return status
