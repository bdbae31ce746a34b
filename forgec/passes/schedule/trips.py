"""How often a loop runs, where it begins, and how far each turn goes."""

from __future__ import annotations

from collections.abc import Callable, Set
from typing import TYPE_CHECKING

from xdsl.dialects import arith
from xdsl.ir import SSAValue

from forgec.ir.tile.elementwise import CmpiOp
from forgec.passes.schedule.body import number_in
from forgec.passes.schedule.flow import Flow, refusal
from forgec.passes.schedule.stream_parts import Scope, Terms
from forgec.runtime.symbolic import Extent, floordiv, sym_max

if TYPE_CHECKING:
    from forgec.passes.schedule.frame import Frame


class Trips:
    """The bounds of one loop, computed in ``scope``: before the groups, where they are the same for all of them, or in
    a turn of the loop around. ``value`` is what a value of the kernel is there, for a part.
    """

    def __init__(
        self, flow: Flow, frame: Frame, scope: Scope, value: Callable[[SSAValue, int | None], SSAValue]
    ) -> None:
        self.loop, self.frame, self.scope, self._value = flow.loop, frame, scope, value
        for bound in (self.loop.lb, self.loop.step):
            if bound in frame.apart:
                message = "where its loop begins, or its step, differs from part to part"
                raise refusal(flow.kernel, message, self.loop)
        self.lower, self.step = self._number(self.loop.lb, None), self._number(self.loop.step, None)
        self.alike = self.loop.ub not in frame.apart
        """Whether the loop runs equally often for all parts."""

    def _number(self, value: SSAValue, part: int | None) -> Extent | SSAValue:
        number = number_in(value)
        return self._value(value, part) if number is None else number

    def of(self, parts: Set[int | None]) -> int | SSAValue:
        """How often the loop runs in a group with ops of these parts (None: what the parts share): of several parts
        as often as for that with the most iterations.
        """
        if self.alike or not parts:
            return self._count(None)
        if len(parts) == 1 and None not in parts:
            return self._count(next(iter(parts)))
        terms = Terms()
        counts = [terms.of(self._count(part)) for part in range(self.frame.parts)]
        return self.scope.index(sym_max(*counts), terms.inputs)

    def value(self, trips: int | SSAValue) -> SSAValue:
        """A number of iterations as a value."""
        return self.frame.constant(trips) if isinstance(trips, int) else trips

    def at_least(self, trips: int | SSAValue, count: int) -> SSAValue:
        """Whether there are so many iterations."""
        found = self.scope.find(("at least", trips, count))
        if found is None:
            assert not isinstance(trips, int), "known numbers are compared while lowering"
            op = CmpiOp(trips, self.frame.constant(count), "sge")
            found = self.scope.known["at least", trips, count] = self.scope.add(op).results[0]
        return found

    def _count(self, part: int | None) -> int | SSAValue:
        terms, scope = Terms(), self.scope
        length = terms.of(self._number(self.loop.ub, part)) - terms.of(self.lower)
        step = terms.of(self.step)
        count = sym_max(floordiv(length + (step - 1), step), 0)
        if isinstance(count, int):
            return count
        found = scope.index(count, terms.inputs)
        if terms.inputs:  # expressions take their symbols for extents, and a bound may be negative
            count_of = ("trips", found)
            if scope.find(count_of) is None:
                op = arith.MaxSIOp(found, self.frame.constant(0))
                scope.known[count_of] = scope.add(op).results[0]
            found = scope.find(count_of)
        found.name_hint = "trips"
        return found
