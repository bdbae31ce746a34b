"""Rearrangements that strides can express become part of the kernels that read or write through them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, TensorType
from xdsl.ir import Block, Operation, SSAValue
from xdsl.passes import ModulePass

from forgec.ir.cost import launches_kernel
from forgec.ir.locations import fuse
from forgec.ir.ops.aten import AtenOp
from forgec.ir.ops.base import producer
from forgec.ir.ops.fused import FusedOp
from forgec.ir.ops.index import IndexOp, IndexSelectOp
from forgec.ir.ops.module import YieldOp
from forgec.ir.ops.shape import is_free
from forgec.passes.constant_places import places_of
from forgec.passes.fusion import is_repeatable
from forgec.passes.patterns import missed
from forgec.passes.rewriting import blocks, is_dead

SHOWN = 8
"""Places that a remark names."""


@dataclass(frozen=True)
class FuseIndexing(ModulePass):
    """Let kernels index what they read and write, instead of standing beside transposes, reshapes, slices and
    broadcasts of it.

    Before::

        %h = forge.reshape %x : (tensor<9x64xf32>) -> tensor<9x4x16xf32>
        %t = forge.transpose %h [1, 0, 2] : (tensor<9x4x16xf32>) -> tensor<4x9x16xf32, …>
        %s = forge.softmax %t dim 2 : (tensor<4x9x16xf32, …>) -> tensor<4x9x16xf32>

    After::

        %s = forge.fused "softmax" (%a = %x : tensor<9x64xf32>) {
          %0 = forge.reshape %a : (tensor<9x64xf32>) -> tensor<9x4x16xf32>
          %1 = forge.transpose %0 [1, 0, 2] : (tensor<9x4x16xf32>) -> tensor<4x9x16xf32, …>
          %2 = forge.softmax %1 dim 2 : (tensor<4x9x16xf32, …>) -> tensor<4x9x16xf32>
          forge.yield %2 : tensor<4x9x16xf32>
        } : tensor<4x9x16xf32>

    A rearrangement goes into every kernel that reads its result. Where something else does (a result of the function,
    an operator of ATen, a call), it goes into the kernel that computes its operand, if all that is used of that operand
    are such rearrangements, and otherwise stays. Runs after ``fuse-epilogue`` and ``fuse-elementwise``. Nothing is
    computed twice: what moves here moves no bytes. A constant index that is no slice stays a kernel, with a remark.

    Order: after the passes that make kernels, since it needs to know which there are.
    """

    name = "fuse-indexing"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for block in [block for block in blocks(op) if not isinstance(block.parent_op(), FusedOp)]:
            for current in list(block.ops):
                if isinstance(current, (IndexOp, IndexSelectOp)) and (found := places_of(current)) is not None:
                    missed(current, "this index is constant, but elements are gathered", _reason(*found))
                if _is_kernel(current):
                    _read_through(current)
            for current in reversed(list(block.ops)):
                if is_free(current) and is_dead(current):
                    block.erase_op(current)
            for current in list(block.ops):
                if _is_kernel(current):
                    _write_through(current)


def _reason(dim: int, places: list[int]) -> str:
    """Why constant places are no slice."""
    shown = ", ".join(map(str, places[:SHOWN])) + (", …" if len(places) > SHOWN else "")
    return f"places {shown} of dimension {dim} do not ascend evenly, as those of a slice do"


def _is_kernel(op: Operation) -> bool:
    """True for what is one kernel and may be the root of a ``forge.fused``."""
    if not launches_kernel(op) or isinstance(op, AtenOp) or getattr(op, "is_pinned", False):
        return False
    if not op.results or (op.regions and not isinstance(op, FusedOp)):
        return False
    return bool(op.operands) and all(isinstance(value.type, TensorType) for value in (*op.operands, *op.results))


def _views_of(value: SSAValue) -> tuple[SSAValue, list[Operation]]:
    """What a value is a rearrangement of, and the free rearrangements that lead to it, in order."""
    views: list[Operation] = []
    op = producer(value)
    while op is not None and is_free(op):
        views.append(op)
        value = op.operands[0]
        op = producer(value)
    return value, views[::-1]


def _read_through(op: Operation) -> None:
    """Put the rearrangements of a kernel's operands into it."""
    chains = {operand: _views_of(operand) for operand in op.operands}
    views = list(dict.fromkeys(view for _, chain in chains.values() for view in chain))
    if not views:
        return
    sources = list(dict.fromkeys(source for source, _ in chains.values()))
    made = [owner for source in sources if (owner := producer(source)) is not None and is_repeatable(owner)]
    inputs = [source for source in sources if producer(source) not in made]
    _replace(op, [*made, *views], inputs, list(op.results), [])


def _write_through(op: Operation) -> None:
    """Put the rearrangements of a kernel's results into it, as far as nothing else is done with what they rearrange."""
    outputs: list[SSAValue] = []
    views: list[Operation] = []
    pending = list(op.results)
    block = op.parent_block()
    while pending:
        value = pending.pop(0)
        users = list(dict.fromkeys(use.operation for use in value.uses))
        if users and all(is_free(user) and user.parent is block for user in users):
            views += users
            pending += [user.results[0] for user in users]
        else:
            outputs.append(value)
    if views:
        _replace(op, [], list(op.operands), outputs, views)


def _replace(
    op: Operation,
    before: Sequence[Operation],
    inputs: Sequence[SSAValue],
    outputs: Sequence[SSAValue],
    after: Sequence[Operation],
) -> None:
    """Replace a kernel, and the ops ``after`` it that go into it, by a ``forge.fused`` that reads ``inputs`` and yields
    what stands for ``outputs``; copies of the ops ``before`` go into it.
    """
    block = Block(arg_types=[value.type for value in inputs])
    mapping: dict[SSAValue, SSAValue] = dict(zip(inputs, block.args, strict=True))
    for value, argument in mapping.items():
        argument.name_hint = value.name_hint
    _copy(before, block, mapping)
    if isinstance(op, FusedOp):
        kind = op.kind.data
        within: dict[SSAValue, SSAValue] = {
            a: mapping[value] for a, value in zip(op.body.block.args, op.operands, strict=True)
        }
        _copy(list(op.inner), block, within)
        mapping.update((result, within[value]) for result, value in zip(op.results, op.yielded, strict=True))
    else:
        kind = op.name.removeprefix("forge.")
        _copy([op], block, mapping)
    _copy(after, block, mapping)
    block.add_op(YieldOp.create(operands=[mapping[value] for value in outputs]))
    fused = FusedOp.with_region(kind, block, inputs)
    fused.location = fuse([op.location, *(view.location for view in (*before, *after))])
    parent = op.parent_block()
    assert parent is not None
    parent.insert_op_after(fused, op)
    for old, new in zip(outputs, fused.results, strict=True):
        new.name_hint = old.name_hint
        old.replace_all_uses_with(new)
    for dead in (*reversed(after), op):
        parent.erase_op(dead)


def _copy(ops: Sequence[Operation], block: Block, mapping: dict[SSAValue, SSAValue]) -> None:
    """Add copies of ops to a block; ``mapping`` says what their operands have become, and learns of their results."""
    for op in ops:
        copied = op.clone(mapping)
        block.add_op(copied)
        for old, new in zip(op.results, copied.results, strict=True):
            new.name_hint = old.name_hint
