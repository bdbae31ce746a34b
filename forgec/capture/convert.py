"""An exported program → a forge module: one op for each source op, views and writes turned into values and state."""

from __future__ import annotations

import operator
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind, TensorArgument
from xdsl.builder import Builder
from xdsl.dialects.builtin import AnyTensorType, ArrayAttr, LocationAttr, ModuleOp, StringAttr, SymbolRefAttr
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Attribute, Block, Operation, Region, SSAValue
from xdsl.rewriter import InsertPoint

from forgec.capture import aten as _rows  # noqa: F401 - registers the tables
from forgec.capture.aliasing import Handle, UnknownAliasing, fresh, view_of
from forgec.capture.call import ROWS, Call, Decline, schema_of
from forgec.capture.effects import (
    HELD,
    MUTATIONS,
    bind,
    byte_range,
    functional_form,
    identity,
    per_result,
    returned_operand,
    source_of,
    written_placeholders,
)
from forgec.capture.places import place_of
from forgec.capture.symbols import SymbolTable
from forgec.diagnostics import ForgeError, Location, error
from forgec.ir import types
from forgec.ir.attributes import ExtentAttr, StateType
from forgec.ir.entry import ArgumentInfo
from forgec.ir.locations import is_known, to_attribute
from forgec.ir.ops.module import AtenOp, ParamOp, ParamRefOp, StateReadOp, StateWriteOp, SymbolOp
from forgec.ir.ops.unary import CastOp
from forgec.runtime.dtypes import from_torch
from forgec.runtime.plan import Device, DType, Layout, MemoryFormat

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


@dataclass
class StateSlot:
    """A piece of state: a buffer that the model mutates (``input_index`` None) or an input that it mutates."""

    name: str
    input_index: int | None = None


@dataclass
class Conversion:
    """A forge module with the data it refers to. ``forward``'s arguments are the tensor inputs, then the states of
    buffers."""

    module: ModuleOp
    params: dict[str, torch.Tensor]
    """Weights and initial values of states, by name."""
    inputs: list[int]
    """For each tensor argument of ``forward``, the index of its leaf among the call's flattened arguments."""
    fixed: dict[int, Any]
    """Leaves of the call that are no tensors, by index: their values are part of the program."""
    states: list[StateSlot]
    outputs: list[int | None]
    """For each leaf of the result, the index of the value that ``forward`` returns, or None: a literal of
    ``literals``."""
    literals: dict[int, Any]
    symbols: SymbolTable


