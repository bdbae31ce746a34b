"""Reads IR text: cuts it into pieces, parses them, and knows the line that every op stands in."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from xdsl.context import Context
from xdsl.dialects.builtin import FileLineColLoc, IntAttr, LocationAttr, ModuleOp, StringAttr
from xdsl.ir import Operation
from xdsl.parser import Parser
from xdsl.parser.generic_parser import ParserState
from xdsl.utils.exceptions import ParseError, UnregisteredConstructException, VerifyException
from xdsl.utils.lexer import Input
from xdsl.utils.mlir_lexer import MLIRLexer, MLIRTokenKind

from forgec.diagnostics import ForgeError, Location, error
from forgec.ir import context as forge_context

SEPARATOR = "// -----"


@dataclass(frozen=True)
class Piece:
    """A part of a file. ``text`` is padded with empty lines, so that its line numbers are those of the file."""

    name: str
    text: str
    first_line: int


@dataclass(frozen=True)
class Source:
    """A parsed piece: its module, and the line of each op as it was parsed."""

    piece: Piece
    module: ModuleOp
    lines: dict[Operation, int] = field(repr=False)


def context() -> Context:
    """forgec's dialects and the ops that stand beside their rules, loaded, and xDSL's dialects, registered: those are
    imported when a file uses them.
    """
    from xdsl.dialects import get_all_dialects

    from forgec.passes.tiles.rules import own_ops

    result = forge_context()
    for op in own_ops():
        result.load_op(op)
    known = set(result.registered_dialect_names)
    for name, factory in get_all_dialects().items():
        if name not in known:
            result.register_dialect(name, factory)
    return result


def split(name: str, text: str, *, at_separators: bool) -> list[Piece]:
    """The whole file as one piece, or, like mlir-opt's --split-input-file, the pieces between ``// -----`` lines."""
    if not at_separators:
        return [Piece(name, text, 1)]
    pieces: list[Piece] = []
    line = 1
    for part in re.split(rf"^{SEPARATOR}[ \t]*\r?$", text, flags=re.MULTILINE):
        pieces.append(Piece(name, "\n" * (line - 1) + part, line))
        line += part.count("\n")
    return pieces


def parse(piece: Piece, context: Context) -> Source:
    """Parses and gives every op without a location the one of its text, as mlir-opt does. Raises FORGE-I001."""
    parser = None
    try:
        parser = _LineParser(context, piece.text, piece.name)
        module = parser.parse_module()
    except ForgeError:
        raise
    except ParseError as exc:
        raise _syntax_error(piece, _position(exc, parser), exc.msg) from exc
    except Exception as exc:  # text is input from outside: whatever it does to a dialect's parser is a syntax error
        known = isinstance(exc, ValueError | VerifyException | UnregisteredConstructException)
        message = str(exc) if known and str(exc) else f"{type(exc).__name__}: {exc}"
        raise _syntax_error(piece, parser.unfinished[-1] if parser and parser.unfinished else 0, message) from exc
    parser.lines.setdefault(module, piece.first_line)
    return Source(piece, module, parser.lines)


class _Lexer(MLIRLexer):
    """xDSL's lexer, whose own expression for strings takes exponential time where the closing quote is missing."""

    _unescaped_characters_regex = re.compile(r'"(?:[^"\\\n\v\f]++|\\(?:["nt\\]|[0-9A-Fa-f]{2}))*+"')


class _LineParser(Parser):
    """A parser that notes where ops begin."""

    def __init__(self, ctx: Context, text: str, name: str) -> None:
        super().__init__(ctx, "", name)
        self._resume_from(ParserState(_Lexer(Input(text, name))))
        self.lines: dict[Operation, int] = {}
        self.unfinished: list[int] = []
        """Where the ops begin that are being parsed, the innermost last."""
        self._line = 1
        self._line_position = 0
        self._has_location = False

    def parse_module(self, allow_implicit_module: bool = True) -> ModuleOp:
        """As xDSL does, except that text without any op is an empty module, as it is for mlir-opt."""
        if self._current_token.kind is MLIRTokenKind.EOF:
            return ModuleOp([])
        return super().parse_module(allow_implicit_module)

    def parse_operation(self) -> Operation:
        position = self.pos
        self.unfinished.append(position)
        op = super().parse_operation()
        self.unfinished.pop()
        self.lines[op] = line = self._line_of(position)
        if not self._has_location:
            text = self.lexer.input.content
            column = position - text.rfind("\n", 0, position)
            op.location = FileLineColLoc(StringAttr(self.lexer.input.name), IntAttr(line), IntAttr(column))
        return op

    def parse_optional_location(self) -> LocationAttr | None:
        """As xDSL does; an op's own location, ``loc(unknown)`` too, is the last one asked for before the op ends."""
        location = super().parse_optional_location()
        self._has_location = location is not None
        return location

    def _line_of(self, position: int) -> int:
        """Ops end in nearly ascending order, so counting on from the last one keeps this linear."""
        text = self.lexer.input.content
        if position >= self._line_position:
            self._line += text.count("\n", self._line_position, position)
        else:
            self._line -= text.count("\n", position, self._line_position)
        self._line_position = position
        return self._line


def _position(exc: ParseError, parser: _LineParser | None) -> int:
    """Where the error is: xDSL reports unknown ops after their name, and undefined values at the end of the module."""
    if parser is None:
        return exc.span.start
    start = parser.unfinished[-1] if parser.unfinished else 0
    if re.fullmatch(r"Operation \S+ is not registered", exc.msg):
        return start
    undefined = re.match(r"values used but not defined: \[%([^\],]+)", exc.msg)
    if undefined:
        text = parser.lexer.input.content
        use = re.search(rf"%{re.escape(undefined[1])}(?![\w$.-])", text[start : exc.span.start])
        if use:
            return start + use.start()
    return exc.span.start


def _syntax_error(piece: Piece, position: int, message: str) -> ForgeError:
    start = piece.text.rfind("\n", 0, position) + 1
    end = piece.text.find("\n", position)
    line_text = piece.text[start : len(piece.text) if end < 0 else end].rstrip("\r")
    line = piece.text.count("\n", 0, position) + 1
    first, *more = message.strip().splitlines() or ["syntax error"]
    first = (f"{first} {more[0]}" if first.endswith(":") and more else first).rstrip(".")
    caret = " " * (position - start) + "^"
    return error(
        "FORGE-I001",
        _printable(first[:1].lower() + first[1:]),
        location=Location(piece.name, line),
        notes=(f"at {piece.name}:{line}:{position - start + 1}\n    {_printable(line_text)}\n    {caret}",),
    )


def _printable(text: str) -> str:
    """Control characters (which could drive a terminal) and tabs as one question mark or blank each."""
    return "".join(c if c.isprintable() else " " if c == "\t" else "?" for c in text)
