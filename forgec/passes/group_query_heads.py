"""Grouped queries: repeated key and value heads disappear into the head mapping of attention."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import SSAValue
from xdsl.passes import ModulePass

from forgec.ir import types
from forgec.ir.locations import fuse
from forgec.ir.ops.attention import AttentionOp
from forgec.ir.ops.base import ElementwiseOp, producer
from forgec.ir.ops.composite import RopeOp
from forgec.ir.ops.index import IndexOp, IndexSelectOp
from forgec.ir.ops.shape import BroadcastOp, ConcatOp, CopyOp, ReshapeOp, TransposeOp
from forgec.passes.attention_frames import Builder
from forgec.passes.constant_places import places_of
from forgec.passes.patterns import applied, through
from forgec.passes.rewriting import blocks, replace
from forgec.runtime.symbolic import Extent


@dataclass(frozen=True)
class GroupQueryHeads(ModulePass):
    """Let ``forge.attention`` read key and value heads where they are, when each was repeated for a group of query
    heads.

    Before::

        %0 = forge.broadcast %k : (tensor<1x2x1x9x8xf32>) -> tensor<1x2x4x9x8xf32, …>
        %1 = forge.reshape %0 : (…) -> tensor<1x8x9x8xf32>
        %3 = forge.attention %q, %1, %2 … : (tensor<1x8x9x8xf32>, tensor<1x8x9x8xf32>, …) -> …

    After::

        %0 = forge.reshape %k : (tensor<1x2x1x9x8xf32>) -> tensor<1x2x9x8xf32>
        %3 = forge.attention %q, %0, %1 … : (tensor<1x8x9x8xf32>, tensor<1x2x9x8xf32>, …) -> …

    Applies when key and value are repeated alike, each head ``r`` times in a row: by a broadcast (``repeat_kv``,
    ``repeat_interleave``), by joining a head with itself, or by an index ``[0, 0, 1, 1]``. Heads may be turned, rotated
    and computed with since, alike for those of a group. Saves the copy of the repeated heads (of a whole cache, in a
    decoding step).

    Order: after ``fuse-attention``, and after ``canonicalize`` has joined the views around repeated heads; once more
    after ``fuse-rope``, for keys that are rotated when they have been repeated.
    """

    name = "group-query-heads"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for block in blocks(op):
            for current in list(block.ops):
                if isinstance(current, AttentionOp):
                    _group(current)


def _group(op: AttentionOp) -> None:
    build = Builder()
    found = []
    for operand in (op.key, op.value):
        start, owner = len(build.ops), producer(operand)
        found.append(_unrepeated(operand, types.rank(operand) - 3, build) if types.rank(operand) > 2 else None)
        for new in build.ops[start:]:
            new.location = op.location if owner is None else fuse([owner.location, op.location])
    key, value = found
    if key is None or value is None or types.shape(key)[-3] != types.shape(value)[-3]:
        build.discard()
        return
    operands = [op.query, key, value, *op.operands[3:]]
    grouped = AttentionOp.create(
        operands=operands, properties=op.properties, result_types=op.result_types, location=op.location
    )
    replace(op, grouped.results, [*build.ops, grouped])
    heads, queries = types.shape(key)[-3], types.shape(op.query)[-3]
    applied(grouped, f"the {heads} heads of keys and values are not repeated for the {queries} of queries any more")


def _unrepeated(value: SSAValue, dim: int, build: Builder) -> SSAValue | None:
    """For a value in whose dimension ``dim`` of extent h * r each of h heads stands r > 1 times in a row: that with
    each head once.
    """
    op = producer(through(value, CopyOp))
    if isinstance(op, (IndexOp, IndexSelectOp)):
        return _unchosen(op, dim, build)
    if isinstance(op, TransposeOp):
        order = list(op.permutation.data)
        once = _unrepeated(op.input, order[dim], build)
        return None if once is None else build.transpose(once, order)
    if (isinstance(op, RopeOp) and dim < types.rank(value) - 1) or isinstance(op, ElementwiseOp):
        return _computed_once(op, dim, build)
    repeat = producer(through(op.input, CopyOp)) if isinstance(op, ReshapeOp) else None
    if not isinstance(repeat, (BroadcastOp, ConcatOp)) or len(set(repeat.operands)) != 1:
        return None
    once = repeat.operands[0]
    source, wide, target = types.shape(once), types.shape(repeat.results[0]), types.shape(value)
    if len(source) != len(wide) or len(target) != len(wide) - 1 or source[dim + 1] != 1 or wide[dim + 1] == 1:
        return None
    alone = source[: dim + 1] + source[dim + 2 :] == wide[: dim + 1] + wide[dim + 2 :]
    merges = (*wide[:dim], wide[dim] * wide[dim + 1], *wide[dim + 2 :]) == target
    if not alone or not merges:
        return None
    return build.reshape(once, (*source[: dim + 1], *source[dim + 2 :]))


def _computed_once(op: RopeOp | ElementwiseOp, dim: int, build: Builder) -> SSAValue | None:
    """What is computed of repeated heads alone, and for all of a group alike, computed of each head once."""
    shape = list(types.shape(op.results[0]))
    if len(list(op.results[0].uses)) != 1 or len(op.results) != 1:
        return None
    operands: list[SSAValue] = []
    heads: set[Extent] = set()
    for operand in op.operands:
        own = dim - len(shape) + types.rank(operand)
        if own >= 0 and types.shape(operand)[own] != 1:
            once = _unrepeated(operand, own, build)
            if once is None:
                return None
            heads.add(types.shape(once)[own])
            operand = once
        operands.append(operand)
    if len(heads) != 1:
        return None
    shape[dim] = heads.pop()
    kind = types.tensor(types.dtype(op.results[0]), shape)
    return build.insert(type(op).create(operands=operands, properties=op.properties, result_types=[kind]))


def _unchosen(op: IndexOp | IndexSelectOp, dim: int, build: Builder) -> SSAValue | None:
    """The heads that ``[0, 0, 1, 1, …]`` repeats."""
    found = places_of(op)
    if found is None or found[0] != dim or types.rank(op.result) != types.rank(op.input):
        return None
    places = found[1]
    heads = len(set(places))
    if not heads or len(places) == heads or places != [n // (len(places) // heads) for n in range(len(places))]:
        return None
    return build.slice(op.input, dim, heads)
