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
from forgec.ir.ops.base import producer
from forgec.ir.ops.index import IndexOp, IndexSelectOp
from forgec.ir.ops.module import ConstantOp
from forgec.ir.ops.shape import BroadcastOp, ConcatOp, CopyOp, ReshapeOp
from forgec.passes.attention_frames import Builder
from forgec.passes.patterns import through
from forgec.passes.rewriting import blocks, replace


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
    ``repeat_interleave``), by joining a head with itself, or by an index ``[0, 0, 1, 1]``. Saves the copy of the
    repeated heads (of a whole cache, in a decoding step).

    Order: after ``fuse-attention``, and after ``canonicalize`` has joined the views around repeated heads.
    """

    name = "group-query-heads"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for block in blocks(op):
            for current in list(block.ops):
                if isinstance(current, AttentionOp):
                    _group(current)


def _group(op: AttentionOp) -> None:
    build = Builder()
    key, value = (_unrepeated(operand, build) for operand in (op.key, op.value))
    if key is None or value is None or types.shape(key)[-3] != types.shape(value)[-3]:
        build.discard()
        return
    for new, repeated in zip(build.ops, (op.key, op.value), strict=False):
        owner = producer(repeated)
        new.location = op.location if owner is None else fuse([owner.location, op.location])
    operands = [op.query, key, value, *op.operands[3:]]
    grouped = AttentionOp.create(
        operands=operands, properties=op.properties, result_types=op.result_types, location=op.location
    )
    replace(op, grouped.results, [*build.ops, grouped])


def _unrepeated(value: SSAValue, build: Builder) -> SSAValue | None:
    """For ``[…, h * r, s, d]``, where each of h heads stands r > 1 times in a row: ``[…, h, s, d]``."""
    op = producer(through(value, CopyOp))
    if isinstance(op, (IndexOp, IndexSelectOp)):
        return _unchosen(op, build)
    repeat = producer(through(op.input, CopyOp)) if isinstance(op, ReshapeOp) else None
    if not isinstance(repeat, (BroadcastOp, ConcatOp)) or len(set(repeat.operands)) != 1:
        return None
    once = repeat.operands[0]
    source, wide, target = types.shape(once), types.shape(repeat.result), types.shape(value)
    if len(source) != len(wide) or len(wide) < 4 or len(target) != len(wide) - 1 or source[-3] != 1:
        return None
    alone = source[:-3] + source[-2:] == wide[:-3] + wide[-2:]
    merges = (*wide[:-4], wide[-4] * wide[-3], *wide[-2:]) == target
    if not alone or not merges:
        return None
    return build.reshape(once, (*source[:-3], *source[-2:]))


def _unchosen(op: IndexOp | IndexSelectOp, build: Builder) -> SSAValue | None:
    """The heads that ``[0, 0, 1, 1, …]`` repeats."""
    dim = types.rank(op.result) - 3
    index, dims = (op.index, (op.dim.data,)) if isinstance(op, IndexSelectOp) else (op.indices[0], op.dims.data)
    constant = producer(index)
    if dims != (dim,) or not isinstance(constant, ConstantOp) or types.rank(index) != 1 or dim < 0:
        return None
    places = list(constant.value.get_values())
    heads = len(set(places))
    if not heads or len(places) == heads or places != [n // (len(places) // heads) for n in range(len(places))]:
        return None
    return build.slice(op.input, dim, heads)
