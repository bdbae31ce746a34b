"""A cycle simulator: warp groups that run their ops in order, with bounded channels and units that are held.

Nothing here goes by the clock of the schedule. A group issues its next op as soon as its stream is free, what the op
reads is there, and the buffers that it writes are empty, as barriers on a GPU make it; of the schedule only the order
of ops, the groups and the depths of buffers are used. So it shows what a schedule achieves when latencies are not what
the model expects (``latency`` stands in for the variable ones), and whether groups wait for each other for ever.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from random import Random

from forgec.schedule.graph import Op
from forgec.schedule.machine import Machine
from forgec.schedule.persistent import Persistent, ring_depths, unroll_turns
from forgec.schedule.schedule import Group, Schedule, transfer
from forgec.schedule.shortened import shortened
from forgec.schedule.transition import segments
from forgec.schedule.unrolled import Instance, Unrolled, Wait, unroll

LEAST_RUN, FILLS = 32, 8
"""Iterations that are run unless told, and how many times more than the buffers of any value."""
Latency = Callable[[Op, int], int]
"""Of an op in an iteration, in cycles."""


@dataclass(frozen=True)
class Event:
    """One op of one iteration as it ran: cycles of its start, of the end of its issue, and of its result.

    ``iteration`` counts over all phases.
    """

    group: str
    op: str
    phase: int
    iteration: int
    start: int
    issued: int
    done: int


@dataclass(frozen=True)
class Simulation:
    """What happened.

    ``per_iteration``: cycles between the ends of two iterations of the last phase, over the middle half of its run.
    ``utilization``: the share of ``cycles`` for which each unit is held. ``deadlock``: for each group that could not go
    on, the op that it could not issue and what that waits for; empty where all is well.
    """

    cycles: int
    per_iteration: float
    utilization: dict[str, float]
    events: list[Event]
    deadlock: dict[str, str] = field(default_factory=dict)


class _Unit:
    """Reservations of one unit, and the first time at which so much of it is free for so long."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.held: list[tuple[int, int, int]] = []
        self.busy = self.end = 0

    def first(self, start: int, cycles: int, amount: int) -> int:
        """The earliest time from ``start`` on."""
        while True:
            points = [start, *(begin for begin, _, _ in self.held if start < begin < start + cycles)]
            full = next(
                (at for at in points if amount + sum(a for b, e, a in self.held if b <= at < e) > self.capacity), None
            )
            if full is None:
                return start
            start = min(end for begin, end, _ in self.held if begin <= full < end)

    def hold(self, start: int, cycles: int, amount: int, now: int) -> None:
        """Reserve it; what ended before ``now`` is forgotten."""
        self.held = [each for each in self.held if each[1] > now]
        self.held.append((start, start + cycles, amount))
        self.busy += cycles * amount
        self.end = max(self.end, start + cycles)


