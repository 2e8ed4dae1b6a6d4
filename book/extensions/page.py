"""What the theme and the exercises leave to be wished for on a page."""

from dataclasses import dataclass, field
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx_exercise.nodes import solution_node
from sphinxcontrib.bibtex.plugin import register_plugin
from sphinxcontrib.bibtex.style.referencing import BracketStyle
from sphinxcontrib.bibtex.style.referencing.author_year import AuthorYearReferenceStyle


def visit_solution(translator: Any, node: nodes.Element) -> None:
    """Fold a solution away, without a script."""
    title = translator.encode(node.pop(0).astext())
    translator.body.append(translator.starttag(node, "details", CLASS="admonition"))
    translator.body.append(f'<summary class="admonition-title">{title}</summary>\n')


def depart_solution(translator: Any, node: nodes.Element) -> None:
    translator.body.append("</details>\n")


def visit_citation(translator: Any, node: nodes.Element) -> None:
    """Open a plain box: the roles that docutils gives are no longer allowed there."""
    translator.body.append(translator.starttag(node, "div", CLASS="citation"))


def depart_citation(translator: Any, node: nodes.Element) -> None:
    translator.body.append("</div>\n")


def name_once(app: Sphinx, doctree: nodes.document) -> None:
    """Tell apart the identifiers that sphinx-exercise gives to every exercise alike."""
    for section in doctree.findall(nodes.section):
        if section["ids"] in (["exercise-content"], ["solution-content"]):
            section["ids"] = [nodes.make_id(f"{section.parent['ids'][0]}-content")]


@dataclass
class RoundAuthorYear(AuthorYearReferenceStyle):
    """Citations as prose has them: Vaswani et al. (2017), or in brackets (Vaswani et al., 2017)."""

    bracket_parenthetical: BracketStyle = field(default_factory=lambda: BracketStyle("(", ")"))
    bracket_textual: BracketStyle = field(default_factory=lambda: BracketStyle("(", ")"))
    bracket_author: BracketStyle = field(default_factory=lambda: BracketStyle("(", ")"))
    bracket_label: BracketStyle = field(default_factory=lambda: BracketStyle("(", ")"))
    bracket_year: BracketStyle = field(default_factory=lambda: BracketStyle("(", ")"))


def setup(app: Sphinx) -> dict[str, Any]:
    # Jupyter Book sets it for an extension that this book does without
    app.add_config_value("comments_config", {}, "")
    app.add_node(solution_node, override=True, html=(visit_solution, depart_solution))
    app.add_node(nodes.citation, override=True, html=(visit_citation, depart_citation))
    app.connect("doctree-read", name_once)
    register_plugin("sphinxcontrib.bibtex.style.referencing", "author_year_round", RoundAuthorYear)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
