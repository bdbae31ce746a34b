"""Results that consist of parts along a dimension: each part is computed and written by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from xdsl.ir import Operation, SSAValue

from forgec.ir import types
from forgec.ir.ops.base import ElementwiseOp, producer
from forgec.ir.ops.composite import RopeOp
from forgec.ir.ops.shape import ConcatOp, CopyOp, ReshapeOp, TransposeOp
from forgec.passes.tiles.axes import Axes, Place, reshaped
from forgec.runtime.symbolic import Extent

PARTS_LIMIT = 16
"""More parts are computed under masks: each part is code of its own."""
LEAST_RUN = 8
"""Parts that have fewer elements than this one after the other are computed under masks: stores of them are dear."""


@dataclass(frozen=True)
class Part:
    """The places ``[begin, begin + extent)`` along ``dim`` of a value from which a result comes about through ``path``,
    ops each of whose elements is made of one element of the value.
    """

    source: SSAValue
    dim: int
    begin: Extent
    extent: Extent
    path: tuple[Operation, ...]

    @property
    def shape(self) -> tuple[Extent, ...]:
        """The extents of the part."""
        shape = types.shape(self.source)
        return (*shape[: self.dim], self.extent, *shape[self.dim + 1 :])

    def place(self, axes: Axes, place: Place) -> Place:
        """Where in the result the element lies that is at a place of the part."""
        found = (*place[: self.dim], self.begin + place[self.dim], *place[self.dim + 1 :])
        for op in self.path:
            if isinstance(op, ReshapeOp):
                found = reshaped(axes, found, types.shape(op.result), types.shape(op.input))
            elif isinstance(op, TransposeOp):
                found = tuple(found[dim] for dim in op.permutation.data)
        return found


def parts_of(value: SSAValue, path: tuple[Operation, ...] = ()) -> list[Part]:
    """The parts of a result of a group, which ``path`` makes of ``value``: the operands of a concatenation, or what a
    rotation turns and what it lets through. None of them may be of use for anything but the result. Empty where the
    result is one piece.
    """
    if not value.has_one_use():
        return []
    op = producer(value)
    match op:
        case ConcatOp():
            return _divided(value, op.dim.data, [types.shape(operand)[op.dim.data] for operand in op.inputs], path)
        case RopeOp():
            features = types.shape(value)[-1]
            extents = [op.first, op.rotated, features - op.first - op.rotated]
            return _divided(value, types.rank(value) - 1, extents, path)
        case ReshapeOp() | TransposeOp() | CopyOp():
            return parts_of(op.input, (op, *path))
        case ElementwiseOp():
            inner = [operand for operand in op.operands if types.shape(operand) == types.shape(value)]
            return next((found for operand in inner if (found := parts_of(operand, (op, *path)))), [])
    return []


def _divided(value: SSAValue, dim: int, extents: Sequence[Extent], path: tuple[Operation, ...]) -> list[Part]:
    """Parts of these extents, empty ones left out."""
    within = prod(types.shape(value)[dim + 1 :], start=1)
    found: list[Part] = []
    begin: Extent = 0
    for extent in extents:
        if extent != 0:
            found.append(Part(value, dim, begin, extent, path))
            run = extent * within
            if isinstance(run, int) and run < LEAST_RUN:
                return []
        begin = begin + extent
    return found if 1 < len(found) <= PARTS_LIMIT else []