class Run:
    """The state of one simulation of what was unrolled."""

    def __init__(
        self,
        unrolled: Unrolled,
        groups: Sequence[Group],
        depths: Mapping[str, int],
        machine: Machine,
        latency: Latency | None = None,
    ) -> None:
        self.groups, self.machine = groups, machine
        self.latency = latency or (lambda op, _: op.latency)
        self.instances = unrolled.instances
        self.numbers = numbers(unrolled)
        self.programs: list[list[int]] = [[] for _ in groups]
        self.waits: list[list[Wait]] = [[] for _ in self.instances]
        for wait in unrolled.waits:
            self.waits[wait.target].append(wait)
        self.emptied: list[list[tuple[int, int, str, int]]] = [[] for _ in self.instances]
        """What an instance needs for its buffers: an instance, how long after its start or (-1) its end it is done
        with the buffer, the value's name, and by how much earlier than its storage is taken the instance starts."""
        for name, ring in unrolled.rings.items():
            for old, new in zip(ring, ring[depths[name] :], strict=False):
                hop = machine.handover.latency if unrolled.crosses(old) else 0
                row = self.emptied[new.taker]
                if old.producer != new.taker:
                    row.append((old.producer, -1, name, new.value.begin))
                # One that reads the old value as it writes the new one in its place does not wait for itself.
                row += [
                    (reader, max(release, new.value.begin) + hop, name, new.value.begin)
                    for reader, release in old.reads
                    if reader != new.taker
                ]
        for index in self.in_order():
            self.programs[self.instances[index].group].append(index)
        self.units = {name: _Unit(unit.capacity) for name, unit in machine.units.items()}
        self.free = [0] * len(groups)
        # Nothing starts before the latest start: what units held before it is forgotten.
        self.now = 0
        self.at = [0] * len(groups)
        self.started: dict[int, int] = {}
        self.done: dict[int, int] = {}
        self.order: list[int] = []
        self.issued: dict[int, int] = {}

    def in_order(self) -> list[int]:
        """Instances by their starts; of those that start at one time, what others wait for comes first."""
        started: dict[int, list[int]] = {}
        for index, each in enumerate(self.instances):
            started.setdefault(each.start, []).append(index)
        found: list[int] = []
        for _, row in sorted(started.items()):
            left = dict.fromkeys(row)
            first = {
                index: {wait.source for wait in self.waits[index]} | {other for other, *_ in self.emptied[index]}
                for index in row
            }
            while left:
                free = next((index for index in left if not first[index] & (left.keys() - {index})), next(iter(left)))
                found.append(free)
                del left[free]
        return found

    def ready(self, index: int) -> tuple[int, str]:
        """When what an instance waits for is there; or -1 and what has not happened yet."""
        time, hop, mine = 0, self.machine.handover.latency, self.instances[index].group
        for wait in self.waits[index]:
            begun = self.started.get(wait.source)
            source = self.instances[wait.source]
            if begun is None:
                return -1, f"the value {wait.value.name}" if wait.value else f"the op {source.op.name}"
            there = wait.delay + (begun if wait.value is None else self.done[wait.source])
            if source.group != mine:
                there += hop + (transfer(self.machine, wait.value) if wait.value else 0)
            time = max(time, there)
        for other, after, name, begin in self.emptied[index]:
            if other not in self.started:
                return -1, f"an empty buffer of {name}, which {self.instances[other].op.name} reads"
            time = max(time, (self.done[other] if after < 0 else self.started[other] + after) - begin)
        return time, ""

    def issue(self, group: int, index: int, ready: int) -> None:
        """Run an op."""
        machine, each = self.machine, self.instances[index]
        wait = each.gets * machine.handover.get
        start = self.now = self.earliest(group, each, ready)
        for use in each.op.uses:
            self.units[use.unit].hold(start + use.offset, use.cycles, use.amount, start - wait)
        self.free[group] = self.issued[index] = start + each.op.issue + each.puts * machine.handover.put
        latency = self.latency(each.op, self.numbers[index]) if each.op.variable else each.op.latency
        self.started[index], self.done[index] = start, start + latency
        self.at[group] += 1
        self.order.append(index)

    def earliest(self, group: int, each: Instance, ready: int) -> int:
        """When an op can start: its stream and its units are free."""
        start = max(self.free[group] + each.gets * self.machine.handover.get, ready, self.now)
        while True:
            later = max(
                (
                    self.units[use.unit].first(start + use.offset, use.cycles, use.amount) - use.offset
                    for use in each.op.uses
                    if use.cycles
                ),
                default=start,
            )
            if later <= start:
                return start
            start = later

    def run(self) -> dict[str, str]:
        """Until all is done or nothing can be: then what each group waits for."""
        while True:
            best: tuple[int, int, int] | None = None
            waiting: dict[str, str] = {}
            for group, program in enumerate(self.programs):
                if self.at[group] == len(program):
                    continue
                index = program[self.at[group]]
                each = self.instances[index]
                ready, missing = self.ready(index)
                if missing:
                    waiting[self.groups[group].name] = f"{each.op.name} waits for {missing}"
                    continue
                start = self.earliest(group, each, ready)
                if best is None or (start, each.start) < best[:2]:
                    best = (start, each.start, group)
            if best is None:
                return waiting
            group = best[2]
            index = self.programs[group][self.at[group]]
            self.issue(group, index, self.ready(index)[0])

    def event(self, index: int, place: int) -> Event:
        """What an instance did."""
        each = self.instances[index]
        return Event(
            self.groups[each.group].name,
            each.op.name,
            place,
            self.numbers[index],
            self.started[index],
            self.issued[index],
            self.done[index],
        )

    def utilization(self, cycles: int) -> dict[str, float]:
        """The share for which each unit was held: of ``cycles``, or until the last one is let go of."""
        cycles = max([cycles, *(unit.end for unit in self.units.values())])
        return {name: unit.busy / (unit.capacity * cycles) for name, unit in self.units.items() if unit.busy and cycles}


def numbers(unrolled: Unrolled) -> list[int]:
    """The iteration of each instance, counted over its chain."""
    before, chains = [], {}
    for segment in unrolled.segments:
        before.append(chains.get(segment.chain, 0))
        chains[segment.chain] = before[-1] + segment.trips
    return [before[each.segment] + each.iteration for each in unrolled.instances]


