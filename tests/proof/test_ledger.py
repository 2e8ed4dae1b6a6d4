import json
import re
import sys
from math import inf
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from vitlib import proof
from vitlib.proof.evidence import one_digit

LATEX = {
    "scores": r"\mathbf S = \frac{\mathbf Q \mathbf K^\top}{\sqrt d}",
    "steps": "\\begin{aligned}\n\\mathbf S &= \\mathbf Q \\mathbf K^\\top / \\sqrt d \\\\\n"
    "&= d^{-1/2} (\\mathbf K \\mathbf Q^\\top)^\\top\n\\end{aligned}",
    "grad-q": r"\frac{\partial \ell}{\partial \mathbf Q} = \frac{1}{\sqrt d}"
    r" \frac{\partial \ell}{\partial \mathbf S} \mathbf K",
    "mean": r"\boldsymbol\mu = \operatorname{rowmean}(\mathbf X)",
    "wrong": r"\mathbf S = \mathbf Q \mathbf K^\top",
    "zero": r"\sum_k \frac{\partial a_j}{\partial s_k} = 0",
}
SCORES = proof.Computation(
    {"Q": "T d", "K": "T d"}, {"S": lambda Q, K, d: torch.einsum("td,ud->tu", Q, K) / d**0.5}
)
MEAN = proof.Computation({"X": "T D"}, {"mu": lambda X: X.mean(-1, keepdim=True)})
LOST_ROOT = proof.edit(r"\sqrt d", "d", "divides by d instead of √d")


@pytest.fixture
def page():
    return proof.open_page("attention/scores", LATEX)


# What passes


def test_a_formula_that_holds_leaves_evidence(page, capsys):
    page.check("scores", SCORES, oracle="torch.einsum", mistakes=[LOST_ROOT])
    evidence = page.evidence["scores"]
    assert evidence.label == "scores"
    assert evidence.latex == LATEX["scores"]
    assert evidence.oracles == ("torch.einsum",)
    assert (evidence.cases, evidence.bound) == (5, 1e-12)
    assert evidence.symbols == ("K", "Q", "S", "d")
    (mistake,) = evidence.mistakes
    assert mistake.latex == r"\mathbf S = \frac{\mathbf Q \mathbf K^\top}{d}"
    assert 0.2 <= float(mistake.error) < 1
    line = "scores: holds as printed, error ≤ 1e-12 (torch.einsum; 5 cases; 1 mistake refuted)"
    assert repr(evidence) == line
    assert capsys.readouterr().out == line + "\n"


def test_gradients_name_their_oracles(page):
    page.check("grad-q", SCORES)
    assert page.evidence["grad-q"].oracles == ("autograd", "finite differences")
    page.check("grad-q", SCORES, oracle="einsum")
    assert page.evidence["grad-q"].oracles == ("einsum", "autograd", "finite differences")
    page.check("zero", proof.Computation({"s": "n"}, {"a": lambda s: torch.softmax(s, -1)}))
    assert page.evidence["zero"].oracles == ("autograd", "finite differences")
    assert page.evidence["zero"].symbols == ("a by s",)


def test_the_derivative_of_a_function_names_its_oracles():
    page = proof.open_page("p", {"slope": r"2 \mathbf x = f'(\mathbf x)"})
    page.check("slope", proof.Computation({"x": "n"}, {}, functions={"f": torch.square}))
    assert page.evidence["slope"].oracles == ("autograd", "finite differences")


def test_a_truth_without_a_name_is_called_by_its_kind(page):
    page.check("scores", SCORES)
    assert page.evidence["scores"].oracles == ("PyTorch",)
    page = proof.open_page("p", {"two": r"\mathbf y = 2 \mathbf x"})
    page.check("two", lambda rng: {"x": np.ones(3), "y": np.full(3, 2.0)})
    assert page.evidence["two"].oracles == ("random values",)


def test_functions_are_known_in_the_formula_in_mistakes_and_again():
    page = proof.open_page("p", {"relu": "y_j = f(x_j)"})

    def truth(rng):
        x = rng.normal(size=6)
        return {"x": x, "y": x.clip(0)}

    page.check(
        "relu",
        truth,
        functions={"f": torch.relu},
        mistakes=[proof.edit("(x_j)", "(-x_j)", "changes the sign")],
    )
    assert page.evidence["relu"].mistakes[0].why == "changes the sign"
    assert page.recheck("relu", "y_j = f(x_j) + f(x_j)") == pytest.approx(1)
    assert page.holds("relu", "y_j = f(f(x_j))")
    own = proof.Computation({"x": "n"}, {"y": lambda x: x.relu()}, functions={"f": torch.relu})
    page.check("relu", own)


