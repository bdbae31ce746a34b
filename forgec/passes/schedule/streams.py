"""The stream of one group: its steps before the loop is full, the loop, and the steps in which it runs empty.

Values that live from one step to later ones are carried by the loop, one copy for each step (modulo variable expansion,
Lam 1988, without the unrolling: a backend that unrolls by the number of copies moves none of them). Where the number of
iterations is not known, steps are guarded, so that the stream is right for any number of them from 0 on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from xdsl.dialects import scf
from xdsl.ir import Block, BlockArgument, SSAValue

from forgec.ir.tile.elementwise import CmpiOp
from forgec.ir.tile.types import INDEX
from forgec.passes.schedule.flow import Channel, Flow, Node, operands, refusal
from forgec.passes.schedule.stream_parts import Kept, Pair, Scope, Turn, is_read_later
from forgec.passes.schedule.stream_writer import Writer
from forgec.runtime.symbolic import symbol

if TYPE_CHECKING:
    from forgec.passes.schedule.group_body import GroupBody
    from forgec.passes.schedule.level import Level


class Stream(Writer):
    """Writes the ops of one group. ``exits`` are the loop's results that are read after it in this group."""

    def __init__(
        self,
        flow: Flow,
        body: GroupBody,
        exits: Sequence[tuple[BlockArgument, int | None]],
        place: Level,
    ) -> None:
        super().__init__(flow, body, exits, place)
        self.filling = max([self.stages - 1, *self._decisions()])
        self.state = {
            kept: [self._virtual(kept, -age - kept.holder.stage) for age in range(1, kept.ages + 1)]
            for kept in self.kept
        }

    def _decisions(self) -> Iterator[int]:
        """The first steps at which no op reads what stood for a carried value before the loop."""
        for node in self.nodes:
            for use in self.flow.uses(node):
                if use.chain and (use.holder.group != self.group or not use.plain):
                    yield node.stage + len(use.chain)
            for op in node.ops:
                for operand in operands(op):
                    yield from (node.stage + distance for distance in self.flow.decided(operand, node.part))

    # The stream

    def write(self) -> None:
        """All of it; the group's body then goes on after the loop."""
        if self.nodes:
            self._fill()
            self._steady()
            self._drain()

    def _fill(self) -> None:
        trips = self.trips
        for number in range(self.filling if not isinstance(trips, int) else min(self.filling, trips)):
            if isinstance(trips, int):
                self.state = self._run(Turn("at", number), number)
                continue
            before = self.state
            inner = Scope(Block(), self.scope)
            after, self.scope = self._inside(inner, lambda number=number: self._run(Turn("at", number), number))
            results = self._if(
                self.bounds.at_least(self.trips, number + 1), inner, self._flat(after), self._flat(before)
            )
            self.state = self._unflat(results)

    def _steady(self) -> None:
        trips = self.trips
        if isinstance(trips, int) and trips <= self.filling:
            return
        flat = [self._real(value, kind) for value, kind in self._flat(self.state)]
        body = Block(arg_types=[INDEX, *(value.type for value in flat)])
        body.args[0].name_hint = "step"
        inner = Scope(body, self.scope)
        self.number, self.state = body.args[0], self._unflat(body.args[1:])
        after, self.scope = self._inside(inner, lambda: self._run(Turn("step", 0), None))
        inner.add(scf.YieldOp(*(self._real(value, kind) for value, kind in self._flat(after))))
        end = trips if not isinstance(trips, int) else self.frame.constant(trips)
        loop = scf.ForOp(self.frame.constant(self.filling), end, self.frame.constant(1), flat, body)
        self.scope.add(loop, self.flow.loop)
        self.number, self.state = None, self._unflat(loop.results)

    def _run(self, turn: Turn, number: int | None) -> dict[Kept, list[Pair]]:
        """One step; what is kept after it. ``number``: of a step before the loop is full."""
        self.step = {}
        for node in self.nodes:
            if number is None or node.stage <= number:
                self._node(node, turn.before(node.stage))
            else:
                for kept in self._made(node):
                    self.step[kept] = self._virtual(kept, number - node.stage)
        return {kept: [self.step.get(kept, Pair()), *before][: kept.ages] for kept, before in self.state.items()}

    def _drain(self) -> None:
        self.at_end = True
        for kept, pairs in self.state.items():
            for age, pair in enumerate(pairs, 1):
                self.labels[kept, age + kept.holder.stage] = pair
        ends = [node.stage + distance for channel in self.flow.channels for node, distance in channel.readers]
        for step in range(max([self.stages - 1, *ends])):
            done = [(node.stage if node.stage > step else -1, node) for node in self.nodes]
            for stage, run in groupby(done, key=lambda each: each[0]):
                nodes = [node for _, node in run]
                if stage < 0:
                    for node in nodes:
                        self._pass(node, step)
                else:
                    self._last(nodes, step, stage - step)
        if not self.bounds.alike and not self.is_mixed and any(node.part is not None for node in self.nodes):
            self._pass_rest()

    def _last(self, nodes: Sequence[Node], step: int, before: int) -> None:
        """Ops of one iteration near the end."""
        if not isinstance(self.trips, int):
            self._guarded(nodes, step, before)
        elif self.trips >= before:
            for node in nodes:
                self._node(node, Turn("end", before))
        else:
            for node in nodes:
                for kept in self._made(node):
                    self.labels[kept, before] = self._virtual(kept, self.trips - before)

    def _guarded(self, nodes: Sequence[Node], step: int, before: int) -> None:
        """Ops of one iteration near the end, if there are so many iterations."""
        inner, labels = Scope(Block(), self.scope), self.labels
        self.labels = dict(labels)
        _, self.scope = self._inside(inner, lambda: [self._node(node, Turn("end", before)) for node in nodes])
        made, self.labels = self.labels, labels
        wanted = [kept for node in nodes for kept in self._made(node) if is_read_later(kept, nodes, step, before)]
        there = [each for kept in wanted for each in self._flat({kept: [made[kept, before]]})]
        missing: dict[Kept, list[Pair]] = {}
        for kept in wanted:
            if len(kept.chain) > 1:
                raise refusal(self.flow.kernel, "a value is carried through two iterations of an unknown number")
            missing[kept] = [self._virtual(kept, -1)]
        results = self._if(self.bounds.at_least(self.trips, before), inner, there, self._flat(missing))
        for kept, pairs in self._unflat(results, dict.fromkeys(wanted, 1)).items():
            self.labels[kept, before] = pairs[0]

    # What is put and not read: it is freed where it would be read, so that nobody waits for another order

    def _pass(self, node: Node, step: int) -> None:
        """Frees what an op would read in a step after its last iteration."""
        for channel, distance in self.channels_of(node):
            before = distance + node.stage - step
            if before > 0:
                number = self.at(Turn("end", before))
                self._when_there_are(
                    before,
                    lambda channel=channel, distance=distance, number=number: self.free(
                        channel, node, distance, number
                    ),
                )
            if self._is_of_more(node, channel):
                self._free_if_put(channel, node, distance, self.at(Turn("end", node.stage - step)))

    def _is_of_more(self, node: Node, channel: Channel) -> bool:
        """Whether a channel holds something of iterations that other parts have and this one does not."""
        is_fewer = not self.bounds.alike and not self.is_mixed and node.part is not None
        return is_fewer and channel.holder.part is None

    def _pass_rest(self) -> None:
        """The steps that other parts have and this one does not."""
        most = self.bounds.of({None})
        assert isinstance(most, SSAValue), "parts that differ have numbers that depend on the program"
        assert isinstance(self.trips, SSAValue), "as above"
        body = Block(arg_types=[INDEX])
        body.args[0].name_hint = "step"
        inner = Scope(body, self.scope)

        def write() -> None:
            for node in self.nodes:
                for channel, distance in self.channels_of(node):
                    if self._is_of_more(node, channel):
                        if distance:
                            raise refusal(self.flow.kernel, "parts that differ read what they share an iteration later")
                        number = self.scope.index(symbol("p0") - node.stage, [body.args[0]])
                        self._free_if_put(channel, node, distance, number)

        _, self.scope = self._inside(inner, write)
        inner.add(scf.YieldOp())
        first, last = (self.bounds.scope.index(symbol("p0") + (self.stages - 1), [each]) for each in (self.trips, most))
        self.scope.add(scf.ForOp(first, last, self.frame.constant(1), [], body), self.flow.loop)

    def _free_if_put(self, channel: Channel, node: Node, distance: int, number: SSAValue) -> None:
        most = self.bounds.of({None})
        assert isinstance(most, SSAValue), "parts that differ have numbers that depend on the program"
        condition = self.scope.add(CmpiOp(number, most, "slt")).results[0]
        inner = Scope(Block(), self.scope)
        _, self.scope = self._inside(inner, lambda: self.free(channel, node, distance, number))
        self._if(condition, inner, [], [])
