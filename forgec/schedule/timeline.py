"""What happens when, for readers: bars of units and groups, bytes that are live, and the channels between groups.

Everything is in cycles of one phase, in which iteration ``i`` begins at ``i x II`` and may be any integer: a window of
time is looked at, whatever of earlier iterations reaches into it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from forgec.schedule.graph import Op, Value
from forgec.schedule.machine import Machine
from forgec.schedule.schedule import Group, Phase, Schedule, gets, lifetime, puts


@dataclass(frozen=True)
class Bar:
    """One op of one iteration in a lane, from ``start`` to ``end``.

    ``kind``: ``use`` of a unit; of a group's stream ``issue``, and ``get`` and ``put`` for what is handed over;
    ``flight``: it runs by itself until its result is there. ``row``: bars of a lane that overlap lie in several.
    ``segment``: which loop, prologue or epilogue it belongs to, where several are shown.
    """

    op: str
    iteration: int
    start: int
    end: int
    kind: str
    row: int = 0
    segment: int = 0


@dataclass(frozen=True)
class Lane:
    """A row of the chart: a unit or a group."""

    name: str
    kind: str
    bars: tuple[Bar, ...]
    rows: int


@dataclass(frozen=True)
class Curve:
    """``points``: from each cycle on, so much. ``limit``: how much there may be. ``reserved``: what buffers take."""

    name: str
    unit: str
    points: tuple[tuple[int, int], ...]
    limit: int
    reserved: int = 0

    @property
    def most(self) -> int:
        """The largest amount."""
        return max((amount for _, amount in self.points), default=0)


@dataclass(frozen=True)
class Channel:
    """A value that goes from one group to others: ``depth`` buffers of ``size`` bytes (0: a signal alone)."""

    name: str
    depth: int
    size: int
    memory: str
    producer: str
    giver: str
    consumers: tuple[str, ...]
    takers: tuple[str, ...]


def iterations(start: int, end: int, ii: int, first: int, last: int, begin: int | None = None) -> Iterator[int]:
    """The iterations of which ``[start, end)`` of iteration 0 reaches into the window; none before ``begin``."""
    lowest = (first - end) // ii + 1
    yield from range(lowest if begin is None else max(lowest, begin), -(-(last - start) // ii))


def unit_lanes(phase: Phase, machine: Machine, first: int, last: int, begin: int | None = None) -> list[Lane]:
    """A lane for each unit that an op holds, in the machine's order."""
    found: dict[str, list[Bar]] = {}
    for op in phase.graph.ops:
        for use in op.uses:
            start = phase.starts[op.name] + use.offset
            for turn in iterations(start, start + use.cycles, phase.ii, first, last, begin) if use.cycles else ():
                at = start + turn * phase.ii
                found.setdefault(use.unit, []).append(Bar(op.name, turn, at, at + use.cycles, "use"))
    return [lane(unit, "unit", found[unit]) for unit in machine.units if unit in found]


def group_lanes(
    schedule: Schedule, phase: Phase, machine: Machine, first: int, last: int, begin: int | None = None
) -> list[Lane]:
    """A lane for each group: what its stream does, and below it what it has started and not waited for."""
    found = []
    for group in schedule.groups:
        bars: list[Bar] = []
        for op in phase.graph.ops:
            if op.name in group.ops:
                for bar in op_bars(schedule, phase, machine, op):
                    bars += [
                        replace(bar, iteration=turn, start=bar.start + turn * phase.ii, end=bar.end + turn * phase.ii)
                        for turn in iterations(bar.start, bar.end, phase.ii, first, last, begin)
                    ]
        stream = [bar for bar in bars if bar.kind != "flight"]
        flights = lane(group.name, "group", (bar for bar in bars if bar.kind == "flight"))
        # Streams are disjoint: one row; flights lie below.
        below = [replace(bar, row=bar.row + 1) for bar in flights.bars]
        found.append(Lane(group.name, "group", (*stream, *below), 1 + flights.rows * bool(below)))
    return found


def op_bars(schedule: Schedule, phase: Phase, machine: Machine, op: Op) -> list[Bar]:
    """What an op of iteration 0 takes of its group's stream, and its flight."""
    start = phase.starts[op.name]
    wait = gets(phase.graph, op, schedule.group_of) * machine.handover.get
    give = puts(phase.graph, op, schedule.group_of) * machine.handover.put
    bars = [
        Bar(op.name, 0, start - wait, start, "get"),
        Bar(op.name, 0, start, start + op.issue, "issue"),
        Bar(op.name, 0, start + op.issue, start + op.issue + give, "put"),
        Bar(op.name, 0, start, start + op.latency, "flight"),
    ]
    return [bar for bar in bars if bar.end > bar.start and (bar.kind != "flight" or op.latency > op.issue)]


