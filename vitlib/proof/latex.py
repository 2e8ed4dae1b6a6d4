r"""Printed LaTeX as a syntax tree: a recursive-descent parser.

From the loosest to the tightest:

    equation    expression  =  expression  =  ...
    expression  [-] term  +  term  -  ...
    term        product  \odot  product  ...
    product     factor factor,  factor \cdot factor,  factor / factor,  factor \bmod factor
    factor      primary with its _ and ^

A sum extends to the next + or - outside brackets. A function without brackets takes one factor.
What a reader could take in two ways is an error: `a / b c`, `\log p\, q`.
"""

from collections.abc import Collection
from dataclasses import replace
from keyword import iskeyword

from vitlib.proof.errors import FormulaError
from vitlib.proof.scripts import Scripts
from vitlib.proof.syntax import (
    Binary,
    Call,
    Derivative,
    Entry,
    Formula,
    Negative,
    Node,
    Number,
    Power,
    Reduction,
    Symbol,
    first_position,
)
from vitlib.proof.tokens import Token, equations, tokenise
from vitlib.proof.vocabulary import (
    ACCENTS,
    BOLD,
    BRACKETS,
    FRACTIONS,
    FUNCTION_BRACKETS,
    FUNCTIONS,
    LETTERS,
    REDUCTIONS,
    STOPS,
)


def parse(latex: str, functions: Collection[str] = ()) -> Formula:
    r"""Read a display.

    Args:
        latex: The content of a display, without its dollars or directive.
        functions: Names that are applied to the brackets behind them, such as `f`, besides the
            built-in functions and whatever is printed with `\operatorname`.

    Returns:
        The formula as chains of equal sides.

    Raises:
        FormulaError: The LaTeX is not in the grammar; the message points at the place.
    """
    chains = [
        Parser(tokens, latex, functions).equation() for tokens in equations(tokenise(latex), latex)
    ]
    if not chains:
        raise FormulaError("the formula is empty", latex, 0)
    return Formula(latex, tuple(chains))


def parse_expression(latex: str, functions: Collection[str] = ()) -> Node:
    """Read one expression, without `=`.

    Raises:
        FormulaError: The LaTeX is not in the grammar; the message points at the place.
    """
    parser = Parser(tokenise(latex), latex, functions)
    node = parser.expression()
    parser.finish()
    return node


def without_brackets(node: object) -> str | None:
    """Name of the function, if `node` is one whose argument has no brackets."""
    while isinstance(node, Power):
        node = node.base
    return node.function if isinstance(node, Call) and node.bare else None


def _in_brackets(node: Node) -> Node:
    r"""The same in brackets, which show where the argument of `\log p` and of `\tanh^2 x` ends."""
    if isinstance(node, Power):
        return replace(node, base=_in_brackets(node.base))
    return replace(node, bare=False) if isinstance(node, Call) else node


