"""Values are stored as what reads them wants them, so that nothing is copied only to lie differently."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import AnyTensorType, ModuleOp
from xdsl.ir import Operation, OpResult, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import Rewriter

from forgec.backends.plan_builder import dense, view_type
from forgec.ir import types
from forgec.ir.layout import reshape_strides
from forgec.ir.ops.aten import AtenOp
from forgec.ir.ops.base import ForgeOp, producer
from forgec.ir.ops.module import ConstantOp, ParamRefOp
from forgec.ir.ops.norm import LayerNormOp, RmsNormOp
from forgec.ir.ops.shape import CopyOp, ReshapeOp, TransposeOp, ViewOp, is_free
from forgec.passes.layouts import give_layout, passes_on
from forgec.passes.patterns import applied, missed
from forgec.passes.rewriting import blocks, is_dead, replace
from forgec.passes.split_dims import split_readers

GONE = "this value is not copied: it is stored at once as what reads it wants it"
ROW_MAJOR = (LayerNormOp, RmsNormOp)
"""Ops whose rows are written as they are reduced: another layout would cost a copy inside."""


@dataclass(frozen=True)
class AssignLayout(ModulePass):
    """Give results of ops the strides in which copies of them are wanted, which removes the copies.

    Before::

        %o = forge.attention %q, %k, %v : (…) -> tensor<2x4x9x16xf32>
        %t = forge.transpose %o [0, 2, 1, 3] : (tensor<2x4x9x16xf32>) -> tensor<2x9x4x16xf32, …>
        %c = forge.copy %t : (tensor<2x9x4x16xf32, …>) -> tensor<2x9x4x16xf32>
        %r = forge.reshape %c : (tensor<2x9x4x16xf32>) -> tensor<2x9x64xf32>

    After::

        %o = forge.attention %q, %k, %v : (…) -> tensor<2x4x9x16xf32, #forge.tensor<[], strides = [576, 16, 64, 1]>>
        %t = forge.transpose %o [0, 2, 1, 3] : (tensor<2x4x9x16xf32, …>) -> tensor<2x9x4x16xf32>
        %r = forge.reshape %t : (tensor<2x9x4x16xf32>) -> tensor<2x9x64xf32>

    A copy goes if what reads it can read the original. Otherwise it, and a reshape that needs one, ask for a layout.
    The op that computes the value takes it if only transposes and reshapes stand between, every other rearrangement of
    the value stays free, and nothing passes the value on as it was (a result of the function, an operator of ATen, a
    call). Where that is not possible, products, rotations and pointwise ops that read the copy work on the dimensions
    that it merges, in parts, and broadcast what it repeats. What is refused leaves a remark. Values stay the same, and
    so does the layout of whatever leaves the function.

    Order: before ``fuse-epilogue``, which would put copies into kernels, and after everything that may remove what
    stands between a value and its copy.
    """

    name = "assign-layout"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for block in blocks(op):
            for current in list(block.ops):
                if current.parent is block and (wanted := _asks_for(current)) is not None:
                    _assign(current, wanted)


def _asks_for(op: Operation) -> AnyTensorType | None:
    """The type in which an op that copies wants its operand, so that it need not."""
    if isinstance(op, CopyOp):
        kind = types.tensor_type(op.result)
        return kind if dense(kind) == kind else None
    if isinstance(op, ReshapeOp) and not is_free(op):
        return types.tensor(types.dtype(op.input), types.shape(op.input))
    return None


def _assign(op: Operation, wanted: AnyTensorType) -> None:
    if isinstance(op, CopyOp) and _is_needless(op):
        _drop(op)
        return
    value = op.operands[0]
    kind: AnyTensorType | None = wanted
    while (view := producer(value)) is not None and isinstance(view, (TransposeOp, ReshapeOp)) and is_free(view):
        kind = None if kind is None else _before(view, kind)
        value = view.input
    if types.tensor_type(op.operands[0]) == wanted and isinstance(op, CopyOp) and _chooses(producer(value)):
        applied(op, GONE)
        replace(op, [op.input])
        return
    reason = _refusal(op, value, kind)
    if reason:
        block = op.parent
        split_readers(op)
        if op.parent is None or is_dead(op):
            applied(op, "this value is not copied: what reads it works on the dimensions that it merges, in parts")
            if op.parent is not None and block is not None:
                block.erase_op(op)
            return
        if isinstance(op, CopyOp) and _is_needless(op):
            _drop(op)
            return
        missed(op, "this value is copied to lie differently", reason)
        return
    assert kind is not None
    assert isinstance(value, OpResult)
    before = value.type
    applied(op, GONE)
    renewed = Rewriter.replace_value_with_new_type(value, kind)
    give_layout(renewed, before)
    if isinstance(op, CopyOp) and op.input.type == op.result.type:
        replace(op, [op.input])


def _drop(op: CopyOp) -> None:
    """Let what reads a copy read the original."""
    before = op.result.type
    applied(op, "this value is not copied: what reads the copy reads the original")
    renewed = Rewriter.replace_value_with_new_type(op.result, op.input.type)
    give_layout(renewed, before)
    replace(op, [op.input])


def _is_needless(op: CopyOp) -> bool:
    """True if all that reads a copy can read what was copied, without gaps along the last dimension, or along those
    along which it reads the copy so.
    """
    kind = types.tensor_type(op.input)
    if types.strides(kind)[-1:] not in ((1,), ()) or op.result.first_use is None:
        return False
    return all(
        seen is not None and not passes_on(reader) and _has_no_gaps(seen, value)
        for reader, seen, value in _readers(op.result, kind)
    )


def _has_no_gaps(seen: AnyTensorType, value: SSAValue) -> bool:
    """True for a layout whose neighbours are neighbours in memory, in the last dimension or where those of a value
    are.
    """
    units = [d for d, (n, stride) in enumerate(zip(types.shape(value), types.strides(value), strict=True))
             if stride == 1 and n != 1]  # fmt: skip
    strides = types.strides(seen)
    return strides[-1:] in ((1,), ()) or (bool(units) and all(strides[d] == 1 for d in units))


def _before(view: TransposeOp | ReshapeOp, kind: AnyTensorType) -> AnyTensorType | None:
    """The type of a view's operand for which its result has the type ``kind``; None if there is none."""
    shape, strides = types.shape(view.input), types.strides(kind)
    if isinstance(view, TransposeOp):
        order = view.permutation.data
        found: tuple | None = tuple(strides[order.index(d)] for d in range(len(order)))
    else:
        found = reshape_strides(types.shape(kind), strides, shape)
    return None if found is None else types.tensor(types.dtype(kind), shape, found)


