"""What the book's extensions promise, without building anything."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from docutils import nodes
from markdown_it import MarkdownIt
from nbformat.v4 import new_code_cell, new_output

sys.path.insert(0, str(Path(__file__).parents[2] / "book" / "extensions"))

import api
import execution
import ledger
import notebooks

# What a chapter depends on -----------------------------------------------------------------------


@pytest.fixture
def package(tmp_path):
    (tmp_path / "nn").mkdir()
    (tmp_path / "nn" / "linear.py").write_text("a = 1\n")
    (tmp_path / "digits.npz").write_bytes(b"digits")
    return tmp_path


def test_digest_follows_code_data_and_names(package):
    seen = {execution.digest_of_files(package)}
    for change in (
        lambda: (package / "nn" / "linear.py").write_text("a = 2\n"),
        lambda: (package / "digits.npz").write_bytes(b"digit"),
        lambda: (package / "digits.npz").rename(package / "letters.npz"),
        lambda: (package / "nn" / "softmax.py").touch(),
    ):
        change()
        seen.add(execution.digest_of_files(package))
    assert len(seen) == 5


def test_digest_follows_the_lock_file(package, tmp_path_factory):
    lock = tmp_path_factory.mktemp("lock") / "requirements.lock"
    without = execution.digest_of_files(package, lock)
    lock.write_text("torch==1\n")
    assert execution.digest_of_files(package, lock) != without


def test_digest_ignores_what_python_leaves_behind(package):
    before = execution.digest_of_files(package)
    (package / "__pycache__").mkdir()
    (package / "__pycache__" / "linear.pyc").write_bytes(b"code")
    assert execution.digest_of_files(package) == before


def cache_of(folder: Path, text: str, library: str = "a") -> str:
    page = folder / "page.md"
    page.write_text(text)
    settings = SimpleNamespace(execution_cache_path="")
    settings.copy = lambda execution_cache_path: SimpleNamespace(
        copy=settings.copy, path=execution_cache_path
    )
    env = SimpleNamespace(doc2path=lambda name: str(page), mystnb_config=settings)
    config = SimpleNamespace(book_library=library)
    app = SimpleNamespace(env=env, config=config, outdir=str(folder / "_build" / "html"))
    execution.choose_cache(app, "page", [text])
    return env.mystnb_config.path


def test_chapter_runs_again_when_an_equation_changes_and_not_for_words(tmp_path):
    equation = "```{math}\n:label: eq-a\na = b\n```\n"
    first = cache_of(tmp_path, f"# Page\n{equation}")
    assert cache_of(tmp_path, f"# Another title\n\nMore words.\n{equation}") == first
    assert cache_of(tmp_path, "# Page\n" + equation.replace("b", "c")) != first
    assert cache_of(tmp_path, f"# Page\n{equation}", library="b") != first


# Evidence ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "latex"),
    [(1e-12, "10^{-12}"), (3e-9, r"3 \cdot 10^{-9}"), (0.4, "0.4"), (20.0, "20"), (1e5, "10^{5}")],
)
def test_errors_are_typeset(number, latex):
    assert ledger._scientific(number) == latex


def test_counts_agree_with_their_nouns():
    assert ledger._count(1, "case") == "1 case"
    assert ledger._count(1200, "case") == "1\N{NARROW NO-BREAK SPACE}200 cases"


def test_a_check_is_shown_with_the_computations_that_it_names():
    cells = [
        ledger.Check(nodes.Element(), "other = 1", []),
        ledger.Check(nodes.Element(), "attention = Computation()", []),
        ledger.Check(nodes.Element(), "page.check('eq', attention)", ["evidence"]),
    ]
    assert ledger._setup_of(cells[2], cells) == ["attention = Computation()"]


# Notebooks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    ["2 * 3 * 4", "snake_case_name", "a < b", "$5 and $6", "[brackets](here)", "1. not a list",
     "# not a heading", "- not a list", "> not a quotation", r"back\slash", "`code`"],
)  # fmt: skip
def test_escaped_text_is_shown_as_it_is(text):
    shown = MarkdownIt().render(notebooks.escape(text))
    plain = shown.strip().removeprefix("<p>").removesuffix("</p>")
    assert plain.replace("&lt;", "<").replace("&gt;", ">") == text


@pytest.mark.parametrize("latex", [r"\frac{a}{b}", "a \\\\\nb", 'a "quoted"', "ends in \\", '"""'])
def test_equations_survive_as_python(latex):
    assert eval(notebooks.raw_string(latex)) == latex


def test_page_is_opened_with_its_equations():
    cell = new_code_cell('page = proof.open_page("attention/gradients")\nprint(1)')
    equations, code = notebooks.code_cells(cell, {"eq-a": r"\mathbf A = \mathbf B"})
    found: dict[str, dict[str, str]] = {}
    exec(equations.source, found)
    assert found[notebooks.LATEX_NAME] == {"eq-a": r"\mathbf A = \mathbf B"}
    assert code.source.startswith(
        f'page = proof.open_page("attention/gradients", equations={notebooks.LATEX_NAME})\n'
    )


def test_a_figure_keeps_its_png_only():
    output = new_output("display_data", {"text/html": "<svg/>", "image/png": "", "text/plain": ""})
    whole = notebooks.notebook_of([new_code_cell("draw()", outputs=[output])])
    plain = notebooks.with_plain_outputs(whole)
    assert set(plain.cells[0].outputs[0].data) == {"image/png", "text/plain"}
    assert set(whole.cells[0].outputs[0].data) == {"text/html", "image/png", "text/plain"}


# The library's page ------------------------------------------------------------------------------


def processed(text: str, what: str = "module") -> list[str]:
    lines = text.split("\n")
    api.keep_formulas(None, what, "name", None, None, lines)
    return lines


def test_formulas_keep_their_lines_and_sections_their_meaning():
    assert processed("Softmax.\n\n    a = b\n\nMore.") == [
        "Softmax.", "", ".. code-block:: none", "", "    a = b", "", "More.",
    ]  # fmt: skip
    for text in ("Args:\n    x: input.", "Run::\n\n    code()", "Raises:\n    ValueError: never."):
        assert processed(text) == text.split("\n")


@pytest.mark.parametrize("line", [":param dim: D.", "N."])
def test_a_letter_is_not_the_number_of_a_list(line):
    lines = [line]
    api.keep_letters(None, "method", "name", None, None, lines)
    assert lines == [line[:-2] + "\\" + line[-2:]]


def test_a_colon_in_a_constant_is_no_type():
    lines = processed("For amounts: nothing is pale.", "data")
    assert ":" not in lines[0]
    api.keep_letters(None, "data", "name", None, None, lines)
    assert lines == ["For amounts: nothing is pale."]