def test_ranges_of_letters_are_known_in_the_formula_in_mistakes_and_again():
    latex = r"E_{t,2i} = \sin\left(t / 9^{2i/D}\right)"
    page = proof.open_page("p", {"even": latex})
    E = np.sin(np.arange(5)[:, None] / 9 ** (np.arange(6) / 6))
    wrong = proof.edit("2i/D", "i/D", "half the frequency")
    page.check("even", lambda rng: {"E": E, "D": 6}, indices={"i": "D / 2"}, mistakes=[wrong])
    assert page.recheck("even", wrong.of(latex)) > 0.1
    assert page.holds("even", latex)


def test_an_error_is_allowed_up_to_the_tolerance_and_a_mistake_refuted_beyond_its_bound():
    page = proof.open_page("p", {"z": "z = 1000"})
    page.check("z", lambda rng: {"z": 1000.0}, tolerance=0)
    assert page.holds("z", "1000 = z")
    with pytest.raises(AssertionError, match="is not refuted"):
        page.check(
            "z", lambda rng: {"z": 1000.0}, mistakes=[proof.edit("1000", "1001", "one more")]
        )


def test_other_formulas_are_measured_by_the_scale_of_the_true_one():
    page = proof.open_page("p", {"one": "z = 1000", "two": r"z = 1000 \qquad w = 1"})

    def truth(rng):
        return {"z": 1000.0, "w": 1.0}

    page.check("one", truth)
    page.check("two", truth)
    assert page.evidence["two"].symbols == ("w", "z")
    assert page.recheck("one", "z = 3000") == pytest.approx(2)
    assert page.recheck("one", r"z = 1000 \qquad z = 3000") == pytest.approx(2)
    assert page.recheck("two", r"z = 1000 \qquad w = 3") == pytest.approx(2)


def test_a_notebook_shows_the_evidence_and_nothing_else_prints_it(page, monkeypatch, capsys):
    shown = []
    shell = SimpleNamespace(
        get_ipython=lambda: object(), display=SimpleNamespace(display=shown.append)
    )
    monkeypatch.setitem(sys.modules, "IPython", shell)
    page.check("scores", SCORES)
    assert shown == [page.evidence["scores"]]
    assert capsys.readouterr().out == ""
    shell.get_ipython = lambda: None
    page.check("scores", SCORES)
    monkeypatch.delitem(sys.modules, "IPython")
    page.check("scores", SCORES)
    assert len(shown) == 1
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_the_evidence_survives_json_and_is_the_same_each_time(page):
    page.check("scores", SCORES, mistakes=[LOST_ROOT])
    first = page.evidence["scores"]
    again = proof.open_page("another", LATEX)
    again.check("scores", SCORES, mistakes=[LOST_ROOT])
    assert proof.Evidence.from_json(json.loads(json.dumps(first.to_json()))) == first
    assert again.evidence["scores"] == first
    for case, same in zip(page._checks["scores"].cases, again._checks["scores"].cases, strict=True):
        np.testing.assert_array_equal(case.arrays["Q"], same.arrays["Q"])


def test_the_notebook_gets_text_markdown_and_json(page):
    page.check("scores", SCORES, mistakes=[LOST_ROOT])
    bundle = page.evidence["scores"]._repr_mimebundle_()
    assert bundle["text/plain"] == repr(page.evidence["scores"])
    (mistake,) = page.evidence["scores"].mistakes
    assert bundle["text/markdown"] == (
        f"{page.evidence['scores']!r}\n\nRefuted: {mistake.sentence}.\n\n"
        "$$\n\\mathbf S = \\frac{\\mathbf Q \\mathbf K^\\top}{d}\n$$"
    )
    assert bundle[proof.MIME] == page.evidence["scores"].to_json()


def test_a_wrong_shape_refutes_and_says_so(page):
    transposed = proof.edit(r"\mathbf K^\top", r"\mathbf K", "the transpose is lost")
    page.check("scores", SCORES, mistakes=[transposed])
    assert page.evidence["scores"].mistakes[0].error == "wrong shape"


def test_sides_that_vanish_are_measured_against_what_enters_them(page):
    row = proof.Computation({"s": "n"}, {"a": lambda s: torch.softmax(s, -1)})
    page.check("zero", row, mistakes=[proof.edit("0", "1", "takes the sum to be one")])


