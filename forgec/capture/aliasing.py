"""Views and in-place operators as values.

What torch.export returns still writes through views. Here every tensor of the exported graph is a *handle*: a storage (the
value of the tensor that owns the memory) and the chain of view ops that leads from it to the tensor. A write makes a new value
of the storage, by the inverses of the chain's ops; handles of the same storage are recomputed when they are next read.
Which operators write or alias is read from torch's schemas; there is no list of operators.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from xdsl.dialects.builtin import LocationAttr
from xdsl.ir import Attribute, Operation, SSAValue

from forgec.ir import types
from forgec.ir.layout import reshape_strides
from forgec.ir.ops.base import ForgeOp
from forgec.ir.ops.shape import BroadcastOp, CopyOp, InsertSliceOp, ReshapeOp, SliceOp, TransposeOp, ViewOp

Insert = Callable[[Operation], None]


class UnknownAliasing(Exception):
    """A write goes through a view whose inverse is not known; the message names the view."""


@dataclass(eq=False)
class Storage:
    """The memory that a tensor owns, as the value it holds now."""

    value: SSAValue
    version: int = 0
    written: bool = False
    """True once the model has written it."""


@dataclass(eq=False)
class Handle:
    """A tensor of the exported graph: a storage seen through view ops (outermost last)."""

    storage: Storage
    chain: tuple[ViewOp, ...] = ()
    cached: list[SSAValue] = field(default_factory=list)
    """The values along the chain for ``version``: of the storage, then after each view."""
    version: int = -1

    def value(self, insert: Insert) -> SSAValue:
        """The tensor's current value; views of a storage that was written since are computed again."""
        return self.values(insert)[-1]

    def values(self, insert: Insert) -> list[SSAValue]:
        """The current values along the chain."""
        if self.version != self.storage.version:
            self.cached = [self.storage.value]
            for view in self.chain:
                again = view.create(
                    operands=[self.cached[-1]],
                    properties=view.properties,
                    result_types=[view.result.type],
                    location=view.location,
                )
                insert(again)
                self.cached.append(again.results[0])
            self.version = self.storage.version
        return self.cached

    def write(self, value: SSAValue, insert: Insert, location: LocationAttr) -> None:
        """The tensor now holds ``value`` (of the tensor's own shape and dtype)."""
        along = list(self.values(insert))
        updated = [value]
        for view, before in zip(reversed(self.chain), reversed(along[:-1]), strict=True):
            updated.append(_invert(view, updated[-1], before, insert, location))
        self.storage.value = updated[-1]
        self.storage.version += 1
        self.storage.written = True
        self.cached = list(reversed(updated))
        self.version = self.storage.version


def fresh(value: SSAValue) -> Handle:
    """The handle of a tensor that owns its memory."""
    return Handle(Storage(value), (), [value], 0)


def view_of(source: Handle, operand: SSAValue, result: SSAValue) -> Handle | None:
    """The handle of ``result`` if it was computed from ``operand`` (the value of ``source``) by views alone, else None.

    Where torch's operator copies (a reshape that strides cannot express, a change of layout) there is no aliasing.
    """
    steps: list[ViewOp] = []
    value = result
    while value is not operand:
        op = value.owner
        if not isinstance(op, ViewOp) or not _shares_memory(op):
            return None
        steps.append(op)
        value = op.input
    steps.reverse()
    values = [*source.cached, *(step.result for step in steps)]
    return Handle(source.storage, (*source.chain, *steps), values, source.version)


def _shares_memory(op: ViewOp) -> bool:
    if isinstance(op, CopyOp):
        return op.input.type == op.result.type
    if isinstance(op, ReshapeOp):
        shape, strides = types.shape(op.input), types.strides(op.input)
        return reshape_strides(shape, strides, types.shape(op.result)) is not None
    return True


def _invert(view: ViewOp, value: SSAValue, before: SSAValue, insert: Insert, location: LocationAttr) -> SSAValue:
    """The value of the view's operand after the view was set to ``value``; ``before`` is the operand's value until then."""

    def emit(cls: type[ForgeOp], operands: Sequence[SSAValue], properties: dict[str, Attribute]) -> SSAValue:
        op = cls.create(operands=operands, properties=properties, result_types=[before.type], location=location)
        insert(op)
        return op.results[0]

    if isinstance(view, CopyOp):
        return value
    if isinstance(view, ReshapeOp):
        return emit(ReshapeOp, [value], {})
    if isinstance(view, TransposeOp):
        order = view.permutation.data
        inverse = tuple(order.index(d) for d in range(len(order)))
        return emit(TransposeOp, [value], {"permutation": type(view.permutation)(inverse)})
    if isinstance(view, SliceOp):
        return emit(InsertSliceOp, [value, before], {"dim": view.dim, "start": view.start, "step": view.step})
    if isinstance(view, BroadcastOp) and types.shape(view.input) == types.shape(view.result):
        return value
    raise UnknownAliasing(view.name)
