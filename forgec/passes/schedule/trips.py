"""How often a loop runs, where it begins, and how far each turn goes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xdsl.dialects import arith
from xdsl.dialects.builtin import IntegerAttr
from xdsl.ir import SSAValue

from forgec.ir.tile.compute import IndexOp
from forgec.passes.schedule.flow import Flow, refusal
from forgec.runtime.symbolic import Extent, floordiv, sym_max, symbol

if TYPE_CHECKING:
    from forgec.passes.schedule.frame import Frame


class Trips:
    """The bounds of one loop, which are the same for all groups."""

    def __init__(self, flow: Flow, frame: Frame) -> None:
        self.loop, self.frame = flow.loop, frame
        kernel, apart = flow.kernel, frame.apart
        for bound in (self.loop.lb, self.loop.ub, self.loop.step):
            if bound in apart and bound is not self.loop.ub:
                raise refusal(kernel, "where its loop begins, or its step, differs from part to part", self.loop)
            if not frame.is_uniform(bound):
                raise refusal(kernel, "the bounds of its loop are computed of what a scheduled loop makes", self.loop)
        self.lower, self.step = self._number(self.loop.lb, None), self._number(self.loop.step, None)
        self.alike = self.loop.ub not in apart
        """Whether the loop runs equally often for all parts."""

    def _number(self, value: SSAValue, part: int | None) -> Extent | SSAValue:
        owner = value.owner
        if isinstance(owner, IndexOp) and not owner.inputs:
            return owner.expression.data
        if isinstance(owner, arith.ConstantOp) and isinstance(owner.value, IntegerAttr):
            return owner.value.value.data
        return self.frame.uniform(value, part)

    def of(self, parts: set[int | None]) -> int | SSAValue:
        """How often the loop runs in a group with ops of these parts (None: what the parts share)."""
        if self.alike or not parts:
            return self._count(None)
        if len(parts) > 1:
            raise refusal(self.frame.kernel, "how often its loop runs differs between parts of one group", self.loop)
        (part,) = parts
        if part is not None:
            return self._count(part)
        counts = [self._count(part) for part in range(self.frame.parts)]
        inputs = [count for count in counts if not isinstance(count, int)]
        return self.frame.scope.index(sym_max(*(symbol(f"p{place}") for place in range(len(inputs)))), inputs)

    def _count(self, part: int | None) -> int | SSAValue:
        inputs: list[SSAValue] = []
        scope = self.frame.scope

        def term(value: Extent | SSAValue) -> Extent:
            if not isinstance(value, SSAValue):
                return value
            inputs.append(value)
            return symbol(f"p{len(inputs) - 1}")

        length, step = term(self._number(self.loop.ub, part)) - term(self.lower), term(self.step)
        count = sym_max(floordiv(length + (step - 1), step), 0)
        if isinstance(count, int):
            return count
        found = scope.index(count, inputs)
        if inputs:  # expressions take their symbols for extents, and a bound may be negative
            count_of = ("trips", found)
            if count_of not in scope.known:
                op = arith.MaxSIOp(found, self.frame.constant(0))
                scope.known[count_of] = scope.add(op).results[0]
            found = scope.known[count_of]
        found.name_hint = "trips"
        return found
