"""The displays of a chapter, and whether the evidence covers them."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitlib.proof.evidence import MIME, Evidence

_FENCE = re.compile(r"\s*(?P<fence>`{3,}|~{3,}|:{3,})\s*(?P<info>.*?)\s*$")
_OPTION = re.compile(r"\s*:(?P<name>[\w-]+):\s*(?P<value>.*?)\s*$")
# Directives whose content is Markdown again; everything else in a fence is verbatim.
_VERBATIM = {"code-cell", "code", "code-block", "raw", "literalinclude", "eval-rst", "mermaid"}
_CODE_SPAN = re.compile(r"(`+)(?!`).*?(?<!`)\1(?!`)")
_BARE_DISPLAY = re.compile(r"\$\$|\\\[|\\begin\{")


@dataclass(frozen=True)
class Equation:
    r"""A display of a chapter.

    Attributes:
        label: Its label, if it has one.
        latex: Its content.
        line: Where it begins, from 1.
        definition: Whether it is declared to state nothing that could be checked.
        directive: Whether it is written as a `{math}` directive, not between `$$`.
    """

    label: str | None
    latex: str
    line: int
    definition: bool = False
    directive: bool = True


def equations(path: Path | str) -> list[Equation]:
    """The displays of a MyST chapter, in order.

    Raises:
        FileNotFoundError: There is no such chapter.
        ValueError: A fence is not closed.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no chapter {path}: give the path of a chapter's .md file")
    lines = path.read_text(encoding="utf-8").splitlines()
    found: list[Equation] = []
    containers: list[str] = []
    number = _end_of_header(lines)
    in_display = False
    while number < len(lines):
        line = lines[number]
        number += 1
        fence = _FENCE.match(line)
        if fence and containers and _closes(line, containers[-1]):
            containers.pop()
        elif fence and fence["info"].startswith("{math}"):
            end = _end_of_fence(lines, number, fence["fence"], path)
            found.append(_directive(lines[number:end], number))
            number = end + 1
        elif fence and _is_container(fence["info"]):
            containers.append(fence["fence"])
        elif fence and (fence["info"] or fence["fence"][0] != ":"):
            number = _end_of_fence(lines, number, fence["fence"], path) + 1
        else:
            for mark in _BARE_DISPLAY.findall(_CODE_SPAN.sub(" ", line)):
                if not in_display:
                    found.append(Equation(None, line.strip(), number, directive=False))
                in_display = not in_display if mark == "$$" else in_display
    return found


def _end_of_header(lines: list[str]) -> int:
    if not lines or lines[0].strip() != "---":
        return 0
    return next((n + 1 for n, line in enumerate(lines) if n and line.strip() == "---"), 0)


def _is_container(info: str) -> bool:
    name = re.match(r"\{([\w:-]+)\}", info)
    return name is not None and name[1] not in _VERBATIM


def _closes(line: str, fence: str) -> bool:
    mark = line.strip()
    return len(mark) >= len(fence) and set(mark) == {fence[0]}


def _end_of_fence(lines: list[str], start: int, fence: str, path: Path) -> int:
    for number in range(start, len(lines)):
        if _closes(lines[number], fence):
            return number
    raise ValueError(f"{path}, line {start}: this {fence} is not closed")


def _directive(body: list[str], line: int) -> Equation:
    options: dict[str, str] = {}
    start = 0
    while start < len(body) and (option := _OPTION.match(body[start])):
        options[option["name"]] = option["value"]
        start += 1
    latex = "\n".join(body[start:]).strip()
    definition = "definition" in options.get("class", "").split()
    return Equation(options.get("label") or None, latex, line, definition)


def normalised(latex: str) -> str:
    """LaTeX with all white space made alike."""
    return " ".join(latex.split())


def audit(displays: Sequence[Equation], evidence: Sequence[Evidence]) -> list[str]:
    """Whether the evidence of a chapter covers its displays, as they are printed.

    Args:
        displays: What `equations` found in the chapter.
        evidence: What its cells emitted.

    Returns:
        Problems, one line each; none if all is well.
    """
    problems: list[str] = []
    printed: dict[str, Equation] = {}
    for display in displays:
        where = f"line {display.line}"
        if not display.directive:
            problems.append(f"{where}: a display outside a {{math}} directive: {display.latex}")
        elif display.label is None:
            problems.append(f"{where}: a display without a label: {normalised(display.latex)}")
        elif display.label in printed:
            problems.append(f"{where}: the label {display.label} is taken by another display")
        else:
            printed[display.label] = display
    checked: set[str] = set()
    for proof in evidence:
        if proof.label in checked:
            problems.append(f"{proof.label}: checked twice")
        checked.add(proof.label)
        display = printed.get(proof.label)
        if display is None:
            problems.append(f"{proof.label}: checked, but there is no such display")
        elif normalised(display.latex) != normalised(proof.latex):
            problems.append(f"{proof.label}: what was checked is not what is printed")
        elif display.definition:
            problems.append(f"{proof.label}: checked, so it is not a mere definition")
    for label, display in printed.items():
        if not display.definition and label not in checked:
            problems.append(f"{label}: printed on line {display.line}, but nothing checks it")
    return problems


def evidence_in(notebook: Any) -> list[Evidence]:
    """Evidence among the outputs of an executed notebook (an nbformat node)."""
    return [evidence for cell in notebook.cells for evidence in evidence_of(cell)]


def evidence_of(cell: Any) -> Iterable[Evidence]:
    """Evidence among the outputs of one cell."""
    for output in cell.get("outputs", []):
        data = output.get("data", {}).get(MIME)
        if data is not None:
            yield Evidence.from_json(data)
