"""The meaning of blocks that hold nothing but forge ops: the regions of ``forge.fused`` and ``forge.param``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from xdsl.ir import Block, SSAValue

from forgec.ir.ops.base import ForgeOp
from forgec.ir.ops.module import YieldOp

if TYPE_CHECKING:
    from forgec.ir.evaluator import Evaluator


def evaluate_block(block: Block, ev: Evaluator, inputs: Sequence[Any] = ()) -> list[Any]:
    """What a block yields for these values of its arguments."""
    values: dict[SSAValue, Any] = dict(zip(block.args, inputs, strict=True))
    for op in block.ops:
        operands = [values[operand] for operand in op.operands]
        if isinstance(op, YieldOp):
            return operands
        assert isinstance(op, ForgeOp), "the verifier has seen to it"
        found = op.reference(ev, *operands)
        values.update(zip(op.results, found if isinstance(found, tuple) else (found,), strict=True))
    raise AssertionError("the verifier has seen to it that the block ends with forge.yield")
