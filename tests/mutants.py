"""The mutants of the library, and what becomes of them: `make mutants`.

mutmut changes one thing in a function of `vitlib/nn` or `vitlib/proof` at a time, a sign, a number,
an argument, and runs the tests that reach the function. A mutant that no test notices has survived.
Those that behave like the original are listed in `tests/mutants.toml`, each with the reason::

    [[equivalent]]
    function = "vitlib.nn.softmax.softmax_forward"
    line = "return torch.softmax(scores, dim=-1)"
    mutants = ["return torch.softmax(scores, -1)"]
    why = "dim is the second parameter"

Of the others, 95 % of each package must be killed. The survivors that are not listed are written to
`mutants/survivors.toml` in the same form.

mutmut itself would have pytest collect the tests anew for every mutant, which takes longer than to
run them until one fails. Here they are collected once, and each mutant's process inherits them.
Tests that have killed other mutants of the function come first.
"""

import gc
import os
import sys
import tomllib
import traceback
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest
from _pytest.config import _prepareconfig  # pytest's own main has nothing public that only collects

if TYPE_CHECKING:  # only `make mutants` installs it
    from mutmut.mutation.data import SourceFileMutationData

ROOT = Path(__file__).parents[1]
REVIEWED = ROOT / "tests" / "mutants.toml"
SURVIVORS = ROOT / "mutants" / "survivors.toml"
KILLED = 0.95
BRIEF = "mutants"
"""The profile of hypothesis."""

# What mutmut calls the fates of mutants. Who makes a test hang or crash is noticed too.
NOTICED = ("killed", "timeout", "segfault")
UNNOTICED = ("survived", "no tests")


@dataclass(frozen=True)
class Survivor:
    """A mutant that no test notices: a line of a function, and what stands there instead."""

    function: str
    line: str
    mutant: str


@dataclass
class Outcome:
    """What became of the mutants of a package: how many came to which end, and who survived."""

    fates: Counter[str] = field(default_factory=Counter)
    survivors: list[Survivor] = field(default_factory=list)

    def share(self, equivalent: set[Survivor]) -> float:
        """Share of the killed among the mutants that behave in another way."""
        killed = sum(self.fates[fate] for fate in NOTICED)
        alive = sum(survivor not in equivalent for survivor in self.survivors)
        return killed / (killed + alive) if killed + alive else 1.0


def function_of(mutant: str) -> str:
    """The function that mutmut's name of a mutant is about."""
    module, _, mangled = mutant.partition("__mutmut_")[0].rpartition(".")
    name = mangled[2:] if mangled.startswith("x_") else mangled[2:].replace("ǁ", ".")
    return f"{module}.{name}"


def changed(diff: str) -> tuple[str, str]:
    """What a diff takes out and what it puts in, each in one line."""
    lines = [line for line in diff.splitlines() if not line.startswith(("---", "+++"))]
    out, into = (
        " ".join(line[1:].strip() for line in lines if line.startswith(mark)) for mark in "-+"
    )
    return out, into


def results() -> Iterator["SourceFileMutationData"]:
    """What mutmut has noted of its mutants, file by file."""
    from mutmut.mutation.data import SourceFileMutationData
    from mutmut.utils.file_utils import walk_mutatable_files

    for path in walk_mutatable_files():
        file = SourceFileMutationData(path=path)
        file.load()
        yield file


def found() -> Iterator[tuple[str, str, Survivor | None]]:
    """Name, fate and, if it survived, the change of every mutant that mutmut has made."""
    from mutmut.mutation.diff_apply import get_diff_for_mutant
    from mutmut.stats import status_by_exit_code

    for file in results():
        for name, code in file.exit_code_by_key.items():
            fate = status_by_exit_code[code]
            survivor = None
            if fate in UNNOTICED:
                diff = get_diff_for_mutant(name, path=file.path)
                survivor = Survivor(function_of(name), *changed(diff))
            yield name, fate, survivor


def reopen() -> None:
    """Count survivors as not tried: there may be a test by now that notices them."""
    from mutmut.stats import status_by_exit_code

    for file in results():
        codes = file.exit_code_by_key
        alive = [name for name, code in codes.items() if status_by_exit_code[code] in UNNOTICED]
        if alive:
            codes.update(dict.fromkeys(alive))
            file.save()


def reviewed(path: Path) -> set[Survivor]:
    """Survivors that behave like the original.

    Raises:
        ValueError: An entry is not complete.
    """
    entries = tomllib.loads(path.read_text(encoding="utf-8")).get("equivalent", [])
    for entry in entries:
        if set(entry) != {"function", "line", "mutants", "why"} or not entry["why"].strip():
            raise ValueError(f"{path}: {entry}: give function, line, mutants and why")
    return {
        Survivor(entry["function"], entry["line"], mutant)
        for entry in entries
        for mutant in entry["mutants"]
    }


