r"""Turns with shorter loops: what repeats in the middle of a long loop is left out, or put in again.

Where one loop alone is under way (no other op is busy or in flight, no storage of another value is taken or freed), one
interval of the loop is like the next: what is legal with a few of them there is legal with any number. So nothing that
is solved, checked or run needs to be proportional to ``trips``.

A **stretch** is such a time. As many of its intervals stay as ops and values of the loop reach over; the rest is cut
out: times before the stretch stay, those behind it are earlier by what was cut. In the other direction a schedule with
short loops becomes one with long ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from forgec.schedule.graph import Graph
from forgec.schedule.machine import Machine
from forgec.schedule.persistent import Persistent, Placed
from forgec.schedule.schedule import Phase, transfer
from forgec.schedule.tile import Tile

MARGIN = 2
"""Intervals of a loop that stay beside those that anything reaches over."""
MOST_TURNS = 1000
"""That may be under way at a time."""
Span = tuple[int, int]


@dataclass(frozen=True)
class Stretch:
    """Where phase ``phase`` of tile ``tile`` of a turn is alone, from ``begin`` to ``end``; ``keep`` intervals of it
    are enough to show what happens."""

    tile: int
    phase: int
    begin: int
    end: int
    ii: int
    keep: int

    @property
    def spare(self) -> int:
        """Intervals that may be cut out; negative: so many are missing."""
        return (self.end - self.begin) // self.ii - self.keep


def slack(tile: Tile, machine: Machine) -> int:
    """Cycles by which the business of any op of a tile may begin before its start, or end later than it says: what
    taking values over and handing them on costs."""
    handover = machine.handover
    values = [value for graph in (*tile.graphs, tile.links) for value in graph.values]
    slowest = max((transfer(machine, value) for value in values), default=0)
    return (handover.get + handover.put) * len(values) + handover.latency + slowest


def tails(tile: Tile) -> dict[str, int]:
    """For each op how long after its start it, what it holds, its use of what it reads and any delay are over."""
    found: dict[str, int] = {}
    for graph in (*tile.graphs, tile.links):
        for op in graph.ops:
            ends = [op.span, *(use.offset + use.cycles for use in op.uses)]
            found[op.name] = max(found.get(op.name, 0), *ends)
        for value in graph.values:
            for read in value.reads:
                found[read.op] = max(found.get(read.op, 0), read.release, value.begin)
        for each in graph.dependences:
            found[each.source] = max(found.get(each.source, 0), each.delay)
    return found


def reach(graph: Graph, ii: int, starts: Mapping[str, int], depths: Mapping[str, int], tile: Tile) -> int:
    """Intervals that ops and values of a loop reach over."""
    tail = tails(tile)
    whole = max(starts[op.name] + tail[op.name] for op in graph.ops) - min(starts.values())
    far = [read.distance for value in graph.values for read in value.reads]
    far += [each.distance for each in graph.dependences]
    deep = max((depths.get(value.name, 1) for value in graph.values), default=1)
    return -(-whole // ii) + max(far, default=0) + deep + MARGIN


def stretches(schedule: Persistent, machine: Machine) -> Iterator[Stretch]:
    """For each loop the longest time at which it is alone, if there is any."""
    busy: list[tuple[tuple[int, int] | None, Span]] = []
    steady: dict[tuple[int, int], Span] = {}
    for number, placed in enumerate(schedule.placed):
        tail, pad = tails(placed.tile), slack(placed.tile, machine)
        for starts in (placed.prologue, placed.epilogue):
            busy += [(None, (start - pad, start + tail[name] + pad)) for name, start in starts.items()]
        for place, (phase, base) in enumerate(zip(placed.phases, placed.bases, strict=True)):
            begin, rest = base + min(phase.starts.values()), (phase.graph.trips - 1) * phase.ii
            ended = base + max(phase.starts[name] + tail[name] for name in phase.starts)
            busy.append(((number, place), (begin - pad, ended + rest + pad)))
            # From when on all ops of the first iteration are over, to where the last one begins.
            steady[number, place] = ended + pad, begin + rest - pad
    ends = [time for _, span in busy for time in span]
    if max(ends) - min(ends) > MOST_TURNS * schedule.interval:
        return
    for (number, place), window in steady.items():
        spans = [
            (begin + turn * schedule.interval, end + turn * schedule.interval)
            for key, (begin, end) in busy
            for turn in range(-((end - window[0]) // schedule.interval), (window[1] - begin) // schedule.interval + 1)
            if turn or key != (number, place)
        ]
        begin, end = widest(spans, window)
        if end > begin:
            placed = schedule.placed[number]
            phase = placed.phases[place]
            keep = reach(phase.graph, phase.ii, phase.starts, schedule.depths, placed.tile)
            yield Stretch(number, place, begin, end, phase.ii, keep)


def widest(spans: list[Span], window: Span) -> Span:
    """The widest part of a window that no span meets."""
    at, best = window[0], (window[0], window[0])
    for begin, end in [*sorted(spans), (window[1], window[1])]:
        if min(begin, window[1]) - at > best[1] - best[0]:
            best = at, min(begin, window[1])
        at = max(at, end)
    return best


def changed(schedule: Persistent, cuts: Mapping[Stretch, int]) -> Persistent:
    """With so many intervals of loops cut out where they are alone; put in, where the number is negative."""
    lost = sum(count * each.ii for each, count in cuts.items())

    def at(time: int) -> int:
        turns = ((count * each.ii, (time - each.end) // schedule.interval + 1) for each, count in cuts.items())
        return time - sum(cycles * number for cycles, number in turns)

    fewer = {(each.tile, each.phase): count for each, count in cuts.items()}
    placed: list[Placed] = []
    for number, each in enumerate(schedule.placed):
        graphs = tuple(
            replace(graph, trips=graph.trips - fewer.get((number, place), 0))
            for place, graph in enumerate(each.tile.phases)
        )
        placed.append(
            Placed(
                replace(each.tile, phases=graphs),
                tuple(replace(phase, graph=graph) for phase, graph in zip(each.phases, graphs, strict=True)),
                tuple(map(at, each.bases)),
                {name: at(start) for name, start in each.prologue.items()},
                {name: at(start) for name, start in each.epilogue.items()},
            )
        )
    return replace(schedule, interval=schedule.interval - lost, placed=tuple(placed))


def shortened(schedule: Persistent, machine: Machine) -> tuple[Persistent, int]:
    """The schedule without what repeats, and the cycles of a turn that were left out.

    What is legal of the one is legal of the other. The certificate stays that of the whole one.
    """
    cuts = {each: each.spare for each in stretches(schedule, machine) if each.spare > 0}
    return changed(schedule, cuts), sum(count * each.ii for each, count in cuts.items())


def lengthened(schedule: Persistent, trips: tuple[int, ...], machine: Machine) -> Persistent | None:
    """The schedule with ``trips`` iterations of each phase; None where a loop that has fewer is nowhere alone for long
    enough."""
    alone = {(each.tile, each.phase): each for each in stretches(schedule, machine)}
    more: dict[Stretch, int] = {}
    for number, placed in enumerate(schedule.placed):
        for place, (graph, wanted) in enumerate(zip(placed.tile.phases, trips, strict=True)):
            missing = graph.trips - wanted
            if missing:
                found = alone.get((number, place))
                if found is None or found.spare < 0:
                    return None
                more[found] = missing
    return changed(schedule, more)


def few_trips(tile: Tile, phases: tuple[Phase, ...], depths: Mapping[str, int], machine: Machine) -> tuple[int, ...]:
    """Iterations of each phase with which turns are solved: room for what comes before and after the loops at either
    end, and as many between as one shows what happens."""
    ends = [op for graph in (tile.prologue, tile.epilogue) if graph is not None for op in graph.ops]
    pad = slack(tile, machine)
    tail = tails(tile)
    # One after another they take as long as their streams and units; what waits for memory waits side by side.
    work = sum(max(op.issue, *(use.cycles for use in op.uses), 0) for op in ends)
    work += 2 * max((tail[op.name] for op in ends), default=0) + 4 * pad
    found = []
    for phase in phases:
        keep = reach(phase.graph, phase.ii, phase.starts, depths, tile)
        found.append(min(phase.graph.trips, 2 * keep + 2 + -(-work // phase.ii)))
    return tuple(found)
