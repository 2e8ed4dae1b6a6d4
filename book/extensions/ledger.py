"""The ledger on the page: behind each equation, the evidence that it was run as printed.

While a chapter is read, its executed notebook is at hand. Its evidence is held against the displays
on the page by `vitlib.proof.chapter.audit`; each problem is a Sphinx warning, and so an error. Then
each checked equation gets a mark that opens its evidence, the check cells leave the page, and the
`{ledger}` directive lists every equation of the book.
"""

import ast
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

from vitlib.proof.chapter import audit, equations, evidence_of
from vitlib.proof.evidence import Evidence, Refutation

LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class Entry:
    """An equation of the book: where it stands and what is known about it."""

    label: str
    number: int
    latex: str
    evidence: Evidence | None
    is_definition: bool

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
    evidence: list[Evidence]


# Reading a chapter ------------------------------------------------------------------------------


def read_chapter(app: Sphinx, doctree: nodes.document) -> None:
    """Audit the page that was just read, and put its marks."""
    env, docname = app.env, app.env.docname
    cells = list(_check_cells(app, doctree))
    evidence = [item for cell in cells for item in cell.evidence]
    for problem in audit(equations(env.doc2path(docname)), evidence):
        LOGGER.warning(problem, location=docname, type="ledger")

    entries = []
    for display in [math for math in doctree.findall(nodes.math_block) if math["label"]]:
        label = display["label"]
        proof = next((item for item in evidence if item.label == label), None)
        is_definition = "definition" in display["classes"]
        entry = Entry(label, display["number"], display.astext(), proof, is_definition)
        entries.append(entry)
        if proof is not None:
            check = next(cell for cell in cells if proof in cell.evidence)
            source = "\n\n".join([*_setup_of(check, cells), check.source])
            display.parent.insert(display.parent.index(display) + 1, _mark(entry, proof, source))
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
        yield Check(node, cell.source, list(evidence_of(cell)))


def _setup_of(check: Check, cells: list[Check]) -> list[str]:
    """Sources of the cells that define the computations that a check names."""
    wanted = _names(check.source, ast.Load)
    return [
        cell.source
        for cell in cells[: cells.index(check)]
        if not cell.evidence and wanted & _names(cell.source, ast.Store)
    ]


def _names(source: str, context: type[ast.expr_context]) -> set[str]:
    return {
        node.id
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Name) and isinstance(node.ctx, context)
    }


# The mark ---------------------------------------------------------------------------------------


def _mark(entry: Entry, proof: Evidence, source: str) -> Mark:
    mark = Mark(number=entry.number, ids=[f"evidence-{entry.anchor}"])
    verdict = nodes.paragraph()
    verdict += nodes.Text("Read as it is printed, in float64, and compared with ")
    verdict += nodes.strong("", ", ".join(proof.oracles))
    verdict += nodes.Text(f" in {_count(proof.cases, 'random case')}: relative error ")
    verdict += [nodes.math("", rf"\le {_scientific(proof.bound)}"), nodes.Text(".")]
    mark += verdict
    if proof.mistakes:
        mark += nodes.paragraph("", "Tempting, and refuted", classes=["evidence-head"])
        mark += nodes.bullet_list("", *map(_mistake, proof.mistakes), classes=["mistakes"])
    mark += nodes.paragraph("", "What was run", classes=["evidence-head"])
    mark += nodes.literal_block(source, source, language="python")
    return mark


def _mistake(mistake: Refutation) -> nodes.list_item:
    display = nodes.math_block(mistake.latex, mistake.latex, label=None, number=None, nowrap=False)
    why = nodes.paragraph("", f"{mistake.why[:1].upper()}{mistake.why[1:]}: ")
    if mistake.error[0].isdigit():
        error = _scientific(float(mistake.error))
        why += [nodes.Text("off by at least "), nodes.math("", error), nodes.Text(".")]
    else:
        why += nodes.Text(f"{mistake.error}.")
    return nodes.list_item("", display, why)


def _scientific(number: float) -> str:
    mantissa, power = f"{number:.0e}".split("e")
    if -3 <= int(power) <= 3:
        return f"{number:g}"
    return ("" if mantissa == "1" else rf"{mantissa} \cdot ") + f"10^{{{int(power)}}}"


def visit_mark(translator: Any, node: Mark) -> None:
    translator.body.append(translator.starttag(node, "details", CLASS="run-as-printed"))
    translator.body.append(
        '<summary><span class="tick" aria-hidden="true"></span>run as printed'
        f'<span class="visually-hidden">: evidence for equation ({node["number"]})</span>'
        '</summary>\n<div class="evidence">\n'
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
    proofs = [entry.evidence for _, entries in pages for entry in entries if entry.evidence]
    definitions = [(page, e) for page, entries in pages for e in entries if e.is_definition]
    yield nodes.paragraph(
        "",
        f"{_count(len(proofs), 'equation')} run as printed, "
        f"in {_count(sum(proof.cases for proof in proofs), 'random case')} altogether. "
        f"{_count(sum(len(proof.mistakes) for proof in proofs), 'tempting mistake')} refuted. "
        f"{_count(len(definitions), 'definition')}.",
        classes=["ledger-summary"],
    )
    for page, entries in pages:
        if any(entry.evidence for entry in entries):
            text = nodes.Text(env.titles[page].astext())
            link = make_refnode(app.builder, docname, page, "", text)
            yield nodes.rubric("", "", link, classes=["ledger-chapter"])
            yield nodes.container(
                "",
                *(_row(app, docname, page, entry) for entry in entries if entry.evidence),
            )
    if definitions:
        yield nodes.rubric("", "Definitions", ids=["definitions"], classes=["ledger-chapter"])
        yield nodes.paragraph("", "These introduce names. There is nothing in them to run.")
        yield nodes.container("", *(_row(app, docname, page, entry) for page, entry in definitions))


def _row(app: Sphinx, docname: str, page: str, entry: Entry) -> nodes.Element:
    text = f"Equation ({entry.number})"
    if entry.is_definition:
        text += f" of {app.env.titles[page].astext()}"
    link = make_refnode(app.builder, docname, page, entry.anchor, nodes.Text(text))
    facts = nodes.paragraph("", "", link, classes=["ledger-facts"])
    if proof := entry.evidence:
        facts += nodes.Text(f" · {', '.join(proof.oracles)} · {_count(proof.cases, 'case')} · ")
        facts += nodes.math("", rf"\le {_scientific(proof.bound)}")
        if proof.mistakes:
            facts += nodes.Text(f" · {_count(len(proof.mistakes), 'mistake')} refuted")
    display = nodes.math_block(entry.latex, entry.latex, label=None, number=None, nowrap=False)
    return nodes.container("", facts, display, classes=["ledger-row"])


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
