"""How composite ops write themselves as smaller ones: an emitter that infers types and keeps the location."""

from __future__ import annotations

from collections.abc import Sequence

from xdsl.builder import Builder
from xdsl.ir import Attribute, Operation, SSAValue

from forgec.ir import types
from forgec.ir.attributes import ExtentAttr, IntsAttr, ScalarAttr
from forgec.ir.ops.base import ForgeOp
from forgec.ir.ops.binary import BinaryOp
from forgec.ir.ops.creation import FullOp, IotaOp
from forgec.ir.ops.shape import BroadcastOp, ReshapeOp, SliceOp, TransposeOp
from forgec.ir.ops.unary import CastOp
from forgec.runtime.symbolic import Extent

Number = bool | int | float


class Emitter:
    """Inserts ops at a builder's place, with the location of ``source``; each method yields the new op's one result."""

    def __init__(self, builder: Builder, source: Operation) -> None:
        self.builder = builder
        self.location = source.location

    def __call__(self, cls: type[ForgeOp], *operands: SSAValue | None, **properties: Attribute) -> SSAValue:
        """Insert ``cls`` with inferred result types."""
        return self.insert(cls.make(operands, properties, location=self.location))

    def insert(self, op: Operation) -> SSAValue:
        """Insert an op and yield its first result."""
        op.location = self.location
        return self.builder.insert(op).results[0]

    def binary(self, cls: type[BinaryOp], lhs: SSAValue, rhs: SSAValue | Number) -> SSAValue:
        """A binary op of two values, or of a value and a Python number."""
        return self.insert(cls.of(lhs, rhs))

    def cast(self, value: SSAValue, dtype: str) -> SSAValue:
        """The value in another dtype; nothing is inserted where it has it already."""
        if types.dtype(value) == dtype:
            return value
        return self.typed(CastOp, value, dtype=dtype, shape=types.shape(value))

    def typed(
        self, cls: type[ForgeOp], *operands: SSAValue, dtype: str, shape: Sequence[Extent], **properties: Attribute
    ) -> SSAValue:
        """Insert ``cls`` whose result type does not follow from its operands."""
        return self.insert(cls.make(operands, properties, [types.tensor(dtype, shape)]))

    def reshape(self, value: SSAValue, shape: Sequence[Extent]) -> SSAValue:
        """The elements in another shape."""
        return self.typed(ReshapeOp, value, dtype=types.dtype(value), shape=shape)

    def broadcast(self, value: SSAValue, shape: Sequence[Extent]) -> SSAValue:
        """The value broadcast to a shape."""
        return self.typed(BroadcastOp, value, dtype=types.dtype(value), shape=shape)

    def transpose_last(self, value: SSAValue) -> SSAValue:
        """The value with its last two dimensions swapped."""
        order = list(range(types.rank(value)))
        order[-1], order[-2] = order[-2], order[-1]
        return self(TransposeOp, value, permutation=IntsAttr(order))

    def slice(self, value: SSAValue, dim: int, start: Extent, count: Extent, step: Extent = 1) -> SSAValue:
        """``count`` elements from ``start`` along ``dim``."""
        from xdsl.dialects.builtin import IntAttr

        shape = list(types.shape(value))
        shape[dim] = count
        place = {"dim": IntAttr(dim), "start": ExtentAttr(start), "step": ExtentAttr(step)}
        return self.typed(SliceOp, value, dtype=types.dtype(value), shape=shape, **place)

    def full(self, value: Number, dtype: str, shape: Sequence[Extent]) -> SSAValue:
        """A tensor of one number."""
        return self.typed(FullOp, dtype=dtype, shape=shape, value=ScalarAttr.of(value))

    def iota(self, count: Extent) -> SSAValue:
        """``[0, 1, …, count - 1]`` as int64."""
        return self.typed(IotaOp, dtype="i64", shape=[count], start=ExtentAttr(0), step=ExtentAttr(1))
