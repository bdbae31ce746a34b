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
from forgec.ir.ops.shape import BroadcastOp, ReshapeOp
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

    Applies when key and value are repeated alike, each head ``r`` times in a row. Saves the copy of the repeated
    heads (of a whole cache, in a decoding step).
    """

    name = "group-query-heads"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for block in blocks(op):
            for current in list(block.ops):
                if isinstance(current, AttentionOp):
                    _group(current)


def _group(op: AttentionOp) -> None:
    key, value = _unrepeated(op.key), _unrepeated(op.value)
    if key is None or value is None or types.shape(key)[-4] != types.shape(value)[-4]:
        return
    reshapes = []
    for source, repeated in ((key, op.key), (value, op.value)):
        shape, strides = types.shape(source), types.strides(source)
        kind = types.tensor(types.dtype(source), (*shape[:-3], *shape[-2:]), (*strides[:-3], *strides[-2:]))
        owner = producer(repeated)
        location = op.location if owner is None else fuse([owner.location, op.location])
        reshapes.append(ReshapeOp.create(operands=[source], result_types=[kind], location=location))
    operands = [op.query, reshapes[0].results[0], reshapes[1].results[0], *op.operands[3:]]
    grouped = AttentionOp.create(
        operands=operands, properties=op.properties, result_types=op.result_types, location=op.location
    )
    replace(op, grouped.results, [*reshapes, grouped])


def _unrepeated(value: SSAValue) -> SSAValue | None:
    """For ``[…, h * r, s, d]``, made of ``[…, h, 1, s, d]`` by repeating each head r times: that operand."""
    merged = producer(value)
    repeat = producer(merged.input) if isinstance(merged, ReshapeOp) else None
    if not isinstance(repeat, BroadcastOp) or types.rank(repeat.input) != types.rank(repeat.result):
        return None
    source, wide, target = types.shape(repeat.input), types.shape(repeat.result), types.shape(value)
    if (
        len(wide) < 4
        or len(target) != len(wide) - 1
        or source[-3] != 1
        or source[:-3] + source[-2:] != wide[:-3] + wide[-2:]
    ):
        return None
    merges = (*wide[:-4], wide[-4] * wide[-3], *wide[-2:]) == target
    return repeat.input if merges else None
