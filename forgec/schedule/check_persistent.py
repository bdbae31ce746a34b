"""Whether a persistent schedule is legal, by the definition in ``persistent.py`` and nothing else.

Independent of the solver: no OR-tools, nothing of the model and nothing of the reduction. As many turns are unrolled as
have anything to do with each other, and every rule is looked at for each instance of each op.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from forgec.schedule.check import isolation, memories, warps
from forgec.schedule.check_unrolled import check_unrolled, life
from forgec.schedule.graph import Graph
from forgec.schedule.machine import Machine
from forgec.schedule.persistent import Persistent, program_bounds, ring_depths, unroll_turns
from forgec.schedule.schedule import Phase, Schedule
from forgec.schedule.shortened import shortened
from forgec.schedule.tile import Tile
from forgec.schedule.violation import Violation

MOST_INSTANCES = 1 << 20
"""Ops that are looked at one by one."""


def check_persistent(schedule: Persistent, machine: Machine) -> list[Violation]:
    """All violations; none: the schedule is legal."""
    found = list(structure(schedule, machine))
    if found:
        return found
    whole = together(schedule)
    found += memories(whole, machine)
    found += warps(whole, machine)
    found += isolation(whole, machine)
    short, _ = shortened(schedule, machine)
    count = sum(phase.graph.trips * len(phase.graph.ops) for placed in short.placed for phase in placed.phases)
    turns = enough(short) if count <= MOST_INSTANCES else 0
    if not turns or turns * count > MOST_INSTANCES:
        return [*found, Violation("extent", f"more than {MOST_INSTANCES} ops are under way in turns that overlap")]
    unrolled = unroll_turns(short, turns)
    found += check_unrolled(unrolled, short.groups, ring_depths(short, unrolled), machine)
    found += certificate(schedule, machine)
    return found


def structure(schedule: Persistent, machine: Machine) -> Iterator[Violation]:
    """Every op is in one group and has a start, every value has buffers, every unit exists."""
    members = [name for group in schedule.groups for name in group.ops]
    known = {op.name for placed in schedule.placed for graph in placed.tile.graphs for op in graph.ops}
    for name in sorted(known | set(members)):
        if name not in known or members.count(name) != 1:
            yield Violation("structure", f"op {name} is in {members.count(name)} groups")
    if schedule.interval < 1 or not schedule.placed:
        yield Violation("structure", f"{len(schedule.placed)} tiles each {schedule.interval} cycles")
    for placed in schedule.placed:
        tile = placed.tile
        if tuple(phase.graph for phase in placed.phases) != tile.phases or len(placed.bases) != len(tile.phases):
            yield Violation("structure", f"the phases of {tile.name} are not those of its schedule")
        rows = [(phase.graph, phase.starts) for phase in placed.phases]
        rows += [(tile.prologue, placed.prologue)] if tile.prologue else []
        rows += [(tile.epilogue, placed.epilogue)] if tile.epilogue else []
        for graph, starts in rows:
            if set(starts) != {op.name for op in graph.ops}:
                yield Violation("structure", f"the starts of {graph.name} are not those of its ops")
            for use in (use for op in graph.ops for use in op.uses):
                if use.unit not in machine.units:
                    yield Violation("structure", f"machine {machine.name} has no unit {use.unit}")
        for value in (value for graph in (*tile.graphs, tile.links) for value in graph.values):
            if schedule.depths.get(value.name, 0) < 1:
                yield Violation("structure", f"value {value.name} has no buffer")


def together(schedule: Persistent) -> Schedule:
    """All graphs side by side, as far as time plays no part."""
    phases = [
        Phase(graph, 1, dict.fromkeys((op.name for op in graph.ops), 0))
        for placed in schedule.placed
        for graph in stored_once(placed.tile, schedule.depths)
    ]
    return Schedule(schedule.machine, tuple(phases), schedule.groups, schedule.depths)


def stored_once(tile: Tile, depths: Mapping[str, int]) -> Iterator[Graph]:
    """The graphs of a tile and its links, in which what stays in a loop's buffers has these, and the loop none."""
    inner = set(tile.stays.values())
    for graph in tile.graphs:
        values = tuple(replace(value, size=0) if value.name in inner else value for value in graph.values)
        yield replace(graph, values=values)
    links = tile.links
    values = (
        replace(value, size=value.size * depths.get(tile.stays[value.name], 1)) if value.name in tile.stays else value
        for value in links.values
    )
    yield replace(links, values=tuple(values))


def enough(schedule: Persistent) -> int:
    """Turns after which nothing new happens: those that overlap, and those that values and buffers tie together."""
    first = unroll_turns(schedule, 1)
    begin = min(each.start - each.gets for each in first.instances)
    ends = [each.start + each.op.span + each.puts for each in first.instances]
    ends += [each.start + use.offset + use.cycles for each in first.instances for use in each.op.uses]
    ends += [life(first, stored)[1] for ring in first.rings.values() for stored in ring]
    graphs = [g for placed in schedule.placed for g in (placed.tile.prologue, placed.tile.epilogue, placed.tile.links)]
    far = [
        distance
        for graph in graphs
        if graph is not None
        for distance in (
            *(read.distance for value in graph.values for read in value.reads),
            *(each.distance for each in graph.dependences),
        )
    ]
    deep = ring_depths(schedule, first)
    back = max((-(-deep[name] // len(ring)) for name, ring in first.rings.items() if ring), default=1)
    return (max(ends) - begin) // schedule.interval + 2 + max(far, default=0) + back


def certificate(schedule: Persistent, machine: Machine) -> Iterator[Violation]:
    """What the schedule says of itself is so: its program's bounds are computed anew."""
    stated = schedule.certificate
    if stated is None:
        return
    for bound in (*stated.bounds, *stated.reduction):
        if schedule.interval < bound.cycles:
            yield Violation(
                "certificate", f"the interval {schedule.interval} is below the bound {bound.cycles} of {bound.name}"
            )
    known = {bound.name: bound.cycles for bound in program_bounds([each.tile for each in schedule.placed], machine)}
    for bound in stated.bounds:
        if bound.cycles > known.get(bound.name, 0):
            yield Violation("certificate", f"{bound.name} takes {known.get(bound.name, 0)} cycles, not {bound.cycles}")
    if stated.status == "optimal" and schedule.interval > max(known.values(), default=1):
        yield Violation("certificate", "it is called optimal, and its interval is above all bounds of the program")
    if stated.status == "optimal for the reduction":
        least = max((bound.cycles for bound in stated.reduction), default=1)
        between = range(least, schedule.interval, max(stated.quantum, 1))
        open_still = len(between) - sum(each in between for each in set(stated.refuted))
        if open_still or stated.undecided:
            yield Violation("certificate", f"it is called optimal, and {open_still} intervals are not refuted")
