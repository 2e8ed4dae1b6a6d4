"""In the executed chapters every stub is graded ✗ and every solution ✓."""

import json
import re
from pathlib import Path

import pytest

from vitlib.exercises import names

ROOT = Path(__file__).parents[2]
EXECUTED = ROOT / "_build" / "jupyter_execute" / "book"
CHAPTERS = sorted(
    path
    for part in ("start", "tokens", "attention", "encoder", "learning")
    for path in (ROOT / "book" / part).glob("*.md")
)


def grades() -> list[tuple[str, str]]:
    """(name, ✓ or ✗) of every grade on the pages, in the order in which a reader meets them."""
    found = []
    for chapter in CHAPTERS:
        executed = EXECUTED / chapter.relative_to(ROOT / "book").with_suffix(".ipynb")
        for cell in json.loads(executed.read_text())["cells"]:
            for output in cell.get("outputs", []):
                text = "".join(output.get("data", {}).get("text/plain", []))
                found += re.findall(r"^([✓✗]) (\S+)$", text, flags=re.MULTILINE)
    return [(name, mark) for mark, name in found]


def test_every_exercise_is_set_and_solved_on_a_page() -> None:
    seen = grades()
    assert {name for name, _ in seen} == set(names())
    for name in names():
        assert [mark for other, mark in seen if other == name] == ["✗", "✓"], name


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_chapter_has_three_exercises_each_with_its_solution(chapter: Path) -> None:
    text = chapter.read_text()
    exercises = re.findall(r"\{exercise(?:-start)?\}[^\n]*\n(?::[^\n]*\n)*?:label: (\S+)", text)
    solutions = re.findall(r"\{solution(?:-start)?\} (\S+)\n:class: dropdown", text)
    assert exercises == solutions
    assert len(exercises) >= 3
