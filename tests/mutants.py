"""What became of the mutants of the library: `make mutants` runs this behind mutmut.

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
"""

import sys
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
REVIEWED = ROOT / "tests" / "mutants.toml"
SURVIVORS = ROOT / "mutants" / "survivors.toml"
KILLED = 0.95

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


def found() -> Iterator[tuple[str, str, Survivor | None]]:
    """Name, fate and, if it survived, the change of every mutant that mutmut has made."""
    from mutmut.mutation.data import SourceFileMutationData
    from mutmut.mutation.diff_apply import get_diff_for_mutant
    from mutmut.stats import status_by_exit_code
    from mutmut.utils.file_utils import walk_mutatable_files

    for path in walk_mutatable_files():
        file = SourceFileMutationData(path=path)
        file.load()
        for name, code in file.exit_code_by_key.items():
            fate = status_by_exit_code[code]
            survivor = None
            if fate in UNNOTICED:
                survivor = Survivor(
                    function_of(name), *changed(get_diff_for_mutant(name, path=path))
                )
            yield name, fate, survivor


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


def main() -> int:
    """Print what became of the mutants; the exit status is 1 if too few were killed."""
    table, survivors, problems = summary(found(), reviewed(REVIEWED))
    SURVIVORS.write_text(listed(survivors), encoding="utf-8")
    print(table)
    print(f"The survivors that are not listed are in {SURVIVORS.relative_to(ROOT)}")
    for problem in problems:
        print(f"FAIL  {problem}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
