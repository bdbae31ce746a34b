r"""A solved loop as one op for each of its groups: hierarchical reduction (Lam 1988, section 3).

The graph of a turn has, for each tile of the turn, the ops of its prologue and epilogue as they are, and for each group
of the solved loop one op: it keeps the group's stream busy from the loop's first op to its last, and its result is
there when all that the group began is over. All of a loop are moved as a whole (``rigid``). What the loop holds of
units is held by the op of the group that begins first, hold by hold, so that others fit between. *Marks*, ops that
take nothing, say from when on a group's registers hold how much at most, and where in the loop a value for the epilogue
is produced. Iterations of this graph are turns.

Rings that loops share tie successive loops: the :math:`j`-th value of the later one takes the buffer of the
:math:`(j-D)`-th from its own first on, which is one of the earlier loop's last, and that has been read by then.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise, product
from math import gcd

from forgec.schedule.check_unrolled import freed, life
from forgec.schedule.graph import Dependence, Graph, Op, Read, Use, Value
from forgec.schedule.machine import Machine
from forgec.schedule.schedule import Schedule
from forgec.schedule.tile import Tile
from forgec.schedule.transition import segments
from forgec.schedule.unrolled import Instance, Stored, Unrolled, unroll


@dataclass(frozen=True)
class Body:
    """One solved loop (all phases), from time 0 on.

    ``begin``, ``end``: of each group's stream; ``done``: of all that it began and keeps in registers; ``live``: the
    times and sizes of what comes into its registers and goes; ``first`` and ``last`` instance of each op.
    """

    unrolled: Unrolled
    begin: dict[int, int]
    end: dict[int, int]
    done: dict[int, int]
    live: dict[int, list[tuple[int, int]]]
    first: dict[str, Instance]
    last: dict[str, Instance]


@dataclass(frozen=True)
class Reduced:
    """The graph of a turn. ``rigid``: pairs of ops with how much later the second starts; ``together`` and ``apart``:
    ops that have to be in one group, or in two; ``loops``: for each tile of a turn, its first op and when the loop
    begins after that starts; ``members``: the ops that each op of a loop, and each mark, stands for."""

    graph: Graph
    tiles: tuple[Tile, ...]
    rigid: tuple[tuple[str, str, int], ...]
    together: tuple[tuple[str, str], ...]
    apart: tuple[tuple[str, str], ...]
    loops: tuple[tuple[str, int], ...]
    members: dict[str, tuple[str, ...]]
    depths: dict[str, int]

    def quantum(self) -> int:
        """What all times are multiples of."""
        return gcd(self.graph.quantum(), *(delay for _, _, delay in self.rigid), *(delay for _, delay in self.loops))


def body_of(schedule: Schedule, machine: Machine) -> Body:
    """The loop of a schedule, with as many iterations as its graphs say."""
    counts = [phase.graph.trips for phase in schedule.phases]
    unrolled = unroll(segments(schedule, counts), schedule.group_of)
    handover = machine.handover
    begin: dict[int, int] = {}
    end: dict[int, int] = {}
    first: dict[str, Instance] = {}
    last: dict[str, Instance] = {}
    for each in unrolled.instances:
        start, stop = each.start - each.gets * handover.get, each.start + each.op.issue + each.puts * handover.put
        begin[each.group] = min(start, begin.get(each.group, start))
        end[each.group] = max(stop, end.get(each.group, stop))
        if each.op.name not in first or each.start < first[each.op.name].start:
            first[each.op.name] = each
        if each.op.name not in last or each.start > last[each.op.name].start:
            last[each.op.name] = each
    done = dict(end)
    changes: dict[int, list[tuple[int, int]]] = {group: [] for group in begin}
    for ring in unrolled.rings.values():
        for stored in ring:
            acquire, release = life(unrolled, stored)
            if stored.value.memory != "register" or acquire == release:
                continue
            homes = {unrolled.instances[index].group for index in (stored.producer, *(r for r, _ in stored.reads))}
            for home in homes:
                done[home] = max(done[home], release)
                changes[home] += [(acquire, stored.value.size), (release, -stored.value.size)]
    return Body(unrolled, begin, end, done, changes, first, last)


def reduced(tile: Tile, schedule: Schedule, machine: Machine, copies: int) -> Reduced:
    """The graph of turns of ``copies`` tiles, each with consumers of its own; what brings operands serves them all.

    Args:
        tile: whose phases the schedule is of.
        schedule: of the phases.
        machine: what it runs on.
        copies: tiles of one turn.
    """
    body = body_of(schedule, machine)
    shared = {
        number
        for number, group in enumerate(schedule.groups)
        if any(op.variable for op in body_ops(schedule).values() if op.name in group.ops)
    }
    kept = {
        value.name
        for phase in schedule.phases
        for value in phase.graph.values
        if schedule.group_of[value.producer] in shared
    }
    tiles = tuple(copy_of(tile, schedule, shared, kept, copy if copies > 1 else None) for copy in range(copies))
    parts = [Part(tile, schedule, body, copies, copy) for copy, tile in enumerate(tiles)]
    names = [[loop_name(schedule, group, copies, copy) for group in sorted(body.begin)] for copy in range(copies)]
    lead = min(body.begin, key=lambda group: (body.begin[group], group))
    rigid, together, apart = [], [], []
    for copy, row in enumerate(names):
        anchor = loop_name(schedule, lead, copies, copy)
        for group, name in zip(sorted(body.begin), row, strict=True):
            if group != lead:
                rigid.append((anchor, name, body.begin[group] - body.begin[lead]))
        rigid += [(name, mark, delay) for mark, (name, delay) in parts[copy].marks.items()]
        together += [(name, mark) for mark, (name, _) in parts[copy].marks.items()]
    every = [(copy, group) for copy in range(copies) for group in sorted(body.begin)]
    for (one, a), (other, b) in product(every, every):
        if (one, a) < (other, b):
            pair = loop_name(schedule, a, copies, one), loop_name(schedule, b, copies, other)
            (together if a == b and a in shared else apart).append(pair)
    bytes_of = rings_bytes(schedule, kept, copies, set(tile.stays.values()))
    resident = {
        memory: bytes_of[memory] + max(phase.graph.resident.get(memory, 0) for phase in schedule.phases)
        for memory in ("shared", "tensor")
    }
    graph = Graph(
        f"{tile.name} turn",
        tuple(op for part in parts for op in part.ops),
        tuple(value for part in parts for value in part.values),
        tuple(each for part in parts for each in part.dependences)
        + tuple(between(schedule, body, kept, machine, copies, set(tile.stays.values()))),
        work=tile.work * copies,
        resident=resident,
    )
    members = {
        loop_name(schedule, group, copies, copy): tuple(
            renaming(schedule, shared, copy if copies > 1 else None).get(name, name)
            for name in schedule.groups[group].ops
        )
        for copy in range(copies)
        for group in body.begin
    }
    for part in parts:
        members |= {mark: members[name] for mark, (name, _) in part.marks.items()}
    loops = tuple((loop_name(schedule, lead, copies, copy), -body.begin[lead]) for copy in range(copies))
    depths = {
        name if copies == 1 or name in kept else f"{name}@{copy}": depth
        for name, depth in schedule.depths.items()
        for copy in range(copies)
    }
    return Reduced(graph, tiles, tuple(rigid), tuple(together), tuple(apart), loops, members, depths)


def body_ops(schedule: Schedule) -> dict[str, Op]:
    """All ops of the phases; one that is variable in any of them is."""
    found: dict[str, Op] = {}
    for phase in schedule.phases:
        for op in phase.graph.ops:
            if op.name not in found or op.variable:
                found[op.name] = op
    return found


def loop_name(schedule: Schedule, group: int, copies: int, copy: int) -> str:
    """The op that stands for a group's part of a loop."""
    name = f"loop.{schedule.groups[group].name}"
    return name if copies == 1 else f"{name}@{copy}"


