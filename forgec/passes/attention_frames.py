"""The ops that ``fuse-attention`` puts around attention: operands brought to one frame of batch and heads."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TypeAlias

from xdsl.dialects.builtin import AnyTensorType, IntAttr
from xdsl.ir import Operation, SSAValue

from forgec.ir import types
from forgec.ir.attributes import ExtentAttr, ScalarAttr
from forgec.ir.ops.base import producer
from forgec.ir.ops.binary import DivOp, LogicalAndOp, MulOp
from forgec.ir.ops.creation import FullOp
from forgec.ir.ops.select import MaskedFillOp
from forgec.ir.ops.shape import BroadcastOp, CopyOp, ReshapeOp, SliceOp, TransposeOp
from forgec.ir.ops.unary import CastOp
from forgec.passes.attention_scores import Refused
from forgec.passes.layouts import is_seen
from forgec.passes.patterns import with_number
from forgec.passes.rearrangements import reshaped, transposed
from forgec.runtime.symbolic import Extent

Frame: TypeAlias = "tuple[Extent, ...]"
"""The leading extents [*B, H] of scores."""
REARRANGEMENTS = (ReshapeOp, TransposeOp, CopyOp, BroadcastOp)


def frame_of(leads: Sequence[Frame], query: SSAValue) -> Frame | None:
    """The finest of several groupings of batch and heads; None if they are no groupings of the same."""
    finest = max(leads, key=len)
    source = producer(query)
    if len(finest) == 1 and isinstance(source, ReshapeOp) and types.rank(source.input) > 3:
        shape = types.shape(source.input)
        if shape[-2:] == types.shape(query)[-2:]:
            finest = shape[:-2]
    return finest if all(_groups(lead, finest) is not None for lead in leads) else None


def _groups(lead: Frame, frame: Frame) -> list[Frame] | None:
    """For each extent of ``lead``, the extents of ``frame`` whose product it is, in order."""
    rest, groups = list(frame), []
    for extent in lead:
        group: list[Extent] = []
        while rest and (not group or prod(group, start=1) != extent):
            group.append(rest.pop(0))
        if prod(group, start=1) != extent:
            return None
        groups.append(tuple(group))
    if any(extent != 1 for extent in rest):
        return None
    if rest:
        groups[-1] = (*groups[-1], *rest)
    return groups


class Builder:
    """Collects new ops; each method yields a value, of an op that is there already where one has it."""

    def __init__(self) -> None:
        self.ops: list[Operation] = []

    def insert(self, op: Operation) -> SSAValue:
        """Collect an op and yield its first result."""
        self.ops.append(op)
        return op.results[0]

    def discard(self) -> None:
        """Give up the collected ops."""
        for op in reversed(self.ops):
            op.erase()
        self.ops.clear()

    def reshape(self, value: SSAValue, shape: Sequence[Extent]) -> SSAValue:
        """The elements in another shape; what they were reshaped from, if that had it."""
        source, shape = value, tuple(shape)
        while True:
            if types.shape(source) == shape:
                return source
            op = producer(source)
            if not isinstance(op, ReshapeOp):
                break
            source = op.input
        return self.insert(reshaped(value, shape))

    def transpose_last(self, value: SSAValue) -> SSAValue:
        """The value with its last two dimensions swapped."""
        order = list(range(types.rank(value)))
        order[-2:] = order[:-3:-1]
        return self.transpose(value, order)

    def transpose(self, value: SSAValue, order: list[int]) -> SSAValue:
        """The value with its dimensions in another order."""
        op = producer(value)
        if isinstance(op, TransposeOp):
            value, order = op.input, [op.permutation.data[d] for d in order]
        if order == sorted(order):
            return value
        return self.insert(transposed(value, order))

    def slice(self, value: SSAValue, dim: int, count: int) -> SSAValue:
        """The first elements of a dimension."""
        shape = list(types.shape(value))
        if shape[dim] == count:
            return value
        shape[dim] = count
        place = {"dim": IntAttr(dim), "start": ExtentAttr(0), "step": ExtentAttr(1)}
        return self._made(SliceOp, value, types.tensor(types.dtype(value), shape, types.strides(value)), **place)

    def one_head(self, value: SSAValue) -> SSAValue:
        """Keys or values [*B, T, D] as those of one head [*B, 1, T, D]."""
        *batch, length, features = types.shape(value)
        return self.reshape(value, (*batch, 1, length, features))

    def joined(self, value: SSAValue, split: Sequence[Extent], shape: Sequence[Extent]) -> SSAValue:
        """What broadcasts to scores of shape ``split``, as scores of ``shape``: rows and columns are not in parts."""
        own = (1,) * (len(split) - types.rank(value)) + types.shape(value)
        lead = len(shape) - 2
        parts = [*own[:lead], *split[lead:]]
        if any(extent not in (1, whole) for extent, whole in zip(own[:lead], split[:lead], strict=True)):
            raise Refused("an operand regroups batch and heads")
        value = self.reshape(value, own)
        if tuple(parts) != own:
            value = self._made(BroadcastOp, value, types.tensor(types.dtype(value), parts))
        return self.reshape(value, (*own[:lead], *shape[lead:]))

    def broadcast_dim(self, value: SSAValue, dim: int, extent: Extent) -> SSAValue:
        """The value with one dimension of extent 1 broadcast."""
        shape = list(types.shape(value))
        if shape[dim] == extent:
            return value
        shape[dim] = extent
        return self._made(BroadcastOp, value, types.tensor(types.dtype(value), shape))

    def cast(self, value: SSAValue, dtype: str) -> SSAValue:
        """The value in another dtype."""
        if types.dtype(value) == dtype:
            return value
        return self._made(CastOp, value, types.tensor(dtype, types.shape(value)))

    def in_place_of(self, value: SSAValue, old: SSAValue) -> SSAValue:
        """A value that replaces another: laid out alike where a function or region returns it."""
        if value.type == old.type or not is_seen(old):
            return value
        return self._made(CopyOp, value, types.tensor_type(old))

    def full(self, number: float, dtype: str) -> SSAValue:
        """One number, of rank 0."""
        properties = {"value": ScalarAttr.of(number)}
        return self.insert(FullOp.create(properties=properties, result_types=[types.tensor(dtype, ())]))

    def filled(self, value: SSAValue, where: SSAValue, number: float) -> SSAValue:
        """The value with one number where booleans that broadcast are true."""
        properties = {"value": ScalarAttr.of(number)}
        return self.insert(MaskedFillOp.make([value, where], properties))

    def logical_and(self, left: SSAValue, right: SSAValue) -> SSAValue:
        """Both of two booleans."""
        return self.insert(LogicalAndOp.make([left, right]))

    def to_frame(self, value: SSAValue, frame: Frame, lead: Frame | None = None) -> SSAValue:
        """An operand in a frame. It broadcasts to scores whose leading extents are ``lead``, its own if not given; the
        result has the frame's rank if it has leading extents at all.
        """
        shape = types.shape(value)
        if lead is None:
            lead = shape[:-2]
        elif len(shape) <= 2 or (len(lead) == len(frame) and len(shape) == len(lead) + 2):
            return value
        own = (1,) * (len(lead) - len(shape[:-2])) + shape[:-2]
        groups = _groups(lead, frame) if len(lead) != len(frame) else [(extent,) for extent in frame]
        if groups is None:  # key or value that broadcasts along batch or heads
            groups = _broadcast_groups(lead, frame)
        target: list[Extent] = []
        for extent, whole, group in zip(own, lead, groups, strict=True):
            if extent not in (1, whole):
                raise Refused("an operand regroups batch and heads")
            target += group if extent == prod(group, start=1) else [1] * len(group)
        return self.reshape(value, (*target, *shape[-2:]))

    def unscaled(self, value: SSAValue) -> tuple[SSAValue, float]:
        """A value without the number that it is multiplied by, and that number: also where it was rearranged since."""
        op = producer(value)
        if isinstance(op, (MulOp, DivOp)) and types.dtype(op.lhs) == types.dtype(op.result):
            found = with_number(op)
            if found is not None and types.shape(found[0]) == types.shape(value) and found[1] != 0:
                inner, factor = self.unscaled(found[0])
                number = float(found[1])
                return inner, factor * (1 / number if isinstance(op, DivOp) else number)
        if isinstance(op, REARRANGEMENTS):
            inner, factor = self.unscaled(op.input)
            return (value, 1.0) if factor == 1.0 else (self._again(op, inner), factor)
        return value, 1.0

    def uncast(self, value: SSAValue, dtype: str) -> SSAValue | None:
        """What a value of ``dtype`` was before it was cast, also where it was rearranged since; None if it was not."""
        op = producer(value)
        if isinstance(op, CastOp):
            return op.input if types.dtype(op.input) == dtype else None
        if isinstance(op, REARRANGEMENTS):
            inner = self.uncast(op.input, dtype)
            return None if inner is None else self._again(op, inner)
        return None

    def _again(self, op: Operation, operand: SSAValue) -> SSAValue:
        """A rearrangement of another operand."""
        kind = types.tensor_type(op.results[0])
        result = types.tensor(types.dtype(operand), types.shape(kind), types.strides(kind))
        return self.insert(type(op).create(operands=[operand], properties=op.properties, result_types=[result]))

    def _made(self, cls: type[Operation], value: SSAValue, kind: AnyTensorType, **properties) -> SSAValue:
        return self.insert(cls.create(operands=[value], properties=properties, result_types=[kind]))


def _broadcast_groups(lead: Frame, frame: Frame) -> list[Frame]:
    if len(lead) > len(frame):
        raise Refused("batch and heads are regrouped on the way")
    return [(extent,) for extent in frame[len(frame) - len(lead) :]]