def test_values_may_come_from_a_function(page):
    def numpy_mean(rng):
        X = rng.normal(size=(4, 6))
        return {"X": X, "mu": X.mean(axis=1, keepdims=True)}

    page.check("mean", numpy_mean, oracle="numpy")
    assert page.evidence["mean"].oracles == ("numpy",)


# What fails


def test_a_formula_that_does_not_hold_fails(page):
    with pytest.raises(AssertionError, match=r"wrong: does not hold as printed: relative error"):
        page.check("wrong", SCORES)
    assert not page.evidence


def test_the_message_points_at_the_side_that_differs():
    page = proof.open_page("p", {"steps": LATEX["steps"].replace("d^{-1/2}", "d^{-1}")})
    with pytest.raises(AssertionError, match="this side differs from the one before") as caught:
        page.check("steps", SCORES)
    _, line, caret = str(caught.value).split("\n")
    assert line[caret.index("^") :].startswith("d^{-1}")


def test_every_line_of_a_derivation_counts(page):
    page.check("steps", SCORES)
    assert page.recheck("steps", LATEX["steps"].replace(r"/ \sqrt d", "/ d")) > 0.1
    assert page.recheck("steps", LATEX["steps"].replace("-1/2", "-1")) > 0.1


def test_a_mistake_that_is_not_refuted_fails(page):
    harmless = proof.edit(r"\sqrt d", r"\sqrt{d}", "writes braces")
    with pytest.raises(AssertionError, match="scores: the mistake 'writes braces' is not refuted"):
        page.check("scores", SCORES, mistakes=[harmless])
    assert not page.evidence


def test_a_mistake_edits_what_is_printed(page):
    with pytest.raises(ValueError, match=r"scores: the mistake 'why' .*not printed"):
        page.check("scores", SCORES, mistakes=[proof.edit(r"\sqrt D", "D", "why")])


def test_a_mistake_must_be_a_formula(page):
    with pytest.raises(proof.FormulaError, match="scores: the mistake 'typo' is no formula"):
        page.check("scores", SCORES, mistakes=[proof.edit(r"\sqrt d", r"\sqrt{d", "typo")])
    with pytest.raises(proof.FormulaError, match="unknown symbol e_Q"):
        page.check("scores", SCORES, mistakes=[proof.edit(r"\sqrt d", r"\sqrt{e_Q}", "typo")])


def test_a_formula_that_is_not_read_names_its_label():
    page = proof.open_page("p", {"scores": r"\mathbf S \approx \mathbf Q"})
    with pytest.raises(proof.FormulaError, match=r"scores: unknown command \\approx"):
        page.check("scores", SCORES)


def test_a_label_that_is_not_on_the_page(page):
    with pytest.raises(ValueError, match="no display of attention/scores has the label score: did"):
        page.check("score", SCORES)
    with pytest.raises(ValueError, match=r"the label xyz: label a \{math\} directive with it"):
        page.check("xyz", SCORES)


def test_a_gradient_is_measured_against_the_largest_of_the_computation():
    # b shifts all scores of a row: its gradient is zero, and rounding must not count as an error.
    biased = proof.Computation(
        {"S": "T U", "b": "T 1", "V": "U c"},
        {"A": lambda S, b: torch.softmax(S + b, -1), "O": lambda A, V: A @ V},
    )
    page = proof.open_page("p", {"zero": r"\frac{\partial \ell}{\partial \mathbf b} = \mathbf 0"})
    page.check("zero", biased)


