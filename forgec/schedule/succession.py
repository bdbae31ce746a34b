"""Where one loop, or one output tile, follows another: bars of everything that runs there, instance by instance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from forgec.schedule.machine import Machine
from forgec.schedule.persistent import Persistent, unroll_turns
from forgec.schedule.schedule import Group, Schedule
from forgec.schedule.shortened import shortened
from forgec.schedule.timeline import Bar, Lane, lane
from forgec.schedule.transition import deep, segments
from forgec.schedule.unrolled import Instance, Unrolled, unroll

MOST_TRIPS = 4096
"""Iterations of a turn that are written out."""
AROUND = 1.5
"""Intervals of a loop that are shown before and behind an output tile's end."""


@dataclass(frozen=True)
class Succession:
    """A window of time in which ``unrolled`` goes from one part to the next; ``marks``: names of points in it.

    Cycles are counted from ``origin`` on, where the next part begins.
    """

    unrolled: Unrolled
    groups: tuple[Group, ...]
    first: int
    last: int
    marks: tuple[tuple[int, str], ...]
    origin: int

    def lanes(self, machine: Machine) -> tuple[list[Lane], list[Lane]]:
        """A lane for each unit that is held in the window, and one for each group."""
        units: dict[str, list[Bar]] = {}
        streams: list[list[Bar]] = [[] for _ in self.groups]
        flights: list[list[Bar]] = [[] for _ in self.groups]
        for instance in self.unrolled.instances:
            each = replace(instance, start=instance.start - self.origin)
            for use in each.op.uses:
                begin = each.start + use.offset
                if use.cycles and begin < self.last and begin + use.cycles > self.first:
                    bar = Bar(each.op.name, each.iteration, begin, begin + use.cycles, "use", segment=each.segment)
                    units.setdefault(use.unit, []).append(bar)
            for bar in stream_bars(each, machine):
                if bar.start < self.last and bar.end > self.first:
                    (flights if bar.kind == "flight" else streams)[each.group].append(bar)
        rows = [lane(unit, "unit", units[unit]) for unit in machine.units if unit in units]
        return rows, [group_lane(group.name, *bars) for group, *bars in zip(self.groups, streams, flights, strict=True)]


def stream_bars(each: Instance, machine: Machine) -> list[Bar]:
    """What an instance takes of its group's stream, and its flight."""
    wait, give = each.gets * machine.handover.get, each.puts * machine.handover.put
    op, start, issued = each.op, each.start, each.start + each.op.issue
    spans = [
        ("get", start - wait, start),
        ("issue", start, issued),
        ("put", issued, issued + give),
        ("flight", start, start + op.latency if op.latency > op.issue else start),
    ]
    return [
        Bar(op.name, each.iteration, begin, end, kind, segment=each.segment)
        for kind, begin, end in spans
        if end > begin
    ]


def group_lane(name: str, stream: Sequence[Bar], flights: Sequence[Bar]) -> Lane:
    """A stream in one row, and below it what runs by itself."""
    below = lane(name, "group", flights)
    bars = [Bar(b.op, b.iteration, b.start, b.end, b.kind, b.row + 1, b.segment) for b in below.bars]
    return Lane(name, "group", (*stream, *bars), 1 + below.rows * bool(bars))


def between_phases(schedule: Schedule, place: int) -> Succession:
    """From phase ``place`` to the next one: from the last interval that begins in the one until all stages of the other
    are under way."""
    one, other = schedule.phases[place : place + 2]
    counts = [
        min(phase.graph.trips, deep(schedule, phase)) if number in (place, place + 1) else 0
        for number, phase in enumerate(schedule.phases)
    ]
    parts = segments(schedule, counts)
    end = parts[place].base + counts[place] * one.ii
    begin = parts[place + 1].base
    drained = parts[place].base + (counts[place] - 1) * one.ii + one.length
    done = begin + (counts[place + 1] - 1) * other.ii + other.length
    last = max(min(begin + other.stages * other.ii, done), drained)
    marks = ((end - one.ii - begin, f"last of {one.graph.name}"), (0, f"first of {other.graph.name}"))
    found = unroll(parts, schedule.group_of)
    return Succession(found, schedule.groups, end - one.ii - begin, last - begin, marks, begin)


def between_tiles(schedule: Persistent, machine: Machine) -> Succession:
    """Around the point where the loops of one turn end and those of the next begin.

    Of loops that run very often what repeats is left out, and iterations are counted without it.
    What of an epilogue comes later, when loops are under way again, is seen of the turns before.
    """
    if sum(graph.trips for placed in schedule.placed for graph in placed.tile.phases) > MOST_TRIPS:
        schedule = shortened(schedule, machine)[0]
    before = -(-schedule.span // schedule.interval)
    found = unroll_turns(schedule, before + 2)
    turn, other = before, before + 1

    def of(number: int, *chains: str) -> list[Instance]:
        parts = found.segments
        return [
            each
            for each in found.instances
            if parts[each.segment].turn == number and parts[each.segment].chain.startswith(chains)
        ]

    around = round(AROUND * max(phase.ii for placed in schedule.placed for phase in placed.phases))
    ended = max(each.start + each.op.span for each in of(turn, "loop"))
    begun = min(each.start for each in of(other, "loop", "prologue"))
    looped = min(each.start for each in of(other, "loop"))
    first, last = min(ended, begun) - around, max(ended, looped) + around
    # As far as the epilogue goes on without a break.
    for each in sorted(of(turn, "epilogue"), key=lambda each: each.start):
        if each.start < last:
            last = max(last, each.start + each.op.span)
    marks = sorted({begun: "the next tile begins", ended: "loops are done"}.items())
    shifted = tuple((cycle - begun, name) for cycle, name in marks)
    return Succession(found, schedule.groups, first - begun, last - begun, shifted, begun)