def renaming(schedule: Schedule, shared: set[int], copy: int | None) -> dict[str, str]:
    """New names of the loops' ops in one copy: those of groups that serve all copies keep theirs."""
    if copy is None:
        return {}
    return {name: f"{name}@{copy}" for name, group in schedule.group_of.items() if group not in shared}


def copy_of(tile: Tile, schedule: Schedule, shared: set[int], kept: set[str], copy: int | None) -> Tile:
    """The tile with names of its own."""
    if copy is None:
        return tile
    ops = renaming(schedule, shared, copy)
    values = {value.name: f"{value.name}@{copy}" for graph in tile.graphs for value in graph.values}
    values |= {value.name: f"{value.name}@{copy}" for value in tile.values}
    for graph in (tile.prologue, tile.epilogue):
        if graph is not None:
            ops |= {op.name: f"{op.name}@{copy}" for op in graph.ops}
    return tile.renamed(ops, {name: new for name, new in values.items() if name not in kept})


class Part:
    """One tile of a turn: ``ops``, ``values`` and ``dependences`` of the turn's graph, and its ``marks``: for each the
    op of a loop that it is in, and how much later it starts."""

    def __init__(self, tile: Tile, schedule: Schedule, body: Body, copies: int, copy: int) -> None:
        self.tile, self.schedule, self.body = tile, schedule, body
        self.suffix = "" if copies == 1 else f"@{copy}"
        self.ops: list[Op] = []
        self.values: list[Value] = []
        self.dependences: list[Dependence] = []
        self.marks: dict[str, tuple[str, int]] = {}
        self.loop_op: dict[str, str] = {}
        self.begin_of: dict[str, int] = {}
        for group in sorted(body.begin):
            for op in schedule.groups[group].ops:
                self.loop_op[op] = loop_name(schedule, group, copies, copy)
                self.begin_of[op] = body.begin[group]
        for group in sorted(body.begin):
            self._loop(group, loop_name(schedule, group, copies, copy))
        for graph in (tile.prologue, tile.epilogue):
            if graph is not None:
                self.ops += [replace(op, part=None, twin=None) for op in graph.ops]
                self.values += graph.values
                self.dependences += graph.dependences
        for value in tile.values:
            self._value(value)
        for each in tile.dependences:
            self._dependence(each)

    def plain(self, name: str) -> str:
        """The name that an op has in the solved loop."""
        return name.removesuffix(self.suffix) if name not in self.schedule.group_of else name

    def _mark(self, name: str, loop: str, delay: int, latency: int = 0) -> str:
        """An op that takes nothing, at that time of a loop."""
        if name not in self.marks:
            self.marks[name] = loop, delay
            self.ops.append(Op(name, "mark", 0, latency))
        return name

    def _loop(self, group: int, name: str) -> None:
        """The op of one group of the loop, and what its registers hold."""
        body, begin, facts = self.body, self.body.begin[group], self.schedule.groups[group]
        lead = min(body.begin, key=lambda group: (body.begin[group], group))
        known = body_ops(self.schedule)
        # What others may take over is there when all is done; what stays with the group has marks of its own.
        mine = {p for value in self.tile.values if value.may_cross() and (p := self.plain(value.producer)) in facts.ops}
        ends = [body.last[p].start + body.last[p].op.latency for p in mine]
        self.ops.append(
            Op(
                name,
                "loop",
                issue=body.end[group] - begin,
                latency=max([body.end[group], *ends]) - begin,
                uses=tuple(profile(body.unrolled, begin)) if group == lead else (),
                variable=any(known[op].variable for op in facts.ops),
                warps=facts.warps,
                role=facts.kind,
            )
        )
        changes = body.live[group]
        if not changes:
            return
        cuts = {min(time for time, _ in changes), body.done[group]}
        for value in self.tile.values:
            producer = self.plain(value.producer)
            if value.memory == "register" and producer in facts.ops:
                cuts.add(min(body.last[producer].start + value.begin, body.done[group]))
        for number, (since, until) in enumerate(pairwise(sorted(cuts))):
            size = most_between(changes, since, until)
            if size:
                start = self._mark(f"{name} from {since}", name, since - begin)
                end = self._mark(f"{name} from {until}", name, until - begin)
                self.values.append(Value(f"registers of {name} {number}", start, "register", size, (Read(end, 0),)))

    def _value(self, value: Value) -> None:
        """A value of the tile."""
        reads: dict[tuple[str, int], int] = {}
        for read in value.reads:
            reader, release = self.plain(read.op), read.release
            if reader in self.loop_op:
                release += self.body.last[reader].start - self.begin_of[reader]
            key = self.loop_op.get(reader, read.op), read.distance
            reads[key] = max(release, reads.get(key, 0))
        again = tuple(Read(op, release, distance) for (op, distance), release in reads.items())
        producer = self.plain(value.producer)
        if producer not in self.loop_op:
            self.values.append(replace(value, reads=again))
            return
        loop, last = self.loop_op[producer], self.body.last[producer]
        delay = last.start - self.begin_of[producer]
        inner = self.tile.stays.get(value.name)
        if inner is not None:
            place = min((each for each in self.body.unrolled.rings[self.inside(inner)]), key=self._taken)
            size = value.size * self.schedule.depths[self.inside(inner)]
            begin = self._taken(place) - self.begin_of[producer]
            self.values.append(replace(value, producer=loop, begin=begin, size=size, reads=again))
        elif value.may_cross():
            # Taken from its producer's start on: one that waits for an empty buffer waits before it begins.
            self.values.append(replace(value, producer=loop, begin=delay, reads=again))
        else:
            mark = self._mark(f"{loop} last {producer}", loop, delay, last.op.latency)
            self.values.append(replace(value, producer=mark, reads=again))
            # Read before the group's next loop begins: after it, the registers would be those of the next tile's sums.
            for read in again:
                if read.op not in self.loop_op.values() and read.distance <= 1:
                    self.dependences.append(Dependence(read.op, loop, read.release, 1 - read.distance))

    def inside(self, name: str) -> str:
        """The name that a value has in the solved loop."""
        return name if name in self.schedule.depths else name.removesuffix(self.suffix)

    def _taken(self, stored: Stored) -> int:
        """When storage is taken."""
        return life(self.body.unrolled, stored)[0]

    def _dependence(self, each: Dependence) -> None:
        """A dependence of the tile."""
        source, target, delay = self.plain(each.source), self.plain(each.target), each.delay
        if source in self.loop_op:
            delay += self.body.last[source].start - self.begin_of[source]
        if target in self.loop_op:
            delay = max(0, delay - (self.body.first[target].start - self.begin_of[target]))
        ends = self.loop_op.get(source, each.source), self.loop_op.get(target, each.target)
        self.dependences.append(Dependence(*ends, delay, each.distance))


