"""Intervals of several phases that are too short together for memories, which all phases share.

Each phase needs more buffers where its interval is short; by itself each may fit, and both together not.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from forgec.schedule.graph import Graph
from forgec.schedule.machine import Machine
from forgec.schedule.model import Model
from forgec.schedule.pressure import taken
from forgec.schedule.solver import ALONE, Solver


class Rings:
    """What phases (scaled) need of memories at given intervals at the least."""

    def __init__(self, graphs: Sequence[Graph], machine: Machine, unit: int) -> None:
        self.graphs, self.machine, self.unit = graphs, machine, unit
        self.least: dict[tuple[int, int], dict[str, int]] = {}

    @cached_property
    def rows(self) -> dict[str, dict[str, list[tuple[int, int, int]]]]:
        """For each memory and value: phase, size, and for how long a buffer is taken at the least."""
        found: dict[str, dict[str, list[tuple[int, int, int]]]] = {"shared": {}, "tensor": {}}
        for phase, graph in enumerate(self.graphs):
            for value in graph.values:
                if value.memory in found:
                    row = found[value.memory].setdefault(value.name, [])
                    row.append((phase, value.size, taken(graph, value)))
        return found

    def resident(self, memory: str) -> int:
        """Bytes that are taken for the whole kernel."""
        return max(graph.resident.get(memory, 0) for graph in self.graphs)

    def too_many(self, iis: Sequence[int]) -> bool:
        """Whether the buffers that values need by paths from producers to readers do not fit."""
        for memory, values in self.rows.items():
            total = self.resident(memory)
            for row in values.values():
                depth = max(max(1, -(-life // iis[phase])) for phase, _, life in row)
                total += depth * max(size for _, size, _ in row)
            if total > self.machine.memory_bytes(memory):
                return True
        return False

    @cached_property
    def separate(self) -> bool:
        """Whether no two phases have a ring in common, so that what each needs beyond single buffers adds up."""
        names = [
            value.name
            for graph in self.graphs
            for value in graph.values
            if value.memory != "register" or value.crossing
        ]
        return len(set(names)) == len(names)

    def too_large(self, iis: Sequence[int], solver: Solver) -> bool:
        """Whether the least that each phase needs by itself, as the solver says, does not fit together."""
        if not self.separate:
            return False
        rows = [self._least(phase, iis, solver) for phase in range(len(iis))]
        for memory, values in self.rows.items():
            once = self.resident(memory) + sum(size for row in values.values() for _, size, _ in row)
            if once + sum(row[memory] - once for row in rows) > self.machine.memory_bytes(memory):
                return True
        return False

    def _least(self, phase: int, iis: Sequence[int], solver: Solver) -> dict[str, int]:
        """What all take of each memory at the least, where the other phases have one buffer of each value."""
        key = phase, iis[phase]
        if key not in self.least:
            found: dict[str, int] = {}
            for memory, values in self.rows.items():
                found[memory] = self.resident(memory) + sum(size for row in values.values() for _, size, _ in row)
                if values:
                    model = Model(self.graphs, iis, self.machine, self.unit, alone=phase)
                    model.cp.minimize(model.demands[f"{memory} memory"][0])
                    run, outcome = solver.run(model, ALONE)
                    if outcome in ("optimal", "feasible"):
                        found[memory] = max(found[memory], round(run.best_objective_bound))
            self.least[key] = found
        return self.least[key]
