"""LaTeX as a list of tokens, without its spacing, and cut into equations."""

import re
from dataclasses import dataclass

from vitlib.proof.errors import FormulaError

_IGNORED = re.compile(
    r"""(?:\s|~|\\[,;:!\ ]|
    \\(?:left|right|[bB]igg?[lrm]?|quad|displaystyle|textstyle|limits|nolimits)(?![A-Za-z]))+""",
    re.VERBOSE,
)
_TOKEN = re.compile(
    r"""(?P<row>\\\\(?:\[[^\]]*\])?)
    |\\(?P<edge>begin|end)\s*\{(?P<environment>[a-z]+\*?)\}
    |\\(?:operatorname\*?|text|textrm|mathrm)\s*\{(?P<word>[^{}]*)\}
    |(?P<command>\\(?:[A-Za-z]+|[{}|]))
    |(?P<number>\d+(?:(?:\{,\}|\\,)\d{3})*(?:\.\d+)?)
    |(?P<letter>[A-Za-z])
    |(?P<mark>[-+*/=()\[\]{}|^_&,.;:'<>!])""",
    re.VERBOSE,
)
_ALIGNED = {"aligned", "align", "align*", "split", "gathered"}


@dataclass(frozen=True)
class Token:
    r"""One token: `kind` is row, begin, end, word, command, number, letter, mark or stop.

    `text` is what the parser compares: a command with its backslash, the content of a word
    (`\operatorname{softmax}` gives `softmax`), a number without thousands separators. In the LaTeX
    it reaches from `position` to `end`.
    """

    kind: str
    text: str
    position: int
    end: int


def tokenise(latex: str) -> list[Token]:
    """Cut a formula into tokens.

    Raises:
        FormulaError: A character that means nothing here, or braces that do not balance.
    """
    tokens: list[Token] = []
    opened: list[int] = []
    position = 0
    while position < len(latex):
        if skipped := _IGNORED.match(latex, position):
            position = skipped.end()
            continue
        found = _TOKEN.match(latex, position)
        if found is None:
            raise FormulaError(f"the character {latex[position]!r} is not read", latex, position)
        kind = found.lastgroup or ""
        text = found[kind]
        if kind == "environment":
            kind = found["edge"]
        elif kind == "number":
            text = text.replace("{,}", "").replace("\\,", "")
        elif kind == "mark" and text == "{":
            opened.append(position)
        elif kind == "mark" and text == "}":
            if not opened:
                raise FormulaError("this } closes nothing", latex, position)
            opened.pop()
        tokens.append(Token(kind, text, position, found.end()))
        position = found.end()
    if opened:
        raise FormulaError("this { is not closed", latex, opened[-1])
    return tokens


def equations(tokens: list[Token], latex: str) -> list[list[Token]]:
    r"""Tokens of each equation of a display.

    Rows of an `aligned` display go on with the equation before when nothing stands left of their
    `&`, and start a new one otherwise; `\qquad` starts a new one too.

    Raises:
        FormulaError: An environment other than `aligned` and its kin, or a row with several `&`.
    """
    found: list[list[Token]] = []
    for row in _rows(tokens, latex):
        ampersands = [n for n, token in enumerate(row) if token.text == "&"]
        if len(ampersands) > 1:
            raise FormulaError("a row may have one &", latex, row[ampersands[1]].position)
        goes_on = bool(found) and (ampersands == [0] or row[0].text == "=" or not _relates(row))
        pieces: list[list[Token]] = [[]]
        for token in row:
            if token.text == r"\qquad":
                pieces.append([])
            elif token.text != "&":
                pieces[-1].append(token)
        for piece in filter(None, pieces):
            if goes_on:
                found[-1].extend(piece)
            else:
                found.append(piece)
            goes_on = False
    return found


def _relates(row: list[Token]) -> bool:
    return any(token.text == "=" for token in row)


def _rows(tokens: list[Token], latex: str) -> list[list[Token]]:
    if tokens and tokens[0].kind == "begin":
        begin = tokens[0]
        if begin.text not in _ALIGNED:
            raise FormulaError(f"the environment {begin.text} is not read", latex, begin.position)
        end = next((n for n, token in enumerate(tokens) if token.kind == "end"), None)
        if end is None:
            raise FormulaError(r"this \begin has no \end", latex, begin.position)
        tokens = tokens[1:end] + tokens[end + 1 :]
    rows: list[list[Token]] = [[]]
    for token in tokens:
        if token.kind == "row":
            rows.append([])
        else:
            rows[-1].append(token)
    return [row for row in rows if row]
