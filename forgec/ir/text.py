"""Text of extents, scalars and call arguments inside attributes: one grammar for printing and parsing.

extent   ::= '-'? term (('+' | '-') term)*         term ::= factor ('*' factor)*
factor   ::= integer | symbol | ('floordiv' | 'mod' | 'max' | 'min') '(' extent (',' extent)+ ')' | '(' extent ')'
scalar   ::= 'true' | 'false' | integer | float | 'inf' | '-inf' | 'nan'
argument ::= scalar | 'none' | string | '[' argument* ']' | 'operand' '<' n '>' | 'expr' '<' extent '>' |
             'complex' '<' scalar ',' scalar '>' | 'dtype.f32' | 'device.cuda:0' | 'layout.strided' |
             'memory_format.channels_last' | '@entry'
"""

from __future__ import annotations

import math
from collections.abc import Callable

from xdsl.parser import AttrParser

from forgec.runtime.dtypes import ITEMSIZE
from forgec.runtime.plan import Arg, Device, DType, EntryRef, Layout, MemoryFormat, Reg
from forgec.runtime.symbolic import Extent, SymExpr, floordiv, mod, sym_max, sym_min, symbol

_FUNCTIONS: dict[str, Callable[..., Extent]] = {
    "floordiv": floordiv,
    "mod": mod,
    "max": sym_max,
    "min": sym_min,
}
_NAMED = {"dtype": DType, "device": Device, "layout": Layout, "memory_format": MemoryFormat}


def parse_extent(parser: AttrParser) -> Extent:
    """Parse an extent, as ``str`` of it prints."""
    negative = parser.parse_optional_punctuation("-") is not None
    value = _parse_term(parser)
    value = -value if negative else value
    while True:
        if parser.parse_optional_punctuation("+"):
            value = value + _parse_term(parser)
        elif parser.parse_optional_punctuation("-"):
            value = value - _parse_term(parser)
        else:
            return value


def _parse_term(parser: AttrParser) -> Extent:
    value = _parse_factor(parser)
    while parser.parse_optional_punctuation("*"):
        value = value * _parse_factor(parser)
    return value


def _parse_factor(parser: AttrParser) -> Extent:
    if (integer := parser.parse_optional_integer(allow_boolean=False)) is not None:
        return integer
    position = parser.pos
    if parser.parse_optional_punctuation("("):
        value = parse_extent(parser)
        parser.parse_punctuation(")")
        return value
    name = parser.parse_identifier("an extent")
    if name not in _FUNCTIONS:
        return symbol(name)
    arguments = parser.parse_comma_separated_list(parser.Delimiter.PAREN, lambda: parse_extent(parser))
    if len(arguments) < 2 or (name in ("floordiv", "mod") and len(arguments) > 2):
        parser.raise_error(f"wrong number of arguments of {name}", position)
    return _FUNCTIONS[name](*arguments)


def format_scalar(value: bool | int | float) -> str:
    """The exact text of a Python number: distinct numbers (and kinds) have distinct texts, equal ones equal texts."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if math.isnan(value):
        return "nan"
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    text = repr(value)
    mantissa, exponent, power = text.partition("e")
    if "." not in mantissa:  # MLIR's float literal needs a point
        mantissa += ".0"
    return mantissa + exponent + power


def scalar_value(text: str) -> bool | int | float:
    """The number that ``format_scalar`` printed."""
    if text in ("true", "false"):
        return text == "true"
    if text in ("nan", "inf", "-inf") or "." in text:
        return float(text)
    return int(text)


def parse_optional_scalar(parser: AttrParser) -> bool | int | float | None:
    """Parse a number, or return None (nothing consumed) when none follows."""
    for word, value in (("true", True), ("false", False), ("inf", math.inf), ("nan", math.nan)):
        if parser.parse_optional_keyword(word) is not None:
            return value
    negative = parser.parse_optional_punctuation("-") is not None
    if negative and parser.parse_optional_keyword("inf") is not None:
        return -math.inf
    number = parser.parse_optional_number(allow_boolean=False)
    if number is None:
        if negative:
            parser.raise_error("expected a number after '-'")
        return None
    return -number if negative else number  # -0.0 stays a float zero with its sign


def parse_scalar(parser: AttrParser) -> bool | int | float:
    """Parse a number."""
    value = parse_optional_scalar(parser)
    if value is None:
        parser.raise_error("expected a number")
    return value


def format_arg(arg: Arg, operand: Callable[[int], str] | None = None) -> str:
    """The text of one call argument; ``operand`` names operand references (by default ``operand<i>``)."""
    if arg is None:
        return "none"
    if isinstance(arg, (bool, int, float)):
        return format_scalar(arg)
    if isinstance(arg, complex):
        return f"complex<{format_scalar(arg.real)}, {format_scalar(arg.imag)}>"
    if isinstance(arg, str):
        return _format_string(arg)
    if isinstance(arg, Reg):
        return f"operand<{arg.id}>" if operand is None else operand(arg.id)
    if isinstance(arg, tuple):
        return f"[{', '.join(format_arg(a, operand) for a in arg)}]"
    if isinstance(arg, SymExpr):
        return f"expr<{arg}>"
    if isinstance(arg, EntryRef):
        return f"@{arg.name}"
    for keyword, cls in _NAMED.items():
        if isinstance(arg, cls):
            return f"{keyword}.{arg.name}"
    raise TypeError(f"{arg!r} is no call argument")


def _format_string(text: str) -> str:
    """MLIR's string literal: bytes of UTF-8 outside printable ASCII, and quotes and backslashes, in hexadecimal."""
    escaped = (chr(b) if 0x20 <= b <= 0x7E and b not in b'"\\' else f"\\{b:02X}" for b in text.encode())
    return f'"{"".join(escaped)}"'


