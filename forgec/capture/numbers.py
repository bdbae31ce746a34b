"""Numbers and conditions that the model computes while it runs.

A number that is an expression of extents is an extent. Any other (``x.sum().item()``, ``math.sqrt(x.shape[0])``,
``n > 4``) is a tensor of rank 0 in forge, of the type in which Python computes: ``i64``, ``f64`` or ``i1``. Torch's
graph has one node for each step; the steps become ops only when something needs the number.
"""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from xdsl.dialects.builtin import StringAttr
from xdsl.ir import SSAValue

from forgec.capture.call import Call, schema_of
from forgec.capture.places import place_of
from forgec.capture.symbols import Unknown
from forgec.diagnostics import error
from forgec.ir import types
from forgec.ir.attributes import ExtentAttr, ScalarAttr, SymType
from forgec.ir.locations import to_attribute
from forgec.ir.ops.control import AssertOp, ExtentOp, ItemOp
from forgec.ir.ops.creation import FullOp
from forgec.ir.ops.unary import CastOp
from forgec.runtime.dtypes import from_torch, torch_dtype
from forgec.runtime.symbolic import SymExpr, symbol

if TYPE_CHECKING:
    from forgec.capture.operators import Operators

aten = torch.ops.aten

SYMBOLIC = (torch.SymInt, torch.SymFloat, torch.SymBool)


@dataclass(frozen=True)
class Number:
    """A number of the model, as a tensor of rank 0."""

    value: SSAValue


@dataclass(frozen=True)
class Step:
    """A number that some node of the graph would compute, if something needed it."""

    node: Any


KINDS: dict[type, str] = {torch.SymInt: "i64", torch.SymFloat: "f64", torch.SymBool: "i1"}
KINDS.update({int: "i64", float: "f64", bool: "i1"})

_TAKES = (aten.item.default, aten._local_scalar_dense.default)
_COMPARISONS: dict[Any, Any] = {
    operator.ge: aten.ge.Tensor,
    operator.gt: aten.gt.Tensor,
    operator.le: aten.le.Tensor,
    operator.lt: aten.lt.Tensor,
    operator.eq: aten.eq.Tensor,
    operator.ne: aten.ne.Tensor,
}
_RELATIONS = {">=": aten.ge.Tensor, ">": aten.gt.Tensor, "<=": aten.le.Tensor, "<": aten.lt.Tensor,
              "==": aten.eq.Tensor, "!=": aten.ne.Tensor}  # fmt: skip
"""By sympy's names."""
_ARITHMETIC: dict[Any, Any] = {
    operator.add: aten.add.Tensor,
    operator.sub: aten.sub.Tensor,
    operator.mul: aten.mul.Tensor,
    operator.truediv: aten.div.Tensor,
    operator.mod: aten.remainder.Tensor,
    operator.pow: aten.pow.Tensor_Tensor,
    operator.neg: aten.neg.default,
    operator.abs: aten.abs.default,
    abs: aten.abs.default,
    torch.sym_max: aten.maximum.default,
    torch.sym_min: aten.minimum.default,
    operator.and_: aten.logical_and.default,
    operator.or_: aten.logical_or.default,
    torch.sym_not: aten.logical_not.default,
    operator.not_: aten.logical_not.default,
}
_FUNCTIONS = ("sqrt", "exp", "log", "log2", "sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh")
_ARITHMETIC.update({getattr(math, name): getattr(aten, name).default for name in _FUNCTIONS})
_ARITHMETIC.update(
    {
        getattr(torch, f"_sym_{name}"): getattr(aten, name).default
        for name in _FUNCTIONS
        if hasattr(torch, f"_sym_{name}")
    }
)
_ROUNDING: dict[Any, Any] = {
    math.floor: aten.floor.default,
    math.ceil: aten.ceil.default,
    math.trunc: aten.trunc.default,
    round: aten.round.default,
    torch.sym_int: aten.trunc.default,
}


def symbols_in_shapes(program: torch.export.ExportedProgram) -> set[str]:
    """Torch's data-dependent symbols that shapes or strides of tensors in the program speak of."""
    found: set[str] = set()
    for module in program.graph_module.modules():
        for node in getattr(getattr(module, "graph", None), "nodes", ()):
            values = node.meta.get("val")
            for value in values if isinstance(values, (list, tuple)) else (values,):
                if isinstance(value, torch.Tensor) and value.layout is torch.strided:
                    sizes = [size for size in (*value.shape, *value.stride()) if isinstance(size, torch.SymInt)]
                    found.update(str(s) for size in sizes for s in size.node.expr.free_symbols)
    return found


