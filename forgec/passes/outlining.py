"""Moving ops into functions of their own: what outlining passes share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeGuard, TypeVar

from xdsl.dialects.builtin import ArrayAttr, LocationAttr, ModuleOp, StringAttr
from xdsl.dialects.func import CallOp, FuncOp, ReturnOp
from xdsl.ir import Block, Operation, Region, SSAValue

from forgec.ir.attributes import StateType
from forgec.ir.cost import call_counts, is_public, ops_of
from forgec.ir.entry import ArgumentInfo
from forgec.ir.locations import location_of, renamed
from forgec.ir.ops.base import producer
from forgec.ir.ops.control import ExtentOp
from forgec.ir.ops.module import ConstantOp, ParamRefOp
from forgec.ir.symbols import defined_symbols, mentioned_symbols, symbols_of

REPEATED = (ParamRefOp, ConstantOp, ExtentOp)
"""Ops that cost nothing: instead of passing their results to a function, the function has them itself."""


T = TypeVar("T", bound=Operation)

LAYER = "forge.layer"
"""Attribute of functions that ``outline-layers`` has made, and ``inline-layers`` takes away."""
AT_CALL = "forge.at_call"
"""Attribute of a call of such a function: its ops come from the call's location, not from the function's own."""


def free_values(ops: Iterable[Operation]) -> list[SSAValue]:
    """Values that ops (and the regions inside) use and do not define, in the order of their first use."""
    defined: set[SSAValue] = set()
    used: dict[SSAValue, None] = {}
    for op in ops:
        for inner in op.walk():
            used.update(dict.fromkeys(inner.operands))
            defined.update(inner.results)
            defined.update(argument for region in inner.regions for block in region.blocks for argument in block.args)
    return [value for value in used if value not in defined]


def outline(
    name: str, arguments: Sequence[SSAValue], ops: Sequence[Operation], results: Sequence[SSAValue], place: LocationAttr
) -> FuncOp:
    """Move ops into a private function. ``arguments`` are the values that it takes, among them all free ones that are
    not results of repeated ops, which are copied.

    The uses of ``arguments`` inside the ops, and ``results`` where they are arguments or repeated ones, become the
    function's own. The caller inserts the function and replaces the uses of the moved ops' results elsewhere.
    """
    block = Block(arg_types=[value.type for value in arguments])
    inside: dict[SSAValue, SSAValue] = dict(zip(arguments, block.args, strict=True))
    for value, argument in inside.items():
        argument.name_hint = value.name_hint
    moved = set(ops)
    free = [*free_values(ops), *(value for value in results if producer(value) not in moved)]
    for value in dict.fromkeys(free):
        if value not in inside:
            source = producer(value)
            assert isinstance(source, REPEATED), "every other free value is an argument"
            copied = source.clone()
            copied.results[0].name_hint = value.name_hint
            block.add_op(copied)
            inside[value] = copied.results[0]
    for op in ops:
        op.detach()
        block.add_op(op)
        for inner in op.walk():
            for index, operand in enumerate(inner.operands):
                if operand in inside:
                    inner.operands[index] = inside[operand]
    returned = [inside.get(value, value) for value in results]
    block.add_op(ReturnOp(*returned))
    signature = ([value.type for value in arguments], [value.type for value in returned])
    infos = [
        ArgumentInfo(value.name_hint or f"arg{index}", inout=isinstance(value.type, StateType))
        for index, value in enumerate(arguments)
    ]
    function = FuncOp(
        name,
        signature,
        Region(block),
        visibility=StringAttr("private"),
        arg_attrs=ArrayAttr([info.attribute() for info in infos]),
    )
    function.location = place
    return function


def call(function: FuncOp, arguments: Sequence[SSAValue], place: LocationAttr) -> CallOp:
    """A call of a function."""
    op = CallOp(function.sym_name.data, list(arguments), list(function.function_type.outputs.data))
    op.location = place
    return op


def at_call(location: LocationAttr, layer: FuncOp, called: CallOp) -> LocationAttr:
    """Where an op of an outlined layer comes from in one call: ``layers.*`` is the ``layers.3`` of the call."""
    if AT_CALL in called.attributes:
        return called.location
    module, ours = location_of(layer), location_of(called)
    return location if module is None or ours is None else renamed(location, module.module, ours.module)


def occurrences(module: ModuleOp, wanted: Callable[[Operation], TypeGuard[T]]) -> Iterator[tuple[T, LocationAttr]]:
    """The ops of some kind as often as the program meets them, each time with the location that it has there: those of
    an outlined layer once for each call.
    """
    counts = call_counts(module)
    layers = {function.sym_name.data: function for function in counts}
    inside: dict[FuncOp, list[tuple[T, LocationAttr]]] = {}
    for function in reversed(counts):
        found = inside[function] = []
        for op in ops_of(function):
            if wanted(op):
                found.append((op, op.location))
            elif isinstance(op, CallOp):
                layer = layers.get(op.callee.string_value())
                if layer is not None:  # None is a declaration
                    found += [(inner, at_call(place, layer, op)) for inner, place in inside.get(layer, ())]
    for function, ops in inside.items():
        if is_public(function):
            yield from ops


def is_repeated(value: SSAValue) -> bool:
    """True for results of repeated ops."""
    return isinstance(producer(value), REPEATED)


def required_symbols(function: FuncOp, functions: Mapping[str, FuncOp]) -> set[str]:
    """The symbols that a function, and those that it calls, need and do not define themselves."""
    needed = {name for argument in function.body.block.args for name in symbols_of(argument)}
    _require(function.body.block.ops, functions, needed, set())
    return needed


def needed_symbols(op: Operation, functions: Mapping[str, FuncOp]) -> set[str]:
    """The symbols that must have values before an op runs."""
    needed: set[str] = set()
    _require([op], functions, needed, set())
    return needed


def _require(ops: Iterable[Operation], functions: Mapping[str, FuncOp], needed: set[str], told: set[str]) -> None:
    for op in ops:
        if isinstance(op, CallOp):
            needed |= required_symbols(functions[op.callee.root_reference.data], functions) - told
            told |= mentioned_symbols(op) - needed  # its results tell these
        elif op.regions:
            for region in op.regions:
                for block in region.blocks:
                    _require(block.ops, functions, needed, set(told))
            told |= mentioned_symbols(op) - needed
        else:
            told |= set(defined_symbols(op))
            taken = {name for operand in op.operands for name in symbols_of(operand)}
            needed |= (mentioned_symbols(op) | taken) - told
