"""Small random graphs and machines, and everything about them by brute force."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from random import Random

from forgec.diagnostics import ForgeError
from forgec.schedule.graph import Dependence, Graph, Op, Read, Use, Value
from forgec.schedule.machine import Handover, Machine, Registers, Unit
from forgec.schedule.schedule import Group, Phase, Schedule
from forgec.schedule.solve import schedules

SOURCE = "made up"


def random_machine(random: Random) -> Machine:
    """Two units, little memory, cheap or dear hand-overs."""
    return Machine(
        name="small",
        title="small",
        units={"a": Unit(random.choice((1, 1, 2)), SOURCE), "b": Unit(random.choice((1, 3)), SOURCE)},
        instructions={},
        registers=Registers(
            total=32 * random.choice((8, 16, 64)),
            granularity=2,
            least=2,
            most=random.choice((6, 16)),
            reserve=random.choice((0, 1, 3)),
            group_warps=random.choice((1, 2)),
            source=SOURCE,
            uniform=random.random() < 0.2,
        ),
        handover=Handover(
            put=random.choice((0, 0, 1)),
            get=random.choice((0, 0, 1)),
            latency=random.choice((0, 1, 2)),
            bytes_per_cycle=128,
            source=SOURCE,
        ),
        shared_bytes=random.choice((4, 8, 64)),
        most_warps=random.choice((2, 3, 8)),
        multiprocessors=1,
        clock_ghz=1.0,
        cache_bytes=0,
        memory_bytes_per_cycle=1.0,
        tensor_bytes=random.choice((2, 8)),
        isolate=random.choice(("none", "loads", "waits")),
    )


def roomy_machine(**changes: object) -> Machine:
    """A machine with room for everything and hand-overs that cost nothing, changed."""
    random = random_machine(Random(0))
    roomy = replace(
        random,
        shared_bytes=1 << 20,
        tensor_bytes=1 << 20,
        most_warps=64,
        isolate="none",
        registers=replace(random.registers, total=1 << 20, most=64, reserve=0, uniform=False),
        handover=replace(random.handover, put=0, get=0, latency=0),
    )
    return replace(roomy, **changes)  # type: ignore[arg-type] - of several types


def solved(kernel: Sequence[Graph], machine: Machine) -> Schedule | None:
    """The best schedule of a kernel; None where it does not fit."""
    try:
        return schedules([kernel], machine)[0]
    except ForgeError as caught:
        if caught.code != "FORGE-S001":
            raise
        return None


def random_solved(seeds: Iterable[int]) -> Iterator[tuple[int, Schedule, Machine, Random]]:
    """Schedules of random graphs on random machines, of those that fit; with the seed and the generator after both."""
    for seed in seeds:
        random = Random(seed)
        machine = random_machine(random)
        schedule = solved([random_graph(random, machine)], machine)
        if schedule is not None:
            yield seed, schedule, machine, random


def random_graph(random: Random, machine: Machine, most_ops: int = 6) -> Graph:
    """Ops in a row, values and dependences between them, some of them into later iterations."""
    count = random.randint(1, most_ops)
    ops = []
    for number in range(count):
        issue = random.choice((0, 1, 1, 1, 2))
        uses = tuple(
            Use(
                unit,
                random.choice((1, 1, 2)),
                random.choice((0, 0, 0, 1)),
                random.randint(1, machine.units[unit].capacity),
            )
            for unit in random.sample(sorted(machine.units), random.choice((0, 1, 1, 2)))
        )
        ops.append(
            Op(
                f"op{number}",
                "op",
                issue,
                random.choice((0, 1, 1, 2, 3)),
                uses,
                variable=random.random() < 0.15,
                warps=random.choice((1, 1, 1, 2)),
            )
        )
    values, dependences = [], []
    for number in range(random.randint(0, count + 1)):
        producer = random.randrange(count)
        reads = []
        for reader in random.sample(range(count), random.randint(0, min(2, count))):
            least = 0 if reader > producer else 1
            reads.append(Read(f"op{reader}", random.choice((0, 1, 1, 2)), random.choice((least, least, 1))))
        memory = random.choice(("register", "register", "shared", "tensor"))
        size = random.choice((1, 2)) if memory != "register" else 128 * random.choice((1, 2))
        crossing = memory == "register" and random.random() < 0.3
        begin = min(random.choice((0, 0, 0, 1)), ops[producer].latency)
        values.append(Value(f"v{number}", f"op{producer}", memory, size, tuple(reads), begin, crossing))
    for _ in range(random.randint(0, 2)):
        source, target = random.randrange(count), random.randrange(count)
        distance = random.choice((0, 1)) if target > source else random.choice((1, 2))
        dependences.append(Dependence(f"op{source}", f"op{target}", random.randint(0, 3), distance))
    resident = {"shared": 1} if random.random() < 0.2 else {}
    return Graph("random", tuple(ops), tuple(values), tuple(dependences), resident=resident)


def is_legal(schedule: Schedule, machine: Machine) -> bool:
    """By running iterations after each other, cycle by cycle, until everything has repeated."""
    home = {name: number for number, group in enumerate(schedule.groups) for name in group.ops}
    names = [op.name for phase in schedule.phases for op in phase.graph.ops]
    listed = [name for group in schedule.groups for name in group.ops]
    if sorted(set(names)) != sorted(listed) or any(phase.ii < 1 for phase in schedule.phases):
        return False
    if any(schedule.depths.get(value.name, 0) < 1 for phase in schedule.phases for value in phase.graph.values):
        return False
    if any(min(phase.starts.values()) < 0 for phase in schedule.phases):
        return False
    facts = machine.registers
    ops = {op.name: op for phase in schedule.phases for op in phase.graph.ops}
    for group in schedule.groups:
        if any(ops[name].warps > group.warps for name in group.ops):
            return False
        if group.registers not in range(0, facts.most + 1, facts.granularity) or group.registers < facts.least:
            return False
    if facts.uniform and len({group.registers for group in schedule.groups}) > 1:
        return False
    threads = [32 * facts.group_warps * -(-group.warps // facts.group_warps) for group in schedule.groups]
    if sum(t * group.registers for t, group in zip(threads, schedule.groups, strict=True)) > facts.total:
        return False
    if sum(group.warps for group in schedule.groups) > machine.most_warps:
        return False
    if not isolated(schedule, machine):
        return False
    return all(phase_is_legal(schedule, phase, machine, home) for phase in schedule.phases)


def isolated(schedule: Schedule, machine: Machine) -> bool:
    """Ops of variable latency, those that wait for them (with all that they share registers with) and others: apart."""
    if machine.isolate == "none":
        return True
    kind: dict[str, int] = {}
    for phase in schedule.phases:
        variable = {op.name for op in phase.graph.ops if op.variable}
        for cluster in phase.graph.clusters():
            waits = any(read.op in cluster for v in phase.graph.values if v.producer in variable for read in v.reads)
            rank = 2 if variable & set(cluster) else int(waits and machine.isolate == "waits")
            for name in cluster:
                kind[name] = max(kind.get(name, 0), rank)
    return all(len({kind[name] for name in group.ops}) == 1 for group in schedule.groups)


def phase_is_legal(schedule: Schedule, phase: Phase, machine: Machine, home: dict[str, int]) -> bool:
    """Cycle by cycle over enough iterations that the middle ones see all that a steady state has."""
    graph, ii = phase.graph, phase.ii
    ops = {op.name: op for op in graph.ops}
    far = max([read.distance for v in graph.values for read in v.reads] + [d.distance for d in graph.dependences] + [1])
    depth = max([schedule.depths[v.name] for v in graph.values] + [1])
    longest = max(phase.starts[op.name] + op.span for op in graph.ops)
    longest = max([longest] + [u.offset + u.cycles + phase.starts[op.name] for op in graph.ops for u in op.uses])
    longest = max([longest] + [phase.starts[r.op] + r.release for v in graph.values for r in v.reads])
    turns = 2 * (longest // ii + 2) + far + depth
    streams, units, live = Counter(), Counter(), Counter()
    shared: dict[str, int] = {}
    for value in graph.values:
        crosses = any(home[read.op] != home[value.producer] for read in value.reads)
        if value.memory == "register" and crosses:
            if not value.crossing:
                return False
            shared[value.name] = value.size * schedule.depths[value.name]
        elif value.memory == "shared":
            shared[value.name] = value.size * schedule.depths[value.name]
    tensor = sum(v.size * schedule.depths[v.name] for v in graph.values if v.memory == "tensor")
    if sum(shared.values()) + graph.resident.get("shared", 0) > machine.shared_bytes:
        return False
    if tensor + graph.resident.get("tensor", 0) > machine.tensor_bytes:
        return False
    for turn in range(turns):
        for op in graph.ops:
            start = turn * ii + phase.starts[op.name]
            takes = sum(
                any(r.op == op.name for r in v.reads) and home[v.producer] != home[op.name] for v in graph.values
            )
            gives = sum(
                v.producer == op.name and any(home[r.op] != home[op.name] for r in v.reads) for v in graph.values
            )
            begin = start - takes * machine.handover.get
            for cycle in range(begin, start + op.issue + gives * machine.handover.put):
                streams[home[op.name], cycle] += 1
            for use in op.uses:
                for cycle in range(start + use.offset, start + use.offset + use.cycles):
                    units[use.unit, cycle] += use.amount
        for each in graph.dependences:
            if turn >= each.distance:
                hop = machine.handover.latency if home[each.source] != home[each.target] else 0
                begun = (turn - each.distance) * ii + phase.starts[each.source]
                if turn * ii + phase.starts[each.target] < begun + each.delay + hop:
                    return False
        for value in graph.values:
            begun = turn * ii + phase.starts[value.producer]
            done = begun + ops[value.producer].latency
            crosses = any(home[read.op] != home[value.producer] for read in value.reads)
            hop = machine.handover.latency if crosses else 0
            release = done
            for read in value.reads:
                at = (turn + read.distance) * ii + phase.starts[read.op]
                apart = home[read.op] != home[value.producer]
                copies = 2 * -(-value.size // machine.handover.bytes_per_cycle) if value.memory == "register" else 0
                if at < done + ((machine.handover.latency + copies) if apart else 0):
                    return False
                release = max(release, at + read.release)
            again = (turn + schedule.depths[value.name]) * ii + phase.starts[value.producer]
            if again + value.begin < done:
                return False
            for read in value.reads:
                at = (turn + read.distance) * ii + phase.starts[read.op]
                # The writer takes the storage when the reader is done, and starts after the reader has.
                if again + value.begin < at + read.release + hop or again < at + hop:
                    return False
            if value.memory == "register":
                for group in {home[value.producer], *(home[read.op] for read in value.reads)}:
                    for cycle in range(begun + value.begin, release):
                        live[group, cycle] += value.size
    if max(streams.values(), default=0) > 1:
        return False
    if any(amount > machine.units[unit].capacity for (unit, _), amount in units.items()):
        return False
    for (group, _), size in live.items():
        mine = schedule.groups[group]
        if size > max(0, 4 * 32 * mine.warps * (mine.registers - machine.registers.reserve)):
            return False
    return True


def partitions(count: int) -> Iterator[list[int]]:
    """All ways to divide ``count`` things into groups, as group numbers."""

    def extend(row: list[int]) -> Iterator[list[int]]:
        if len(row) == count:
            yield row
            return
        for group in range(max(row, default=-1) + 2):
            yield from extend([*row, group])

    yield from extend([])


class TooMuchError(Exception):
    """There is more to try than was allowed."""


class Steps:
    """How much may still be tried."""

    def __init__(self, left: int) -> None:
        self.left = left

    def count(self) -> None:
        """One more."""
        self.left -= 1
        if self.left < 0:
            raise TooMuchError


def best(graph: Graph, machine: Machine, most_ii: int, steps: Steps) -> tuple[int, int] | None:
    """The least interval up to ``most_ii`` and the least length at it, by trying everything."""
    for ii in range(1, most_ii + 1):
        lengths = [
            length
            for row in partitions(len(graph.ops))
            for length in [shortest(graph, machine, ii, row, steps)]
            if length is not None
        ]
        if lengths:
            return ii, min(lengths)
    return None


def shortest(graph: Graph, machine: Machine, ii: int, row: list[int], steps: Steps) -> int | None:
    """The least length with these groups at this interval."""
    home = {op.name: group for op, group in zip(graph.ops, row, strict=True)}
    if not isolated_row(graph, machine, home):
        return None
    groups = grants(graph, machine, home, steps)
    if not groups:
        return None
    hop = machine.handover.latency
    copies = sum(2 * -(-v.size // machine.handover.bytes_per_cycle) for v in graph.values if v.memory == "register")
    most = sum(op.span for op in graph.ops) + sum(d.delay for d in graph.dependences) + copies
    most += (hop + machine.handover.get + machine.handover.put) * len(graph.values) + len(graph.ops) * ii
    if not any(search(graph, machine, ii, home, most, group, steps) for group in groups):
        return None
    for length in range(max(op.span for op in graph.ops), most + 1):
        if any(search(graph, machine, ii, home, length, group, steps) for group in groups):
            return length
    return None


def isolated_row(graph: Graph, machine: Machine, home: dict[str, int]) -> bool:
    """Whether these groups are isolated, and hold together what registers tie."""
    names = [Group(str(n), 1, 1, tuple(k for k, g in home.items() if g == n)) for n in range(max(home.values()) + 1)]
    schedule = Schedule(machine.name, (Phase(graph, 1, dict.fromkeys(home, 0)),), tuple(names), {})
    return isolated(schedule, machine) and all(len({home[n] for n in cluster}) == 1 for cluster in graph.clusters())


def grants(graph: Graph, machine: Machine, home: dict[str, int], steps_left: Steps) -> list[tuple[Group, ...]]:
    """The groups with their warps and all maximal divisions of the register file among them."""
    facts = machine.registers
    count = max(home.values()) + 1
    members = [tuple(name for name, group in home.items() if group == number) for number in range(count)]
    warps = [max(graph.op(name).warps for name in names) for names in members]
    if sum(warps) > machine.most_warps:
        return []
    threads = [32 * facts.group_warps * -(-w // facts.group_warps) for w in warps]
    steps = [n for n in range(facts.least, facts.most + 1) if n % facts.granularity == 0]
    found: list[tuple[int, ...]] = []

    def extend(row: tuple[int, ...], left: int) -> None:
        if left < 0:
            return
        steps_left.count()
        if len(row) == count:
            found.append(row)
            return
        for step in steps:
            if not facts.uniform or not row or row[0] == step:
                extend((*row, step), left - threads[len(row)] * step)

    extend((), facts.total)
    if len(found) > 200:
        raise TooMuchError
    largest = [r for r in found if not any(o != r and all(a >= b for a, b in zip(o, r, strict=True)) for o in found)]
    return [tuple(Group(str(n), warps[n], row[n], members[n]) for n in range(count)) for row in largest]


def search(
    graph: Graph,
    machine: Machine,
    ii: int,
    home: dict[str, int],
    length: int,
    groups: tuple[Group, ...],
    steps: Steps,
) -> bool:
    """Whether there are starts within ``length``: op after op, what is impossible already is cut off."""
    ops = list(graph.ops)
    hop = machine.handover.latency
    edges = []
    op_of = {op.name: op for op in ops}
    for value in graph.values:
        copies = 2 * -(-value.size // machine.handover.bytes_per_cycle) if value.memory == "register" else 0
        for read in value.reads:
            apart = home[read.op] != home[value.producer]
            delay = op_of[value.producer].latency + (hop + copies if apart else 0)
            edges.append((value.producer, read.op, delay - read.distance * ii))
    for each in graph.dependences:
        apart = home[each.source] != home[each.target]
        edges.append((each.source, each.target, each.delay + (hop if apart else 0) - each.distance * ii))
    for value in graph.values:
        # What is in memory for so long that its buffers alone are too many.
        crosses = any(home[read.op] != home[value.producer] for read in value.reads)
        room = {"shared": machine.shared_bytes, "tensor": machine.tensor_bytes}.get(value.memory)
        if room is None:
            mine = groups[home[value.producer]]
            room = max(0, 4 * 32 * mine.warps * (mine.registers - machine.registers.reserve))
        most = room // max(value.size, 1) + (value.memory == "register")
        for read in value.reads:
            gap = read.distance * ii + max(read.release - value.begin, 0) + (hop if crosses else 0) - most * ii
            edges.append((read.op, value.producer, gap))
    if any(source == target and gap > 0 for source, target, gap in edges):
        return False
    into = {op.name: [(source, gap) for source, target, gap in edges if target == op.name] for op in ops}
    out = {op.name: [(target, gap) for source, target, gap in edges if source == op.name] for op in ops}
    # Of each op: cycles of its stream around its start, and what it holds of units so many cycles after it.
    busy: dict[str, range] = {}
    uses: dict[str, list[tuple[str, int, int]]] = {}
    for op in ops:
        takes = sum(any(r.op == op.name for r in v.reads) and home[v.producer] != home[op.name] for v in graph.values)
        gives = sum(v.producer == op.name and any(home[r.op] != home[op.name] for r in v.reads) for v in graph.values)
        busy[op.name] = range(-takes * machine.handover.get, op.issue + gives * machine.handover.put)
        uses[op.name] = [
            (use.unit, cycle, use.amount) for use in op.uses for cycle in range(use.offset, use.offset + use.cycles)
        ]
        if len(busy[op.name]) > ii:
            return False
    capacity = {unit: facts.capacity for unit, facts in machine.units.items()}
    starts: dict[str, int] = {}
    streams: set[tuple[int, int]] = set()
    held: dict[tuple[str, int], int] = {}

    def hold(name: str, start: int, sign: int) -> bool:
        """Take or give back units; whether they are within what there is."""
        fits = True
        for unit, cycle, amount in uses[name]:
            key = unit, (start + cycle) % ii
            held[key] = held.get(key, 0) + sign * amount
            fits = fits and held[key] <= capacity[unit]
        return fits

    def place(number: int) -> bool:
        if number == len(ops):
            return complete(graph, machine, ii, starts, groups)
        op = ops[number]
        name, group = op.name, home[op.name]
        low = max([0, *(starts[source] + gap for source, gap in into[name] if source in starts)])
        high = min([length - op.span, *(starts[target] - gap for target, gap in out[name] if target in starts)])
        for start in range(low, high + 1):
            steps.count()
            row = [(group, (start + cycle) % ii) for cycle in busy[name]]
            if not streams.isdisjoint(row):
                continue
            if hold(name, start, 1):
                starts[name] = start
                streams.update(row)
                if place(number + 1):
                    return True
                del starts[name]
                streams.difference_update(row)
            hold(name, start, -1)
        return False

    return place(0)


def complete(graph: Graph, machine: Machine, ii: int, starts: dict[str, int], groups: tuple[Group, ...]) -> bool:
    """Whether starts, with the fewest buffers, fit the memories and registers; ``search`` has seen to the rest."""
    home = {name: number for number, group in enumerate(groups) for name in group.ops}
    taken = {"shared": graph.resident.get("shared", 0), "tensor": graph.resident.get("tensor", 0)}
    live: Counter[tuple[int, int]] = Counter()
    for value in graph.values:
        acquire = starts[value.producer] + value.begin
        homes = {home[value.producer], *(home[read.op] for read in value.reads)}
        ends = [starts[value.producer] + graph.op(value.producer).latency]
        ends += [starts[read.op] + read.distance * ii + read.release for read in value.reads]
        hop = machine.handover.latency if len(homes) > 1 else 0
        started = [starts[read.op] + read.distance * ii + value.begin for read in value.reads]
        freed = max([ends[0], *(end + hop for end in (*ends[1:], *started))])
        depth = max(1, -(-(freed - acquire) // ii))
        if value.memory == "register":
            if len(homes) > 1:
                taken["shared"] += depth * value.size
            for cycle in range(acquire, max(ends)):
                for group in homes:
                    live[group, cycle % ii] += value.size
        else:
            taken[value.memory] += depth * value.size
    if taken["shared"] > machine.shared_bytes or taken["tensor"] > machine.tensor_bytes:
        return False
    rooms = [max(0, 4 * 32 * g.warps * (g.registers - machine.registers.reserve)) for g in groups]
    return all(size <= rooms[group] for (group, _), size in live.items())
