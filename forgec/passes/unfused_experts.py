"""Mixtures of experts that ``fuse-moe`` does not read, for remarks: one for each top-k that chooses experts."""

from __future__ import annotations

from collections.abc import Iterator

from xdsl.ir import Block, BlockArgument, Operation, SSAValue

from forgec.ir import types
from forgec.ir.ops.base import producer
from forgec.ir.ops.binary import EqOp
from forgec.ir.ops.contraction import LinearOp, MatmulOp
from forgec.ir.ops.experts import MoeOp
from forgec.ir.ops.index import IndexOp, IndexSelectOp
from forgec.ir.ops.module import ParamRefOp
from forgec.ir.ops.order import TopkOp
from forgec.ir.ops.shape import BroadcastOp, CopyOp, ReshapeOp, SliceOp, TransposeOp
from forgec.ir.ops.unary import CastOp
from forgec.passes.patterns import through, with_number

MOST = 512
"""Ops that are looked at from a top-k on, at most."""
MOVED = (CastOp, CopyOp, ReshapeOp, TransposeOp, BroadcastOp, SliceOp)


def unfused(block: Block) -> Iterator[tuple[TopkOp, str]]:
    """Each top-k of a block that chooses experts of which no ``forge.moe`` was made, and how they are computed."""
    for topk in [op for op in block.ops if isinstance(op, TopkOp) and types.rank(op.input)]:
        reached = _reached(topk.indices)
        if not any(isinstance(op, MoeOp) for op in reached):
            how = _how(block, types.shape(topk.input)[topk.dim.data], reached)
            if how is not None:
                yield topk, how


def _how(block: Block, experts: object, reached: set[Operation]) -> str | None:
    """How the experts are computed; None if nothing says that there are any."""
    for op in reached:
        if isinstance(op, (IndexOp, IndexSelectOp)) and _is_of_experts(op.input, experts):
            return "the weights of the chosen experts are copied for each row"
    products = [op for op in block.ops if isinstance(op, (MatmulOp, LinearOp))]
    compared = [with_number(op) for op in reached if isinstance(op, EqOp)]
    numbers = {found[1] for found in compared if found is not None}
    if len(numbers) > 1 and len(products) >= len(numbers):
        return "each expert is computed on its own, on all rows"
    matrices = [op for op in products if isinstance(op, MatmulOp)]
    if any(_is_of_experts(value, experts) for op in matrices for value in (op.lhs, op.rhs)):
        return "every expert is computed on all rows"
    return None


def _reached(value: SSAValue) -> set[Operation]:
    """The ops of a block that compute something of a value, directly or not."""
    found: set[Operation] = set()
    pending = [value]
    while pending and len(found) < MOST:
        for use in pending.pop().uses:
            if use.operation not in found:
                found.add(use.operation)
                pending += use.operation.results
    return found


def _is_of_experts(value: SSAValue, experts: object) -> bool:
    """True for a weight with a matrix for each expert."""
    source = through(value, *MOVED)
    weight = isinstance(source, BlockArgument) or isinstance(producer(source), ParamRefOp)
    return weight and types.rank(source) == 3 and types.shape(source)[0] == experts
