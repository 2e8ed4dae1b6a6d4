"""The ledger on the page: behind each equation, the evidence that it was run as printed.

While a chapter is read, its executed notebook is at hand. Its evidence is held against the displays
on the page by `vitlib.proof.chapter.audit`; each problem is a Sphinx warning, and so an error. Then
each checked equation gets a mark that opens its evidence, the check cells leave the page, and the
`{ledger}` directive lists every equation of the book.
"""

import ast
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.domains.math import MathDomain
from sphinx.environment import BuildEnvironment
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective
from sphinx.util.nodes import make_refnode

from vitlib.proof import chapter

LOGGER = logging.getLogger(__name__)
EVIDENCE = "application/vnd.vitlib.evidence+json"


@dataclass(frozen=True)
class Entry:
    """An equation of the book: where it stands and what is known about it."""

    label: str
    number: int
    latex: str
    evidence: tuple[dict[str, Any], ...]
    is_definition: bool
    where: str  # title of the section

    @property
    def anchor(self) -> str:
        return nodes.make_id(f"equation-{self.label}")


class Mark(nodes.General, nodes.Element):
    """What opens the evidence of one equation; only HTML shows it."""


class CheckCell(nodes.General, nodes.Element):
    """Where a check cell stood: the page shows it in the marks, the notebook in its place."""


class Listing(nodes.General, nodes.Element):
    """Where the list of all equations goes."""


@dataclass(frozen=True)
class Check:
    """A cell tagged `ledger`: its place on the page, what it says and what it found."""

    node: nodes.Element
    source: str
    evidence: list[dict[str, Any]]


# Reading a chapter ------------------------------------------------------------------------------


def read_chapter(app: Sphinx, doctree: nodes.document) -> None:
    """Audit the page that was just read, and put its marks."""
    env, docname = app.env, app.env.docname
    cells = list(_check_cells(app, doctree))
    evidence = [item for cell in cells for item in cell.evidence]
    text = Path(env.doc2path(docname)).read_text(encoding="utf-8")
    for problem in chapter.audit(chapter.equations(text), evidence):
        LOGGER.warning(str(problem), location=docname, type="ledger")

    entries = []
    for display in list(doctree.findall(nodes.math_block)):
        if not display["label"]:
            continue
        label = display["label"]
        checks = [cell for cell in cells if any(item["label"] == label for item in cell.evidence)]
        own = tuple(item for cell in checks for item in cell.evidence if item["label"] == label)
        entry = Entry(
            label,
            display["number"],
            display.astext(),
            own,
            "definition" in display["classes"],
            _heading(display),
        )
        entries.append(entry)
        if own:
            source = "\n\n".join(cell.source for cell in _with_their_setup(checks, cells))
            display.parent.insert(display.parent.index(display) + 1, _mark(entry, source))
    for cell in cells:
        cell.node.replace_self(CheckCell(cell_index=cell.node["cell_index"]))
    _ledger(env)[docname] = entries


def _check_cells(app: Sphinx, doctree: nodes.document) -> Iterator[Check]:
    on_page = [
        node
        for node in doctree.findall(nodes.container)
        if node.get("nb_element") == "cell_code"
        and "ledger" in node["cell_metadata"].get("tags", ())
    ]
    if not on_page:
        return
    path = Path(app.outdir).parent / "jupyter_execute" / f"{app.env.docname}.ipynb"
    notebook = nbformat.read(path, as_version=4)
    for node in on_page:
        cell = notebook.cells[node["cell_index"]]
        data = (output.get("data", {}) for output in cell.outputs)
        yield Check(node, cell.source, [bundle[EVIDENCE] for bundle in data if EVIDENCE in bundle])


def _with_their_setup(checks: list[Check], cells: list[Check]) -> list[Check]:
    """Add to some checks the cells that define the computations they name."""
    wanted = {name for cell in checks for name in _names(cell.source, ast.Load)}
    return [
        cell
        for cell in cells
        if cell in checks or (not cell.evidence and wanted & _names(cell.source, ast.Store))
    ]


def _names(source: str, context: type[ast.expr_context]) -> set[str]:
    return {
        node.id
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Name) and isinstance(node.ctx, context)
    }


def _heading(node: nodes.Node) -> str:
    while node.parent is not None:
        node = node.parent
        if isinstance(node, nodes.section) and isinstance(node[0], nodes.title):
            return node[0].astext()
    return ""


