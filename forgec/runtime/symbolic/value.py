"""The value of an expression for given symbols, and the replacement of symbols by extents."""

from __future__ import annotations

from collections.abc import Mapping

from forgec.runtime.symbolic.atoms import Atom
from forgec.runtime.symbolic.expr import Extent, from_atom
from forgec.runtime.symbolic.fold import apply


def evaluate(expr: Extent, values: Mapping[str, int]) -> int:
    """The value for the given symbols. ``KeyError`` for a symbol without a value, ``ZeroDivisionError`` for a zero
    divisor."""
    if isinstance(expr, int):
        return expr
    total = 0
    for monomial, coefficient in expr.terms:
        product = coefficient
        for atom in monomial:
            product *= _evaluate_atom(atom, values)
        total += product
    return total


def substitute(expr: Extent, values: Mapping[str, Extent]) -> Extent:
    """The expression with some symbols replaced by extents; symbols that ``values`` does not name stay."""
    if isinstance(expr, int):
        return expr
    total: Extent = 0
    for monomial, coefficient in expr.terms:
        product: Extent = coefficient
        for atom in monomial:
            product = product * _substitute_atom(atom, values)
        total = total + product
    return total


def _evaluate_atom(atom: Atom, values: Mapping[str, int]) -> int:
    if atom.op == "symbol":
        return values[atom.text]
    arguments = [evaluate(argument, values) for argument in atom.args]
    match atom.op:
        case "floordiv":
            return arguments[0] // arguments[1]
        case "mod":
            return arguments[0] % arguments[1]
        case "max":
            return max(arguments)
    return min(arguments)


def _substitute_atom(atom: Atom, values: Mapping[str, Extent]) -> Extent:
    if atom.op == "symbol":
        replacement = values.get(atom.text)
        return from_atom(atom) if replacement is None else replacement
    return apply(atom.op, [substitute(argument, values) for argument in atom.args])
