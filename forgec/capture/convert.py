"""An exported program → a forge module: one op for each source op, views and writes turned into values and state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind, TensorArgument
from xdsl.builder import Builder
from xdsl.dialects.builtin import AnyTensorType, ArrayAttr, LocationAttr, ModuleOp, StringAttr
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Attribute, Block, Operation, Region, SSAValue
from xdsl.rewriter import InsertPoint

from forgec.capture import aten as _rows  # noqa: F401 - registers the tables
from forgec.capture.aliasing import Handle, Storage, UnknownAliasing, fresh
from forgec.capture.checks import CHECKS
from forgec.capture.dims import run_time_labels
from forgec.capture.effects import (
    HELD,
    MUTATIONS,
    byte_range,
    identity,
    written_placeholders,
)
from forgec.capture.guards import constraints
from forgec.capture.numbers import Number, Step, compute, symbols_in_shapes
from forgec.capture.operators import Operators
from forgec.capture.places import place_of
from forgec.capture.symbols import SymbolTable
from forgec.capture.values import hint
from forgec.diagnostics import Diagnostic, ForgeError, Location, error
from forgec.ir import types
from forgec.ir.attributes import ExtentAttr, StateType
from forgec.ir.entry import ArgumentInfo
from forgec.ir.literals import literal
from forgec.ir.locations import is_known, to_attribute
from forgec.ir.ops.module import ConstantOp, ParamRefOp, StateReadOp, StateWriteOp, SymbolOp
from forgec.ir.ops.shape import CopyOp
from forgec.runtime.symbolic import Extent

_WITH_LITERALS = ("f64", "f32", "f16", "bf16", "i64", "i32", "i16", "i8", "ui8", "i1")
_INTEGERS = ("i64", "i32")

_MOST_PLACES = 64
"""Integers that a list in the model's code may have (heads, positions) for passes to see them."""


def _is_written_out(tensor: torch.Tensor, kind: AnyTensorType) -> bool:
    """True for a number in the model's code, and for a short list of integers."""
    if types.rank(kind) == 0:
        return types.dtype(kind) in _WITH_LITERALS
    listed = types.dtype(kind) in _INTEGERS and types.is_contiguous(kind)
    return listed and 0 < tensor.numel() <= _MOST_PLACES


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
    numbers: set[int]
    """The leaves of the result that are numbers, which the returned tensors hold."""
    memory: list[int]
    """For each value that ``forward`` returns, the number of the memory that it is in (see ``EntryInfo``)."""
    symbols: SymbolTable


class Incomplete(ForgeError):
    """What cannot be captured, beside a module with the ops that can: its function returns nothing."""

    def __init__(self, failures: list[Diagnostic], module: ModuleOp) -> None:
        super().__init__(failures)
        self.module = module


