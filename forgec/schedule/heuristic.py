"""Iterative modulo scheduling with groups: a legal schedule in little time, without a proof (Rau 1996, section 3).

It starts the solver from a solution where a graph is large, and gives a schedule with a gap where a time limit ends
the solver. Groups are packed first; then ops are placed in the order of the longest path behind them, each at the first
slot at which its stream and units are free, and what is in the way is taken out and placed again. What lies in buffers
for longer than it has to is moved towards its readers. If memories do not hold it, values get fewer buffers, which are
dependences of their writers on their readers; then the interval grows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from forgec.schedule.graph import Graph, Op, Value
from forgec.schedule.machine import Machine
from forgec.schedule.pressure import ordered_depths
from forgec.schedule.schedule import freed, lifetime, transfer

PATIENCE = 6
"""How often an op may be placed, on average: Rau's budget ratio."""
FEWER = 24
"""How often a value gets fewer buffers before an interval is given up."""
GROWTH = Fraction(21, 20)
"""By how much the interval grows where none was found."""


@dataclass(frozen=True)
class Costs:
    """What a hand-over costs, in the units of the graphs' times."""

    put: int
    get: int
    latency: int
    quantum: int

    @staticmethod
    def of(machine: Machine, quantum: int) -> Costs:
        """Rounded up to the quantum."""
        hand = machine.handover
        put, get, latency = (-(-n // quantum) for n in (hand.put, hand.get, hand.latency))
        return Costs(put, get, latency, quantum)


@dataclass(frozen=True)
class Guess:
    """Starts of each phase at its interval; the clusters (by number) and the ops of each group."""

    iis: tuple[int, ...]
    starts: list[dict[str, int]]
    groups: list[list[int]]
    members: list[list[str]]

    def length(self, graphs: Sequence[Graph]) -> int:
        """Of an iteration, over all phases."""
        return sum(
            max(starts[op.name] + op.span for op in graph.ops) - min(starts.values())
            for graph, starts in zip(graphs, self.starts, strict=True)
        )


@dataclass(frozen=True)
class Problem:
    """What is to be scheduled: scaled loops, clusters of ops that stay together, pairs of them that stay apart."""

    graphs: Sequence[Graph]
    machine: Machine
    costs: Costs
    clusters: Sequence[Sequence[str]]
    apart: frozenset[tuple[int, int]]

    def warps(self, cluster: int) -> int:
        """Of the group that a cluster is in, at the least."""
        return max(op.warps for graph in self.graphs for op in graph.ops if op.name in self.clusters[cluster])

    def load(self, members: Sequence[int], ii: Sequence[int]) -> Fraction:
        """The part of a group's stream that these clusters take, in the phase in which it is largest."""
        names = {name for index in members for name in self.clusters[index]}
        return max(
            Fraction(sum(op.issue for op in graph.ops if op.name in names), each)
            for graph, each in zip(self.graphs, ii, strict=True)
        )


def guesses(problem: Problem, iis: Sequence[int]) -> Iterator[Guess]:
    """Legal schedules at these intervals, by several ways to pack the groups."""
    tried: list[list[list[int]]] = []
    for fill in (Fraction(1), Fraction(3, 4), Fraction(1, 2), Fraction(0)):
        groups = packed(problem, iis, fill)
        if groups and groups not in tried:
            tried.append(groups)
            found = at_groups(problem, iis, groups)
            if found is not None:
                yield found


def guess_from(problem: Problem, iis: Sequence[int], most: Sequence[int]) -> Guess | None:
    """The first legal schedule found as intervals grow from ``iis`` to ``most``."""
    at = list(iis)
    while True:
        found = next(guesses(problem, at), None)
        if found is not None or all(ii >= last for ii, last in zip(at, most, strict=True)):
            return found
        at = [min(max(ii + 1, int(ii * GROWTH)), max(ii, last)) for ii, last in zip(at, most, strict=True)]


def packed(problem: Problem, iis: Sequence[int], fill: Fraction) -> list[list[int]] | None:
    """Groups whose streams are filled to ``fill`` of an interval, if those are few enough for the machine's warps.

    First fit, the busiest cluster first. Where there are too many warps, the emptiest groups that may be joined are.
    """
    order = sorted(range(len(problem.clusters)), key=lambda index: (-problem.load([index], iis), index))
    groups: list[list[int]] = []

    def may_join(one: Sequence[int], other: Sequence[int], most: Fraction) -> bool:
        return problem.load([*one, *other], iis) <= most and not any(
            (min(a, b), max(a, b)) in problem.apart for a in one for b in other
        )

    for index in order:
        home = next((group for group in groups if may_join(group, [index], fill)), None)
        if home is None:
            groups.append([index])
        else:
            home.append(index)
    while sum(max(map(problem.warps, group)) for group in groups) > problem.machine.most_warps:
        pairs = [(a, b) for b in range(len(groups)) for a in range(b) if may_join(groups[a], groups[b], Fraction(1))]
        if not pairs:
            return None
        a, b = min(pairs, key=lambda pair: (problem.load([*groups[pair[0]], *groups[pair[1]]], iis), pair))
        groups[a] += groups.pop(b)
    return groups


def at_groups(problem: Problem, iis: Sequence[int], groups: list[list[int]]) -> Guess | None:
    """A legal schedule with these groups: with as many buffers as it likes, then with fewer of what takes most."""
    home = {name: number for number, group in enumerate(groups) for index in group for name in problem.clusters[index]}
    members = [[name for index in group for name in problem.clusters[index]] for group in groups]
    depths: dict[str, int] = {}
    for _ in range(FEWER):
        starts: list[dict[str, int]] = []
        for graph, ii in zip(problem.graphs, iis, strict=True):
            loop = Loop(graph, ii, home, problem.machine, problem.costs, depths)
            found = loop.place()
            if found is None:
                return None
            starts.append(loop.later(found))
        guess = Guess(tuple(iis), starts, groups, members)
        over = too_large(problem, guess, home)
        if over is None:
            return guess
        taken = {name: depth for name, depth in buffers(problem, guess, home).items() if name in over}
        fewer = {name: depth - 1 for name, depth in taken.items() if depth > 1}
        if not fewer:
            return None
        sizes = {name: over[name] * taken[name] for name in fewer}
        most = max(fewer, key=lambda name: (sizes[name], name))
        depths = {**depths, most: fewer[most]}
    return None


class Loop:
    """One loop at one interval and with given groups."""

    def __init__(
        self, graph: Graph, ii: int, home: Mapping[str, int], machine: Machine, costs: Costs, depths: Mapping[str, int]
    ) -> None:
        self.graph, self.ii, self.home, self.machine, self.costs = graph, ii, home, machine, costs
        self.ops = {op.name: op for op in graph.ops}
        self.edges = list(self._edges(depths))
        self.into: dict[str, list[tuple[str, int]]] = {name: [] for name in self.ops}
        self.out: dict[str, list[tuple[str, int]]] = {name: [] for name in self.ops}
        for source, target, gap in self.edges:
            self.into[target].append((source, gap))
            self.out[source].append((target, gap))
        # What is taken of each group's stream and of each unit, as bits of slots and as amounts at slots.
        self.streams: dict[int, int] = {}
        self.held = {unit: [0] * ii for unit in machine.units}
        self.full: dict[tuple[str, int], int] = {}
        self.starts: dict[str, int] = {}
        self.slots = {name: self._slots(op) for name, op in self.ops.items()}

    def crosses(self, value: Value) -> bool:
        """Whether another group reads it."""
        return any(self.home[read.op] != self.home[value.producer] for read in value.reads)

    def _edges(self, depths: Mapping[str, int]) -> Iterator[tuple[str, str, int]]:
        """``(source, target, gap)``: the target starts no earlier than ``gap`` after the source."""
        ii, costs = self.ii, self.costs
        for value in self.graph.values:
            latency, copies = self.ops[value.producer].latency, -(-transfer(self.machine, value) // costs.quantum)
            hop = costs.latency if self.crosses(value) else 0
            for read in value.reads:
                apart = self.home[read.op] != self.home[value.producer]
                extra = costs.latency + copies if apart else 0
                yield value.producer, read.op, latency + extra - read.distance * ii
                if value.name in depths:
                    until = read.distance * ii + freed(value, read) + hop - value.begin
                    yield read.op, value.producer, until - depths[value.name] * ii
        for each in self.graph.dependences:
            apart = self.home[each.source] != self.home[each.target]
            yield each.source, each.target, each.delay + (costs.latency if apart else 0) - each.distance * ii

    def _slots(self, op: Op) -> tuple[int, int, bool]:
        """Cycles of its stream before and after its start, and whether it can be placed at all."""
        takes = sum(
            self.home[value.producer] != self.home[op.name] and any(read.op == op.name for read in value.reads)
            for value in self.graph.values
        )
        gives = sum(value.producer == op.name and self.crosses(value) for value in self.graph.values)
        before, after = takes * self.costs.get, op.issue + gives * self.costs.put
        whole: dict[str, int] = {}
        for use in op.uses:
            whole[use.unit] = whole.get(use.unit, 0) + use.amount * -(-use.cycles // self.ii)
        fits = all(amount <= self.machine.units[unit].capacity for unit, amount in whole.items())
        return before, after, before + after <= self.ii and fits

    def heights(self) -> dict[str, int] | None:
        """The longest path behind each op; none where a recurrence is longer than the interval allows."""
        height = dict.fromkeys(self.ops, 0)
        for _ in range(len(self.ops) + 1):
            changed = False
            for source, target, gap in self.edges:
                if height[target] + gap > height[source]:
                    height[source] = height[target] + gap
                    changed = True
            if not changed:
                return height
        return None

    def place(self) -> dict[str, int] | None:
        """Starts of all ops, or none found."""
        height = self.heights()
        if height is None or not all(fits for *_, fits in self.slots.values()):
            return None
        rank = {name: position for position, name in enumerate(self.ops)}
        left = set(self.ops)
        before: dict[str, int] = {}
        for _ in range(PATIENCE * len(self.ops)):
            if not left:
                return dict(self.starts)
            name = min(left, key=lambda name: (-height[name], rank[name]))
            early = max([0, *(self.starts[s] + gap for s, gap in self.into[name] if s in self.starts)])
            at = next((start for start in range(early, early + self.ii) if self.free(name, start)), None)
            out: set[str] = set()
            if at is None:
                at = max(early, before.get(name, -1) + 1)
                out = self.in_the_way(name, at)
            for target, gap in self.out[name]:
                if target != name and target in self.starts and self.starts[target] < at + gap:
                    out.add(target)
            for source, gap in self.into[name]:
                if source != name and source in self.starts and at < self.starts[source] + gap:
                    out.add(source)
            for other in out:
                self.remove(other)
            if not self.free(name, at):
                # Several uses of one unit together are too much: nothing else keeps any of it.
                units = {use.unit for use in self.ops[name].uses}
                rest = {other for other in self.starts if units & {use.unit for use in self.ops[other].uses}}
                for other in rest:
                    self.remove(other)
                out |= rest
            left |= out
            self.put(name, at)
            before[name] = at
            left.discard(name)
        return dict(self.starts) if not left else None

    def _bits(self, first: int, count: int) -> int:
        """The slots of some cycles, as bits."""
        first, row = first % self.ii, (1 << min(count, self.ii)) - 1
        turned = row << first
        return (turned | turned >> self.ii) & ((1 << self.ii) - 1)

    def _full(self, unit: str, amount: int) -> int:
        """The slots at which so much of a unit is not free, as bits."""
        if (unit, amount) not in self.full:
            room = self.machine.units[unit].capacity - amount
            self.full[unit, amount] = sum(1 << slot for slot, held in enumerate(self.held[unit]) if held > room)
        return self.full[unit, amount]

    def free(self, name: str, start: int) -> bool:
        """Whether its stream and units are free for an op at this start."""
        before, after, _ = self.slots[name]
        if self.streams.get(self.home[name], 0) & self._bits(start - before, before + after):
            return False
        uses = self.ops[name].uses
        if any(self._full(use.unit, use.amount) & self._bits(start + use.offset, use.cycles) for use in uses):
            return False
        # One use by itself fits; several of one unit, or one longer than the interval, are counted.
        if len({use.unit for use in uses}) == len(uses) and all(use.cycles <= self.ii for use in uses):
            return True
        held: dict[tuple[str, int], int] = {}
        for use in uses:
            for cycle in range(start + use.offset, start + use.offset + use.cycles):
                slot = (use.unit, cycle % self.ii)
                held[slot] = held.get(slot, 0) + use.amount
        return all(
            self.held[unit][slot] + amount <= self.machine.units[unit].capacity for (unit, slot), amount in held.items()
        )

    def in_the_way(self, name: str, start: int) -> set[str]:
        """The ops without which this one could start here."""
        found: set[str] = set()
        before, after, _ = self.slots[name]
        mine = self._bits(start - before, before + after)
        for other, at in self.starts.items():
            ahead, behind, _ = self.slots[other]
            if self.home[other] == self.home[name] and mine & self._bits(at - ahead, ahead + behind):
                found.add(other)
            for use in self.ops[name].uses:
                bits = self._bits(start + use.offset, use.cycles) & self._full(use.unit, use.amount)
                for held in self.ops[other].uses if bits else ():
                    if held.unit == use.unit and bits & self._bits(at + held.offset, held.cycles):
                        found.add(other)
        return found - {name}

    def _hold(self, name: str, start: int, sign: int) -> None:
        before, after, _ = self.slots[name]
        group = self.home[name]
        self.streams[group] = self.streams.get(group, 0) ^ self._bits(start - before, before + after)
        for use in self.ops[name].uses:
            for cycle in range(start + use.offset, start + use.offset + use.cycles):
                self.held[use.unit][cycle % self.ii] += sign * use.amount
            for key in [key for key in self.full if key[0] == use.unit]:
                del self.full[key]

    def put(self, name: str, start: int) -> None:
        """Place an op."""
        self.starts[name] = start
        self._hold(name, start, 1)

    def remove(self, name: str) -> None:
        """Take an op out again."""
        self._hold(name, self.starts.pop(name), -1)

    def later(self, starts: dict[str, int]) -> dict[str, int]:
        """Ops that write more than they read are moved towards their readers, as far as those and the end allow."""
        end = max(start + self.ops[name].span for name, start in starts.items())
        written = dict.fromkeys(self.ops, 0)
        for value in self.graph.values:
            written[value.producer] += value.size
            for read in value.reads:
                written[read.op] -= value.size if read.release else 0
        for name in sorted(starts, key=lambda name: (-starts[name], name)):
            if written[name] <= 0:
                continue
            late = min([end - self.ops[name].span, *(starts[t] - gap for t, gap in self.out[name] if t != name)])
            now = starts[name]
            self.remove(name)
            window = range(late, max(now, late - self.ii), -1)
            at = next((start for start in window if self.free(name, start)), now)
            self.put(name, at)
            starts[name] = at
        return starts


def buffers(problem: Problem, guess: Guess, home: Mapping[str, int]) -> dict[str, int]:
    """The fewest buffers of each value at these times."""
    depths: dict[str, int] = {}
    for graph, ii, starts in zip(problem.graphs, guess.iis, guess.starts, strict=True):
        least = ordered_depths(graph)
        for value in graph.values:
            life = lifetime(graph, value, starts, ii)
            crosses = any(home[read.op] != home[value.producer] for read in value.reads)
            hop = problem.costs.latency if crosses else 0
            ends = [starts[read.op] + read.distance * ii + freed(value, read) + hop for read in value.reads]
            life = max([life, *(end - starts[value.producer] - value.begin for end in ends)])
            depths[value.name] = max(depths.get(value.name, 1), least[value.name], -(-life // ii))
    return depths


def too_large(problem: Problem, guess: Guess, home: Mapping[str, int]) -> dict[str, int] | None:
    """The values, with their sizes, of memories and registers that do not hold them; None where all fit."""
    machine, depths = problem.machine, buffers(problem, guess, home)
    over: dict[str, int] = {}
    fits = True
    for memory in ("shared", "tensor"):
        sizes: dict[str, int] = {}
        for graph in problem.graphs:
            for value in graph.values:
                staged = value.memory == "register" and any(home[r.op] != home[value.producer] for r in value.reads)
                if value.memory == memory or (memory == "shared" and staged):
                    sizes[value.name] = max(sizes.get(value.name, 0), value.size)
        resident = max(graph.resident.get(memory, 0) for graph in problem.graphs)
        if resident + sum(size * depths[name] for name, size in sizes.items()) > machine.memory_bytes(memory):
            fits, over = False, over | sizes
    facts = machine.registers
    granted = grants(problem, guess, home)
    _, members = live_bytes(problem, guess, home)
    for group, (_, registers) in enumerate(granted):
        if registers > facts.most:
            fits, over = False, over | members.get(group, {})
    threads = (32 * -(-warps // facts.group_warps) * facts.group_warps for warps, _ in granted)
    if sum(count * registers for count, (_, registers) in zip(threads, granted, strict=True)) > facts.total:
        fits, over = False, over | {name: size for row in members.values() for name, size in row.items()}
    return None if fits else over


def grants(problem: Problem, guess: Guess, home: Mapping[str, int] | None = None) -> list[tuple[int, int]]:
    """The warps of each group, and the registers of a thread that it needs; more than may be, perhaps."""
    if home is None:
        home = {name: group for group, names in enumerate(guess.members) for name in names}
    facts = problem.machine.registers
    peaks, _ = live_bytes(problem, guess, home)
    found: list[tuple[int, int]] = []
    for group, clusters in enumerate(guess.groups):
        warps = max(map(problem.warps, clusters))
        peak = peaks.get(group, 0)
        need = max(facts.least, facts.reserve - (-peak // (4 * 32 * warps)) if peak else 0)
        found.append((warps, -(-need // facts.granularity) * facts.granularity))
    if facts.uniform:
        most = max(registers for _, registers in found)
        found = [(warps, most) for warps, _ in found]
    return found


def live_bytes(
    problem: Problem, guess: Guess, home: Mapping[str, int]
) -> tuple[dict[int, int], dict[int, dict[str, int]]]:
    """The most bytes of registers live at once in each group, and the values that it holds with their sizes."""
    peaks: dict[int, int] = {}
    members: dict[int, dict[str, int]] = {}
    for graph, ii, starts in zip(problem.graphs, guess.iis, guess.starts, strict=True):
        live: dict[int, list[int]] = {}
        for value in graph.values:
            if value.memory != "register" or not value.size:
                continue
            acquire = starts[value.producer] + value.begin
            whole, rest = divmod(lifetime(graph, value, starts, ii), ii)
            for group in {home[value.producer], *(home[read.op] for read in value.reads)}:
                row = live.setdefault(group, [0] * ii)
                members.setdefault(group, {})[value.name] = value.size
                for cycle in range(ii) if whole else ():
                    row[cycle] += whole * value.size
                for cycle in range(acquire, acquire + rest):
                    row[cycle % ii] += value.size
        for group, row in live.items():
            peaks[group] = max(peaks.get(group, 0), *row)
    return peaks, members