def summary(
    mutants: Iterable[tuple[str, str, Survivor | None]], equivalent: set[Survivor]
) -> tuple[str, list[Survivor], list[str]]:
    """Count the mutants of each package.

    Returns:
        A table, the survivors that are not listed, and what is not as it should be.
    """
    packages: defaultdict[str, Outcome] = defaultdict(Outcome)
    for name, fate, survivor in mutants:
        package = packages[".".join(name.split(".")[:2])]
        package.fates[fate] += 1
        if survivor:
            package.survivors.append(survivor)
    columns = "{:<16}{:>8}{:>8}{:>9}{:>10}{:>12}{:>14}"
    titles = ("package", "mutants", "killed", "timeouts", "survived", "equivalent", "share killed")
    table = [columns.format(*titles)]
    problems: list[str] = []
    for name, package in packages.items():
        fates, share = package.fates, package.share(equivalent)
        same = sum(survivor in equivalent for survivor in package.survivors)
        counts = (
            fates.total(),
            fates["killed"] + fates["segfault"],
            fates["timeout"],
            len(package.survivors),
            same,
        )
        table.append(columns.format(name, *counts, f"{share:.1%}"))
        if share < KILLED:
            problems.append(f"{name}: {share:.1%} are killed, {KILLED:.0%} are wanted")
        open_ends = fates.total() - sum(fates[fate] for fate in (*NOTICED, *UNNOTICED))
        if open_ends:
            problems.append(f"{name}: {open_ends} were not tried to the end: run it again")
    survivors = {survivor for package in packages.values() for survivor in package.survivors}
    problems += [
        f"tests/mutants.toml: {gone.function}: {gone.mutant}: no such survivor"
        for gone in sorted(equivalent - survivors, key=str)
    ]
    return "\n".join(table), sorted(survivors - equivalent, key=str), problems


def listed(survivors: Iterable[Survivor]) -> str:
    """Survivors in the form of the reviewed file, without the reason."""
    groups: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for survivor in survivors:
        groups[survivor.function, survivor.line].append(survivor.mutant)
    return "\n".join(
        f"[[equivalent]]\nfunction = \"{function}\"\nline = '''{line}'''\nmutants = [\n"
        + "".join(f"    '''{mutant}''',\n" for mutant in mutants)
        + ']\nwhy = ""\n'
        for (function, line), mutants in groups.items()
    )


class Killers:
    """The tests that have killed mutants of a function, in a file that all processes share."""

    def __init__(self, function: str) -> None:
        self._path = Path(".killers") / function

    def first(self, tests: Iterable[str]) -> list[str]:
        """Tests in their order, but the killers before the others, the latest first."""
        known = self._path.read_text().splitlines() if self._path.exists() else []
        place = {name: number for number, name in enumerate(known)}
        return sorted(tests, key=lambda name: -place.get(name, -1))

    def add(self, test: str) -> None:
        """Note that a test has killed a mutant."""
        self._path.parent.mkdir(exist_ok=True)
        with self._path.open("a") as file:
            file.write(f"{test}\n")


def collected() -> pytest.Session:
    """A session of pytest with all tests in it, as `[tool.mutmut]` selects them; none has run."""
    from mutmut.configuration import config as mutmut_config

    selection = mutmut_config().pytest_add_cli_args_test_selection
    quiet = ["-p", "no:terminal", "--capture=no", "-o", "addopts=--import-mode=importlib"]
    # Nobody reads why a test fails: no comparison is explained, no example is made smaller.
    phases = (hypothesis.Phase.explicit, hypothesis.Phase.generate)
    hypothesis.settings.register_profile(BRIEF, deadline=None, derandomize=True, phases=phases)
    quiet += ["--assert=plain", f"--hypothesis-profile={BRIEF}"]
    config = _prepareconfig(["--rootdir=.", *quiet, *selection])
    config.option.tbstyle = "native"
    config._do_configure()
    session = pytest.Session.from_config(config)
    config.hook.pytest_sessionstart(session=session)
    session.perform_collect()
    return session


def sweep() -> None:
    """Try all mutants that were not tried yet, that survived, or whose function has changed."""
    from mutmut.__main__ import run
    from mutmut.runners.harness import PytestRunner
    from mutmut.utils.file_utils import change_cwd
    from mutmut.workers import isolation

    class CollectedOnce(PytestRunner):
        session: pytest.Session | None = None

        def run_tests(self, *, mutant_name: str | None, tests: Iterable[str]) -> int:
            """0 if the tests pass; mutmut hands them over with the fastest first."""
            with change_cwd("mutants"):
                if self.session is None:  # at the first run, of the unchanged library
                    self.session = collected()
                gc.freeze()  # what a process inherits it need not look through, and so not copy
                try:
                    return int(self._fails(mutant_name, tests))
                except BaseException:  # no verdict: mutmut calls it suspicious
                    traceback.print_exc()
                    return 99

        def _fails(self, mutant_name: str | None, tests: Iterable[str]) -> bool:
            by_name = {item.nodeid: item for item in self.session.items}
            killers = Killers(function_of(mutant_name) if mutant_name else "none")
            names = killers.first(tests or by_name)
            items = [by_name[name] for name in names]
            self.session.testsfailed = 0
            for item, following in zip_longest(items, items[1:]):
                item.ihook.pytest_runtest_protocol(item=item, nextitem=following)
                if self.session.testsfailed:
                    # else the next process tears it down, and counts that as its own failure
                    self.session._setupstate.teardown_exact(None)
                    killers.add(item.nodeid)
                    return True
            return False

    isolation.PytestRunner = CollectedOnce
    reopen()
    run(["--max-children", str(os.cpu_count())], standalone_mode=False)


def main() -> int:
    """Try the mutants and print what became of them.

    Returns:
        The exit status: 1 if too few were killed.
    """
    sweep()
    table, survivors, problems = summary(found(), reviewed(REVIEWED))
    SURVIVORS.write_text(listed(survivors), encoding="utf-8")
    print(table)
    print(f"The survivors that are not listed are in {SURVIVORS.relative_to(ROOT)}")
    for problem in problems:
        print(f"FAIL  {problem}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
