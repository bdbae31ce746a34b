"""Dead code elimination."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Block
from xdsl.passes import ModulePass

from forgec.ir.ops.module import ParamOp, ParamRefOp
from forgec.passes.rewriting import blocks, is_dead


@dataclass(frozen=True)
class Dce(ModulePass):
    """Remove pure ops whose results nobody uses, and parameters that nobody reads.

    Before::

        %0 = forge.neg %x : (tensor<4xf32>) -> tensor<4xf32>
        func.return %x : tensor<4xf32>

    After::

        func.return %x : tensor<4xf32>

    Ensures: every remaining pure op has a use. Writes of state stay.

    Order: after ``classify-masks``, which leaves masks that nobody reads any more, and at the end.
    """

    name = "dce"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for block in reversed(list(blocks(op))):
            current = block.last_op
            while current is not None:
                previous = current.prev_op
                if is_dead(current):
                    block.erase_op(current)
                current = previous
        read = {name for block in blocks(op) for name in _read_in(block)}
        params = [child for child in op.ops if isinstance(child, ParamOp)]
        for param in reversed(params):  # those that are computed stand after what they are computed from
            if param.sym_name.data not in read:
                param.detach()
                param.erase()
            elif param.init is not None:
                read.update(_read_in(param.init.block))


def _read_in(block: Block) -> Iterator[str]:
    return (op.param.root_reference.data for op in block.ops if isinstance(op, ParamRefOp))
