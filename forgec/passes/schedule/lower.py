"""From a tile kernel and a schedule of its loop to groups of warps.

What stands outside of the loop is divided among the groups as they need it. Numbers and views are the same for all and
computed once. Tiles from before the loop are computed (or loaded) in each group that reads them. What comes after the
loop is done in the group that has the result which it takes most of; a result that another group has comes through a
channel of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from xdsl.dialects import arith, scf
from xdsl.dialects.builtin import IntegerAttr, TensorType
from xdsl.ir import Block, BlockArgument, Operation, Region, SSAValue

from forgec.ir.attributes import ExtentsAttr
from forgec.ir.locations import inherit
from forgec.ir.tile.compute import IndexOp
from forgec.ir.tile.elementwise import CmpiOp
from forgec.ir.tile.kernel import KernelOp, ProgramIdOp, ReturnOp
from forgec.ir.tile.memory import GatherOp, LoadOp, ScatterOp, SortOp, StoreOp
from forgec.ir.warp.channels import ConsumedOp, CreateOp, GetOp, PutOp
from forgec.ir.warp.kernel import GroupOp
from forgec.ir.warp.kernel import KernelOp as WarpKernelOp
from forgec.ir.warp.types import ScheduleAttr, ScheduleSummary
from forgec.passes.schedule.body import bytes_of
from forgec.passes.schedule.extract import Extracted
from forgec.passes.schedule.flow import EFFECTS, Flow, number_of, operands, refusal
from forgec.passes.schedule.stream_parts import Scope
from forgec.passes.schedule.stream_writer import Writer
from forgec.passes.schedule.streams import Stream
from forgec.runtime.symbolic import Extent, floordiv, sym_max, sym_min, symbol
from forgec.schedule.schedule import Schedule

WRITERS = (StoreOp, ScatterOp, SortOp)

Exit = tuple[BlockArgument, int | None]
"""A carried value whose last is read after the loop, for a part."""


def lower(kernel: KernelOp, extracted: Extracted, schedule: Schedule) -> WarpKernelOp:
    """The kernel as the schedule says, of the same name, not yet in any module.

    Raises:
        ForgecError: FORGE-S020, where the schedule does not say all that it takes: several phases; a value that
            crosses groups and has no buffers; a loop in a loop; memory that the kernel reads and writes; a loop that
            begins elsewhere for each part.
    """
    if len(schedule.phases) != 1:
        raise refusal(kernel, f"it has {len(schedule.phases)} phases, one loop is lowered")
    if extracted.loop.parent_op() is not kernel:
        raise refusal(kernel, "the loop is part of another loop or of a branch", extracted.loop)
    flow = Flow(kernel, extracted, schedule)
    check_memory(flow)
    frame = Frame(flow)
    division = Division(flow)
    for channel in flow.channels:
        op = CreateOp(channel.value.type, channel.depth, len(channel.readers), channel.memory)
        frame.ring(op, channel.title)
        frame.rings[channel.holder.name, channel.value] = op.ring
    for (carried, part), (_, takers) in division.handed.items():
        op = CreateOp(carried.type, 1, len(takers), "shared")
        frame.ring(op, f"last_{carried.name_hint or carried.index}" + ("" if part is None else f"_{part}"))
        frame.finals[carried, part] = op.ring
    for number, group in enumerate(schedule.groups):
        stream = Stream(flow, frame, number, division.exits.get(number, ()))
        frame.write(stream, division)
        body = stream.head.block
        for op in list(stream.main.block.ops):
            op.detach()
            body.add_op(op)
        made = GroupOp(group.name, group.warps, group.registers, Region(body))
        inherit(made, extracted.loop)
        frame.groups.append(made)
    return frame.finished()


def check_memory(flow: Flow) -> None:
    """Groups are not ordered against each other by what they write: refuse kernels in which that would matter."""
    kernel = flow.kernel
    written = {kernel.parameters[position] for position in kernel.writes.data}
    inside: dict[SSAValue, set[Operation]] = {}
    outside: set[SSAValue] = set()
    for op in kernel.body.walk():
        if isinstance(op, (LoadOp, GatherOp, SortOp)) and flow.body.root(op.block) in written:
            raise refusal(kernel, "it reads memory that it writes", op)
        if isinstance(op, (StoreOp, ScatterOp)):
            if _is_inside(op, flow.loop):
                inside.setdefault(flow.body.root(op.block), set()).add(op)
            else:
                outside.add(flow.body.root(op.block))
    for block, ops in inside.items():
        if len(ops) > 1 or block in outside:
            raise refusal(kernel, "several stores may meet in memory", next(iter(ops)))


def _written(op: StoreOp | ScatterOp | SortOp) -> SSAValue:
    return op.places if isinstance(op, SortOp) else op.block


def _is_inside(op: Operation, outer: Operation) -> bool:
    found: Operation | None = op
    while found is not None and found is not outer:
        found = found.parent_op()
    return found is outer


@dataclass
class Division:
    """Which group does what stands outside of the loop."""

    flow: Flow
    effects: dict[int, list[tuple[Operation, int | None]]] = field(default_factory=dict)
    exits: dict[int, list[Exit]] = field(default_factory=dict)
    handed: dict[Exit, tuple[int, set[int]]] = field(default_factory=dict)
    """Results of the loop that another group takes: who has them, and who takes them."""

    def __post_init__(self) -> None:
        flow = self.flow
        groups = flow.schedule.groups
        main = max(range(len(groups)), key=lambda number: (groups[number].warps, -number))
        parts = [None] if flow.extracted.axis is None else range(flow.extracted.parts)
        homes: dict[tuple[SSAValue, int | None], int] = {}
        for op in flow.kernel.body.block.ops:
            if op is flow.loop or not any(isinstance(each, EFFECTS) for each in op.walk()):
                continue
            results = self._results(op)
            for part in parts:
                blocks = [flow.body.root(_written(each)) for each in op.walk() if isinstance(each, WRITERS)]
                known = {homes[block, part] for block in blocks if (block, part) in homes}
                if len(known) > 1:
                    raise refusal(flow.kernel, "its stores cannot be divided among the groups", op)
                group = known.pop() if known else self._best(results, part, main)
                homes.update({(block, part): group for block in blocks})
                self.effects.setdefault(group, []).append((op, part))
                for number in results:
                    self._take(flow.block.args[number + 1], part, group)

    def _best(self, results: list[int], part: int | None, main: int) -> int:
        for number in sorted(results, key=lambda number: -bytes_of(self.flow.loop.results[number])):
            home = self._home(self.flow.block.args[number + 1], part)
            if home is not None:
                return home
        return main

    def _take(self, carried: BlockArgument, part: int | None, group: int) -> None:
        home = self._home(carried, part)
        home = group if home is None else home
        self.exits.setdefault(home, []).append((carried, part))
        if home != group:
            self.handed.setdefault((carried, part), (home, set()))[1].add(group)

    def _home(self, carried: BlockArgument, part: int | None) -> int | None:
        """The group that has a result of the loop; None for one that no op of the loop computes."""
        found: set[int] = set()
        for value, _, _, _ in self.flow.sources(carried, part):
            maker = self.flow.maker(value, part)
            if maker is not None:
                found.add(maker.group)
        if len(found) > 1:
            raise refusal(self.flow.kernel, f"result {carried.index - 1} is computed of what several groups have")
        return found.pop() if found else None

    def _results(self, op: Operation) -> list[int]:
        """The numbers of the loop's results that an op depends on."""
        found: dict[int, None] = {}
        seen: set[Operation] = set()
        waiting = [op]
        while waiting:
            for operand in operands(waiting.pop()):
                owner = operand.owner
                if owner is self.flow.loop:
                    found[number_of(operand)] = None
                elif not isinstance(owner, Block) and owner not in seen:
                    seen.add(owner)
                    waiting.append(owner)
        return sorted(found)


