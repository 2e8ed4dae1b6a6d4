r"""Mutants of printed formulas, and the command that puts them to the checks of a chapter.

A chapter that is tried starts a kernel, so there are few.
"""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from vitlib import proof
from vitlib.proof.latex import parse
from vitlib.proof.mutants import __main__ as command
from vitlib.proof.mutants import mutants
from vitlib.proof.mutants.excused import Excuse, excuses, split
from vitlib.proof.mutants.trial import Survivor, Trial, report, try_chapter, try_page

# Each mutant is the kind of what is lost and what is printed then.
MUTANTS = {
    r"\mathbf S = \frac{\mathbf Q \mathbf K^\top}{\sqrt d}": [
        ("factor", r"\mathbf S = \mathbf Q \mathbf K^\top"),
        ("factor", r"\mathbf S = \frac{\mathbf K^\top}{\sqrt d}"),
        ("factor", r"\mathbf S = \frac{\mathbf Q}{\sqrt d}"),
        ("⊤", r"\mathbf S = \frac{\mathbf Q \mathbf K}{\sqrt d}"),
        ("root", r"\mathbf S = \frac{\mathbf Q \mathbf K^\top}{d}"),
    ],
    r"\mathbf K = \frac{1}{\sqrt d} \left(\mathbf S\right)^{\top} \mathbf Q": [
        ("factor", r"\mathbf K = \left(\mathbf S\right)^{\top} \mathbf Q"),
        ("factor", r"\mathbf K = \frac{1}{\sqrt d} \mathbf Q"),
        ("factor", r"\mathbf K = \frac{1}{\sqrt d} \left(\mathbf S\right)^{\top}"),
        ("root", r"\mathbf K = \frac{1}{d} \left(\mathbf S\right)^{\top} \mathbf Q"),
        ("⊤", r"\mathbf K = \frac{1}{\sqrt d} \left(\mathbf S\right) \mathbf Q"),
    ],
    # What is derived, and by what, stays; the sign in front may go.
    r"\frac{\partial \ell}{\partial z_k} = -\frac{\partial \ell}{\partial p_{k-1}}": [
        ("sign", r"\frac{\partial \ell}{\partial z_k} = \frac{\partial \ell}{\partial p_{k-1}}"),
    ],
    r"a = -b + c - d": [
        ("sign", "a = b + c - d"),
        ("sign", "a = -b - c - d"),
        ("sign", "a = -b + c + d"),
        ("term", "a = c - d"),
        ("term", "a = -b - d"),
        ("term", "a = -b + c"),
    ],
    r"a = b - c": [
        ("sign", "a = b + c"),
        ("term", "a = - c"),
        ("term", "a = b"),
    ],
    r"\mathbf G = \mathbf A \odot \mathbf B \mathbf C \odot \mathbf D": [
        ("factor", r"\mathbf G = \mathbf B \mathbf C \odot \mathbf D"),
        ("factor", r"\mathbf G = \mathbf A \odot \mathbf C \odot \mathbf D"),
        ("factor", r"\mathbf G = \mathbf A \odot \mathbf B \odot \mathbf D"),
        ("factor", r"\mathbf G = \mathbf A \odot \mathbf B \mathbf C"),
    ],
    r"a = b / c": [("factor", "a = 1 / c"), ("factor", "a = b")],
    r"a = 1 / c": [("factor", "a = 1")],
    r"a = 1 \cdot \log b \cdot c d": [
        ("factor", r"a = 1 \cdot c d"),
        ("factor", r"a = 1 \cdot \log b \cdot d"),
        ("factor", r"a = 1 \cdot \log b \cdot c"),
    ],
    r"a = b \bmod c": [("factor", "a = b")],
    r"a = \frac{1}{2}": [("factor", "a = 1")],
    r"a = \frac12 b": [("factor", "a = b"), ("factor", r"a = \frac12")],
    r"a = \frac{b}{c}": [("factor", r"a = \frac{1}{c}"), ("factor", "a = b")],
    r"a = \frac{b + c}{2} d": [
        ("factor", "a = d"),
        ("factor", r"a = \frac{b + c}{2}"),
        ("factor", r"a = \frac{1}{2} d"),
        ("factor", r"a = \left( b + c \right) d"),
        ("sign", r"a = \frac{b - c}{2} d"),
        ("term", r"a = \frac{c}{2} d"),
        ("term", r"a = \frac{b}{2} d"),
    ],
    r"a = \frac{\sum_j b_j}{d} c": [
        ("factor", "a = c"),
        ("factor", r"a = \frac{\sum_j b_j}{d}"),
        ("factor", r"a = \frac{1}{d} c"),
        ("factor", r"a = \left( \sum_j b_j \right) c"),
        ("sum", r"a = \frac{b_j}{d} c"),
    ],
    r"a = \pi\sqrt{b - 1}c^2": [
        ("factor", r"a = \sqrt{b - 1}c^2"),
        ("factor", r"a = \pi c^2"),
        ("factor", r"a = \pi\sqrt{b - 1}"),
        ("root", r"a = \pi\left( b - 1 \right)c^2"),
        ("sign", r"a = \pi\sqrt{b + 1}c^2"),
        ("term", r"a = \pi\sqrt{- 1}c^2"),
        ("term", r"a = \pi\sqrt{b}c^2"),
        ("power", r"a = \pi\sqrt{b - 1}c"),
    ],
    r"a = 2b^{-1/2}3c": [
        ("factor", "a = b^{-1/2}3c"),
        ("factor", "a = 2 3c"),
        ("factor", "a = 2b^{-1/2}c"),
        ("factor", "a = 2b^{-1/2}3"),
        ("power", "a = 2b3c"),
        ("sign", "a = 2b^{1/2}3c"),
        ("factor", "a = 2b^{-1}3c"),
    ],
    r"\left( a - b \right) c = d": [
        ("factor", "c = d"),
        ("factor", r"\left( a - b \right) = d"),
        ("sign", r"\left( a + b \right) c = d"),
        ("term", r"\left( - b \right) c = d"),
        ("term", r"\left( a \right) c = d"),
    ],
    "a = 2(b - c)": [
        ("factor", "a = (b - c)"),
        ("factor", "a = 2"),
        ("sign", "a = 2(b + c)"),
        ("term", "a = 2(- c)"),
        ("term", "a = 2(b)"),
    ],
    r"\frac{a b}{c} = d": [
        ("factor", "a b = d"),
        ("factor", r"\frac{b}{c} = d"),
        ("factor", r"\frac{a}{c} = d"),
    ],
    # What is one thing stays one thing.
    r"y = x \frac{a b}{c}": [
        ("factor", r"y = \frac{a b}{c}"),
        ("factor", "y = x"),
        ("factor", r"y = x \left( a b \right)"),
        ("factor", r"y = x \frac{b}{c}"),
        ("factor", r"y = x \frac{a}{c}"),
    ],
    r"y = \frac{a}{b} c": [
        ("factor", "y = c"),
        ("factor", r"y = \frac{a}{b}"),
        ("factor", r"y = \frac{1}{b} c"),
        ("factor", "y = a c"),
    ],
    r"y = \frac{\tanh^2 a}{b} c": [
        ("factor", "y = c"),
        ("factor", r"y = \frac{\tanh^2 a}{b}"),
        ("factor", r"y = \frac{1}{b} c"),
        ("factor", r"y = \left( \tanh^2 a \right) c"),
        ("power", r"y = \frac{\tanh a}{b} c"),
    ],
    r"y = \mathbf a \odot \mathbf b / c": [
        ("factor", r"y = \mathbf b / c"),
        ("factor", r"y = \mathbf a \odot 1 / c"),
        ("factor", r"y = \mathbf a \odot \mathbf b"),
    ],
    r"y = \mathbf a / b \cdot c": [
        ("factor", r"y = 1 / b \cdot c"),
        ("factor", r"y = \mathbf a \cdot c"),
        ("factor", r"y = \mathbf a / b"),
    ],
    r"\mathbf Y = \mathbf A^\top b^2": [
        ("factor", r"\mathbf Y = b^2"),
        ("factor", r"\mathbf Y = \mathbf A^\top"),
        ("⊤", r"\mathbf Y = \mathbf A b^2"),
        ("power", r"\mathbf Y = \mathbf A^\top b"),
    ],
    r"y = \hat{\mathbf x}^\top": [("⊤", r"y = \hat{\mathbf x}")],
    r"\mathbf Y = \mathbf X^{\odot 2}": [("power", r"\mathbf Y = \mathbf X")],
    r"\mathbf m = \operatorname{rowmean}\left( \mathbf X \right) - \operatorname{E}[q]": [
        (
            "sign",
            r"\mathbf m = \operatorname{rowmean}\left( \mathbf X \right) + \operatorname{E}[q]",
        ),
        ("term", r"\mathbf m = - \operatorname{E}[q]"),
        ("term", r"\mathbf m = \operatorname{rowmean}\left( \mathbf X \right)"),
        ("sum", r"\mathbf m = \left( \mathbf X \right) - \operatorname{E}[q]"),
        (
            "sum",
            r"\mathbf m = \operatorname{rowmean}\left( \mathbf X \right) - [q]",
        ),
    ],
    r"\mathbf Y = \operatorname{softmax}(\mathbf X)": [],
    r"y = \max(a b, c)": [("factor", r"y = \max(b, c)"), ("factor", r"y = \max(a, c)")],
    r"\mu = \sum_{j=0}^{D-1} x_j": [
        ("sum", r"\mu = x_j"),
        ("sign", r"\mu = \sum_{j=0}^{D+1} x_j"),
        ("term", r"\mu = \sum_{j=0}^{-1} x_j"),
        ("term", r"\mu = \sum_{j=0}^{D} x_j"),
    ],
    # Two indices are no product, a place that is computed is one. Names keep what they consist of.
    r"P_{nc} = I_{c,\, iP + p} W_{Q}": [
        ("factor", r"P_{nc} = W_{Q}"),
        ("factor", r"P_{nc} = I_{c,\, iP + p}"),
        ("sign", r"P_{nc} = I_{c,\, iP - p} W_{Q}"),
        ("term", r"P_{nc} = I_{c,\, p} W_{Q}"),
        ("term", r"P_{nc} = I_{c,\, iP} W_{Q}"),
        ("factor", r"P_{nc} = I_{c,\, P + p} W_{Q}"),
        ("factor", r"P_{nc} = I_{c,\, i + p} W_{Q}"),
    ],
}


