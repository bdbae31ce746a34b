"""The atoms of symbolic extents, and products of them (monomials)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from forgec.runtime.symbolic.expr import Extent

Monomial: TypeAlias = "tuple[Atom, ...]"
"""A product of atoms, sorted; a power is a repeated atom, the empty product is 1."""

FUNCTIONS = ("floordiv", "mod", "max", "min")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}", re.ASCII)
_DIGITS = re.compile(r"([0-9]+)")


class Atom:
    """A symbol (``op`` is "symbol", ``text`` its name) or a function of extents. Equal atoms have equal text.

    ``key`` sorts symbols before functions and ``s2`` before ``s10``.
    """

    __slots__ = ("_hash", "args", "key", "op", "text")

    op: str
    args: tuple[Extent, ...]
    text: str
    key: tuple[Any, ...]

    def __init__(self, op: str, args: tuple[Extent, ...], text: str, key: tuple[Any, ...]) -> None:
        self.op = op
        self.args = args
        self.text = text
        self.key = key
        self._hash = hash(text)

    @staticmethod
    def symbol(name: str) -> Atom:
        """The atom of a symbol. ``ValueError`` when the name is no identifier or names a function."""
        if not _NAME.fullmatch(name) or name in FUNCTIONS:
            raise ValueError(f"'{name}' is not a name for a symbol")
        parts = _DIGITS.split(name)
        natural = tuple(int(part) if index % 2 else part for index, part in enumerate(parts))
        return Atom("symbol", (), name, (0, natural, name))

    @staticmethod
    def call(op: str, args: tuple[Extent, ...]) -> Atom:
        """The atom of a function of extents that are already in canonical form."""
        text = f"{op}({', '.join(map(str, args))})"
        return Atom(op, args, text, (1, op, text))

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Atom) and self.text == other.text)

    def __hash__(self) -> int:
        return self._hash

    def __repr__(self) -> str:
        return self.text


def order(monomial: Monomial) -> tuple[Any, ...]:
    """Sort key: higher degree first, then by atoms. Multiplying both sides keeps the order, so long division works."""
    return (-len(monomial), tuple(atom.key for atom in monomial))


def multiply_monomials(left: Monomial, right: Monomial) -> Monomial:
    if not left or not right:
        return left or right
    return tuple(sorted(left + right, key=lambda atom: atom.key))


def divide_monomial(monomial: Monomial, divisor: Monomial) -> Monomial | None:
    """``monomial / divisor``, or None when the divisor has a factor that the monomial has not."""
    if not divisor:
        return monomial
    rest = list(monomial)
    for atom in divisor:
        if atom not in rest:
            return None
        rest.remove(atom)
    return tuple(rest)


def shared_factor(monomials: list[Monomial]) -> Monomial:
    """The greatest common divisor of the monomials."""
    if not monomials:
        return ()
    shared = list(monomials[0])
    for monomial in monomials[1:]:
        if not shared:
            break
        available = list(monomial)
        kept: list[Atom] = []
        for atom in shared:
            if atom in available:
                available.remove(atom)
                kept.append(atom)
        shared = kept
    return tuple(shared)
