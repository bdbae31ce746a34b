"""Calls of operators: said in forge, writes turned into values."""

from __future__ import annotations

import operator
from dataclasses import replace
from typing import Any

import torch
from xdsl.dialects.builtin import AnyTensorType, LocationAttr
from xdsl.ir import SSAValue

from forgec.capture import aten as _rows  # noqa: F401 - registers the tables
from forgec.capture.aliasing import Handle, UnknownAliasing, fresh, view_of
from forgec.capture.call import ROWS, Call, Decline, schema_of
from forgec.capture.effects import bind, functional_form, per_result, returned_operand, source_of
from forgec.capture.places import place_of
from forgec.capture.values import Values
from forgec.diagnostics import ForgeError, Location, error
from forgec.ir import types
from forgec.ir.locations import to_attribute
from forgec.ir.ops.module import AtenOp
from forgec.ir.ops.unary import CastOp

IGNORED = ("aten::_assert_tensor_metadata", "aten::sym_constrain_range_for_size", "aten::sym_constrain_range")
"""Checks of what the types already say."""

BY_STRIDES = (
    "as_strided",
    "as_strided_",
    "as_strided_copy",
    "as_strided_scatter",
    "set",
    "set_",
    "resize",
    "resize_",
    "resize_as_",
)
"""Operators that address memory by strides: a value has none, so what no row covers is refused."""

INLINED = {torch.ops.higher_order.wrap_with_set_grad_enabled: 2, torch.ops.higher_order.wrap_with_autocast: 5}
"""Operators that run a part of the graph with other settings of torch's; the part is their argument before this
number."""