def parse_optional_string(parser: AttrParser) -> str | None:
    """Parse a string literal, or return None; unlike xDSL's own, reads escapes of what is not ASCII."""
    if (data := parser.parse_optional_bytes_literal()) is not None:
        return data.decode()
    return parser.parse_optional_str_literal()


def parse_arg(parser: AttrParser, operand: Callable[[], int | None] | None = None) -> Arg:
    """Parse one call argument; ``operand`` tries to parse an SSA operand and returns its index, or None."""
    if operand is not None and (index := operand()) is not None:
        return Reg(index)
    if parser.parse_optional_keyword("none") is not None:
        return None
    if (text := parse_optional_string(parser)) is not None:
        return text
    if (called := parser.parse_optional_symbol_name()) is not None:
        return EntryRef(called.data)
    items = parser.parse_optional_comma_separated_list(parser.Delimiter.SQUARE, lambda: parse_arg(parser, operand))
    if items is not None:
        return tuple(items)
    if parser.parse_optional_keyword("operand") is not None:
        with parser.in_angle_brackets():
            return Reg(parser.parse_integer(allow_boolean=False, allow_negative=False))
    if parser.parse_optional_keyword("expr") is not None:
        with parser.in_angle_brackets():
            return parse_extent(parser)
    if parser.parse_optional_keyword("complex") is not None:
        with parser.in_angle_brackets():
            real = parse_scalar(parser)
            parser.parse_punctuation(",")
            return complex(real, parse_scalar(parser))
    value = parse_optional_scalar(parser)
    if value is not None:
        return value
    keyword, _, name = parser.parse_identifier("a call argument").partition(".")
    if keyword not in _NAMED or not name:
        parser.raise_error("expected a call argument")
    if keyword == "device" and parser.parse_optional_punctuation(":"):
        name += f":{parser.parse_integer(allow_boolean=False, allow_negative=False)}"
    if keyword == "dtype" and name not in ITEMSIZE:
        parser.raise_error(f"{name} is no dtype that forgec knows")
    return _NAMED[keyword](name)


CallArguments = tuple[tuple[Arg, ...], tuple[tuple[str, Arg], ...]]


def format_call(arguments: CallArguments, operand: Callable[[int], str] | None = None) -> str:
    """``(a, b, name = c)``."""
    args, kwargs = arguments
    parts = [format_arg(a, operand) for a in args]
    parts += [f"{name} = {format_arg(value, operand)}" for name, value in kwargs]
    return f"({', '.join(parts)})"


def parse_call(parser: AttrParser, operand: Callable[[], int | None] | None = None) -> CallArguments:
    """Parse ``(a, b, name = c)``: positional arguments, then keyword arguments."""
    args: list[Arg] = []
    kwargs: list[tuple[str, Arg]] = []
    reserved = {"none", "true", "false", "inf", "nan", "operand", "expr", "complex"}

    def item() -> None:
        position = parser.pos
        name = None
        token = parser._current_token.text  # pyright: ignore[reportPrivateUsage] - xDSL has no public peek
        if token.isidentifier() and token not in reserved:
            name = parser.parse_identifier()
            parser.parse_punctuation("=")
        value = parse_arg(parser, operand)
        if name is not None:
            kwargs.append((name, value))
        elif kwargs:
            parser.raise_error("a positional argument follows a keyword argument", position)
        else:
            args.append(value)

    parser.parse_comma_separated_list(parser.Delimiter.PAREN, item)
    return tuple(args), tuple(kwargs)
