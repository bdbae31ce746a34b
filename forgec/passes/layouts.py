"""Other strides for a value: what follows takes them over, or gets the layout that it had."""

from __future__ import annotations

from xdsl.dialects.func import CallOp, ReturnOp
from xdsl.ir import Attribute, Operation, OpResult, SSAValue
from xdsl.rewriter import Rewriter

from forgec.backends.plan_builder import view_type
from forgec.ir import types
from forgec.ir.ops.aten import AtenOp
from forgec.ir.ops.base import ForgeOp
from forgec.ir.ops.fused import FusedOp
from forgec.ir.ops.shape import CopyOp, ViewOp, is_free


def give_layout(value: SSAValue, before: Attribute) -> None:
    """``value`` has another layout than ``before``, which its users were built for.

    Free rearrangements of it take the new strides over; ops that compute do not care; what passes the value on as it is
    (returns, calls, states, operators of ATen, regions, kernels) gets a copy in the old layout.
    """
    if value.type == before:
        return
    passing = [use for use in value.uses if passes_on(use.operation)]
    if passing:
        copy = CopyOp.create(operands=[value], result_types=[before])
        owner = value.owner
        assert isinstance(owner, Operation)
        copy.location = owner.location
        block = owner.parent_block()
        assert block is not None
        block.insert_op_after(copy, owner)
        for use in passing:
            use.operation.operands[use.index] = copy.result
    for use in list(value.uses):
        view = use.operation
        if isinstance(view, ViewOp) and not isinstance(view, CopyOp):
            _follow(view)


def is_seen(value: SSAValue) -> bool:
    """True if what passes values on as they are gets this one, or a free rearrangement of it: then its layout, and that
    they share memory, may be seen.
    """
    return any(
        passes_on(use.operation) or (is_free(use.operation) and is_seen(use.operation.results[0])) for use in value.uses
    )


def _follow(view: ViewOp) -> None:
    """Give a rearrangement the strides that it has without moving anything, if there are such."""
    if not is_free(view):
        return
    found = view_type(view, types.tensor_type(view.input))
    if found is None:
        return
    wanted = types.tensor(types.dtype(view.result), types.shape(found[0]), types.strides(found[0]))
    before = view.result.type
    if wanted != before:
        result = view.result
        assert isinstance(result, OpResult)
        renewed = Rewriter.replace_value_with_new_type(result, wanted)
        give_layout(renewed, before)


def passes_on(op: Operation) -> bool:
    """True for what shows others how a value lies."""
    return isinstance(op, (ReturnOp, CallOp, AtenOp, FusedOp)) or not isinstance(op, ForgeOp)
