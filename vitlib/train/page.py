"""The HTML of a report: text, tables, pictures, and the page around them.

Whatever comes from outside passes through `text` or `table`, which escape it. The page loads
nothing and runs no script, and its content security policy has the browser enforce that.
"""

import base64
import html
from collections.abc import Iterable, Sequence


def text(content: str) -> str:
    """Content as it is to be read, in an element or in an attribute."""
    return html.escape(content)


def paragraph(content: str) -> str:
    """A paragraph of plain text."""
    return f"<p>{text(content)}</p>"


def section(title: str, *parts: str) -> str:
    """A part of the page, of pieces of HTML."""
    body = "\n".join(parts)
    return f"<section>\n<h2>{text(title)}</h2>\n{body}\n</section>"


def folded(title: str, body: str) -> str:
    """HTML that is read only by those who ask for it."""
    return f"<details><summary>{text(title)}</summary>\n{body}\n</details>"


def data_uri(png: bytes) -> str:
    """A picture within the page's own text."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def table(caption: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of plain text, whose first column names its rows."""
    groups = [("", [(first, "".join(map(_cell, rest))) for first, *rest in rows])]
    return grouped_table(caption, head, groups)


def _cell(content: str) -> str:
    return f"<td>{text(content)}</td>"


def grouped_table(
    caption: str,
    head: Sequence[str],
    groups: Iterable[tuple[str, Iterable[tuple[str, str]]]],
    *,
    kind: str = "",
) -> str:
    """A table, in a box of its own.

    Args:
        caption: What it shows.
        head: Of each column.
        groups: Each a heading, if it has one, and its rows: a name and the other cells as HTML.
        kind: Its class in the style sheet.
    """
    top = "".join(f'<th scope="col"><span>{text(cell)}</span></th>' for cell in head)
    body: list[str] = []
    for heading, rows in groups:
        lines = [f'<tr><th scope="row">{text(name)}</th>{cells}</tr>' for name, cells in rows]
        if heading:
            title = f'<th scope="rowgroup" colspan="{len(head)}">{text(heading)}</th>'
            lines.insert(0, f"<tr>{title}</tr>")
        body.append(f"<tbody>{''.join(lines)}</tbody>")
    return scrolled(
        caption,
        f'<table class="{kind}"><caption>{text(caption)}</caption>'
        f"<thead><tr>{top}</tr></thead>{''.join(body)}</table>",
    )


def scrolled(name: str, body: str) -> str:
    """A box in which HTML too wide for a phone scrolls, by keyboard too."""
    label = text(name)
    return f'<div class="scroll" role="region" tabindex="0" aria-label="{label}">{body}</div>'


def page(title: str, body: Iterable[str]) -> bytes:
    """The whole document, from pieces of HTML."""
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    document = f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{text(title)}</title>
<link rel="icon" href="data:,">
<style>{_STYLE}</style>
</head>
<body>
<main>
{chr(10).join(body)}
</main>
</body>
</html>
"""
    return document.encode("utf-8", "backslashreplace")  # a path may hold bytes that are no text


_STYLE = """
:root {
  color-scheme: light dark;
  --ground: #ffffff; --ink: #14171a; --quiet: #545d67; --line: #d5dae0;
  --blue: #3f83c8; --orange: #cf6f26; --invert: none; --blend: normal;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #14171a; --ink: #e6e9ec; --quiet: #a7b0ba; --line: #3a4149;
    --invert: invert(1) hue-rotate(180deg); --blend: screen;
  }
}
* { box-sizing: border-box; }
b { unicode-bidi: isolate; }
body {
  margin: 0; background: var(--ground); color: var(--ink);
  font: 1rem/1.55 system-ui, "Segoe UI", "DejaVu Sans", sans-serif;
}
main { max-width: 52rem; margin: 0 auto; padding: 1rem 1.25rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 1.5rem 0 1rem; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 2.75rem 0 0.75rem; }
p { margin: 0.75rem 0; max-width: 42rem; overflow-wrap: anywhere; }
.curve { display: block; width: 100%; min-width: 34rem; height: auto; }
.curve { filter: var(--invert); mix-blend-mode: var(--blend); }
.scroll { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 0.9375rem; }
caption { text-align: left; color: var(--quiet); padding-bottom: 0.4rem; }
th, td { padding: 0.25rem 0.75rem; text-align: right; border-bottom: 1px solid var(--line); }
tbody th { font-weight: 400; }
thead th { vertical-align: bottom; border-bottom-color: var(--quiet); }
th:first-child { text-align: left; padding-left: 0; min-width: 7.5rem; max-width: 22rem; }
th:first-child { overflow-wrap: break-word; }
.settings td, .settings thead th { text-align: left; overflow-wrap: anywhere; }
.settings th[scope=rowgroup] { font-weight: 600; padding-top: 1rem; }
.faults td, .faults th { text-align: left; overflow-wrap: anywhere; vertical-align: top; }
.faults th:first-child { min-width: 10rem; }
.confusion th, .confusion td { padding: 0.3rem 0.45rem; }
.confusion td { text-align: center; border: 1px solid var(--ground); min-width: 2.6rem; }
.confusion thead th { font-weight: 400; text-align: center; }
.upright thead th:not(:first-child) span {
  display: inline-block; writing-mode: vertical-rl; rotate: 180deg; text-align: left;
  max-height: 10rem; overflow-wrap: anywhere;
}
.confusion th:first-child { padding-left: 0; min-width: 3rem; text-align: left; }
.upright th:first-child { min-width: 7rem; }
.mistakes {
  display: grid; gap: 1.25rem 1rem; margin: 1rem 0;
  grid-template-columns: repeat(auto-fill, minmax(8rem, 1fr));
}
figure { margin: 0; }
.mistakes img {
  display: block; width: 7rem; height: 7rem; object-fit: contain; outline: 1px solid var(--line);
}
.pixels img { image-rendering: pixelated; }
figcaption { font-size: 0.875rem; line-height: 1.4; margin-top: 0.4rem; overflow-wrap: anywhere; }
.diagram { max-width: 24rem; margin: 1rem 0; }
.diagram svg { display: block; width: 100%; font-size: 12px; fill: currentColor; }
.axis, .ideal, .sure { fill: none; stroke: currentColor; }
.ideal { stroke: var(--quiet); stroke-dasharray: 4 4; }
.right { fill: var(--blue); }
.sure { stroke: var(--orange); stroke-width: 3; }
summary { cursor: pointer; padding: 0.25rem 0; }
:focus-visible { outline: 2px solid var(--blue); outline-offset: 2px; }
"""
