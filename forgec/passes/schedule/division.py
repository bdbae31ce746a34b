"""Which group does what stands outside of the scheduled loops, and takes which of their results for it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from xdsl.dialects import scf
from xdsl.ir import Block, BlockArgument, Operation, SSAValue

from forgec.ir.tile.memory import ScatterOp, SortOp, StoreOp
from forgec.passes.schedule.body import bytes_of
from forgec.passes.schedule.flow import EFFECTS, Flow, number_of, operands, refusal
from forgec.passes.schedule.memory import Homes
from forgec.passes.schedule.nest import Nest

WRITERS = (StoreOp, ScatterOp, SortOp)

Exit = tuple[BlockArgument, int | None]
"""A carried value whose last is read after its loop, for a part."""
Effect = tuple[Operation, int | None]
"""An op with effects outside of the scheduled loops, for a part."""


@dataclass
class Division:
    """An effect of place n is behind n loops of its block (of those that are scheduled or hold scheduled ones)."""

    nest: Nest
    homes: Homes
    """The groups that have blocks of memory; those that effects write are added."""
    effects: dict[tuple[int, Block, int], list[Effect]] = field(default_factory=dict)
    """By group, block and place."""
    exits: dict[tuple[int, int], list[Exit]] = field(default_factory=dict)
    """Which results of a loop (by its number) a group has to have after it (by the group's)."""
    handed: dict[Exit, tuple[int, set[int]]] = field(default_factory=dict)
    """Results of a loop that another group takes: who has them, and who takes them."""
    carried: dict[tuple[scf.ForOp, int], list[tuple[int, int | None]]] = field(default_factory=dict)
    """Which of the values that a loop around scheduled ones carries a group (by its number) has, of which part."""
    _seen: set[tuple[SSAValue, int | None, int]] = field(default_factory=set)

    def __post_init__(self) -> None:
        for block in self.nest.blocks():
            self._divide_effects(block)
        for flow in self.nest.flows:
            for node in flow.nodes.values():
                for op in node.ops:
                    for operand in operands(op):
                        self._need(flow.outside(operand), node.part, node.group)
        self._need_bounds()

    def _parts(self, flow: Flow) -> list[int | None]:
        return [None] if flow.extracted.axis is None else list(range(flow.extracted.parts))

    def _divide_effects(self, block: Block) -> None:
        flow = self.nest.flows[0]
        groups = flow.schedule.groups
        main = max(range(len(groups)), key=lambda number: (groups[number].warps, -number))
        loops = set(self.nest.loops(block))
        place = 0
        for op in block.ops:
            if op in loops:
                place += 1
                continue
            if not any(isinstance(each, EFFECTS) for each in op.walk()):
                continue
            results = self._results(operands(op))
            for part in self._parts(flow):
                blocks = [flow.body.root(_written(each)) for each in op.walk() if isinstance(each, WRITERS)]
                known = {self.homes[block, part] for block in blocks if (block, part) in self.homes}
                if len(known) > 1:
                    raise refusal(flow.kernel, "its stores cannot be divided among the groups", op)
                group = known.pop() if known else self._best(results, part, main)
                self.homes.update({(block, part): group for block in blocks})
                self.effects.setdefault((group, block, place), []).append((op, part))
                self._need(operands(op), part, group)

    def _best(self, results: Iterable[SSAValue], part: int | None, main: int) -> int:
        for result in sorted(results, key=lambda result: -bytes_of(result)):
            found = self.nest.flow_of(result)
            assert found is not None, "results are those of scheduled loops"
            home = self._home(*found, part)
            if home is not None:
                return home
        return main

    def _need(self, values: Iterable[SSAValue], part: int | None, group: int) -> None:
        """A group computes something of values from outside of the scheduled loops."""
        waiting = [(value, part, group) for value in values]
        while waiting:
            item = waiting.pop()
            if item in self._seen:
                continue
            self._seen.add(item)
            value, part, group = item
            carried, result = self.nest.carried(value), self.nest.flow_of(value)
            if carried is not None:
                loop, number = carried
                part = self.nest.part(value, part)
                found = self.carried.setdefault((loop, group), [])
                if (number, part) not in found:
                    found.append((number, part))
            if result is not None:
                flow, argument = result
                group = self._exit(flow, argument, part, group)
                waiting += [(each, part, group) for each in flow.outside(argument)]
            else:
                waiting += [(each, part, group) for each in self.nest.before(value)]

    def takers(self, value: SSAValue, part: int | None) -> set[int]:
        """The groups that compute something of a value from outside of the scheduled loops, for a part."""
        return {group for found, of, group in self._seen if found is value and of == part}

    def _exit(self, flow: Flow, carried: BlockArgument, part: int | None, group: int) -> int:
        """A group takes a result of a loop: from which group."""
        home = self._home(flow, carried, part)
        home = group if home is None else home
        exits = self.exits.setdefault((flow.number, home), [])
        if (carried, part) not in exits:
            exits.append((carried, part))
        if home != group:
            self.handed.setdefault((carried, part), (home, set()))[1].add(group)
        return home

    def _home(self, flow: Flow, carried: BlockArgument, part: int | None) -> int | None:
        """The group that has a result of a loop; None for one that no op of the loop computes."""
        found: set[int] = set()
        for value, _, _, _ in flow.sources(carried, part):
            maker = flow.maker(value, part)
            if maker is not None:
                found.add(maker.group)
        if len(found) > 1:
            raise refusal(flow.kernel, f"result {carried.index - 1} is computed of what several groups have")
        return found.pop() if found else None

    def _results(self, values: Iterable[SSAValue]) -> list[SSAValue]:
        """The results of scheduled loops that values from outside of them are computed of."""
        found: dict[SSAValue, None] = {}
        waiting = list(values)
        seen = set(waiting)
        while waiting:
            value = waiting.pop()
            if self.nest.flow_of(value) is not None:
                found[value] = None
            more = [each for each in self.nest.before(value) if each not in seen]
            seen.update(more)
            waiting += more
        return sorted(found, key=number_of)

    # Loops around scheduled ones

    def works(self, loop: scf.ForOp, group: int) -> bool:
        """Whether a group has something to do in a loop around scheduled ones, but to count its turns."""
        blocks = {inner.body.block for inner in self.nest.inside if self.nest.is_within(inner, loop)}
        return (
            bool(self.carried.get((loop, group)))
            or any(home == group and block in blocks for home, block, _ in self.effects)
            or any(flow.in_group(group) or self.exits.get((flow.number, group)) for flow in self.nest.inside[loop])
        )

    def _need_bounds(self) -> None:
        """How often loops run, for each group that runs or counts them: what is carried for it is carried by all."""
        flow = self.nest.flows[0]
        for outer, inside in self.nest.inside.items():
            for loop in (outer, *(each.loop for each in inside)):
                for group in range(len(flow.schedule.groups)):
                    for part in self._parts(flow):
                        self._need((loop.lb, loop.ub, loop.step), part, group)


def _written(op: StoreOp | ScatterOp | SortOp) -> SSAValue:
    return op.places if isinstance(op, SortOp) else op.block