# The mark ---------------------------------------------------------------------------------------


def _mark(entry: Entry, source: str) -> Mark:
    mark = Mark("", number=entry.number, ids=[f"evidence-{entry.anchor}"])
    for item in entry.evidence:
        mark += _verdict(item)
    mistakes = [mistake for item in entry.evidence for mistake in item["mistakes"]]
    if mistakes:
        mark += nodes.paragraph(
            "", "Tempting, and refuted by the same cases:", classes=["evidence-head"]
        )
        mark += nodes.bullet_list("", *map(_mistake, mistakes), classes=["mistakes"])
    mark += nodes.paragraph("", "What was run:", classes=["evidence-head"])
    mark += nodes.literal_block(source, source, language="python")
    return mark


def _verdict(item: dict[str, Any]) -> nodes.paragraph:
    cases = item["cases"]
    text = nodes.paragraph()
    text += nodes.Text("The formula above was read as it is printed and compared with ")
    text += nodes.strong("", item["oracle"])
    text += nodes.Text(f" in {cases} random case{'s' if cases > 1 else ''}. Largest error ")
    text += nodes.math("", _bound(item["bound"]))
    text += nodes.Text(".")
    return text


def _mistake(mistake: dict[str, Any]) -> nodes.list_item:
    latex = mistake["latex"]
    display = nodes.math_block(latex, latex, label=None, number=None, nowrap=False)
    why = nodes.paragraph()
    why += nodes.Text(f"{mistake['why'][:1].upper()}{mistake['why'][1:]}: off by ")
    why += nodes.math("", _size(mistake["error"]))
    why += nodes.Text(".")
    return nodes.list_item("", display, why)


def _bound(bound: float) -> str:
    """Write a bound as a power of ten: it is one."""
    return rf"\le 10^{{{round(math.log10(bound))}}}"


def _size(error: float) -> str:
    mantissa, exponent = f"{error:.1e}".split("e")
    power = int(exponent)
    return f"{error:.2g}" if -2 <= power <= 2 else rf"{mantissa} \cdot 10^{{{power}}}"


def visit_mark(translator: Any, node: Mark) -> None:
    translator.body.append(translator.starttag(node, "details", CLASS="mark"))
    translator.body.append(
        '<summary><span class="tick" aria-hidden="true"></span>run as printed'
        f'<span class="visually-hidden">: evidence for equation ({node["number"]})</span></summary>\n'
        '<div class="evidence">\n'
    )


def depart_mark(translator: Any, node: Mark) -> None:
    translator.body.append("</div></details>\n")


def skip(translator: Any, node: nodes.Node) -> None:
    raise nodes.SkipNode


# The list of all equations ----------------------------------------------------------------------


class LedgerDirective(SphinxDirective):
    """`{ledger}`: every equation of the book, in the order of its contents."""

    def run(self) -> list[nodes.Node]:
        _listings(self.env).add(self.env.docname)
        # the formula makes Sphinx load MathJax on this page; it is replaced with the rest
        return [Listing("", nodes.math("", "1"))]


