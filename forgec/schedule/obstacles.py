"""What stands in the way of the next smaller interval, where no bound by itself does: an irreducible conflict.

The certificate says that CP-SAT refuted the interval. For a reader it is asked again, with constraints left out one by
one (``conflict.py``): those that remain have no schedule together, and without any one of them there is one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from forgec.schedule.bounds import lower_bounds, with_most_warps
from forgec.schedule.conflict import WORDS, Run, filtered, needed
from forgec.schedule.graph import Graph
from forgec.schedule.machine import Machine
from forgec.schedule.model import FAMILIES, Model
from forgec.schedule.scale import scaled
from forgec.schedule.schedule import Schedule
from forgec.schedule.solver import Budget, Solver

LIMIT = 6.0
"""Deterministic time for the explanation of one loop's interval."""
OPEN = "whether this is needed was not decided in time"


@dataclass(frozen=True)
class Part:
    """A family of constraints that is needed for the conflict: what it asks for, and what is known of it in numbers."""

    family: str
    words: str
    amount: str = ""


@dataclass(frozen=True)
class Obstacle:
    """The conflict at an interval; ``others``: families that play no part.

    ``beside``: the intervals of other loops that it takes for it; none where it is so whatever they are.
    """

    interval: int
    parts: tuple[Part, ...]
    others: tuple[str, ...]
    beside: tuple[int, ...] = ()

    @property
    def open(self) -> bool:
        """Whether it is open of some families if they are needed."""
        return any(part.amount == OPEN for part in self.parts)


def obstacles(schedule: Schedule, machine: Machine, limit: float = LIMIT) -> list[Obstacle | None]:
    """For each loop the conflict at its next smaller interval, by itself or beside the intervals of the other loops.

    None where a bound forbids it, or where the time did not suffice to refute it once more.
    """
    unit = max(schedule.certificate.quantum if schedule.certificate else 1, 1)
    kernel = [phase.graph for phase in schedule.phases]
    graphs = [scaled(graph, unit) for graph in kernel]
    own = [-(-phase.ii // unit) for phase in schedule.phases]
    bounds = [lower_bounds(scaled(graph, unit), machine)[0].cycles for graph in with_most_warps(kernel)]
    found: list[Obstacle | None] = []
    for place, (ii, bound) in enumerate(zip(own, bounds, strict=True)):
        iis = [*own[:place], ii - 1, *own[place + 1 :]]
        parts, beside = (), ()
        if ii > bound:
            run = Solver(machine, Budget(limit)).run
            parts = conflict_at(graphs, iis, unit, machine, run, place if len(own) > 1 else None)
        if ii > bound and len(own) > 1 and not parts:
            parts = conflict_at(graphs, iis, unit, machine, Solver(machine, Budget(limit)).run)
            beside = tuple(each * unit for number, each in enumerate(own) if number != place)
        others = tuple(family for family in FAMILIES if family not in {part.family for part in parts})
        found.append(Obstacle((ii - 1) * unit, parts, others, beside) if parts else None)
    return found


def conflict_at(
    graphs: Sequence[Graph], iis: Sequence[int], unit: int, machine: Machine, run: Run, alone: int | None = None
) -> tuple[Part, ...]:
    """The families in conflict at these intervals (in units of time); none where they are not refuted in time."""
    if run(Model(graphs, iis, machine, unit, alone=alone))[1] != "infeasible":
        return ()
    conflict, undecided = filtered(graphs, iis, unit, machine, run, alone)
    parts = []
    for family in conflict:
        facts = needed(graphs, iis, unit, machine, run, conflict, family, alone)
        amount = ""
        if family in undecided:
            amount = OPEN
        elif facts is not None:
            amount = f"{facts[0]} {facts[2]} would be needed at the least"
            amount += "" if family == "registers" else f", there are {facts[1]}"
        elif family == "units":
            names, decided = units_needed(graphs, iis, unit, machine, run, conflict, alone)
            amount = f"of {', '.join(names)}{' (or of some of these)' * (not decided)}"
        parts.append(Part(family, WORDS[family], amount))
    return tuple(parts)


def units_needed(
    graphs: Sequence[Graph],
    iis: Sequence[int],
    unit: int,
    machine: Machine,
    run: Run,
    conflict: Sequence[str],
    alone: int | None,
) -> tuple[list[str], bool]:
    """The units whose capacities are needed for a conflict, by the same filter; and whether time left none open."""
    without = frozenset(family for family in FAMILIES if family not in conflict)
    names = [name for name in machine.units if any(use.unit == name for g in graphs for op in g.ops for use in op.uses)]
    kept, decided = list(names), True
    for name in names:
        fewer = [each for each in kept if each != name]
        held = [holding(graph, fewer) for graph in graphs]
        outcome = run(Model(held, iis, machine, unit, without, alone=alone))[1]
        kept = fewer if outcome == "infeasible" else kept
        decided = decided and outcome != "unknown"
    return kept, decided


def holding(graph: Graph, units: Sequence[str]) -> Graph:
    """The graph with uses of these units alone."""
    ops = tuple(replace(op, uses=tuple(use for use in op.uses if use.unit in units)) for op in graph.ops)
    return replace(graph, ops=ops)
