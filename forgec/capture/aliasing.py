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
from typing import Any

from xdsl.dialects.builtin import AnyTensorType, LocationAttr
from xdsl.ir import Attribute, Operation, SSAValue

from forgec.backends.plan_builder import view_type
from forgec.ir import types
from forgec.ir.attributes import ExtentAttr, ExtentsAttr, IntsAttr
from forgec.ir.layout import all_different, reshape_strides, span_bytes
from forgec.ir.ops.aten import AtenOp
from forgec.ir.ops.base import ForgeOp, producer
from forgec.ir.ops.creation import IotaOp
from forgec.ir.ops.index import IndexPutOp
from forgec.ir.ops.shape import BroadcastOp, CopyOp, InsertSliceOp, ReshapeOp, SliceOp, TransposeOp, ViewOp
from forgec.ir.ops.unary import CastOp
from forgec.ir.ops.window import InsertWindowOp, WindowOp, is_injective
from forgec.runtime.plan import DType
from forgec.runtime.symbolic import Extent

Insert = Callable[[Operation], object]

REINTERPRETATIONS = ("aten::view.dtype", "aten::view_as_real", "aten::view_as_complex", "aten::real", "aten::imag")
"""Views that show the same bytes as elements of another dtype."""


class UnknownAliasing(Exception):
    """A write goes through a view whose inverse is not known, or a tensor of unknown aliasing is read after a write;
    the message says which.
    """


@dataclass(eq=False)
class Storage:
    """The memory that a tensor owns, as the value it holds now."""

    value: SSAValue
    kind: AnyTensorType
    """The type of the tensor that owns the memory: its strides say where each element lies."""
    origin: Extent = 0
    """Where that tensor's first element lies, in elements from the start of torch's storage."""
    version: int = 0
    written: bool = False
    """True once the model has written it."""
    relies_on_layout: bool = False
    """True if the program would compute something else, were the memory laid out otherwise."""
    relies_on_place: bool = False
    """True if it would, did the memory begin elsewhere in torch's storage."""


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
    may_copy: bool = False
    """True if torch would have made a copy of memory laid out otherwise (``reshape``, ``contiguous``)."""

    def value(self, insert: Insert) -> SSAValue:
        """The tensor's current value; views of a storage that was written since are computed again."""
        return self.values(insert)[-1]

    def values(self, insert: Insert) -> list[SSAValue]:
        """The current values along the chain."""
        if self.version != self.storage.version:
            self.storage.relies_on_layout |= self.may_copy
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
        self.storage.written = True
        self.storage.relies_on_layout |= self.may_copy
        if not all(_has_inverse(view) for view in self.chain):
            self.storage.value = self._insert(value, insert, location)
            self.storage.version += 1
            return
        along = list(self.values(insert))
        updated = [value]
        for view, before in zip(reversed(self.chain), reversed(along[:-1]), strict=True):
            updated.append(_invert(view, updated[-1], before, insert, location))
        self.storage.value = updated[-1]
        self.storage.version += 1
        self.cached = list(reversed(updated))
        self.version = self.storage.version

    def window(self) -> tuple[AnyTensorType, Extent] | None:
        """The tensor as a type and a start in the storage, as if that were row-major; None if strides cannot say it."""
        kind: AnyTensorType = types.tensor(types.dtype(self.storage.value), types.shape(self.storage.value))
        start: Extent = 0
        for view in self.chain:
            found = view_type(view, kind) if isinstance(view, ViewOp) else None
            if found is None:
                return None
            kind, start = found[0], start + found[1]
        return kind, start

    def apart(self, other: Handle) -> bool:
        """True if it is certain that two tensors have no element in common."""
        if self.storage is not other.storage:
            return True
        ranges: list[tuple[int, int]] = []
        for window in (self.window(), other.window()):
            if window is None or self.opaque or other.opaque:
                return False
            (kind, start), item = window, types.ITEM_BYTES[types.dtype(window[0])]
            span = span_bytes(kind)
            if not isinstance(start, int) or not isinstance(span, int):
                return False
            ranges.append((start * item, start * item + span))
        (first, last), (begin, end) = ranges
        return last <= begin or end <= first

    def _insert(self, value: SSAValue, insert: Insert, location: LocationAttr) -> SSAValue:
        """The storage's value after a write through views of which one alone has no inverse (one row of what
        ``expand`` made), but which together show each element once: as a window of the storage.
        """
        before = self.storage.value
        window = self.window()
        if window is None:
            view = next(view for view in self.chain if not _has_inverse(view))
            name = view.callee.data if isinstance(view, AtenOp) else view.name
            raise UnknownAliasing(f"the memory of a result of {name} is written")
        kind, start = window
        if not all_different(types.shape(kind), types.strides(kind)):
            raise UnknownAliasing("memory is written in which several elements are the same")

        def emit(op: Operation) -> SSAValue:
            op.location = location
            insert(op)
            return op.results[0]

        flat = types.tensor(types.dtype(before), [types.numel(before)])
        line = emit(ReshapeOp.create(operands=[before], result_types=[flat]))
        properties = {"start": ExtentsAttr([start]), "steps": ExtentsAttr(types.strides(kind))}
        line = emit(InsertWindowOp.create(operands=[value, line], properties=properties, result_types=[flat]))
        return emit(ReshapeOp.create(operands=[line], result_types=[before.type]))


