"""Places: where in a tensor an element lies, as expressions over the axes along which a kernel works.

A place is one expression for each dimension of a value, over the axes' symbols, the program's symbols, and symbols
that stand for numbers which the kernel reads. All arithmetic of places is exact: a division or remainder that an axis'
extent decides disappears, one that it does not stays in the expression.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

from forgec.runtime.symbolic import (
    Bounds,
    Extent,
    SymExpr,
    bounds,
    floordiv,
    free_symbols,
    is_nonnegative,
    mod,
    substitute,
    symbol,
)
from forgec.runtime.symbolic.atoms import Monomial
from forgec.runtime.symbolic.expr import from_terms
from forgec.runtime.symbolic.fold import split_multiples

Place = tuple[Extent, ...]


@dataclass(eq=False)
class Axis:
    """An axis of a kernel: a loop over ``extent`` places, of which one program or one iteration has a tile.

    ``role`` says how: ``grid`` (one place for each program), ``tile`` (``size`` places for each program), ``whole``
    (all places in
    one tile) or ``loop`` (``size`` places for each iteration). ``order`` sorts the axes of a tile.
    """

    symbol: SymExpr
    extent: Extent
    order: int
    role: str = "tile"
    size: Extent = 1
    """The extent of tiles along the axis, perhaps a tile parameter."""
    depth: int = 0
    """How many loops of the kernel are around it."""
    panel: int = 0
    """The extent that tiles along it must have; 0: any."""
    formal: Extent = 0
    """The extent that arithmetic of places goes by. An axis that neighbours were joined to runs through more places; in
    expressions it still stands for the innermost of them alone, the others for 0.
    """

    def __post_init__(self) -> None:
        self.formal = self.extent

    @property
    def name(self) -> str:
        return str(self.symbol)

    @property
    def is_tiled(self) -> bool:
        """True if tiles extend along it; along the others a program is at one place."""
        return self.role != "grid"


@dataclass
class Axes:
    """The axes of a kernel that is being built, by name."""

    known: dict[str, Axis] = field(default_factory=dict)
    nonempty: frozenset[Extent] = frozenset()
    """Extents that are not 0 where anything is computed at all."""

    def add(self, axis: Axis) -> Axis:
        """Register an axis."""
        self.known[axis.name] = axis
        return axis

    def of(self, expression: Extent) -> list[Axis]:
        """The axes that occur in an expression, in their order."""
        found = [self.known[name] for name in free_symbols(expression) if name in self.known]
        return sorted(found, key=lambda axis: axis.order)

    def of_all(self, place: Place) -> list[Axis]:
        """The axes that occur in a place."""
        return [axis for expression in place for axis in self.of(expression)]

    @property
    def ranges(self) -> dict[str, Bounds]:
        """What the axes' symbols can be, where that is a number."""
        return {
            name: (0, axis.formal - 1 if isinstance(axis.formal, int) else None) for name, axis in self.known.items()
        }

    def divide(self, expression: Extent, divisor: Extent) -> tuple[Extent, Extent]:
        """Quotient (rounded down) and remainder of a place that is never negative."""
        if divisor == 1:
            return expression, 0
        quotient, rest = split_multiples(expression, divisor)
        if self.is_below(rest, divisor):
            return quotient, rest
        return floordiv(expression, divisor), mod(expression, divisor)

    def is_below(self, expression: Extent, bound: Extent) -> bool:
        """True if a place is certain to lie in ``[0, bound)``."""
        if expression == 0 and bound in self.nonempty:
            return True
        low, high = bounds(expression, self.ranges)
        if low is None or low < 0:
            return False
        if isinstance(bound, int) and high is not None:
            return high < bound
        return is_nonnegative(bound - 1 - self._greatest(expression))

    def is_from(self, expression: Extent, bound: Extent) -> bool:
        """True if a place is certain to be ``bound`` or more."""
        low, _ = bounds(expression - bound, self.ranges)
        return low is not None and low >= 0

    def _greatest(self, expression: Extent) -> Extent:
        """An upper bound of a polynomial without negative terms, with every axis at its last place."""
        if isinstance(expression, int):
            return expression
        last = {axis.name: axis.formal - 1 for axis in self.of(expression)}
        if any(coefficient < 0 for _, coefficient in expression.terms):
            return expression
        return substitute(expression, last)


def linear_parts(expression: Extent, names: Iterable[str]) -> tuple[Extent, dict[str, Extent]] | None:
    """(rest, {name: coefficient}) if the expression is linear in each of some symbols together, with coefficients and
    a rest that hold none of them; else None.
    """
    wanted = set(names)
    if isinstance(expression, int):
        return expression, {}
    rest: Extent = 0
    parts: dict[str, Extent] = {}
    for monomial, coefficient in expression.terms:
        inside = [atom for atom in monomial if atom.op == "symbol" and atom.text in wanted]
        others = tuple(atom for atom in monomial if not (atom.op == "symbol" and atom.text in wanted))
        if len(inside) > 1:
            return None
        for atom in others:
            if atom.op != "symbol" and any(free_symbols(argument) & wanted for argument in atom.args):
                return None
        term = from_terms({others: coefficient})
        if inside:
            name = inside[0].text
            parts[name] = parts.get(name, 0) + term
        else:
            rest = rest + term
    return rest, parts