def fill_listing(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Replace `{ledger}` by the list."""
    for listing in list(doctree.findall(Listing)):
        listing.replace_self(list(_listing(app, docname)))


def _listing(app: Sphinx, docname: str) -> Iterator[nodes.Node]:
    env = app.env
    pages = [(page, _ledger(env)[page]) for page in _reading_order(env) if _ledger(env).get(page)]
    checked = [entry for _, entries in pages for entry in entries if entry.evidence]
    definitions = [entry for _, entries in pages for entry in entries if entry.is_definition]
    mistakes = sum(len(item["mistakes"]) for entry in checked for item in entry.evidence)
    cases = sum(item["cases"] for entry in checked for item in entry.evidence)
    yield nodes.paragraph(
        "",
        f"{_count(len(checked), 'equation')} run as printed, in {_count(cases, 'random case')}; "
        f"{_count(mistakes, 'tempting mistake')} refuted; {_count(len(definitions), 'definition')}.",
        classes=["ledger-summary"],
    )
    for page, entries in pages:
        own = [entry for entry in entries if entry.evidence]
        if own:
            yield _section(app, docname, page, own)
    if definitions:
        yield nodes.rubric("", "Definitions", ids=["definitions"], classes=["ledger-chapter"])
        yield nodes.paragraph("", "These name things. There is nothing in them to run.")
        for page, entries in pages:
            own = [entry for entry in entries if entry.is_definition]
            if own:
                yield _rows(app, docname, page, own)


def _section(app: Sphinx, docname: str, page: str, entries: list[Entry]) -> nodes.Element:
    title = nodes.rubric("", "", classes=["ledger-chapter"])
    title += make_refnode(app.builder, docname, page, "", nodes.Text(app.env.titles[page].astext()))
    return nodes.container("", title, _rows(app, docname, page, entries), classes=["ledger"])


def _rows(app: Sphinx, docname: str, page: str, entries: list[Entry]) -> nodes.Element:
    rows = nodes.container(classes=["ledger-rows"])
    for entry in entries:
        number = nodes.Text(f"({entry.number}) {entry.where}")
        link = make_refnode(app.builder, docname, page, entry.anchor, number)
        head = nodes.paragraph("", "", link, classes=["ledger-head"])
        if entry.is_definition:
            head.insert(0, nodes.Text(f"{app.env.titles[page].astext()} "))
        rows += head
        rows += nodes.math_block(entry.latex, entry.latex, label=None, number=None, nowrap=False)
        for item in entry.evidence:
            facts = nodes.paragraph(classes=["ledger-facts"])
            facts += nodes.Text(f"{item['oracle']} · {_count(item['cases'], 'case')} · error ")
            facts += nodes.math("", _bound(item["bound"]))
            if item["mistakes"]:
                facts += nodes.Text(f" · {_count(len(item['mistakes']), 'mistake')} refuted")
            rows += facts
    return rows


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}".replace(
        ",", "\N{NARROW NO-BREAK SPACE}"
    )


def _reading_order(env: BuildEnvironment) -> Iterator[str]:
    def below(page: str) -> Iterator[str]:
        yield page
        for child in env.toctree_includes.get(page, ()):
            yield from below(child)

    return below(env.config.root_doc)


# What Sphinx keeps between builds ---------------------------------------------------------------


def _ledger(env: BuildEnvironment) -> dict[str, list[Entry]]:
    return env.__dict__.setdefault("ledger_entries", {})


def _listings(env: BuildEnvironment) -> set[str]:
    return env.__dict__.setdefault("ledger_listings", set())


def forget(app: Sphinx, env: BuildEnvironment, docname: str) -> None:
    """Drop what is known about a page that is gone or about to be read again."""
    _ledger(env).pop(docname, None)
    _listings(env).discard(docname)
    env.__dict__["ledger_changed"] = True


def merge(app: Sphinx, env: BuildEnvironment, docnames: set[str], other: BuildEnvironment) -> None:
    """Take over what another process read."""
    _ledger(env).update({name: _ledger(other)[name] for name in docnames if name in _ledger(other)})
    _listings(env).update(_listings(other) & docnames)


def rewrite_listings(app: Sphinx, env: BuildEnvironment) -> list[str]:
    """Write the lists again when any page was read."""
    return sorted(_listings(env)) if env.__dict__.pop("ledger_changed", False) else []


class BookMath(MathDomain):
    """Equations count from (1) on every page, so a reference from another page names the page."""

    def resolve_xref(self, env, fromdocname, builder, typ, target, node, contnode):
        reference = super().resolve_xref(env, fromdocname, builder, typ, target, node, contnode)
        page = self.equations.get(target, (fromdocname, 0))[0]
        if reference is not None and page != fromdocname:
            reference += nodes.Text(f" of {env.titles[page].astext()}")
        return reference


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_node(Mark, html=(visit_mark, depart_mark), latex=(skip, None), text=(skip, None))
    app.add_node(CheckCell, html=(skip, None), latex=(skip, None), text=(skip, None))
    app.add_directive("ledger", LedgerDirective)
    app.add_domain(BookMath, override=True)
    app.connect("doctree-read", read_chapter)
    app.connect("doctree-resolved", fill_listing)
    app.connect("env-purge-doc", forget)
    app.connect("env-merge-info", merge)
    app.connect("env-updated", rewrite_listings)
    return {"env_version": 1, "parallel_read_safe": True, "parallel_write_safe": True}
