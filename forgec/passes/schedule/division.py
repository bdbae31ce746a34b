"""Which group does what stands outside of the loops, and takes which results of loops for it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from xdsl.ir import Block, BlockArgument, Operation, SSAValue

from forgec.ir.tile.memory import ScatterOp, SortOp, StoreOp
from forgec.passes.schedule.body import bytes_of
from forgec.passes.schedule.flow import EFFECTS, Flow, number_of, operands, refusal

WRITERS = (StoreOp, ScatterOp, SortOp)

Exit = tuple[BlockArgument, int | None]
"""A carried value whose last is read after its loop, for a part."""
Effect = tuple[Operation, int | None]
"""An op with effects outside of the loops, for a part."""


@dataclass
class Division:
    """Loops in the order in which they run; an effect of place n is behind n of them."""

    flows: Sequence[Flow]
    effects: dict[tuple[int, int], list[Effect]] = field(default_factory=dict)
    """By group and place."""
    exits: dict[tuple[int, int], list[Exit]] = field(default_factory=dict)
    """Which results of a loop (by its number) a group has to have after it (by the group's)."""
    handed: dict[Exit, tuple[int, set[int]]] = field(default_factory=dict)
    """Results of a loop that another group takes: who has them, and who takes them."""

    def __post_init__(self) -> None:
        self.by_loop: dict[Operation, Flow] = {flow.loop: flow for flow in self.flows}
        self._divide_effects()
        for flow in reversed(self.flows):
            for node in flow.nodes.values():
                for op in node.ops:
                    for operand in operands(op):
                        self._need(flow.outside(operand), node.part, node.group)
            for group in range(len(flow.schedule.groups)):
                for carried, part in self.exits.get((flow.number, group), ()):
                    self._need(flow.outside(carried), part, group)

    def _divide_effects(self) -> None:
        flow = self.flows[0]
        groups = flow.schedule.groups
        main = max(range(len(groups)), key=lambda number: (groups[number].warps, -number))
        parts = [None] if flow.extracted.axis is None else range(flow.extracted.parts)
        homes: dict[tuple[SSAValue, int | None], int] = {}
        place = 0
        for op in flow.kernel.body.block.ops:
            if op in self.by_loop:
                place += 1
                continue
            if not any(isinstance(each, EFFECTS) for each in op.walk()):
                continue
            results = self._results(operands(op))
            for part in parts:
                blocks = [flow.body.root(_written(each)) for each in op.walk() if isinstance(each, WRITERS)]
                known = {homes[block, part] for block in blocks if (block, part) in homes}
                if len(known) > 1:
                    raise refusal(flow.kernel, "its stores cannot be divided among the groups", op)
                group = known.pop() if known else self._best(results, part, main)
                homes.update({(block, part): group for block in blocks})
                self.effects.setdefault((group, place), []).append((op, part))
                self._need(operands(op), part, group)

    def _best(self, results: Iterable[SSAValue], part: int | None, main: int) -> int:
        for result in sorted(results, key=lambda result: -bytes_of(result)):
            home = self._home(*self._carried(result), part)
            if home is not None:
                return home
        return main

    def _carried(self, result: SSAValue) -> tuple[Flow, BlockArgument]:
        owner = result.owner
        assert not isinstance(owner, Block), "loops are ops"
        flow = self.by_loop[owner]
        return flow, flow.block.args[number_of(result) + 1]

    def _need(self, values: Iterable[SSAValue], part: int | None, group: int) -> None:
        """A group computes something of values from outside of the loops."""
        for result in self._results(values):
            flow, carried = self._carried(result)
            home = self._home(flow, carried, part)
            home = group if home is None else home
            exits = self.exits.setdefault((flow.number, home), [])
            if (carried, part) not in exits:
                exits.append((carried, part))
            if home != group:
                self.handed.setdefault((carried, part), (home, set()))[1].add(group)

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
        """The results of loops that values from outside of them are computed of."""
        found: dict[SSAValue, None] = {}
        seen: set[Operation] = set()
        waiting = list(values)
        while waiting:
            value = waiting.pop()
            owner = value.owner
            if isinstance(owner, Block):
                continue
            if owner in self.by_loop:
                found[value] = None
            elif owner not in seen:
                seen.add(owner)
                waiting += operands(owner)
        return sorted(found, key=number_of)


def _written(op: StoreOp | ScatterOp | SortOp) -> SSAValue:
    return op.places if isinstance(op, SortOp) else op.block
