"""Chapters as notebooks: plain Markdown, images inside, runnable from an empty folder.

While a chapter's HTML is written, its resolved doctree (numbers and references settled) is also
written as Markdown between the cells of the executed notebook, to `_build/notebooks` and, for the
page's download button, into the HTML. `_build/nbval` has every code cell, also those of solutions,
and all that they put out, for nbval to run and compare with.
"""

import base64
import copy
import mimetypes
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import nbformat
from docutils import nodes
from ledger import CheckCell, Mark
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx_design.dropdown import dropdown_main, dropdown_title
from sphinx_exercise.nodes import is_exercise_node, is_solution_node

from vitlib.proof.chapter import equations
from vitlib.proof.evidence import MIME

LOGGER = logging.getLogger(__name__)
NEEDS = (
    "*This notebook is a chapter of* The Vision Transformer, Derived. *It needs the package "
    "`vitlib`, installed with* `pip install '.[book]'` *in the book's repository.*"
)
LATEX_NAME = "equations_on_the_page"


def write_notebook(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Write the notebook of a page that has code."""
    if app.builder.format != "html" or not _is_chapter(doctree):
        return
    build = Path(app.outdir).parent
    executed = nbformat.read(build / "jupyter_execute" / f"{docname}.ipynb", as_version=4)
    displays = equations(app.env.doc2path(docname))
    printed = {display.label: display.latex for display in displays if display.label}
    published = with_plain_outputs(Exporter(app, docname).notebook(doctree, executed, printed))
    for folder, notebook in (
        (build / "nbval", notebook_of(all_code(executed, printed))),
        (build / "notebooks", published),
        (Path(app.outdir) / "notebooks", published),
    ):
        path = folder / name_of(docname)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8")


def offer_notebook(
    app: Sphinx,
    pagename: str,
    template: str,
    context: dict[str, Any],
    doctree: nodes.document | None,
) -> None:
    """Tell the page's header where its notebook is."""
    if doctree is not None and _is_chapter(doctree):
        context["notebook"] = name_of(pagename)


def name_of(docname: str) -> str:
    """`book/attention/gradients` is published as `attention/gradients.ipynb`."""
    return docname.removeprefix("book/") + ".ipynb"


def _is_chapter(doctree: nodes.document) -> bool:
    return any(True for node in doctree.findall(nodes.Element) if _cell_index(node) is not None)


def _cell_index(node: nodes.Node) -> int | None:
    if isinstance(node, CheckCell):
        return node["cell_index"]
    if isinstance(node, nodes.container) and node.get("nb_element") == "cell_code":
        return node["cell_index"]
    return None


class Exporter:
    """Writes one page as a notebook.

    Args:
        app: the application that resolved the page.
        docname: the page.
    """

    def __init__(self, app: Sphinx, docname: str) -> None:
        self.app, self.docname = app, docname
        self.attachments: dict[str, dict[str, str]] = {}
        self.cited: dict[str, None] = {}
        self.footnotes: list[str] = []

    # Cells --------------------------------------------------------------------------------------

    def notebook(
        self, doctree: nodes.document, executed: NotebookNode, printed: dict[str, str]
    ) -> NotebookNode:
        """Join the page's text and the executed cells."""
        cells: list[NotebookNode] = []
        text: list[str] = []

        def close_text() -> None:
            if source := "\n\n".join(filter(None, text)).strip():
                cell = new_markdown_cell(source)
                if self.attachments:
                    cell.attachments = self.attachments
                cells.append(cell)
            text.clear()
            self.attachments = {}

        for piece in self.pieces(doctree, 0):
            if isinstance(piece, str):
                text.append(piece)
                if len(cells) == 0 and len(text) == 1:
                    text.append(NEEDS)
            else:
                close_text()
                cells += code_cells(executed.cells[piece], printed)
        if self.footnotes:
            text += ["---", *self.footnotes]
        if self.cited:
            text += ["## References", "\n".join(f"- {entry}" for entry in self.cited)]
        close_text()
        return notebook_of(cells)

    def pieces(self, node: nodes.Node, level: int) -> Iterator[str | int]:
        """Yield Markdown, and for a code cell its index."""
        index = _cell_index(node)
        if index is not None:
            yield index
        elif isinstance(node, nodes.document):
            for child in node.children:
                yield from self.pieces(child, level)
        elif isinstance(node, nodes.section):
            for child in node.children:
                yield from self.pieces(child, level + 1)
        elif is_exercise_node(node):
            yield f"{'#' * (level + 1)} {self.exercise_title(node)}"
            for child in node.children[1:]:
                yield from self.pieces(child, level)
        elif isinstance(node, nodes.title):
            yield f"{'#' * level} {self.inline(node)}"
        else:
            yield self.block(node)

    def exercise_title(self, node: nodes.Element) -> str:
        numbers = self.app.env.toc_fignumbers[self.docname]["exercise"][node["ids"][0]]
        subtitle = self.inline(node[0]).strip().removeprefix("(").removesuffix(")")
        return f"Exercise {'.'.join(map(str, numbers))}{': ' * bool(subtitle)}{subtitle}"

    # Blocks -------------------------------------------------------------------------------------

    def block(self, node: nodes.Node) -> str:
        """Write a block as Markdown."""
        if isinstance(node, SILENT):
            return ""
        if is_solution_node(node):
            return self.folded(self.inline(node[0]), node.children[1:])
        if isinstance(node, dropdown_main):
            title = node.next_node(dropdown_title)
            rest = [child for child in node.children if child is not title]
            return self.folded(self.inline(title), rest)
        if isinstance(node, nodes.Admonition):
            return self.admonition(node)
        for kind, write in BLOCKS.items():
            if isinstance(node, kind):
                return write(self, node)
        LOGGER.warning(
            "no Markdown for %s: teach notebooks.py to write it",
            type(node).__name__,
            location=node,
            type="notebooks",
        )
        return ""

    def blocks(self, children: list[nodes.Node]) -> str:
        return "\n\n".join(filter(None, map(self.block, children)))

    def folded(self, title: str, children: list[nodes.Node]) -> str:
        summary = re.sub(r"\\([^\w\s])", r"\1", title)
        inner = self.blocks(children)
        return f"<details>\n<summary>{summary}</summary>\n\n{inner}\n\n</details>"

    def admonition(self, node: nodes.Element) -> str:
        has_title = isinstance(node[0], nodes.title)
        title = self.inline(node[0]) if has_title else node.tagname.capitalize()
        return quote(f"**{title}**\n\n{self.blocks(node.children[int(has_title) :])}")

    def display(self, node: nodes.Element) -> str:
        latex = node.astext().strip()
        if r"\\" in latex and r"\begin{" not in latex:
            latex = f"\\begin{{aligned}}\n{latex}\n\\end{{aligned}}"
        tag = f"\n\\tag{{{node['number']}}}" if node.get("number") else ""
        return f"$$\n{latex}{tag}\n$$"

    def code(self, node: nodes.Element) -> str:
        language = {"ipython3": "python", "default": "", "none": ""}.get(
            node.get("language", ""), node.get("language", "")
        )
        return f"```{language}\n{node.astext()}\n```"

    def source_of_cell(self, node: nodes.Element) -> str:
        """Show a cell that stands where a notebook cannot have one, such as inside a solution."""
        if node.get("nb_element") == "cell_code":
            return self.code(next(iter(node.findall(nodes.literal_block))))
        return self.blocks(node.children)

    def bullets(self, node: nodes.Element) -> str:
        return "\n".join(indent(self.blocks(item.children), "- ") for item in node.children)

    def numbered(self, node: nodes.Element) -> str:
        first = node.get("start", 1)
        return "\n".join(
            indent(self.blocks(item.children), f"{number}. ")
            for number, item in enumerate(node.children, first)
        )

    def definitions(self, node: nodes.Element) -> str:
        entries = []
        for item in node.findall(nodes.definition_list_item):
            terms = [self.inline(term) for term in item.children if isinstance(term, nodes.term)]
            meaning = self.blocks(next(iter(item.findall(nodes.definition))).children)
            entries.append(indent(f"**{', '.join(terms)}** — {meaning}", "- "))
        return "\n".join(entries)

    def table(self, node: nodes.Element) -> str:
        rows = [
            [self.cell_text(entry) for entry in row.children] for row in node.findall(nodes.row)
        ]
        titles = [self.inline(title) for title in node.children if isinstance(title, nodes.title)]
        lines = ["| " + " | ".join(row) + " |" for row in rows]
        lines.insert(1, "|" + " --- |" * len(rows[0]))
        return "\n\n".join([*(f"**{title}**" for title in titles), "\n".join(lines)])

    def cell_text(self, entry: nodes.Element) -> str:
        return (
            self.blocks(entry.children)
            .replace("\n\n", "<br>")
            .replace("\n", " ")
            .replace("|", r"\|")
        )

    def figure(self, node: nodes.Element) -> str:
        parts = [
            f"*{self.inline(child)}*" if isinstance(child, nodes.caption) else self.block(child)
            for child in node.children
        ]
        return "\n\n".join(filter(None, parts))

    def image(self, node: nodes.Element) -> str:
        path = Path(self.app.srcdir) / node["uri"]
        if not path.is_file():  # after the builder has renamed it
            path = Path(self.app.srcdir) / node["original_uri"].lstrip("/")
        kind = mimetypes.guess_type(path.name)[0] or "image/png"
        self.attachments[path.name] = {kind: base64.b64encode(path.read_bytes()).decode("ascii")}
        return f"![{escape(node.get('alt', ''))}](attachment:{path.name})"

    def footnote(self, node: nodes.Element) -> str:
        label = node[0].astext()
        self.footnotes.append(f"<sup>{label}</sup> {self.blocks(node.children[1:])}")
        return ""

    # Text ---------------------------------------------------------------------------------------

    def inline(self, node: nodes.Node) -> str:
        """Write running text as Markdown."""
        if isinstance(node, nodes.Text):
            return escape(str(node))
        if isinstance(node, nodes.math):
            return f"${node.astext().strip()}$"
        if isinstance(node, nodes.literal):
            return f"`{node.astext()}`"
        if isinstance(node, nodes.image):
            return self.image(node)
        if isinstance(node, nodes.footnote_reference):
            return f"<sup>{node.astext()}</sup>"
        if isinstance(node, (nodes.raw, nodes.target, addnodes.index)):
            return ""
        text = "".join(map(self.inline, node.children))
        if isinstance(node, nodes.reference):
            return self.link(node, text)
        for kind, mark in MARKS.items():
            if isinstance(node, kind):
                return f"{mark}{text}{mark.replace('<', '</')}"
        return text

    def link(self, node: nodes.Element, text: str) -> str:
        """Link to what is outside; name what is in the book, or link to its site if it has one."""
        if "bibtex" in " ".join(node.parent.get("classes", [])) or node.get("reftitle"):
            self.cited[escape(node["reftitle"])] = None
            return text
        target = node.get("refuri", "")
        if not node.get("internal"):
            return f"[{text}]({target})" if target else text
        site = self.app.config.html_baseurl
        if not site or not target or target.startswith("#"):
            return text
        here = urljoin(site.rstrip("/") + "/", self.app.builder.get_target_uri(self.docname))
        return f"[{text}]({urljoin(here, target)})"


SILENT = (
    Mark,
    nodes.Invisible,
    nodes.system_message,
    nodes.docinfo,
    addnodes.toctree,
    addnodes.index,
    addnodes.tabular_col_spec,
)

MARKS: dict[type[nodes.Node], str] = {
    nodes.strong: "**",
    nodes.emphasis: "*",
    nodes.subscript: "<sub>",
    nodes.superscript: "<sup>",
}

BLOCKS: dict[type[nodes.Node], Callable[[Exporter, Any], str]] = {
    nodes.paragraph: Exporter.inline,
    nodes.math_block: Exporter.display,
    nodes.literal_block: Exporter.code,
    nodes.bullet_list: Exporter.bullets,
    nodes.enumerated_list: Exporter.numbered,
    nodes.definition_list: Exporter.definitions,
    nodes.table: Exporter.table,
    nodes.figure: Exporter.figure,
    nodes.image: Exporter.image,
    nodes.footnote: Exporter.footnote,
    nodes.legend: lambda self, node: self.blocks(node.children),
    nodes.block_quote: lambda self, node: quote(self.blocks(node.children)),
    nodes.rubric: lambda self, node: f"**{self.inline(node)}**",
    nodes.transition: lambda self, node: "---" if "footnotes" not in node["classes"] else "",
    nodes.line_block: lambda self, node: "  \n".join(map(self.inline, node.children)),
    nodes.raw: lambda self, node: node.astext() if "html" in node["format"] else "",
    nodes.section: lambda self, node: self.blocks(node.children),
    nodes.container: Exporter.source_of_cell,
    nodes.compound: lambda self, node: self.blocks(node.children),
    addnodes.glossary: lambda self, node: self.blocks(node.children),
}


def notebook_of(cells: list[NotebookNode]) -> NotebookNode:
    """Number cells, and say what runs them."""
    for number, cell in enumerate(cells):
        cell.id = f"cell-{number}"
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return new_notebook(cells=cells, metadata=metadata)


def all_code(executed: NotebookNode, printed: dict[str, str]) -> list[NotebookNode]:
    """The code cells of a chapter, which then need no file of the book."""
    code = (cell for cell in executed.cells if cell.cell_type == "code")
    return [piece for cell in code for piece in code_cells(cell, printed)]


def code_cells(cell: NotebookNode, printed: dict[str, str]) -> list[NotebookNode]:
    """Turn an executed cell into one that needs no file of the book.

    Args:
        cell: as it was executed.
        printed: the page's equations by label; `proof.open_page` is handed them.
    """
    source, calls = re.subn(
        r'open_page\(\s*("[^"]*")\s*\)', rf"open_page(\1, equations={LATEX_NAME})", cell.source
    )
    metadata = copy.deepcopy(cell.metadata)
    if {"hide-input", "remove-input"} & set(metadata.get("tags", ())):
        metadata["jupyter"] = {"source_hidden": True}
    code = new_code_cell(
        source, outputs=cell.outputs, metadata=metadata, execution_count=cell.execution_count
    )
    if not calls:
        return [code]
    lines = [f'    "{label}": {raw_string(latex)},' for label, latex in printed.items()]
    definition = "\n".join([f"{LATEX_NAME} = {{", *lines, "}"])
    hidden = {"tags": ["hide-input"], "jupyter": {"source_hidden": True}}
    return [
        new_code_cell(
            f"# The equations of this page, as printed: the checks read them.\n{definition}",
            metadata=hidden,
        ),
        code,
    ]


def with_plain_outputs(notebook: NotebookNode) -> NotebookNode:
    """Keep of a figure its PNG, and of a check what a reader can read."""
    notebook = copy.deepcopy(notebook)
    for output in (output for cell in notebook.cells for output in cell.get("outputs", ())):
        data = output.get("data", {})
        data.pop(MIME, None)
        if "image/png" in data:
            data.pop("text/html", None)
    return notebook


def raw_string(text: str) -> str:
    """Write LaTeX as a Python literal in which its backslashes stand as they are."""
    if '"""' in text or text.endswith(("\\", '"')):
        return repr(text)
    return f'r"""{text}"""' if "\n" in text else f'r"{text}"' if '"' not in text else repr(text)


def escape(text: str) -> str:
    """Let characters that Markdown would read stand for themselves."""
    text = re.sub(r"([\\`*_\[\]<$])", r"\\\1", text)
    return re.sub(
        r"^(\d+)([.)] )|^([#>+-] )", lambda m: f"{m[1]}\\{m[2]}" if m[1] else f"\\{m[3]}", text
    )


def quote(text: str) -> str:
    return "\n".join(f"> {line}".rstrip() for line in text.splitlines())


def indent(text: str, mark: str) -> str:
    first, *rest = text.splitlines() or [""]
    return "\n".join([mark + first, *((" " * len(mark) + line).rstrip() for line in rest)])


def setup(app: Sphinx) -> dict[str, bool]:
    # after everything that still changes the page
    app.connect("doctree-resolved", write_notebook, priority=900)
    app.connect("html-page-context", offer_notebook)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
