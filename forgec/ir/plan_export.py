"""The plan dialect → the runtime's plan: the same registers and launches, as data."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from xdsl.dialects.builtin import DenseIntOrFPElementsAttr, ModuleOp
from xdsl.ir import Operation, SSAValue

from forgec.diagnostics import Location
from forgec.ir import plan, types
from forgec.ir.liveness import Ranges, live_ranges
from forgec.ir.locations import location_of
from forgec.ir.ops.module import ConstraintOp, SymbolOp
from forgec.runtime import plan as data
from forgec.runtime import tree
from forgec.runtime.symbolic import SymExpr


@dataclass
class ExportedPlan:
    """The plan, and the literal tensors that it refers to as parameters, by name."""

    plan: data.Plan
    constants: dict[str, DenseIntOrFPElementsAttr] = field(default_factory=dict)


def export_plan(module: ModuleOp, torch_version: str = "") -> ExportedPlan:
    """The runtime's form of every ``plan.entry`` of a module. Requires ``allocate-buffers`` to have run."""
    result = ExportedPlan(data.Plan(()))
    symbols: list[data.SymbolDecl] = []
    constraints: list[data.Constraint] = []
    entries: list[data.Entry] = []
    locations: dict[Location, int] = {}
    for op in module.ops:
        if isinstance(op, SymbolOp):
            symbols.append(data.SymbolDecl(op.sym_name.data, op.label.data, *op.bounds))
        elif isinstance(op, ConstraintOp):
            constraints.append(replace(op.constraint, location=_number_of(location_of(op), locations)))
        elif isinstance(op, plan.EntryOp):
            entries.append(_Entry(op, locations, result.constants).run())
    result.plan = data.Plan(
        tuple(entries), tuple(symbols), tuple(locations), torch_version, constraints=tuple(constraints)
    )
    return result


def _number_of(place: Location | None, locations: dict[Location, int]) -> int:
    return -1 if place is None else locations.setdefault(place, len(locations))


class _Entry:
    def __init__(self, entry: plan.EntryOp, locations: dict[Location, int], constants: dict[str, Any]) -> None:
        self.entry = entry
        self.locations = locations
        self.constants = constants
        self.ranges: Ranges = live_ranges(entry)
        self.numbers: dict[SSAValue, int] = {}
        self.registers: list[data.Register] = []
        self.launches: list[data.Launch] = []

    def run(self) -> data.Entry:
        outputs: list[data.ResultLeaf] = []
        inputs: dict[int, int] = {}
        for op in self.entry.body.block.ops:
            if isinstance(op, plan.LaunchOp):
                self._launch(op)
            elif isinstance(op, plan.ReturnOp):
                outputs = [self._result(leaf, op.operands) for leaf in op.leaves.arguments[0]]
            elif isinstance(op, plan.RegisterOp):
                if isinstance(op, plan.InputOp):
                    inputs[op.index.data] = len(self.registers)
                self._register(op.result, self._describe(op))
        leaves: list[data.Leaf] = []
        for position, leaf in enumerate(self.entry.inputs.arguments[0]):
            if isinstance(leaf, data.Reg):
                number = inputs[leaf.id]
                register = self.registers[number]
                assert isinstance(register, data.Input)
                self.registers[number] = replace(register, index=position)
                leaves.append(number)
            else:
                leaves.append(leaf if isinstance(leaf, SymExpr) else data.Literal(leaf))
        return data.Entry(
            self.entry.sym_name.data,
            tuple(self.registers),
            tuple(self.launches),
            tuple(leaves),
            tuple(outputs),
            tree.from_json(json.loads(self.entry.in_tree.data)),
            tree.from_json(json.loads(self.entry.out_tree.data)),
            tuple(str(name) for name in self.entry.parameters.arguments[0]),
            _integer(self.entry.arena_bytes),
            _integer(self.entry.peak_bytes),
            self.entry.private is not None,
            () if self.entry.given is None else tuple(map(str, self.entry.given.data)),
        )

    def _result(self, leaf: data.Arg, operands: Sequence[SSAValue]) -> data.ResultLeaf:
        if isinstance(leaf, data.Reg):
            return self.numbers[operands[leaf.id]]
        if isinstance(leaf, tuple) and len(leaf) == 1 and isinstance(leaf[0], data.Reg):
            return data.Number(self.numbers[operands[leaf[0].id]])
        return leaf if isinstance(leaf, SymExpr) else data.Literal(leaf)

    def _register(self, value: SSAValue, register: data.Register) -> None:
        self.numbers[value] = len(self.registers)
        self.registers.append(register)

    def _describe(self, op: plan.RegisterOp) -> data.Register:
        spec = spec_of(op.result)
        if isinstance(op, plan.InputOp):
            place = None if op.offset is None else op.offset.data
            flags = op.inout is not None, op.exact is not None
            return data.Input(spec, op.index.data, op.label.data, *flags, offset=place)
        if isinstance(op, plan.ParamOp):
            return data.Param(spec, op.label.data)
        if isinstance(op, plan.ConstantOp):
            return data.Param(spec, self._constant(op.value))
        if isinstance(op, plan.StateOp):
            return data.State(spec, op.label.data, op.zeros is not None)
        if isinstance(op, plan.BufferOp):
            first, last = self.ranges[op.result]
            return data.Buffer(spec, op.nbytes.data, _integer(op.offset), first, last)
        if isinstance(op, plan.OutputOp):
            return data.Output(spec)
        assert isinstance(op, plan.ViewOp)
        return data.View(spec, self.numbers[op.base], op.offset.data)

    def _constant(self, value: DenseIntOrFPElementsAttr) -> str:
        for name, known in self.constants.items():
            if known == value:
                return name
        name = f"constant.{len(self.constants)}"
        self.constants[name] = value
        return name

    def _launch(self, op: plan.LaunchOp) -> None:
        results: list[int | None] = []
        for result in op.results:
            first, last = self.ranges[result]
            self._register(result, data.External(spec_of(result), first, last))
            results.append(self.numbers[result])
        numbers = [self.numbers[v] for v in op.operands]
        args, kwargs = op.arguments
        self.launches.append(
            data.Launch(
                op.callee.data,
                tuple(_renumber(a, numbers) for a in args),
                tuple((name, _renumber(a, numbers)) for name, a in kwargs),
                tuple(results),
                tuple(numbers[i] for i in op.writes.data),
                () if op.defines is None else tuple(op.defines.arguments[0]),  # type: ignore[arg-type]
                op.source.data,
                self._location(op),
            )
        )

    def _location(self, op: Operation) -> int:
        place = location_of(op)
        return _number_of(place, self.locations)


def spec_of(value: SSAValue) -> data.TensorSpec:
    """The tensor spec of a register."""
    return data.TensorSpec(types.dtype(value), types.shape(value), types.strides(value))


def _renumber(arg: data.Arg, numbers: list[int]) -> data.Arg:
    if isinstance(arg, data.Reg):
        return data.Reg(numbers[arg.id])
    return tuple(_renumber(item, numbers) for item in arg) if isinstance(arg, tuple) else arg


def _integer(attribute: Any) -> int | None:
    return attribute.data if attribute is not None and isinstance(attribute.data, int) else None
