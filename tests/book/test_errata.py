"""The errata: every entry whole, linked, and decided as it says."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "book" / "reference" / "errata.md"
EXECUTED = ROOT / "_build" / "jupyter_execute" / "book" / "reference" / "errata.ipynb"
KINDS = {
    *("wrong", "contradiction", "undefined", "ambiguous"),
    *("incomplete", "unsafe", "overclaim"),
}
HOW = {"*run below*": "run", "*source*": "source", "*by reading*": "text"}
ENTRY = re.compile(
    r"""
    ^1\.\ \(erratum-(?P<label>[\w-]+)\)=\n
    \ +\*\*(?P<who>[A-E](?:,\ [A-E])*)\*\*\ ·\ (?P<kind>\w+)\ ·\ (?P<quotes>“.+)\n
    \n
    \ +(?P<truth>\S.+)\n
    \n
    \ +→\ \[[^\]]+\]\(\.\./(?P<chapter>[\w/]+\.md)\#[\w-]+\)
    (?:\ ·\ \[common\ mistake\]\(\#[\w-]+\))?
    \ ·\ (?P<how>\*[a-z\ ]+\*)$
    """,
    re.VERBOSE | re.MULTILINE,
)
TEXT = PAGE.read_text(encoding="utf-8")
ENTRIES = [match.groupdict() for match in ENTRY.finditer(TEXT)]


def registered() -> dict[str, list[str]]:
    """What the cells register: letters, kind and decision of every label."""
    found = {}
    for topic, facts in re.findall(r'^entries\(\n    "(\w+)",\n    \{(.*?)\}', TEXT, re.M | re.S):
        for word, fact in re.findall(r'"([\w-]+)": "([^"]+)"', facts):
            found[f"{topic}-{word}"] = fact.split()
    return found


def test_every_target_begins_an_entry() -> None:
    assert len(ENTRIES) == len(re.findall(r"\(erratum-[\w-]+\)=", TEXT))
    assert len(ENTRIES) >= 150


def test_labels_are_given_once() -> None:
    assert [x for x, n in Counter(entry["label"] for entry in ENTRIES).items() if n > 1] == []


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry["label"])
def test_an_entry_is_whole(entry: dict[str, str]) -> None:
    letters = entry["who"].split(", ")
    assert letters == sorted(set(letters))
    assert entry["kind"] in KINDS
    assert set(re.findall(r"” \(([A-E])\)", entry["quotes"])) <= set(letters)
    assert len(letters) == 1 or re.search(r"” \([A-E]\)", entry["quotes"]) or len(letters) == 5
    for quote in re.findall("“(.*?)”", entry["quotes"]):
        assert len(quote.split()) <= 20
    assert (ROOT / "book" / entry["chapter"]).is_file()
    assert entry["how"] in HOW
    if entry["how"] == "*source*":
        assert "{cite:" in entry["truth"]


def test_what_the_cells_count_is_what_the_page_says() -> None:
    said = {
        entry["label"]: [entry["who"].replace(", ", ""), entry["kind"], HOW[entry["how"]]]
        for entry in ENTRIES
    }
    assert registered() == said
    assert list(registered()) == list(said)  # the lines that the cells print carry numbers


def test_every_entry_that_is_run_has_its_check_and_no_other() -> None:
    checks = re.findall(r'\bcheck\(\s*"([\w-]+)"', TEXT)
    assert sorted(checks) == sorted(
        entry["label"] for entry in ENTRIES if entry["how"] == "*run below*"
    )


def test_every_check_has_printed_its_verdict() -> None:
    if not EXECUTED.is_file():
        pytest.fail(f"no notebook {EXECUTED}: run `make book` first")
    printed = []
    for cell in json.loads(EXECUTED.read_text(encoding="utf-8"))["cells"]:
        for output in cell.get("outputs", []):
            printed += re.findall(r"^✓ \d+ ([\w-]+): \S", "".join(output.get("text", [])), re.M)
    run = [entry["label"] for entry in ENTRIES if entry["how"] == "*run below*"]
    assert sorted(printed) == sorted(run)
