"""Places: integers where they are known at compile time, i64 values where not; and the loops that count them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import gcd
from typing import TypeAlias

from xdsl.ir import Attribute, SSAValue

from forgec.backends.cpu.emitter import Emitter, constant_number
from forgec.backends.cpu.llvm_types import i64, lanes
from forgec.runtime.symbolic import Extent, free_symbols, is_nonnegative
from forgec.runtime.symbolic.atoms import Atom


@dataclass(frozen=True, slots=True)
class Sum:
    """A value and a number known at compile time, not yet added: most such sums end in the offset of an address."""

    value: SSAValue
    constant: int


_SHORT = 1 << 31

Place: TypeAlias = int | SSAValue | Sum
"""A number of elements: known, a value of type i64 (or a vector of them), or a sum of both."""


class Places:
    """Integer arithmetic that is done at compile time where it can be, and that knows which values are not negative.

    Vectors of i64 are numbers as well: a scalar beside a vector is spread.
    """

    def __init__(self, emitter: Emitter) -> None:
        self.e = emitter
        self._nonnegative: set[SSAValue | Sum] = set()
        self._limits: dict[SSAValue, int] = {}
        self._multiples: dict[SSAValue, int] = {}
        """Numbers that values are certain to be multiples of."""
        self._sums: dict[SSAValue, Sum] = {}
        """The sums that values are."""

    # -- numbers ---------------------------------------------------------------------------------------------------

    def place(self, value: SSAValue) -> Place:
        """The number that a value is, if it is a constant, or the sum."""
        number = constant_number(value)
        return self._sums.get(value, value) if number is None else number

    def ssa(self, place: Place) -> SSAValue:
        """The number as a value."""
        if isinstance(place, Sum):
            found = self._result(self._once("add", place.value, place.constant), place)
            self._sums[found] = place
            return found
        return self.e.const(i64, place) if isinstance(place, int) else place

    def address(self, pointer: SSAValue, position: Place, element: Attribute) -> SSAValue:
        """The address of an element."""
        if position == 0:
            return pointer
        if isinstance(position, Sum):
            return self.e.element(self._element(pointer, position.value, element), position.constant, element)
        return self._element(pointer, position, element)

    def _element(self, pointer: SSAValue, position: int | SSAValue, element: Attribute) -> SSAValue:
        key = ("element", pointer, position, element)
        operands = (pointer, position) if isinstance(position, SSAValue) else (pointer,)
        return self.e.once_outside(key, operands, lambda: self.e.element(pointer, position, element))

    def position(self, places: Sequence[Place], strides: Sequence[Place]) -> Place:
        """How many elements after the first one of a block an element is."""
        found: Place = 0
        for place, stride in zip(places, strides, strict=True):
            found = self.add(found, self.mul(place, stride))
        return found

    def address_at(
        self, pointer: SSAValue, places: Sequence[Place], strides: Sequence[Place], element: Attribute
    ) -> SSAValue:
        """The address of an element of a block: what changes in the innermost loop is added last, so that the rest is
        computed before it.
        """
        values: list[SSAValue] = []
        constant = 0
        for place, stride in zip(places, strides, strict=True):
            value, more = self._parts(self.mul(place, stride))
            constant += more
            if value is not None:
                values.append(value)
        if len(values) > 1:
            values.sort(key=self.e.level)
        for value in values:
            pointer = self._element(pointer, value, element)
        if not constant:
            return pointer
        key = ("element", pointer, constant, element)
        return self.e.remember(key, lambda: self.e.element(pointer, constant, element))

    def assume_nonnegative(self, place: Place) -> Place:
        if isinstance(place, SSAValue | Sum):
            self._nonnegative.add(place)
        return place

    def assume_below(self, value: SSAValue, limit: int) -> SSAValue:
        """The number, or all of the vector, is at least 0 and less than the limit."""
        self._nonnegative.add(value)
        self._limits[value] = limit
        return value

    def is_below(self, place: Place, bound: Place) -> bool:
        """True if the number is certain to be at least 0 and at most ``bound``."""
        value, more = self._parts(place)
        if not isinstance(bound, int) or more < 0:
            return False
        most = 0 if value is None else self._limits.get(value, bound + 2) - 1
        return most + more <= bound

    def nonnegative(self, place: Place) -> bool:
        """True if the number is known not to be negative."""
        if isinstance(place, int):
            return place >= 0
        return place in self._nonnegative or (
            isinstance(place, Sum) and place.constant >= 0 and place.value in self._nonnegative
        )

    def _once(self, name: str, a: Place, b: Place) -> SSAValue:
        """The result of an op of the emitter, which is not repeated in a block."""
        op = {"add": self.e.add, "sub": self.e.sub, "mul": self.e.mul}[name]
        operands = [v.value if isinstance(v, Sum) else v for v in (a, b) if not isinstance(v, int)]
        return self.e.once_outside((name, a, b), operands, lambda: op(*self._pair(a, b), nsw=True))

    def _result(self, value: SSAValue, *operands: Place) -> SSAValue:
        if all(map(self.nonnegative, operands)):
            self._nonnegative.add(value)
        return value

    def _pair(self, a: Place, b: Place) -> tuple[SSAValue, SSAValue]:
        a, b = (self.ssa(v) if isinstance(v, Sum) else v for v in (a, b))
        like = max((v for v in (a, b) if isinstance(v, SSAValue)), key=lambda v: lanes(v.type) or 0).type
        return self._like(a, like), self._like(b, like)

    def _like(self, a: int | SSAValue, like: Attribute) -> SSAValue:
        count = lanes(like)
        if isinstance(a, int):
            return self.e.const(like, a)
        return a if count is None or lanes(a.type) is not None else self.e.splat(a, count)

    # -- arithmetic ------------------------------------------------------------------------------------------------

    def add(self, a: Place, b: Place) -> Place:
        if isinstance(a, int) and isinstance(b, int):
            return a + b
        if a == 0 or b == 0:
            return b if a == 0 else a
        (first, c), (second, d) = self._parts(a), self._parts(b)
        if first is None or second is None:
            value = second if first is None else first
            assert value is not None
            if lanes(value.type) is None:
                return self._sum(value, c + d)
            return self._result(self._once("add", value, c + d), a, b)
        if c + d and (lanes(first.type) or lanes(second.type)):
            return self._result(self._once("add", self.ssa(a), self.ssa(b)), a, b)
        found = self._result(self._once("add", first, second), first, second)
        self._note_multiple(found, gcd(self.multiple(first), self.multiple(second)))
        return self._sum(found, c + d)

    @staticmethod
    def _parts(place: Place) -> tuple[SSAValue | None, int]:
        if isinstance(place, int):
            return None, place
        return (place.value, place.constant) if isinstance(place, Sum) else (place, 0)

    @staticmethod
    def _sum(value: SSAValue, constant: int) -> Place:
        return Sum(value, constant) if constant else value

    def sub(self, a: Place, b: Place) -> Place:
        if isinstance(a, int) and isinstance(b, int):
            return a - b
        if isinstance(b, int):
            return self.add(a, -b)
        if isinstance(b, Sum):
            return self.add(self.sub(a, b.value), -b.constant)
        return self._sum(self._once("sub", a.value, b), a.constant) if isinstance(a, Sum) else self._once("sub", a, b)

    def mul(self, a: Place, b: Place) -> Place:
        if isinstance(a, int) and isinstance(b, int):
            return a * b
        if a == 0 or b == 0:
            return 0
        if a == 1 or b == 1:
            return b if a == 1 else a
        for sum_, factor in ((a, b), (b, a)):
            if isinstance(sum_, Sum) and isinstance(factor, int):
                return self.add(self.mul(sum_.value, factor), sum_.constant * factor)
        found = self._result(self._once("mul", a, b), a, b)
        self._note_multiple(found, self.multiple(a) * self.multiple(b))
        return found

    def multiple(self, place: Place) -> int:
        """A number that a place is certain to be a multiple of; 0 for the place 0."""
        if isinstance(place, int):
            return abs(place)
        if isinstance(place, Sum):
            return gcd(self.multiple(place.value), place.constant)
        return self._multiples.get(place, 1)

    def _note_multiple(self, value: SSAValue, number: int) -> None:
        if number > 1 and lanes(value.type) is None:
            self._multiples[value] = number

    def min(self, a: Place, b: Place) -> Place:
        if isinstance(a, int) and isinstance(b, int):
            return min(a, b)
        return self._result(self.e.smin(*self._pair(a, b)), a, b)

    def max(self, a: Place, b: Place) -> Place:
        if isinstance(a, int) and isinstance(b, int):
            return max(a, b)
        found = self.e.smax(*self._pair(a, b))
        if self.nonnegative(a) or self.nonnegative(b):
            self._nonnegative.add(found)
        return found

    def floordiv(self, a: Place, b: Place) -> Place:
        """Rounds towards minus infinity; something where the divisor is 0."""
        return self._divided(a, b)[0]

    def mod(self, a: Place, b: Place) -> Place:
        """Has the divisor's sign; something where the divisor is 0."""
        return self._divided(a, b)[1]

    def _divided(self, a: Place, b: Place) -> tuple[Place, Place]:
        if isinstance(a, int) and isinstance(b, int):
            return (a // b, a % b) if b else (0, 0)
        if b == 1:
            return a, 0
        if isinstance(a, Sum) and isinstance(b, int) and b > 0:
            of = gcd(self.multiple(a.value), b)  # whatever the value is, its remainder is at most b - of
            if 0 <= a.constant % b < of or of == b:
                quotient, rest = self._divided(a.value, b)
                return self.add(quotient, a.constant // b), self.add(rest, a.constant % b)
        if isinstance(b, int) and b > 0 and not isinstance(a, int) and self.multiple(a) % b == 0:
            rest = 0
            return self._result(self._quotient_exactly(a, b), a), rest
        e, known = self.e, self.nonnegative(a) and self.nonnegative(b)
        if isinstance(b, int) and b > 0 and b & (b - 1) == 0:
            a = self.ssa(a)
            quotient = e.remember(("floordiv", a, b), lambda: e.ashr(a, b.bit_length() - 1))
            return self._result(quotient, a), self._result(e.remember(("mod", a, b), lambda: e.and_(a, b - 1)))
        left, right = self._pair(a, b)
        if isinstance(b, int) and 1 < b < _SHORT and self._limits.get(left, _SHORT + 1) <= _SHORT and lanes(left.type):
            quotient = self.e.remember(("floordiv", left, b), lambda: self._divided_short(left, b))
            rest = e.sub(left, e.mul(quotient, b))
            return self.assume_below(quotient, _SHORT), self.assume_below(rest, b)
        if not isinstance(b, int):
            right = e.select(e.icmp("eq", right, 0), 1, right)
        if known:
            return self._result(e.udiv(left, right)), self._result(e.urem(left, right))
        quotient = e.sdiv(left, right)
        rest = e.sub(left, e.mul(quotient, right))
        wrong = e.and_(e.icmp("ne", rest, 0), e.icmp("slt", e.xor(rest, right), 0))
        floor, remainder = e.select(wrong, e.sub(quotient, 1), quotient), e.select(wrong, e.add(rest, right), rest)
        return floor, self._result(remainder, b)

    def _quotient_exactly(self, a: Place, b: int) -> SSAValue:
        """A multiple of ``b`` divided by it."""
        value = self.ssa(a)

        def divide() -> SSAValue:
            return self.e.ashr(value, b.bit_length() - 1) if b & (b - 1) == 0 else self.e.sdiv(*self._pair(value, b))

        made = self.e.remember(("exact quotient", value, b), divide)
        self._note_multiple(made, self.multiple(a) // b)
        return made

    def _divided_short(self, left: SSAValue, divisor: int) -> SSAValue:
        """A vector of numbers below 2³¹ divided by a number of more than 1.

        Processors divide no vectors, and LLVM would multiply each lane by itself, in 128 bits. With ``k`` so that
        ``2ᵏ⁻¹ < divisor ≤ 2ᵏ``, ``s = 31 + k`` and ``m = ⌈2ˢ / divisor⌉``, the quotient is ``⌊left · m / 2ˢ⌋``: ``m ·
        divisor`` exceeds ``2ˢ`` by less than ``2ᵏ``, so that ``left · m / 2ˢ`` exceeds ``left / divisor`` by less than
        ``1 / divisor``. (T. Granlund and P. L. Montgomery, "Division by invariant integers using multiplication", PLDI
        1994.)
        """
        shift = 31 + (divisor - 1).bit_length()
        factor = -(-(1 << shift) // divisor)
        # The mask says to LLVM that 32 bits times 32 bits are multiplied.
        return self.e.lshr(self.e.mul(self.e.and_(left, (1 << 32) - 1), factor), shift)

    def evaluate(self, extent: Extent, values: Mapping[str, Place]) -> Place:
        """The value of an expression. Raises KeyError for a symbol without a value."""
        if isinstance(extent, int):
            return extent
        total: Place = 0
        for monomial, coefficient in extent.terms:
            product: Place = coefficient
            for atom in monomial:
                product = self.mul(self._atom(atom, values), product)
            total = self.add(total, product)
        if is_nonnegative(extent) and all(self.nonnegative(values[name]) for name in free_symbols(extent)):
            self.assume_nonnegative(total)
        return total

    def _atom(self, atom: Atom, values: Mapping[str, Place]) -> Place:
        if atom.op == "symbol":
            return values[atom.text]
        first, *others = (self.evaluate(argument, values) for argument in atom.args)
        combine = {"floordiv": self.floordiv, "mod": self.mod, "max": self.max, "min": self.min}[atom.op]
        for other in others:
            first = combine(first, other)
        return first

    # -- loops -----------------------------------------------------------------------------------------------------

    def loop(
        self,
        start: Place,
        end: Place,
        step: int,
        body: Callable[[Place, list[SSAValue]], Sequence[SSAValue]],
        carried: Sequence[SSAValue] = (),
    ) -> list[SSAValue]:
        """``Emitter.loop``, without a loop where there is one iteration or none."""
        if isinstance(start, int) and isinstance(end, int):
            if start >= end:
                return list(carried)
            if start + step >= end:
                return list(body(start, list(carried)))

        def iteration(index: SSAValue, values: list[SSAValue]) -> Sequence[SSAValue]:
            if self.nonnegative(start):
                self.assume_nonnegative(index)
            self._note_multiple(index, gcd(self.multiple(start), step))
            if isinstance(start, int) and isinstance(end, int) and start >= 0:
                self.assume_below(index, start + (end - start - 1) // step * step + 1)
            return body(index, values)

        return self.e.loop(self.ssa(start), self.ssa(end), self.ssa(step), carried, iteration)
