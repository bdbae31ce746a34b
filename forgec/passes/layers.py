"""The functions that ``outline-layers`` has made, and their calls: what passes share that look into both."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from xdsl.dialects.builtin import ArrayAttr, DictionaryAttr, ModuleOp
from xdsl.dialects.func import CallOp, FuncOp
from xdsl.ir import BlockArgument, SSAValue

from forgec.ir.entry import ArgumentInfo
from forgec.passes.outlining import LAYER
from forgec.passes.rewriting import functions, sign


class Layers:
    """The layers of a module by name, and the calls of each."""

    def __init__(self, module: ModuleOp) -> None:
        self.functions = {f.sym_name.data: f for f in functions(module) if LAYER in f.attributes}
        self.calls: dict[str, list[CallOp]] = {name: [] for name in self.functions}
        self.caller: dict[CallOp, FuncOp] = {}
        if not self.functions:
            return
        for function in functions(module):
            for op in function.walk():
                if isinstance(op, CallOp) and op.callee.root_reference.data in self.calls:
                    self.calls[op.callee.root_reference.data].append(op)
                    self.caller[op] = function

    def calls_of(self, layer: FuncOp) -> list[CallOp]:
        """The calls of a layer."""
        return self.calls[layer.sym_name.data]

    def callees_first(self) -> Iterator[FuncOp]:
        """The layers, each after those that it calls."""
        done: set[str] = set()

        def visit(name: str) -> Iterator[FuncOp]:
            if name in done:
                return
            done.add(name)
            for callee, calls in self.calls.items():
                if any(self.caller[call].sym_name.data == name for call in calls):
                    yield from visit(callee)
            yield self.functions[name]

        for name in self.functions:
            yield from visit(name)

    def layer_of(self, value: SSAValue) -> FuncOp | None:
        """The layer that a value is an argument of."""
        if not isinstance(value, BlockArgument):
            return None
        parent = value.block.parent_op()
        known = isinstance(parent, FuncOp) and self.functions.get(parent.sym_name.data) is parent
        return parent if known and isinstance(parent, FuncOp) else None

    def add_argument(self, layer: FuncOp, values: Sequence[SSAValue], hint: str) -> SSAValue:
        """One more argument of a layer: ``values``, of one type, are what its calls pass, in order."""
        block = layer.body.block
        argument = block.insert_arg(values[0].type, len(block.args))
        argument.name_hint = hint
        if layer.arg_attrs is not None:
            info = ArgumentInfo(hint).attribute()
            layer.arg_attrs = ArrayAttr[DictionaryAttr]([*layer.arg_attrs.data, info])
        for call, value in zip(self.calls_of(layer), values, strict=True):
            call.operands = [*call.operands, value]
        sign(layer)
        return argument

    def drop_arguments(self, layer: FuncOp, indices: Sequence[int]) -> None:
        """Take away arguments that nothing in a layer uses."""
        if not indices:
            return
        block, dropped = layer.body.block, set(indices)
        kept = [index for index in range(len(block.args)) if index not in dropped]
        for index in sorted(dropped, reverse=True):
            block.erase_arg(block.args[index])
        if layer.arg_attrs is not None:
            infos = layer.arg_attrs.data
            layer.arg_attrs = ArrayAttr[DictionaryAttr]([infos[index] for index in kept])
        for call in self.calls_of(layer):
            operands = list(call.operands)
            call.operands = [operands[index] for index in kept]
        sign(layer)

    def drop_unused(self, layer: FuncOp) -> None:
        """Take away the arguments that nothing in a layer uses."""
        unused = [index for index, argument in enumerate(layer.body.block.args) if argument.first_use is None]
        self.drop_arguments(layer, unused)