@dataclass
class Converter:
    """Walks the exported graph once and builds the module."""

    program: ExportedProgram
    symbols: SymbolTable
    names: Mapping[int, str] = field(default_factory=dict)
    params: dict[str, torch.Tensor] = field(default_factory=dict)
    handles: dict[Any, Any] = field(default_factory=dict)
    """fx node → Handle, a list of Handles, an extent or a literal."""

    def run(self) -> Conversion:
        """Convert the whole program. Raises ForgeError (C003, C005) for what forge cannot say."""
        self.block = Block()
        self.builder = Builder(InsertPoint.at_end(self.block))
        self.header: list[Operation] = []
        self.by_tensor: dict[Any, str] = {}
        self.param_values: dict[str, SSAValue] = {}
        self.inputs: list[int] = []
        self.fixed: dict[int, Any] = {}
        self.states: list[tuple[StateSlot, Handle, SSAValue]] = []
        self.targets: dict[str, Any] = {}
        self.argument_names: dict[SSAValue, str] = {}
        self.written = written_placeholders(self.program)
        nodes = list(self.program.graph.nodes)
        placeholders = [n for n in nodes if n.op == "placeholder"]
        self._placeholders(placeholders)
        for node in nodes:
            if node.op == "call_function":
                self._call(node)
            elif node.op == "get_attr":
                self._get_attr(node)
        output = next(n for n in nodes if n.op == "output")
        return self._finish(output)

    def _get_attr(self, node: Any) -> None:
        held = operator.attrgetter(node.target)(node.graph.owning_module)
        self.handles[node] = fresh(self._param(node.target, held)) if isinstance(held, torch.Tensor) else held

    # Inputs
    # ------------------------------------------------------------------------------------------------------------

    def _placeholders(self, placeholders: Sequence[Any]) -> None:
        specs = self.program.graph_signature.input_specs
        leaf = 0
        deferred: list[tuple[Any, Any]] = []
        held = {
            node: self._tensor(spec.target) for node, spec in zip(placeholders, specs, strict=True) if spec.kind in HELD
        }
        written = {identity(tensor) for node, tensor in held.items() if node.name in self.written}
        for node, spec in zip(placeholders, specs, strict=True):
            if spec.kind == InputKind.USER_INPUT:
                self._user_input(node, spec, leaf)
                leaf += 1
            elif node in held and identity(held[node]) in written:
                deferred.append((node, spec))
            elif node.users or spec.kind != InputKind.TOKEN:
                self._constant_input(node, spec)
        names = {node: str(spec.target) for node, spec in zip(placeholders, specs, strict=True)}
        states: dict[Any, Any] = {}
        for node, spec in deferred:  # states of buffers come after the inputs
            tensor = held[node]
            first = states.setdefault(identity(tensor), node)
            if first is node:
                name = self._free_name(self.names.get(id(tensor), spec.target))
                self._refuse_shared_memory(node, held, names)
                self.params[name] = tensor.detach().clone()  # the model may go on changing its own
                self._state(node, StateSlot(name), self._type(tensor))
            self.handles[node] = self.handles[first]
            self.targets[spec.target] = node

    def _refuse_shared_memory(self, written: Any, held: Mapping[Any, torch.Tensor], names: Mapping[Any, str]) -> None:
        """What the model writes must not share bytes with another tensor of the model, unless that is the very same."""
        tensor = held[written]
        for node, other in held.items():
            same = identity(other) == identity(tensor)
            if node.users and not same and byte_range(other).overlaps(byte_range(tensor)):
                raise error(
                    "FORGE-C005",
                    f"the model writes {names[written]!r}, which shares memory with {names[node]!r}",
                    help="clone one of them where the model is built",
                )

    def _user_input(self, node: Any, spec: Any, leaf: int) -> None:
        if not isinstance(spec.arg, TensorArgument):
            value = node.meta.get("val", getattr(spec.arg, "value", None))
            if isinstance(value, torch.SymInt):
                raise error("FORGE-C004", f"input {node.name!r} is an integer that varies", help="pass it as a tensor")
            self.fixed[leaf] = value
            self.handles[node] = value
            return
        kind = self._type(node.meta["val"])
        self.inputs.append(leaf)
        if node.name in self.written:
            self._state(node, StateSlot(node.name, leaf), kind)
            return
        argument = self.block.insert_arg(kind, len(self.block.args))
        argument.name_hint = hint(node.name)
        self.argument_names[argument] = node.name
        self.handles[node] = fresh(argument)

    def _state(self, node: Any, slot: StateSlot, kind: AnyTensorType) -> None:
        argument = self.block.insert_arg(StateType(kind), len(self.block.args))
        argument.name_hint = hint(node.name)
        self.argument_names[argument] = node.name
        read = StateReadOp.create(operands=[argument], result_types=[kind])
        self.builder.insert(read)
        handle = fresh(read.results[0])
        self.states.append((slot, handle, argument))
        self.handles[node] = handle

    def _constant_input(self, node: Any, spec: Any) -> None:
        if spec.kind in HELD:
            if node.users:
                tensor = self._tensor(spec.target)
                self.handles[node] = fresh(self._param(self.names.get(id(tensor), spec.target), tensor))
        elif node.users:
            raise error("FORGE-C004", f"input {node.name!r} of kind {spec.kind.name} cannot be captured")

    def _free_name(self, name: str) -> str:
        """``name``, or one made of it that no parameter or state has yet."""
        return name if name not in self.params else self._free_name(f"{name}_")

    def _tensor(self, target: str | None) -> torch.Tensor:
        found = self.program.state_dict.get(str(target))
        tensor = self.program.constants[str(target)] if found is None else found
        assert isinstance(tensor, torch.Tensor), "the signature says that it is a tensor"
        return tensor

    def _param(self, name: str, tensor: torch.Tensor) -> SSAValue:
        """The value of a weight; tensors that are the same memory are one parameter."""
        tensor = tensor.detach()
        known = self.by_tensor.get(identity(tensor))
        name = self._free_name(name) if known is None else known
        self.by_tensor[identity(tensor)] = name
        if name not in self.param_values:
            kind = self._type(tensor)
            self.params[name] = tensor
            self.header.append(ParamOp.create(properties={"sym_name": StringAttr(name), "type": kind}))
            ref = ParamRefOp.create(properties={"param": SymbolRefAttr(name)}, result_types=[kind])
            self.builder.insert(ref)
            ref.results[0].name_hint = hint(name)
            self.param_values[name] = ref.results[0]
        return self.param_values[name]

    # Types and arguments
    # -----------------------------------------------------------------------------------------------

    def _type(self, value: torch.Tensor) -> AnyTensorType:
        """The type of a (fake) tensor: its dtype, extents and strides."""
        if value.layout is not torch.strided:
            raise error(
                "FORGE-C004", f"a tensor of layout {value.layout} cannot be captured", help="convert it to dense"
            )
        name = from_torch(value.dtype)
        if name is None:
            raise error("FORGE-C004", f"a tensor of dtype {value.dtype} cannot be captured")
        return types.tensor(name, self.symbols.extents(value.shape), self.symbols.extents(value.stride()))

    def argument(self, value: Any) -> Any:
        """An fx argument as the rows see it."""
        if isinstance(value, torch.fx.Node):
            held = self.handles[value]
            if isinstance(held, (torch.SymFloat, torch.SymBool)):
                raise error(
                    "FORGE-C003",
                    f"a number or condition that is known only when the model runs cannot be captured: {held}",
                    help="compute it from extents with integers, or from tensors as a tensor",
                )
            return held.value(self.builder.insert) if isinstance(held, Handle) else held
        if isinstance(value, (list, tuple)):
            return [self.argument(item) for item in value]
        return _literal(value)

    # Calls
    # -------------------------------------------------------------------------------------------------------------

    def _call(self, node: Any) -> None:
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
        call = Call(self, overload, seen, self._result_types(value), to_attribute(place_of(node)))
        results = self.emit(call)
        self._name(node, results)
        handles = []
        for position, (alias, result) in enumerate(zip(per_result(schema, results), results, strict=True)):
            origin = source_of(node, overload, arguments, alias, position)
            source = self.handles.get(origin)
            if origin is None or not isinstance(source, Handle):
                handles.append(fresh(result))
            else:
                operand, kind = source.value(self.builder.insert), self._type(origin.meta["val"])
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
                self._call(inner)
            elif inner.op == "get_attr":
                self._get_attr(inner)
            elif inner.op == "output":
                self.handles[node] = [self.handles[v] if isinstance(v, torch.fx.Node) else v for v in inner.args[0]]

    def _name(self, node: Any, results: Sequence[SSAValue]) -> None:
        for result in results:
            if result.name_hint is None and isinstance(result.owner, Operation):
                result.name_hint = hint(node.name)

    def _symbolic(self, node: Any, value: Any) -> Any:
        if isinstance(value, torch.SymInt):
            return self.symbols.extent(value)
        return value

    def _result_types(self, value: Any) -> list[AnyTensorType | None]:
        values = value if isinstance(value, (list, tuple)) else [value]
        return [self._type(v) if isinstance(v, torch.Tensor) else None for v in values]

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
        kind = self._type(target_node.meta["val"])
        result = self._functional_type(functional, inner, arguments)
        if types.shape(result) == types.shape(kind):  # the layout stays, and with it the order of later sums
            result = types.tensor(types.dtype(result), types.shape(kind), types.strides(kind))
        call = Call(self, functional, {k: self.argument(v) for k, v in arguments.items()}, [result], place)
        (value,) = self.emit(call)
        if types.dtype(value) != types.dtype(kind):
            value = self._insert(
                CastOp.make([value], None, [types.tensor(types.dtype(kind), types.shape(value))], place)
            )
        if types.shape(value) != types.shape(kind):
            raise error("FORGE-C003", f"{overload.name()} changes the shape of the tensor that it writes")
        target.write(value, self.builder.insert, place)
        self.handles[node] = target

    def _insert(self, op: Operation) -> SSAValue:
        self.builder.insert(op)
        return op.results[0]

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
            return self._type(functional(*positional, **keywords))
        with mode:
            return self._type(functional(*positional, **keywords))

    # Result
    # ------------------------------------------------------------------------------------------------------------

    def _finish(self, output: Any) -> Conversion:
        specs = self.program.graph_signature.output_specs
        results = output.args[0]
        returned: list[SSAValue] = []
        outputs: list[int | None] = []
        literals: dict[int, Any] = {}
        for spec, node in zip(specs, results, strict=True):
            if spec.kind in MUTATIONS or spec.kind == OutputKind.TOKEN:
                continue
            held = self.handles[node] if isinstance(node, torch.fx.Node) else node
            if isinstance(held, Handle):
                outputs.append(len(returned))
                returned.append(self._value(held, node))
            elif held is None or isinstance(held, (bool, int, float, str)):
                literals[len(outputs)] = held
                outputs.append(None)
            else:
                raise error("FORGE-C004", "the model returns an integer that varies", help="return it as a tensor")
        self._mutations(specs, results)
        for _, handle, argument in self.states:
            value = handle.storage.value
            location = value.owner.location if isinstance(value.owner, Operation) else None
            if handle.storage.written:
                write = StateWriteOp.create(operands=[argument, value], result_types=[argument.type], location=location)
                returned.append(self._insert(write))
            else:
                returned.append(argument)
        self.builder.insert(ReturnOp(*returned))
        self._locate()
        slots = {argument: slot for slot, _, argument in self.states}
        infos = [self._argument_info(argument, slots.get(argument)) for argument in self.block.args]
        function = FuncOp(
            "forward",
            (list(self.block.arg_types), [v.type for v in returned]),
            Region(self.block),
            arg_attrs=ArrayAttr([info.attribute() for info in infos]),
        )
        module = ModuleOp([*self._symbol_ops(), *self.header, function])
        return Conversion(
            module,
            self.params,
            self.inputs,
            self.fixed,
            [s for s, _, _ in self.states],
            outputs,
            literals,
            self.symbols,
        )

    def _value(self, held: Handle, node: Any) -> SSAValue:
        try:
            return held.value(self.builder.insert)
        except UnknownAliasing as reason:
            raise error("FORGE-C005", str(reason), location=place_of(node)) from None

    def _locate(self) -> None:
        """Reads of parameters and states stand for no line of the model: they take that of what uses them first."""
        following: dict[SSAValue, LocationAttr] = {}
        for op in reversed(list(self.block.ops)):
            if not is_known(op):
                owner = op.param.root_reference.data if isinstance(op, ParamRefOp) else ""
                unknown = to_attribute(Location("<unknown>", module=owner.rpartition(".")[0]))
                op.location = next((following[r] for r in op.results if r in following), unknown)
            if not isinstance(op, ReturnOp):
                following.update(dict.fromkeys(op.operands, op.location))

    def _argument_info(self, argument: SSAValue, slot: StateSlot | None) -> ArgumentInfo:
        if slot is None or slot.input_index is not None:
            return ArgumentInfo(self.argument_names[argument], inout=slot is not None)
        initial = self.params[slot.name]
        return ArgumentInfo(slot.name, zeros=not bool(initial.count_nonzero()))

    def _mutations(self, specs: Sequence[Any], results: Sequence[Any]) -> None:
        """A functionalized program says its mutations as outputs."""
        inputs = {slot.name: handle for slot, handle, _ in self.states if slot.input_index is not None}
        for spec, node in zip(specs, results, strict=True):
            if spec.kind in MUTATIONS:
                held = self.targets.get(spec.target)
                handle = inputs[spec.target] if held is None else self.handles[held]
                location = to_attribute(place_of(node))
                handle.write(self.handles[node].value(self.builder.insert), self.builder.insert, location)

    def _symbol_ops(self) -> list[Operation]:
        ops: list[Operation] = []
        for theirs, ours in self.symbols.names.items():
            low, high = self.symbols.ranges.get(theirs, (0, None))
            properties: dict[str, Attribute] = {
                "sym_name": StringAttr(ours),
                "label": StringAttr(self.symbols.labels.get(theirs, ours)),
                "minimum": ExtentAttr(low),
            }
            if high is not None:
                properties["maximum"] = ExtentAttr(high)
            ops.append(SymbolOp.create(properties=properties))
        return ops