class Frame:
    """The kernel around the groups: its parameters, what is the same for all groups, and the channels."""

    def __init__(self, flow: Flow) -> None:
        self.flow, self.kernel, self.loop = flow, flow.kernel, flow.loop
        self.parts, self.axis = flow.extracted.parts, flow.extracted.axis
        block = Block(arg_types=[parameter.type for parameter in self.kernel.parameters])
        for new, old in zip(block.args, self.kernel.parameters, strict=True):
            new.name_hint = old.name_hint
        self.scope = Scope(block)
        self.rings: dict[tuple[str, SSAValue], SSAValue] = {}
        self.finals: dict[Exit, SSAValue] = {}
        self.groups: list[GroupOp] = []
        self._channels: list[Operation] = []
        self.apart: set[SSAValue] = (
            flow.body.depends_on(self.axis) if self.axis is not None and self.parts > 1 else set()
        )
        self._before = self._ops_before()
        for bound in (self.loop.lb, self.loop.ub, self.loop.step):
            if bound in self.apart and bound is not self.loop.ub:
                raise refusal(self.kernel, "where its loop begins, or its step, differs from part to part", self.loop)
            if not self._is_uniform(bound):
                raise refusal(self.kernel, "the bounds of its loop are computed of tiles", self.loop)
        self.lower, self.step = self._number(self.loop.lb, None), self._number(self.loop.step, None)
        self.alike = self.loop.ub not in self.apart
        """Whether the loop runs equally often for all parts."""

    def _ops_before(self) -> set[Operation]:
        found: set[Operation] = set()
        for op in self.kernel.body.block.ops:
            if op is self.loop:
                break
            found.add(op)
        return found

    def _number(self, value: SSAValue, part: int | None) -> Extent | SSAValue:
        owner = value.owner
        if isinstance(owner, IndexOp) and not owner.inputs:
            return owner.expression.data
        if isinstance(owner, arith.ConstantOp) and isinstance(owner.value, IntegerAttr):
            return owner.value.value.data
        return self._uniform(value, part)

    def trips_of(self, parts: set[int | None]) -> int | SSAValue:
        """How often the loop runs in a group with ops of these parts (None: what the parts share)."""
        if self.alike or not parts:
            return self._trips(None)
        if len(parts) > 1:
            raise refusal(self.kernel, "how often its loop runs differs between parts of one group", self.loop)
        (part,) = parts
        if part is not None:
            return self._trips(part)
        counts = [self._trips(part) for part in range(self.parts)]
        inputs = [count for count in counts if not isinstance(count, int)]
        return self.scope.index(sym_max(*(symbol(f"p{place}") for place in range(len(inputs)))), inputs)

    def _trips(self, part: int | None) -> int | SSAValue:
        inputs: list[SSAValue] = []

        def term(value: Extent | SSAValue) -> Extent:
            if not isinstance(value, SSAValue):
                return value
            inputs.append(value)
            return symbol(f"p{len(inputs) - 1}")

        length, step = term(self._number(self.loop.ub, part)) - term(self.lower), term(self.step)
        count = sym_max(floordiv(length + (step - 1), step), 0)
        if isinstance(count, int):
            return count
        found = self.scope.index(count, inputs)
        if inputs:  # expressions take their symbols for extents, and a bound may be negative
            count_of = ("trips", found)
            if count_of not in self.scope.known:
                op = arith.MaxSIOp(found, self.constant(0))
                self.scope.known[count_of] = self.scope.add(op).results[0]
            found = self.scope.known[count_of]
        found.name_hint = "trips"
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
        self._channels.append(inherit(op, self.loop))

    def _is_uniform(self, value: SSAValue) -> bool:
        owner = value.owner
        if isinstance(owner, Block):
            return owner is self.kernel.body.block
        if owner.parent_op() is not self.kernel or owner.regions or isinstance(owner, EFFECTS):
            return False
        if any(isinstance(result.type, TensorType) for result in owner.results):
            return False
        return all(self._is_uniform(operand) for operand in owner.operands)

    def _part(self, value: SSAValue, part: int | None) -> int | None:
        return part if value in self.apart else None

    def _uniform(self, value: SSAValue, part: int | None) -> SSAValue:
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
            values = {operand: self._uniform(operand, part) for operand in owner.operands}
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
        scope.add(scf.IfOp(condition, [], Region(inner.block)), self.loop)

    # What groups need of what is outside of the loop

    def outer(self, value: SSAValue, part: int | None, stream: Writer) -> SSAValue:
        """A value from outside of the loop, for a group."""
        owner = value.owner
        if self._is_uniform(value):
            return self._uniform(value, part)
        if isinstance(owner, Block):
            raise refusal(self.kernel, "a value of an inner block is read outside of it")
        if owner is self.loop:
            return self._result(self.flow.block.args[number_of(value) + 1], part, stream)
        scope = stream.head if owner in self._before else stream.main
        key = ("outer", owner, part if any(result in self.apart for result in owner.results) else None)
        found = scope.find(key)
        if found is None:
            values = {operand: self.outer(operand, part, stream) for operand in operands(owner)}
            found = scope.known[key] = scope.add(owner.clone(values))
        return found.results[number_of(value)]

    def _result(self, carried: BlockArgument, part: int | None, stream: Writer) -> SSAValue:
        exit_ = (carried, part)
        if exit_ in stream.exits:
            return stream.result(carried, part)
        key = ("last", exit_)
        found = stream.main.find(key)
        if found is None:
            ring = self.finals[exit_]
            found = stream.main.known[key] = stream.main.add(GetOp(ring, self.constant(0))).results[0]
            stream.taken.append(ring)
        return found

    def write(self, stream: Stream, division: Division) -> None:
        """Write the stream of a group, with what it does before and after the loop."""
        effects = division.effects.get(stream.group, [])
        for op, part in effects:
            if op in self._before:
                self._effect(stream, stream.head, op, part)
        stream.write()
        for (carried, part), (home, _) in division.handed.items():
            if home == stream.group:
                value = stream.result(carried, part)
                stream.main.add(PutOp(self.finals[carried, part], self.constant(0), value))
        for op, part in effects:
            if op not in self._before:
                self._effect(stream, stream.main, op, part)
        for ring in stream.taken:
            stream.main.add(ConsumedOp(ring, self.constant(0)))

    def _effect(self, stream: Stream, scope: Scope, op: Operation, part: int | None) -> None:
        values = {operand: self.outer(operand, part, stream) for operand in operands(op)}
        self.guarded(scope, part, lambda inner: inner.add(op.clone(values)))

    # The result

    def finished(self) -> WarpKernelOp:
        """The kernel."""
        block = self.scope.block
        used = {operand for group in self.groups for op in group.walk() for operand in op.operands}
        for op in self._channels:
            if op.results[0] in used:  # of no iterations nothing is handed over
                block.add_op(op)
        for group in self.groups:
            block.add_op(group)
        block.add_op(inherit(ReturnOp(), self.kernel))
        properties = dict(self.kernel.properties)
        if self.parts > 1 and self.axis is not None:
            grid = list(self.kernel.grid.data)
            grid[self.axis] = floordiv(self._programs + (self.parts - 1), self.parts)
            properties["grid"] = ExtentsAttr(grid)
        properties["schedule"] = ScheduleAttr(_summary(self.flow.schedule))
        found = WarpKernelOp.create(
            properties=properties, attributes=dict(self.kernel.attributes), regions=[Region(block)]
        )
        inherit(found, self.kernel)
        return found


def _summary(schedule: Schedule) -> ScheduleSummary:
    (phase,) = schedule.phases
    bounds = () if schedule.certificate is None else schedule.certificate.bounds
    largest = max(bounds, key=lambda bound: bound.cycles, default=None)
    if largest is None:
        return ScheduleSummary(phase.ii, 0, "", phase.stages)
    return ScheduleSummary(phase.ii, largest.cycles, largest.name, phase.stages)
