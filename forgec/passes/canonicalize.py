"""Canonicalization: ops that do nothing vanish, chains of rearrangements become one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation, SSAValue
from xdsl.passes import ModulePass

from forgec.ir import types
from forgec.ir.attributes import IntsAttr
from forgec.ir.ops import binary as b
from forgec.ir.ops import select
from forgec.ir.ops import unary as u
from forgec.ir.ops.base import producer
from forgec.ir.ops.index import IndexOp, IndexSelectOp
from forgec.ir.ops.shape import BroadcastOp, ConcatOp, CopyOp, ReshapeOp, SliceOp, TransposeOp, is_free
from forgec.passes.constant_places import as_slice
from forgec.passes.layouts import is_seen
from forgec.passes.rearrangements import chain_to, discard, shortest, type_of
from forgec.passes.rewriting import blocks, is_dead, replace

Rule = Callable[[Any], "SSAValue | Operation | Sequence[Operation] | None"]
RULES: dict[type[Operation], list[Rule]] = {}


def rule(*classes: type[Operation]) -> Callable[[Rule], Rule]:
    """Declare a rewrite: it returns the value (or the new op, or ops) that replaces the op, or None where it does not
    apply.
    """

    def register(found: Rule) -> Rule:
        for cls in classes:
            RULES.setdefault(cls, []).append(found)
        return found

    return register


@dataclass(frozen=True)
class Canonicalize(ModulePass):
    """Bring ops to one form: drop those that yield their operand, merge chains of reshapes and transposes, slice where
    a constant index names places that are evenly apart.

    Before::

        %0 = forge.reshape %x : (tensor<2x3xf32>) -> tensor<6xf32>
        %1 = forge.reshape %0 : (tensor<6xf32>) -> tensor<3x2xf32>
        %2 = forge.mul %1, 1.0 : (tensor<3x2xf32>) -> tensor<3x2xf32>

    After::

        %2 = forge.reshape %x : (tensor<2x3xf32>) -> tensor<3x2xf32>

    Only exact rules: the value keeps every bit (``x + 0.0`` stays, because of ``-0.0``). Dead pure ops are removed on
    the way.

    Order: before a pass that recognises patterns, so that there are fewer spellings of one thing, and after one that
    leaves views and copies behind.
    """

    name = "canonicalize"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for block in blocks(op):
            current = block.first_op
            while current is not None:
                following = current.next_op
                if is_dead(current):
                    block.erase_op(current)
                else:
                    _simplify(current)
                current = following
        for block in reversed(list(blocks(op))):
            current = block.last_op
            while current is not None:
                previous = current.prev_op
                if is_dead(current):
                    block.erase_op(current)
                current = previous


def _simplify(op: Operation) -> None:
    """Apply rules to an op, and to what replaces it, until none applies."""
    pending: Operation | None = op
    while pending is not None:
        current, pending = pending, None
        for found in RULES.get(type(current), ()):
            new = found(current)
            if new is None:
                continue
            if isinstance(new, SSAValue):
                replace(current, [new])
            else:
                ops = [new] if isinstance(new, Operation) else new
                replace(current, ops[-1].results, ops)
                pending = ops[-1]
            break


def _same(op: Any) -> SSAValue | None:
    return op.input if op.input.type == op.result.type else None


@rule(CopyOp, u.CastOp, BroadcastOp, SliceOp, ReshapeOp)
def drop_identity(op: Any) -> SSAValue | None:
    """A rearrangement to the operand's own type is the operand (a slice of the whole keeps the type only at step 1
    from 0)."""
    if isinstance(op, SliceOp) and not (op.start.data == 0 and op.step.data == 1):
        return None
    return _same(op)


@rule(TransposeOp)
def drop_identity_transpose(op: TransposeOp) -> SSAValue | None:
    """A transpose that permutes nothing is its operand."""
    return op.input if list(op.permutation.data) == sorted(op.permutation.data) else None


@rule(ReshapeOp)
def merge_reshapes(op: ReshapeOp) -> Operation | SSAValue | None:
    """A reshape of a reshape reads the first operand, unless that would turn a view into a copy."""
    inner = producer(op.input)
    if isinstance(inner, ReshapeOp) and inner.input.type == op.result.type:
        return inner.input
    if not isinstance(inner, ReshapeOp) or not types.is_contiguous(inner.input):
        return None
    return ReshapeOp.create(operands=[inner.input], result_types=[op.result.type])


@rule(TransposeOp)
def merge_transposes(op: TransposeOp) -> Operation | None:
    """A transpose of a transpose is one transpose."""
    inner = producer(op.input)
    if not isinstance(inner, TransposeOp):
        return None
    first, second = inner.permutation.data, op.permutation.data
    order = IntsAttr(first[d] for d in second)
    return TransposeOp.create(operands=[inner.input], properties={"permutation": order}, result_types=[op.result.type])


@rule(ReshapeOp, TransposeOp)
def compose_rearrangements(op: ReshapeOp | TransposeOp) -> Sequence[Operation] | SSAValue | None:
    """A chain of reshapes and transposes that fewer say as well: what was merged on the way and split again is not
    merged. Nothing that was a view becomes a copy, and no layout changes. What only splits stays where it stands.
    """
    chain = chain_to(op, ReshapeOp, TransposeOp)
    if chain is None:
        return None
    new = shortest(chain)
    fewer = len(new) < len(chain.ops) and (chain.merges or len(new) < 2) and type_of(chain, new) == op.result.type
    free = all(map(is_free, new))
    if not fewer or (free and chain.moves and is_seen(op.result)) or not (free or (chain.moves and chain.is_private)):
        discard(new)
        return None
    return new or chain.source


@rule(IndexOp, IndexSelectOp)
def slice_for_index(op: IndexOp | IndexSelectOp) -> Sequence[Operation] | None:
    """Constant places that ascend evenly are a slice, copied to where it lay; but what leaves the function shares no
    memory that it did not share.
    """
    return None if is_seen(op.result) else as_slice(op)


@rule(ConcatOp)
def drop_concat_of_one(op: ConcatOp) -> SSAValue | None:
    """One operand needs no concatenation."""
    return op.inputs[0] if len(op.inputs) == 1 and op.inputs[0].type == op.result.type else None


@rule(b.MulOp, b.DivOp)
def drop_factor_one(op: b.BinaryOp) -> SSAValue | None:
    """``x * 1`` and ``x / 1`` are x where the type stays."""
    return op.lhs if op.scalar is not None and op.scalar.value == 1 and op.lhs.type == op.result.type else None


@rule(b.SubOp)
def drop_zero_difference(op: b.BinaryOp) -> SSAValue | None:
    """``x - 0`` is x, also for -0.0 (but not ``x - -0.0``)."""
    if op.scalar is None or op.scalar.data not in ("0", "0.0") or op.lhs.type != op.result.type:
        return None
    return op.lhs


@rule(b.AddOp)
def drop_zero_sum(op: b.BinaryOp) -> SSAValue | None:
    """``x + 0`` is x for integers; in floating point it is not, for -0.0."""
    if op.scalar is None or op.scalar.value != 0 or op.lhs.type != op.result.type:
        return None
    return op.lhs if types.dtype(op.lhs) not in (*types.FLOATS, *types.COMPLEX) else None


@rule(b.PowOp)
def drop_power_one(op: b.BinaryOp) -> SSAValue | None:
    """``x ** 1`` is x."""
    return op.lhs if op.scalar is not None and op.scalar.value == 1 and op.lhs.type == op.result.type else None


@rule(u.LogicalNotOp, u.BitwiseNotOp, u.NegOp)
def drop_double(op: u.UnaryOp) -> SSAValue | None:
    """An inversion of the same inversion is the operand, where the type stays."""
    inner = producer(op.input)
    if inner is None or type(inner) is not type(op) or inner.operands[0].type != op.result.type:
        return None
    return inner.operands[0]


@rule(select.WhereOp)
def drop_where_of_equals(op: select.WhereOp) -> SSAValue | None:
    """Choosing between one value and itself."""
    return op.then if op.then is op.otherwise and op.then.type == op.result.type else None
