"""The kernel around the groups: its parameters, what is the same for all groups, and channels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from xdsl.dialects import scf
from xdsl.dialects.builtin import IntAttr, TensorType
from xdsl.ir import Block, BlockArgument, Region, SSAValue

from forgec.ir.attributes import ExtentsAttr
from forgec.ir.locations import inherit
from forgec.ir.tile.compute import IndexOp
from forgec.ir.tile.elementwise import CmpiOp
from forgec.ir.tile.kernel import ProgramIdOp, ReturnOp
from forgec.ir.warp.channels import ConsumedOp, CreateOp
from forgec.ir.warp.kernel import GroupOp
from forgec.ir.warp.kernel import KernelOp as WarpKernelOp
from forgec.ir.warp.types import ScheduleAttr, ScheduleSummary
from forgec.passes.schedule.body import bounding
from forgec.passes.schedule.counts import Counter, Ring
from forgec.passes.schedule.division import Exit
from forgec.passes.schedule.flow import EFFECTS, number_of, operands, refusal
from forgec.passes.schedule.nest import Nest
from forgec.passes.schedule.stream_parts import Scope
from forgec.passes.schedule.trips import Trips
from forgec.runtime.symbolic import Extent, floordiv, sym_min, symbol
from forgec.schedule.machine import Machine
from forgec.schedule.report import bounds_of
from forgec.schedule.schedule import Schedule


class Frame:
    """The kernel around the groups: its parameters, what is the same for all groups, and the channels."""

    def __init__(self, nest: Nest) -> None:
        self.nest, self.flows, flow = nest, nest.flows, nest.flows[0]
        self.kernel, self.schedule = flow.kernel, flow.schedule
        self.parts, self.axis = flow.extracted.parts, flow.extracted.axis
        block = Block(arg_types=[parameter.type for parameter in self.kernel.parameters])
        for new, old in zip(block.args, self.kernel.parameters, strict=True):
            new.name_hint = old.name_hint
        self.scope = Scope(block)
        self._channels: list[CreateOp] = []
        self.apart: set[SSAValue] = (
            flow.body.depends_on(self.axis) if self.axis is not None and self.parts > 1 else set()
        )
        self._known: dict[SSAValue, bool] = {}
        self._bounding = bounding(self.kernel)
        self._check_loops()
        outermost = [each for each in self.flows if each.loop.parent_op() is self.kernel]
        self.trips = {each: Trips(each, self, self.scope, self.uniform) for each in outermost}
        """Of the loops that are part of no other one."""
        self.rings: dict[tuple[str, SSAValue], Ring] = {}
        self._add_rings()

    def _check_loops(self) -> None:
        """How often loops run is the same for all groups, and known to all."""
        for loop in (*self.nest.inside, *self.nest.by_loop):
            assert isinstance(loop, scf.ForOp), "there are no other loops"
            is_known = self.is_uniform if loop.parent_op() is self.kernel else self.nest.is_common
            if not all(map(is_known, (loop.lb, loop.ub, loop.step))):
                raise refusal(self.kernel, "the bounds of its loop are computed of what a scheduled loop makes", loop)
            if loop in self.nest.inside and any(bound in self.apart for bound in (loop.lb, loop.ub, loop.step)):
                raise refusal(self.kernel, "how often a loop around others runs differs from part to part", loop)

    # What is the same for all groups

    def constant(self, number: int) -> SSAValue:
        """A number."""
        return self.scope.index(number)

    def ring(self, op: CreateOp, title: str) -> None:
        """Add a channel."""
        op.ring.name_hint = f"{title}_ring".replace(".", "_").replace("-", "_")
        inherit(op, self.flows[0].loop)
        self._channels.append(op)

    def is_uniform(self, value: SSAValue) -> bool:
        """Whether a number or a view is computed once, before the groups."""
        return not isinstance(value.type, TensorType) and self._is_known(value)

    def _is_known(self, value: SSAValue) -> bool:
        if value not in self._known:
            self._known[value] = self._looks_known(value)
        return self._known[value]

    def _looks_known(self, value: SSAValue) -> bool:
        owner = value.owner
        if isinstance(owner, Block):
            return owner is self.kernel.body.block
        if owner.parent_op() is not self.kernel or owner in self.nest.by_loop or owner in self.nest.inside:
            return False
        if any(isinstance(each, EFFECTS) for each in owner.walk()):
            return False
        has_tiles = owner.regions or any(isinstance(result.type, TensorType) for result in owner.results)
        if has_tiles and owner not in self._bounding:
            return False
        return all(self._is_known(operand) for operand in operands(owner))

    def _part(self, value: SSAValue, part: int | None) -> int | None:
        return part if value in self.apart else None

    def uniform(self, value: SSAValue, part: int | None) -> SSAValue:
        """What is computed once, before the groups, of a value from outside of the loops."""
        owner = value.owner
        if isinstance(owner, Block):
            assert isinstance(value, BlockArgument), "blocks own their arguments"
            return self.scope.block.args[value.index]
        if isinstance(owner, ProgramIdOp) and owner.axis.data == self.axis and self.parts > 1:
            assert part is not None, "what differs from part to part is read by parts"
            return self._program(part)
        if isinstance(owner, IndexOp) and isinstance(owner.expression.data, int):
            return self.constant(owner.expression.data)
        key = ("outer", owner, self._part(value, part))
        found = self.scope.find(key)
        if found is None:
            values = {operand: self.uniform(operand, part) for operand in operands(owner)}
            found = self.scope.known[key] = self.scope.add(owner.clone(values))
        return found.results[number_of(value)]

    # Parts

    @property
    def _programs(self) -> Extent:
        assert self.axis is not None, "there are parts"
        return self.kernel.grid.data[self.axis]

    @property
    def _divides(self) -> bool:
        programs = self._programs
        return isinstance(programs, int) and programs % self.parts == 0

    def _own_program(self) -> SSAValue:
        assert self.axis is not None, "there are parts"
        found = self.scope.find("program")
        if found is None:
            found = self.scope.known["program"] = self.scope.add(ProgramIdOp(self.axis)).results[0]
        return found

    def _program(self, part: int) -> SSAValue:
        """The program that a part runs as; the last one instead of one that there is not."""
        number = symbol("p0") * self.parts + part
        if part and not self._divides:
            number = sym_min(number, self._programs - 1)
        return self.scope.index(number, [self._own_program()])

    def guarded(self, scope: Scope, part: int | None, write: Callable[[Scope], object]) -> None:
        """Write what has effects: where parts may be more than there are programs, only if there is one for this."""
        if not part or self.parts == 1 or self._divides:
            write(scope)
            return
        condition = self.scope.find(("valid", part))
        if condition is None:
            number = self.scope.index(symbol("p0") * self.parts + part, [self._own_program()])
            op = CmpiOp(number, self.scope.index(self._programs), "slt")
            condition = self.scope.known["valid", part] = self.scope.add(op).results[0]
        inner = Scope(Block(), scope)
        write(inner)
        inner.add(scf.YieldOp())
        scope.add(scf.IfOp(condition, [], Region(inner.block)), self.flows[0].loop)

    # Channels

    def _add_rings(self) -> None:
        """A ring for each value that groups hand to one another. What several loops have under one name has one ring,
        whose numbers go on from loop to loop.
        """
        made: dict[str, tuple[Ring, int]] = {}
        for flow in self.flows:
            for channel in flow.channels:
                op = CreateOp(channel.value.type, channel.depth, len(channel.readers), channel.memory)
                if channel.title not in made:
                    self.ring(op, channel.title)
                    made[channel.title] = Ring(op), channel.holder.group
                ring, group = made[channel.title]
                old = ring.op
                if group != channel.holder.group or old.ring.type != op.ring.type or old.memory != op.memory:
                    raise refusal(self.kernel, f"two loops have other values or groups for {channel.title}")
                if old.readers.data < op.readers.data:
                    old.readers = op.readers
                self.rings[channel.holder.name, channel.value] = ring
                ring.users.append((flow, channel.holder.part))

    def counters(self, group: int, handed: Iterable[Exit]) -> list[Counter]:
        """What a group counts: for the rings that it uses, and for the results of loops that it hands on or takes."""
        found: dict[Counter, None] = {}
        for flow in self.flows:
            for channel in flow.channels:
                if group in (channel.holder.group, *(node.group for node, _ in channel.readers)):
                    found[self.rings[channel.holder.name, channel.value].counter] = None
        for carried, _ in handed:
            outer = self.nest.loop_of(self.nest.block_of(carried))
            if outer is not None:
                found[outer] = None
        return list(found)

    # The result

    def _drop_unread(self, finals: set[SSAValue]) -> None:
        """Results of loops that a group might have needed, had there been no iterations, and does not."""
        for op in self._channels:
            if op.ring in finals:
                users = [use.operation for use in op.ring.uses]
                readers = sum(isinstance(user, ConsumedOp) for user in users)
                if readers:
                    op.readers = IntAttr(readers)
                else:
                    for user in users:
                        user.detach()
                        user.erase()

    def finished(self, groups: Sequence[GroupOp], finals: Iterable[SSAValue], machine: Machine) -> WarpKernelOp:
        """The kernel. ``finals``: the channels through which results of loops go."""
        block = self.scope.block
        self._drop_unread(set(finals))
        used = {operand for group in groups for op in group.walk() for operand in op.operands}
        for op in self._channels:
            if op.ring in used:  # of no iterations nothing is handed over
                block.add_op(op)
        for group in groups:
            block.add_op(group)
        block.add_op(inherit(ReturnOp(), self.kernel))
        properties = dict(self.kernel.properties)
        if self.parts > 1 and self.axis is not None:
            grid = list(self.kernel.grid.data)
            grid[self.axis] = floordiv(self._programs + (self.parts - 1), self.parts)
            properties["grid"] = ExtentsAttr(grid)
        properties["schedule"] = ScheduleAttr(_summary(self.schedule, machine))
        found = WarpKernelOp.create(
            properties=properties, attributes=dict(self.kernel.attributes), regions=[Region(block)]
        )
        inherit(found, self.kernel)
        return found


def _summary(schedule: Schedule, machine: Machine) -> ScheduleSummary:
    """Of several loops that of the one that takes most cycles."""
    phase = max(schedule.phases, key=lambda phase: phase.ii * phase.graph.trips)
    largest = max(bounds_of(schedule, phase, machine), key=lambda bound: bound.cycles)
    status = schedule.certificate.status if schedule.certificate else "timeout"
    return ScheduleSummary(phase.ii, largest.cycles, largest.name, phase.stages, status)
