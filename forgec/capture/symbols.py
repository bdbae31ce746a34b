"""torch's symbolic integers as forgec's: fresh canonical names, ranges and labels."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

from torch.utils._sympy.symbol import SymT, symbol_is_type

from forgec.runtime.symbolic import Bounds, Extent, bounds, free_symbols, sym_max, sym_min, symbol


class Unknown(Exception):
    """An extent that has no value yet where it is needed."""


@dataclass
class SymbolTable:
    """Translates torch's symbolic expressions; names symbols in the order in which they are first seen.

    ``s0, s1, …`` have their values from the inputs. ``u0, …`` depend on the data, and ``t0, …`` stand for expressions
    that extents cannot say (``int(1.5 * s0)``): only the run tells these.
    """

    ranges: dict[str, Bounds] = field(default_factory=dict)
    """Torch's range of each of its symbols (and expressions named ``t``), by torch's name."""
    names: dict[str, str] = field(default_factory=dict)
    """Torch's name → ours."""
    known: set[str] = field(default_factory=set)
    """Those of our names that only the run tells and that have values at this point of the program."""
    told: set[str] = field(default_factory=set)
    """All of our names that only the run tells."""
    nonzero: bool = False
    """While strides are translated: extents are at least 1."""
    in_shapes: set[str] = field(default_factory=set)
    """Torch's data-dependent symbols that occur in shapes."""
    labels: dict[str, str] = field(default_factory=dict)
    """Torch's name → the name that the user gave (or the input and its dimension)."""

    @staticmethod
    def of(constraints: Any) -> SymbolTable:
        """The table for an exported program's ``range_constraints``."""
        ranges: dict[str, Bounds] = {}
        for expression, interval in constraints.items():
            if not expression.is_Symbol:
                continue
            low, high = _bounds(interval)
            if not symbol_is_type(expression, SymT.UNBACKED_INT):
                low = max(low or 0, 0)
            ranges[str(expression)] = (low, high)
        return SymbolTable(ranges)

    def extent(self, value: Any) -> Extent:
        """``value`` (an int, or torch's SymInt) as an extent. Raises Unknown where it has no value yet."""
        if isinstance(value, int):
            return value
        found = self._expression(value.node.expr, value.node.shape_env)
        if (free_symbols(found) & self.told) - self.known:
            raise Unknown
        return found

    def extent_of(self, expression: Any) -> Extent:
        """Torch's expression as an extent, whose symbols may have no values yet. Raises Unknown if extents cannot say
        it."""
        return self._expression(expression, None)

    def extents(self, values: Any) -> tuple[Extent, ...]:
        """A shape or strides as extents, whose symbols may have no values yet."""
        return tuple(v if type(v) is int else self._expression(v.node.expr, v.node.shape_env) for v in values)

    def strides(self, values: Any) -> tuple[Extent, ...]:
        """Strides as extents. Torch says ``max(1, u0)`` where an extent may be 0; but then no stride matters."""
        self.nonzero = True
        try:
            return self.extents(values)
        finally:
            self.nonzero = False

    def undefined(self, extents: Iterable[Extent]) -> list[str]:
        """The symbols in extents that have no values yet, in order."""
        names = [name for extent in extents for name in sorted(free_symbols(extent))]
        return [name for name in dict.fromkeys(names) if name in self.told and name not in self.known]

    def define(self, value: Any) -> str:
        """From here on, torch's expression (a SymInt) has a value: the name of its symbol."""
        e = value.node.expr
        if not e.is_Symbol:
            self._name(e, value.node.shape_env)
        name = self.names[str(e)] if str(e) in self.names else str(self._expression(e, value.node.shape_env))
        self.known.add(name)
        return name

    def range_of(self, value: Any) -> Bounds:
        """The least and the greatest value that torch knows for a SymInt."""
        e = value.node.expr
        return self.ranges[str(e)] if str(e) in self.ranges else _bounds(value.node.shape_env.bound_sympy(e))

    def is_in_shapes(self, value: Any) -> bool:
        """True if shapes speak of a SymInt."""
        return any(str(s) in self.in_shapes for s in value.node.expr.free_symbols)

    def bounds_of(self, extent: Extent) -> Bounds:
        """The least and the greatest value that an extent has for the symbols' ranges; None where it is not known."""
        if isinstance(extent, int):
            return extent, extent
        return bounds(extent, {ours: self.ranges[name] for name, ours in self.names.items() if name in self.ranges})

    def in_words(self, text: str) -> str:
        """A text with torch's names in it, with the labels instead."""
        return re.sub(r"\b[a-z]+\d+\b", lambda name: self.labels.get(name[0], name[0]), text)

    def _greater(self, a: Extent, b: Extent) -> Extent:
        """The maximum: one of the two, where ranges say which."""
        for greater, other in ((a, b), (b, a)):
            low = self.bounds_of(greater - other)[0]
            if low is not None and low >= 0:
                return greater
        return sym_max(a, b)

    def _name(self, e: Any, env: Any) -> Extent:
        """A symbol of ours for an expression that only the run tells."""
        letter = "u" if e.is_Symbol else "t"
        if str(e) not in self.names:
            name = f"{letter}{sum(known.startswith(letter) for known in self.names.values())}"
            self.names[str(e)] = name
            self.told.add(name)
            if not e.is_Symbol:
                self.ranges[str(e)] = _bounds(env.bound_sympy(e))
        return symbol(self.names[str(e)])

    def _expression(self, e: Any, env: Any) -> Extent:
        if e.is_Integer:
            return int(e)
        if e.is_Symbol and symbol_is_type(e, SymT.UNBACKED_INT):
            return self._name(e, env)
        if e.is_Symbol:
            count = len(self.names) - len(self.told)
            return symbol(self.names.setdefault(str(e), f"s{count}"))
        if self.told and str(e) in self.names:
            return symbol(self.names[str(e)])
        kind = type(e).__name__
        if kind not in _SAID or (kind == "Pow" and not (e.args[1].is_Integer and int(e.args[1]) > 0)):
            if env is None:
                raise Unknown
            return self._name(e, env)
        parts = [self._expression(a, env) for a in e.args] if kind != "Pow" else []
        if e.is_Add:
            return sum(parts, start=0)
        if e.is_Mul:
            result: Extent = 1
            for part in parts:
                result = result * part
            return result
        if kind == "Pow" and e.args[1].is_Integer and int(e.args[1]) > 0:
            base, result = self._expression(e.args[0], env), 1
            for _ in range(int(e.args[1])):
                result = result * base
            return result
        if kind in ("FloorDiv", "CleanDiv"):
            return parts[0] // parts[1]
        if kind in ("Mod", "PythonMod"):
            return parts[0] % parts[1]
        if kind == "Max":
            if self.nonzero and 1 in parts:
                parts.remove(1)
            return reduce(self._greater, parts)
        if kind == "Min":
            result = parts[0]
            for part in parts[1:]:
                result = sym_min(result, part)
            return result
        raise AssertionError(f"{kind} is among those that are said")


_SAID = ("Add", "Mul", "Pow", "FloorDiv", "CleanDiv", "Mod", "PythonMod", "Max", "Min")
"""Sympy's classes that extents can say."""


def _bounds(interval: Any) -> Bounds:
    """Torch's range of values, None where it is not bounded."""
    low = int(interval.lower) if interval.lower.is_Integer and int(interval.lower) > -(2**62) else None
    high = int(interval.upper) if interval.upper.is_Integer and int(interval.upper) < 2**62 else None
    return low, high
