"""Comparisons of places, as the borders of masks are: how many of a vector's lanes lie before a border is one number.

Vectors of places have 64 bits for each element, twice as many as most of what they choose. Where the places of a vector
follow one another, the border is computed as a scalar, and lanes are compared in 32 bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from xdsl.dialects import arith
from xdsl.ir import SSAValue

from forgec.backends.cpu import elementwise
from forgec.backends.cpu.llvm_types import i1
from forgec.backends.cpu.tiles import At, Elementwise, Kernel, Tile, lane_axis, lanes_below

_NEGATED = {"sge": "slt", "sgt": "sle"}


class ComparedPlaces(Elementwise):
    """``arith.cmpi`` of tiles of places."""

    def __init__(self, op: arith.CmpiOp, shape: tuple[int, ...], operands: Sequence[Tile]) -> None:
        super().__init__(i1, shape, elementwise.compute(op), operands)
        self.predicate = arith.CMPI_COMPARISON_OPERATIONS[op.predicate.value.data]
        axis = lane_axis(shape)
        if axis is not None and self._apart(axis) is not None:
            self.width = 1  # of what is chosen

    def read(self, k: Kernel, at: At) -> SSAValue:
        if at.axis is None or at.lanes == 1:
            return super().read(k, at)
        grows = self._apart(at.axis)
        if grows is None:
            return super().read(k, at)
        first = replace(at, axis=None, lanes=1, active=None)
        if grows == 0:
            return k.spread(super().read(k, first), at.lanes)
        a, b = (k.place(k.read(operand, first)) for operand in self.operands)
        apart = k.sub(b, a)  # what the lane, or the lane's negative, is compared with
        predicate = self.predicate
        if grows < 0:
            apart = k.sub(0, apart)
            predicate = {"slt": "sgt", "sle": "sge", "sgt": "slt", "sge": "sle"}[predicate]
        below = _NEGATED.get(predicate, predicate)
        found = lanes_below(k, k.add(apart, 1) if below == "sle" else apart, at.lanes)
        return found if below == predicate else k.e.not_(found)

    def _apart(self, axis: int) -> int | None:
        """By how much the left side grows more than the right one from lane to lane: 0, 1 or -1; None where lanes are
        compared one with another.
        """
        left, right = (operand.step(axis) for operand in self.operands)
        if left is None or right is None:
            return None
        if left != right and (abs(left - right) != 1 or self.predicate not in ("slt", "sle", "sgt", "sge")):
            return None
        return left - right