def _chooses(op: Operation | None) -> bool:
    """True for ops that may write their result with any strides."""
    fixed = (ViewOp, AtenOp, ParamRefOp, ConstantOp, *ROW_MAJOR)
    return isinstance(op, ForgeOp) and not isinstance(op, fixed) and not op.regions and len(op.results) == 1


def _refusal(op: Operation, value: SSAValue, kind: AnyTensorType | None) -> str | None:
    """Why a value cannot have the type that ``op`` asks for."""
    source = producer(value)
    if source is None:
        return "it is an argument, which lies as the caller has it"
    if not _chooses(source):
        return f"{source.name} decides how its result lies"
    if kind is None:
        return "no layout of what it is made of makes the rearrangements between free"
    if source.parent is not op.parent:
        return "it is computed outside of the region that copies it"
    for reader, seen, _ in _readers(value, kind):
        if reader is op:
            continue
        if seen is None:
            return f"another rearrangement of it ({reader.name}) would then need a copy"
        if passes_on(reader):
            return f"{reader.name} takes it as it lies"
    return None


def _readers(value: SSAValue, kind: AnyTensorType) -> Iterator[tuple[Operation, AnyTensorType | None, SSAValue]]:
    """The ops that would read a value of another type, through free rearrangements, in which type, and what they read
    now; None for a rearrangement that would not be free any more.
    """
    pending = [(value, kind)]
    while pending:
        current, shown = pending.pop()
        for use in current.uses:
            user = use.operation
            if isinstance(user, ViewOp) and not isinstance(user, CopyOp) and is_free(user):
                found = view_type(user, shown)
                if found is None:
                    yield user, None, current
                else:
                    pending.append((user.result, found[0]))
            else:
                yield user, shown, current
