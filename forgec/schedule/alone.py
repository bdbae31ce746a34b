"""What one loop of a kernel can do at an interval, whatever the other loops do, by as few solves as may be.

A loop that is impossible by itself is impossible beside every other. Where it stretches (``intervals.py``), its least
interval is found by doubling steps and then by halving, instead of one interval after the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import inf

from forgec.schedule.graph import Graph, tied
from forgec.schedule.intervals import Intervals
from forgec.schedule.machine import Machine
from forgec.schedule.model import Model, firsts_of_parts
from forgec.schedule.solution import Places, hint_places, places_of
from forgec.schedule.solver import ALONE, Solver


def parts_only(graph: Graph) -> Graph:
    """The graph without the ops that belong to no part: a relaxation, in which parts often have nothing in common but
    units and budgets."""
    ops = tuple(op for op in graph.ops if op.part is not None)
    kept = {op.name for op in ops}
    values = tuple(
        replace(value, reads=tuple(read for read in value.reads if read.op in kept))
        for value in graph.values
        if value.producer in kept
    )
    dependences = tuple(each for each in graph.dependences if {each.source, each.target} <= kept)
    return replace(graph, ops=ops, values=values, dependences=dependences)


def has_parts(graph: Graph) -> bool:
    """Whether there are several parts, and ops beside them."""
    parts = {op.part for op in graph.ops}
    return None in parts and len(parts) > 2


def move_freely(model: Model) -> None:
    """Leave out schedules that differ in how many intervals later ops run than others which they have no value or
    dependence in common with, directly or through others. For models that are asked nothing of lengths.

    Of what has equal parts in it, their first ops are what stays; they are put in order by changing places, which
    leaves each within an interval of the anchor only where that is the first of them.
    """
    for times in model.times:
        names = [op.name for op in times.graph.ops]
        roots = tied(names, [(source, target) for source, target, _, _ in times.graph.precedences()])
        firsts = [op.name for op in firsts_of_parts(times.graph)]
        fixed = {roots[times.anchor]}
        if model.equal and firsts and times.anchor != firsts[0]:
            fixed.update(roots[name] for name in firsts)
        for name in (*firsts, *names):
            if roots[name] not in fixed:
                fixed.add(roots[name])
                model.cp.add(times.stage[name] == 0)
        # Of two equal halves the second is not more than half a turn behind the first: else it is before it.
        if len(firsts) == 2 and model.equal and all(op.part is not None for op in times.graph.ops):
            first, second = firsts
            if first == times.anchor and roots[first] != roots[second]:
                model.cp.add(2 * times.slot[second] <= times.ii)


@dataclass
class Alone:
    """The phases (scaled) of one kernel at one tile, each by itself.

    ``low`` is kept by ``intervals``: the shortest of each phase that is not refuted. ``high``: the shortest at which it
    is known to be possible, with ``places``, slots and stages of it. ``parted``: the same of its parts by themselves.
    ``failed``: how often it was not possible, by which what is tried next is further from ``low``. ``unknown``: phases
    and intervals of which the limit left open what they are.
    """

    graphs: Sequence[Graph]
    machine: Machine
    unit: int
    intervals: Intervals
    high: dict[int, int] = field(default_factory=dict)
    parted: dict[int, int] = field(default_factory=dict)
    failed: dict[int, int] = field(default_factory=dict)
    places: dict[int, Places] = field(default_factory=dict)
    unknown: set[tuple[int, int]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.relaxed = [parts_only(graph) for graph in self.graphs] if all(map(has_parts, self.graphs)) else []

    def open(self, iis: Sequence[int]) -> int | None:
        """A phase of which it is not known whether it is possible at its interval: the one that runs most often."""
        places = [place for place, ii in enumerate(iis) if not self.known(place, ii)]
        return max(places, key=lambda place: self.intervals.trips[place], default=None)

    def known(self, place: int, ii: int) -> bool:
        """Whether a phase is known to be possible, or nothing is to be found out."""
        at = self.high.get(place, inf)
        return (place, ii) in self.unknown or ii == at or (ii > at and self.intervals.stretch[place])

    def probe(self, place: int, iis: Sequence[int], solver: Solver, most: int | None) -> None:
        """Ask for one phase at an interval between its own of ``iis`` and ``most``, and keep what is said."""
        ii = low = iis[place]
        if self.intervals.stretch[place]:
            high = self.high.get(place)
            ii += 2 ** max(self.failed.get(place, 0) - 1, 0) - 1 if high is None else (high - low) // 2
            ii = max(low, min(ii, self.intervals.most[place], ii if most is None else most))
        outcome = self.asked(place, [*iis[:place], ii, *iis[place + 1 :]], solver)
        if outcome == "infeasible":
            self.intervals.refute(place, ii)
            self.failed[place] = self.failed.get(place, 0) + 1
        elif outcome != "unknown":
            self.high[place] = ii
        else:
            self.unknown.add((place, low))

    def asked(self, place: int, iis: Sequence[int], solver: Solver) -> str:
        """Of a phase at its interval: ``infeasible``, ``unknown`` or what the solver says of a solution."""
        ii = iis[place]
        if self.relaxed and self.intervals.stretch[place] and ii < self.parted.get(place, ii + 1):
            model = Model(self.relaxed, iis, self.machine, self.unit, alone=place)
            move_freely(model)
            outcome = solver.run(model, ALONE, strong=True)[1]
            if outcome == "infeasible":
                return "infeasible"
            if outcome != "unknown":
                self.parted[place] = ii
        model = Model(self.graphs, iis, self.machine, self.unit, alone=place)
        (times,) = model.times
        hint_places(model, times, self.places.get(place, {}))
        run, outcome = solver.run(model, ALONE)
        if outcome in ("optimal", "feasible"):
            self.places[place] = places_of(times, run)
        return outcome
