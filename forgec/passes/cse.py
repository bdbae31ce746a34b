"""Common subexpression elimination."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Block, Operation
from xdsl.passes import ModulePass
from xdsl.traits import IsolatedFromAbove, is_side_effect_free

from forgec.ir.tile.kernel import LaunchOp
from forgec.passes.rewriting import functions, replace


@dataclass(frozen=True)
class Cse(ModulePass):
    """Compute equal things once: a pure op equal to an earlier one (same operands, attributes and types) takes its
    results.

    Before::

        %0 = forge.cos %x : (tensor<4xf32>) -> tensor<4xf32>
        %1 = forge.cos %x : (tensor<4xf32>) -> tensor<4xf32>
        %2 = forge.add %0, %1 : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>

    After::

        %0 = forge.cos %x : (tensor<4xf32>) -> tensor<4xf32>
        %2 = forge.add %0, %0 : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>

    Ops inside regions see those before the region, not the other way round; those inside kernels see one another alone.
    Ensures: no two equal pure ops in one block, but those whose results kernels change in their own memory.

    Order: where copies of one computation have come about: from capture, by ``sink-tables``, by ``hoist-tables``.
    """

    name = "cse"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for function in functions(op):
            for block in function.body.blocks:
                _run(block, {})


def _is_changed(op: Operation) -> bool:
    """True if a kernel changes a result in its own memory: one for two would have to be copied."""
    return any(
        isinstance(use.operation, LaunchOp) and use.operation.is_updated(use.index)
        for result in op.results
        for use in result.uses
    )


def _run(block: Block, outer: dict[Any, Operation]) -> None:
    known = dict(outer)
    for op in list(block.ops):
        for region in op.regions:
            for inner in region.blocks:
                _run(inner, {} if op.has_trait(IsolatedFromAbove) else known)
        if op.regions or not is_side_effect_free(op) or _is_changed(op):
            continue
        key = (
            type(op),
            tuple(id(operand) for operand in op.operands),
            frozenset(op.properties.items()),
            frozenset(op.attributes.items()),
            tuple(result.type for result in op.results),
        )
        first = known.setdefault(key, op)
        if first is not op:
            replace(op, first.results)
