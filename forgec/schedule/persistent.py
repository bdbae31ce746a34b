r"""A schedule of a persistent kernel, and what makes it legal.

**Definition.** A *turn* is one output tile, or several that groups of their own work on by turns. A schedule gives the
interval :math:`I` of turns, and for each tile of a turn the start of its loop (a solved schedule of it, moved as a
whole) and the starts of prologue and epilogue. Turn :math:`t` is the first one moved by :math:`t\,I`. It is legal when
the rules of ``schedule.py`` hold for each instance of each op over all turns (1 to 4 and 6, as for transitions), and
memories, warps and isolation (5, 7, 8) for all ops and values together; and

- a group whose loop takes over values of the tile takes them before the loop's first op, and hands values on after
  its last.

The rings of the loops go on from tile to tile: the first loads of a tile wait for buffers that the last iterations of
the tile before have not read yet.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property

from forgec.schedule.graph import STRICT, Graph, Value
from forgec.schedule.machine import Machine
from forgec.schedule.schedule import Bound, Certificate, Group, Phase
from forgec.schedule.tile import Tile
from forgec.schedule.unrolled import Segment, Stored, Unrolled, Wait, order, unroll


@dataclass(frozen=True)
class Placed:
    """One output tile of a turn: its phases with the start of each in the turn, and starts of prologue and epilogue."""

    __pydantic_config__ = STRICT
    tile: Tile
    phases: tuple[Phase, ...]
    bases: tuple[int, ...]
    prologue: Mapping[str, int] = field(default_factory=dict)
    epilogue: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Persistent:
    """A persistent kernel's schedule: ``interval`` cycles from turn to turn, each of which makes all ``placed``."""

    __pydantic_config__ = STRICT
    machine: str
    interval: int
    placed: tuple[Placed, ...]
    groups: tuple[Group, ...]
    depths: Mapping[str, int]
    certificate: Certificate | None = None

    @cached_property
    def group_of(self) -> dict[str, int]:
        """The index of each op's group."""
        return {name: index for index, group in enumerate(self.groups) for name in group.ops}

    @property
    def cycles_per_tile(self) -> Fraction:
        """Cycles from one output tile to the next."""
        return Fraction(self.interval, len(self.placed))

    @property
    def cost(self) -> Fraction:
        """Cycles per unit of work."""
        return self.interval / sum((each.tile.work for each in self.placed), Fraction(0))

    @property
    def span(self) -> int:
        """Cycles from the first start of a turn to the end of all its ops."""
        begins: list[int] = []
        ends: list[int] = []
        for placed in self.placed:
            tile = placed.tile
            rows = [(tile.prologue, placed.prologue, 0, 0), (tile.epilogue, placed.epilogue, 0, 0)]
            for phase, base in zip(placed.phases, placed.bases, strict=True):
                rows.append((phase.graph, dict(phase.starts), base, (phase.graph.trips - 1) * phase.ii))
            for graph, starts, base, rest in rows:
                for op in graph.ops if graph is not None else ():
                    begins.append(base + starts[op.name])
                    ends.append(base + rest + starts[op.name] + op.span)
        return max(ends) - min(begins)


def unroll_turns(schedule: Persistent, turns: int) -> Unrolled:
    """All that happens in so many turns."""
    segments: list[Segment] = []
    where: dict[tuple[int, int], list[int]] = {}
    for turn in range(turns):
        base = turn * schedule.interval
        for number, placed in enumerate(schedule.placed):
            mine = where.setdefault((turn, number), [])
            tile = placed.tile
            parts: list[tuple[Graph | None, int, Mapping[str, int], int, str, int]] = [
                (tile.prologue, 1, placed.prologue, base, f"prologue {number}", 1),
                *(
                    (phase.graph, phase.ii, phase.starts, base + start, f"loop {number} {turn}", phase.graph.trips)
                    for phase, start in zip(placed.phases, placed.bases, strict=True)
                ),
                (tile.epilogue, 1, placed.epilogue, base, f"epilogue {number}", 1),
            ]
            for place, (graph, ii, starts, begin, chain, trips) in enumerate(parts):
                if graph is not None:
                    mine.append(len(segments))
                    segments.append(Segment(graph, ii, starts, trips, begin, chain, place, turn))
    found = unroll(segments, schedule.group_of)
    for (turn, number), mine in where.items():
        tile = schedule.placed[number].tile
        for value in tile.values:
            link(found, value, mine, where, number, turn)
            if value.name in tile.stays:
                stay(found, value.name, tile.stays[value.name], mine, f"{number} {turn}")
        for wait in tile.dependences:
            later = where.get((turn + wait.distance, number))
            if later is not None:
                source = max(instances_of(found, mine, wait.source), key=lambda index: found.instances[index].start)
                target = min(instances_of(found, later, wait.target), key=lambda index: found.instances[index].start)
                found.waits.append(Wait(source, target, wait.delay))
    order(found)
    return found


