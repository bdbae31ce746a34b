"""Attention of single queries to long keys: columns are split into parts, which programs sum side by side.

A single query has few programs, one for each head of keys; with parts each has one for each part. What the parts
found is combined by a second kernel (Dao et al., "Flash-Decoding for long-context inference", 2023). How many parts
there are depends on extents alone: results are the same for any number of threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from xdsl.builder import Builder
from xdsl.dialects import math
from xdsl.dialects.builtin import AnyTensorTypeConstr, DictionaryAttr, IntAttr, StringAttr
from xdsl.ir import Attribute, SSAValue
from xdsl.irdl import (
    AttrSizedOperandSegments,
    irdl_op_definition,
    operand_def,
    opt_operand_def,
    opt_prop_def,
    prop_def,
    result_def,
    var_operand_def,
)

from forgec.ir import types
from forgec.ir.attributes import ScalarAttr
from forgec.ir.ops.attention import AttentionOp
from forgec.ir.ops.base import ForgeOp, TensorSpec
from forgec.ir.ops.format import KeywordFormatOp
from forgec.passes.tiles.arithmetic import binary as apply
from forgec.passes.tiles.arithmetic import cast, compare, made, number, select
from forgec.passes.tiles.axes import Axis, Place, broadcast_place
from forgec.passes.tiles.kernel_builder import KernelBuilder, NotLowered, Tile
from forgec.passes.tiles.rule import computes, expands
from forgec.passes.tiles.rules.attention import Attention
from forgec.passes.tiles.rules.reduction import reduced, want_whole

PART = 128
"""The least columns of a part."""
PARTS = 16
"""Parts that there are at most. They have the same extent."""
PROGRAMS = 8
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
        return [(dtype, (*outer, columns // self.part.data, rows, features))] * 3

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


@irdl_op_definition
class AttentionJoinOp(KeywordFormatOp, ForgeOp):
    """The attention that parts make together, of ``dtype`` [*B, H, S, Dv], with one more column for each head of score
    ``sinks[h]`` and no value. A row with nothing to attend gives ``empty``, or NaN where its ``query`` is not finite.
    """

    name = "forge.attention_join"

    total = operand_def(AnyTensorTypeConstr)
    greatest = operand_def(AnyTensorTypeConstr)
    weight = operand_def(AnyTensorTypeConstr)
    sinks = opt_operand_def(AnyTensorTypeConstr)
    query = opt_operand_def(AnyTensorTypeConstr)
    result = result_def(AnyTensorTypeConstr)
    dtype = prop_def(StringAttr)
    empty = opt_prop_def(ScalarAttr)

    irdl_options = (AttrSizedOperandSegments(as_property=True),)

    def infer(self) -> Sequence[TensorSpec]:
        *outer, _, rows, features = types.shape(self.total)
        return [(self.dtype.data, (*outer, rows, features))]

    def reference(self, ev: Any, *inputs: Any) -> Any:
        torch = ev.torch
        total, greatest, weight, sinks, query = self.unpack(inputs)
        highest = greatest.amax(-3)
        if sinks is not None:
            highest = torch.maximum(highest, sinks[:, None, None].to(highest.dtype))
        highest = highest.masked_fill(highest == -_INFINITY, 0.0)
        decay = torch.exp(greatest - highest.unsqueeze(-3))
        total, weight = (total * decay).sum(-3), (weight * decay).sum(-3)
        if sinks is not None:
            weight = weight + torch.exp(sinks[:, None, None].to(highest.dtype) - highest)
        found = total / weight
        if self.empty is not None:
            nothing = torch.full_like(found, self.empty.value)
            if query is not None:
                nothing = nothing.masked_fill(~query.isfinite().all(-1, keepdim=True), float("nan"))
            found = torch.where(weight == 0, nothing, found)
        return found.to(ev.dtype(self.dtype.data))


@computes(AttentionJoinOp)
def attention_join(k: KernelBuilder, op: Any, result: int, place: Place) -> Tile:
    *outer, head, row, feature = place
    work = types.dtype(op.total)
    want_whole(k, feature, types.shape(op.total)[-1])
    k.batch |= {axis.name for at in (*outer, head, row) for axis in k.axes.of(at)}
    axes = k.tiled(feature)
    parts = k.new_axis(types.shape(op.total)[-3], "grid")  # one part for each iteration

    def decay(score: Tile, highest: Tile) -> Tile:
        infinite = compare(k, "eq", highest, number(k, -_INFINITY, work))
        return made(k, math.ExpOp, apply(k, "sub", score, select(k, infinite, number(k, 0.0, work), highest)))

    def body(carried: Sequence[Tile]) -> Sequence[Tile]:
        total, greatest, weight = carried
        at = (*outer, head, parts.symbol, row)
        own = k.value(op.greatest, (*at, 0))
        highest = apply(k, "max", greatest, own)
        before, now = decay(greatest, highest), decay(own, highest)
        more = apply(k, "mul", *k.aligned(k.value(op.total, (*at, feature)), now))
        total = apply(k, "add", *k.aligned(apply(k, "mul", *k.aligned(total, before)), more))
        weight = apply(k, "add", apply(k, "mul", weight, before), apply(k, "mul", k.value(op.weight, (*at, 0)), now))
        return [total, highest, weight]

    least, zero = number(k, -_INFINITY, work), number(k, 0.0, work)
    start = [k.spread(zero, axes), least, zero]
    if op.sinks is not None:
        start[1] = cast(k, k.value(op.sinks, (head,)), work)
        start[2] = decay(start[1], start[1])
    total, _, weight = k.loop(parts, start, body)
    found = apply(k, "div", *k.aligned(total, weight))
    if op.empty is not None:
        nothing = number(k, float(op.empty.value), work)
        if op.query is not None:
            nothing = apply(k, "add", nothing, _zero_of(k, op.query, (*outer, head, row), work))
        found = select(k, compare(k, "eq", weight, zero), nothing, found)
    return cast(k, found, op.dtype.data)


def _zero_of(k: KernelBuilder, query: SSAValue, place: Place, work: str) -> Tile:
    """0, or NaN where a row of the query is not finite."""

    def element(axis: Axis) -> Tile:
        at = broadcast_place((*place, axis.symbol), types.shape(query))
        return apply(k, "mul", cast(k, k.value(query, at), work), number(k, 0.0, work))

    return reduced(k, "add", types.shape(query)[-1], place, element)


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
    columns = types.shape(op.key)[-2]
    batch = types.broadcast(types.shape(op.query)[:-3], types.shape(op.key)[:-3])
    programs = prod([*batch, types.shape(op.key)[-3]], start=1)
    if types.shape(op.query)[-2] != 1 or not isinstance(columns, int) or not isinstance(programs, int):
        return None
    if programs >= PROGRAMS or (op.may_have_empty_rows and op.empty_value is None):
        return None
    least = max(PART, -(-columns // PARTS))
    return next((extent for extent in range(least, columns // 2 + 1) if columns % extent == 0), None)


@expands(AttentionOp)
def split(op: Any, builder: Builder) -> list[SSAValue]:
    """The parts, and what they are together."""
    extent = part_extent(op)
    if extent is None:
        raise NotLowered("this attention has no parts")
    properties = {"modifiers": DictionaryAttr(dict(op.properties)), "part": IntAttr(extent)}
    parts = AttentionPartsOp.make(op.operands, properties, location=op.location)
    builder.insert(parts)
    shows = op.may_have_empty_rows and op.empty_value is not None and op.shows_query
    joined: dict[str, Attribute] = {"dtype": StringAttr(types.dtype(op.result))}
    if op.may_have_empty_rows and op.empty_value is not None:
        joined["empty"] = ScalarAttr.of(op.empty_value)
    operands = [*parts.results, op.sinks, op.query if shows else None]
    return [builder.insert(AttentionJoinOp.make(operands, joined, location=op.location)).result]
