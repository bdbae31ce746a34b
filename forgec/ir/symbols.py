"""Which symbols ops speak of, and which they give values to."""

from __future__ import annotations

from xdsl.dialects.builtin import TensorType
from xdsl.ir import Operation, SSAValue

from forgec.ir import types
from forgec.ir.attributes import ArgsAttr, ExtentAttr, ExtentsAttr, StateType, SymType
from forgec.ir.ops.aten import AtenOp
from forgec.ir.ops.control import ItemOp
from forgec.runtime.plan_check import symbolic_in
from forgec.runtime.symbolic import free_symbols


def defined_symbols(op: Operation) -> tuple[str, ...]:
    """The symbols that an op gives values to."""
    if isinstance(op, AtenOp):
        return op.defined_symbols
    return (op.symbol,) if isinstance(op, ItemOp) and op.symbol is not None else ()


def mentioned_symbols(op: Operation) -> set[str]:
    """The symbols in an op's result types and attributes."""
    found = {name for result in op.results for name in symbols_of(result)}
    for attribute in op.properties.values():
        if isinstance(attribute, ArgsAttr):
            found |= free_symbols_in(attribute)
        elif isinstance(attribute, ExtentAttr):
            found |= free_symbols(attribute.data)
        elif isinstance(attribute, ExtentsAttr):
            found.update(name for extent in attribute.data for name in free_symbols(extent))
    return found


def free_symbols_in(arguments: ArgsAttr) -> set[str]:
    """The symbols in the arguments of a call."""
    return {name for extent in symbolic_in(arguments.arguments) for name in free_symbols(extent)}


def symbols_of(value: SSAValue) -> set[str]:
    """The symbols in a value's type."""
    if isinstance(value.type, SymType):
        return {value.type.data}
    kind = value.type.value if isinstance(value.type, StateType) else value.type
    if not isinstance(kind, TensorType):
        return set()
    return {name for extent in (*types.shape(kind), *types.strides(kind)) for name in free_symbols(extent)}
