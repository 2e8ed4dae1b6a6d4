"""What goes wrong with a printed formula, said with the place where it goes wrong."""


def pointed(latex: str, position: int) -> str:
    """The line of a formula in which a place is, and below it a caret under the place."""
    start = latex[:position].rfind("\n") + 1
    line = latex[start:].partition("\n")[0]
    return f"  {line}\n  {' ' * (position - start)}^"


class FormulaError(ValueError):
    """A formula that cannot be read or evaluated.

    The message is the problem, the line of LaTeX it stands in and a caret under the place.

    Attributes:
        problem: The sentence without the place.
        latex: The whole formula.
        position: Offset of the place in `latex`.
    """

    def __init__(self, problem: str, latex: str, position: int):
        super().__init__(f"{problem}\n{pointed(latex, position)}")
        self.problem = problem
        self.latex = latex
        self.position = position


class ShapeError(FormulaError):
    """A formula that reads well but whose shapes or free indices do not fit together."""


class MismatchError(ValueError):
    """Values that do not fit together; the evaluator adds the place and raises `ShapeError`."""
