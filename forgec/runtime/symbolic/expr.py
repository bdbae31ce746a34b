"""The expression itself: a canonical polynomial over atoms, and its ring operations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import TypeAlias, Union

from forgec.runtime.symbolic.atoms import Atom, Monomial, multiply_monomials, order

Extent: TypeAlias = Union[int, "SymExpr"]

MAX_TERMS = 2048
"""A polynomial with more terms than this is refused: no shape needs it, and a hostile expression must not eat all
memory."""
MAX_DEGREE = 16


class SymExpr:
    """An immutable, canonical, non-constant polynomial. ``terms`` are (monomial, coefficient), sorted, the constant
    last."""

    __slots__ = ("_hash", "_text", "terms")

    terms: tuple[tuple[Monomial, int], ...]
    _hash: int
    _text: str | None

    def __init__(self, terms: tuple[tuple[Monomial, int], ...]) -> None:
        """Not for callers: use ``symbol``, ``parse`` and the operators, which keep the form canonical."""
        object.__setattr__(self, "terms", terms)
        object.__setattr__(self, "_hash", hash(terms))
        object.__setattr__(self, "_text", None)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("SymExpr is immutable")

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        return isinstance(other, SymExpr) and self._hash == other._hash and self.terms == other.terms

    def __bool__(self) -> bool:
        raise TypeError(f"the truth value of the symbolic extent '{self}' is not known")

    def __reduce__(self) -> tuple[object, ...]:
        from forgec.runtime.symbolic.text import parse_printed

        return (parse_printed, (str(self),))

    def __str__(self) -> str:
        text = self._text
        if text is None:
            text = "".join(_print_terms(self.terms))
            object.__setattr__(self, "_text", text)
        return text

    def __repr__(self) -> str:
        return f"SymExpr('{self}')"

    def __add__(self, other: Extent) -> Extent:
        if not isinstance(other, (int, SymExpr)):
            return NotImplemented
        terms = dict(self.terms)
        for monomial, coefficient in terms_of(other):
            terms[monomial] = terms.get(monomial, 0) + coefficient
        return from_terms(terms)

    __radd__ = __add__

    def __neg__(self) -> SymExpr:
        return SymExpr(tuple((monomial, -coefficient) for monomial, coefficient in self.terms))

    def __sub__(self, other: Extent) -> Extent:
        if not isinstance(other, (int, SymExpr)):
            return NotImplemented
        return self + -other

    def __rsub__(self, other: Extent) -> Extent:
        return -self + other

    def __mul__(self, other: Extent) -> Extent:
        if not isinstance(other, (int, SymExpr)):
            return NotImplemented
        if isinstance(other, int):
            return from_terms({monomial: coefficient * other for monomial, coefficient in self.terms})
        if len(self.terms) * len(other.terms) > MAX_TERMS:
            raise ValueError(f"a symbolic expression has more than {MAX_TERMS} terms")
        terms: dict[Monomial, int] = {}
        for left, scale in self.terms:
            for right, coefficient in other.terms:
                monomial = multiply_monomials(left, right)
                terms[monomial] = terms.get(monomial, 0) + scale * coefficient
        return from_terms(terms)

    __rmul__ = __mul__

    def __floordiv__(self, other: Extent) -> Extent:
        from forgec.runtime.symbolic.fold import floordiv

        return floordiv(self, other)

    def __rfloordiv__(self, other: Extent) -> Extent:
        from forgec.runtime.symbolic.fold import floordiv

        return floordiv(other, self)

    def __mod__(self, other: Extent) -> Extent:
        from forgec.runtime.symbolic.fold import mod

        return mod(self, other)

    def __rmod__(self, other: Extent) -> Extent:
        from forgec.runtime.symbolic.fold import mod

        return mod(other, self)


@lru_cache(maxsize=4096)
def symbol(name: str) -> SymExpr:
    """The expression that is one symbol. ``name`` is an ASCII identifier of at most 64 characters (``ValueError``
    otherwise)."""
    return from_atom(Atom.symbol(name))


def free_symbols(expr: Extent) -> frozenset[str]:
    """The names of all symbols that occur in the expression, inside atoms too."""
    if isinstance(expr, int):
        return frozenset()
    names: set[str] = set()
    for monomial, _ in expr.terms:
        for atom in monomial:
            if atom.op == "symbol":
                names.add(atom.text)
            else:
                for argument in atom.args:
                    names |= free_symbols(argument)
    return frozenset(names)


def terms_of(value: Extent) -> tuple[tuple[Monomial, int], ...]:
    if isinstance(value, SymExpr):
        return value.terms
    return (((), value),) if value else ()


def from_terms(terms: Mapping[Monomial, int]) -> Extent:
    kept = [(monomial, coefficient) for monomial, coefficient in terms.items() if coefficient]
    if not kept:
        return 0
    if len(kept) == 1 and not kept[0][0]:
        return kept[0][1]
    if len(kept) > MAX_TERMS or any(len(monomial) > MAX_DEGREE for monomial, _ in kept):
        raise ValueError(f"a symbolic expression has more than {MAX_TERMS} terms or a degree above {MAX_DEGREE}")
    kept.sort(key=lambda term: order(term[0]))
    return SymExpr(tuple(kept))


def from_atom(atom: Atom) -> SymExpr:
    return SymExpr((((atom,), 1),))


def _print_terms(terms: tuple[tuple[Monomial, int], ...]) -> Iterable[str]:
    """The text in the manner of MLIR's affine expressions: ``-s0 + s1 * 2 - 1``."""
    for position, (monomial, coefficient) in enumerate(terms):
        if position:
            yield " + " if coefficient > 0 else " - "
            coefficient = abs(coefficient)
        factors = [atom.text for atom in monomial]
        if not factors:
            yield str(coefficient)
        elif coefficient in (1, -1):
            yield ("-" if coefficient < 0 else "") + " * ".join(factors)
        else:
            yield " * ".join([*factors, str(coefficient)])
