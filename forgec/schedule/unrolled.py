r"""Loops one after another, iteration by iteration: each op as often as it runs, with a time of its own.

A steady state says nothing of where one loop ends and the next begins. Here nothing is modulo anything: an
**instance** is an op that runs once, a **stored** value is what one instance leaves in one buffer and which instances
read it, a **wait** is a dependence between two instances. Rules and simulations of several loops are about these.

**Segments.** A segment runs a graph ``trips`` times; iteration :math:`i` has op :math:`v` at
:math:`base + i\,II + \sigma_v`. Segments of one *chain* continue each other: what reads at distance :math:`d` in
iteration :math:`i` of the chain reads what iteration :math:`i-d` of the chain left, also where that one belongs to an
earlier segment, if that has a value (or op) of this name. Before the chain's first iteration there is nothing, and
nothing is waited for.

**Rings.** Values of one name have one ring of buffers over all segments: the :math:`m`-th in the order of their
producers' times takes the buffer of the :math:`(m - D)`-th.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from forgec.schedule.graph import Graph, Op, Value
from forgec.schedule.schedule import gets, puts


@dataclass(frozen=True)
class Segment:
    """``trips`` iterations of a graph, from ``base`` on. ``place`` and ``turn`` are for readers: which part of a kernel
    it is, and of which turn of a persistent one."""

    graph: Graph
    ii: int
    starts: Mapping[str, int]
    trips: int
    base: int
    chain: str = "loop"
    place: int = 0
    turn: int = 0


@dataclass
class Instance:
    """An op that runs once. ``gets`` and ``puts``: how many values it takes over from other groups and hands on."""

    op: Op
    group: int
    segment: int
    iteration: int
    start: int
    gets: int
    puts: int


@dataclass
class Stored:
    """What the instance ``producer`` leaves; ``reads``: instances that read it, and when after their start they are
    done with it; ``first``: the instance that takes its storage, if that is an earlier one."""

    value: Value
    producer: int
    reads: list[tuple[int, int]] = field(default_factory=list)
    first: int | None = None

    @property
    def taker(self) -> int:
        """The instance that takes its storage."""
        return self.producer if self.first is None else self.first


@dataclass(frozen=True)
class Wait:
    """``target`` starts ``delay`` cycles after ``source`` starts, or, for a value, after the value is there."""

    source: int
    target: int
    delay: int
    value: Value | None = None


@dataclass
class Unrolled:
    """All that happens. ``rings``: the stored values of each name in the order in which they take buffers."""

    segments: Sequence[Segment]
    instances: list[Instance] = field(default_factory=list)
    waits: list[Wait] = field(default_factory=list)
    rings: dict[str, list[Stored]] = field(default_factory=dict)
    at: dict[tuple[int, str, int], int] = field(default_factory=dict)
    """The instance of an op in an iteration of a segment."""

    def crosses(self, stored: Stored) -> bool:
        """Whether a group other than the producer's reads it."""
        home = self.instances[stored.producer].group
        return any(self.instances[reader].group != home for reader, _ in stored.reads)


def unroll(segments: Sequence[Segment], group_of: Mapping[str, int]) -> Unrolled:
    """Run segments; ``group_of``: the group of each op by name."""
    found = Unrolled(segments)
    stored: dict[tuple[int, str, int], Stored] = {}
    chains: dict[str, list[int]] = {}
    before: list[int] = []
    for number, segment in enumerate(segments):
        row = chains.setdefault(segment.chain, [])
        before.append(sum(segments[other].trips for other in row))
        row.append(number)
        graph = segment.graph
        handed = {op.name: (gets(graph, op, group_of), puts(graph, op, group_of)) for op in graph.ops}
        for turn in range(segment.trips):
            for op in graph.ops:
                start = segment.base + turn * segment.ii + segment.starts[op.name]
                found.at[number, op.name, turn] = len(found.instances)
                found.instances.append(Instance(op, group_of[op.name], number, turn, start, *handed[op.name]))
            for value in graph.values:
                each = Stored(value, found.at[number, value.producer, turn])
                stored[number, value.name, turn] = each
                found.rings.setdefault(value.name, []).append(each)
    for number, segment in enumerate(segments):
        row = chains[segment.chain]
        for turn in range(segment.trips):
            for value in segment.graph.values:
                for read in value.reads:
                    source = earlier(segments, row, before, before[number] + turn - read.distance)
                    each = stored.get((source[0], value.name, source[1])) if source else None
                    if each is not None:
                        reader = found.at[number, read.op, turn]
                        each.reads.append((reader, read.release))
                        found.waits.append(Wait(each.producer, reader, 0, each.value))
            for wait in segment.graph.dependences:
                source = earlier(segments, row, before, before[number] + turn - wait.distance)
                begun = found.at.get((source[0], wait.source, source[1])) if source else None
                if begun is not None:
                    found.waits.append(Wait(begun, found.at[number, wait.target, turn], wait.delay))
    for row in chains.values():
        for one, other in pairwise(row):
            keep_order(found, one, other)
    order(found)
    return found


def keep_order(found: Unrolled, one: int, other: int) -> None:
    """What both of two successive segments produce under one name comes in the order of the segments."""
    last, names = found.segments[one].trips - 1, {value.name: value for value in found.segments[one].graph.values}
    for value in found.segments[other].graph.values:
        if value.name in names and last >= 0 and found.segments[other].trips:
            source = found.at[one, names[value.name].producer, last]
            found.waits.append(Wait(source, found.at[other, value.producer, 0], 0))


def order(found: Unrolled) -> None:
    """Put the rings in order."""
    for ring in found.rings.values():
        ring.sort(key=lambda each: found.instances[each.taker].start + each.value.begin)


def earlier(
    segments: Sequence[Segment], row: Sequence[int], before: Sequence[int], position: int
) -> tuple[int, int] | None:
    """The segment and the iteration in it at a position of a chain; none before the first."""
    for number in row:
        if before[number] <= position < before[number] + segments[number].trips:
            return number, position - before[number]
    return None