@pytest.mark.parametrize("latex", MUTANTS)
def test_each_thing_is_lost_once(latex):
    found = [(mutant.kind, mutant.latex) for mutant in mutants(latex)]
    assert sorted(found) == sorted(MUTANTS[latex])


@pytest.mark.parametrize("latex", MUTANTS)
def test_every_mutant_is_a_formula(latex):
    for mutant in mutants(latex):
        parse(mutant.latex)


DERIVATION = r"""\begin{aligned}
\mathbf Y &= \left( \mathbf A + \mathbf B \right) \mathbf C \\[2pt]
&= \mathbf A \mathbf C \\
&\quad + \mathbf B \mathbf C \qquad
\mathbf Z = \mathbf A^\top
\end{aligned}"""


def test_a_derivation_keeps_its_rows():
    found = {(mutant.kind, mutant.row): mutant.latex for mutant in mutants(DERIVATION)}
    assert list(found) == [
        ("factor", r"\mathbf Y &= \mathbf C"),
        ("factor", r"\mathbf Y &= \left( \mathbf A + \mathbf B \right)"),
        ("sign", r"\mathbf Y &= \left( \mathbf A - \mathbf B \right) \mathbf C"),
        ("term", r"\mathbf Y &= \left( \mathbf B \right) \mathbf C"),
        ("term", r"\mathbf Y &= \left( \mathbf A \right) \mathbf C"),
        ("sign", r"&\quad - \mathbf B \mathbf C \qquad \mathbf Z = \mathbf A^\top"),
        ("term", r"&= \mathbf B \mathbf C \qquad \mathbf Z = \mathbf A^\top"),
        ("term", r"&\quad \qquad \mathbf Z = \mathbf A^\top"),
        ("factor", r"&= \mathbf C"),
        ("factor", r"&= \mathbf A"),
        ("factor", r"&\quad + \mathbf C \qquad \mathbf Z = \mathbf A^\top"),
        ("factor", r"&\quad + \mathbf B \qquad \mathbf Z = \mathbf A^\top"),
        ("⊤", r"&\quad + \mathbf B \mathbf C \qquad \mathbf Z = \mathbf A"),
    ]
    for (_, row), latex in found.items():
        parse(latex)
        assert row in " ".join(latex.split())


