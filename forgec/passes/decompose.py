"""Composite ops that a target lacks, written as smaller ones."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.builder import Builder
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation, OpResult, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint, Rewriter

from forgec.backends.base import backend_for
from forgec.ir.ops.base import ElementwiseOp, producer
from forgec.ir.ops.shape import CopyOp
from forgec.passes.rewriting import blocks, replace


@dataclass(frozen=True)
class Decompose(ModulePass):
    """Replace every composite op that the target's backend cannot lower by its decomposition, until none is left.

    Before::

        %0 = forge.glu %g, %u activation "silu" : (tensor<4x8xf32>, tensor<4x8xf32>) -> tensor<4x8xf32>

    After::

        %1 = forge.silu %g : (tensor<4x8xf32>) -> tensor<4x8xf32>
        %0 = forge.mul %1, %u : (tensor<4x8xf32>, tensor<4x8xf32>) -> tensor<4x8xf32>

    What the backend lowers whole stays whole. Ops that have neither a lowering nor a decomposition stay too; lowering
    reports them.

    Order: ``lower-to-plan`` runs it when kernels are inlined and masks are made.
    """

    name = "decompose"

    target: str = "cpu"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        backend = backend_for(self.target)
        for block in blocks(op):
            current = block.first_op
            while current is not None:
                following = current.next_op
                if hasattr(current, "decompose") and not backend.lowers(current):
                    following = _decompose(current) or following
                current = following


def _decompose(op: Operation) -> Operation | None:
    """Write the decomposition in the op's place; returns its first op, which may need decomposition itself."""
    before = op.prev_op
    block = op.parent_block()
    assert block is not None
    values = op.decompose(Builder(InsertPoint.before(op)))  # type: ignore[attr-defined]
    values = [_laid(value, result, op) for value, result in zip(values, op.results, strict=True)]
    first = block.first_op if before is None else before.next_op
    replace(op, values)
    return first if first is not op else None


def _laid(value: SSAValue, result: SSAValue, op: Operation) -> SSAValue:
    """What a decomposition computes, in the layout of the result that it stands for."""
    if value.type == result.type:
        return value
    source = producer(value)
    if isinstance(value, OpResult) and isinstance(source, ElementwiseOp) and value.first_use is None:
        return Rewriter.replace_value_with_new_type(value, result.type)
    copy = CopyOp.create(operands=[value], result_types=[result.type], location=op.location)
    block = op.parent_block()
    assert block is not None
    block.insert_op_before(copy, op)
    return copy.result
