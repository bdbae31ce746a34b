"""Exact simplification of division, remainder, maximum and minimum."""

from __future__ import annotations

from collections.abc import Iterable
from math import gcd

from forgec.runtime.symbolic.atoms import Atom, Monomial, divide_monomial, shared_factor
from forgec.runtime.symbolic.bounds import bounds, is_nonnegative
from forgec.runtime.symbolic.expr import Extent, SymExpr, from_atom, from_terms, terms_of


def floordiv(a: Extent, b: Extent) -> Extent:
    """``a // b``, rounded towards minus infinity. ``ZeroDivisionError`` when ``b`` is the constant 0."""
    if isinstance(a, int) and isinstance(b, int):
        return a // b
    if isinstance(b, int) and b == 0:
        raise ZeroDivisionError(f"floordiv({a}, 0)")
    if _leading_coefficient(b) < 0:
        a, b = -a, -b
    quotient, rest = split_multiples(a, b)
    rest, b, _ = _cancel(rest, b)
    if isinstance(b, int):
        return quotient + _floordiv_by_int(rest, b)
    if isinstance(rest, int) and rest == 0:
        return quotient
    exact = _divide_exactly(rest, b)
    if exact is not None:
        return quotient + exact
    return quotient + from_atom(Atom.call("floordiv", (rest, b)))


def mod(a: Extent, b: Extent) -> Extent:
    """``a - b * floordiv(a, b)``: has the sign of ``b``. ``ZeroDivisionError`` when ``b`` is the constant 0."""
    if isinstance(a, int) and isinstance(b, int):
        return a % b
    if isinstance(b, int) and b == 0:
        raise ZeroDivisionError(f"mod({a}, 0)")
    if _leading_coefficient(b) < 0:
        return -mod(-a, -b)
    _, rest = split_multiples(a, b)
    rest, b, factor = _cancel(rest, b)
    if isinstance(b, int):
        return factor * _mod_by_int(rest, b)
    if isinstance(rest, int) and rest == 0:
        return 0
    if _divide_exactly(rest, b) is not None:
        return 0
    return factor * from_atom(Atom.call("mod", (rest, b)))


def sym_max(*values: Extent) -> Extent:
    """The largest of the values; those that another one is never below (all symbols >= 0) are left out."""
    return _extremum("max", values)


def sym_min(*values: Extent) -> Extent:
    """The smallest of the values; those that another one is never above (all symbols >= 0) are left out."""
    return _extremum("min", values)


def apply(op: str, arguments: list[Extent]) -> Extent:
    """One of the four functions by name: ``floordiv`` and ``mod`` of two extents, ``max`` and ``min`` of two or
    more.
    """
    if op in ("floordiv", "mod"):
        if len(arguments) != 2:
            raise ValueError(f"{op} takes two arguments, not {len(arguments)}")
        return floordiv(*arguments) if op == "floordiv" else mod(*arguments)
    if op in ("max", "min"):
        if len(arguments) < 2:
            raise ValueError(f"{op} takes at least two arguments")
        return _extremum(op, arguments)
    raise ValueError(f"'{op}' is no function of extents")


def _leading_coefficient(value: Extent) -> int:
    return value if isinstance(value, int) else value.terms[0][1]


def split_multiples(a: Extent, b: Extent) -> tuple[Extent, Extent]:
    """(q, r) with ``a == b * q + r``, where q takes each term of ``a`` that holds a multiple of the one term of
    ``b``.
    """
    terms = terms_of(b)
    if len(terms) != 1:
        return (1, 0) if a == b else (0, a)
    divisor, scale = terms[0]
    quotient: dict[Monomial, int] = {}
    rest: dict[Monomial, int] = {}
    for monomial, coefficient in terms_of(a):
        part = divide_monomial(monomial, divisor)
        if part is None:
            rest[monomial] = coefficient
            continue
        quotient[part] = quotient.get(part, 0) + coefficient // scale
        rest[monomial] = coefficient % scale
    return from_terms(quotient), from_terms(rest)


def _cancel(a: Extent, b: Extent) -> tuple[Extent, Extent, Extent]:
    """(a / f, b / f, f) for the largest term ``f`` that divides every term of both; ``a // b`` keeps its value."""
    terms = (*terms_of(a), *terms_of(b))
    scale = 0
    for _, coefficient in terms:
        scale = gcd(scale, coefficient)
    common = shared_factor([monomial for monomial, _ in terms])
    if scale == 1 and not common:
        return a, b, 1

    def divided(value: Extent) -> Extent:
        parts: dict[Monomial, int] = {}
        for monomial, coefficient in terms_of(value):
            part = divide_monomial(monomial, common)
            assert part is not None
            parts[part] = coefficient // scale
        return from_terms(parts)

    return divided(a), divided(b), from_terms({common: scale})


