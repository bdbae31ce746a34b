"""What one group does: the streams of the loops one after the other, the loops around them, and what stands between."""

from __future__ import annotations

from collections.abc import Iterable

from xdsl.dialects import scf
from xdsl.dialects.builtin import TensorType
from xdsl.ir import Block, BlockArgument, Operation, Region, SSAValue

from forgec.ir.locations import inherit
from forgec.ir.tile.memory import LoadOp
from forgec.ir.tile.types import INDEX
from forgec.ir.warp.asynchronous import AsyncLoadOp, CopyOp, WaitOp
from forgec.ir.warp.channels import ConsumedOp, GetOp, PutOp
from forgec.ir.warp.kernel import GroupOp
from forgec.passes.schedule.body import only_multiplied
from forgec.passes.schedule.counts import Counts
from forgec.passes.schedule.division import Division, Effect, Exit
from forgec.passes.schedule.flow import Flow, number_of, operands, refusal
from forgec.passes.schedule.frame import Frame
from forgec.passes.schedule.level import Level
from forgec.passes.schedule.nest import yielded
from forgec.passes.schedule.stream_parts import Scope
from forgec.passes.schedule.streams import Stream
from forgec.passes.schedule.trips import Trips


class GroupBody:
    """Writes the body of a group."""

    def __init__(self, frame: Frame, division: Division, finals: dict[Exit, SSAValue], number: int) -> None:
        self.frame, self.division, self.finals, self.number = frame, division, finals, number
        self.nest = frame.nest
        handed = [each for each, (home, takers) in division.handed.items() if number == home or number in takers]
        self.counts = Counts(self.nest, frame.counters(number, handed), self.bounds, frame.scope)
        self.level = Level(frame.kernel.body.block, frame.scope)
        self._before = {op for block in self.nest.blocks() for op in self._ops_before(block)}

    def _ops_before(self, block: Block) -> set[Operation]:
        """The ops of a block before its first loop."""
        found: set[Operation] = set()
        for op in block.ops:
            if op in self.nest.by_loop or op in self.nest.inside:
                break
            found.add(op)
        return found

    def write(self) -> GroupOp:
        """The group."""
        self._block(self.level)
        group = self.frame.schedule.groups[self.number]
        made = GroupOp(group.name, group.warps, group.registers, Region(self.level.joined()))
        inherit(made, self.frame.flows[0].loop)
        return made

    # Loops

    def _block(self, level: Level) -> None:
        """The loops of a block, and effects before, between and after them."""
        self._effects(self.division.effects.get((self.number, level.block, 0), ()), level.head)
        for place, loop in enumerate(self.nest.loops(level.block), 1):
            if loop in self.nest.by_loop:
                self._scheduled(self.nest.by_loop[loop])
            else:
                self._around(loop)
            self._effects(self.division.effects.get((self.number, level.block, place), ()), level.main)

    def _scheduled(self, flow: Flow) -> None:
        level = self.level
        exits = self.division.exits.get((flow.number, self.number), ())
        stream = level.streams[flow] = Stream(flow, self, exits, level)
        stream.write()
        for (carried, part), (home, _) in self.division.handed.items():
            if home == self.number and carried.block is flow.block:
                value = stream.result(carried, part)
                level.main.add(PutOp(self.finals[carried, part], self._turn(level), value))
        self.counts.advance(flow)

    def _around(self, loop: scf.ForOp) -> None:
        """A loop around scheduled ones: it carries what the group has of what the kernel's loop carries, and counts."""
        outer, counters = self.level, self.counts.within(loop)
        carried = self.division.carried.get((loop, self.number), [])
        if not counters and not self.division.works(loop, self.number):
            return
        start = [self.outer(loop.iter_args[number], part) for number, part in carried]
        start += [self.counts.value(counter, outer.main) for counter in counters]
        lower, upper, step = (self.outer(bound, None) for bound in (loop.lb, loop.ub, loop.step))
        body = Block(arg_types=[INDEX, *(value.type for value in start)])
        for old, new in zip(loop.body.block.args, body.args, strict=False):
            new.name_hint = old.name_hint if old.type == new.type else None
        inner = self.level = Level(loop.body.block, outer.main, outer, body)
        inner.carried = dict(zip(carried, body.args[1:], strict=False))
        for counter, value in zip(counters, body.args[1 + len(carried) :], strict=True):
            value.name_hint = "count"
            self.counts.set(counter, value)
        self._block(inner)
        after = [self.outer(yielded(loop)[number], part) for number, part in carried]
        self.counts.turn(loop)
        after += [self.counts.value(counter, inner.main) for counter in counters]
        inner.main.add(scf.YieldOp(*after))
        self.level = outer
        made = scf.ForOp(lower, upper, step, start, inner.joined())
        outer.main.add(made, loop)
        outer.results[loop] = dict(zip(carried, made.results, strict=False))
        for counter, value in zip(counters, made.results[len(carried) :], strict=True):
            self.counts.set(counter, value)

    def _turn(self, level: Level) -> SSAValue:
        """The number of times that a block has run before."""
        loop = self.nest.loop_of(level.block)
        return self.frame.constant(0) if loop is None else self.counts.value(loop, level.main)

    def _effects(self, effects: Iterable[Effect], scope: Scope) -> None:
        for op, part in effects:
            values = {operand: self.outer(operand, part, scope) for operand in operands(op)}
            self.frame.guarded(scope, part, lambda inner, op=op, values=values: inner.add(op.clone(values)))

    def bounds(self, flow: Flow) -> Trips:
        """How often a loop runs: in the turn of the loops around it that is written."""
        if flow in self.frame.trips:
            return self.frame.trips[flow]
        level = self._level(flow.loop.parent_block())
        if flow not in level.bounds:
            level.bounds[flow] = Trips(flow, self.frame, level.main, self.outer)
        return level.bounds[flow]

    # Values

    def _level(self, block: Block | None) -> Level:
        level = self.level.of(block)
        if level is None:
            raise refusal(self.frame.kernel, "a value of an inner block is read outside of it")
        return level

    def outer(self, value: SSAValue, part: int | None, needed: Scope | None = None) -> SSAValue:
        """What a value from outside of the scheduled loops is in this group. ``needed``: by an op that is written
        there; else by a loop.
        """
        owner = value.owner
        if self.frame.is_uniform(value):
            return self.frame.uniform(value, part)
        carried, result = self.nest.carried(value), self.nest.flow_of(value)
        if carried is not None:
            loop, number = carried
            which = number, self.nest.part(value, part)
            if isinstance(owner, Block):
                return self._level(owner).carried[which]
            return self._level(loop.parent_block()).results[loop][which]
        if isinstance(owner, Block):
            return self._level(owner).body.args[0]
        level = self._level(owner.parent_block())
        if result is not None:
            return self._result(*result, part, level)
        scope = level.head if owner in self._before else level.main
        key = ("outer", owner, part if any(result in self.frame.apart for result in owner.results) else None)
        found = scope.find(key)
        if found is None:
            values = {operand: self.outer(operand, part, scope) for operand in operands(owner)}
            found = scope.known[key] = scope.add(self._copied(owner, values, part), owner)
        if isinstance(found, AsyncLoadOp):
            self._wait(found.token, level.head if needed is level.head else level.main)
        return found.results[number_of(value)]

    def _copied(self, op: Operation, values: dict[SSAValue, SSAValue], part: int | None) -> Operation:
        """An op from outside of the scheduled loops. Tiles from before them are loaded side by side, and waited for
        where one is needed: into shared memory if products of this group alone read them.
        """
        if op not in self._before or not isinstance(op, LoadOp) or not isinstance(op.result.type, TensorType):
            return op.clone(values)
        alone = self.division.takers(op.result, part) <= {self.number} and only_multiplied(op.result)
        return AsyncLoadOp(op, [values[operand] for operand in op.operands], "shared" if alone else "register")

    def _wait(self, token: SSAValue, scope: Scope) -> None:
        if scope.find(("waited", token)) is None:
            scope.add(WaitOp(token))
            scope.known["waited", token] = True

    def _result(self, flow: Flow, carried: BlockArgument, part: int | None, level: Level) -> SSAValue:
        """The result of a loop that has been written: this group's own, or a copy of another one's."""
        exit_ = (carried, part)
        stream = level.streams[flow]
        if exit_ in stream.exits:
            return stream.result(*exit_)
        key = ("last", exit_)
        found = level.main.find(key)
        if found is None:
            ring, turn = self.finals[exit_], self._turn(level)
            slot = level.main.add(GetOp(ring, turn)).results[0]
            found = level.main.known[key] = level.main.add(CopyOp(slot)).results[0]
            level.main.add(ConsumedOp(ring, turn))
        return found