def symbolic(c: Operators, node: Any, value: Any) -> Any:
    """What a node becomes that yields torch's symbolic number: an extent where that says it, else a later step."""
    if node.target in _TAKES:
        c.taken[node] = c.handles[node.args[0]].value(c.builder.insert)
    if isinstance(value, torch.SymInt):
        try:
            return c.symbols.extent(value)
        except Unknown:
            return _integer(c, node, value)
    return Step(node)


def _integer(c: Operators, node: Any, value: torch.SymInt) -> Any:
    """An integer that no known extents tell. Where shapes speak of it, it is an extent from here on."""
    if node.target is aten.sym_storage_offset.default:
        return Step(node)  # no value has an offset; only torch's own assertions ask for it
    low, _ = c.symbols.range_of(value)
    if not c.symbols.is_in_shapes(value) and (low is None or low < 0):
        return Step(node)
    return defined(c, compute(c, node), value)


def defined(c: Operators, number: SSAValue, value: Any) -> SymExpr:
    """The extent whose value is a number of the model; ``value`` is torch's expression of it."""
    _assert_said(c, number, value.node.expr)
    name = c.symbols.define(value)
    c.insert(ItemOp.create(operands=[number], result_types=[SymType(name)], location=c.location))
    return symbol(name)


def _assert_said(c: Operators, number: SSAValue, expression: Any) -> None:
    """The model's own checks of a number, before it becomes an extent: what is out of range is said in its words."""
    for said in c.checks:
        relation = _RELATIONS.get(str(getattr(said.expression, "rel_op", "")))
        if relation is None or not expression.is_Symbol or said.expression.free_symbols != {expression}:
            continue
        sides = [_computed(c, number, side, expression) for side in said.expression.args]
        if sides[0] is not None and sides[1] is not None:
            holds = call(c, relation, sides, "i1")
            place, properties = to_attribute(said.place), {"message": StringAttr(said.message)}
            c.builder.insert(AssertOp.create(operands=[holds], properties=properties, location=place))
            c.asserted.append(said)


def _computed(c: Operators, number: SSAValue, expression: Any, symbol_of_it: Any) -> SSAValue | None:
    """Torch's expression of one symbol, whose value is a number; None for what is no sum of products."""
    if expression == symbol_of_it:
        return number
    if expression.is_Integer:
        return compute(c, int(expression))
    if not expression.is_Add and not expression.is_Mul:
        return None
    operator_of_it = aten.add.Tensor if expression.is_Add else aten.mul.Tensor
    total: SSAValue | None = None
    for part in expression.args:
        value = _computed(c, number, part, symbol_of_it)
        if value is None:
            return None
        total = value if total is None else call(c, operator_of_it, [total, value], "i64")
    return total


def result(c: Operators, value: SSAValue, number: Any) -> Any:
    """What a number becomes that an op yields as ``value``, a tensor of rank 0: an extent where shapes speak of it."""
    if isinstance(number, torch.SymInt):
        try:
            return c.symbols.extent(number)
        except Unknown:
            if c.symbols.is_in_shapes(number):
                return defined(c, value, number)
    return Number(value)


def is_about_offsets(node: Any) -> bool:
    """True if a number depends on where a tensor lies in its storage, which values do not have."""
    pending, seen = [node], set()
    while pending:
        current = pending.pop()
        value = current.meta.get("val") if isinstance(current, torch.fx.Node) else None
        if current in seen or not isinstance(value, SYMBOLIC):
            continue
        if current.target is aten.sym_storage_offset.default:
            return True
        seen.add(current)
        pending += current.all_input_nodes
    return False