def test_functions_that_a_check_names_are_no_factors():
    assert [m.latex for m in mutants("y = f(x)", {"f"})] == []
    assert [m.latex for m in mutants("y = f(x)")] == ["y = (x)", "y = f"]


@pytest.mark.parametrize(
    ("latex", "problem"),
    [
        ("a & b & = c", "a row may have one &\n  a & b & = c\n"),
        ("a = b +", "a quantity .*\n  a = b +"),
    ],
)
def test_what_is_no_formula_is_pointed_at(latex, problem):
    with pytest.raises(proof.FormulaError, match=problem):
        mutants(latex)


# Trials

LATEX = {
    "scale": r"\mathbf Y = c \mathbf X",
    "symmetric": r"\mathbf Y = \mathbf X^\top \mathbf X = (\mathbf X^\top \mathbf X)^\top",
}


def tried(c):
    page = proof.open_page("page", LATEX)
    scaled = proof.Computation({"X": "T d"}, {"Y": lambda X, c: c * X}, scalars={"c": c})
    page.check("scale", scaled)
    return try_page(page)


def test_a_check_that_cannot_see_a_factor_is_reported():
    assert tried(1.0).survivors == (Survivor("scale", "factor", r"\mathbf Y = \mathbf X"),)
    assert tried(1.1).survivors == ()
    assert tried(1.1).mutants == 2