def fresh(value: SSAValue, origin: Extent = 0) -> Handle:
    """The handle of a tensor that owns its memory."""
    return Handle(Storage(value, types.tensor_type(value), origin), (), [value], 0)


def whole(handle: Handle) -> Handle:
    """The handle of the tensor that owns a tensor's memory."""
    storage = handle.storage
    return Handle(storage, (), [storage.value], storage.version)


def copy_of(handle: Handle, insert: Insert) -> Handle:
    """The same tensor in a copy of its memory, whose views see what is written there."""
    values, storage = handle.values(insert), handle.storage
    copied = Storage(storage.value, storage.kind, storage.origin)
    return Handle(copied, handle.chain, list(values), copied.version, handle.opaque)


def view_of(
    source: Handle, operand: SSAValue, kind: AnyTensorType, result: SSAValue, callee: str, may_copy: bool = False
) -> Handle:
    """The handle of ``result``, which ``callee`` computed from ``operand`` and which may share its memory.

    ``operand`` is the value of ``source``, and in torch a tensor of type ``kind``. Where torch's operator copies (a
    reshape that strides cannot express, a change of layout or dtype) there is no aliasing. ``may_copy``: torch copies
    where the operand lies otherwise.
    """
    steps: list[Operation] = []
    value = result
    may_copy |= source.may_copy
    while value is not operand:
        op = producer(value)
        if isinstance(op, CastOp) or (
            isinstance(op, ViewOp) and not _shares_memory(op, kind if op.input is operand else None)
        ):
            return fresh(result)
        if not _is_view(op):
            return Handle(source.storage, (), [result], source.version, callee)
        assert op is not None
        may_copy |= isinstance(op, ReshapeOp) and _merges(op)
        steps.append(op)
        value = op.operands[0]
    if source.opaque:
        return Handle(source.storage, (), [result], source.version, source.opaque)
    steps.reverse()
    values = [*source.cached, *(step.results[0] for step in steps)]
    return Handle(source.storage, (*source.chain, *steps), values, source.version, may_copy=may_copy)


def _merges(op: ReshapeOp) -> bool:
    """True if strides express this for some layouts of the operand only: where it makes one dimension of several."""
    unrelated = [7919**power for power in range(1, len(types.shape(op.input)) + 1)]
    return reshape_strides(types.shape(op.input), unrelated, types.shape(op.result)) is None


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


def _has_inverse(view: Operation) -> bool:
    """True if a write through this one view makes a new value of its operand."""
    if isinstance(view, BroadcastOp):
        return types.shape(view.input) == types.shape(view.result)
    if isinstance(view, WindowOp):
        return is_injective(view)
    if isinstance(view, AtenOp):
        shown, operand = types.dtype(view.results[0]), types.dtype(view.operands[0])
        return shown == operand or view.callee.data in REINTERPRETATIONS
    return isinstance(view, ViewOp)


def _scatter(view: Operation, value: SSAValue, before: SSAValue, insert: Insert, location: LocationAttr) -> SSAValue:
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
    shape, written = types.shape(view.results[0]), types.numel(value)
    kind = types.tensor("i64", shape)
    places = emit(type(view).create(operands=[numbers], properties=view.properties, result_types=[kind]))
    flat = [
        reshape(before, types.tensor(name, [count])),
        reshape(value, types.tensor(name, [written])),
        reshape(places, types.tensor("i64", [written])),
    ]
    return reshape(emit(IndexPutOp.make(flat, {"dims": IntsAttr([0])})), before.type)


def _reinterpret(
    callee: str, value: SSAValue, before: SSAValue, insert: Insert, location: LocationAttr
) -> SSAValue | None:
    """The inverse of views that show the same bytes as other numbers; None if ``callee`` is no such view."""

    def call(name: str, *args: Any, dtype: str = "", shape: Sequence[Extent] = ()) -> SSAValue:
        kind = types.tensor(dtype, shape) if dtype else types.tensor(types.dtype(before), types.shape(before))
        op = AtenOp.of(name, args, [], [kind], location=location)
        insert(op)
        return op.results[0]

    dense = value
    if not types.is_contiguous(value):
        copy = CopyOp.create(operands=[value], result_types=[types.tensor(types.dtype(value), types.shape(value))])
        copy.location = location
        insert(copy)
        dense = copy.results[0]
    match callee.partition(".")[0]:
        case "aten::view":
            return call("aten::view.dtype", dense, DType(types.dtype(before)))
        case "aten::view_as_real":
            return call("aten::view_as_complex", dense)
        case "aten::view_as_complex":
            return call("aten::view_as_real", dense)
        case "aten::real" | "aten::imag":
            part = {"dtype": types.dtype(value), "shape": types.shape(value)}
            if callee == "aten::real":
                return call("aten::complex", value, call("aten::imag", before, **part))
            return call("aten::complex", call("aten::real", before, **part), value)
        case "aten::_conj" | "aten::conj" | "aten::_conj_physical":
            return call("aten::conj_physical", value)
        case "aten::_neg_view":
            return call("aten::neg", value)
        case "aten::adjoint" | "aten::mH" | "aten::matrix_H":
            return call("aten::mH", value)
    return None


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
    if isinstance(view, BroadcastOp):
        return value  # to its own shape
    if isinstance(view, WindowOp):
        return emit(InsertWindowOp, [value, before], {"start": view.start, "steps": view.steps})
    assert isinstance(view, AtenOp)
    found = _reinterpret(view.callee.data, value, before, insert, location)
    return _scatter(view, value, before, insert, location) if found is None else found
