"""Views and in-place operators as values.

What torch.export returns still writes through views. Here every tensor of the exported graph is a *handle*: a storage
(the value of the tensor that owns the memory) and the chain of view ops that leads from it to the tensor. A write
makes a new value of the storage, by the inverses of the chain's ops; handles of the same storage are recomputed when
they are next read.
Which operators write or alias is read from torch's schemas (and from the storages of the tensors that torch.export
traced with, for composite operators whose schema does not tell). Where a write would go through a view that cannot be
undone, or a tensor would have to be read that shares memory in an unknown way with one that was written, capture
refuses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from xdsl.dialects.builtin import AnyTensorType, LocationAttr
from xdsl.ir import Attribute, Operation, SSAValue

from forgec.ir import types
from forgec.ir.attributes import ExtentAttr, IntsAttr
from forgec.ir.layout import reshape_strides
from forgec.ir.ops.base import ForgeOp, producer
from forgec.ir.ops.creation import IotaOp
from forgec.ir.ops.index import IndexPutOp
from forgec.ir.ops.module import AtenOp
from forgec.ir.ops.shape import BroadcastOp, CopyOp, InsertSliceOp, ReshapeOp, SliceOp, TransposeOp, ViewOp
from forgec.ir.ops.unary import CastOp

Insert = Callable[[Operation], object]


class UnknownAliasing(Exception):
    """A write goes through a view whose inverse is not known, or a tensor of unknown aliasing is read after a write;
    the message says which.
    """


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
    chain: tuple[Operation, ...] = ()
    """Forge's view ops, or ``forge.aten`` calls of one operand and one result that torch declares to be views."""
    cached: list[SSAValue] = field(default_factory=list)
    """The values along the chain for ``version``: of the storage, then after each view."""
    version: int = -1
    opaque: str = ""
    """What made the tensor, if it shares the storage in a way that no chain expresses; then it can only be read,
    while the storage is as it was.
    """

    def value(self, insert: Insert) -> SSAValue:
        """The tensor's current value; views of a storage that was written since are computed again."""
        return self.values(insert)[-1]

    def values(self, insert: Insert) -> list[SSAValue]:
        """The current values along the chain."""
        if self.version != self.storage.version:
            if self.opaque:
                raise UnknownAliasing(f"a result of {self.opaque} is read after the memory that it shares was written")
            self.cached = [self.storage.value]
            for view in self.chain:
                again = view.create(
                    operands=[self.cached[-1]],
                    properties=view.properties,
                    result_types=view.result_types,
                    location=view.location,
                )
                insert(again)
                self.cached.append(again.results[0])
            self.version = self.storage.version
        return self.cached

    def write(self, value: SSAValue, insert: Insert, location: LocationAttr) -> None:
        """The tensor now holds ``value`` (of the tensor's own shape and dtype)."""
        if self.opaque:
            raise UnknownAliasing(f"the memory of a result of {self.opaque} is written")
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


def view_of(source: Handle, operand: SSAValue, kind: AnyTensorType, result: SSAValue, callee: str) -> Handle:
    """The handle of ``result``, which ``callee`` computed from ``operand`` and which may share its memory.

    ``operand`` is the value of ``source``, and in torch a tensor of type ``kind``. Where torch's operator copies (a
    reshape that strides cannot express, a change of layout or dtype) there is no aliasing.
    """
    steps: list[Operation] = []
    value = result
    while value is not operand:
        op = producer(value)
        if isinstance(op, CastOp) or (
            isinstance(op, ViewOp) and not _shares_memory(op, kind if op.input is operand else None)
        ):
            return fresh(result)
        if not _is_view(op):
            return Handle(source.storage, (), [result], source.version, callee)
        assert op is not None
        steps.append(op)
        value = op.operands[0]
    if source.opaque:
        return Handle(source.storage, (), [result], source.version, source.opaque)
    steps.reverse()
    values = [*source.cached, *(step.results[0] for step in steps)]
    return Handle(source.storage, (*source.chain, *steps), values, source.version)


def _is_view(op: Operation | None) -> bool:
    return isinstance(op, ViewOp) or (isinstance(op, AtenOp) and len(op.inputs) == len(op.outputs) == 1)


def _shares_memory(op: ViewOp, kind: AnyTensorType | None) -> bool:
    """True if torch does not copy for this; ``kind`` is the type that the operand has in torch (None: its value's)."""
    source = kind or types.tensor_type(op.input)
    if isinstance(op, CopyOp):
        return source == op.result.type
    if isinstance(op, ReshapeOp):
        return reshape_strides(types.shape(source), types.strides(source), types.shape(op.result)) is not None
    return True


def _scatter(view: AtenOp, value: SSAValue, before: SSAValue, insert: Insert, location: LocationAttr) -> SSAValue:
    """``before`` with ``value`` where the view reads: the view of the elements' own numbers says where that is."""

    def emit(op: Operation) -> SSAValue:
        op.location = location
        insert(op)
        return op.results[0]

    def reshape(operand: SSAValue, kind: Attribute) -> SSAValue:
        return emit(ReshapeOp.create(operands=[operand], result_types=[kind]))

    name, count = types.dtype(before), types.numel(before)
    line = {"start": ExtentAttr(0), "step": ExtentAttr(1)}
    numbers = emit(IotaOp.create(properties=line, result_types=[types.tensor("i64", [count])]))
    numbers = reshape(numbers, types.tensor("i64", types.shape(before)))
    shape, written = types.shape(view.outputs[0]), types.numel(value)
    places = emit(
        AtenOp.create(operands=[numbers], properties=view.properties, result_types=[types.tensor("i64", shape)])
    )
    flat = [
        reshape(before, types.tensor(name, [count])),
        reshape(value, types.tensor(name, [written])),
        reshape(places, types.tensor("i64", [written])),
    ]
    return reshape(emit(IndexPutOp.make(flat, {"dims": IntsAttr([0])})), before.type)


def _invert(view: Operation, value: SSAValue, before: SSAValue, insert: Insert, location: LocationAttr) -> SSAValue:
    """The value of the view's operand after the view was set to ``value``; ``before`` is the operand's value until
    then."""

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
    if isinstance(view, AtenOp) and view.callee.data == "aten::diagonal":
        return _scatter(view, value, before, insert, location)
    raise UnknownAliasing(
        f"the memory of a result of {view.callee.data if isinstance(view, AtenOp) else view.name} is written"
    )
