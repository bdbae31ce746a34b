"""Normalisations over more than a tile holds: one kernel for the statistics of each row, one that applies them."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from xdsl.builder import Builder
from xdsl.dialects.builtin import UnitAttr
from xdsl.ir import SSAValue

from forgec.ir import types
from forgec.ir.attributes import IntsAttr, ScalarAttr
from forgec.ir.ops.aten import AtenOp
from forgec.ir.ops.binary import AddOp, DivOp, MulOp, SubOp
from forgec.ir.ops.decomposition import Emitter
from forgec.ir.ops.norm import GroupNormOp
from forgec.ir.ops.reduction import AmaxOp, LogSoftmaxOp, MeanOp, SoftmaxOp, SumOp, VectorNormOp
from forgec.ir.ops.unary import ExpOp, LogOp, RsqrtOp, SqrtOp
from forgec.passes.tiles.arithmetic import work_dtype
from forgec.passes.tiles.kernel_builder import NotLowered
from forgec.passes.tiles.operators import group, settings
from forgec.passes.tiles.rule import expands, expands_operator
from forgec.runtime.symbolic import Extent

KEEP = {"keepdim": UnitAttr()}


@expands(GroupNormOp)
def group_norm(op: Any, builder: Builder) -> list[SSAValue]:
    """Over the channels of a group and all places, in float32 at least."""
    shape, groups = types.shape(op.input), op.groups.data
    rows = (shape[0], groups, shape[1] // groups * prod(shape[2:], start=1))
    parameters = (shape[1], *[1] * (len(shape) - 2))
    return _normalised(op, builder, op.input, rows, parameters, op.weight, op.bias, float(op.eps.value))


def _normalised(
    op: Any,
    builder: Builder,
    value: SSAValue,
    rows: Sequence[Extent],
    parameters: Sequence[Extent],
    weight: SSAValue | None,
    bias: SSAValue | None,
    eps: float,
) -> list[SSAValue]:
    """A value whose elements, seen in the shape ``rows``, have mean 0 and variance 1 along the last dimension."""
    shape, dtype, wide = types.shape(value), types.dtype(value), work_dtype(types.dtype(value))
    dims = IntsAttr([len(rows) - 1])

    def statistics(emit: Emitter, x: SSAValue) -> Sequence[SSAValue]:
        x = emit.cast(emit.reshape(x, rows), wide)
        mean = emit(MeanOp, x, dims=dims, **KEEP)
        centred = emit(SubOp, x, mean)
        variance = emit(MeanOp, emit(MulOp, centred, centred), dims=dims, **KEEP)
        return [mean, emit(RsqrtOp, emit.binary(AddOp, variance, eps))]

    def apply(emit: Emitter, x: SSAValue, mean: SSAValue, scale: SSAValue, *rest: SSAValue) -> Sequence[SSAValue]:
        x = emit.cast(emit.reshape(x, rows), wide)
        x = emit.reshape(emit(MulOp, emit(SubOp, x, mean), scale), shape)
        for cls, parameter in zip([c for c, p in ((MulOp, weight), (AddOp, bias)) if p is not None], rest, strict=True):
            x = emit(cls, x, emit.cast(emit.reshape(parameter, parameters), wide))
        return [emit.cast(x, dtype)]

    mean, scale = group(op, builder, "statistics", [value], statistics)
    given = [each for each in (weight, bias) if each is not None]
    return list(group(op, builder, op.name.removeprefix("forge."), [value, mean, scale, *given], apply))


@expands(SoftmaxOp, LogSoftmaxOp)
def softmax(op: Any, builder: Builder) -> list[SSAValue]:
    """The greatest number and the sum of exponentials of each row, then the quotients."""
    dtype = types.dtype(op.result)
    wide = work_dtype(dtype)
    dims = IntsAttr([op.dim.data])

    def statistics(emit: Emitter, x: SSAValue) -> Sequence[SSAValue]:
        x = emit.cast(x, wide)
        greatest = emit(AmaxOp, x, dims=dims, **KEEP)
        return [greatest, emit(SumOp, emit(ExpOp, emit(SubOp, x, greatest)), dims=dims, **KEEP)]

    def apply(emit: Emitter, x: SSAValue, greatest: SSAValue, total: SSAValue) -> Sequence[SSAValue]:
        x = emit(SubOp, emit.cast(x, wide), greatest)
        if isinstance(op, SoftmaxOp):
            return [emit.cast(emit(DivOp, emit(ExpOp, x), total), dtype)]
        return [emit.cast(emit(SubOp, x, emit(LogOp, total)), dtype)]

    found = group(op, builder, "statistics", [op.input], statistics)
    return list(group(op, builder, op.name.removeprefix("forge."), [op.input, *found], apply))


@expands_operator("aten::batch_norm")
def batch_norm(op: AtenOp, builder: Builder) -> list[SSAValue]:
    """By the batch's own statistics: what is along one channel is a row."""
    given = settings(op, "input weight bias running_mean running_var training momentum eps cudnn_enabled")
    own = given.get("training") and given.get("running_mean") is None and given.get("running_var") is None
    value = op.inputs[0]
    if not own or types.shape(value)[0] != 1:
        raise NotLowered(f"{op.callee.data} has a rule for statistics of one sample")
    _, channels, *places = types.shape(value)
    rows = (channels, prod(places, start=1))
    weight, bias = (None if given[name] is None else op.inputs[given[name].id] for name in ("weight", "bias"))
    return _normalised(op, builder, value, rows, (channels, *[1] * len(places)), weight, bias, float(given["eps"]))


