"""How soon a loop may follow another: the least transitions of a schedule of several phases.

The second loop is moved to the right until nothing is against it. What waits for something, or for a buffer, says at
once how far that is. Where a stream or unit is taken, what the second loop has there has to go past the end of
something that the first has there, so that nothing in between need be tried.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from math import gcd

from forgec.schedule.check_unrolled import check_unrolled, life, registers
from forgec.schedule.graph import Graph
from forgec.schedule.machine import Machine
from forgec.schedule.schedule import Phase, Schedule, transfer
from forgec.schedule.unrolled import Segment, Unrolled, unroll

Held = tuple[int, int, int, bool]
"""Begin, end, amount, and whether it is the second loop's."""


def with_transitions(schedule: Schedule, machine: Machine) -> Schedule | None:
    """The schedule with its least transitions; None where a loop may not follow at all.

    That happens where the second loop fills its pipeline while it still has to keep what the first one left, and the
    registers do not hold both.
    """
    found: list[int] = []
    for one, other in pairwise(schedule.phases):
        pair = replace(schedule, phases=(one, other), transitions=(0,))
        least = least_transition(pair, machine)
        if least is None:
            return None
        found.append(least)
    told = [min(phase.graph.trips, deep(schedule, phase)) for phase in schedule.phases]
    for transitions in (found, [serial(phase) for phase in schedule.phases[:-1]]):
        whole = replace(schedule, transitions=tuple(transitions))
        # A short phase in the middle may leave its neighbours on both sides at odds.
        if not check_unrolled(unroll(segments(whole, told), whole.group_of), whole.groups, whole.depths, machine):
            return whole
    return None


def deep(schedule: Schedule, phase: Phase) -> int:
    """Iterations after which nothing new happens."""
    graph = phase.graph
    far = [read.distance for value in graph.values for read in value.reads]
    far += [each.distance for each in graph.dependences]
    depth = max((schedule.depths[value.name] for value in graph.values), default=1)
    return serial(phase) // phase.ii + 1 + max(far, default=0) + depth


def serial(phase: Phase) -> int:
    """A transition after which nothing of the phase is left: the end of its last iteration."""
    ends = [phase.starts[op.name] + op.span for op in phase.graph.ops]
    ends += [phase.starts[op.name] + use.offset + use.cycles for op in phase.graph.ops for use in op.uses]
    ends += [phase.starts[read.op] + read.release for value in phase.graph.values for read in value.reads]
    return max(ends)


def segments(schedule: Schedule, counts: Sequence[int]) -> list[Segment]:
    """The phases one after another, with so many iterations."""
    base, found = 0, []
    delays = (*schedule.transitions, *[0] * (len(schedule.phases) - len(schedule.transitions)))
    for place, (phase, count, delay) in enumerate(zip(schedule.phases, counts, delays, strict=True)):
        found.append(Segment(phase.graph, phase.ii, phase.starts, count, base, place=place))
        base += count * phase.ii + delay
    return found


def least_transition(pair: Schedule, machine: Machine) -> int | None:
    """The least transition between two phases."""
    one, other = pair.phases
    counts = [deep(pair, one), deep(pair, other)]
    step = gcd(*(time_unit(phase) for phase in pair.phases)) or 1
    handover = machine.handover
    longest = serial(one) + sum(op.span for op in other.graph.ops)
    longest += (handover.put + handover.get + handover.latency) * (len(other.graph.values) + len(one.graph.values) + 1)
    longest += sum(transfer(machine, value) for graph in (one.graph, other.graph) for value in graph.values)
    delay = 0
    while delay <= longest:
        moved = replace(pair, transitions=(delay,))
        found = unroll(segments(moved, counts), pair.group_of)
        later = max(lateness(found, pair, machine), default=0)
        if later <= 0:
            later = max(clashes(found, pair, machine), default=0)
        if later <= 0:
            if not list(registers(found, pair.groups, machine)):
                return delay
            later = step
        delay += later
    return None


def time_unit(phase: Phase) -> int:
    """What all times of a phase are multiples of."""
    graph: Graph = phase.graph
    return gcd(graph.quantum(), phase.ii, *phase.starts.values())


def lateness(found: Unrolled, schedule: Schedule, machine: Machine) -> Iterator[int]:
    """By how much instances of the second phase start before what they wait for in the first."""
    hop = machine.handover.latency
    for wait in found.waits:
        source, target = found.instances[wait.source], found.instances[wait.target]
        if source.segment == target.segment:
            continue
        there = source.start + wait.delay + (source.op.latency if wait.value else 0)
        if source.group != target.group:
            there += hop + (transfer(machine, wait.value) if wait.value else 0)
        yield there - target.start
    for name, ring in found.rings.items():
        for old, new in zip(ring, ring[schedule.depths[name] :], strict=False):
            producer = found.instances[new.producer]
            if found.instances[old.producer].segment == producer.segment:
                continue
            # What a reader of the second phase releases moves with it.
            ends = [life(found, replace(old, reads=[]))[1]]
            extra = hop if found.crosses(old) else 0
            for reader, release in old.reads:
                if found.instances[reader].segment != producer.segment:
                    ends.append(found.instances[reader].start + max(release, new.value.begin) + extra)
            yield max(ends) - producer.start - new.value.begin


def clashes(found: Unrolled, schedule: Schedule, machine: Machine) -> Iterator[int]:
    """How far the second phase has to go where both have too much of a stream or of a unit."""
    handover = machine.handover
    streams: list[list[Held]] = [[] for _ in schedule.groups]
    units: dict[str, list[Held]] = {name: [] for name in machine.units}
    for each in found.instances:
        second = each.segment == 1
        begin, end = each.start - each.gets * handover.get, each.start + each.op.issue + each.puts * handover.put
        streams[each.group].append((begin, end, 1, second))
        for use in each.op.uses:
            first = each.start + use.offset
            units[use.unit].append((first, first + use.cycles, use.amount, second))
    for row in streams:
        yield clash(row, 1)
    for name, row in units.items():
        yield clash(row, machine.units[name].capacity)


def clash(row: list[Held], capacity: int) -> int:
    """0 where there is none."""
    events = sorted(
        (time, change, index) for index, (b, e, _, _) in enumerate(row) if b < e for time, change in ((b, 1), (e, -1))
    )
    active: set[int] = set()
    level = 0
    for _, change, index in events:
        level += change * row[index][2]
        if change < 0:
            active.discard(index)
            continue
        active.add(index)
        if level > capacity:
            ours = [row[k][0] for k in active if row[k][3]]
            theirs = [row[k][1] for k in active if not row[k][3]]
            if ours and theirs:
                return min(theirs) - max(ours)
    return 0
