"""Whether a schedule is legal, by the definition in ``schedule.py`` and nothing else.

Independent of the solver: no OR-tools, no code of the model. Everything is recomputed from the graph, the machine and
the times that the schedule states; what it says of itself (a certificate) is compared with what is found.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from forgec.schedule.graph import Graph, Op, Value
from forgec.schedule.machine import Machine
from forgec.schedule.schedule import Phase, Schedule


@dataclass(frozen=True)
class Violation:
    """One broken rule: ``rule`` is a heading of the definition, ``text`` says who breaks it by how much."""

    rule: str
    text: str


def check(schedule: Schedule, machine: Machine) -> list[Violation]:
    """All violations; none: the schedule is legal."""
    found = list(structure(schedule, machine))
    if found:
        return found
    for phase in schedule.phases:
        found += streams(schedule, phase, machine)
        found += units(phase, machine)
        found += dependences(schedule, phase, machine)
        found += buffers(schedule, phase, machine)
        found += registers(schedule, phase, machine)
    found += memories(schedule, machine)
    found += storages(schedule)
    found += warps(schedule, machine)
    found += isolation(schedule, machine)
    found += certificate(schedule)
    return found


def structure(schedule: Schedule, machine: Machine) -> Iterator[Violation]:
    """Every op is in one group and has a start, every value has buffers, every unit exists."""
    members = Counter(name for group in schedule.groups for name in group.ops)
    known = {op.name for phase in schedule.phases for op in phase.graph.ops}
    for name in sorted(known | set(members)):
        if name not in known or members[name] != 1:
            yield Violation("structure", f"op {name} is in {members[name]} groups")
    for phase in schedule.phases:
        if phase.ii < 1:
            yield Violation("structure", f"the interval of {phase.graph.name} is {phase.ii}")
        if set(phase.starts) != {op.name for op in phase.graph.ops}:
            yield Violation("structure", f"the starts of {phase.graph.name} are not those of its ops")
        elif min(phase.starts.values()) < 0:
            yield Violation("structure", f"an op of {phase.graph.name} starts before 0")
        for value in phase.graph.values:
            if schedule.depths.get(value.name, 0) < 1:
                yield Violation("structure", f"value {value.name} has no buffer")
        for op in phase.graph.ops:
            for use in op.uses:
                if use.unit not in machine.units:
                    yield Violation("structure", f"machine {machine.name} has no unit {use.unit}")


def group_of(schedule: Schedule, name: str) -> int:
    """The number of an op's group."""
    return next(number for number, group in enumerate(schedule.groups) if name in group.ops)


def readers_elsewhere(schedule: Schedule, value: Value) -> list[str]:
    """The ops of other groups that read a value."""
    home = group_of(schedule, value.producer)
    return [read.op for read in value.reads if group_of(schedule, read.op) != home]


def streams(schedule: Schedule, phase: Phase, machine: Machine) -> Iterator[Violation]:
    """1: a group does one thing at a time."""
    for group in schedule.groups:
        busy: Counter[int] = Counter()
        for op in phase.graph.ops:
            if op.name not in group.ops:
                continue
            taken = sum(op.name in readers_elsewhere(schedule, value) for value in phase.graph.values)
            given = sum(
                value.producer == op.name and bool(readers_elsewhere(schedule, value)) for value in phase.graph.values
            )
            start = phase.starts[op.name]
            for cycle in range(start - taken * machine.handover.get, start + op.issue + given * machine.handover.put):
                busy[cycle % phase.ii] += 1
        most = max(busy.values(), default=0)
        if most > 1:
            cycle = min(cycle for cycle, count in busy.items() if count == most)
            yield Violation("streams", f"{group.name} has {most} things to do at cycle {cycle} of {phase.graph.name}")


def units(phase: Phase, machine: Machine) -> Iterator[Violation]:
    """2: no unit is held beyond its capacity."""
    held: dict[str, Counter[int]] = {}
    for op in phase.graph.ops:
        for use in op.uses:
            row = held.setdefault(use.unit, Counter())
            first = phase.starts[op.name] + use.offset
            for cycle in range(first, first + use.cycles):
                row[cycle % phase.ii] += use.amount
    for unit, row in held.items():
        most = max(row.values(), default=0)
        if most > machine.units[unit].capacity:
            yield Violation("units", f"{most} of {machine.units[unit].capacity} of {unit} are held at once")


