"""Bufferization: turns values into registers, one op at a time.

Lowerings ask the builder for the registers of an op's operands, for a place to put its result (the memory of a dying
operand where that is safe), for views, and for launches. All decisions about memory are taken here; offsets are
assigned later.

The rules. Views cost nothing: a rearrangement that strides can express shares its operand's bytes. A storage is
*dead* after launch k when no value that lives in it is used later. An operand's bytes may be overwritten by the op's
result when its storage belongs to the plan (a buffer, an output, or the state that the op's function will overwrite
anyway), is dead after this op, and no other operand reads the same bytes through another layout.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from xdsl.dialects.builtin import AnyTensorType, LocationAttr, StringAttr, TensorType
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Attribute, Block, Operation, SSAValue

from forgec.ir import plan, types
from forgec.ir.attributes import ArgsAttr, ExtentAttr, IntsAttr, StateType
from forgec.ir.layout import all_different, broadcast_strides, reshape_strides, span_bytes
from forgec.ir.ops.base import ForgeOp
from forgec.ir.ops.module import StateReadOp, StateWriteOp
from forgec.ir.ops.shape import BroadcastOp, CopyOp, ReshapeOp, SliceOp, TransposeOp, ViewOp
from forgec.ir.ops.window import WindowOp, addresses
from forgec.ir.tile.kernel import LaunchOp
from forgec.runtime.plan import Arg, Reg
from forgec.runtime.symbolic import Extent


@dataclass(eq=False)
class Storage:
    """Bytes that a register owns. ``values`` are the forge values that live in them."""

    register: SSAValue
    values: list[SSAValue] = field(default_factory=list)

    @property
    def owner(self) -> Operation:
        assert isinstance(self.register.owner, Operation)
        return self.register.owner


@dataclass(frozen=True)
class Place:
    """Where a value lives: a storage, seen from ``offset`` (elements of the type's dtype) with the type's shape and
    strides."""

    storage: Storage
    type: AnyTensorType
    offset: Extent = 0


class PlanBuilder:
    """Builds the body of a ``plan.entry`` from the body of a function."""

    def __init__(self, function: FuncOp, block: Block) -> None:
        self.block = block
        self.places: dict[SSAValue, Place] = {}
        self.registers: dict[tuple[SSAValue, AnyTensorType, Extent], SSAValue] = {}
        self.location: LocationAttr | None = None
        self.current: Operation | None = None
        self._last_use: dict[SSAValue, int] = {}
        self._position = 0
        self._escaping: set[SSAValue] = set()
        self.updated: set[Storage] = set()
        """Arguments whose memory the function's own result will have: it may be written as soon as it is dead."""
        self._positions: dict[Operation, int] = {}
        body = function.body.block
        for position, op in enumerate(body.ops):
            self._positions[op] = position
            for inner in op.walk() if op.regions else (op,):
                for operand in inner.operands:
                    self._last_use[operand] = position
            if isinstance(op, ReturnOp):
                self._mark_escaping(op.operands)

    # Order
    # -------------------------------------------------------------------------------------------------------------

    def enter(self, op: Operation, position: int) -> None:
        """The next op to be lowered, at its position in the function's body."""
        self.current, self._position, self.location = op, position, op.location

    def _mark_escaping(self, values: Iterable[SSAValue]) -> None:
        """Values that the caller gets: those returned, and those of which a returned value is a view."""
        for value in values:
            while value not in self._escaping:
                self._escaping.add(value)
                op = value.owner
                changed = op.changed(value) if isinstance(op, LaunchOp) else None
                if changed is not None and changed.has_one_use() and isinstance(changed.owner, ForgeOp):
                    value = changed  # the result of a kernel that works in an operand's memory
                    continue
                if not isinstance(op, ViewOp) or not _may_share(op):
                    break
                value = op.input

    # Registers
    # ---------------------------------------------------------------------------------------------------------

    def insert(self, op: Any) -> SSAValue:
        """Append a register declaration to the plan."""
        op.location = self.location or op.location
        self.block.add_op(op)
        return op.results[0]

    def declare(self, value: SSAValue, op: plan.RegisterOp) -> None:
        """``value`` lives in a register of its own, which ``op`` declares (an input, parameter, constant or state)."""
        self.define(value, Place(Storage(self.insert(op)), types.tensor_type(op.result)))

    def define(self, value: SSAValue, place: Place) -> None:
        """``value`` lives at ``place``."""
        self.places[value] = place
        place.storage.values.append(value)

    def alias(self, value: SSAValue, of: SSAValue) -> None:
        """``value`` lives where ``of`` lives."""
        self.define(value, self.places[of])

    def place(self, value: SSAValue) -> Place:
        """Where a value lives."""
        return self.places[value]

    def type(self, value: SSAValue) -> AnyTensorType:
        """The type of a value as it is stored (its strides may differ from those in the forge type after passes)."""
        return self.places[value].type

    def register(self, value: SSAValue) -> SSAValue:
        """The register through which a value is read."""
        place = self.places[value]
        return self.view(place, place.type, 0)

    def view(self, place: Place, kind: AnyTensorType, offset: Extent = 0) -> SSAValue:
        """A register that shows the bytes at ``place`` with another type, ``offset`` elements further."""
        base, start = place.storage.register, place.offset + offset
        if kind == base.type and start == 0:
            return base
        key = (base, kind, start)
        if key not in self.registers:
            op = plan.ViewOp.create(operands=[base], properties={"offset": ExtentAttr(start)}, result_types=[kind])
            self.registers[key] = self.insert(op)
        return self.registers[key]

    def reshaped(self, place: Place, shape: Sequence[Extent]) -> SSAValue | None:
        """A register that shows the place in another shape, or None where strides cannot."""
        strides = reshape_strides(types.shape(place.type), types.strides(place.type), shape)
        if strides is None:
            return None
        return self.view(place, types.tensor(types.dtype(place.type), shape, strides))

    def transposed(self, place: Place) -> SSAValue:
        """A register that shows the place with its last two dimensions exchanged."""
        shape, strides = list(types.shape(place.type)), list(types.strides(place.type))
        shape[-2:], strides[-2:] = shape[:-3:-1], strides[:-3:-1]
        return self.view(place, types.tensor(types.dtype(place.type), shape, strides))

    # Memory
    # ------------------------------------------------------------------------------------------------------------

    def allocate(self, kind: AnyTensorType, escaping: bool = False) -> Place:
        """Fresh bytes for a value of a type: the caller's if it escapes, else the arena's."""
        if escaping:
            return Place(Storage(self.insert(plan.OutputOp.create(result_types=[kind]))), kind)
        properties: dict[str, Attribute] = {"nbytes": ExtentAttr(span_bytes(kind))}
        return Place(Storage(self.insert(plan.BufferOp.create(properties=properties, result_types=[kind]))), kind)

    def destination(self, result: SSAValue, reuse: Sequence[SSAValue] = (), *, row_major: bool = False) -> Place:
        """A place for a result, in the bytes of one of the ``reuse`` operands if that is safe; defines the result
        there.

        Reusing an operand's bytes is for ops that read each element before they write the one at the same position.
        ``row_major`` is for kernels that write row-major results only, whatever strides the result's type asks for; if
        it asks for others, the caller does not get these bytes (see ``lay_out``).
        """
        kind, escaping = types.tensor_type(result), result in self._escaping
        if row_major:
            wanted, kind = dense(kind), types.tensor(types.dtype(kind), types.shape(kind))
            escaping = escaping and wanted == kind
        for operand in reuse:
            place = self.places[operand]
            if place.type == kind and self._replaceable(operand, escaping) and self._alike(place):
                self.define(result, Place(place.storage, kind, place.offset))
                return self.places[result]
        place = self.allocate(dense(kind), escaping)
        self.define(result, place)
        return place

    def lay_out(self, result: SSAValue) -> None:
        """A result that has just been computed, and that the caller gets, lies as its type says from now on, so that
        views of it do.
        """
        if result not in self._escaping or not isinstance(result.type, TensorType):
            return
        place, kind = self.places[result], types.tensor_type(result)
        alone = place.storage.values == [result] and isinstance(place.storage.owner, plan.BufferOp)
        if alone and dense(kind) == kind and types.strides(kind) != types.strides(place.type):
            fresh = self.allocate(kind, escaping=True)
            self.launch("aten::copy_", [fresh, place], writes=[fresh])
            place.storage.values.clear()
            self.define(result, fresh)

    def update(self, result: SSAValue, old: SSAValue) -> Place:
        """A place for a result that is ``old`` with some elements changed: in ``old``'s bytes if that is safe, else a
        copy."""
        place = self.places[old]
        if self._replaceable(old, result in self._escaping) and self._alone(old):
            self.define(result, place)
            return place
        fresh = self.destination(result)
        self.launch("aten::copy_", [fresh, place], writes=[fresh])
        return fresh

    def duplicate(self, place: Place) -> Place:
        """A copy of what is at a place, in the arena."""
        fresh = self.allocate(types.tensor(types.dtype(place.type), types.shape(place.type)))
        self.launch("aten::copy_", [fresh, place], writes=[fresh])
        return fresh

    def preserve(self, storage: Storage) -> None:
        """Copy the values of a storage that are still needed elsewhere, because the storage is about to be
        overwritten."""
        whole = types.tensor_type(storage.register)
        needed = [v for v in storage.values if self._is_needed(v) and not isinstance(v.type, StateType)]
        shared = len(needed) > 1 and dense(whole) == whole and any(self.places[v].type == whole for v in needed)
        copied: Place | None = None
        for value in needed:
            old = self.places[value]
            storage.values.remove(value)
            if copied is None or not shared:  # the whole and views of it are copied together
                source = Place(storage, whole) if shared else old
                escapes = any(v in self._escaping for v in needed) if shared else value in self._escaping
                copied = self.allocate(dense(source.type), escapes)
                self.launch("aten::copy_", [copied, source], writes=[copied])
            self.define(value, Place(copied.storage, old.type, old.offset) if shared else copied)

    def _is_needed(self, value: SSAValue) -> bool:
        return self._last_use.get(value, -1) > self._position

    def _replaceable(self, operand: SSAValue, escaping: bool) -> bool:
        """True if the operand's bytes may be overwritten by the current op."""
        place = self.places[operand]
        storage, owner = place.storage, place.storage.owner
        if storage in self.updated:
            alive = any(self._last_use.get(value, -1) > self._position for value in storage.values)
            return not alive and place.type == types.tensor_type(storage.register)
        if isinstance(owner, plan.OutputOp) != escaping and not self._is_mutable_state(storage):
            return False
        if not isinstance(owner, (plan.BufferOp, plan.OutputOp)) and not self._is_mutable_state(storage):
            return False
        if escaping and self._is_mutable_state(storage):
            return False
        alive = (v for v in storage.values if not isinstance(v.type, StateType))
        if any(self._last_use.get(value, -1) > self._position for value in alive):
            return False
        whole = span_bytes(place.type) == span_bytes(types.tensor_type(storage.register))
        return whole and not overlaps(place.type)

    def _alike(self, place: Place) -> bool:
        """True if every operand of the current op that lives in the storage is seen there as at ``place``."""
        assert self.current is not None
        others = (self.places.get(v) for v in self.current.operands)
        return all(
            o is None or o.storage is not place.storage or (o.type, o.offset) == (place.type, place.offset)
            for o in others
        )

    def _alone(self, operand: SSAValue) -> bool:
        """True if no other operand of the current op lives in the operand's storage."""
        assert self.current is not None
        storage = self.places[operand].storage
        inside = [v for v in self.current.operands if v in self.places and self.places[v].storage is storage]
        return inside == [operand]

    def _is_mutable_state(self, storage: Storage) -> bool:
        """True if the storage is a state whose present content nobody needs: a later op writes it anew, and none reads
        it before that.
        """
        versions = [value for value in storage.values if isinstance(value.type, StateType)]
        if not versions:
            return False
        for use in versions[-1].uses:
            reads = isinstance(use.operation, StateReadOp) and self._positions[use.operation] > self._position
            if reads or not isinstance(use.operation, (StateReadOp, StateWriteOp)):
                return False
        return True

    # Launches
    # ----------------------------------------------------------------------------------------------------------

    def launch(
        self,
        callee: str,
        args: Sequence[Any],
        kwargs: Iterable[tuple[str, Any]] = (),
        *,
        writes: Sequence[Any] = (),
        results: Sequence[AnyTensorType] = (),
        defines: Sequence[str | None] = (),
    ) -> list[SSAValue]:
        """Append a call. Arguments are literals, registers, places or forge values (also inside lists); returns its
        own results."""
        operands: list[SSAValue] = []
        index: dict[SSAValue, int] = {}

        def literal(arg: Any) -> Arg:
            if isinstance(arg, Place):
                arg = self.view(arg, arg.type)
            elif isinstance(arg, SSAValue) and arg in self.places:
                arg = self.register(arg)
            if isinstance(arg, SSAValue):
                if arg not in index:
                    index[arg] = len(operands)
                    operands.append(arg)
                return Reg(index[arg])
            if isinstance(arg, (list, tuple)):
                return tuple(literal(item) for item in arg)
            return arg

        packed = ArgsAttr.of([literal(a) for a in args], [(name, literal(a)) for name, a in kwargs])
        written = [literal(w) for w in writes]
        properties: dict[str, Attribute] = {
            "callee": StringAttr(callee),
            "args": packed,
            "writes": IntsAttr(w.id for w in written if isinstance(w, Reg)),
            "source": StringAttr(self.current.name if self.current is not None else ""),
        }
        if any(name is not None for name in defines):
            properties["defines"] = ArgsAttr.of(list(defines))
        op = plan.LaunchOp.create(
            operands=operands,
            properties=properties,
            result_types=list(results),
            location=self.location,
        )
        self.block.add_op(op)
        return list(op.results)

    def call(
        self,
        callee: str,
        args: Sequence[Any],
        kwargs: Iterable[tuple[str, Any]],
        results: Sequence[SSAValue],
        *,
        writes: Sequence[Any] = (),
    ) -> None:
        """Append a call whose results the operator allocates itself, and define ``results`` in them."""
        kinds = [dense(types.tensor_type(result)) for result in results]
        made = self.launch(callee, args, kwargs, writes=writes, results=kinds)
        for result, register in zip(results, made, strict=True):
            self.define(result, Place(Storage(register), types.tensor_type(register)))

    # Views
    # -------------------------------------------------------------------------------------------------------------

    def show(self, op: ViewOp) -> bool:
        """Define a view op's result as a view of its operand; False if only a copy will do."""
        place = self.places[op.input]
        found = view_type(op, place.type)
        if found is None:
            return False
        kind, offset = found
        self.define(op.result, Place(place.storage, kind, place.offset + offset))
        return True


def view_type(op: ViewOp, source: AnyTensorType) -> tuple[AnyTensorType, Extent] | None:
    """The stored type (and the offset in elements) of a view op's result over an operand stored as ``source``, or
    None."""
    shape, strides = types.shape(source), types.strides(source)
    target = types.shape(op.result)
    offset: Extent = 0
    if isinstance(op, CopyOp):
        if types.strides(op.result) != strides:
            return None
        found: Sequence[Extent] | None = strides
    elif isinstance(op, ReshapeOp):
        found = reshape_strides(shape, strides, target)
    elif isinstance(op, TransposeOp):
        found = [strides[d] for d in op.permutation.data]
    elif isinstance(op, BroadcastOp):
        found = broadcast_strides(shape, strides, target)
    elif isinstance(op, SliceOp):
        dim = op.dim.data
        offset = op.start.data * strides[dim]
        found = [s * op.step.data if d == dim else s for d, s in enumerate(strides)]
    elif isinstance(op, WindowOp):
        offset, found = addresses(op.start.data, op.steps.data, strides, len(target))
    else:
        return None
    return None if found is None else (types.tensor(types.dtype(source), target, found), offset)


def overlaps(kind: AnyTensorType) -> bool:
    """True if two positions of the type may be the same bytes (a broadcast, a sliding window)."""
    if types.is_contiguous(kind):
        return False
    different = all_different(types.shape(kind), types.strides(kind))
    return dense(kind) != kind if different is None else not different


def dense(kind: AnyTensorType) -> AnyTensorType:
    """The type to store a new value in: the declared strides if they leave no gaps and no overlaps, else row-major."""
    if types.is_contiguous(kind):
        return kind
    order = sorted(zip(types.strides(kind), types.shape(kind), strict=True), key=_stride_key)
    expected: Extent = 1
    for stride, extent in order:
        if extent == 1:
            continue
        if stride != expected:
            return types.tensor(types.dtype(kind), types.shape(kind))
        expected = expected * extent
    return kind


def _stride_key(pair: tuple[Extent, Extent]) -> tuple[int, int, str]:
    """Orders strides from inner to outer; symbolic ones by their degree, which is enough to prove density or give it
    up."""
    stride = pair[0]
    if isinstance(stride, int):
        return (0, stride, "")
    text = str(stride)
    return (1 + text.count("*"), len(text), text)


def _may_share(op: ViewOp) -> bool:
    return view_type(op, types.tensor_type(op.input)) is not None