def lane(name: str, kind: str, bars: Iterable[Bar]) -> Lane:
    """Bars in as few rows as they need, each in the first that is free."""
    ends: list[int] = []
    placed = []
    for bar in sorted(bars, key=lambda bar: (bar.start, bar.op)):
        row = next((number for number, end in enumerate(ends) if end <= bar.start), len(ends))
        ends[row:] = [bar.end, *ends[row + 1 :]]
        placed.append(replace(bar, row=row))
    return Lane(name, kind, tuple(placed), max(len(ends), 1))


# Memory


def register_curve(schedule: Schedule, phase: Phase, machine: Machine, group: Group, first: int, last: int) -> Curve:
    """Registers of a thread of the group, with those that the machine reserves, against its grant."""
    mine = set(group.ops)
    spans: list[tuple[int, int, int]] = []
    for value in phase.graph.values:
        if value.memory == "register" and mine & {value.producer, *(read.op for read in value.reads)}:
            acquire = phase.starts[value.producer] + value.begin
            spans.append((acquire, acquire + lifetime(phase.graph, value, phase.starts, phase.ii), value.size))
    points = steps(spans, phase.ii, first, last)
    threads = 32 * group.warps
    reserve = min(machine.registers.reserve, group.registers)
    each = tuple((cycle, reserve + -(-amount // (4 * threads))) for cycle, amount in points)
    return Curve(group.name, "registers", each, group.registers)


def memory_curve(schedule: Schedule, phase: Phase, machine: Machine, memory: str, first: int, last: int) -> Curve:
    """Bytes of shared or tensor memory that hold something which is still to be read, against what there is."""
    resident = phase.graph.resident.get(memory, 0)
    spans: list[tuple[int, int, int]] = []
    for value in phase.graph.values:
        if lies_in(schedule, value, memory):
            acquire = phase.starts[value.producer] + value.begin
            spans.append((acquire, acquire + lifetime(phase.graph, value, phase.starts, phase.ii), value.size))
    points = tuple((cycle, resident + amount) for cycle, amount in steps(spans, phase.ii, first, last))
    return Curve(memory, "bytes", points, machine.memory_bytes(memory), reserved(schedule, memory))


def lies_in(schedule: Schedule, value: Value, memory: str) -> bool:
    """Whether buffers of a value are in this memory; what leaves registers for another group is staged in shared."""
    staged = memory == "shared" and value.memory == "register" and schedule.crossing(value)
    return value.memory == memory or staged


def allotted(schedule: Schedule, memory: str) -> dict[str, int]:
    """Bytes of the buffers of each value in shared or tensor memory."""
    sizes: dict[str, int] = {}
    for phase in schedule.phases:
        for value in phase.graph.values:
            if lies_in(schedule, value, memory):
                size = value.size * schedule.depths[value.name]
                sizes[value.name] = max(sizes.get(value.name, 0), size)
    return sizes


def reserved(schedule: Schedule, memory: str) -> int:
    """Bytes of a memory that the kernel takes: all buffers, and what is there for the whole loop."""
    resident = max(phase.graph.resident.get(memory, 0) for phase in schedule.phases)
    return resident + sum(allotted(schedule, memory).values())


def steps(spans: Iterable[tuple[int, int, int]], ii: int, first: int, last: int) -> list[tuple[int, int]]:
    """The sum of amounts over time in the steady state; ``spans``: begin and end in iteration 0, amount."""
    changes: dict[int, int] = {first: 0}
    for begin, end, amount in spans:
        for turn in iterations(begin, end, ii, first, last) if end > begin else ():
            enter, leave = max(begin + turn * ii, first), min(end + turn * ii, last)
            changes[enter] = changes.get(enter, 0) + amount
            changes[leave] = changes.get(leave, 0) - amount
    found: list[tuple[int, int]] = []
    total = 0
    for cycle in sorted(changes):
        total += changes[cycle]
        if cycle < last:
            found.append((cycle, total))
    return found


# Channels


def channels(schedule: Schedule) -> list[Channel]:
    """The arefs of a schedule: values that another group than the producer's reads, in the order of the graphs."""
    found: dict[str, Channel] = {}
    groups: Mapping[str, int] = schedule.group_of
    for phase in schedule.phases:
        for value in phase.graph.values:
            if not schedule.crossing(value):
                continue
            giver = schedule.groups[groups[value.producer]].name
            readers = [read.op for read in value.reads if schedule.groups[groups[read.op]].name != giver]
            before = found.get(value.name)
            consumers = tuple(dict.fromkeys([*(before.consumers if before else ()), *readers]))
            found[value.name] = Channel(
                name=value.name,
                depth=schedule.depths[value.name],
                size=max(value.size, before.size if before else 0),
                memory="shared" if value.memory == "register" else value.memory,
                producer=value.producer,
                giver=giver,
                consumers=consumers,
                takers=tuple(dict.fromkeys(schedule.groups[groups[name]].name for name in consumers)),
            )
    return list(found.values())
