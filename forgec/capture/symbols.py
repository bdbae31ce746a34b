"""torch's symbolic integers as forgec's: fresh canonical names, ranges and labels."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch.utils._sympy.symbol import SymT, symbol_is_type

from forgec.diagnostics import error
from forgec.runtime.symbolic import Extent, sym_max, sym_min, symbol


@dataclass
class SymbolTable:
    """Translates torch's symbolic expressions; names symbols ``s0, s1, …`` in the order in which they are first
    seen."""

    ranges: dict[str, tuple[int, int | None]] = field(default_factory=dict)
    """Torch's range of each of its symbols, by torch's name."""
    names: dict[str, str] = field(default_factory=dict)
    """Torch's name → ours."""
    labels: dict[str, str] = field(default_factory=dict)
    """Torch's name → the name that the user gave (or the input and its dimension)."""

    @staticmethod
    def of(constraints: Any) -> SymbolTable:
        """The table for an exported program's ``range_constraints``."""
        ranges: dict[str, tuple[int, int | None]] = {}
        for expression, interval in constraints.items():
            if not expression.is_Symbol:
                continue
            low = int(interval.lower) if interval.lower.is_Integer else 0
            bounded = interval.upper.is_Integer and int(interval.upper) < 2**62
            ranges[str(expression)] = (max(low, 0), int(interval.upper) if bounded else None)
        return SymbolTable(ranges)

    def extent(self, value: Any) -> Extent:
        """``value`` (an int, or torch's SymInt) as an extent."""
        if isinstance(value, int):
            return value
        return self._expression(value.node.expr)

    def extents(self, values: Any) -> tuple[Extent, ...]:
        """A shape or strides as extents."""
        return tuple(v if type(v) is int else self.extent(v) for v in values)

    def _expression(self, e: Any) -> Extent:
        if e.is_Integer:
            return int(e)
        if e.is_Symbol and symbol_is_type(e, SymT.UNBACKED_INT):
            raise error("FORGE-C003", f"the extent {e} depends on the data, which cannot be captured")
        if e.is_Symbol:
            name = self.names.setdefault(str(e), f"s{len(self.names)}")
            return symbol(name)
        kind = type(e).__name__
        parts = [self._expression(a) for a in e.args] if kind != "Pow" else []
        if e.is_Add:
            return sum(parts, start=0)
        if e.is_Mul:
            result: Extent = 1
            for part in parts:
                result = result * part
            return result
        if kind == "Pow" and e.args[1].is_Integer and int(e.args[1]) > 0:
            base, result = self._expression(e.args[0]), 1
            for _ in range(int(e.args[1])):
                result = result * base
            return result
        if kind in ("FloorDiv", "CleanDiv"):
            return parts[0] // parts[1]
        if kind in ("Mod", "PythonMod"):
            return parts[0] % parts[1]
        if kind == "Max":
            result = parts[0]
            for part in parts[1:]:
                result = sym_max(result, part)
            return result
        if kind == "Min":
            result = parts[0]
            for part in parts[1:]:
                result = sym_min(result, part)
            return result
        raise error("FORGE-C003", f"the extent {e} cannot be represented", notes=(f"torch's expression is a {kind}",))