def instances_of(found: Unrolled, mine: list[int], name: str) -> Iterator[int]:
    """All instances of an op in some segments."""
    for number in mine:
        segment = found.segments[number]
        if (number, name, 0) in found.at:
            for turn in range(segment.trips):
                yield found.at[number, name, turn]


def in_loop(found: Unrolled, index: int) -> bool:
    """Whether an instance is in a loop, rather than in a prologue or an epilogue."""
    return found.segments[found.instances[index].segment].chain.startswith("loop")


def link(
    found: Unrolled, value: Value, mine: list[int], where: Mapping[tuple[int, int], list[int]], number: int, turn: int
) -> None:
    """A value of one tile: what its producer's last instance left, and who reads it."""

    def begin(index: int) -> int:
        return found.instances[index].start

    producer = max(instances_of(found, mine, value.producer), key=begin)
    stored = Stored(value, producer)
    home = found.instances[producer].group
    takers: set[int] = set()
    for read in value.reads:
        later = where.get((turn + read.distance, number))
        if later is None:
            continue
        readers = list(instances_of(found, later, read.op))
        stored.reads.append((max(readers, key=begin), read.release))
        group = found.instances[readers[0]].group
        first = readers[0]
        if in_loop(found, first):
            found.waits.append(Wait(producer, first, 0, value))
            first = min(loop_of(found, later, group), key=lambda index: getting(found, index))
        found.waits.append(Wait(producer, first, 0, value))
        if group != home and first not in takers:
            takers.add(first)
            found.instances[first].gets += 1
    if any(found.instances[reader].group != home for reader, _ in stored.reads) or crosses(found, value, mine):
        last = producer
        if in_loop(found, producer):
            last = max(loop_of(found, mine, home), key=lambda index: issued(found, index))
        found.instances[last].puts += 1
    found.rings.setdefault(value.name, []).append(stored)


def stay(found: Unrolled, name: str, inner: str, mine: list[int], tile: str) -> None:
    """A value that stays where the loop left it: it takes that storage, which ties the loop to none but its own."""
    inside = [each for each in found.rings[inner] if found.instances[each.taker].segment in mine]
    found.rings[inner] = [each for each in found.rings[inner] if found.instances[each.taker].segment not in mine]
    found.rings[within(inner, tile)] = inside
    stored = found.rings[name][-1]
    stored.first = min((each.taker for each in inside), key=lambda index: found.instances[index].start)


def within(name: str, tile: str) -> str:
    """What the ring of a loop's value is called that one tile has for itself."""
    return f"{name} of tile {tile}"


def ring_depths(schedule: Persistent, found: Unrolled) -> dict[str, int]:
    """Buffers of each ring of what was unrolled."""
    depths = dict(schedule.depths)
    for name in found.rings:
        depths.setdefault(name, schedule.depths.get(name.rpartition(" of tile ")[0], 1))
    return depths


def crosses(found: Unrolled, value: Value, mine: list[int]) -> bool:
    """Whether readers, also those of turns that are not there, are in another group than the producer."""
    groups = {
        found.instances[index].group
        for name in (value.producer, *(read.op for read in value.reads))
        for index in instances_of(found, mine, name)
    }
    return len(groups) > 1


def loop_of(found: Unrolled, mine: list[int], group: int) -> Iterator[int]:
    """The instances of a tile's loops in a group."""
    for number in mine:
        if found.segments[number].chain.startswith("loop"):
            for op in found.segments[number].graph.ops:
                for index in instances_of(found, [number], op.name):
                    if found.instances[index].group == group:
                        yield index


def getting(found: Unrolled, index: int) -> tuple[bool, int, int]:
    """An order in which the first of a stream comes first; what takes nothing of it comes last."""
    each = found.instances[index]
    return not (each.op.issue or each.gets or each.puts), each.start, -each.gets


def issued(found: Unrolled, index: int) -> tuple[int, int]:
    """An order in which the last of a stream comes last."""
    each = found.instances[index]
    return each.start + each.op.issue, each.op.issue + each.puts


def program_bounds(tiles: Sequence[Tile], machine: Machine) -> tuple[Bound, ...]:
    """What no schedule of turns of these tiles is below, the largest first: all that each unit has to do in a turn."""
    held: dict[str, int] = {}
    for tile in tiles:
        ends = [(graph, 1) for graph in (tile.prologue, tile.epilogue) if graph is not None]
        for graph, trips in (*ends, *((graph, graph.trips) for graph in tile.phases)):
            for op in graph.ops:
                for use in op.uses:
                    held[use.unit] = held.get(use.unit, 0) + use.cycles * use.amount * trips
    found = [Bound(f"unit {unit}", -(-work // machine.units[unit].capacity)) for unit, work in held.items() if work]
    return tuple(sorted(found, key=lambda bound: -bound.cycles))
