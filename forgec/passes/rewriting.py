"""Rewriting that keeps locations: what passes use instead of bare op surgery."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Block, Operation, SSAValue
from xdsl.traits import is_side_effect_free

from forgec.ir.locations import inherit
from forgec.ir.ops.scan import ScanOp


def functions(module: ModuleOp) -> Iterator[FuncOp]:
    """The module's functions."""
    for op in module.ops:
        if isinstance(op, FuncOp):
            yield op


def blocks(module: ModuleOp) -> Iterator[Block]:
    """Every block of every function, outer ones first; what a scan does in each step is one op."""
    for function in functions(module):
        pending = list(function.body.blocks)
        while pending:
            block = pending.pop(0)
            yield block
            for op in block.ops:
                if not isinstance(op, ScanOp):
                    for region in op.regions:
                        pending.extend(region.blocks)


def sign(function: FuncOp) -> None:
    """Bring the function's declared result types in line with what it returns."""
    last = function.body.block.last_op
    if isinstance(last, ReturnOp):
        inputs = list(function.body.block.arg_types)
        function.function_type = type(function.function_type).from_lists(inputs, [v.type for v in last.arguments])


def replace(op: Operation, values: Sequence[SSAValue], new_ops: Sequence[Operation] = ()) -> None:
    """Insert ``new_ops`` where ``op`` stands, with its location; its results become ``values``; ``op`` is erased."""
    block = op.parent_block()
    assert block is not None
    for new in new_ops:
        block.insert_op_before(inherit(new, op), op)
    for old, value in zip(op.results, values, strict=True):
        if value.name_hint is None:
            value.name_hint = old.name_hint
        old.replace_all_uses_with(value)
    block.erase_op(op)


def is_dead(op: Operation) -> bool:
    """True if nothing would notice the op's absence."""
    return (
        bool(op.results) and is_side_effect_free(op) and not any(result.first_use is not None for result in op.results)
    )


def erase_unused(value: SSAValue, *kinds: type[Operation]) -> None:
    """Erase what computed a value, as far as it is ops of ``kinds`` that nothing reads any more."""
    op = value.owner
    block = None if isinstance(op, Block) else op.parent_block()
    if block is None or not isinstance(op, kinds) or not is_dead(op):  # without a block it is gone already
        return
    operands = list(op.operands)
    block.erase_op(op)
    for operand in operands:
        erase_unused(operand, *kinds)
