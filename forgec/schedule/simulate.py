"""A cycle simulator: warp groups that run their ops in order, with bounded channels and units that are held.

Nothing here goes by the clock of the schedule. A group issues its next op as soon as its stream is free, what the op
reads is there, and the buffers that it writes are empty, as barriers on a GPU make it; of the schedule only the order
of ops, the groups and the depths of buffers are used. So it shows what a schedule achieves when latencies are not what
the model expects (``latency`` stands in for the variable ones), and whether groups wait for each other for ever.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from forgec.schedule.graph import Graph, Op, Value
from forgec.schedule.machine import Machine
from forgec.schedule.schedule import Schedule, gets, puts, rank, transfer

Latency = Callable[[Op, int], int]
"""Of an op in an iteration, in cycles."""


@dataclass(frozen=True)
class Event:
    """One op of one iteration as it ran: cycles of its start, of the end of its issue, and of its result."""

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


@dataclass
class _Step:
    """One op of one iteration: ``number`` counts iterations over all phases."""

    phase: int
    graph: Graph
    op: Op
    number: int
    due: int


def programs(schedule: Schedule, trips: Sequence[int]) -> list[list[_Step]]:
    """What each group does, in order: the ops of all iterations by the schedule's times, one phase after the other."""
    found: list[list[_Step]] = [[] for _ in schedule.groups]
    first = base = 0
    for index, (phase, count) in enumerate(zip(schedule.phases, trips, strict=True)):
        steps = [
            _Step(index, phase.graph, op, first + turn, base + turn * phase.ii + phase.starts[op.name])
            for turn in range(count)
            for op in phase.graph.ops
        ]
        place = rank(phase, schedule.depths)
        for step in sorted(steps, key=lambda step: (step.due, place[step.op.name])):
            found[schedule.group_of[step.op.name]].append(step)
        first += count
        base += count * phase.ii
    return found