def compute(c: Operators, value: Any) -> SSAValue:
    """A number (a node of the graph, an extent, a Python number) as a tensor of rank 0."""
    if isinstance(value, torch.fx.Node):
        held = c.handles.get(value)
        if isinstance(held, Step):
            return _step(c, value)
        return _step(c, value) if held is None else compute(c, held)
    if isinstance(value, Step):
        return _step(c, value.node)
    if isinstance(value, Number):
        return value.value
    if isinstance(value, SymExpr):
        properties = {"value": ExtentAttr(value)}
        return c.insert(
            ExtentOp.create(properties=properties, result_types=[types.tensor("i64", ())], location=c.location)
        )
    if isinstance(value, (bool, int, float)):
        kind = types.tensor(KINDS[type(value)], ())
        properties = {"value": ScalarAttr.of(value)}
        return c.insert(FullOp.create(properties=properties, result_types=[kind], location=c.location))
    held = getattr(value, "value", None)
    if held is not None:  # a tensor, of which torch takes the number
        return as_scalar(c, value.value(c.builder.insert))
    raise error("FORGE-C003", f"{value} is no number")


def as_scalar(c: Operators, tensor: SSAValue) -> SSAValue:
    """A tensor of one element as a tensor of rank 0, of the type that Python's number has."""
    name = types.dtype(tensor)
    target = "i1" if name == "i1" else "f64" if name in types.FLOATS else "i64"
    if types.rank(tensor):
        tensor = call(c, aten.reshape.default, [tensor, []], name)
    return cast(c, tensor, target)


def cast(c: Operators, number: SSAValue, kind: str) -> SSAValue:
    """A number in another type."""
    if types.dtype(number) == kind:
        return number
    return c.insert(CastOp.create(operands=[number], result_types=[types.tensor(kind, ())], location=c.location))


def call(c: Operators, overload: Any, operands: list[Any], kind: str) -> SSAValue:
    """An ATen operator on numbers."""
    schema = schema_of(overload)
    arguments = {name: default for name, default, _ in schema.arguments}
    arguments.update(zip(arguments, operands, strict=False))
    (value,) = c.emit(Call(c, overload, arguments, [types.tensor(kind, ())], c.location))
    return value


def _step(c: Operators, node: Any) -> SSAValue:
    known = c.numbers.get(node)
    if known is None:
        around, c.location = c.location, to_attribute(place_of(node))
        known = c.numbers[node] = _evaluated(c, node)
        c.location = around
    return known


def _evaluated(c: Operators, node: Any) -> SSAValue:
    target, value = node.target, node.meta.get("val")
    if isinstance(value, torch.SymInt):
        try:
            return compute(c, c.symbols.extent(value))
        except Unknown:
            pass
    kind = KINDS.get(type(value))
    if target in _TAKES:
        return as_scalar(c, c.taken[node])
    if kind is None or node.op != "call_function":
        raise error("FORGE-C003", f"{node.name} is a number that cannot be captured", location=place_of(node))
    operands = [compute(c, argument) for argument in node.args]
    if target in _ROUNDING:
        (number, *digits) = operands
        if digits:
            raise error("FORGE-C003", "rounding to digits cannot be captured", location=place_of(node))
        if types.dtype(number) == "f64":
            number = call(c, _ROUNDING[target], [number], "f64")
        return cast(c, number, kind)
    if target is torch.sym_float:
        return cast(c, operands[0], "f64")
    if target is torch.sym_ite:
        condition, *branches = operands
        return call(c, aten.where.self, [condition, *(cast(c, branch, kind) for branch in branches)], kind)
    if target is operator.floordiv:
        return call(c, aten.floor_divide.default, [cast(c, operand, kind) for operand in operands], kind)
    if target in _COMPARISONS:
        names = [types.dtype(operand) for operand in operands]
        common = "f64" if "f64" in names else "i64" if "i64" in names else "i1"
        return call(c, _COMPARISONS[target], [cast(c, operand, common) for operand in operands], "i1")
    if target in _ARITHMETIC:
        return call(c, _ARITHMETIC[target], [cast(c, operand, kind) for operand in operands], kind)
    name = getattr(target, "__name__", target)
    raise error("FORGE-C003", f"{name} of a number that only the run tells cannot be captured", location=place_of(node))


def as_argument(c: Operators, value: Any, expected: str, others: list[Any]) -> Any:
    """A number where an operator takes it. Among ``others`` are the tensors that a tensor argument is computed with:
    there a number promotes as Python's does, not as a tensor of rank 0 would.
    """
    number = compute(c, value)
    if "Tensor" not in expected:
        return number
    scalar = torch.ones((), dtype=torch_dtype(types.dtype(number)))
    for other in others:
        wanted = torch.result_type(other, scalar.item())
        if torch.result_type(other, scalar) != wanted:
            return cast(c, number, str(from_torch(wanted)))
    return number