def draws_random(overload: Any) -> bool:
    """True if torch says that the operator's result depends on a generator's state."""
    return torch.Tag.nondeterministic_seeded in overload.tags


def convert(
    program: ExportedProgram, names: Mapping[int, str] | None = None, labels: Mapping[str, str] | None = None
) -> Conversion:
    """A forge module for an exported program.

    ``names`` are the model's own names of tensors, by ``id``, where export invents some; ``labels`` the user's names
    of dimensions, by torch's symbols.
    """
    symbols = SymbolTable.of(program.range_constraints)
    symbols.labels = dict(labels or {})
    return Converter(program, symbols, names or {}).run()


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


def _literal(value: Any) -> Any:
    """A literal of torch's as a literal of the plan's."""
    if isinstance(value, torch.dtype):
        name = from_torch(value)
        if name is None:
            raise error("FORGE-C004", f"the dtype {value} cannot be captured")
        return DType(name)
    if isinstance(value, torch.device):
        return Device(str(value))
    if isinstance(value, torch.layout):
        return Layout(str(value).removeprefix("torch."))
    if isinstance(value, torch.memory_format):
        return MemoryFormat(str(value).removeprefix("torch."))
    return value


def _plan_argument(value: Any) -> Any:
    return tuple(_plan_argument(item) for item in value) if isinstance(value, (list, tuple)) else value


def hint(name: str) -> str:
    """A name as the printer takes it: letters, digits and underscores, not beginning with a digit."""
    text = re.sub(r"[^A-Za-z0-9_]", "_", name)
    return f"_{text}" if text[:1].isdigit() or not text else text
