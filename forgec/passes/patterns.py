"""Reading how a value was computed: what fusion passes match with, and how they replace what they matched."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

from xdsl.dialects.builtin import DenseIntOrFPElementsAttr
from xdsl.ir import Operation, SSAValue

from forgec.diagnostics import Diagnostic
from forgec.ir import types
from forgec.ir.locations import fuse, location_of
from forgec.ir.ops.base import producer
from forgec.ir.ops.binary import BinaryOp
from forgec.ir.ops.creation import FullOp
from forgec.ir.ops.module import ConstantOp
from forgec.ir.ops.shape import BroadcastOp, CopyOp, ReshapeOp
from forgec.ir.ops.unary import CastOp
from forgec.passes import remarks
from forgec.passes.rewriting import replace

Op = TypeVar("Op", bound=Operation)
Number = bool | int | float


def made_by(value: SSAValue | None, *kinds: type[Op]) -> Op | None:
    """The op that computes a value, if it is one of ``kinds``."""
    op = None if value is None else producer(value)
    return op if isinstance(op, kinds) else None


def number(value: SSAValue) -> Number | None:
    """The one number that all elements of a value are, where its definition says so: a constant or ``forge.full``,
    reshaped, broadcast, copied or cast.
    """
    op = producer(value)
    if isinstance(op, ConstantOp):
        held = op.value
        if not isinstance(held, DenseIntOrFPElementsAttr) or types.numel(value) == 0:
            return None
        if types.numel(value) != 1 and not held.is_splat():
            return None
        found = held.get_values()[0]
        if isinstance(found, tuple):  # complex
            return None
        return bool(found) if types.dtype(value) == "i1" else found
    if isinstance(op, FullOp):
        found = op.value.value
        return None if isinstance(found, complex) else found
    if isinstance(op, (ReshapeOp, BroadcastOp, CopyOp)):
        return number(op.input)
    if isinstance(op, CastOp) and types.dtype(value) in types.FLOATS:
        return number(op.input)
    return None


def with_number(op: BinaryOp) -> tuple[SSAValue, Number] | None:
    """``x`` and ``c`` of ``op(x, c)`` for a number c, written as one or held by a tensor; also of ``op(c, x)`` if op
    commutes.
    """
    if op.scalar is not None:
        found = op.scalar.value
        return None if isinstance(found, complex) else (op.lhs, found)
    assert op.rhs is not None, "an op without a number has a second operand"
    for value, other in pairs(op):
        found = number(other)
        if found is not None:
            return value, found
    return None


def pairs(op: BinaryOp) -> Iterator[tuple[SSAValue, SSAValue]]:
    """Both operands of an op, and once more the other way round if it commutes. Nothing if one is a number."""
    if op.rhs is not None:
        yield op.lhs, op.rhs
        if op.COMMUTATIVE:
            yield op.rhs, op.lhs


def through(value: SSAValue, *kinds: type[Operation]) -> SSAValue:
    """What a value was computed from by ops of ``kinds`` alone, each with one operand."""
    op = producer(value)
    while isinstance(op, kinds):
        value = op.operands[0]
        op = producer(value)
    return value


def only_user(value: SSAValue) -> Operation | None:
    """The op that uses a value, if one op does, and once."""
    uses = list(value.uses)
    return uses[0].operation if len(uses) == 1 else None


def only_neighbour(value: SSAValue) -> Operation | None:
    """The op that uses a value, if one op does, once, and in the block that computes it: not in the body of a loop."""
    user, owner = only_user(value), producer(value)
    return user if user is not None and owner is not None and user.parent is owner.parent else None


def is_private(value: SSAValue, ops: Sequence[Operation]) -> bool:
    """True if only ``ops`` use a value: fusing them makes it disappear."""
    return all(use.operation in ops for use in value.uses)


def substitute(root: Operation, new: Sequence[Operation], matched: Sequence[Operation] = (), what: str = "") -> None:
    """Replace ``root`` by the last op of ``new``, whose location covers all that was matched. Ops that lose their last
    use stay for ``dce``. ``what`` says in a remark what was made of them.
    """
    location = fuse(op.location for op in (*matched, root))
    for op in new:
        op.location = location
    replace(root, new[-1].results, new)
    if what:
        remarks.emit(Diagnostic("FORGE-O001", what, location_of(new[-1]), severity="remark"))


def applied(op: Operation, what: str, *notes: str) -> None:
    """A remark on what was made of an op."""
    remarks.emit(Diagnostic("FORGE-O001", what, location_of(op), notes=notes, severity="remark"))


def missed(op: Operation, what: str, *notes: str) -> None:
    """A remark that something was not fused, and why."""
    remarks.emit(Diagnostic("FORGE-O002", what, location_of(op), notes=notes, severity="remark"))
