"""forge → plan for what calls other functions: launches of the operators in :mod:`forgec.runtime.control`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from xdsl.dialects import arith, scf
from xdsl.dialects.builtin import AnyTensorType, IntegerAttr, i1
from xdsl.dialects.func import CallOp, FuncOp
from xdsl.ir import Attribute, Block, Operation, SSAValue

from forgec.backends.plan_builder import Place, PlanBuilder, Storage, dense
from forgec.diagnostics import error
from forgec.ir import plan, types
from forgec.ir.attributes import StateType, SymType
from forgec.ir.locations import location_of
from forgec.ir.ops.base import producer
from forgec.ir.ops.control import AssertOp, ExtentOp, FromIndexOp, ItemOp
from forgec.runtime import control
from forgec.runtime.plan import EntryRef
from forgec.runtime.symbolic import Extent

LOWERED = (AssertOp, ExtentOp, FromIndexOp, ItemOp, CallOp, scf.IfOp, scf.WhileOp, scf.ForOp, arith.ConstantOp)
"""What ``lower`` takes."""


def lower(op: Operation, b: PlanBuilder, functions: Mapping[str, FuncOp]) -> None:
    """Append the launches for an op. Regions must be calls, as ``outline-control-flow`` leaves them."""
    match op:
        case ItemOp() if op.result.type == i1:
            b.alias(op.result, op.input)  # whoever takes a condition takes the tensor
        case ItemOp():
            b.launch(control.ITEM, [op.input], defines=[op.symbol])
            b.alias(op.result, op.input)
        case AssertOp():
            b.launch(control.ASSERT, [op.condition, op.message.data])
        case ExtentOp() if isinstance(op.result.type, type(types.tensor("i64", ()))):
            place = b.destination(op.result)
            b.launch("aten::fill_.Scalar", [place, op.value.data], writes=[place])
        case CallOp():
            callee = functions[op.callee.root_reference.data]
            _call(op, callee, b)
        case scf.IfOp():
            then, otherwise = _body(op.true_region.block), _body(op.false_region.block)
            args = [op.cond, *_entry(then, b, functions), *_entry(otherwise, b, functions)]
            _define(op.results, b.launch(control.IF, args, results=_kinds(op.results)), b)
        case scf.WhileOp():
            _while(op, b, functions)
        case scf.ForOp():
            _for(op, b, functions)


def _body(block: Block) -> CallOp:
    """The call that is all of a region (but for a counter or a condition)."""
    calls = [op for op in block.ops if isinstance(op, CallOp)]
    if len(calls) != 1:
        raise error("FORGE-B002", "a region is not one call", location=location_of(calls[0]) if calls else None)
    return calls[0]


def _entry(op: CallOp, b: PlanBuilder, functions: Mapping[str, FuncOp]) -> tuple[EntryRef, list[SSAValue]]:
    callee = functions[op.callee.root_reference.data]
    return EntryRef(callee.sym_name.data), _arguments(op.arguments, list(callee.function_type.inputs.data), b)


def _arguments(values: Sequence[SSAValue], kinds: Sequence[Attribute], b: PlanBuilder) -> list[SSAValue]:
    """Registers with the layouts that an entry expects."""
    return [_fitted(value, kind, b) for value, kind in zip(values, kinds, strict=True)]


def _fitted(value: SSAValue, kind: Attribute, b: PlanBuilder) -> SSAValue:
    place = b.place(value)
    if isinstance(kind, StateType) or place.type == kind:
        return b.register(value)
    if isinstance(place.storage.owner, plan.LaunchOp):  # whose extents perhaps only the run tells: it copies
        return b.register(value)
    fresh = b.allocate(types.tensor_type(kind))
    b.launch("aten::copy_", [fresh, place], writes=[fresh])
    return b.view(fresh, fresh.type)


def _kinds(values: Sequence[SSAValue]) -> list[AnyTensorType]:
    return [types.tensor("i64", ()) if isinstance(v.type, SymType) else dense(types.tensor_type(v)) for v in values]


def _define(values: Sequence[SSAValue], registers: Sequence[SSAValue], b: PlanBuilder) -> None:
    for value, register in zip(values, registers, strict=True):
        register.name_hint = value.name_hint
        b.define(value, Place(Storage(register), types.tensor_type(register)))


def _call(op: CallOp, callee: FuncOp, b: PlanBuilder) -> None:
    arguments = _arguments(op.arguments, list(callee.function_type.inputs.data), b)
    states = [value for value in op.arguments if isinstance(value.type, StateType)]
    results = [value for value in op.results if not isinstance(value.type, StateType)]
    for state in states:  # values of the old version that later ops need
        b.preserve(b.place(state).storage)
    defines = [v.type.data if isinstance(v.type, SymType) else None for v in results]
    writes = [argument for argument, value in zip(arguments, op.arguments, strict=True) if value in states]
    registers = b.launch(
        control.CALL,
        [EntryRef(callee.sym_name.data), arguments],
        writes=writes,
        results=_kinds(results),
        defines=defines,
    )
    _define(results, registers, b)
    versions = [value for value in op.results if isinstance(value.type, StateType)]
    if len(states) != len(versions):
        raise error("FORGE-B002", f"{op.callee} does not return each state that it takes", location=location_of(op))
    for state, version in zip(states, versions, strict=True):
        b.alias(version, state)


def _while(op: scf.WhileOp, b: PlanBuilder, functions: Mapping[str, FuncOp]) -> None:
    before, after = _body(op.before_region.block), _body(op.after_region.block)
    count, forwarded = len(op.arguments), len(op.results)
    first = functions[before.callee.root_reference.data]
    second = functions[after.callee.root_reference.data]
    inputs = list(first.function_type.inputs.data)
    args: list[Any] = [
        EntryRef(first.sym_name.data),
        EntryRef(second.sym_name.data),
        _arguments(op.arguments, inputs[:count], b),
        _arguments(before.arguments[count:], inputs[count:], b),
        _arguments(after.arguments[forwarded:], list(second.function_type.inputs.data)[forwarded:], b),
    ]
    _define(op.results, b.launch(control.WHILE, args, results=_kinds(op.results)), b)


def _for(op: scf.ForOp, b: PlanBuilder, functions: Mapping[str, FuncOp]) -> None:
    body = _body(op.body.block)
    callee = functions[body.callee.root_reference.data]
    inputs, count = list(callee.function_type.inputs.data), len(op.iter_args)
    args: list[Any] = [
        EntryRef(callee.sym_name.data),
        *(_bound(value) for value in (op.lb, op.ub, op.step)),
        _arguments(op.iter_args, inputs[1 : 1 + count], b),
        _arguments(body.arguments[1 + count :], inputs[1 + count :], b),
    ]
    _define(op.results, b.launch(control.FOR, args, results=_kinds(op.results)), b)


def _bound(value: SSAValue) -> Extent:
    op = producer(value)
    if isinstance(op, ExtentOp):
        return op.value.data
    if isinstance(op, arith.ConstantOp) and isinstance(op.value, IntegerAttr):
        return op.value.value.data
    raise error("FORGE-B002", "a loop's bound is no extent", location=None if op is None else location_of(op))