def most_between(changes: list[tuple[int, int]], since: int, until: int) -> int:
    """The most of a sum of steps from one time to another."""
    level = sum(change for time, change in changes if time <= since)
    most = level
    for time, change in sorted(changes):
        if since < time < until:
            level += change
            most = max(most, level)
    return most


def profile(unrolled: Unrolled, origin: int) -> list[Use]:
    """What a loop holds of each unit, from ``origin`` on, as stretches of constant amounts."""
    changes: dict[str, dict[int, int]] = {}
    for each in unrolled.instances:
        for use in each.op.uses:
            row = changes.setdefault(use.unit, {})
            first = each.start + use.offset
            row[first] = row.get(first, 0) + use.amount
            row[first + use.cycles] = row.get(first + use.cycles, 0) - use.amount
    found: list[Use] = []
    for unit, row in changes.items():
        level, since = 0, 0
        for time in sorted(row):
            if row[time]:
                if level:
                    found.append(Use(unit, time - since, since - origin, level))
                level, since = level + row[time], time
    return found


def rings_bytes(schedule: Schedule, kept: set[str], copies: int, left: set[str]) -> dict[str, int]:
    """Bytes of the rings of all loops in each memory, but for those whose buffers are ``left`` to the tile's values."""
    sizes: dict[tuple[str, str], int] = {}
    for phase in schedule.phases:
        for value in phase.graph.values:
            if value.name in left:
                continue
            memory = "shared" if value.memory == "register" and schedule.crossing(value) else value.memory
            size = value.size * schedule.depths[value.name] * (1 if value.name in kept else copies)
            sizes[memory, value.name] = max(size, sizes.get((memory, value.name), 0))
    return {
        memory: sum(size for (where, _), size in sizes.items() if where == memory) for memory in ("shared", "tensor")
    }