class _Unit:
    """Reservations of one unit, and the first time at which so much of it is free for so long."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.held: list[tuple[int, int, int]] = []
        self.busy = 0

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


class _Run:
    """The state of one simulation."""

    def __init__(self, schedule: Schedule, machine: Machine, trips: Sequence[int], latency: Latency) -> None:
        self.schedule, self.machine, self.latency = schedule, machine, latency
        self.programs = programs(schedule, trips)
        self.units = {name: _Unit(unit.capacity) for name, unit in machine.units.items()}
        self.free = [0] * len(self.programs)
        self.at = [0] * len(self.programs)
        self.started: dict[tuple[str, int], int] = {}
        self.done: dict[tuple[str, int], int] = {}
        self.released: dict[tuple[str, str, int], int] = {}
        """When a reader was done with the instance of a value."""
        self.events: list[Event] = []
        self.last_number = sum(trips)

    def ready(self, step: _Step) -> tuple[int, str]:
        """When what an op waits for is there; or -1 and what has not happened yet."""
        time, schedule, hop = 0, self.schedule, self.machine.handover.latency
        mine = schedule.group_of[step.op.name]
        for value in step.graph.values:
            for read in value.reads:
                if read.op == step.op.name and (number := step.number - read.distance) >= 0:
                    done = self.done.get((value.producer, number))
                    if done is None:
                        return -1, f"the value {value.name}"
                    apart = schedule.group_of[value.producer] != mine
                    time = max(time, done + (hop + transfer(self.machine, value) if apart else 0))
        for each in step.graph.dependences:
            if each.target == step.op.name and (number := step.number - each.distance) >= 0:
                begun = self.started.get((each.source, number))
                if begun is None:
                    return -1, f"the op {each.source}"
                apart = schedule.group_of[each.source] != mine
                time = max(time, begun + each.delay + (hop if apart else 0))
        for value in step.graph.values:
            if value.producer == step.op.name:
                emptied, missing = self._emptied(step, value)
                if missing:
                    return -1, missing
                time = max(time, emptied - value.begin)
        return time, ""

    def _emptied(self, step: _Step, value: Value) -> tuple[int, str]:
        """When a buffer for a value is empty; or which reader has not been there."""
        number = step.number - self.schedule.depths[value.name]
        if number < 0:
            return 0, ""
        hop = self.machine.handover.latency if self.schedule.crossing(value) else 0
        time = self.done.get((value.producer, number), 0)
        for read in value.reads:
            reader = number + read.distance
            if reader >= step.number and read.op == step.op.name:
                # It reads the old instance as it writes the new one in its place.
                continue
            released = self.released.get((value.name, read.op, number))
            if released is None and reader < self.last_number:
                return -1, f"an empty buffer of {value.name}, which {read.op} reads"
            time = max(time, (released or 0) + hop)
        return time, ""

    def issue(self, group: int, step: _Step, ready: int) -> None:
        """Run an op."""
        machine, op = self.machine, step.op
        wait = gets(self.schedule, step.graph, op) * machine.handover.get
        start = self.earliest(group, step, ready)
        for use in op.uses:
            self.units[use.unit].hold(start + use.offset, use.cycles, use.amount, start - wait)
        issued = start + op.issue + puts(self.schedule, step.graph, op) * machine.handover.put
        done = start + (self.latency(op, step.number) if op.variable else op.latency)
        self.started[op.name, step.number] = start
        self.done[op.name, step.number] = done
        for value in step.graph.values:
            for read in value.reads:
                if read.op == op.name:
                    self.released[value.name, op.name, step.number - read.distance] = start + read.release
        self.free[group] = issued
        self.at[group] += 1
        name = self.schedule.groups[group].name
        self.events.append(Event(name, op.name, step.phase, step.number, start, issued, done))

    def earliest(self, group: int, step: _Step, ready: int) -> int:
        """When an op can start: its stream and its units are free."""
        wait = gets(self.schedule, step.graph, step.op) * self.machine.handover.get
        start = max(self.free[group] + wait, ready)
        while True:
            later = max(
                (
                    self.units[use.unit].first(start + use.offset, use.cycles, use.amount) - use.offset
                    for use in step.op.uses
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
                step = program[self.at[group]]
                ready, missing = self.ready(step)
                if missing:
                    waiting[self.schedule.groups[group].name] = f"{step.op.name} waits for {missing}"
                    continue
                start = self.earliest(group, step, ready)
                if best is None or (start, step.due) < best[:2]:
                    best = (start, step.due, group)
            if best is None:
                return waiting
            group = best[2]
            step = self.programs[group][self.at[group]]
            self.issue(group, step, self.ready(step)[0])


def simulate(
    schedule: Schedule, machine: Machine, trips: Sequence[int] | None = None, latency: Latency | None = None
) -> Simulation:
    """Run a schedule for ``trips`` iterations of each phase (32 of each unless told).

    ``latency`` gives that of ops which are variable, for each iteration; the expected one unless told.
    """
    counts = list(trips) if trips is not None else [32] * len(schedule.phases)
    run = _Run(schedule, machine, counts, latency or (lambda op, _: op.latency))
    deadlock = run.run()
    cycles = max((event.done for event in run.events), default=0)
    ends: dict[int, int] = {}
    for event in run.events:
        if event.phase == len(counts) - 1:
            ends[event.iteration] = max(ends.get(event.iteration, 0), event.done)
    numbers = sorted(ends)
    rest = numbers[len(numbers) // 4 : -(-3 * len(numbers) // 4)]  # neither the filling nor the draining
    per_iteration = (ends[rest[-1]] - ends[rest[0]]) / (len(rest) - 1) if len(rest) > 1 else float(cycles)
    utilization = {
        name: unit.busy / (unit.capacity * cycles) for name, unit in run.units.items() if unit.busy and cycles
    }
    return Simulation(cycles, per_iteration, utilization, run.events, deadlock)
