"""The loops of a persistent kernel by themselves, with room for what comes before and after them."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from math import inf

from ortools.sat.python import cp_model

from forgec.diagnostics import ForgeError, error
from forgec.schedule.graph import Graph
from forgec.schedule.machine import Machine
from forgec.schedule.model import Model
from forgec.schedule.schedule import Schedule
from forgec.schedule.search import Search as LoopSearch
from forgec.schedule.solve import schedules
from forgec.schedule.solver import SHARE, Budget, Solver
from forgec.schedule.tile import Tile

ASIDE = 2.0
"""Deterministic time for loops of which the turns may be better, once there are others."""


def nothing_found(tile: Tile, copies: int, budget: Budget) -> ForgeError:
    """That there is no schedule, or none within the time."""
    code, why = ("FORGE-S001", "") if budget.left else ("FORGE-S002", f" within the time limit of {budget.limit:g}")
    return error(code, f"no persistent schedule of {tile.name} with {copies} tiles in a turn was found{why}")


class Loops:
    """The search for the loops of a tile, with room for what comes before and after them.

    ``whole``: the time of all of a larger search, of which the solver may have a part.
    """

    def __init__(self, tile: Tile, machine: Machine, copies: int, solver: Solver, whole: Budget | None = None) -> None:
        self.whole = whole or solver.budget
        self.tile, self.machine, self.copies, self.solver = tile, machine, copies, solver
        self.search = LoopSearch(with_room(tile, copies), machine)
        self.found: tuple[int, ...] | None = None
        twins: dict[tuple[str, str], list[str]] = {}
        for graph in tile.phases:
            for op in graph.ops:
                if op.part is not None and not op.variable:
                    twins.setdefault((graph.name, op.twin or ""), []).append(op.name)
        self.pairs = [pair for row in twins.values() for pair in pairwise(row)]
        # Loops of a turn that share a group come one after the other; of several tiles, those that load for all.
        self.in_turn = copies == 1 or any(op.variable for graph in tile.phases for op in graph.ops)

    def least_cost(self) -> Fraction:
        """Cycles per unit of work that no turn around these loops is below: from its first iteration to its last a
        group is busy with a loop."""
        if not self.in_turn:
            return Fraction(0)
        iis = self.found or self.search.iis
        busy = sum((trips - 1) * ii for ii, trips in zip(iis, self.search.trips, strict=True))
        return Fraction(busy * self.search.unit) / self.search.work

    def step(self) -> Schedule | None:
        """Go on with the next intervals."""
        before = self.solver.budget.used
        found = self.search.step(self.solver, 1)
        if self.whole is not self.solver.budget:
            self.whole.used += self.solver.budget.used - before
        if not found:
            return None
        schedule = found[0].schedule
        self.found = tuple(phase.ii // self.search.unit for phase in schedule.phases)
        phases = tuple(replace(p, graph=g) for p, g in zip(schedule.phases, self.tile.phases, strict=True))
        return replace(schedule, phases=phases)

    def run(self, below: Fraction | None = None) -> Schedule | None:
        """The loops' schedule; None where there is none, or no turn around it costs less than ``below``.

        Raises:
            ForgeError: FORGE-S001, FORGE-S002 where there is none, unless it has to be ``below`` something.
        """
        while self.search.fate == "open" and (below is None or self.least_cost() < below):
            found = self.step()
            if found is not None:
                return found
        if below is None and self.whole is self.solver.budget:
            raise self.fault()
        return None

    def fault(self) -> ForgeError:
        """Why there is none."""
        budget = self.whole
        if budget.left:
            try:
                schedules([self.search.kernel], self.machine, limit=budget.left)
            except ForgeError as caught:
                return caught
        return nothing_found(self.tile, self.copies, budget)

    def aside(self, copies: int) -> Loops:
        """The search for loops with room for so many tiles in a turn, within a part of the time."""
        solver = Solver(self.machine, self._part())
        return Loops(self.tile, self.machine, copies, solver, self.whole).begun_at(self)

    def apart(self, loop: Schedule) -> bool:
        """Whether equal ops of different parts are in different groups."""
        return all(loop.group_of[a] != loop.group_of[b] for a, b in self.pairs)

    def parted(self) -> Loops:
        """The search for loops of which that is so, within a part of the time."""
        solver = Parted(self.machine, self._part(), pairs=self.pairs)
        return Loops(self.tile, self.machine, self.copies, solver, self.whole).begun_at(self)

    def _part(self) -> Budget:
        """A part of the time that is left."""
        return Budget(min(ASIDE, self.whole.left))

    def begun_at(self, easier: Loops) -> Loops:
        """What is impossible for a search with more room, or with fewer constraints, is not tried again."""
        mine, other = self.search, easier.search
        mine.prepare()
        if easier.found is None or mine.unit != other.unit or mine.least != other.least:
            return self
        intervals = mine.intervals
        intervals.refuted = [set(row) for row in other.intervals.refuted]
        intervals.heap = [*other.intervals.heap, (intervals.cycles(easier.found), easier.found)]
        heapq.heapify(intervals.heap)
        intervals.seen = {*other.intervals.seen, easier.found}
        mine.iis = intervals.peek() or mine.iis
        return self


@dataclass
class Parted(Solver):
    """With ops of different parts in different groups."""

    pairs: Sequence[tuple[str, str]] = ()

    def run(self, model: Model, share: float = SHARE, most: float = inf) -> tuple[cp_model.CpSolver, str]:
        """Solve a model."""
        for one, other in self.pairs:
            model.cp.add(model.apart(one, other) == 1)
        return super().run(model, share, most)


def with_room(tile: Tile, copies: int) -> list[Graph]:
    """The phases, with room in memory for one buffer of each value of the tile."""
    ends = [graph.values for graph in (tile.prologue, tile.epilogue) if graph is not None]
    values = [value for row in (*ends, tile.values) for value in row]
    found = []
    for graph in tile.phases:
        resident = dict(graph.resident)
        # What stays in the loop's buffers is there already, once.
        there = {value.name: value.size for value in graph.values if value.name in tile.stays.values()}
        for memory in ("shared", "tensor"):
            need = copies * sum(value.size for value in values if value.memory == memory)
            need -= sum(there.get(tile.stays.get(value.name, ""), 0) for value in tile.values if value.memory == memory)
            if need > 0:
                resident[memory] = resident.get(memory, 0) + need
        found.append(replace(graph, resident=resident))
    return found