def test_what_is_lost_for_nothing_survives():
    page = proof.open_page("page", LATEX)
    page.check("symmetric", proof.Computation({"X": "T d"}, {"Y": lambda X: X.mT @ X}))
    trial = try_page(page)
    assert [s.kind for s in trial.survivors] == ["⊤"]
    assert trial.survivors[0].row == (
        r"\mathbf Y = \mathbf X^\top \mathbf X = (\mathbf X^\top \mathbf X)"
    )
    assert trial.mutants == 7


def test_a_mutant_is_noticed_if_it_fails_in_one_case():
    # Of the numbers that are drawn, c is 1 in all cases but one.
    drawn = iter([1.0, 1.0, 1.0, 1.0, 1.1])
    page = proof.open_page("page", LATEX)

    def truth(rng):
        X, c = torch.from_numpy(rng.normal(size=(3, 4))), next(drawn)
        return {"X": X, "c": c, "Y": c * X}

    page.check("scale", truth)
    assert try_page(page).survivors == ()


def test_each_page_is_reported_once(capsys):
    page = proof.open_page("page", LATEX)
    page.check("scale", proof.Computation({"X": "T d"}, {"Y": lambda X: X}, scalars={"c": 1.0}))
    capsys.readouterr()
    report({"page": page, "again": page, "number": 1})
    (found,) = json.loads(capsys.readouterr().out)
    (survivor,) = found.pop("survivors")
    assert Survivor(**survivor) == Survivor("scale", "factor", r"\mathbf Y = \mathbf X")
    assert found == {"mutants": 2, "problems": []}


def test_all_pages_are_reported(capsys):
    pages = {name: proof.open_page(name, LATEX) for name in ("page", "other")}
    for page in pages.values():
        page.check("scale", proof.Computation({"X": "T d"}, {"Y": lambda X: X}, scalars={"c": 1.0}))
    capsys.readouterr()
    report(pages)
    assert [trial["mutants"] for trial in json.loads(capsys.readouterr().out)] == [2, 2]


# Excuses

SURVIVOR = Survivor("eq-a", "⊤", r"\mathbf Y = \mathbf X")
EXCUSE = Excuse("part/chapter", "eq-a", "\\mathbf Y\n  = \\mathbf X", "X is symmetric")


def test_an_excuse_covers_its_survivor_whatever_the_white_space():
    other = Survivor("eq-a", "⊤", r"\mathbf X")
    elsewhere = Survivor("eq-b", "⊤", SURVIVOR.row)
    assert split([SURVIVOR], [EXCUSE]) == ([], [])
    assert split([other, elsewhere], [EXCUSE]) == ([other, elsewhere], [EXCUSE])
    assert split([], []) == ([], [])


ENTRY = """
[[equivalent]]
chapter = "part/chapter"
label = "eq-a"
row = '''
\\mathbf Y
  = \\mathbf X'''
why = "X is symmetric"
"""


def test_excuses_are_read(tmp_path):
    assert excuses(tmp_path) == []
    (tmp_path / "mutants.toml").write_text(ENTRY, encoding="utf-8")
    assert excuses(tmp_path) == [EXCUSE]


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('"eq-a"', "eq-a", "Invalid value"),
        ("why", "because", "unexpected keyword argument 'because'"),
        ("X is symmetric", " ", "eq-a: a survivor without a reason"),
        ("[[equivalent]]", "[[harmless]]", "nothing but"),
    ],
)
def test_excuses_that_are_none_are_refused(tmp_path, old, new, problem):
    (tmp_path / "mutants.toml").write_text(ENTRY.replace(old, new), encoding="utf-8")
    with pytest.raises(ValueError, match=problem):
        excuses(tmp_path)


# Chapters

CHAPTER = """---
jupytext:
  text_representation:
    extension: .md
    format_name: myst
---

# Chapter

```{math}
:label: eq-a
\\mathbf Y = \\mathbf X^\\top
```

```{code-cell} ipython3
:tags: [ledger]
import torch
from vitlib import proof

page = again = proof.open_page("part/chapter")
flipped = proof.Computation({"X": "T 1"}, {"Y": lambda X: STEP}, sizes={"T": 1})
page.check("eq-a", flipped)
```
"""


