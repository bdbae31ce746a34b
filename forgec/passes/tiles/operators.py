"""What expansions and rules of several operators share: groups that become one kernel, arguments of ATen operators."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from xdsl.builder import Builder
from xdsl.ir import Block, SSAValue
from xdsl.rewriter import InsertPoint

from forgec.ir.ops.aten import AtenOp
from forgec.ir.ops.decomposition import Emitter
from forgec.ir.ops.fused import FusedOp
from forgec.ir.ops.module import YieldOp


def group(
    op: Any, builder: Builder, kind: str, inputs: Sequence[SSAValue], make: Callable[..., Sequence[SSAValue]]
) -> Sequence[SSAValue]:
    """One kernel of the ops that ``make`` emits, given an emitter and the inputs."""
    block = Block(arg_types=[value.type for value in inputs])
    emit = Emitter(Builder(InsertPoint.at_end(block)), op)
    made = make(emit, *block.args)
    block.add_op(YieldOp.create(operands=list(made)))
    found = FusedOp.with_region(kind, block, list(inputs))
    found.location = op.location
    builder.insert(found)
    return found.results


def settings(op: AtenOp, names: str) -> dict[str, Any]:
    """The arguments by name; ``names`` are those of the positional ones, in order."""
    positional, keyword = op.arguments
    return {**dict(zip(names.split(), positional, strict=False)), **dict(keyword)}
