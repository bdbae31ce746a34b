"""forge → plan: every value gets a register, every op becomes launches (or nothing, where it only renames bytes)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from xdsl.context import Context
from xdsl.dialects.builtin import IntAttr, ModuleOp, StringAttr, UnitAttr
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Attribute, Block, Operation, Region, SSAValue
from xdsl.passes import ModulePass

from forgec.backends.base import Backend, backend_for
from forgec.backends.plan_builder import PlanBuilder
from forgec.diagnostics import error
from forgec.ir import plan, types
from forgec.ir.attributes import ArgsAttr, StateType
from forgec.ir.entry import EntryInfo, argument_info
from forgec.ir.locations import inherit, location_of
from forgec.ir.ops.module import ConstantOp, ParamOp, ParamRefOp, StateReadOp, StateWriteOp
from forgec.passes.decompose import Decompose
from forgec.runtime.plan import Reg


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

    Requires: one block per function. Ensures: no forge op is left but ``forge.symbol``; every launch has its op's
    location; no two values that are live at the same time share bytes unless one is a view of the other.
    """

    name = "lower-to-plan"

    target: str = "cpu"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        backend = backend_for(self.target)
        Decompose(self.target).apply(ctx, op)
        for child in list(op.ops):
            if isinstance(child, FuncOp):
                entry = _Lowering(child, backend).run()
                child.parent_block().insert_op_before(entry, child)  # type: ignore[union-attr]
                child.detach()
                child.erase()
        for child in list(op.ops):
            if isinstance(child, ParamOp):
                child.detach()
                child.erase()


class _Lowering:
    def __init__(self, function: FuncOp, backend: Backend) -> None:
        self.function = function
        self.backend = backend
        self.block = Block()
        self.builder = PlanBuilder(function, self.block)
        self.params: dict[str, SSAValue] = {}

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
                if info.inout:
                    properties["inout"] = UnitAttr()
                op = plan.InputOp.create(properties=properties, result_types=[held])
                index += 1
            op.results[0].name_hint = argument.name_hint
            self.builder.declare(argument, op)

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
        for leaf in info.leaves(len(values)):
            if isinstance(leaf, Reg):
                register = self._returned(values[leaf.id])
                leaves.append(Reg(len(registers)))
                registers.append(register)
            else:
                leaves.append(leaf)
        ret = plan.ReturnOp.create(operands=registers, properties={"leaves": ArgsAttr.of(leaves)}, location=op.location)
        self.block.add_op(ret)

    def _returned(self, value: SSAValue) -> SSAValue:
        """A register that the caller may keep: values that ended up in the arena are copied out."""
        b = self.builder
        place = b.place(value)
        if isinstance(place.storage.owner, plan.BufferOp):
            if isinstance(value.owner, Operation):
                b.location = value.owner.location
            fresh = b.allocate(types.tensor(types.dtype(place.type), types.shape(place.type)), escaping=True)
            b.launch("aten::copy_", [fresh, place], writes=[fresh])
            place = fresh
        return b.view(place, place.type)
