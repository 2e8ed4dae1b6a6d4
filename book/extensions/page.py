"""What the theme and the exercises leave to be wished for on a page."""

from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx_exercise.nodes import solution_node, solution_title


def visit_solution(translator: Any, node: nodes.Element) -> None:
    """Fold a solution away, without a script."""
    translator.body.append(translator.starttag(node, "details", CLASS="admonition"))


def depart_solution(translator: Any, node: nodes.Element) -> None:
    translator.body.append("</details>\n")


def visit_solution_title(translator: Any, node: nodes.Element) -> None:
    title = translator.encode(" ".join(node.astext().split()))
    translator.body.append(f'<summary class="admonition-title">{title}</summary>\n')
    raise nodes.SkipNode


def name_once(app: Sphinx, doctree: nodes.document) -> None:
    """Tell apart the identifiers that sphinx-exercise gives to every exercise alike."""
    for section in doctree.findall(nodes.section):
        if section["ids"] in (["exercise-content"], ["solution-content"]):
            section["ids"] = [nodes.make_id(f"{section.parent['ids'][0]}-content")]


def setup(app: Sphinx) -> dict[str, Any]:
    # Jupyter Book sets it for an extension that this book does without
    app.add_config_value("comments_config", {}, "")
    app.add_node(solution_node, override=True, html=(visit_solution, depart_solution))
    app.add_node(solution_title, override=True, html=(visit_solution_title, None))
    app.connect("doctree-read", name_once)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
