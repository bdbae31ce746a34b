"""The kernel around the groups: its parameters, what is the same for all groups, channels, and the groups' bodies."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from xdsl.dialects import scf
from xdsl.dialects.builtin import IntAttr, TensorType
from xdsl.ir import Block, BlockArgument, Operation, Region, SSAValue

from forgec.ir.attributes import ExtentsAttr
from forgec.ir.locations import inherit
from forgec.ir.tile.compute import IndexOp
from forgec.ir.tile.elementwise import CmpiOp
from forgec.ir.tile.kernel import ProgramIdOp, ReturnOp
from forgec.ir.warp.channels import ConsumedOp, CreateOp, GetOp, PutOp
from forgec.ir.warp.kernel import GroupOp
from forgec.ir.warp.kernel import KernelOp as WarpKernelOp
from forgec.ir.warp.types import ScheduleAttr, ScheduleSummary
from forgec.passes.schedule.body import bounding
from forgec.passes.schedule.division import Division, Effect, Exit
from forgec.passes.schedule.flow import EFFECTS, Flow, number_of, operands, refusal
from forgec.passes.schedule.stream_parts import Scope
from forgec.passes.schedule.streams import Stream
from forgec.passes.schedule.trips import Trips
from forgec.runtime.symbolic import Extent, floordiv, sym_min, symbol
from forgec.schedule.schedule import Schedule


@dataclass(frozen=True)
class Ring:
    """A channel as one loop uses it. ``before``: the loops whose iterations have put something into it before."""

    op: CreateOp
    before: tuple[Flow, ...]


@dataclass
class GroupBody:
    """The body of a group. ``head``: what it computes before the first loop. ``taken``: channels of single values that
    it has got, and frees at its end.
    """

    frame: Scope
    head: Scope = field(init=False)
    main: Scope = field(init=False)
    taken: list[SSAValue] = field(default_factory=list)
    streams: dict[Flow, Stream] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.head = Scope(Block(), self.frame)
        self.main = Scope(Block(), self.head)

    def joined(self) -> Block:
        """One block of it."""
        for op in list(self.main.block.ops):
            op.detach()
            self.head.block.add_op(op)
        return self.head.block


class Frame:
    """The kernel around the groups: its parameters, what is the same for all groups, and the channels."""

    def __init__(self, flows: Sequence[Flow]) -> None:
        self.flows, flow = flows, flows[0]
        self.kernel, self.schedule = flow.kernel, flow.schedule
        self.parts, self.axis = flow.extracted.parts, flow.extracted.axis
        self.by_loop: dict[Operation, Flow] = {each.loop: each for each in flows}
        block = Block(arg_types=[parameter.type for parameter in self.kernel.parameters])
        for new, old in zip(block.args, self.kernel.parameters, strict=True):
            new.name_hint = old.name_hint
        self.scope = Scope(block)
        self.finals: dict[Exit, SSAValue] = {}
        self.groups: list[GroupOp] = []
        self._channels: list[CreateOp] = []
        self.apart: set[SSAValue] = (
            flow.body.depends_on(self.axis) if self.axis is not None and self.parts > 1 else set()
        )
        self._before = self._ops_before()
        self._known: dict[SSAValue, bool] = {}
        self._bounding = bounding(self.kernel)
        self.trips = {each: Trips(each, self) for each in flows}
        self.rings: dict[tuple[str, SSAValue], Ring] = {}
        self._add_rings()

    def _ops_before(self) -> set[Operation]:
        found: set[Operation] = set()
        for op in self.kernel.body.block.ops:
            if op in self.by_loop:
                break
            found.add(op)
        return found

    # What is the same for all groups

    def constant(self, number: int) -> SSAValue:
        """A number."""
        return self.scope.index(number)

    def at_least(self, trips: int | SSAValue, count: int) -> SSAValue:
        """Whether there are so many iterations."""
        found = self.scope.find(("at least", trips, count))
        if found is None:
            assert not isinstance(trips, int), "known numbers are compared while lowering"
            op = CmpiOp(trips, self.constant(count), "sge")
            found = self.scope.known["at least", trips, count] = self.scope.add(op).results[0]
        return found

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
        if owner.parent_op() is not self.kernel or owner in self.by_loop:
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

    # What groups need of what is outside of the loop

    def outer(self, value: SSAValue, part: int | None, place: GroupBody) -> SSAValue:
        """A value from outside of the loop, for a group."""
        owner = value.owner
        if self.is_uniform(value):
            return self.uniform(value, part)
        if isinstance(owner, Block):
            raise refusal(self.kernel, "a value of an inner block is read outside of it")
        if owner in self.by_loop:
            return self._result(self.by_loop[owner], number_of(value), part, place)
        scope = place.head if owner in self._before else place.main
        key = ("outer", owner, part if any(result in self.apart for result in owner.results) else None)
        found = scope.find(key)
        if found is None:
            values = {operand: self.outer(operand, part, place) for operand in operands(owner)}
            found = scope.known[key] = scope.add(owner.clone(values))
        return found.results[number_of(value)]

    def _result(self, flow: Flow, number: int, part: int | None, place: GroupBody) -> SSAValue:
        exit_ = (flow.block.args[number + 1], part)
        stream = place.streams[flow]
        if exit_ in stream.exits:
            return stream.result(*exit_)
        key = ("last", exit_)
        found = place.main.find(key)
        if found is None:
            ring = self.finals[exit_]
            found = place.main.known[key] = place.main.add(GetOp(ring, self.constant(0))).results[0]
            place.taken.append(ring)
        return found

    def write(self, number: int, division: Division) -> None:
        """Write what a group does: the streams of the loops one after the other, and what stands around them."""
        place = GroupBody(self.scope)
        self._effects(division.effects.get((number, 0), ()), place.head, place)
        for position, flow in enumerate(self.flows):
            stream = Stream(flow, self, number, division.exits.get((position, number), ()), place)
            place.streams[flow] = stream
            stream.write()
            for (carried, part), (home, _) in division.handed.items():
                if home == number and carried.block is flow.block:
                    value = stream.result(carried, part)
                    place.main.add(PutOp(self.finals[carried, part], self.constant(0), value))
            self._effects(division.effects.get((number, position + 1), ()), place.main, place)
        for ring in place.taken:
            place.main.add(ConsumedOp(ring, self.constant(0)))
        group = self.schedule.groups[number]
        made = GroupOp(group.name, group.warps, group.registers, Region(place.joined()))
        inherit(made, self.flows[0].loop)
        self.groups.append(made)

    def _effects(self, effects: Iterable[Effect], scope: Scope, place: GroupBody) -> None:
        for op, part in effects:
            values = {operand: self.outer(operand, part, place) for operand in operands(op)}
            self.guarded(scope, part, lambda inner, op=op, values=values: inner.add(op.clone(values)))

    # Channels

    def _add_rings(self) -> None:
        """A ring for each value that groups hand to one another. What several loops have under one name has one ring,
        whose numbers go on from loop to loop.
        """
        made: dict[str, tuple[CreateOp, int, list[Flow]]] = {}
        for flow in self.flows:
            for channel in flow.channels:
                op = CreateOp(channel.value.type, channel.depth, len(channel.readers), channel.memory)
                if channel.title not in made:
                    self.ring(op, channel.title)
                    made[channel.title] = op, channel.holder.group, []
                old, group, users = made[channel.title]
                if group != channel.holder.group or old.ring.type != op.ring.type or old.memory != op.memory:
                    raise refusal(self.kernel, f"two loops have other values or groups for {channel.title}")
                if old.readers.data < op.readers.data:
                    old.readers = op.readers
                self.rings[channel.holder.name, channel.value] = Ring(old, tuple(users))
                users.append(flow)

    def number(self, ring: Ring, group: int, number: SSAValue, scope: Scope) -> SSAValue:
        """The number in a ring of what is put in an iteration of a loop: those of the loops before come first."""
        counts = [self.trips[flow].of({node.part for node in flow.in_group(group)}) for flow in ring.before]
        known = sum(count for count in counts if isinstance(count, int))
        inputs = [number, *(count for count in counts if not isinstance(count, int))]
        expression = sum((symbol(f"p{place}") for place in range(1, len(inputs))), symbol("p0") + known)
        return scope.index(expression, inputs) if ring.before else number

    # The result

    def _drop_unread(self) -> None:
        """Results of loops that a group might have needed, had there been no iterations, and does not."""
        finals = set(self.finals.values())
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

    def finished(self) -> WarpKernelOp:
        """The kernel."""
        block = self.scope.block
        self._drop_unread()
        used = {operand for group in self.groups for op in group.walk() for operand in op.operands}
        for op in self._channels:
            if op.ring in used:  # of no iterations nothing is handed over
                block.add_op(op)
        for group in self.groups:
            block.add_op(group)
        block.add_op(inherit(ReturnOp(), self.kernel))
        properties = dict(self.kernel.properties)
        if self.parts > 1 and self.axis is not None:
            grid = list(self.kernel.grid.data)
            grid[self.axis] = floordiv(self._programs + (self.parts - 1), self.parts)
            properties["grid"] = ExtentsAttr(grid)
        properties["schedule"] = ScheduleAttr(_summary(self.schedule))
        found = WarpKernelOp.create(
            properties=properties, attributes=dict(self.kernel.attributes), regions=[Region(block)]
        )
        inherit(found, self.kernel)
        return found


def _summary(schedule: Schedule) -> ScheduleSummary:
    """Of several loops that of the one that takes most cycles."""
    phase = max(schedule.phases, key=lambda phase: phase.ii * phase.graph.trips)
    bounds = () if schedule.certificate is None or phase is not schedule.phases[-1] else schedule.certificate.bounds
    largest = max(bounds, key=lambda bound: bound.cycles, default=None)
    if largest is None:
        return ScheduleSummary(phase.ii, 0, "", phase.stages)
    return ScheduleSummary(phase.ii, largest.cycles, largest.name, phase.stages)