def _floordiv_by_int(a: Extent, divisor: int) -> Extent:
    """``a // divisor`` for a positive divisor."""
    if isinstance(a, int):
        return a // divisor
    if divisor == 1:
        return a
    quotient, rest = split_multiples(a, divisor)
    if isinstance(rest, int):
        return quotient + rest // divisor
    # Non-constant coefficients that share a factor with the divisor: floor((g x + c) / (g e)) == floor((x + floor(c /
    # g)) / e).
    factor = divisor
    for monomial, coefficient in rest.terms:
        if monomial:
            factor = gcd(factor, coefficient)
    if factor > 1:
        reduced = from_terms({monomial: coefficient // factor for monomial, coefficient in rest.terms})
        return quotient + _floordiv_by_int(reduced, divisor // factor)
    # floor(floor(x / e) / d) == floor(x / (d e)), and a constant beside the inner division moves inside.
    constant = rest.terms[-1][1] if not rest.terms[-1][0] else 0
    monomial, coefficient = rest.terms[0]
    if len(rest.terms) == (2 if constant else 1) and coefficient == 1 and len(monomial) == 1:
        inner = monomial[0]
        if inner.op == "floordiv" and isinstance(inner.args[1], int):
            return quotient + floordiv(inner.args[0] + constant * inner.args[1], inner.args[1] * divisor)
    low, high = bounds(rest)
    if low is not None and low >= 0 and high is not None and high < divisor:
        return quotient
    return quotient + from_atom(Atom.call("floordiv", (rest, divisor)))


def _mod_by_int(a: Extent, divisor: int) -> Extent:
    """``a % divisor`` for a positive divisor."""
    if isinstance(a, int):
        return a % divisor
    rest = split_multiples(a, divisor)[1]
    if isinstance(rest, int):
        return rest % divisor
    for monomial, coefficient in rest.terms:
        # mod(c mod(x, e) + y, d) == mod(c x + y, d) when d divides c e.
        if len(monomial) == 1 and monomial[0].op == "mod" and isinstance(monomial[0].args[1], int):
            inner, modulus = monomial[0].args[0], monomial[0].args[1]
            if coefficient * modulus % divisor == 0:
                return _mod_by_int(rest - from_atom(monomial[0]) * coefficient + inner * coefficient, divisor)
    # mod(g x + c, g e) == g mod(x + floor(c / g), e) + c mod g.
    factor = divisor
    for monomial, coefficient in rest.terms:
        if monomial:
            factor = gcd(factor, coefficient)
    if factor > 1:
        constant = rest.terms[-1][1] if not rest.terms[-1][0] else 0
        reduced = from_terms({monomial: coefficient // factor for monomial, coefficient in rest.terms})
        return factor * _mod_by_int(reduced, divisor // factor) + constant % factor
    low, high = bounds(rest)
    if low is not None and low >= 0 and high is not None and high < divisor:
        return rest
    return from_atom(Atom.call("mod", (rest, divisor)))


def _divide_exactly(a: Extent, b: SymExpr) -> Extent | None:
    """``a / b`` when the polynomial ``b`` divides ``a`` without remainder (long division in graded order), else
    None.
    """
    lead, scale = b.terms[0]
    quotient: Extent = 0
    for _ in range(64):
        if isinstance(a, int):
            return quotient if a == 0 else None
        monomial, coefficient = a.terms[0]
        part = divide_monomial(monomial, lead)
        if part is None or coefficient % scale:
            return None
        step = from_terms({part: coefficient // scale})
        quotient = quotient + step
        a = a - b * step
    return None


def _extremum(op: str, values: Iterable[Extent]) -> Extent:
    sign = 1 if op == "max" else -1
    candidates: list[Extent] = []
    for value in values:
        atom = _single_atom(value)
        candidates.extend(atom.args if atom is not None and atom.op == op else (value,))
    if not candidates:
        raise ValueError(f"{op} of no values")
    kept: list[Extent] = []
    for value in dict.fromkeys(candidates):
        if any(is_nonnegative((other - value) * sign) for other in kept):
            continue
        kept = [other for other in kept if not is_nonnegative((value - other) * sign)]
        kept.append(value)
    if len(kept) == 1:
        return kept[0]
    kept.sort(key=lambda value: (isinstance(value, int), str(value)))
    return from_atom(Atom.call(op, tuple(kept)))


def _single_atom(value: Extent) -> Atom | None:
    if isinstance(value, SymExpr) and len(value.terms) == 1 and value.terms[0][1] == 1 and len(value.terms[0][0]) == 1:
        return value.terms[0][0][0]
    return None
