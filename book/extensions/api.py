"""The library's docstrings as a page: formulas as they are set, names as they are written."""

import re
from typing import Any

from sphinx.application import Sphinx

SECTION = re.compile(r"\w+:$")
LETTER = re.compile(r"^(:\w+ [^:]+: |\s*)([A-Za-z]\.)$")
PARAMETERS = re.compile(r"<dl>\s*<dd><em class=\"sig-param\">.*?</dl>", re.DOTALL)
COLON = "\N{MODIFIER LETTER COLON}"


def keep_formulas(
    app: Sphinx, what: str, name: str, item: object, options: object, lines: list[str]
) -> None:
    """Let indented blocks, where formulas stand, keep their lines."""
    out: list[str] = []
    above = ""  # the last line that was not indented, until a block was found below it
    for line in lines:
        indented = line.startswith("    ")
        if indented and above and not out[-1].strip():
            if not (SECTION.match(above) or above.endswith("::")):
                out += [".. code-block:: none", ""]
            above = ""
        elif line.strip() and not indented:
            above = line
        # Napoleon takes what stands before a colon for the type of a constant
        out.append(line.replace(":", COLON, 1) if what in ("data", "attribute") else line)
    lines[:] = out


def keep_letters(
    app: Sphinx, what: str, name: str, item: object, options: object, lines: list[str]
) -> None:
    """Let a size of one letter not be taken for the number of a list."""
    lines[:] = [LETTER.sub(r"\1\\\2", line).replace(COLON, ":") for line in lines]


def skip_fields(
    app: Sphinx, what: str, name: str, item: object, skip: bool, options: object
) -> bool | None:
    """Leave out the fields of named tuples: their signature says all."""
    return True if type(item).__name__ == "_tuplegetter" else None


def mend_signatures(
    app: Sphinx, pagename: str, template: str, context: dict[str, Any], doctree: object
) -> None:
    """Lay out parameters, one a line, in boxes: a list of definitions without terms is no list."""
    if "sig-paren" in (body := context.get("body", "")):
        context["body"] = PARAMETERS.sub(
            lambda match: (
                match[0]
                .replace("<dl>", '<div class="sig-params">')
                .replace("<dd>", "<div>")
                .replace("</dd>", "</div>")
                .replace("</dl>", "</div>")
            ),
            body,
        )


def setup(app: Sphinx) -> dict[str, Any]:
    # before and after Napoleon, which stands at 500
    app.connect("autodoc-process-docstring", keep_formulas, priority=400)
    app.connect("autodoc-process-docstring", keep_letters, priority=600)
    app.connect("autodoc-skip-member", skip_fields)
    app.connect("html-page-context", mend_signatures)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