def rejoined(expression: Extent) -> Extent:
    """The expression with ``c * d * floordiv(x, d) + c * mod(x, d)`` written as ``c * x``, for numbers d."""
    if isinstance(expression, int):
        return expression
    terms = dict(expression.terms)
    for monomial, coefficient in expression.terms:
        for position, atom in enumerate(monomial):
            if atom.op != "mod" or not isinstance(divisor := atom.args[1], int):
                continue
            others = monomial[:position] + monomial[position + 1 :]
            quotient = _term(floordiv(*atom.args) * from_terms({others: coefficient * divisor}))
            if quotient is not None and terms.get(quotient[0]) == quotient[1]:
                del terms[monomial], terms[quotient[0]]
                return rejoined(from_terms(terms) + from_terms({others: coefficient}) * atom.args[0])
    return expression


def _term(expression: Extent) -> tuple[Monomial, int] | None:
    """The one term of an expression."""
    return expression.terms[0] if isinstance(expression, SymExpr) and len(expression.terms) == 1 else None


def divided_axes(expression: Extent) -> list[tuple[str, str, Extent]]:
    """(function, symbol, divisor) for each ``floordiv(symbol, divisor)`` and ``mod(symbol, divisor)`` in an
    expression, nested ones too.
    """
    if isinstance(expression, int):
        return []
    found: list[tuple[str, str, Extent]] = []
    for monomial, _ in expression.terms:
        for atom in monomial:
            if atom.op in ("floordiv", "mod"):
                dividend, divisor = atom.args
                if isinstance(dividend, SymExpr) and len(dividend.terms) == 1:
                    inner, coefficient = dividend.terms[0]
                    if coefficient == 1 and len(inner) == 1 and inner[0].op == "symbol":
                        found.append((atom.op, inner[0].text, divisor))
                found += [each for argument in atom.args for each in divided_axes(argument)]
            elif atom.op != "symbol":
                found += [each for argument in atom.args for each in divided_axes(argument)]
    return found


def reshaped(axes: Axes, place: Place, source: Sequence[Extent], target: Sequence[Extent]) -> Place:
    """Where in a tensor of shape ``source`` the element lies that is at ``place`` in shape ``target`` (row-major)."""
    result: list[Extent] = []
    i = j = 0
    while i < len(source) or j < len(target):
        left, right = [], []
        while True:
            a, b = prod(left, start=1), prod(right, start=1)
            if left and right and a == b:
                break
            if not left and i < len(source):
                left.append(source[i])
                i += 1
            elif not right and j < len(target):
                right.append(target[j])
                j += 1
            elif i < len(source) and (j >= len(target) or _smaller(a, b)):
                left.append(source[i])
                i += 1
            elif j < len(target):
                right.append(target[j])
                j += 1
            else:
                break
        flat: Extent = 0
        for extent, at in zip(right, place[j - len(right) : j], strict=True):
            flat = flat * extent + at
        result += unflattened(axes, flat, left)
    return tuple(result)


def _smaller(a: Extent, b: Extent) -> bool:
    """Whether to take the next extent of the side whose product is ``a``."""
    if isinstance(a, int) and isinstance(b, int):
        return a < b
    if isinstance(a, SymExpr) and isinstance(b, SymExpr):
        return a.terms[0][1] < b.terms[0][1] or len(a.terms[0][0]) < len(b.terms[0][0])
    return isinstance(a, int)


def unflattened(axes: Axes, flat: Extent, shape: Sequence[Extent]) -> list[Extent]:
    """A place in row-major order, as one number for each dimension."""
    if not shape:
        return []
    places: list[Extent] = []
    for extent in reversed(shape[1:]):
        if extent == 1:
            places.append(0)
            continue
        flat, rest = axes.divide(flat, extent)
        places.append(rest)
    places.append(0 if shape[0] == 1 else flat)
    return places[::-1]


def broadcast_place(place: Place, shape: Sequence[Extent]) -> Place:
    """The place in an operand of ``shape`` that broadcasts to a result's place."""
    tail = place[len(place) - len(shape) :]
    return tuple(0 if extent == 1 else at for at, extent in zip(tail, shape, strict=True))


def axis_symbol(prefix: str, number: int) -> SymExpr:
    """The symbol of an axis (``ax``) or of a number that is read (``at``)."""
    return symbol(f"{prefix}{number}")


def renamed(expression: Extent, names: Mapping[str, Extent]) -> Extent:
    """The expression with symbols replaced."""
    return expression if isinstance(expression, int) else substitute(expression, names)
