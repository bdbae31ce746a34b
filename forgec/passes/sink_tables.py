"""Outlined layers compute the masks and tables that they take, so that passes see how."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp
from xdsl.ir import Operation, SSAValue
from xdsl.passes import ModulePass

from forgec.passes.layers import Layers
from forgec.passes.outlining import LAYER
from forgec.passes.rewriting import functions
from forgec.passes.structure import Codes, Tables


@dataclass(frozen=True)
class SinkTables(ModulePass):
    """Copy into a layer's function what computes its masks and tables of positions, where all calls pass the same.

    Before::

          %0 = forge.iota from 0 step 1 : tensor<4xi64>
          %1 = forge.le %0, %length : …
          %2 = func.call @forward.layers(%x, %1) : …
          %3 = func.call @forward.layers(%2, %1) : …

    After::

          %2 = func.call @forward.layers(%x, %length) : …
          %3 = func.call @forward.layers(%2, %length) : …
          …
        }
        func.func private @forward.layers(%0, %length) -> … attributes {forge.layer} {
          %1 = forge.iota from 0 step 1 : tensor<4xi64>
          %2 = forge.le %1, %length : …
          …

    So a pass that looks at how a mask was made does so in a layer as in the whole model. What depends on more than
    integers and conditions among the arguments, numbers, and vectors among the parameters is passed on as it is. What
    is left of them later leaves the layers again with ``hoist-tables``. What nobody uses any more stays for ``dce``.

    Order: right after ``outline-layers``, which passes masks and tables as arguments: so recognising passes see in a
    layer how they were made.
    """

    name = "sink-tables"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        codes, layers = Codes(), Layers(op)
        pending = [function for function in functions(op) if LAYER not in function.attributes]
        while pending:
            function = pending.pop()
            block = function.body.block
            called = [
                name for name, uses in layers.calls.items() if uses and all(u.parent_block() is block for u in uses)
            ]
            if called:
                tables = Tables(block, codes)
                order = {inner: position for position, inner in enumerate(block.ops)}
                for name in called:
                    _sink(layers, layers.functions[name], tables, order)
                    pending.append(layers.functions[name])


def _sink(layers: Layers, layer: FuncOp, tables: Tables, order: dict[Operation, int]) -> None:
    """Move the tables among the arguments of a function into it."""
    calls = layers.calls_of(layer)
    sunk: list[int] = []
    for index in range(len(layer.body.block.args)):
        numbers = {tables.number_of(call.operands[index]) for call in calls}
        if len(numbers) == 1 and None not in numbers:
            sunk.append(index)
    if not sunk:
        return
    passed = [calls[0].operands[index] for index in sunk]
    definitions = [tables.definition(value) for value in passed]
    block = layer.body.block
    inside: dict[SSAValue, SSAValue] = {}
    for value in dict.fromkeys(argument for _, arguments in definitions for argument in arguments):
        inside[value] = layers.add_argument(layer, [value] * len(calls), value.name_hint or "table")
    first = block.first_op
    assert first is not None, "a function ends with its return"
    for op in sorted({op for ops, _ in definitions for op in ops}, key=order.__getitem__):
        block.insert_op_before(op.clone(inside), first)
    for index, value in zip(sunk, passed, strict=True):
        block.args[index].replace_all_uses_with(inside[value])
    layers.drop_arguments(layer, sunk)
