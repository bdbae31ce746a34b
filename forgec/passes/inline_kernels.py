"""The ops of kernels, one by one: for backends that call an operator for each."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.builder import Builder
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint

from forgec.ir.ops.fused import FusedOp
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

    Ops keep their own locations.

    Order: ``lower-to-plan`` runs it first, for backends without kernels of their own.
    """

    name = "inline-kernels"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for block in list(blocks(op)):
            for current in list(block.ops):
                if isinstance(current, FusedOp):
                    replace(current, current.decompose(Builder(InsertPoint.before(current))))