@pytest.fixture
def chapter(tmp_path, monkeypatch):
    path = tmp_path / "book" / "part" / "chapter.md"
    path.parent.mkdir(parents=True)
    path.write_text(CHAPTER.replace("STEP", "X.mT"), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return path


def test_the_pages_of_a_chapter_are_tried_once_each(chapter):
    assert try_chapter(chapter) == Trial(1, (SURVIVOR,))


def test_a_chapter_that_fails_is_not_tried(chapter):
    chapter.write_text(CHAPTER.replace("STEP", "2 * X"), encoding="utf-8")
    trial = try_chapter(chapter)
    assert (trial.mutants, trial.survivors) == (0, ())
    failed, *unnamed = trial.problems
    assert failed.startswith("eq-a: does not hold as printed")
    assert unnamed == []


# The command


@pytest.fixture
def outcome(chapter, monkeypatch):
    """Say what becomes of a chapter and which excuses there are."""
    monkeypatch.setattr(command, "ProcessPoolExecutor", ThreadPoolExecutor)

    def set_outcome(trial, excused=""):
        monkeypatch.setattr(command, "try_chapter", lambda path: trial)
        (chapter.parents[1] / "mutants.toml").write_text(excused, encoding="utf-8")

    return set_outcome


HEADINGS = "chapter                          mutants  killed  excused  survived"


def test_mutants_that_are_all_noticed_end_with_status_0(outcome, capsys):
    outcome(Trial(12, ()))
    assert command.main([]) == 0
    assert capsys.readouterr().out.splitlines() == [
        HEADINGS,
        "part/chapter                          12      12        0         0",
    ]


def test_a_survivor_is_named_and_ends_with_status_1_unless_excused(outcome, capsys):
    outcome(Trial(12, (SURVIVOR,)))
    assert command.main(["book/part/chapter.md"]) == 1
    assert capsys.readouterr().out.splitlines() == [
        HEADINGS,
        "part/chapter                          12      11        0         1",
        "  FAIL  eq-a does not miss this ⊤:",
        "        \\mathbf Y = \\mathbf X",
        "1 problem",
    ]
    outcome(Trial(12, (SURVIVOR,)), excused=ENTRY)
    assert command.main([]) == 0
    assert capsys.readouterr().out.splitlines() == [
        HEADINGS,
        "part/chapter                          12      11        1         0",
    ]


def test_an_excuse_for_nothing_ends_with_status_1(outcome, capsys):
    outcome(Trial(12, ()), excused=ENTRY + ENTRY.replace("part/chapter", "part/gone"))
    assert command.main([]) == 1
    assert capsys.readouterr().out.splitlines()[2:] == [
        "  FAIL  mutants.toml: eq-a has no such survivor:",
        "        \\mathbf Y",
        "  = \\mathbf X",
        "  FAIL  mutants.toml: there is no chapter part/gone",
        "2 problems",
    ]


def test_a_chapter_that_cannot_be_tried_ends_with_status_1(outcome, capsys):
    outcome(Trial(0, (), ("eq-a: does not hold", "the kernel stopped")), excused=ENTRY)
    assert command.main([]) == 1
    assert capsys.readouterr().out.splitlines()[2:] == [
        "  FAIL  eq-a: does not hold",
        "  FAIL  the kernel stopped",
        "2 problems",
    ]


def test_problems_of_all_chapters_count(outcome, chapter, capsys):
    chapter.with_name("other.md").write_text(chapter.read_text(encoding="utf-8"), encoding="utf-8")
    outcome(Trial(12, (SURVIVOR,)))
    assert command.main([]) == 1
    assert capsys.readouterr().out.endswith("2 problems\n")


def test_a_chapter_may_lie_outside_of_a_book(outcome, chapter, tmp_path, capsys):
    outcome(Trial(12, ()))
    chapter.rename(tmp_path / "loose.md")
    assert command.main(["loose.md"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[0] == "loose"


def test_help_says_what_the_command_does(capsys):
    with pytest.raises(SystemExit):
        command.main(["--help"])
    said = capsys.readouterr().out
    assert said.startswith("usage: python -m vitlib.proof.mutants [-h] [chapters ...]")
    assert "Take a ⊤, a sign, a factor, a sum out of each checked display" in said


def test_a_chapter_that_is_not_there_ends_with_status_2(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert command.main(["nothing.md"]) == 2
    assert capsys.readouterr().err.startswith("no chapter nothing.md")


def test_excuses_that_are_none_end_with_status_2(outcome, capsys):
    outcome(Trial(12, ()), excused="[[harmless]]")
    assert command.main([]) == 2
    assert "give nothing but [[equivalent]]" in capsys.readouterr().err
