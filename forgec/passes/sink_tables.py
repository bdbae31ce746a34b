"""Outlined layers compute the masks and tables that they take, so that passes see how."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import ArrayAttr, DictionaryAttr, ModuleOp
from xdsl.dialects.func import CallOp, FuncOp
from xdsl.ir import Operation, SSAValue
from xdsl.passes import ModulePass

from forgec.ir.entry import ArgumentInfo
from forgec.passes.outlining import LAYER
from forgec.passes.rewriting import functions, sign
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
    integers and conditions among the arguments, numbers, and vectors among the parameters is passed on as it is. After
    ``inline-layers``, ``cse`` makes one of the copies that are left. What nobody uses any more stays for ``dce``.

    Order: right after ``outline-layers``, which passes masks and tables as arguments: so recognising passes see in a
    layer how they were made.
    """

    name = "sink-tables"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        codes = Codes()
        layers = {f.sym_name.data: f for f in functions(op) if LAYER in f.attributes}
        calls: dict[str, list[CallOp]] = {name: [] for name in layers}
        for function in functions(op):
            for found in function.walk():
                if isinstance(found, CallOp) and found.callee.root_reference.data in calls:
                    calls[found.callee.root_reference.data].append(found)
        pending = [function for function in functions(op) if LAYER not in function.attributes]
        while pending:
            function = pending.pop()
            block = function.body.block
            called = [name for name, uses in calls.items() if uses and all(u.parent_block() is block for u in uses)]
            if called:
                tables = Tables(block, codes)
                order = {inner: position for position, inner in enumerate(block.ops)}
                for name in called:
                    _sink(layers[name], calls[name], tables, order)
                    pending.append(layers[name])


def _sink(layer: FuncOp, calls: Sequence[CallOp], tables: Tables, order: dict[Operation, int]) -> None:
    """Move the tables among the arguments of a function into it."""
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
    added = list(dict.fromkeys(argument for _, arguments in definitions for argument in arguments))
    for argument in added:
        inside[argument] = block.insert_arg(argument.type, len(block.args))
        inside[argument].name_hint = argument.name_hint
    first = block.first_op
    assert first is not None, "a function ends with its return"
    for op in sorted({op for ops, _ in definitions for op in ops}, key=order.__getitem__):
        block.insert_op_before(op.clone(inside), first)
    infos = [] if layer.arg_attrs is None else list(layer.arg_attrs.data)
    infos += [ArgumentInfo(a.name_hint or "table").attribute() for a in added] if infos else []
    kept = [index for index in range(len(block.args)) if index not in set(sunk)]
    for index, value in zip(sunk, passed, strict=True):
        block.args[index].replace_all_uses_with(inside[value])
    for index in reversed(sunk):
        block.erase_arg(block.args[index])
    if infos:
        layer.arg_attrs = ArrayAttr[DictionaryAttr]([infos[index] for index in kept])
    sign(layer)
    for call in calls:
        operands = [*call.operands, *added]
        call.operands = [operands[index] for index in kept]