class Parser(Scripts):
    """The tokens of one equation as a tree; a method for each rule of the grammar."""

    def __init__(self, tokens: list[Token], latex: str, functions: Collection[str]):
        super().__init__(tokens, latex)
        self.functions = functions
        # Brackets that are open; a bar closes only the innermost one.
        self.opened: list[str] = []

    def equation(self) -> tuple[Node, ...]:
        """Read all sides, to the end."""
        sides = [self.expression()]
        while self.accept("="):
            sides.append(self.expression())
        if self.token.kind != "stop" and self.tokens[self.place + 1].kind == "stop":
            self.accept(",", ".", ";")
        self.finish()
        if len(sides) == 1:
            self.fail("nothing is stated: there is no =", first_position(sides[0]))
        return tuple(sides)

    def expression(self) -> Node:
        """Read terms with + and - between them."""
        sign = self.accept("-", "+")
        node = self.term()
        if sign and sign.text == "-":
            node = Negative(sign.position, node)
        while operator := self.accept("+", "-"):
            kind = "+" if operator.text == "+" else "-"
            node = Binary(operator.position, kind, node, self.term())
        return node

    def term(self) -> Node:
        r"""Read products with `\odot` between them."""
        node = self.product()
        while operator := self.accept("\\odot"):
            node = Binary(operator.position, "odot", node, self.product())
        return node

    def product(self) -> Node:
        """Read factors with a product, a quotient or a remainder between them."""
        node = last = self.factor()
        divided = False
        while True:
            if operator := self.accept("\\cdot", "\\times"):
                node = Binary(operator.position, "cdot", node, self.factor())
            elif operator := self.accept("\\bmod"):
                node = Binary(operator.position, "bmod", node, self.factor())
            elif operator := self.accept("/"):
                node, divided = Binary(operator.position, "/", node, self.factor()), True
                continue
            elif not self.starts_factor():
                return node
            elif divided:
                self.fail("a / b c can be read in two ways: write \\frac or brackets")
            elif function := without_brackets(last):
                self.fail(f"where the argument of {function} ends is unclear: write brackets")
            else:
                position = self.token.position
                last = self.factor()
                node = Binary(position, "juxtaposed", node, last)
            divided = False

    def starts_factor(self) -> bool:
        """Whether a factor begins here."""
        token = self.token
        if token.kind in ("number", "letter", "word"):
            return True
        if self.opened and token.text == self.opened[-1]:
            return False
        if token.kind == "command":
            return token.text not in STOPS
        return token.text in ("(", "[", "{", "|")

    def argument(self) -> Node:
        r"""What TeX takes as one argument: a group, or one character or command."""
        if self.at("{"):
            return self.group()
        token = self.token
        if token.kind == "number" and len(token.text) > 1:
            self.tokens[self.place : self.place + 1] = [
                Token("number", token.text[0], token.position, token.position + 1),
                Token("number", token.text[1:], token.position + 1, token.end),
            ]
        elif token.text in BOLD | set(ACCENTS) | FRACTIONS | {"\\sqrt"}:
            self.fail(f"put {token.text} and what belongs to it in braces")
        return self.primary()

    def primary(self) -> Node:
        """Read a factor without scripts."""
        token = self.token
        if token.kind == "number":
            return Number(self.advance().position, token.text)
        if token.kind == "word":
            return self.call(self.advance(), token.text)
        if token.kind == "letter" or token.text in LETTERS:
            return self.letter()
        if token.text in FUNCTIONS:
            name = token.text[1:].replace("ln", "log").replace("var", "")
            return self.call(self.advance(), name)
        if token.text in REDUCTIONS:
            return self.reduction()
        if token.text in BOLD:
            return self.bold()
        if token.text in ACCENTS:
            return self.accent()
        if token.text in BRACKETS:
            return self.group()
        if token.text in FUNCTION_BRACKETS:
            return self.function_bracket()
        if token.text in FRACTIONS:
            return self.fraction()
        if self.accept("\\sqrt"):
            if self.at("["):
                self.fail("only square roots are read")
            return Call(token.position, "sqrt", (self.argument(),))
        if token.kind == "command" and token.text not in STOPS:
            self.fail(f"unknown command {token.text}")
        return self.fail(f"expected a quantity but {self.found()}")

    def name(self) -> str:
        r"""The name of a letter: `\mu` is mu, `\varepsilon` epsilon, `\lambda` lambda_."""
        token = self.advance()
        name = token.text.removeprefix("\\").removeprefix("var")
        return f"{name}_" if iskeyword(name) else name

    def letter(self) -> Node:
        """Read a letter, or a function of one letter and its brackets."""
        token = self.token
        name = self.name()
        primes = 0
        while self.accept("'"):
            primes += 1
        if name in self.functions and self.at("(", "["):
            return self.call(token, name + "'" * primes)
        return Symbol(token.position, name + "_prime" * primes, bold=False)

    def bold(self) -> Node:
        """Read a name in bold."""
        position = self.advance().position
        if self.accept("{"):
            name = ""
            while not self.at("}"):
                if self.token.kind not in ("letter", "number") and self.token.text not in LETTERS:
                    self.fail("bold is for names")
                name += self.name()
            self.advance()
        elif self.token.kind in ("letter", "number") or self.token.text in LETTERS:
            name = self.name()
        else:
            return self.fail(f"expected a name in bold but {self.found()}")
        while self.accept("'"):
            name += "_prime"
        return Symbol(position, name, bold=True)

    def accent(self) -> Node:
        """Read a symbol with an accent, which is part of its name."""
        token = self.advance()
        inner = self.accept("{")
        node = self.factor() if inner else self.primary()
        if inner:
            self.expect("}")
        if not isinstance(node, Symbol):
            self.fail(f"{token.text} stands on a symbol", token.position)
        return replace(node, position=token.position, name=f"{node.name}_{ACCENTS[token.text]}")

    def group(self) -> Node:
        """Read an expression in brackets."""
        opening = self.advance()
        self.opened.append("")
        node = self.expression()
        self.opened.pop()
        self.expect(BRACKETS[opening.text])
        return _in_brackets(node)

    def arguments(self, closing: str) -> tuple[Node, ...]:
        """Read what a function takes, to the closing bracket."""
        self.opened.append(closing)
        found = [self.expression()]
        while self.accept(","):
            found.append(self.expression())
        self.opened.pop()
        self.expect(closing)
        return tuple(found)

    def function_bracket(self) -> Node:
        """Read brackets that are a function of what they hold."""
        opening = self.advance()
        closing, name, count = FUNCTION_BRACKETS[opening.text]
        arguments = self.arguments(closing)
        if len(arguments) != count:
            self.fail(f"{name} takes {count}, here are {len(arguments)}", opening.position)
        if name == "norm" and self.accept("_") and not self.accept("F", "2"):
            self.fail("only the norms 2 and F are read")
        return Call(opening.position, name, arguments)

    def call(self, token: Token, name: str) -> Node:
        """Read the arguments of a function whose name has been read."""
        while self.accept("'"):
            name += "'"
        caret = self.accept("^")
        raised = self.above(caret) if caret else None
        if self.at("_"):
            self.fail("the index of a function's value stands behind its argument")
        if opening := self.accept("(", "["):
            node = Call(token.position, name, self.arguments(BRACKETS[opening.text]))
        elif self.starts_factor():
            node = Call(token.position, name, (self.factor(),), bare=True)
        else:
            self.fail(f"{name} has no argument", token.position)
        return raised(node) if raised else node

    def reduction(self) -> Node:
        """Read a sum, and its like, over index letters."""
        token = self.advance()
        if not self.accept("_"):
            if token.text in ("\\max", "\\min"):
                return self.call(token, token.text[1:])
            self.fail(f"{token.text} needs its index: {token.text}_{{j}}", token.position)
        letters: list[str] = []
        lower = excluded = None
        braced = self.accept("{")
        while not letters or (braced and (self.accept(",") or self.token.kind == "letter")):
            if self.token.kind != "letter" and self.token.text not in LETTERS:
                self.fail(f"expected an index but {self.found()}")
            letters.append(self.name())
        if braced:
            if self.accept("="):
                lower = self.expression()
            elif self.accept("\\neq", "\\ne"):
                excluded = self.expression()
            self.expect("}")
        upper = self.argument() if self.accept("^") else None
        if (lower is None) != (upper is None):
            self.fail(f"{token.text} has one bound: give both or none", token.position)
        bounds = None if lower is None or upper is None else (lower, upper)
        return Reduction(
            token.position, REDUCTIONS[token.text], tuple(letters), bounds, excluded, self.term()
        )

    def fraction(self) -> Node:
        """Read a fraction or a derivative."""
        token = self.advance()
        if self.at("{") and self.tokens[self.place + 1].text == "\\partial":
            return Derivative(token.position, self.differential(), self.differential())
        return Binary(token.position, "/", self.argument(), self.argument())

    def differential(self) -> Symbol | Entry:
        """Read what is differentiated, or by what."""
        self.expect("{")
        self.expect("\\partial")
        position = self.token.position
        node = self.factor()
        match node:
            case Symbol() | Entry(base=Symbol()):
                self.expect("}")
                return node
            case _:
                return self.fail("\\partial stands before a symbol", position)
