"""Extents of an entry point: how a call's inputs define the symbols, and how many bytes a strided tensor spans."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from forgec.runtime.dtypes import ITEMSIZE
from forgec.runtime.plan import Entry, Literal
from forgec.runtime.static_extents import static as static
from forgec.runtime.symbolic import Extent, SymExpr


@dataclass(frozen=True, slots=True)
class SymbolSource:
    """The symbol's value is ``(extent - shift) / scale``, where the extent is axis ``axis`` of input leaf ``leaf``
    (None: the int itself)."""

    symbol: str
    leaf: int
    axis: int | None
    scale: int = 1
    shift: int = 0

    def solve(self, extent: int) -> int | None:
        """The symbol's value, None when the extent is no multiple or the value would be negative."""
        value, rest = divmod(extent - self.shift, self.scale)
        return None if rest or value < 0 else value


def symbol_sources(entry: Entry) -> tuple[SymbolSource, ...]:
    """One source for each symbol that an input defines: an extent that is the symbol, else the first one linear in it
    alone."""
    found: dict[str, SymbolSource] = {}
    for leaf, described in enumerate(entry.inputs):
        if isinstance(described, Literal):
            continue
        if isinstance(described, SymExpr):
            extents: Sequence[tuple[int | None, Extent]] = ((None, described),)
        elif 0 <= described < len(entry.registers):
            extents = tuple(enumerate(entry.registers[described].spec.shape))
        else:
            continue
        for axis, extent in extents:
            source = _linear(extent, leaf, axis)
            if source is None:
                continue
            known = found.get(source.symbol)
            if known is None or (source.scale, source.shift) == (1, 0) != (known.scale, known.shift):
                found[source.symbol] = source
    return tuple(found.values())


def _linear(extent: Extent, leaf: int, axis: int | None) -> SymbolSource | None:
    if not isinstance(extent, SymExpr):
        return None
    terms = extent.terms
    shift = terms[-1][1] if not terms[-1][0] else 0
    monomial, scale = terms[0]
    if len(terms) != (1 if shift == 0 else 2) or len(monomial) != 1 or monomial[0].op != "symbol" or scale <= 0:
        return None
    return SymbolSource(monomial[0].text, leaf, axis, scale, shift)


def element_span(shape: Sequence[int], strides: Sequence[int]) -> int:
    """Elements from the first to behind the last one; 0 for an empty tensor."""
    span = 1
    for extent, stride in zip(shape, strides, strict=True):
        if extent == 0:
            return 0
        span += (extent - 1) * stride
    return span


def byte_span(dtype: str, shape: Sequence[int], strides: Sequence[int]) -> int:
    """``element_span`` in bytes."""
    return element_span(shape, strides) * ITEMSIZE[dtype]


def overlaps_itself(shape: Sequence[int], strides: Sequence[int], *, repeats: bool) -> bool:
    """Whether two elements may share memory; ``repeats`` allows stride 0, which makes all of an axis one element."""
    if 0 in shape:
        return False
    span = 1
    for stride, extent in sorted(zip(strides, shape, strict=True)):
        if extent > 1 and not (repeats and stride == 0):
            if stride < span:
                return True
            span += (extent - 1) * stride
    return False


def same_strides(shape: Sequence[int], left: Sequence[int], right: Sequence[int]) -> bool:
    """Whether two sets of strides address the same elements: those of extents 0 and 1 do not matter, nor any of an
    empty tensor."""
    if 0 in shape:
        return True
    return all(extent == 1 or a == b for extent, a, b in zip(shape, left, right, strict=True))
