"""Mixtures of experts: rows are brought in the order of their experts by counting, which takes two kernels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from xdsl.builder import Builder
from xdsl.dialects.builtin import IntAttr
from xdsl.ir import SSAValue

from forgec.ir import types
from forgec.ir.attributes import IntsAttr, ScalarAttr
from forgec.ir.ops.binary import AddOp, EqOp, FloorDivOp, GtOp, LeOp, MulOp, SubOp
from forgec.ir.ops.contraction import GroupedMatmulOp
from forgec.ir.ops.decomposition import Emitter
from forgec.ir.ops.experts import MoeOp, turned_last
from forgec.ir.ops.index import IndexOp, ScatterOp
from forgec.ir.ops.reduction import CumsumOp, SumOp
from forgec.ir.ops.unary import ClampOp
from forgec.passes.tiles.kernel_builder import NotLowered
from forgec.passes.tiles.operators import group
from forgec.passes.tiles.rule import expands

FIRST = IntsAttr([0])


@expands(MoeOp)
def mixture(op: Any, builder: Builder) -> list[SSAValue]:
    """The rows in the order of their experts, products of groups of rows, and for each row the weighted sum of what its
    experts made. A *pair* is a row and one of its k experts; there are as many as indices.
    """
    emit = Emitter(builder, op)
    *_, features = types.shape(op.input)
    pairs, chosen, made = types.numel(op.indices), op.chosen, types.shape(op.result)[-1]
    if types.shape(op.w_down)[0] == 0:
        raise NotLowered("there are no experts")
    order, place, ends = _order(op, builder)

    def taken(emit: Emitter, rows: SSAValue, order: SSAValue, *weights: SSAValue) -> Sequence[SSAValue]:
        row = order if chosen == 1 else emit.binary(FloorDivOp, order, chosen)
        found = emit(IndexOp, emit.reshape(rows, (pairs // chosen, features)), row, dims=FIRST)
        for each in weights:
            scale = emit(IndexOp, emit.reshape(each, (pairs,)), order, dims=FIRST)
            found = emit.cast(emit(MulOp, found, emit.reshape(scale, (pairs, 1))), types.dtype(op.input))
        return [found]

    scales = [] if op.scale_input is None else [op.weights]
    (rows,) = group(op, builder, "index", [op.input, order, *scales], taken)

    def product(x: SSAValue, weight: SSAValue) -> SSAValue:
        turned = weight if op.transposed is not None else emit.insert(turned_last(weight))
        return emit(GroupedMatmulOp, x, turned, ends)

    up = product(rows, op.w_up)
    gate = None if op.w_gate is None else product(rows, op.w_gate)
    hidden = product(_activation(op, builder, order, gate, up), op.w_down)

    def combined(
        emit: Emitter, outputs: SSAValue, place: SSAValue, weights: SSAValue, *bias: SSAValue
    ) -> Sequence[SSAValue]:
        found = emit(IndexOp, outputs, place, dims=FIRST)
        if bias:
            found = emit(AddOp, found, emit(IndexOp, bias[1], _experts(emit, bias[0], pairs), dims=FIRST))
        found = emit.reshape(found, (pairs // chosen, chosen, made))
        if op.scale_input is None:
            found = emit(MulOp, found, emit.reshape(weights, (pairs // chosen, chosen, 1)))
        found = emit(SumOp, found, dims=IntsAttr([1]))
        return [emit.reshape(found, types.shape(op.result))]

    bias = [] if op.bias_down is None else [op.indices, op.bias_down]
    return list(group(op, builder, "moe", [hidden, place, op.weights, *bias], combined))


def _experts(emit: Emitter, indices: SSAValue, pairs: Any) -> SSAValue:
    """The expert of each pair, [pairs]."""
    return emit.cast(emit.reshape(indices, (pairs,)), "i64")


def _order(op: MoeOp, builder: Builder) -> tuple[SSAValue, SSAValue, SSAValue]:
    """The pair that stands at each place in the order of experts, [pairs]; the place of each pair, [pairs]; and where
    the pairs of each expert end, [experts].
    """
    pairs, experts = types.numel(op.indices), types.shape(op.w_down)[0]

    def counted(emit: Emitter, indices: SSAValue) -> Sequence[SSAValue]:
        expert = emit.reshape(_experts(emit, indices, pairs), (pairs, 1))
        number = emit.reshape(emit.iota(experts), (1, experts))
        same = emit(EqOp, expert, number)
        before = emit.typed(CumsumOp, same, dtype="i32", shape=(pairs, experts), dim=IntAttr(0))
        ends = emit(SumOp, emit.cast(emit(LeOp, expert, number), "i64"), dims=FIRST)
        return [before, emit.cast(ends, "i32"), emit.full(0, "i64", (pairs,))]

    before, ends, unsorted = group(op, builder, "count", [op.indices], counted)

    def placed(
        emit: Emitter, indices: SSAValue, before: SSAValue, ends: SSAValue, unsorted: SSAValue
    ) -> Sequence[SSAValue]:
        expert = _experts(emit, indices, pairs)
        within = emit(IndexOp, before, emit.iota(pairs), expert, dims=IntsAttr([0, 1]))
        last = emit(ClampOp, emit.binary(SubOp, expert, 1), lower=ScalarAttr.of(0))
        earlier = emit(MulOp, emit(IndexOp, ends, last, dims=FIRST), emit.cast(emit.binary(GtOp, expert, 0), "i32"))
        place = emit.cast(emit.binary(SubOp, emit(AddOp, within, earlier), 1), "i64")
        return [emit(ScatterOp, unsorted, place, emit.iota(pairs), dim=IntAttr(0)), place]

    order, place = group(op, builder, "scatter", [op.indices, before, ends, unsorted], placed)
    return order, place, ends


def _activation(op: MoeOp, builder: Builder, order: SSAValue, gate: SSAValue | None, up: SSAValue) -> SSAValue:
    """What stands between the products, [pairs, hidden]."""
    products = [(up, op.bias_up)] if gate is None else [(up, op.bias_up), (gate, op.bias_gate)]
    biases = [bias for _, bias in products if bias is not None]

    def activated(emit: Emitter, *given: SSAValue) -> Sequence[SSAValue]:
        rest = iter(given[len(products) :])
        indices, order = (next(rest), next(rest)) if biases else (None, None)
        found: list[SSAValue] = []
        for value, (_, bias) in zip(given, products, strict=False):
            if bias is not None and indices is not None:
                expert = emit(IndexOp, _experts(emit, indices, types.numel(indices)), order, dims=FIRST)
                value = emit(AddOp, value, emit(IndexOp, next(rest), expert, dims=FIRST))
            found.append(value)
        return [op.emit_activation(emit, found[1] if len(found) > 1 else None, found[0])]

    given = [value for value, _ in products]
    return group(op, builder, "glu", [*given, *([op.indices, order] if biases else []), *biases], activated)[0]