class Operators(Values):
    """Converts the nodes that call something."""

    def get_attr(self, node: Any) -> None:
        held = operator.attrgetter(node.target)(node.graph.owning_module)
        self.handles[node] = fresh(self.param(node.target, held)) if isinstance(held, torch.Tensor) else held

    def call(self, node: Any) -> None:
        overload = node.target
        value = node.meta.get("val")
        if isinstance(value, (torch.SymInt, torch.SymFloat, torch.SymBool)):
            self.handles[node] = self._symbolic(node, value)
            return
        if overload is operator.getitem:
            self.handles[node] = self.handles[node.args[0]][node.args[1]]
            return
        if overload in INLINED:
            self._inline(node)
            return
        if not isinstance(overload, torch._ops.OpOverload):
            name = getattr(overload, "__name__", overload)
            raise error("FORGE-C003", f"the operation {name} cannot be captured", location=place_of(node))
        if overload.name() in IGNORED:
            return
        try:
            if torch.Tag.inplace_view in overload.tags:
                self._operator(node, functional_form(overload)[0] or overload)
            elif schema_of(overload).writes:
                self._write(node, overload, schema_of(overload), to_attribute(place_of(node)))
            else:
                self._operator(node, overload)
        except UnknownAliasing as reason:
            raise error("FORGE-C005", f"{overload.name()}: {reason}", location=place_of(node)) from None
        except ForgeError as failure:
            raise _located(failure, place_of(node)) from None

    def _operator(self, node: Any, overload: Any) -> None:
        """A call of an operator that writes nothing."""
        schema = schema_of(overload)
        value = node.meta.get("val")
        arguments = bind(schema, node)
        operand = returned_operand(overload, arguments)
        if operand is not None:
            self.handles[node] = self.handles[operand]
            return
        seen = {k: self.argument(v) for k, v in arguments.items()}
        if overload is torch.ops.aten.as_strided.default and isinstance(seen["storage_offset"], int):
            first = arguments["self"].meta["val"].storage_offset()
            seen["storage_offset"] -= first  # now from the tensor's own first element
        call = Call(self, overload, seen, self.result_types(value), to_attribute(place_of(node)))
        results = self.emit(call)
        self.name_results(node, results)
        handles = []
        for position, (alias, result) in enumerate(zip(per_result(schema, results), results, strict=True)):
            origin = source_of(node, overload, arguments, alias, position)
            source = self.handles.get(origin)
            if origin is None or not isinstance(source, Handle):
                handles.append(fresh(result))
            else:
                operand, kind = source.value(self.builder.insert), self.type_of(origin.meta["val"])
                handles.append(view_of(source, operand, kind, result, overload.name()))
        self.handles[node] = handles if isinstance(value, (list, tuple)) else handles[0] if handles else None

    def _inline(self, node: Any) -> None:
        """A part of the graph that torch.export put aside because it runs with other settings (without gradients)."""
        *settings, body = node.args[: INLINED[node.target]]
        if node.target is not torch.ops.higher_order.wrap_with_set_grad_enabled and settings[2]:
            raise error("FORGE-C003", "autocast was not resolved before capture", location=place_of(node))
        operands = node.args[INLINED[node.target] :]
        graph = self.handles[body].graph
        for inner in graph.nodes:
            if inner.op == "placeholder":
                self.handles[inner], operands = self.handles[operands[0]], operands[1:]
            elif inner.op == "call_function":
                self.call(inner)
            elif inner.op == "get_attr":
                self.get_attr(inner)
            elif inner.op == "output":
                self.handles[node] = [self.handles[v] if isinstance(v, torch.fx.Node) else v for v in inner.args[0]]

    def _symbolic(self, node: Any, value: Any) -> Any:
        if isinstance(value, torch.SymInt):
            return self.symbols.extent(value)
        return value

    def emit(self, call: Call) -> list[SSAValue]:
        """Say a call in forge: by its row, else as ``forge.aten``."""
        row = ROWS.get(call.name)
        if row is not None:
            try:
                found = row(call)
            except Decline:
                found = None
            if found is not None:
                return [found] if isinstance(found, SSAValue) else list(found)
            call.withdraw()
        return self._fallback(call)

    def _fallback(self, call: Call) -> list[SSAValue]:
        if call.name.partition("::")[2].partition(".")[0] in BY_STRIDES:
            raise error("FORGE-C003", f"{call.name} addresses memory by strides, which a value does not have")
        if any(kind is None for kind in call.results):
            raise error("FORGE-C003", f"{call.name} yields something that is no tensor")
        arguments = call.overload._schema.arguments
        positional = [_plan_argument(call.arguments[a.name]) for a in arguments if not a.kwarg_only]
        keywords = [(a.name, _plan_argument(call.arguments[a.name])) for a in arguments if a.kwarg_only]
        keywords = [(n, v) for n, v in keywords if v is not None]
        op = AtenOp.of(
            call.name,
            positional,
            keywords,
            [k for k in call.results if k is not None],
            random=draws_random(call.overload),
            location=call.location,
        )
        self.builder.insert(op)
        return list(op.results)

    # Writes
    # ------------------------------------------------------------------------------------------------------------

    def _write(self, node: Any, overload: Any, schema: Any, place: LocationAttr) -> None:
        """An operator that writes an argument: its functional form, then the value written back through the
        argument's views."""
        functional, renamed = functional_form(overload)
        if functional is None or len(schema.writes) != 1:
            raise error(
                "FORGE-C003",
                f"{overload.name()} writes its arguments and has no functional form",
                location=place_of(node),
            )
        bound = bind(schema, node)
        target_node = bound[schema.writes[0]]
        target: Handle = self.handles[target_node]
        bound = {k: v for k, v in bound.items() if not (renamed and k == schema.writes[0])}
        inner = schema_of(functional)
        arguments = {name: bound.get(name, default) for name, default, _ in inner.arguments}
        kind = self.type_of(target_node.meta["val"])
        result = self._functional_type(functional, inner, arguments)
        if types.shape(result) == types.shape(kind):  # the layout stays, and with it the order of later sums
            result = types.tensor(types.dtype(result), types.shape(kind), types.strides(kind))
        call = Call(self, functional, {k: self.argument(v) for k, v in arguments.items()}, [result], place)
        (value,) = self.emit(call)
        if types.dtype(value) != types.dtype(kind):
            value = self.insert(
                CastOp.make([value], None, [types.tensor(types.dtype(kind), types.shape(value))], place)
            )
        if types.shape(value) != types.shape(kind):
            raise error("FORGE-C003", f"{overload.name()} changes the shape of the tensor that it writes")
        target.write(value, self.builder.insert, place)
        self.handles[node] = target

    def _functional_type(self, functional: Any, schema: Any, arguments: dict[str, Any]) -> AnyTensorType:
        def fake(value: Any) -> Any:
            if isinstance(value, torch.fx.Node):
                return value.meta["val"]
            if isinstance(value, (list, tuple)):
                return [fake(item) for item in value]
            return value

        mode = next((m for m in (_fake_mode(v) for v in arguments.values()) if m is not None), None)
        positional = [fake(arguments[name]) for name, _, keyword in schema.arguments if not keyword]
        keywords = {name: fake(arguments[name]) for name, _, keyword in schema.arguments if keyword}
        if mode is None:
            return self.type_of(functional(*positional, **keywords))
        with mode:
            return self.type_of(functional(*positional, **keywords))


def draws_random(overload: Any) -> bool:
    """True if torch says that the operator's result depends on a generator's state."""
    return torch.Tag.nondeterministic_seeded in overload.tags


def _located(failure: ForgeError, place: Location) -> ForgeError:
    return ForgeError([d if d.location is not None else replace(d, location=place) for d in failure.diagnostics])


def _fake_mode(value: Any) -> Any:
    items = value if isinstance(value, (list, tuple)) else [value]
    for item in items:
        if isinstance(item, torch.fx.Node):
            mode = getattr(item.meta.get("val"), "fake_mode", None)
            if mode is not None:
                return mode
    return None


def _plan_argument(value: Any) -> Any:
    return tuple(_plan_argument(item) for item in value) if isinstance(value, (list, tuple)) else value
