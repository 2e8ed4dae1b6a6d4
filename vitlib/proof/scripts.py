"""Subscripts and superscripts: what stands below and above a quantity."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace

from vitlib.proof.cursor import Cursor
from vitlib.proof.syntax import (
    Binary,
    Entry,
    Node,
    Number,
    Power,
    Subscript,
    Symbol,
    Transpose,
)
from vitlib.proof.tokens import Token


class Scripts(Cursor, ABC):
    """The part of the parser that reads a factor with its scripts."""

    @abstractmethod
    def expression(self) -> Node:
        """Read a sum of terms."""

    @abstractmethod
    def primary(self) -> Node:
        """Read a factor without scripts."""

    @abstractmethod
    def argument(self) -> Node:
        """Read what TeX takes as one argument."""

    def factor(self) -> Node:
        """Read a factor and its scripts."""
        node = self.primary()
        while self.at("_", "^", "'"):
            if self.at("'"):
                self.fail("a prime stands directly behind a symbol or the name of a function")
            seen: dict[str, Callable[[Node], Node]] = {}
            while script := self.accept("_", "^"):
                if script.text in seen:
                    kind = "subscript" if script.text == "_" else "superscript"
                    self.fail(f"double {kind}", script.position)
                seen[script.text] = self.below(script) if script.text == "_" else self.above(script)
            for mark in sorted(seen, reverse=True):  # first _, then ^
                node = seen[mark](node)
        return node

    def below(self, mark: Token) -> Callable[[Node], Node]:
        """Read a subscript; what comes back puts it on a node."""
        subscript = self.subscript()

        def indexed(node: Node) -> Node:
            if isinstance(node, Symbol) and node.subscript is None:
                return replace(node, subscript=subscript)
            if subscript.indices is None:
                self.fail("only a symbol has words below it", mark.position)
            return Entry(mark.position, node, subscript.indices)

        return indexed

    def above(self, mark: Token) -> Callable[[Node], Node]:
        """Read a superscript; what comes back puts it on a node."""
        braced = self.at("{") and self.tokens[self.place + 1].text in ("\\top", "\\odot")
        if braced:
            self.advance()
        if self.accept("\\top"):
            if braced:
                self.expect("}")
            return lambda node: Transpose(mark.position, node)
        if braced:
            self.expect("\\odot")
            power = self.expression()
            self.expect("}")
            return lambda node: Power(mark.position, node, power, elementwise=True)
        exponent = self.argument()
        return lambda node: Power(mark.position, node, exponent, elementwise=False)

    def subscript(self) -> Subscript:
        """Read a subscript, both as the rest of a name and as indices."""
        start = self.place
        if self.at("{"):
            if self.tokens[self.place + 1].kind == "word":
                self.advance()
                word = self.advance().text
                self.expect("}")
                return Subscript(word, None)
            self.advance()
            parts = [self.expression()]
            while self.accept(","):
                parts.append(self.expression())
            self.expect("}")
            indices = tuple(parts) if len(parts) > 1 else self.letters(parts[0])
        elif self.token.kind == "word":
            return Subscript(self.advance().text, None)
        else:
            indices = (self.argument(),)
        text = "".join(token.text for token in self.tokens[start : self.place])
        return Subscript(text.replace("{", "").replace("}", "").replace("\\", ""), indices)

    def letters(self, node: Node) -> tuple[Node, ...]:
        """A subscript without commas: `td` is two indices, `2i` and `t+1` are one."""
        parts: list[Node] = []
        rest = node
        while isinstance(rest, Binary) and rest.operator == "juxtaposed":
            parts.insert(0, rest.right)
            rest = rest.left
        parts.insert(0, rest)
        apart = isinstance(rest, Symbol) and all(isinstance(p, Symbol | Number) for p in parts)
        return tuple(parts) if apart else (node,)
