"""forge → plan: every value gets a register, every op becomes launches (or nothing, where it only renames bytes)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from xdsl.context import Context
from xdsl.dialects.builtin import IntAttr, LocationAttr, ModuleOp, StringAttr, UnitAttr
from xdsl.dialects.func import CallOp, FuncOp, ReturnOp
from xdsl.ir import Attribute, Block, Operation, Region, SSAValue
from xdsl.passes import ModulePass

from forgec.backends.base import Backend, backend_for
from forgec.backends.plan_builder import Place, PlanBuilder, Storage, dense, overlaps
from forgec.diagnostics import error
from forgec.ir import plan, types
from forgec.ir.attributes import ArgsAttr, ExtentsAttr, IntsAttr, StateType, SymType
from forgec.ir.entry import EntryInfo, argument_info
from forgec.ir.locations import inherit, is_known, location_of
from forgec.ir.ops.module import ConstantOp, ParamOp, ParamRefOp, StateReadOp, StateWriteOp
from forgec.passes import lower_control_flow
from forgec.passes.cse import Cse
from forgec.passes.cut_segments import CutSegments
from forgec.passes.decompose import Decompose
from forgec.passes.inline_kernels import InlineKernels
from forgec.passes.inline_layers import InlineLayers
from forgec.passes.materialize_masks import MaterializeMasks
from forgec.passes.outline_control_flow import UPDATES, OutlineControlFlow
from forgec.passes.outlining import required_symbols
from forgec.runtime import tree
from forgec.runtime.plan import Reg
from forgec.runtime.symbolic import symbol


@dataclass(frozen=True)
class LowerToPlan(ModulePass):
    """Replace each public function by a ``plan.entry``: registers for its values, launches for its ops.

    Before::

        func.func @forward(%x : tensor<2x3xf32>) -> tensor<2x3xf32> {
          %0 = forge.neg %x : (tensor<2x3xf32>) -> tensor<2x3xf32>
          func.return %0 : tensor<2x3xf32>
        }

    After::

        plan.entry @forward … {
          %x = plan.input 0 "x" : tensor<2x3xf32>
          %0 = plan.output : tensor<2x3xf32>
          plan.launch "aten::neg.out"(%x, out = %0) writes [1] from "forge.neg" : …
          plan.return %0 leaves <(operand<0>)> : …
        }

    Outlined layers and kernels are inlined, masks of attention made, control flow is outlined and functions are cut
    into segments first; private functions become private entries, after the entries that call them. Requires: one block
    per function. Ensures: no forge op is left but ``forge.symbol``; every launch has its op's location; no two values
    that are live at the same time share bytes unless one is a view of the other.

    Order: ``forgec.compile`` runs it after the pipeline that was asked for.
    """

    name = "lower-to-plan"

    target: str = "cpu"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        backend = backend_for(self.target)
        InlineLayers().apply(ctx, op)  # a plan is flat: layers share kernels, not code
        InlineKernels().apply(ctx, op)
        MaterializeMasks(self.target).apply(ctx, op)
        Decompose(self.target).apply(ctx, op)
        Cse().apply(ctx, op)  # what is decomposed may do the same to the same mask
        OutlineControlFlow().apply(ctx, op)
        CutSegments().apply(ctx, op)
        functions = {child.sym_name.data: child for child in op.ops if isinstance(child, FuncOp)}
        called = {name for function in functions.values() for name in _callees(function)}
        for function in _callers_first(functions):
            private = function.sym_name.data in called
            entry = _Lowering(function, backend, functions, private).run()
            op.body.block.add_op(entry)
        for function in functions.values():
            function.detach()
        for function in functions.values():
            function.erase()
        for child in list(op.ops):
            if isinstance(child, ParamOp):
                child.detach()
                child.erase()


def _callees(function: FuncOp) -> list[str]:
    return [op.callee.root_reference.data for op in function.walk() if isinstance(op, CallOp)]


def _callers_first(functions: Mapping[str, FuncOp]) -> list[FuncOp]:
    """The functions in an order in which each comes before those that it calls; FORGE-B002 where they call each other
    in a circle.
    """
    order: list[str] = []
    state: dict[str, bool] = {}

    def visit(name: str) -> None:
        if state.get(name) is False or name not in functions:
            reason = "calls itself" if name in functions else "is called and not defined"
            raise error("FORGE-B002", f"function {name} {reason}")
        if name in state:
            return
        state[name] = False
        for callee in reversed(_callees(functions[name])):
            visit(callee)
        state[name] = True
        order.append(name)

    for name in reversed(list(functions)):
        visit(name)
    return [functions[name] for name in reversed(order)]


class _Lowering:
    def __init__(self, function: FuncOp, backend: Backend, functions: Mapping[str, FuncOp], private: bool) -> None:
        self.function = function
        self.backend = backend
        self.functions = functions
        self.private = private
        pairs = function.attributes.get(UPDATES)
        updates = pairs.data if isinstance(pairs, IntsAttr) else ()
        self.updates = dict(zip(updates[::2], updates[1::2], strict=True))
        """Results that belong into the memory of an argument, by number."""
        self.block = Block()
        self.builder = PlanBuilder(function, self.block)
        self.params: dict[str, SSAValue] = {}
        self.memory: dict[Storage, int] = {}
        """For storages that were returned, the number of the memory that the contract gives to them."""
        self.copies: dict[tuple[Storage | SSAValue, int | None], Place] = {}
        """Copies of storages for results that must not be in them, by the number of their memory."""

    def run(self) -> plan.EntryOp:
        info = EntryInfo.of(self.function)
        self._arguments()
        for position, op in enumerate(self.function.body.block.ops):
            self.builder.enter(op, position)
            if isinstance(op, ReturnOp):
                self._return(op, info)
            else:
                self._lower(op)
        properties: dict[str, Attribute] = {
            "sym_name": self.function.sym_name,
            "inputs": info.inputs,
            "in_tree": info.in_tree,
            "out_tree": info.out_tree,
            "parameters": info.parameters,
        }
        if self.private:
            ending = self.block.last_op
            assert isinstance(ending, plan.ReturnOp)
            _, out_tree = tree.flatten(tuple(range(len(ending.inputs))))
            properties["out_tree"] = StringAttr(json.dumps(tree.to_json(out_tree), separators=(",", ":")))
            names = sorted(required_symbols(self.function, self.functions))
            properties |= {"private": UnitAttr(), "given": ExtentsAttr(symbol(name) for name in names)}
        entry = plan.EntryOp.create(
            properties=properties, regions=[Region(self.block)], location=self.function.location
        )
        return entry

    def _arguments(self) -> None:
        index = 0
        for position, argument in enumerate(self.function.body.block.args):
            info = argument_info(self.function, position)
            held = argument.type.value if isinstance(argument.type, StateType) else types.tensor_type(argument)
            self.builder.location = None
            if isinstance(argument.type, StateType) and not info.inout:
                properties: dict[str, Attribute] = {
                    "label": StringAttr(info.name),
                    **({"zeros": UnitAttr()} if info.zeros else {}),
                }
                op: plan.RegisterOp = plan.StateOp.create(properties=properties, result_types=[held])
            else:
                properties = {"index": IntAttr(index), "label": StringAttr(info.name)}
                if info.inout or position in self.updates.values():
                    properties["inout"] = UnitAttr()
                if info.exact:
                    properties["exact"] = UnitAttr()
                if info.offset is not None:
                    properties["offset"] = IntAttr(info.offset)
                op = plan.InputOp.create(properties=properties, result_types=[held])
                index += 1
            op.results[0].name_hint = argument.name_hint
            self.builder.declare(argument, op)
            if position in self.updates.values():
                self.builder.updated.add(self.builder.place(argument).storage)

    def _lower(self, op: Operation) -> None:
        b = self.builder
        if isinstance(op, ParamRefOp):
            self._param(op)
        elif isinstance(op, ConstantOp):
            b.declare(op.result, plan.ConstantOp.create(properties={"value": op.value}, result_types=[op.result.type]))
        elif isinstance(op, StateReadOp):
            b.alias(op.result, op.state)
        elif isinstance(op, StateWriteOp):
            self._write_state(op)
        elif isinstance(op, lower_control_flow.LOWERED):
            first = self.block.last_op
            lower_control_flow.lower(op, b, self.functions)
            self._inherit(op, first)
        else:
            lowering = self.backend.lowerings.get(type(op))
            if lowering is None:
                raise error(
                    "FORGE-B002",
                    f"{op.name} has no lowering for backend {self.backend.name!r}",
                    location=location_of(op),
                )
            first = self.block.last_op
            lowering(op, b)
            for result in op.results:
                b.lay_out(result)
            self._inherit(op, first)
            for result in op.results:
                register = b.places[result].storage.register
                if register.name_hint is None:
                    register.name_hint = result.name_hint

    def _inherit(self, op: Operation, after: Operation | None) -> None:
        added = self.block.first_op if after is None else after.next_op
        while added is not None:
            inherit(added, op)
            added = added.next_op

    def _param(self, op: ParamRefOp) -> None:
        name = op.param.root_reference.data
        if name not in self.params:
            register = plan.ParamOp.create(properties={"label": StringAttr(name)}, result_types=[op.result.type])
            register.results[0].name_hint = op.result.name_hint
            self.builder.declare(op.result, register)
            self.params[name] = op.result
        else:
            self.builder.alias(op.result, self.params[name])

    def _write_state(self, op: StateWriteOp) -> None:
        b = self.builder
        state, value = b.place(op.state), b.place(op.value)
        in_place = value.storage is state.storage and (value.type, value.offset) == (state.type, state.offset)
        if not in_place:
            b.preserve(state.storage)
            value = b.place(op.value)
            if value.storage is state.storage:  # the state becomes a rearrangement of itself
                value = b.duplicate(value)
            b.launch("aten::copy_", [state, value], writes=[state])
        b.alias(op.result, op.state)

    def _return(self, op: ReturnOp, info: EntryInfo) -> None:
        registers: list[SSAValue] = []
        leaves: list[Any] = []
        values = [v for v in op.arguments if not isinstance(v.type, StateType)]
        for number, argument in self.updates.items():
            self._update(self.function.body.block.args[argument], values[number])
        values = [value for number, value in enumerate(values) if number not in self.updates]
        memory: list[Any] = [None] * len(values) if info.memory is None else list(info.memory.data)
        for leaf in info.leaves(len(values)):
            if isinstance(leaf, Reg):
                number = memory[leaf.id]
                register = self._returned(values[leaf.id], number, sum(m == number for m in memory) > 1, op.location)
                leaves.append(Reg(len(registers)))
                registers.append(register)
            elif isinstance(leaf, tuple):  # the number in a tensor
                (item,) = leaf
                assert isinstance(item, Reg), "a tuple among the leaves holds one register"
                leaves.append((Reg(len(registers)),))
                registers.append(self._returned(values[item.id], None, False, op.location))
            else:
                leaves.append(leaf)
        ret = plan.ReturnOp.create(operands=registers, properties={"leaves": ArgsAttr.of(leaves)}, location=op.location)
        self.block.add_op(ret)

    def _update(self, argument: SSAValue, value: SSAValue) -> None:
        """Put a result into the memory of an argument."""
        b = self.builder
        target, source = b.place(argument), b.place(value)
        if (target.storage, target.offset, target.type) == (source.storage, source.offset, source.type):
            return
        b.preserve(target.storage)
        source = b.place(value)
        if source.storage is target.storage:
            source = b.duplicate(source)
        b.launch("aten::copy_", [target, source], writes=[target])

    def _returned(self, value: SSAValue, memory: int | None, shared: bool, returned: LocationAttr) -> SSAValue:
        """A register that the caller may keep. Values are copied out that ended up in the arena, or in memory that is
        not theirs (because passes have found them equal to an input or to another result). ``shared``: another result
        is in the same memory, so one copy of the whole serves both.
        """
        b = self.builder
        place = b.place(value)
        storage, owner = place.storage, place.storage.owner
        kept = isinstance(owner, (plan.ParamOp, plan.ConstantOp, plan.StateOp))
        located = isinstance(value.owner, Operation) and is_known(value.owner)
        repeats = overlaps(place.type)
        if kept and not ((shared or repeats) and memory is not None and located):
            return b.view(place, place.type)  # copied by the runtime
        known = owner.index.data if isinstance(owner, plan.InputOp) else self.memory.get(storage, memory)
        packed = repeats and not isinstance(value.type, SymType) and not overlaps(types.tensor_type(value))
        if kept or packed or isinstance(owner, plan.BufferOp) or (memory is not None and known != memory):
            whole = types.tensor_type(storage.register)
            wanted = place.type if isinstance(value.type, SymType) else types.tensor_type(value)
            moved = packed or (dense(wanted) == wanted and types.strides(wanted) != types.strides(place.type))
            gaps = dense(wanted) != wanted
            shared = (shared or kept or gaps) and memory is not None and dense(whole) == whole and not moved
            source = Place(storage, whole) if shared else place
            copied = self.copies.get((storage if shared else value, memory))
            if copied is None:
                b.location = value.owner.location if isinstance(value.owner, Operation) else returned
                exact = not shared and not isinstance(value.type, SymType)
                strides = types.strides(value if exact else source.type)
                kind = types.tensor(types.dtype(source.type), types.shape(source.type), strides)
                copied = b.allocate(dense(kind), escaping=True)
                b.launch("aten::copy_", [copied, source], writes=[copied])
                self.copies[storage if shared else value, memory] = copied
            place = Place(copied.storage, place.type, place.offset) if shared else copied
        if memory is not None:
            self.memory[place.storage] = memory
        return b.view(place, place.type)
