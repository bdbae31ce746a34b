"""Whether a schedule is legal, by the definition in ``schedule.py`` and nothing else.

Independent of the solver: no OR-tools, no code of the model. Everything is recomputed from the graph, the machine and
the times that the schedule states; what it says of itself (a certificate) is compared with what is found.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from forgec.schedule.check_unrolled import check_unrolled
from forgec.schedule.graph import Value
from forgec.schedule.machine import Machine
from forgec.schedule.schedule import Phase, Schedule, rank
from forgec.schedule.unrolled import Segment, unroll
from forgec.schedule.violation import Violation


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
        found += order(schedule, phase)
    found += memories(schedule, machine)
    found += storages(schedule)
    found += warps(schedule, machine)
    found += isolation(schedule, machine)
    found += transitions(schedule, machine)
    found += certificate(schedule)
    return found


def structure(schedule: Schedule, machine: Machine) -> Iterator[Violation]:
    """Every op is in one group and has a start, every value has buffers, every unit exists."""
    if not schedule.phases:
        yield Violation("structure", "it has no phases")
    for group in schedule.groups:
        if not group.ops:
            yield Violation("structure", f"{group.name} has no ops")
    names = Counter(group.name for group in schedule.groups)
    for name in sorted(name for name, count in names.items() if count > 1):
        yield Violation("structure", f"{names[name]} groups are named {name}")
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
    values = {value.name for phase in schedule.phases for value in phase.graph.values}
    for name in sorted(set(schedule.depths) - values):
        yield Violation("structure", f"it has buffers of {name}, which is no value")
    if len(schedule.transitions) != max(len(schedule.phases) - 1, 0) or min(schedule.transitions, default=0) < 0:
        yield Violation("structure", f"{len(schedule.phases)} phases, and transitions {schedule.transitions}")


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


def life(phase: Phase, value: Value) -> tuple[int, int]:
    """When the storage of a value is taken, and when its last reader is done with it."""
    ops = {op.name: op for op in phase.graph.ops}
    start = phase.starts[value.producer]
    ends = [start + ops[value.producer].latency]
    ends += [phase.starts[read.op] + read.distance * phase.ii + read.release for read in value.reads]
    return start + value.begin, max(ends)


def buffers(schedule: Schedule, phase: Phase, machine: Machine) -> Iterator[Violation]:
    """4: a buffer is not written again before its last reader is done with it."""
    for value in phase.graph.values:
        acquire, release = life(phase, value)
        # The producer by itself needs no signal that it is done; and it starts after its readers have.
        hop = machine.handover.latency if readers_elsewhere(schedule, value) else 0
        for read in value.reads:
            at = phase.starts[read.op] + read.distance * phase.ii
            release = max(release, at + max(read.release, value.begin) + hop)
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
            acquire, release = life(phase, value)
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
    granted = 0
    for group in schedule.groups:
        need = max(op.warps for phase in schedule.phases for op in phase.graph.ops if op.name in group.ops)
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
    variable: set[str] = set()
    waiting: set[str] = set()
    for phase in schedule.phases:
        mine = {op.name for op in phase.graph.ops if op.variable}
        variable |= mine
        waiting |= {read.op for value in phase.graph.values if value.producer in mine for read in value.reads}
    # Ops by themselves; then those that registers keep together.
    kinds: dict[str, str] = {}
    for names in [*({name} for group in schedule.groups for name in group.ops), *tied(schedule)]:
        waits = machine.isolate == "waits" and waiting & names
        kinds |= dict.fromkeys(names, "variable" if variable & names else "waiting" if waits else "fixed")
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


def transitions(schedule: Schedule, machine: Machine) -> Iterator[Violation]:
    """10: where one phase ends and the next begins, all rules hold for each instance of an op."""
    if len(schedule.phases) < 2:
        return
    # More iterations than are under way at once or tied together by values bring nothing new.
    deep = []
    for phase in schedule.phases:
        far = [read.distance for value in phase.graph.values for read in value.reads]
        far += [each.distance for each in phase.graph.dependences]
        ends = [phase.starts[op.name] + op.span for op in phase.graph.ops]
        ends += [phase.starts[op.name] + use.offset + use.cycles for op in phase.graph.ops for use in op.uses]
        ends += [phase.starts[read.op] + read.release for value in phase.graph.values for read in value.reads]
        depth = max((schedule.depths[value.name] for value in phase.graph.values), default=1)
        deep.append(max(ends) // phase.ii + max(far, default=0) + depth + 1)
    told = [min(phase.graph.trips, most) for phase, most in zip(schedule.phases, deep, strict=True)]
    homes = {name: number for number, group in enumerate(schedule.groups) for name in group.ops}
    for counts in [deep] if told == deep else [deep, told]:
        base, segments = 0, []
        for phase, count, delay in zip(schedule.phases, counts, (*schedule.transitions, 0), strict=True):
            segments.append(Segment(phase.graph, phase.ii, phase.starts, count, base))
            base += count * phase.ii + delay
        for each in check_unrolled(unroll(segments, homes), schedule.groups, schedule.depths, machine):
            yield Violation("transitions", f"{each.rule}, with {counts} iterations: {each.text}")


def waits(schedule: Schedule, phase: Phase) -> Iterator[tuple[str, str, int, str]]:
    """``(source, target, distance, why)``: the target of so many iterations later cannot start before the source has.

    The order in which groups run their ops, values that are read, and buffers that have to be empty.
    """
    place = rank(phase, schedule.depths)
    for group in schedule.groups:
        stages = {name: phase.starts[name] // phase.ii for name in group.ops if name in place}
        row = sorted(stages, key=lambda name: (phase.starts[name] % phase.ii, place[name]))
        for number, name in enumerate(row):
            after = row[(number + 1) % len(row)]
            turn = stages[name] - stages[after] + (number + 1 == len(row))
            yield name, after, turn, f"{after} comes after {name} in {group.name}"
    for value in phase.graph.values:
        depth = schedule.depths[value.name]
        for read in value.reads:
            yield value.producer, read.op, read.distance, f"{read.op} reads {value.name}"
            # What overwrites a value in place reads it as it does.
            if read.op != value.producer or depth > read.distance:
                yield (
                    read.op,
                    value.producer,
                    depth - read.distance,
                    f"{value.producer} waits for a buffer of {value.name}",
                )
    for each in phase.graph.dependences:
        yield each.source, each.target, each.distance, f"{each.target} waits for {each.source}"


def order(schedule: Schedule, phase: Phase) -> Iterator[Violation]:
    """9: groups that run their ops in order, and wait for values and buffers, do not wait for each other for ever.

    A cycle of waits over no more than 0 iterations is found as one of negative length, where each wait is as long as
    its iterations times the number of ops and one, less one (Bellman and Ford).
    """
    edges = list(waits(schedule, phase))
    scale = len(phase.starts) + 1
    least = dict.fromkeys(phase.starts, 0)
    before: dict[str, tuple[str, str]] = {}
    changed = ""
    for _ in range(scale):
        changed = ""
        for source, target, distance, why in edges:
            length = distance * scale - 1
            if least[source] + length < least[target]:
                least[target] = least[source] + length
                before[target] = (source, why)
                changed = target
        if not changed:
            return
    for _ in range(scale):
        changed = before[changed][0]
    cycle, name = [before[changed][1]], before[changed][0]
    while name != changed:
        name, why = before[name]
        cycle.append(why)
    yield Violation("order", "groups wait for each other for ever: " + "; ".join(reversed(cycle)))


def certificate(schedule: Schedule) -> Iterator[Violation]:
    """What the schedule says of itself is so: no interval is below its bounds, and an optimal one leaves none open."""
    stated = schedule.certificate
    if stated is None:
        return
    last = schedule.phases[-1]
    for bound in stated.bounds:
        if last.ii < bound.cycles:
            yield Violation("certificate", f"the interval {last.ii} is below the bound {bound.cycles} of {bound.name}")
    if stated.status == "optimal" and stated.undecided:
        yield Violation("certificate", "it is called optimal, with intervals undecided")