class Converter(Operators):
    """Walks the exported graph once and builds the module."""

    def __init__(self, program: ExportedProgram, symbols: SymbolTable, names: Mapping[int, str]) -> None:
        self.block = Block()
        self.literals: list[ConstantOp] = []
        super().__init__(program, symbols, Builder(InsertPoint.at_end(self.block)))
        self.names = names

    def run(self) -> Conversion:
        """Convert the whole program. Raises ForgeError (C003, C005) for what forge cannot say."""
        self.inputs: list[int] = []
        self.input_storages: dict[SSAValue, Storage] = {}
        self.fixed: dict[int, Any] = {}
        self.states: list[tuple[StateSlot, Handle, SSAValue]] = []
        self.targets: dict[str, Any] = {}
        self.argument_names: dict[SSAValue, str] = {}
        self.written = written_placeholders(self.program)
        self.symbols.labels = run_time_labels(self.program) | self.symbols.labels
        self.symbols.in_shapes = symbols_in_shapes(self.program)
        self.checks = list(self.program.graph_module.meta.get(CHECKS, ()))
        for theirs in {str(s) for check in self.checks for s in check.expression.free_symbols}:
            if theirs.startswith("u"):
                self.symbols.ranges[theirs] = (0, None)  # the model's own checks say more, in its own words
        nodes = list(self.program.graph.nodes)
        placeholders = [n for n in nodes if n.op == "placeholder"]
        self._placeholders(placeholders)
        for node in nodes:
            if node.op == "call_function":
                self.call(node)
            elif node.op == "get_attr":
                self.get_attr(node)
        if self.failures:
            raise Incomplete(self.failures, self._partial())
        output = next(n for n in nodes if n.op == "output")
        return self._finish(output)

    def _partial(self) -> ModuleOp:
        self._locate()
        function = FuncOp("forward", (list(self.block.arg_types), []), Region(self.block))
        return ModuleOp([*self._symbol_ops(), *self.header, function])

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
        sharing = _sharing_memory(held)
        for node, spec in zip(placeholders, specs, strict=True):
            if spec.kind == InputKind.USER_INPUT:
                self.attempt(node, partial(self._user_input, node, spec, leaf))
                leaf += 1
            elif node in held and any(identity(held[n]) in written for n in sharing.get(node, [node])):
                deferred.append((node, spec))
            elif node.users or spec.kind != InputKind.TOKEN:
                self.attempt(node, partial(self._constant_input, node, spec))
        states: dict[Any, Any] = {}
        for node, spec in deferred:  # states of buffers come after the inputs
            tensor = held[node]
            if node in self.handles:
                continue
            together = sharing.get(node, [node])
            if len({identity(held[other]) for other in together}) > 1:
                name = self.free_name(self.names.get(id(tensor), spec.target))
                self.attempt(node, partial(self._shared_state, name, {other: held[other] for other in together}))
                self.targets.update(
                    {str(s.target): n for n, s in zip(placeholders, specs, strict=True) if n in together}
                )
                continue
            first = states.setdefault(identity(tensor), node)
            if first is node:
                name = self.free_name(self.names.get(id(tensor), spec.target))
                self.params[name] = tensor.detach().clone()  # the model may go on changing its own
                self._state(node, StateSlot(name), self.type_of(tensor))
            self.handles[node] = self.handles[first]
            self.targets[spec.target] = node

    def _shared_state(self, name: str, tensors: Mapping[Any, torch.Tensor]) -> None:
        """One state for tensors of the model that are parts of each other's memory: each is a window of it."""
        dtypes = {tensor.dtype for tensor in tensors.values()}
        if len(dtypes) > 1:
            names = ", ".join(node.name for node in tensors)
            raise error("FORGE-C005", f"{names} share memory as several dtypes", help="clone one of them")
        some = next(iter(tensors.values()))
        first = min(byte_range(tensor).first for tensor in tensors.values()) // some.element_size()
        last = max(byte_range(tensor).last for tensor in tensors.values()) // some.element_size()
        line = some.detach().as_strided((last - first,), (1,), first).clone()
        self.params[name] = line
        self.location = to_attribute(place_of(next(user for node in tensors for user in node.users)))
        owner = self._new_state(name, StateSlot(name), self.type_of(line), first)
        for node, tensor in tensors.items():
            seen = {"size": tuple(tensor.shape), "stride": tensor.stride(), "storage_offset": tensor.storage_offset()}
            overload = torch.ops.aten.as_strided.default
            self.handles[node] = self._strided(owner, tensor, overload, seen, self.type_of(tensor))

    def _user_input(self, node: Any, spec: Any, leaf: int) -> None:
        if not isinstance(spec.arg, TensorArgument):
            value = node.meta.get("val", getattr(spec.arg, "value", None))
            if isinstance(value, torch.SymInt):
                value = self.symbols.extent(value)
            self.fixed[leaf] = value
            self.handles[node] = value
            return
        kind = self.type_of(node.meta["val"])
        self.inputs.append(leaf)
        if node.name in self.written:
            argument = self._state(node, StateSlot(node.name, leaf), kind)
            self.input_storages[argument] = self.handles[node].storage
            return
        argument = self.block.insert_arg(kind, len(self.block.args))
        argument.name_hint = hint(node.name)
        self.argument_names[argument] = node.name
        self.handles[node] = fresh(argument, self.symbols.extent(node.meta["val"].storage_offset()))
        self.input_storages[argument] = self.handles[node].storage

    def _state(self, node: Any, slot: StateSlot, kind: AnyTensorType) -> SSAValue:
        origin = self.symbols.extent(node.meta["val"].storage_offset())
        self.handles[node] = self._new_state(node.name, slot, kind, origin)
        return self.states[-1][2]

    def _new_state(self, name: str, slot: StateSlot, kind: AnyTensorType, origin: Extent) -> Handle:
        argument = self.block.insert_arg(StateType(kind), len(self.block.args))
        argument.name_hint = hint(name)
        self.argument_names[argument] = name
        read = StateReadOp.create(operands=[argument], result_types=[kind], location=self.location)
        handle = fresh(self.insert(read), origin)
        self.states.append((slot, handle, argument))
        return handle

    def _constant_input(self, node: Any, spec: Any) -> None:
        if spec.kind in HELD:
            if node.users:
                tensor = self._tensor(spec.target)
                kind = self.type_of(tensor)
                if spec.kind == InputKind.CONSTANT_TENSOR and _is_written_out(tensor, kind):
                    number = ConstantOp.create(properties={"value": literal(tensor, kind)}, result_types=[kind])
                    self.handles[node] = fresh(self.insert(number))  # of the model's code, no weight
                    self.literals.append(number)
                else:
                    self.handles[node] = fresh(self.param(self.names.get(id(tensor), spec.target), tensor))
        elif node.users:
            raise error("FORGE-C004", f"input {node.name!r} of kind {spec.kind.name} cannot be captured")

    def _place_literals(self) -> None:
        """Each number of the model's code stands where it is used first: in its layer, which is like others then."""
        position = {op: index for index, op in enumerate(self.block.ops)} if self.literals else {}
        for number in self.literals:
            users: set[Operation] = set()
            for use in number.result.uses:
                user: Operation | None = use.operation
                while user is not None and user.parent is not self.block:
                    user = user.parent_op()
                if user is not None:
                    users.add(user)
            if users:
                number.detach()
                self.block.insert_op_before(number, min(users, key=position.__getitem__))

    def _tensor(self, target: str | None) -> torch.Tensor:
        found = self.program.state_dict.get(str(target))
        tensor = self.program.constants[str(target)] if found is None else found
        assert isinstance(tensor, torch.Tensor), "the signature says that it is a tensor"
        return tensor

    def _finish(self, output: Any) -> Conversion:
        specs = self.program.graph_signature.output_specs
        results = output.args[0]
        handles: list[tuple[Handle, Any]] = []
        outputs: list[int | None] = []
        literals: dict[int, Any] = {}
        numbers: set[int] = set()
        for spec, node in zip(specs, results, strict=True):
            if spec.kind in MUTATIONS or spec.kind == OutputKind.TOKEN:
                continue
            held = self.handles[node] if isinstance(node, torch.fx.Node) else node
            if isinstance(held, Handle):
                outputs.append(len(handles))
                handles.append((held, node))
            elif isinstance(held, (Step, Number)):
                numbers.add(len(outputs))
                outputs.append(len(handles))
                handles.append((fresh(compute(self, held)), node))
            else:
                literals[len(outputs)] = held
                outputs.append(None)
        self._mutations(specs, results)
        storages = [held.storage for held, _ in handles]
        for storage in {*storages} - {handle.storage for _, handle, _ in self.states}:
            self._lay(storage)
        for held, _ in handles:
            if held.storage.written and storages.count(held.storage) > 1 and not held.opaque:
                held.version = -1  # what was written through a view is said again, as a view of what the others view
        early = {node: self._value(held, node) for held, node in handles if not self._is_in_written_input(held)}
        states = [self._last_version(*state) for state in self.states]
        returned = [early[node] if node in early else self._value(held, node) for held, node in handles]
        ending = ReturnOp(*returned, *states)
        ending.location = next((op.location for op in reversed(list(self.block.ops)) if is_known(op)), ending.location)
        self.builder.insert(ending)
        self._locate()
        self._place_literals()
        slots = {argument: slot for slot, _, argument in self.states}
        infos = [self._argument_info(argument, slots.get(argument)) for argument in self.block.args]
        function = FuncOp(
            "forward",
            (list(self.block.arg_types), [v.type for v in (*returned, *states)]),
            Region(self.block),
            arg_attrs=ArrayAttr([info.attribute() for info in infos]),
        )
        relations = constraints(self.program, self.symbols)
        module = ModuleOp([*self._symbol_ops(), *relations, *self.header, function])
        return Conversion(
            module,
            self.params,
            self.inputs,
            self.fixed,
            [s for s, _, _ in self.states],
            outputs,
            literals,
            numbers,
            self._memory([held for held, _ in handles]),
            self.symbols,
        )

    def _lay(self, storage: Storage) -> None:
        """What was written into a tensor that is returned lies as the tensor did, not as what was copied into it."""
        if storage.written and types.strides(storage.value) != types.strides(storage.kind):
            location = storage.value.owner.location if isinstance(storage.value.owner, Operation) else None
            copy = CopyOp.create(operands=[storage.value], result_types=[storage.kind], location=location)
            storage.value = self.insert(copy)
            storage.version += 1

    def _last_version(self, slot: StateSlot, handle: Handle, argument: SSAValue) -> SSAValue:
        """The state at the end. An input that was written is read again after that, so that the results which are
        views of it are views of the caller's tensor.
        """
        storage = handle.storage
        other = self.rebound.get(handle)
        if other is not None:
            value = other.value(self.builder.insert)
            if value.type != storage.kind:
                value = self.insert(CopyOp.create(operands=[value], result_types=[storage.kind]))
            write = StateWriteOp.create(operands=[argument, value], result_types=[argument.type])
            return self.insert(write)
        if not storage.written:
            return argument
        location = storage.value.owner.location if isinstance(storage.value.owner, Operation) else None
        write = StateWriteOp.create(operands=[argument, storage.value], result_types=[argument.type], location=location)
        last = self.insert(write)
        if slot.input_index is not None:
            assert isinstance(argument.type, StateType)
            read = StateReadOp.create(operands=[last], result_types=[storage.kind], location=location)
            storage.value = self.insert(read)
            storage.version += 1
        return last

    def _is_in_written_input(self, held: Handle) -> bool:
        """True for results that the caller can read through a tensor that the model has written."""
        inputs = {handle.storage for slot, handle, _ in self.states if slot.input_index is not None}
        return held.storage.written and held.storage in inputs and not held.opaque

    def _memory(self, results: Sequence[Handle]) -> list[int]:
        """The number of each result's memory: its input's, else one of its own."""
        numbers = {storage: number for number, storage in enumerate(self.input_storages.values())}
        return [numbers.setdefault(held.storage, len(numbers)) for held in results]

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
                used = (operand for inner in op.walk() for operand in inner.operands)
                following.update(dict.fromkeys(used, op.location))

    def _argument_info(self, argument: SSAValue, slot: StateSlot | None) -> ArgumentInfo:
        if slot is None or slot.input_index is not None:
            storage = self.input_storages[argument]
            origin = storage.origin if storage.relies_on_place and isinstance(storage.origin, int) else None
            name = self.argument_names[argument]
            return ArgumentInfo(name, slot is not None, storage.relies_on_layout, offset=origin)
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
                "minimum": ExtentAttr(max(low or 0, 0)),
            }
            if high is not None and high >= 0:
                properties["maximum"] = ExtentAttr(high)
            ops.append(SymbolOp.create(properties=properties))
        return ops


def _sharing_memory(held: Mapping[Any, torch.Tensor]) -> dict[Any, list[Any]]:
    """For each of the model's tensors that is used, those that share bytes with it, directly or through others."""
    ranges = {node: byte_range(tensor) for node, tensor in held.items() if node.users}
    found: dict[Any, list[Any]] = {}
    group: list[Any] = []
    storage, end = None, 0
    for node, place in sorted(ranges.items(), key=lambda item: (item[1].storage, item[1].first)):
        if place.storage != storage or place.first >= end:
            group, storage, end = [], place.storage, 0
        group.append(node)
        found[node], end = group, max(end, place.last)
    return found


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
