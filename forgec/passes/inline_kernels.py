"""The ops of kernels, one by one: for backends that call an operator for each."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.builder import Builder
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Block
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint

from forgec.ir.ops.fused import FusedOp
from forgec.ir.ops.shape import ViewOp, is_free
from forgec.passes.rewriting import blocks, replace


@dataclass(frozen=True)
class InlineKernels(ModulePass):
    """Replace every ``forge.fused`` by the ops of its region.

    Before::

        %1 = forge.fused "linear" (%a = %x : tensor<9x8xf32>, %b = %w : tensor<4x8xf32>) {
          %0 = forge.linear %a, %b : (tensor<9x8xf32>, tensor<4x8xf32>) -> tensor<9x4xf32>
          %2 = forge.silu %0 : (tensor<9x4xf32>) -> tensor<9x4xf32>
          forge.yield %2 : tensor<9x4xf32>
        } : tensor<9x4xf32>

    After::

        %0 = forge.linear %x, %w : (tensor<9x8xf32>, tensor<4x8xf32>) -> tensor<9x4xf32>
        %1 = forge.silu %0 : (tensor<9x4xf32>) -> tensor<9x4xf32>

    Ops keep their own locations. A rearrangement that several kernels make of one value is there once.

    Order: ``lower-to-plan`` runs it first, for backends without kernels of their own.
    """

    name = "inline-kernels"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for block in [block for block in blocks(op) if not isinstance(block.parent_op(), FusedOp)]:
            inlined = False
            for current in list(block.ops):
                if isinstance(current, FusedOp):
                    replace(current, current.decompose(Builder(InsertPoint.before(current))))
                    inlined = True
            if inlined:
                _unite_views(block)


def _unite_views(block: Block) -> None:
    """Replace each free rearrangement by an equal one of the same value that stands before it."""
    known: dict[tuple[object, ...], ViewOp] = {}
    for op in list(block.ops):
        if isinstance(op, ViewOp) and is_free(op):
            key = (type(op), op.input, op.result.type, *sorted(op.properties.items(), key=lambda item: item[0]))
            earlier = known.setdefault(key, op)
            if earlier is not op:
                op.result.replace_all_uses_with(earlier.result)
                block.erase_op(op)