@expands_operator("aten::_weight_norm")
def weight_norm(op: AtenOp, builder: Builder) -> list[SSAValue]:
    """``v · g / |v|``: the length over all dimensions but one."""
    given = settings(op, "v g dim")
    v, g = (op.inputs[given[name].id] for name in ("v", "g"))
    dtype, rank = types.dtype(v), types.rank(v)
    wide, kept = work_dtype(dtype), given.get("dim", 0) % rank
    dims = IntsAttr([dim for dim in range(rank) if dim != kept])

    def statistics(emit: Emitter, v: SSAValue, g: SSAValue) -> Sequence[SSAValue]:
        v = emit.cast(v, wide)
        size = emit(SqrtOp, emit(SumOp, emit(MulOp, v, v), dims=dims, **KEEP))
        return [emit(DivOp, emit.cast(g, wide), size)]

    def apply(emit: Emitter, v: SSAValue, scale: SSAValue) -> Sequence[SSAValue]:
        return [emit.cast(emit(MulOp, emit.cast(v, wide), scale), dtype)]

    (scale,) = group(op, builder, "statistics", [v, g], statistics)
    return list(group(op, builder, "weight_norm", [v, scale], apply))


@expands_operator("aten::linalg_norm")
def linalg_norm(op: AtenOp, builder: Builder) -> list[SSAValue]:
    """Of vectors; along two dimensions it would be a norm of matrices."""
    given = settings(op, "self ord dim keepdim")
    value, order, dims = op.inputs[0], given.get("ord"), given.get("dim")
    if isinstance(dims, int):
        dims = (dims,)
    of_vectors = order is None or (isinstance(dims, tuple) and len(dims) == 1)
    if not of_vectors or isinstance(order, str) or given.get("dtype") is not None:
        raise NotLowered(f"{op.callee.data} of matrices has no rule")
    rank = types.rank(value)
    along = IntsAttr(sorted(dim % rank for dim in dims) if isinstance(dims, tuple) else range(rank))
    keep = KEEP if given.get("keepdim") else {}
    emit = Emitter(builder, op)
    return [emit(VectorNormOp, value, dims=along, ord=ScalarAttr.of(2.0 if order is None else float(order)), **keep)]
