"""Small kernels of two phases, and everything about them by brute force: cycle by cycle, one loop after the other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from random import Random

from forgec.schedule.graph import Graph, Read
from forgec.schedule.machine import Machine
from forgec.schedule.schedule import Group, Phase, Schedule
from tests.schedule.small import Steps, TooMuchError, grants, isolated, partitions, phase_is_legal, random_graph


def two_phases(random: Random, machine: Machine, most_ops: int = 3) -> tuple[Graph, Graph]:
    """A graph, and one with most of its ops and values at other durations: the same loop with something more to do."""
    one = replace(random_graph(random, machine, most_ops), trips=random.randint(1, 4))
    ops = [
        replace(op, issue=max(0, op.issue + random.choice((0, 0, 1))), latency=op.latency + random.choice((0, 0, 1)))
        for op in one.ops
    ]
    values = [
        replace(
            value,
            size=value.size * random.choice((1, 1, 1, 2)),
            reads=tuple(Read(read.op, read.release + random.choice((0, 0, 1)), read.distance) for read in value.reads),
        )
        for value in one.values
        if random.random() < 0.9
    ]
    dependences = [each for each in one.dependences if random.random() < 0.8]
    other = replace(
        one,
        name="second",
        ops=tuple(ops),
        values=tuple(values),
        dependences=tuple(dependences),
        trips=random.randint(1, 4),
    )
    return (one, other) if random.random() < 0.5 else (replace(other, name="first"), replace(one, name="second"))


def follows(schedule: Schedule, machine: Machine, counts: Sequence[int]) -> bool:
    """Whether phases that run so often one after another, at the schedule's transitions, go well cycle by cycle."""
    home = {name: number for number, group in enumerate(schedule.groups) for name in group.ops}
    begun: dict[tuple[int, str], int] = {}
    phase_of: list[int] = []
    base = 0
    for number, (phase, count) in enumerate(zip(schedule.phases, counts, strict=True)):
        for turn in range(count):
            for name, start in phase.starts.items():
                begun[len(phase_of), name] = base + turn * phase.ii + start
            phase_of.append(number)
        base += count * phase.ii + (*schedule.transitions, 0)[number]
    streams, units, live = Counter(), Counter(), Counter()
    # For each value by name: when each of its instances takes its buffer and when that is free again.
    buffers: dict[str, list[tuple[int, int]]] = {}
    for turn, number in enumerate(phase_of):
        graph = schedule.phases[number].graph
        ops = {op.name: op for op in graph.ops}
        for op in graph.ops:
            start = begun[turn, op.name]
            takes = sum(home[v.producer] != home[op.name] for v in graph.values for r in v.reads[:] if r.op == op.name)
            gives = sum(
                v.producer == op.name and any(home[r.op] != home[op.name] for r in v.reads) for v in graph.values
            )
            for cycle in range(start - takes * machine.handover.get, start + op.issue + gives * machine.handover.put):
                streams[home[op.name], cycle] += 1
            for use in op.uses:
                for cycle in range(start + use.offset, start + use.offset + use.cycles):
                    units[use.unit, cycle] += use.amount
        for each in graph.dependences:
            source = begun.get((turn - each.distance, each.source))
            hop = machine.handover.latency if home[each.source] != home[each.target] else 0
            if source is not None and begun[turn, each.target] < source + each.delay + hop:
                return False
        for value in graph.values:
            start = begun[turn, value.producer]
            done = start + ops[value.producer].latency
            ends, frees, apart_from = [done], [done], {home[value.producer]}
            for later in range(turn, len(phase_of)):
                same = [v for v in schedule.phases[phase_of[later]].graph.values if v.name == value.name]
                for read in (read for v in same for read in v.reads if later - read.distance == turn):
                    at = begun[later, read.op]
                    copies = 2 * -(-value.size // machine.handover.bytes_per_cycle) if value.memory == "register" else 0
                    apart = home[read.op] != home[value.producer]
                    if at < done + ((machine.handover.latency + copies) if apart else 0):
                        return False
                    ends.append(at + read.release)
                    frees.append(at + max(read.release, value.begin))
                    apart_from.add(home[read.op])
            hop = machine.handover.latency if len(apart_from) > 1 else 0
            free = max([done, *(end + hop for end in frees[1:])])
            row = buffers.setdefault(value.name, [])
            if row and start + value.begin < row[-1][0]:
                return False
            depth = schedule.depths[value.name]
            if len(row) >= depth and start + value.begin < row[-depth][1]:
                return False
            row.append((start + value.begin, free))
            if value.memory == "register":
                for group in apart_from:
                    for cycle in range(start + value.begin, max(ends)):
                        live[group, cycle] += value.size
    if max(streams.values(), default=0) > 1:
        return False
    if any(amount > machine.units[unit].capacity for (unit, _), amount in units.items()):
        return False
    rooms = [max(0, 4 * 32 * g.warps * (g.registers - machine.registers.reserve)) for g in schedule.groups]
    return all(size <= rooms[group] for (group, _), size in live.items())


def fit_in_memory(
    phases: Sequence[Graph], depths: Sequence[dict[str, int]], home: dict[str, int], machine: Machine
) -> bool:
    """Whether rings that are as large as any phase needs them fit."""
    ring: dict[str, int] = {}
    for row in depths:
        for name, depth in row.items():
            ring[name] = max(depth, ring.get(name, 1))
    taken = {"shared": Counter[str](), "tensor": Counter[str]()}
    for graph in phases:
        for value in graph.values:
            crosses = any(home[read.op] != home[value.producer] for read in value.reads)
            memory = "shared" if value.memory == "register" and crosses else value.memory
            if memory in taken:
                taken[memory][value.name] = max(taken[memory][value.name], value.size * ring[value.name])
    rooms = {"shared": machine.shared_bytes, "tensor": machine.tensor_bytes}
    resident = {memory: max(graph.resident.get(memory, 0) for graph in phases) for memory in rooms}
    return all(sum(taken[memory].values()) + resident[memory] <= room for memory, room in rooms.items())


def depths_of(graph: Graph, machine: Machine, ii: int, starts: dict[str, int], home: dict[str, int]) -> dict[str, int]:
    """The fewest buffers of each value."""
    found = {}
    for value in graph.values:
        acquire = starts[value.producer] + value.begin
        hop = machine.handover.latency if any(home[r.op] != home[value.producer] for r in value.reads) else 0
        ends = [starts[value.producer] + graph.op(value.producer).latency]
        ends += [starts[r.op] + r.distance * ii + max(r.release, value.begin) + hop for r in value.reads]
        found[value.name] = max(1, -(-(max(ends) - acquire) // ii))
    return found


def possible(
    graph: Graph, machine: Machine, ii: int, groups: tuple[Group, ...], length: int, steps: Steps
) -> Iterator[dict[str, int]]:
    """All starts of one phase that are legal but for memories."""
    home = {name: number for number, group in enumerate(groups) for name in group.ops}
    names = [op.name for op in graph.ops]
    edges = list(graph.precedences())
    roomy = replace(machine, shared_bytes=1 << 20, tensor_bytes=1 << 20)
    for row in product(*(range(length - graph.op(name).span + 1) for name in names)):
        steps.count()
        starts = dict(zip(names, row, strict=True))
        if any(starts[t] + far * ii < starts[s] + delay for s, t, delay, far in edges):
            continue
        depths = depths_of(graph, machine, ii, starts, home)
        schedule = Schedule(machine.name, (Phase(graph, ii, starts),), groups, depths)
        if phase_is_legal(schedule, schedule.phases[0], roomy, home):
            yield starts


def least_length(phases: Sequence[Graph], machine: Machine, iis: Sequence[int], most: int, steps: Steps) -> int | None:
    """The least sum of the phases' lengths at these intervals, up to ``most``; by trying everything."""
    names = list(dict.fromkeys(op.name for graph in phases for op in graph.ops))
    best: int | None = None
    for row in partitions(len(names)):
        home = dict(zip(names, row, strict=True))
        merged = merged_graph(phases)
        if merged is None:
            raise TooMuchError
        if any(len({home[name] for name in cluster}) > 1 for graph in phases for cluster in graph.clusters()):
            continue
        for groups in grants(merged, machine, home, steps):
            if not isolated_phases(phases, machine, groups):
                continue
            least = [max(op.span for op in graph.ops) for graph in phases]
            for total in range(sum(least), most + 1 if best is None else best):
                if any(
                    fit_in_memory(
                        phases,
                        [depths_of(g, machine, ii, s, home) for g, ii, s in zip(phases, iis, pick, strict=True)],
                        home,
                        machine,
                    )
                    for first in range(least[0], total - least[1] + 1)
                    for pick in product(
                        possible(phases[0], machine, iis[0], groups, first, steps),
                        list(possible(phases[1], machine, iis[1], groups, total - first, steps)),
                    )
                ):
                    best = total
                    break
    return best


def merged_graph(phases: Sequence[Graph]) -> Graph | None:
    """The ops of all phases, each once, with the most warps that it has in any; None where their names differ."""
    one, other = phases
    if {op.name for op in one.ops} != {op.name for op in other.ops}:
        return None
    return replace(one, values=(), dependences=())


def isolated_phases(phases: Sequence[Graph], machine: Machine, groups: tuple[Group, ...]) -> bool:
    """Isolation over both phases: here ops and clusters are nearly those of one graph, with the values of both."""
    one, other = phases
    extra = [replace(value, name=f"{value.name}'") for value in other.values]
    both = replace(one, values=(*one.values, *extra))
    schedule = Schedule(machine.name, (Phase(both, 1, {op.name: 0 for op in one.ops}),), groups, {})
    return isolated(schedule, machine)
