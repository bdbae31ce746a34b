"""Losses that compare elements: their mean, their sum, or all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from xdsl.builder import Builder
from xdsl.ir import SSAValue

from forgec.ir import types
from forgec.ir.attributes import IntsAttr
from forgec.ir.ops.binary import LtOp, MulOp, SubOp
from forgec.ir.ops.decomposition import Emitter
from forgec.ir.ops.reduction import MeanOp, SumOp
from forgec.ir.ops.select import WhereOp
from forgec.ir.ops.unary import AbsOp
from forgec.passes.tiles.arithmetic import work_dtype
from forgec.passes.tiles.kernel_builder import NotLowered
from forgec.passes.tiles.operators import group, settings
from forgec.passes.tiles.rule import expands_operator

Compare = Callable[[Emitter, SSAValue], SSAValue]
"""What one element of the loss is of the difference."""


@expands_operator("aten::mse_loss")
def squares(op: Any, builder: Builder) -> list[SSAValue]:
    given = settings(op, "self target reduction")
    return _loss(op, builder, given, lambda emit, d: emit(MulOp, d, d))


@expands_operator("aten::l1_loss")
def distances(op: Any, builder: Builder) -> list[SSAValue]:
    given = settings(op, "self target reduction")
    return _loss(op, builder, given, lambda emit, d: emit(AbsOp, d))


@expands_operator("aten::huber_loss", "aten::smooth_l1_loss")
def huber(op: Any, builder: Builder) -> list[SSAValue]:
    """``d² / 2`` below ``delta``, ``delta · (|d| - delta / 2)`` from there on; ``smooth_l1_loss`` divides by its
    ``beta``.
    """
    divided = op.callee.data == "aten::smooth_l1_loss"
    given = settings(op, "self target reduction beta" if divided else "self target reduction delta")
    limit = float(given.get("beta" if divided else "delta", 1.0))
    factor = 1.0 / limit if divided and limit else 1.0

    def compare(emit: Emitter, difference: SSAValue) -> SSAValue:
        size = emit(AbsOp, difference)
        square = emit.binary(MulOp, emit(MulOp, difference, difference), 0.5 * factor)
        line = emit.binary(MulOp, emit.binary(SubOp, size, 0.5 * limit), limit * factor if limit else 1.0)
        return emit(WhereOp, emit.binary(LtOp, size, limit), square, line)

    return _loss(op, builder, given, compare)


def _loss(op: Any, builder: Builder, given: dict[str, Any], compare: Compare) -> list[SSAValue]:
    left, right = (op.inputs[given[name].id] for name in ("self", "target"))
    dtype = types.dtype(op.outputs[0])
    if dtype not in types.FLOATS:
        raise NotLowered(f"{op.callee.data} of {dtype} has no rule")
    reduction = given.get("reduction", 1)

    def compared(emit: Emitter, left: SSAValue, right: SSAValue) -> Sequence[SSAValue]:
        wide = work_dtype(dtype)
        found = compare(emit, emit(SubOp, emit.cast(left, wide), emit.cast(right, wide)))
        if reduction:
            found = emit(MeanOp if reduction == 1 else SumOp, found, dims=IntsAttr(range(types.rank(found))))
        return [emit.cast(found, dtype)]

    return list(group(op, builder, op.callee.data.removeprefix("aten::"), [left, right], compared))
