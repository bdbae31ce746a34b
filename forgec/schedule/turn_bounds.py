"""What a persistent schedule is a solution of: the loop that was moved as a whole, and the bounds of its turns.

The same functions serve the search, which states the bounds, and ``--check``, which computes them anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from forgec.schedule.bounds import lower_bounds
from forgec.schedule.graph import Graph
from forgec.schedule.machine import Machine
from forgec.schedule.persistent import Persistent, program_bounds
from forgec.schedule.reduce import Reduced, reduced
from forgec.schedule.scale import scaled
from forgec.schedule.schedule import Bound, Phase, Schedule
from forgec.schedule.shortened import few_trips
from forgec.schedule.tile import Tile
from forgec.schedule.violation import Violation

MOST_TRIPS = 512
"""Iterations of loops that are solved with all of them, where fewer are not enough."""
STATUSES = ("optimal", "optimal for the reduction", "feasible", "timeout")
FATES = ("solved", "does not fit", "no better", "not better", "not tried")


@dataclass(frozen=True)
class Turn:
    """The graph of turns of a loop, which may have fewer iterations than it has in truth: ``more`` cycles of a turn
    are left out. ``graph`` is in units of ``unit`` cycles."""

    tile: Tile
    loop: Schedule
    reduced: Reduced
    graph: Graph
    unit: int
    more: int
    bounds: tuple[Bound, ...]


def turn_of(tile: Tile, loop: Schedule, machine: Machine, copies: int, trips: Sequence[int]) -> Turn:
    """The graph of turns of ``copies`` tiles around a loop with so many iterations of each phase."""
    graphs = tuple(replace(graph, trips=count) for graph, count in zip(tile.phases, trips, strict=True))
    phases = tuple(replace(phase, graph=graph) for phase, graph in zip(loop.phases, graphs, strict=True))
    rows = zip(tile.phases, graphs, loop.phases, strict=True)
    more = copies * sum((whole.trips - short.trips) * phase.ii for whole, short, phase in rows)
    tile, loop = replace(tile, phases=graphs), replace(loop, phases=phases)
    found = reduced(tile, loop, machine, copies)
    unit = found.quantum()
    graph = scaled(found.graph, unit)
    bounds = tuple(replace(each, cycles=each.cycles * unit + more) for each in lower_bounds(graph, machine))
    return Turn(tile, loop, found, graph, unit, more, bounds)


def lengths(tile: Tile, loop: Schedule, machine: Machine) -> list[tuple[int, ...]]:
    """Iterations of the phases with which turns are solved: few, and all of them, where these are not too many."""
    whole = tuple(graph.trips for graph in tile.phases)
    few = few_trips(tile, loop.phases, loop.depths, machine)
    return [few, whole] if few != whole and sum(whole) <= MOST_TRIPS else [few]


def plainly(schedule: Schedule) -> Schedule:
    """A loop's schedule with groups in an order, and with names, that depend on kinds and ops alone."""
    index: dict[str, int] = {}
    warps: dict[str, int] = {}
    for phase in schedule.phases:
        for op in phase.graph.ops:
            index.setdefault(op.name, len(index))
            warps[op.name] = max(op.warps, warps.get(op.name, 1))
    groups = [
        replace(
            each,
            ops=tuple(sorted(each.ops, key=index.__getitem__)),
            warps=max(warps[name] for name in each.ops),
            registers=0,
        )
        for each in schedule.groups
    ]
    groups.sort(key=lambda each: (each.kind == "consumer", index[each.ops[0]]))
    kinds = [each.kind for each in groups]
    named = []
    for number, each in enumerate(groups):
        several = f".{kinds[:number].count(each.kind)}" if kinds.count(each.kind) > 1 else ""
        named.append(replace(each, name=f"{each.kind}{several}"))
    return replace(schedule, groups=tuple(named), certificate=None)


def loop_of(schedule: Persistent, number: int = 0) -> tuple[Tile, Schedule]:
    """The loop that was moved as a whole, and the tile, as they were before there were several in a turn."""
    first = schedule.placed[number]
    suffix = f"@{number}" if len(schedule.placed) > 1 else ""
    names = {op.name: op.name.removesuffix(suffix) for graph in first.tile.graphs for op in graph.ops}
    every = (*first.tile.graphs, first.tile.links)
    values = {value.name: value.name.removesuffix(suffix) for graph in every for value in graph.values}
    tile = first.tile.renamed(names, values)
    phases = tuple(
        Phase(graph, phase.ii, {names[name]: start for name, start in phase.starts.items()})
        for phase, graph in zip(first.phases, tile.phases, strict=True)
    )
    inside = {op.name for phase in first.phases for op in phase.graph.ops}
    rows = [(each, tuple(names[name] for name in each.ops if name in inside)) for each in schedule.groups]
    groups = tuple(replace(each, ops=row) for each, row in rows if row)
    ends = [base + phase.ii * phase.graph.trips for base, phase in zip(first.bases, first.phases, strict=True)]
    transitions = tuple(base - end for base, end in zip(first.bases[1:], ends, strict=False))
    depths = {values[name]: depth for name, depth in schedule.depths.items() if name in values}
    return tile, plainly(Schedule(schedule.machine, phases, groups, depths, transitions=transitions))