def dependences(schedule: Schedule, phase: Phase, machine: Machine) -> Iterator[Violation]:
    """3: nothing starts before what it waits for is there."""
    ops = {op.name: op for op in phase.graph.ops}
    waits = [
        (value.producer, read.op, ops[value.producer].latency, read.distance, value)
        for value in phase.graph.values
        for read in value.reads
    ]
    waits += [(each.source, each.target, each.delay, each.distance, None) for each in phase.graph.dependences]
    for source, target, delay, distance, value in waits:
        if group_of(schedule, source) != group_of(schedule, target):
            delay += machine.handover.latency
            if value is not None and value.memory == "register":
                if not value.crossing:
                    yield Violation(
                        "dependences", f"{value.name} is in registers, and {target} in another group reads it"
                    )
                rate = machine.handover.bytes_per_cycle
                copy = -(-value.size // rate)
                delay += 2 * -(-copy // machine.round_to) * machine.round_to
        late = phase.starts[source] + delay - phase.starts[target] - distance * phase.ii
        if late > 0:
            yield Violation("dependences", f"{target} starts {late} cycles before {source} has what it waits for")


def life(schedule: Schedule, phase: Phase, value: Value) -> tuple[int, int]:
    """When the storage of a value is taken, and when its last reader is done with it."""
    ops = {op.name: op for op in phase.graph.ops}
    start = phase.starts[value.producer]
    ends = [start + ops[value.producer].latency]
    ends += [phase.starts[read.op] + read.distance * phase.ii + read.release for read in value.reads]
    return start + value.begin, max(ends)


def buffers(schedule: Schedule, phase: Phase, machine: Machine) -> Iterator[Violation]:
    """4: a buffer is not written again before its last reader is done with it."""
    for value in phase.graph.values:
        acquire, release = life(schedule, phase, value)
        if readers_elsewhere(schedule, value):
            # The producer by itself needs no signal that it is done.
            release = max(
                release,
                *(
                    phase.starts[read.op] + read.distance * phase.ii + read.release + machine.handover.latency
                    for read in value.reads
                ),
            )
        lacking = release - acquire - schedule.depths[value.name] * phase.ii
        if lacking > 0:
            yield Violation(
                "buffers", f"{schedule.depths[value.name]} buffers of {value.name} are {lacking} cycles too few"
            )


def memories(schedule: Schedule, machine: Machine) -> Iterator[Violation]:
    """5: shared and tensor memory hold all buffers."""
    for memory in ("shared", "tensor"):
        sizes: dict[str, int] = {}
        for phase in schedule.phases:
            for value in phase.graph.values:
                staged = memory == "shared" and value.memory == "register" and bool(readers_elsewhere(schedule, value))
                if value.memory == memory or staged:
                    size = value.size * schedule.depths[value.name]
                    sizes[value.name] = max(sizes.get(value.name, 0), size)
        resident = max(phase.graph.resident.get(memory, 0) for phase in schedule.phases)
        taken = resident + sum(sizes.values())
        room = machine.memory_bytes(memory)
        if taken > room:
            yield Violation("memories", f"{taken} bytes of {memory} memory are taken, and there are {room}")


def registers(schedule: Schedule, phase: Phase, machine: Machine) -> Iterator[Violation]:
    """6: what is live in registers fits the grants."""
    for number, group in enumerate(schedule.groups):
        live: Counter[int] = Counter()
        for value in phase.graph.values:
            homes = {group_of(schedule, name) for name in (value.producer, *(read.op for read in value.reads))}
            if value.memory != "register" or number not in homes:
                continue
            acquire, release = life(schedule, phase, value)
            whole, rest = divmod(release - acquire, phase.ii)
            for cycle in range(phase.ii):
                live[cycle] += whole * value.size
            for cycle in range(acquire, acquire + rest):
                live[cycle % phase.ii] += value.size
        most = max(live.values(), default=0)
        room = 4 * 32 * group.warps * (group.registers - machine.registers.reserve)
        if most > max(room, 0):
            yield Violation(
                "registers", f"{group.name} has {most} bytes live in registers, and room for {max(room, 0)}"
            )


def warps(schedule: Schedule, machine: Machine) -> Iterator[Violation]:
    """6 and 7: grants are possible ones and within the register file; groups have the warps that their ops take."""
    facts = machine.registers
    ops = {op.name: op for phase in schedule.phases for op in phase.graph.ops}
    granted = 0
    for group in schedule.groups:
        need = max(ops[name].warps for name in group.ops)
        if group.warps < need:
            yield Violation("warps", f"{group.name} has {group.warps} warps, and ops of {need}")
        if group.registers % facts.granularity or not facts.least <= group.registers <= facts.most:
            yield Violation("registers", f"a thread of {group.name} cannot be granted {group.registers} registers")
        granted += 32 * -(-group.warps // facts.group_warps) * facts.group_warps * group.registers
    if granted > facts.total:
        yield Violation("registers", f"{granted} registers are granted, and there are {facts.total}")
    if facts.uniform and len({group.registers for group in schedule.groups}) > 1:
        yield Violation("registers", f"grants differ, which machine {machine.name} cannot do")
    total = sum(group.warps for group in schedule.groups)
    if total > machine.most_warps:
        yield Violation("warps", f"{total} warps, and there may be {machine.most_warps}")


def isolation(schedule: Schedule, machine: Machine) -> Iterator[Violation]:
    """8: nothing waits in line behind what may take any time."""
    if machine.isolate == "none":
        return
    kinds: dict[str, str] = {}
    for phase in schedule.phases:
        for cluster in phase.graph.clusters():
            kind = cluster_kind(phase.graph, cluster, machine)
            for name in cluster:
                kinds[name] = max(kinds.get(name, ""), kind, key=("", "fixed", "waiting", "variable").index)
    for names in tied(schedule):
        kind = max((kinds[name] for name in names), key=("fixed", "waiting", "variable").index)
        kinds |= dict.fromkeys(names, kind)
    for group in schedule.groups:
        found = {kinds[name] for name in group.ops}
        if len(found) > 1:
            yield Violation("isolation", f"{group.name} has ops that are {' and '.join(sorted(found))}")


def tied(schedule: Schedule) -> list[set[str]]:
    """Ops that have to be in one group, because of what is in registers, over all phases.

    A value in registers that may not cross is one storage in all phases that have one of its name.
    """
    found: list[tuple[set[str], set[str]]] = []
    for phase in schedule.phases:
        for value in phase.graph.values:
            if value.memory == "register" and not value.crossing:
                ops, names = {value.producer, *(read.op for read in value.reads)}, {value.name}
                for other in [each for each in found if each[0] & ops or each[1] & names]:
                    found.remove(other)
                    ops, names = ops | other[0], names | other[1]
                found.append((ops, names))
    return [ops for ops, _ in found]


def storages(schedule: Schedule) -> Iterator[Violation]:
    """6: what is in registers and may not cross is in one group."""
    for ops in tied(schedule):
        groups = {schedule.groups[group_of(schedule, name)].name for name in ops}
        if len(groups) > 1:
            yield Violation(
                "registers", f"{', '.join(sorted(ops))} share registers, and are in {' and '.join(sorted(groups))}"
            )


def cluster_kind(graph: Graph, cluster: list[str], machine: Machine) -> str:
    """Whether ops that stay together are of variable latency, wait for such ops, or neither."""
    ops: dict[str, Op] = {op.name: op for op in graph.ops}
    if any(ops[name].variable for name in cluster):
        return "variable"
    waiting = {read.op for value in graph.values if ops[value.producer].variable for read in value.reads}
    return "waiting" if machine.isolate == "waits" and waiting & set(cluster) else "fixed"


def certificate(schedule: Schedule) -> Iterator[Violation]:
    """What the schedule says of itself is so: no interval is below its bounds, no length below the least."""
    stated = schedule.certificate
    if stated is None:
        return
    last = schedule.phases[-1]
    for bound in stated.bounds:
        if last.ii < bound.cycles:
            yield Violation("certificate", f"the interval {last.ii} is below the bound {bound.cycles} of {bound.name}")
    if stated.status == "optimal" and stated.undecided:
        yield Violation("certificate", "it is called optimal, with intervals undecided")
