"""A part of a function as a function of its own: some ops of one block, with what they take as arguments."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from xdsl.dialects.builtin import ArrayAttr, DictionaryAttr, ModuleOp, StringAttr, SymbolRefAttr, TensorType, UnitAttr
from xdsl.dialects.func import CallOp, FuncOp, ReturnOp
from xdsl.ir import Attribute, Block, Operation, Region, SSAValue
from xdsl.traits import SymbolTable

from forgec.ir.attributes import StateType
from forgec.ir.ops.module import ConstraintOp, ParamOp, ParamRefOp, StateReadOp, SymbolOp
from forgec.ir.tile.kernel import LaunchOp

NAME = "forward"
"""The function that a slice becomes."""


@dataclass(frozen=True)
class Slice:
    """Ops of one block, in order, and those of their results that are looked at."""

    ops: tuple[Operation, ...]
    outputs: tuple[SSAValue, ...]

    @property
    def inputs(self) -> list[SSAValue]:
        """Values that the ops use, or that are looked at, and that none of the ops yields."""
        made = {result for op in self.ops for result in op.results}
        return [value for value in dict.fromkeys((*_used(self.ops), *self.outputs)) if value not in made]

    def needed(self) -> Slice:
        """The ops that the outputs depend on, and writes of state."""
        wanted = set(self.outputs)
        kept: list[Operation] = []
        for op in reversed(self.ops):
            if any(result in wanted or isinstance(result.type, StateType) for result in op.results) or not op.results:
                kept.append(op)
                wanted.update(_used([op]))
        return Slice(tuple(reversed(kept)), self.outputs)

    def closed(self) -> Slice | None:
        """With the ops that yield what no argument can be (conditions, bounds of loops); None if no op does."""
        ops = set(self.ops)
        pending = [value for value in self.inputs if not _is_argument(value)]
        while pending:
            value = pending.pop()
            owner = value.owner
            if not isinstance(owner, Operation) or not self.ops or owner.parent is not self.ops[0].parent:
                return None
            if owner not in ops:
                ops.add(owner)
                pending += [operand for operand in _used([owner]) if not _is_argument(operand)]
        if len(ops) == len(self.ops):
            return self
        block = self.ops[0].parent
        assert block is not None, "an op of a function stands in a block"
        return Slice(tuple(op for op in block.ops if op in ops), self.outputs)

    def module(self, source: ModuleOp) -> ModuleOp:
        """A module with the slice as ``@forward``, and all of ``source`` that it needs. Every state among the arguments
        is the caller's, and its last version is returned after the outputs.
        """
        inputs = self.inputs
        block = Block(arg_types=[value.type for value in inputs])
        mapping: dict[SSAValue, SSAValue] = dict(zip(inputs, block.args, strict=True))
        for name, argument in zip(argument_names(self), block.args, strict=True):
            argument.name_hint = name
        for op in self.ops:
            copied = op.clone(mapping)
            for old, new in zip(op.results, copied.results, strict=True):
                new.name_hint = old.name_hint
            block.add_op(copied)
        returned = [mapping[value] for value in self.returned]
        block.add_op(ReturnOp(*returned))
        kinds = ([value.type for value in inputs], [value.type for value in returned])
        described = [_described(name, value) for name, value in zip(argument_names(self), inputs, strict=True)]
        function = FuncOp(NAME, kinds, Region(block), arg_attrs=ArrayAttr(described))
        return ModuleOp([*(op.clone() for op in _declarations(source, self.ops)), function])

    @property
    def returned(self) -> list[SSAValue]:
        """What the function returns: the outputs that are tensors, then the last version of each state."""
        tensors = [value for value in self.outputs if isinstance(value.type, TensorType)]
        return tensors + [self._last_version(value) for value in self.inputs if isinstance(value.type, StateType)]

    def _last_version(self, state: SSAValue) -> SSAValue:
        ops = set(self.ops)
        while True:
            uses = [use for use in state.uses if not isinstance(use.operation, StateReadOp) and use.operation in ops]
            if not uses:
                return state
            op = uses[0].operation
            versions = [operand for operand in op.operands if isinstance(operand.type, StateType)]
            results = [result for result in op.results if isinstance(result.type, StateType)]
            state = results[versions.index(state)]


def whole(block: Block) -> Slice:
    """All ops of a block but its terminator."""
    *ops, last = block.ops
    outputs = [value for value in last.operands if value.owner is not block and isinstance(value.owner, Operation)]
    own = [value for value in dict.fromkeys(outputs) if value.owner.parent is block]  # type: ignore[union-attr]
    return Slice(tuple(ops), tuple(own))


def prefix(block: Block, count: int) -> Slice:
    """The first ops of a block; the outputs are what the rest of the block uses of their results."""
    ops = list(block.ops)
    made = {result for op in ops[:count] for result in op.results}
    outputs = [value for value in dict.fromkeys(_used(ops[count:])) if value in made]
    return Slice(tuple(ops[:count]), tuple(outputs))


def argument_names(part: Slice) -> list[str]:
    """A name for each input, all different."""
    names: list[str] = []
    for position, value in enumerate(part.inputs):
        hint = value.name_hint
        names.append(hint if hint and hint not in names and not hint.startswith("arg") else f"arg{position}")
    return names


def inner_blocks(part: Slice, source: ModuleOp) -> Iterable[Block]:
    """Blocks that the ops of a slice execute: bodies of functions that they call, branches, loops, kernels."""
    for op in part.ops:
        if isinstance(op, CallOp):
            callee = SymbolTable.lookup_symbol(source, op.callee)
            if isinstance(callee, FuncOp) and not callee.is_declaration:
                yield callee.body.block
        for region in op.regions:
            yield from region.blocks


def _used(ops: Sequence[Operation]) -> list[SSAValue]:
    """What ops use of values that are defined outside of their regions, in order."""
    found: dict[SSAValue, None] = {}
    for op in ops:
        found.update(dict.fromkeys(op.operands))
        if op.regions:
            nested = [inner for inner in op.walk() if inner is not op]
            own: set[SSAValue] = {result for inner in nested for result in inner.results}
            own.update(a for inner in (op, *nested) for r in inner.regions for b in r.blocks for a in b.args)
            found.update((value, None) for inner in nested for value in inner.operands if value not in own)
    return list(found)


def _is_argument(value: SSAValue) -> bool:
    return isinstance(value.type, (TensorType, StateType))


def _described(name: str, value: SSAValue) -> DictionaryAttr:
    fields: dict[str, Attribute] = {"forge.name": StringAttr(name)}
    if isinstance(value.type, StateType):
        fields["forge.inout"] = UnitAttr()
    return DictionaryAttr(fields)


def _declarations(source: ModuleOp, ops: Sequence[Operation]) -> list[Operation]:
    """Symbols and their relations, and parameters, functions and kernels that ops refer to, in the module's order."""
    wanted: set[Operation] = set()
    pending = [inner for op in ops for inner in op.walk()]
    while pending:
        op = pending.pop()
        reference = _referred(op)
        target = None if reference is None else SymbolTable.lookup_symbol(source, reference)
        if target is not None and target not in wanted:
            wanted.add(target)
            pending += [inner for inner in target.walk() if inner is not target]
    return [op for op in source.ops if isinstance(op, (SymbolOp, ConstraintOp)) or op in wanted]


def _referred(op: Operation) -> SymbolRefAttr | None:
    match op:
        case ParamRefOp():
            return op.param
        case CallOp():
            return op.callee
        case LaunchOp():
            return op.kernel
    return None


def parameters(module: ModuleOp) -> list[ParamOp]:
    """The parameters of a module whose values come from outside."""
    return [op for op in module.ops if isinstance(op, ParamOp) and op.init is None]


def data_of(part: Slice, values: Any) -> list[Any]:
    """The recorded values of a slice's inputs."""
    return [values[value] for value in part.inputs]