def unproved_turns(schedule: Persistent, machine: Machine) -> Iterator[Violation]:
    """Where a legal schedule's certificate says other than what is computed anew, or claims more than it says was
    proved. On a machine other than its own a schedule is only asked to be legal."""
    stated = schedule.certificate
    if stated is None or schedule.machine != machine.name:
        return
    program = program_bounds([each.tile for each in schedule.placed], machine)
    if stated.bounds != program:
        yield said("the bounds of the program", program)
    tile, loop = loop_of(schedule)
    copies = len(schedule.placed)
    if any(loop_of(schedule, number) != (tile, loop) for number in range(1, copies)):
        yield Violation("certificate", "the tiles of a turn are not all the same")
        return
    turns = [turn_of(tile, loop, machine, copies, trips) for trips in lengths(tile, loop, machine)]
    if not any((turn.bounds, turn.unit) == (stated.reduction, stated.quantum) for turn in turns):
        yield said(f"the bounds of the reduction, in units of {turns[0].unit} cycles,", turns[0].bounds)
        return
    if stated.status not in STATUSES:
        yield Violation("certificate", f"its status {stated.status} is none of {', '.join(STATUSES)}")
        return
    yield from claimed(schedule, program)
    yield from fates(schedule)


def said(what: str, bounds: Sequence[Bound]) -> Violation:
    """Bounds are other ones."""
    text = f"{bounds[0].cycles} cycles by {bounds[0].name} at the most" if bounds else "none"
    return Violation("certificate", f"{what} are {text}, or smaller ones differ")


def claimed(schedule: Persistent, program: Sequence[Bound]) -> Iterator[Violation]:
    """The status, and the intervals that it rests on."""
    stated = schedule.certificate
    assert stated is not None
    least = stated.reduction[0].cycles
    for name, row in (("refuted", stated.refuted), ("undecided", stated.undecided)):
        wrong = [each for each in row if each < least or (each - least) % stated.quantum]
        if wrong or (name == "refuted" and any(each >= schedule.interval for each in row)):
            yield Violation("certificate", f"intervals are called {name} that were not to be looked at")
    at_bound = bool(program) and schedule.interval == program[0].cycles
    still = unrefuted(range(least, schedule.interval, stated.quantum), stated.refuted)
    if stated.status == "optimal" and not at_bound:
        text = f"it is called optimal, and its interval {schedule.interval} is at no bound of the program"
        yield Violation("certificate", text)
    if stated.status == "optimal for the reduction" and (still or at_bound):
        text = f"it is called {stated.status}, and {still} intervals are not refuted" if still else "it is optimal"
        yield Violation("certificate", text)
    undecided = [each for each in stated.undecided if each < schedule.interval]
    if (stated.status == "timeout") != (bool(undecided) and bool(still) and not at_bound):
        text = f"it is called {stated.status}, and {len(undecided)} smaller intervals are undecided"
        if stated.status == "timeout" or not at_bound:
            yield Violation("certificate", text)
    if stated.status == "feasible" and not still:
        yield Violation("certificate", "it is called feasible, and no smaller interval is open")


def unrefuted(intervals: range, refuted: Sequence[int]) -> int:
    """How many intervals are not refuted."""
    return len(intervals) - sum(each in intervals for each in set(refuted))


def fates(schedule: Persistent) -> Iterator[Violation]:
    """What became of other tiles."""
    stated = schedule.certificate
    assert stated is not None
    mine = dict(schedule.placed[0].phases[0].graph.tile)
    for row in stated.alternatives:
        fate, least = row.get("fate"), row.get("least_cost")
        if fate not in FATES or not isinstance(least, float | int):
            yield Violation("certificate", f"a tile is called {fate}")
        elif fate == "no better" and least < float(schedule.cost) * (1 - 1e-12):
            yield Violation("certificate", f"a tile is called no better that may cost {least:g}")
        elif mine.items() <= row.items() and (fate != "solved" or least > float(schedule.cost) * (1 + 1e-12)):
            yield Violation("certificate", f"its own tile is called {fate}, with a cost of {least:g} at the least")
