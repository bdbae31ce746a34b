"""Attention of single queries to long keys: columns are split into parts, which programs sum side by side.

A single query has few programs, one for each head of keys; a part more for each ``PART`` columns or so. What the parts
found is combined by a second kernel (Dao et al., "Flash-Decoding for long-context inference", 2023). How many parts
there are depends on extents alone: results are the same for any number of threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from xdsl.builder import Builder
from xdsl.dialects.builtin import AnyTensorTypeConstr, DictionaryAttr, IntAttr, UnitAttr
from xdsl.ir import SSAValue
from xdsl.irdl import irdl_op_definition, prop_def, result_def, var_operand_def

from forgec.ir import types
from forgec.ir.attributes import IntsAttr, ScalarAttr
from forgec.ir.ops.attention import AttentionOp
from forgec.ir.ops.base import ForgeOp, TensorSpec
from forgec.ir.ops.binary import AddOp, DivOp, EqOp, MaximumOp, MulOp, SubOp
from forgec.ir.ops.decomposition import Emitter
from forgec.ir.ops.reduction import AmaxOp, SumOp
from forgec.ir.ops.select import MaskedFillOp, WhereOp
from forgec.ir.ops.unary import ExpOp
from forgec.passes.tiles.axes import Place
from forgec.passes.tiles.kernel_builder import KernelBuilder, NotLowered, Tile
from forgec.passes.tiles.operators import group
from forgec.passes.tiles.rule import computes, expands
from forgec.passes.tiles.rules.attention import Attention

PART = 128
"""The least columns of a part."""
PARTS = 16
"""Parts that there are at most, if they need not be larger for it."""
PROGRAMS = 16
"""So many heads of keys and values, of all of a batch, are programs enough."""
_INFINITY = float("inf")


@irdl_op_definition
class AttentionPartsOp(ForgeOp):
    """For each ``part`` columns of an attention with these inputs and ``modifiers`` (the properties of
    ``forge.attention``), without sinks: the sum of values times ``exp(score - greatest)``, the greatest score, and the
    sum of those exponentials.

    Results in ``softmax_dtype``, all [*B, H, parts, S, Dv], the two last ones alike for each feature.
    """

    name = "forge.attention_parts"

    inputs = var_operand_def(AnyTensorTypeConstr)
    total = result_def(AnyTensorTypeConstr)
    greatest = result_def(AnyTensorTypeConstr)
    weight = result_def(AnyTensorTypeConstr)
    modifiers = prop_def(DictionaryAttr)
    part = prop_def(IntAttr)

    def attention(self) -> AttentionOp:
        """The attention that this is a part of, to be erased."""
        query, value = self.inputs[0], self.inputs[2]
        kind = types.tensor(types.dtype(query), (*types.shape(query)[:-1], types.shape(value)[-1]))
        return AttentionOp.create(operands=self.inputs, properties=self.modifiers.data, result_types=[kind])

    def infer(self) -> Sequence[TensorSpec]:
        op = self.attention()
        ((_, (*outer, rows, features)),) = op.infer()
        columns, dtype = types.shape(op.key)[-2], op.softmax_dtype.data
        op.erase()
        return [(dtype, (*outer, (columns + self.part.data - 1) // self.part.data, rows, features))] * 3

    def reference(self, ev: Any, *inputs: Any) -> Any:
        torch, part = ev.torch, self.part.data
        op = self.attention()
        scores, kept = op.scores(ev, *inputs)
        op.erase()
        value = inputs[2].to(scores.dtype).repeat_interleave(inputs[0].shape[-3] // inputs[2].shape[-3], -3)
        found: list[Any] = []
        for first in range(0, scores.shape[-1], part):
            own = kept[..., first : first + part]
            masked = scores[..., first : first + part].masked_fill(~own, -_INFINITY)
            greatest = masked.amax(-1, keepdim=True)
            weights = torch.exp(masked - greatest.masked_fill(greatest == -_INFINITY, 0.0))
            products = weights[..., None] * value[..., None, first : first + part, :]
            total = products.masked_fill(~own[..., None], 0.0).sum(-2)
            found.append((total, greatest.expand_as(total), weights.sum(-1, keepdim=True).expand_as(total)))
        return tuple(torch.stack(each, -3) for each in zip(*found, strict=True))


@computes(AttentionPartsOp)
def attention_part(k: KernelBuilder, op: Any, result: int, place: Place) -> Tile:
    *outer, part, row, feature = place

    def make() -> list[Tile]:
        attention = op.attention()
        try:
            return Attention(k, attention, (*outer, row, feature), part, op.part.data).part()
        finally:
            attention.erase()

    return k.remembered(("parts", op, place), k.depth, make)[result]


def part_extent(op: AttentionOp) -> int | None:
    """How many columns a part shall have; None for an attention that is one kernel."""
    *batch, heads, columns, _ = types.shape(op.key)
    rows = types.shape(op.query)[-2]
    counts = (*batch, *types.shape(op.query)[:-3], heads)
    if rows != 1 or not isinstance(columns, int) or any(not isinstance(count, int) for count in counts):
        return None
    programs = heads * max(prod(batch), prod(types.shape(op.query)[:-3]))
    if columns < 2 * PART or programs >= PROGRAMS or (op.may_have_empty_rows and op.empty_value is None):
        return None
    return max(PART, -(-columns // (PARTS * PART)) * PART)


@expands(AttentionOp)
def split(op: Any, builder: Builder) -> list[SSAValue]:
    """The parts, and what they are together."""
    extent = part_extent(op)
    if extent is None:
        raise NotLowered("this attention has no parts")
    properties = {"modifiers": DictionaryAttr(dict(op.properties)), "part": IntAttr(extent)}
    parts = AttentionPartsOp.make(op.operands, properties, location=op.location)
    builder.insert(parts)
    dtype = types.dtype(op.result)
    outer = types.shape(op.result)[:-2]
    shows = op.may_have_empty_rows and op.shows_query
    given = [*parts.results, *([op.sinks] if op.sinks is not None else []), *([op.query] if shows else [])]

    def combined(
        emit: Emitter, total: SSAValue, greatest: SSAValue, weight: SSAValue, *others: SSAValue
    ) -> Sequence[SSAValue]:
        rest = list(others)
        over = {"dims": IntsAttr([types.rank(total) - 3])}
        highest = emit(AmaxOp, greatest, **over)
        sink = None
        if op.sinks is not None:
            sink = emit.cast(rest.pop(0), op.softmax_dtype.data)
            sink = emit.reshape(sink, (outer[-1], 1, 1))
            highest = emit(MaximumOp, highest, sink)
        nothing = emit.binary(EqOp, highest, -_INFINITY)
        highest = emit(MaskedFillOp, highest, nothing, value=ScalarAttr.of(0.0))
        shape = types.shape(highest)
        by_part = emit.reshape(highest, (*shape[:-2], 1, *shape[-2:]))
        decay = emit(ExpOp, emit(SubOp, greatest, by_part))
        total = emit(SumOp, emit(MulOp, total, decay), **over)
        weight = emit(SumOp, emit(MulOp, weight, decay), **over)
        if sink is not None:
            weight = emit(AddOp, weight, emit(ExpOp, emit(SubOp, sink, highest)))
        found = emit(DivOp, total, weight)
        if op.may_have_empty_rows:
            empty = emit.binary(EqOp, weight, 0.0)
            if shows:
                wide = emit.cast(rest.pop(0), op.softmax_dtype.data)
                features = IntsAttr([types.rank(wide) - 1])
                zero = emit(SumOp, emit.binary(MulOp, wide, 0.0), dims=features, keepdim=UnitAttr())
                found = emit(WhereOp, empty, zero, found)
            else:
                found = emit(MaskedFillOp, found, empty, value=ScalarAttr.of(op.empty_value))
        return [emit.cast(found, dtype)]

    return list(group(op, builder, "attention", given, combined))
