"""Calls of outlined layers become their ops again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import CallOp, FuncOp, ReturnOp
from xdsl.ir import Block, Operation, SSAValue
from xdsl.passes import ModulePass

from forgec.passes.outlining import LAYER, at_call
from forgec.passes.rewriting import blocks, functions, replace


@dataclass(frozen=True)
class InlineLayers(ModulePass):
    """Replace each call of a function that ``outline-layers`` has made by the function's ops.

    Before::

          %0 = func.call @forward.layers(%x, %w0) : …
          %1 = func.call @forward.layers(%0, %w1) : …
          func.return %1 : …
        }
        func.func private @forward.layers(%0, %w0) -> … attributes {forge.layer} {
          %1 = forge.relu %0 : …
          …

    After::

        %0 = forge.relu %x : …
        …
        %1 = forge.relu %0 : …
        …
        func.return %1 : …

    Locations are those of before outlining: ``layers.*`` becomes the ``layers.3`` of the call. Values that all calls
    compute alike are computed in each: run ``cse`` after this. Ensures: no function has the attribute ``forge.layer``.

    Order: ``lower-to-plan`` runs it first: a plan is flat.
    """

    name = "inline-layers"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        layers = {f.sym_name.data: f for f in functions(op) if LAYER in f.attributes}
        if not layers:
            return
        for block in blocks(op):
            parent = block.parent_op()
            if not (isinstance(parent, FuncOp) and parent.sym_name.data in layers):
                _inline_calls(block, layers)
        for layer in layers.values():
            layer.detach()
        for layer in layers.values():
            layer.erase()


def _inline_calls(block: Block, layers: Mapping[str, FuncOp]) -> None:
    """Inline the calls in a block, and those in what was inlined."""
    current = block.first_op
    while current is not None:
        following = current.next_op
        if isinstance(current, CallOp) and current.callee.root_reference.data in layers:
            following = _inline(current, layers[current.callee.root_reference.data]) or following
        current = following


def _inline(op: CallOp, layer: FuncOp) -> Operation | None:
    """Put the ops of a function in the place of its call; returns the first of them."""
    block = op.parent_block()
    assert block is not None
    values: dict[SSAValue, SSAValue] = dict(zip(layer.body.block.args, op.arguments, strict=True))
    first: Operation | None = None
    for inner in layer.body.block.ops:
        if isinstance(inner, ReturnOp):
            replace(op, [values.get(value, value) for value in inner.arguments])
            break
        copied = inner.clone(values)
        for part in copied.walk():
            part.location = at_call(part.location, layer, op)
        block.insert_op_before(copied, op)
        first = first or copied
    return first
