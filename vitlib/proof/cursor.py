"""A place in a list of tokens, and how a parser moves it."""

from typing import NoReturn

from vitlib.proof.errors import FormulaError
from vitlib.proof.tokens import Token


class Cursor:
    """The tokens of one equation and the place where reading stands.

    Args:
        tokens: What is read; a token of kind `stop` is put behind it.
        latex: The whole formula, for errors.
    """

    def __init__(self, tokens: list[Token], latex: str):
        end = tokens[-1].end if tokens else len(latex)
        self.tokens = [*tokens, Token("stop", "", end, end)]
        self.latex = latex
        self.place = 0

    @property
    def token(self) -> Token:
        """The token that is read next."""
        return self.tokens[self.place]

    def advance(self) -> Token:
        """Read one token, which is not the end."""
        token = self.token
        self.place += 1
        return token

    def at(self, *texts: str) -> bool:
        """Whether the next token is one of these."""
        return self.token.kind != "word" and self.token.text in texts

    def accept(self, *texts: str) -> Token | None:
        """Read the next token if it is one of these."""
        return self.advance() if self.at(*texts) else None

    def expect(self, text: str) -> Token:
        """Read the next token, which must be this one."""
        return self.accept(text) or self.fail(f"expected {text} but {self.found()}")

    def found(self) -> str:
        """What stands at the place, for errors."""
        return f"found {self.token.text}" if self.token.text else "the formula ends"

    def finish(self) -> None:
        """Nothing may be left to read."""
        if self.token.kind != "stop":
            self.fail(f"{self.token.text} is left over: the formula was complete before it")

    def fail(self, problem: str, position: int | None = None) -> NoReturn:
        """Raise a `FormulaError` here, or at `position`."""
        here = self.token.position if position is None else position
        raise FormulaError(problem, self.latex, here)
