"""Merges equal ops of a kernel and removes those that nothing uses."""

from __future__ import annotations

from typing import Any

from xdsl.ir import Block, Operation
from xdsl.traits import is_side_effect_free

from forgec.ir.tile.kernel import KernelOp
from forgec.ir.tile.memory import GatherOp, LoadOp


def tidy(kernel: KernelOp) -> None:
    """Merge pure ops (and reads of what the kernel does not write) that are equal, in a block and those within it, and
    remove dead ones.
    """
    written = {kernel.parameters[number] for number in kernel.writes.data}
    _merge(kernel.body.block, {}, written)
    _prune(kernel.body.block)


def _is_pure(op: Operation, written: set[Any]) -> bool:
    if isinstance(op, (LoadOp, GatherOp)):
        return _base(op.block) not in written
    return is_side_effect_free(op) and not op.regions


def _base(block: Any) -> Any:
    while isinstance(block.owner, Operation) and block.owner.name == "tile.view":
        block = block.owner.operands[0]
    return block


def _merge(block: Block, known: dict[Any, Operation], written: set[Any]) -> None:
    for op in list(block.ops):
        if op.results and _is_pure(op, written):
            key = (type(op), op.operands, tuple(sorted(op.properties.items())), tuple(op.result_types))
            earlier = known.get(key)
            if earlier is not None:
                for old, new in zip(op.results, earlier.results, strict=True):
                    old.replace_all_uses_with(new)
                block.erase_op(op)
                continue
            known[key] = op
        for region in op.regions:
            for inner in region.blocks:
                _merge(inner, dict(known), written)


def _prune(block: Block) -> None:
    for op in reversed(list(block.ops)):
        for region in op.regions:
            for inner in region.blocks:
                _prune(inner)
        dead = op.results and all(result.first_use is None for result in op.results)
        if dead and (isinstance(op, (LoadOp, GatherOp)) or is_side_effect_free(op)):
            block.erase_op(op)