def middle(ends: Mapping[int, int], cycles: int) -> float:
    """Cycles from one end to the next, over the middle half: neither the filling nor the draining."""
    numbered = sorted(ends)
    rest = numbered[len(numbered) // 4 : -(-3 * len(numbered) // 4)]
    return (ends[rest[-1]] - ends[rest[0]]) / (len(rest) - 1) if len(rest) > 1 else float(cycles)


def enough(schedule: Schedule) -> int:
    """Iterations after which the middle half is neither filling nor draining: groups run apart by their buffers."""
    return max(LEAST_RUN, FILLS * max(schedule.depths.values(), default=0))


def simulate(
    schedule: Schedule, machine: Machine, trips: Sequence[int] | None = None, latency: Latency | None = None
) -> Simulation:
    """Run a schedule for ``trips`` iterations of each phase (``enough`` of each unless told).

    ``latency`` gives that of ops which are variable, for each iteration; the expected one unless told.
    """
    counts = list(trips) if trips is not None else [enough(schedule)] * len(schedule.phases)
    unrolled = unroll(segments(schedule, counts), schedule.group_of)
    run = Run(unrolled, schedule.groups, schedule.depths, machine, latency)
    deadlock = run.run()
    events = [run.event(index, run.instances[index].segment) for index in run.order]
    cycles = max((event.done for event in events), default=0)
    ends: dict[int, int] = {}
    for event in events:
        if event.phase == len(counts) - 1:
            ends[event.iteration] = max(ends.get(event.iteration, 0), event.done)
    return Simulation(cycles, middle(ends, cycles), run.utilization(cycles), events, deadlock)


def simulate_turns(schedule: Persistent, machine: Machine, turns: int, latency: Latency | None = None) -> Simulation:
    """Run a persistent schedule for so many turns; ``iteration`` of events is the turn, ``per_iteration`` its cycles.

    ``latency`` as of ``simulate``, by the iteration within each loop.
    """
    short, more = shortened(schedule, machine)
    unrolled = unroll_turns(short, turns)
    run = Run(unrolled, short.groups, ring_depths(short, unrolled), machine, latency)
    deadlock = run.run()
    events: list[Event] = []
    ends: dict[int, int] = {}
    for index in run.order:
        segment = unrolled.segments[run.instances[index].segment]
        event = replace(run.event(index, segment.place), iteration=segment.turn)
        events.append(event)
        ends[segment.turn] = max(ends.get(segment.turn, 0), event.done)
    cycles = max(ends.values(), default=0)
    # What was left out holds units as the solved loops do.
    for name, work in left_out(schedule, short).items():
        run.units[name].busy += work * turns
    whole = cycles + more * turns
    return Simulation(whole, middle(ends, cycles) + more, run.utilization(whole), events, deadlock)


def left_out(schedule: Persistent, short: Persistent) -> dict[str, int]:
    """What the iterations hold of units that a shorter schedule has not, in a turn."""
    found: dict[str, int] = {}
    for whole, part in zip(schedule.placed, short.placed, strict=True):
        for long, few in zip(whole.tile.phases, part.tile.phases, strict=True):
            for use in (use for op in long.ops for use in op.uses):
                work = use.cycles * use.amount * (long.trips - few.trips)
                found[use.unit] = found.get(use.unit, 0) + work
    return found


@dataclass(frozen=True)
class Spread:
    """Cycles per iteration over runs with random latencies, in rising order; ``expected`` with those of the model."""

    expected: float
    runs: tuple[float, ...]

    @property
    def median(self) -> float:
        """Half of the runs take no longer."""
        return statistics.median(self.runs)

    @property
    def worst(self) -> float:
        """The slowest run."""
        return self.runs[-1]


def spread(
    schedule: Schedule,
    machine: Machine,
    *,
    least: float = 0.5,
    most: float = 2.0,
    runs: int = 16,
    trips: Sequence[int] | None = None,
    seed: int = 0,
) -> Spread:
    """What a schedule achieves where each variable latency is anything from ``least`` to ``most`` times the expected.

    Raises:
        ValueError: where the schedule comes to a deadlock, which no latency may bring about.
    """
    random, found = Random(seed), []
    for _ in range(runs):
        run = simulate(schedule, machine, trips, lambda op, _: round(op.latency * random.uniform(least, most)))
        if run.deadlock:
            raise ValueError(f"a deadlock: {'; '.join(run.deadlock.values())}")
        found.append(run.per_iteration)
    return Spread(simulate(schedule, machine, trips).per_iteration, tuple(sorted(found)))
