"""Pieces of Python text: what they bind like, which extents they have, and names that clash with nothing."""

from __future__ import annotations

import builtins
import keyword
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np
from xdsl.dialects.builtin import (
    BFloat16Type,
    Float8E4M3FNType,
    Float8E5M2Type,
    Float16Type,
    Float32Type,
    Float64Type,
    IndexType,
    IntegerType,
)
from xdsl.ir import Attribute


class Level(IntEnum):
    """How tightly Python's operators bind."""

    COMPARE = 4
    OR = 5
    XOR = 6
    AND = 7
    SHIFT = 8
    SUM = 9
    PRODUCT = 10
    UNARY = 11
    ATOM = 20


@dataclass(frozen=True)
class Text:
    """A value as Python text.

    ``shape`` are the extents that the text has in Triton: () for a scalar, else one for each axis of the tile, where an
    axis along which all elements are equal may still have extent 1 (Triton broadcasts it). ``literal`` is the value of
    a constant. ``plain``: Triton's interpreter has a number of Python's here, without methods.
    """

    code: str
    shape: tuple[int, ...] = ()
    level: Level = Level.ATOM
    literal: bool | int | float | None = None
    plain: bool = False

    def at(self, level: int) -> str:
        """The text as an operand of an operator of this level."""
        return self.code if self.level >= level else f"({self.code})"

    def subscript(self, axes: Sequence[int], rank: int) -> Text:
        """The tile with its axes as ``axes`` of one of this rank: ``x[:, None]``."""
        if not self.shape or len(axes) == rank:
            return self
        index = ", ".join(":" if axis in axes else "None" for axis in range(rank))
        shape = [1] * rank
        for axis, extent in zip(axes, self.shape, strict=True):
            shape[axis] = extent
        return replace(self, code=f"{self.at(Level.ATOM)}[{index}]", shape=tuple(shape), level=Level.ATOM)


def call(function: str, *arguments: str, shape: tuple[int, ...] = ()) -> Text:
    """``function(arguments)``."""
    return Text(f"{function}({', '.join(arguments)})", shape)


def joined(*parts: Text) -> tuple[int, ...]:
    """The extents of an elementwise result."""
    found: list[int] = []
    for part in parts:
        if not found:
            found = list(part.shape)
        elif part.shape:
            found = [max(left, right) for left, right in zip(found, part.shape, strict=True)]
    return tuple(found)


def binary(symbol: str, left: Text, right: Text) -> Text:
    """``left symbol right``, in parentheses where Python needs them."""
    level = _LEVELS[symbol]
    first, second = (Level.OR, Level.OR) if level is Level.COMPARE else (level, level + 1)
    return Text(f"{left.at(first)} {symbol} {right.at(second)}", joined(left, right), level)


_LEVELS = {
    **dict.fromkeys(("<", "<=", ">", ">=", "==", "!="), Level.COMPARE),
    "|": Level.OR,
    "^": Level.XOR,
    "&": Level.AND,
    "<<": Level.SHIFT,
    ">>": Level.SHIFT,
    "+": Level.SUM,
    "-": Level.SUM,
    "*": Level.PRODUCT,
    "/": Level.PRODUCT,
    "//": Level.PRODUCT,
    "%": Level.PRODUCT,
}


def conjunction(parts: Iterable[Text]) -> Text | None:
    """All of these; None of none."""
    found: Text | None = None
    for part in parts:
        found = part if found is None else binary("&", found, part)
    return found


def literal(value: bool | int | float, element: Attribute | None = None) -> Text:
    """A constant. A float32 is written with as few digits as tell it from its neighbours."""
    if isinstance(value, (bool, np.bool_)):
        return Text(str(bool(value)), literal=bool(value), plain=True)
    if isinstance(value, int):
        return Text(str(value), (), Level.ATOM if value >= 0 else Level.UNARY, value, True)
    if not math.isfinite(value):
        return Text(f'float("{value}")', literal=value, plain=True)
    code = str(np.float32(value)) if isinstance(element, Float32Type) else repr(float(value))
    if float(code) != value and not isinstance(element, Float32Type):
        raise AssertionError(f"{code} is not {value}")
    negative = math.copysign(1.0, value) < 0
    return Text(code, (), Level.UNARY if negative else Level.ATOM, value, True)


def float8_bits(value: float, dtype: str) -> int:
    """The bits of a number as an 8-bit float, as a signed byte."""
    import torch

    kinds = {"float8e4nv": torch.float8_e4m3fn, "float8e5": torch.float8_e5m2}
    return int(torch.tensor(value, dtype=torch.float32).to(kinds[dtype]).view(torch.int8))


def dtype_name(element: Attribute, index: str) -> str | None:
    """Triton's name of an element type (``float32``); ``index`` is the one of indices. None: Triton has none."""
    match element:
        case IndexType():
            return index
        case IntegerType():
            width = element.width.data
            if width not in (1, 8, 16, 32, 64):
                return None
            return f"int{width}"  # also of unsigned ones in memory: ops say how they read bits
        case _:
            return _FLOATS.get(type(element))


_FLOATS: dict[type[Attribute], str] = {
    Float64Type: "float64",
    Float32Type: "float32",
    Float16Type: "float16",
    BFloat16Type: "bfloat16",
    Float8E4M3FNType: "float8e4nv",
    Float8E5M2Type: "float8e5",
}

_MANGLED = {
    "float64": "fp64", "float32": "fp32", "float16": "fp16", "bfloat16": "bf16",
    "float8e4nv": "fp8e4nv", "float8e5": "fp8e5", "int1": "i8",
    "int8": "i8", "int16": "i16", "int32": "i32", "int64": "i64",
}  # fmt: skip


def mangled(dtype: str) -> str:
    """The name of a dtype in memory in Triton's signatures; booleans are bytes there."""
    return _MANGLED[dtype]


RESERVED = frozenset({*keyword.kwlist, *keyword.softkwlist, *dir(builtins), "triton", "tl", "libdevice", "self"})


class Names:
    """Identifiers of one function, each given once."""

    def __init__(self, taken: Iterable[str]) -> None:
        self._taken = {*RESERVED, *taken}

    def fresh(self, wish: str) -> str:
        """An identifier like the wish: ``x``, else ``x_1``, ``x_2``, …"""
        base = re.sub(r"[^A-Za-z0-9_]", "_", wish).strip("_") or "value"
        if base[0].isdigit():
            base = f"v{base}"
        name, number = base, 0
        while name in self._taken:
            number += 1
            name = f"{base}_{number}"
        self._taken.add(name)
        return name
