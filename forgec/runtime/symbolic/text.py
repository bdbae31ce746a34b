"""Parser of the text form of symbolic extents."""

from __future__ import annotations

import re

from forgec.runtime.symbolic.atoms import FUNCTIONS
from forgec.runtime.symbolic.expr import Extent, symbol
from forgec.runtime.symbolic.fold import apply, floordiv, mod

MAX_LENGTH = 4000
MAX_DEPTH = 40

_TOKEN = re.compile(r"\s*(?:(?P<int>[0-9]{1,19})|(?P<name>[A-Za-z_][A-Za-z0-9_]*)|(?P<op>//|[-+*%(),]))", re.ASCII)


def parse(text: str) -> Extent:
    """The extent that ``str`` printed, or any text of ``+ - * // %``, parentheses, integers, symbols and the four
    functions.

    ``ValueError`` when the text is malformed, divides by the constant 0, or is longer or deeper than any real extent.
    """
    if len(text) > MAX_LENGTH:
        raise ValueError(f"an extent of {len(text)} characters is longer than {MAX_LENGTH}")
    return parse_printed(text)


def parse_printed(text: str) -> Extent:
    """As ``parse``, for text of any length that this process printed itself."""
    try:
        return _Parser(text).parse()
    except ZeroDivisionError:
        raise ValueError(f"extent '{text}' divides by zero") from None


class _Parser:
    """Recursive descent: sum := product (+|- product)*; product := factor (*|//|% factor)*; factor := -factor |
    atom."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0
        self.depth = 0
        self.kind = ""
        self.token = ""
        self.advance()

    def advance(self) -> None:
        match = _TOKEN.match(self.text, self.position)
        if match is None:
            if self.text[self.position :].strip():
                raise self.unexpected()
            self.kind, self.token = "end", ""
            return
        self.position = match.end()
        self.kind = match.lastgroup or ""
        self.token = match.group(self.kind)

    def unexpected(self) -> ValueError:
        return ValueError(f"extent '{self.text}' cannot be parsed at character {self.position}")

    def accept(self, *operators: str) -> str | None:
        if self.kind == "op" and self.token in operators:
            token = self.token
            self.advance()
            return token
        return None

    def expect(self, operator: str) -> None:
        if self.accept(operator) is None:
            raise self.unexpected()

    def parse(self) -> Extent:
        value = self.sum()
        if self.kind != "end":
            raise self.unexpected()
        return value

    def sum(self) -> Extent:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise ValueError(f"extent '{self.text}' is nested more than {MAX_DEPTH} deep")
        value = self.product()
        while operator := self.accept("+", "-"):
            right = self.product()
            value = value + right if operator == "+" else value - right
        self.depth -= 1
        return value

    def product(self) -> Extent:
        value = self.factor()
        while operator := self.accept("*", "//", "%"):
            right = self.factor()
            if operator == "*":
                value = value * right
            else:
                value = floordiv(value, right) if operator == "//" else mod(value, right)
        return value

    def factor(self) -> Extent:
        negative = False
        while self.accept("-"):
            negative = not negative
        value = self.atom()
        return -value if negative else value

    def atom(self) -> Extent:
        if self.accept("("):
            value = self.sum()
            self.expect(")")
            return value
        kind, token = self.kind, self.token
        if kind == "int":
            self.advance()
            return int(token)
        if kind != "name":
            raise self.unexpected()
        self.advance()
        if token not in FUNCTIONS:
            return symbol(token)
        self.expect("(")
        arguments = [self.sum()]
        while self.accept(","):
            arguments.append(self.sum())
        self.expect(")")
        return apply(token, arguments)
