"""Interval arithmetic: a range that the value of an expression never leaves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from forgec.runtime.symbolic.atoms import Atom, Monomial
from forgec.runtime.symbolic.expr import Extent

Bounds: TypeAlias = "tuple[int | None, int | None]"
"""Inclusive; None: not bounded on that side, or not known to be."""

_ANY_SYMBOL: Bounds = (0, None)


def bounds(expr: Extent, ranges: Mapping[str, Bounds] | None = None) -> Bounds:
    """A range that holds every value of the expression, wherever it is defined; symbols without a range are >= 0.

    Not the tightest one: occurrences of one symbol count as independent.
    """
    if isinstance(expr, int):
        return expr, expr
    ranges = ranges or {}
    low: int | None = 0
    high: int | None = 0
    for monomial, coefficient in expr.terms:
        least, most = _product(monomial, ranges)
        if coefficient < 0:
            least, most = most, least
        low = None if low is None or least is None else low + coefficient * least
        high = None if high is None or most is None else high + coefficient * most
    return low, high


def is_nonnegative(expr: Extent) -> bool:
    """True when the form alone shows that the value is >= 0 for all symbols >= 0; False means "not known"."""
    low = bounds(expr)[0]
    return low is not None and low >= 0


def _product(monomial: Monomial, ranges: Mapping[str, Bounds]) -> Bounds:
    parts = [_atom(atom, ranges) for atom in monomial]
    if len(parts) == 1:
        return parts[0]
    low: int | None = 1
    high: int | None = 1
    for least, most in parts:
        if least is None or least < 0:
            return None, None
        low *= least
        high = None if high is None or most is None else high * most
    return low, high


def _atom(atom: Atom, ranges: Mapping[str, Bounds]) -> Bounds:
    if atom.op == "symbol":
        return ranges.get(atom.text, _ANY_SYMBOL)
    parts = [bounds(argument, ranges) for argument in atom.args]
    lows = [low for low, _ in parts if low is not None]
    highs = [high for _, high in parts if high is not None]
    match atom.op:
        case "max":
            return max(lows, default=None), max(highs) if len(highs) == len(parts) else None
        case "min":
            return min(lows) if len(lows) == len(parts) else None, min(highs, default=None)
        case "floordiv":
            return _quotient(*parts)
    return _remainder(*parts)


def _quotient(dividend: Bounds, divisor: Bounds) -> Bounds:
    (low, high), (least, most) = dividend, divisor
    if least is None or least < 0:
        return None, None
    least = max(least, 1)  # where the quotient is defined, the divisor is not zero
    if low is not None:
        low = low // least if low < 0 else 0 if most is None else low // most
    if high is not None:
        high = high // least if high >= 0 else -1 if most is None else high // most
    return low, high


def _remainder(dividend: Bounds, divisor: Bounds) -> Bounds:
    (low, high), (least, most) = dividend, divisor
    if least is None or least < 0:
        return None, None
    limits = [most - 1] if most is not None else []
    if low is not None and low >= 0 and high is not None:
        limits.append(high)
    return 0, min(limits, default=None)