def between(
    schedule: Schedule, body: Body, kept: set[str], machine: Machine, copies: int, left: set[str]
) -> list[Dependence]:
    """How much later a loop starts than an earlier one with the same rings: all but those ``left`` to the tile."""
    found: list[Dependence] = []
    unrolled = body.unrolled
    for name, ring in unrolled.rings.items():
        if name in left:
            continue
        group = unrolled.instances[ring[0].producer].group
        count, depth = len(ring), schedule.depths[name]
        for place, new in enumerate(ring[:depth]):
            back = -(-(depth - place) // count)
            old = ring[place - depth + back * count]
            delay = max(0, freed(unrolled, old, new.value.begin, machine) - life(unrolled, new)[0])
            for copy in range(copies):
                # Loops of one turn come in the order of their copies.
                earlier = copy - back if name in kept else copy - back * copies
                source = loop_name(schedule, group, copies, earlier % copies)
                target = loop_name(schedule, group, copies, copy)
                found.append(Dependence(source, target, delay, -(earlier // copies)))
    most: dict[tuple[str, str, int], int] = {}
    for each in found:
        key = each.source, each.target, each.distance
        most[key] = max(each.delay, most.get(key, 0))
    return [Dependence(source, target, delay, distance) for (source, target, distance), delay in most.items()]