def test_oracles_that_disagree_name_the_label():
    class Zero(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return 2 * x

        @staticmethod
        def backward(ctx, grad):
            return 0 * grad

    page = proof.open_page("p", {"g": r"\frac{\partial \ell}{\partial \mathbf X} = \mathbf 0"})
    with pytest.raises(AssertionError, match="g: the oracles disagree about the gradient of X"):
        page.check("g", proof.Computation({"X": "T d"}, {"Y": lambda X: Zero.apply(X)}))


@pytest.mark.filterwarnings("error")
def test_not_a_number_is_an_error():
    page = proof.open_page("p", {"nan": r"\mathbf Y = \log(-\mathbf X \odot \mathbf X)"})
    with pytest.raises(AssertionError, match="relative error inf"):
        page.check("nan", proof.Computation({"X": "T d"}, {"Y": lambda X: X**2}))


# Edits


def test_edits_replace_all_or_one():
    assert proof.edit("a", "b", "w").of("a a a") == "b b b"
    assert proof.edit("a", "b", "w", occurrence=0).of("a a a") == "b a a"
    assert proof.edit("a", "b", "w", occurrence=1).of("a a a") == "a b a"
    assert proof.edit("a", "b", "w", occurrence=-1).of("a a a") == "a a b"
    assert proof.edit("a", "b", "w", occurrence=-3).of("a a a") == "b a a"
    with pytest.raises(ValueError, match="of which there are 3"):
        proof.edit("a", "b", "w", occurrence=3).of("a a a")
    with pytest.raises(ValueError, match="changes nothing"):
        proof.edit("a", "a", "w")


# Checking again


def test_a_check_can_be_repeated_with_another_formula(page):
    page.check("scores", SCORES)
    assert page.recheck("scores", LATEX["scores"]) < 1e-15
    assert page.recheck("scores", LATEX["scores"].replace(r"\mathbf Q", r"-\mathbf Q")) == (
        pytest.approx(2)
    )
    assert page.recheck("scores", r"\mathbf S = \mathbf Q \mathbf K") == inf
    with pytest.raises(proof.FormulaError):
        page.recheck("scores", r"\mathbf S = \mathbf Q \mathbf K^\top}")
    with pytest.raises(ValueError, match="mean was not checked"):
        page.recheck("mean", LATEX["mean"])


def test_a_check_says_whether_another_formula_would_pass(page):
    page.check("scores", SCORES, tolerance=1e-9)
    assert page.holds("scores", LATEX["scores"])
    assert page.holds("scores", LATEX["scores"].replace("d}", "d + 10^{-10}}"))
    assert not page.holds("scores", LATEX["scores"].replace("d}", "d + 10^{-8}}"))
    assert not page.holds("scores", r"\mathbf S = \mathbf Q \mathbf K")
    assert not page.holds("scores", r"\mathbf S = \mathbf R")
    with pytest.raises(proof.FormulaError):
        page.holds("scores", r"\mathbf S = \mathbf Q \mathbf K^\top}")
    with pytest.raises(ValueError, match="mean was not checked"):
        page.holds("mean", LATEX["mean"])


def test_mutants_are_to_be_had_of_what_was_checked(page):
    page.check("scores", SCORES)
    assert len(page.mutants("scores")) == 5
    with pytest.raises(ValueError, match="mean was not checked"):
        page.mutants("mean")


# Files

CHAPTER = """# Scores

```{math}
:label: scores
\\mathbf S = \\frac{\\mathbf Q \\mathbf K^\\top}{\\sqrt d}
```
"""


def test_a_chapter_is_found_upwards_and_errors_are_noted_beside_the_build(tmp_path, monkeypatch):
    (tmp_path / "book" / "attention").mkdir(parents=True)
    (tmp_path / "book" / "attention" / "scores.md").write_text(CHAPTER)
    monkeypatch.chdir(tmp_path / "book" / "attention")
    page = proof.open_page("attention/scores")
    assert page.equations == {"scores": LATEX["scores"]}
    page.check("scores", SCORES)
    text = (tmp_path / "_build" / "ledger" / "attention" / "scores.json").read_text()
    page.check("scores", SCORES)
    noted = json.loads(text)
    assert len(noted["scores"]) == 5
    assert max(noted["scores"]) < 1e-12
    assert re.findall("(?m)^  (.*?),?$", text) == [str(error) for error in noted["scores"]]


def test_nothing_is_written_where_there_is_no_book(tmp_path, monkeypatch, page):
    monkeypatch.chdir(tmp_path)
    page.check("scores", SCORES)
    assert list(tmp_path.iterdir()) == []


def test_a_chapter_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no book/attention/scores.md in .* or above"):
        proof.open_page("attention/scores")


def test_two_displays_with_one_label(tmp_path, monkeypatch):
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "scores.md").write_text(CHAPTER + CHAPTER)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"line 9: the label scores is taken"):
        proof.open_page("scores")


@pytest.mark.parametrize(
    ("error", "text"),
    [(0.3999, "0.3"), (0.0123, "0.01"), (1.0, "1"), (47.1, "40"), (inf, "not finite"), (9.99, "9")],
)
def test_errors_are_rounded_down_to_one_digit(error, text):
    assert one_digit(error) == text


def test_random_cases_differ_between_labels(page):
    page.check("scores", SCORES)
    page.check("grad-q", SCORES)
    first, second = (page._checks[label].cases[0].arrays["Q"] for label in ("scores", "grad-q"))
    assert first.shape != second.shape or not np.allclose(first, second)


@pytest.mark.parametrize("occurrence", [None, 0])
def test_a_lost_line_leaves_no_gap_in_which_a_formula_would_end(occurrence):
    lost = proof.edit("&= b", "", "a step is lost", occurrence=occurrence)
    assert lost.of("a\n&= b\n&= c") == "a\n&= c"
