"""The constraint model: all loops of a kernel at given intervals, as one problem for CP-SAT.

Decided together: starts, groups, buffer depths, register grants. The constraints are those of ``schedule.py``, in the
same order, each of a *family* that can be left out by name, by which a conflict is explained. Times are in units of a
quantum (``scale.py``).

Modulo resources (Rau 1996, section 3.1; as intervals): what an op holds is an interval from its slot in [0, II) on,
and the same one an II later. Within one window of II both copies show what is held at each slot, as long as nothing
is held for longer than II.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from itertools import pairwise

from ortools.sat.python import cp_model

from forgec.schedule import registers
from forgec.schedule.bounds import length_bound
from forgec.schedule.graph import Graph, Op, Value
from forgec.schedule.implied import implied_units
from forgec.schedule.joined import joined_clusters, joined_ops, kept_apart
from forgec.schedule.machine import Machine
from forgec.schedule.pressure import least_bytes
from forgec.schedule.schedule import freed, ordered_depths, transfer
from forgec.schedule.symmetry import equal_parts

FAMILIES = (
    "streams",
    "units",
    "dependences",
    "buffers",
    "shared memory",
    "tensor memory",
    "registers",
    "register file",
    "warps",
    "isolation",
)
MOST_DEPTH = 16
"""Buffers of one value."""


@dataclass
class Times:
    """Variables of one loop: ``start`` = II x ``stage`` + ``slot`` for each op; ``horizon``: the longest iteration."""

    phase: int
    graph: Graph
    ii: int
    horizon: int
    slot: dict[str, cp_model.IntVar]
    stage: dict[str, cp_model.IntVar]
    start: dict[str, cp_model.LinearExpr]
    length: cp_model.IntVar
    least_length: int
    anchor: str


@dataclass
class Model:
    """The problem of ``graphs`` (scaled) at the intervals ``iis``.

    ``without``: families that are left out. ``measured``: one of them of which is asked how much it would take.
    ``demands``: what families of sizes take, what there is, and of what. ``alone``: a phase whose times are asked for,
    whatever the others do: of those there is what their ops and values are for groups and memories, so that what has no
    solution has none with all phases either.
    """

    graphs: Sequence[Graph]
    iis: Sequence[int]
    machine: Machine
    quantum: int = 1
    without: frozenset[str] = frozenset()
    cp: cp_model.CpModel = field(default_factory=cp_model.CpModel)
    measured: str = ""
    alone: int | None = None
    grant: list[cp_model.IntVar] = field(default_factory=list)
    demands: dict[str, tuple[cp_model.LinearExprT, int, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        handover = self.machine.handover
        self.put, self.get, self.latency = (
            -(-n // self.quantum) for n in (handover.put, handover.get, handover.latency)
        )
        # Those that need most registers first: they are apart from each other, so that their groups are known at once.
        self.clusters = sorted(joined_clusters(self.graphs), key=lambda names: -self.least_registers(names))
        self.cluster_of = {name: index for index, names in enumerate(self.clusters) for name in names}
        self.ops = joined_ops(self.graphs)
        self.values: dict[str, list[tuple[int, Value]]] = {}
        for phase, graph in enumerate(self.graphs):
            for value in graph.values:
                self.values.setdefault(value.name, []).append((phase, value))
        self.most_groups = min(len(self.clusters), self.machine.most_warps)
        self._groups()
        timed = range(len(self.graphs)) if self.alone is None else (self.alone,)
        self.times = [self._times(phase) for phase in timed]
        self._streams()
        self._units()
        self._dependences()
        self._buffers()
        self._memories()
        registers.add(self)
        self._twins()

    def on(self, family: str) -> bool:
        """Whether the constraints of a family hold."""
        return family not in self.without

    def limit(self, family: str, taken: cp_model.LinearExprT, room: int, what: str) -> None:
        """What is taken is within what there is, where the family holds."""
        self.demands[family] = (taken, room, what)
        if self.on(family):
            self.cp.add(taken <= room)

    # Groups

    def _groups(self) -> None:
        """Clusters are put into groups; the first cluster of a group comes after the first of every earlier group."""
        cp, count = self.cp, len(self.clusters)
        self.member = [
            [cp.new_bool_var(f"{names[0]} in {group}") for group in range(min(index + 1, self.most_groups))]
            for index, names in enumerate(self.clusters)
        ]
        for index, row in enumerate(self.member):
            cp.add_exactly_one(row)
            for group in range(1, len(row)):
                earlier = [self.member[k][group - 1] for k in range(index) if group - 1 < len(self.member[k])]
                cp.add_bool_or([row[group].negated(), *earlier])
        sizes = sorted({max(self.ops[name].warps for name in names) for names in self.clusters})
        self.sizes = sizes
        # What a group has for warps: the most that one of its clusters takes; 0 where it is empty.
        self.has_size: list[dict[int, cp_model.IntVar]] = []
        for group in range(self.most_groups):
            literals = {size: cp.new_bool_var(f"group {group} has {size} warps") for size in (0, *sizes)}
            cp.add_exactly_one(literals.values())
            for index in range(count):
                if group < len(self.member[index]):
                    need = max(self.ops[name].warps for name in self.clusters[index])
                    cp.add_bool_or([self.member[index][group].negated(), *(literals[s] for s in sizes if s >= need)])
            for size in sizes:
                fitting = [
                    self.member[index][group]
                    for index, names in enumerate(self.clusters)
                    if group < len(self.member[index]) and max(self.ops[name].warps for name in names) == size
                ]
                cp.add_bool_or([literals[size].negated(), *fitting])
            self.has_size.append(literals)
        warps = sum((size * each[size] for each in self.has_size for size in sizes), start=cp_model.LinearExpr.sum([]))
        self.limit("warps", warps, self.machine.most_warps, "warps")
        self._apart: dict[tuple[int, int], cp_model.IntVar] = {}
        if self.on("isolation"):
            for a, b in kept_apart(self.graphs, self.machine, self.clusters):
                self._never_together(a, b)
        # Implied by registers and streams; said here, it fixes most groups before the search begins.
        for b in range(count):
            for a in range(b):
                if self._too_many_together(self.clusters[a], self.clusters[b]):
                    self._never_together(a, b)

    def least_registers(self, names: Sequence[str]) -> int:
        """The least bytes of registers that a cluster needs, over the phases."""
        return max(least_bytes(graph, [op.name for op in graph.ops if op.name in set(names)]) for graph in self.graphs)

    def _too_many_together(self, one: Sequence[str], other: Sequence[str]) -> bool:
        both = [*one, *other]
        facts = self.machine.registers
        # What both need at one time: by itself each may need its most while the other needs little. A third cluster
        # may bring warps, and with them threads that have registers.
        most = 4 * 32 * max(self.sizes) * max(facts.most - facts.reserve, 0)
        held = self.on("registers") and self.on("dependences")
        if held and self.least_registers(both) > most:
            return True
        return self.on("streams") and any(
            sum(op.issue for op in graph.ops if op.name in set(both)) > ii
            for phase, (graph, ii) in enumerate(zip(self.graphs, self.iis, strict=True))
            if self.alone in (None, phase)
        )

    def _never_together(self, a: int, b: int) -> None:
        for left, right in zip(self.member[a], self.member[b], strict=False):
            self.cp.add_at_most_one(left, right)

    def apart(self, source: str, target: str) -> cp_model.IntVar | int:
        """Whether two ops are in different groups: 0, or a literal."""
        a, b = sorted((self.cluster_of[source], self.cluster_of[target]))
        if a == b:
            return 0
        if (a, b) not in self._apart:
            literal = self.cp.new_bool_var(f"{source} and {target} apart")
            for left, right in zip(self.member[a], self.member[b], strict=False):
                # Both in it: together. One in it and the other not: apart.
                self.cp.add_bool_or([left.negated(), right.negated(), literal.negated()])
                self.cp.add_bool_or([left.negated(), right, literal])
                self.cp.add_bool_or([left, right.negated(), literal])
            for right in self.member[b][len(self.member[a]) :]:
                self.cp.add_implication(right, literal)
            self._apart[a, b] = literal
        return self._apart[a, b]

    def crossed(self, value: Value) -> cp_model.IntVar | int:
        """Whether any reader is in another group than the producer: 0, or a literal."""
        literals = [self.apart(value.producer, read.op) for read in value.reads]
        present = list({id(each): each for each in literals if not isinstance(each, int)}.values())
        if len(present) <= 1:
            return present[0] if present else 0
        literal = self.cp.new_bool_var(f"{value.name} crosses")
        self.cp.add_max_equality(literal, present)
        return literal

    # Times

    @cached_property
    def horizons(self) -> list[int]:
        """The longest that one iteration may take."""
        return horizons(self.graphs, self.iis, self.machine, self.quantum)

    @property
    def longest(self) -> list[int]:
        """For each phase a length that no schedule of it exceeds."""
        return [times.horizon + times.ii + 1 for times in self.times]

    def _times(self, phase: int) -> Times:
        cp, graph, ii, horizon = self.cp, self.graphs[phase], self.iis[phase], self.horizons[phase]
        most = horizon // ii + 1
        slot = {op.name: cp.new_int_var(0, ii - 1, f"slot {op.name}") for op in graph.ops}
        stage = {op.name: cp.new_int_var(-most, most, f"stage {op.name}") for op in graph.ops}
        start: dict[str, cp_model.LinearExpr] = {name: ii * stage[name] + slot[name] for name in slot}
        # A schedule that is moved as a whole is the same schedule: one op stays where it is.
        anchor = anchor_of(graph, self.machine)
        cp.add(slot[anchor] == 0)
        cp.add(stage[anchor] == 0)
        least = length_bound(graph, self.machine)
        length = cp.new_int_var(least, max(horizon + ii, least), "length")
        within = {(source, target) for source, target, _, distance in graph.precedences() if distance == 0}
        firsts = [op for op in graph.ops if not any(target == op.name for _, target in within)]
        for op in graph.ops:
            for first in firsts:
                cp.add(length >= start[op.name] + op.span - start[first.name])
        return Times(phase, graph, ii, horizon, slot, stage, start, length, least, anchor)

    def copies(
        self,
        position: cp_model.LinearExpr,
        size: cp_model.IntVar | int,
        ii: int,
        present: cp_model.IntVar | None,
        name: str,
    ) -> Iterator[cp_model.IntervalVar]:
        """The interval, and the same one an II later."""
        end: cp_model.LinearExpr = position + size
        if not isinstance(size, int):
            # An interval's end may be of one variable only.
            end = self.cp.new_int_var(-2 * ii, 3 * ii, f"end of {name}")
        for shift in (0, ii):
            if present is None:
                yield self.cp.new_interval_var(position + shift, size, end + shift, name)
            else:
                yield self.cp.new_optional_interval_var(position + shift, size, end + shift, present, name)

    def modulo(self, position: cp_model.LinearExpr, most: int, ii: int, name: str) -> cp_model.IntVar:
        """A variable in [0, ii) equal to the position modulo ii; the position is at most ``most``."""
        slot = self.cp.new_int_var(0, ii - 1, name)
        turns = self.cp.new_int_var(-(most // ii) - 2, most // ii + 2, f"turns of {name}")
        self.cp.add(position == slot + ii * turns)
        return slot

    # 1. Streams

    def _handover_ops(self, times: Times, op: Op) -> tuple[cp_model.LinearExpr | int, cp_model.LinearExpr | int, int]:
        """Cycles of the stream before and after an op for what it takes over and hands on, and the most of both."""
        takes = [
            self.crossed_to(value, op.name)
            for value in times.graph.values
            if any(read.op == op.name for read in value.reads)
        ]
        gives = [self.crossed(value) for value in times.graph.values if value.producer == op.name]
        before = [self.get * each for each in takes if not isinstance(each, int)]
        after = [self.put * each for each in gives if not isinstance(each, int)]
        return (
            cp_model.LinearExpr.sum(before),
            cp_model.LinearExpr.sum(after),
            self.get * len(before) + self.put * len(after),
        )

    def crossed_to(self, value: Value, op: str) -> cp_model.IntVar | int:
        """Whether this reader of a value is in another group than its producer."""
        return self.apart(value.producer, op)

    def _streams(self) -> None:
        if not self.on("streams"):
            return
        for times in self.times:
            lanes: list[list[cp_model.IntervalVar]] = [[] for _ in range(self.most_groups)]
            for op in times.graph.ops:
                before, after, most = self._handover_ops(times, op)
                if op.issue + most == 0:
                    continue
                if most:
                    size: cp_model.IntVar | int = self.cp.new_int_var(op.issue, op.issue + most, f"stream of {op.name}")
                    self.cp.add(size == op.issue + before + after)
                    position: cp_model.IntVar = self.cp.new_int_var(-most, times.ii, f"get of {op.name}")
                    self.cp.add(position + before == times.slot[op.name])
                    self.cp.add(size <= times.ii)
                else:
                    size, position = op.issue, times.slot[op.name]
                    if size > times.ii:
                        self.cp.add_bool_or([])
                cluster = self.cluster_of[op.name]
                for group, literal in enumerate(self.member[cluster]):
                    present = literal if op.issue else self._both(literal, size)
                    lanes[group] += self.copies(position, size, times.ii, present, f"{op.name} {times.phase} {group}")
            for lane in lanes:
                self.cp.add_no_overlap(lane)

    def _both(self, literal: cp_model.IntVar, size: cp_model.IntVar | int) -> cp_model.IntVar:
        """Whether an op is in a group and takes of its stream: what is empty may not stand within an interval."""
        present = self.cp.new_bool_var(f"{literal.name} and busy")
        self.cp.add_implication(present, literal)
        self.cp.add(size > 0).only_enforce_if(present)
        self.cp.add(size == 0).only_enforce_if(literal, present.negated())
        return present

    # 2. Units

    def _units(self) -> None:
        if not self.on("units"):
            return
        for times in self.times:
            implied = implied_units(times.graph, self.machine)
            for unit, facts in self.machine.units.items():
                if unit in implied:
                    continue
                intervals: list[cp_model.IntervalVar] = []
                amounts: list[int] = []
                always = 0
                for op in times.graph.ops:
                    for number, use in enumerate(op.uses):
                        if use.unit != unit or not use.cycles:
                            continue
                        whole, rest = divmod(use.cycles, times.ii)
                        always += whole * use.amount
                        if rest:
                            place: cp_model.LinearExpr = times.slot[op.name]
                            if use.offset % times.ii:
                                place = self.modulo(
                                    place + use.offset % times.ii, 2 * times.ii, times.ii, f"{op.name}@{unit}"
                                )
                            intervals += self.copies(place, rest, times.ii, None, f"{op.name} {unit} {number}")
                            amounts += [use.amount] * 2
                room = facts.capacity - always
                if not intervals and room >= 0:
                    continue
                if room < 0 or any(amount > room for amount in amounts):
                    self.cp.add_bool_or([])
                elif all(2 * amount > room for amount in amounts):
                    self.cp.add_no_overlap(intervals)
                else:
                    self.cp.add_cumulative(intervals, amounts, room)

    # 3. Dependences

    def _dependences(self) -> None:
        if not self.on("dependences"):
            return
        for times in self.times:
            for value in times.graph.values:
                latency = times.graph.op(value.producer).latency
                copies = -(-transfer(self.machine, value) // self.quantum)
                for read in value.reads:
                    extra = (self.latency + copies) * self.apart(value.producer, read.op)
                    self.cp.add(
                        times.start[read.op] + read.distance * times.ii >= times.start[value.producer] + latency + extra
                    )
            for each in times.graph.dependences:
                extra = self.latency * self.apart(each.source, each.target)
                self.cp.add(
                    times.start[each.target] + each.distance * times.ii >= times.start[each.source] + each.delay + extra
                )

    # 4. Buffers

    def _buffers(self) -> None:
        self.depth = {name: self.cp.new_int_var(1, MOST_DEPTH, f"depth {name}") for name in self.values}
        if not self.on("buffers"):
            return
        for times in self.times:
            least = ordered_depths(times.graph)
            for value in times.graph.values:
                name = value.name
                self.cp.add(self.depth[name] >= least[name])
                acquire = times.start[value.producer] + value.begin
                room = self.depth[name] * times.ii
                latency = times.graph.op(value.producer).latency
                self.cp.add(room >= times.start[value.producer] + latency - acquire)
                for read in value.reads:
                    release = times.start[read.op] + read.distance * times.ii + freed(value, read)
                    self.cp.add(room >= release - acquire + self.latency * self.crossed(value))

    # 5. Memories

    def _memories(self) -> None:
        for memory in ("shared", "tensor"):
            taken: list[cp_model.LinearExprT] = [max(graph.resident.get(memory, 0) for graph in self.graphs)]
            for name, places in self.values.items():
                sizes: list[cp_model.LinearExprT] = []
                for size in {value.size for _, value in places if value.memory == memory}:
                    sizes.append(size * self.depth[name])
                for _, value in places if memory == "shared" else ():
                    if value.memory == "register" and value.crossing:
                        sizes.append(value.size * self._if(self.crossed(value), self.depth[name], f"staged {name}"))
                if len(sizes) > 1:
                    # The phases have one ring, as large as it has to be in any of them.
                    most = MOST_DEPTH * max(value.size for _, value in places)
                    largest = self.cp.new_int_var(0, most, f"{memory} bytes of {name}")
                    for size in sizes:
                        self.cp.add(largest >= size)
                    sizes = [largest]
                taken += sizes
            total = cp_model.LinearExpr.sum(taken)
            self.limit(f"{memory} memory", total, self.machine.memory_bytes(memory), f"bytes of {memory} memory")

    def _if(self, condition: cp_model.IntVar | int, amount: cp_model.IntVar, name: str) -> cp_model.IntVar | int:
        """The amount where the condition holds, else 0."""
        if isinstance(condition, int):
            return amount if condition else 0
        result = self.cp.new_int_var(0, MOST_DEPTH, name)
        self.cp.add(result == amount).only_enforce_if(condition)
        self.cp.add(result == 0).only_enforce_if(condition.negated())
        return result

    # Symmetry

    def _twins(self) -> None:
        """Of parts that may change places a smaller one starts earlier, by the first op of each."""
        self.equal = equal_parts(self.graphs)
        for times in self.times[:1]:
            for one, other in pairwise(firsts_of_parts(times.graph)):
                if (one.part, other.part) in self.equal:
                    self.cp.add(times.start[one.name] <= times.start[other.name])


def firsts_of_parts(graph: Graph) -> list[Op]:
    """The first op that belongs to a part, and its twins, in the order of their parts."""
    first = next((op for op in graph.ops if op.part is not None), None)
    if first is None:
        return []
    return sorted(
        (op for op in graph.ops if op.part is not None and op.twin == first.twin), key=lambda op: op.part or 0
    )


def horizons(graphs: Sequence[Graph], iis: Sequence[int], machine: Machine, quantum: int) -> list[int]:
    """For each phase the longest that an iteration may take: all ops after one another, with all that they hold, hand
    over and are late with, each after an interval, and after as many more as what it reads may be older than one
    iteration."""
    handover, found = machine.handover, []
    put, get, latency = (-(-n // quantum) for n in (handover.put, handover.get, handover.latency))
    for graph, ii in zip(graphs, iis, strict=True):
        costs = sum(busy(graph).values())
        # Each reader in another group takes a value over by itself.
        costs += sum(put + latency + get * max(1, len({read.op for read in value.reads})) for value in graph.values)
        costs += sum(-(-transfer(machine, value) // quantum) for value in graph.values)
        costs += sum(each.delay for each in graph.dependences)
        older = sum(max([0, *(read.distance - 1 for read in value.reads)]) for value in graph.values)
        older += sum(max(0, each.distance - 1) for each in graph.dependences)
        found.append(costs + ii * (len(graph.ops) + older))
    return found


def busy(graph: Graph) -> dict[str, int]:
    """Cycles from the start of each op until nothing of it is left: its stream, its result (if late), what it holds,
    and what it reads."""
    found = {
        op.name: max([op.issue, op.latency + op.late, *(u.offset + u.cycles for u in op.uses)]) for op in graph.ops
    }
    for value in graph.values:
        for read in value.reads:
            found[read.op] = max(found[read.op], freed(value, read))
    return found


def anchor_of(graph: Graph, machine: Machine) -> str:
    """The op that stays at 0: the first of the unit that has most to do."""
    work: dict[str, Fraction] = {}
    for op in graph.ops:
        for use in op.uses:
            held = Fraction(use.cycles * use.amount, machine.units[use.unit].capacity)
            work[use.unit] = work.get(use.unit, Fraction(0)) + held
    if not work:
        return graph.ops[0].name
    unit = max(work, key=lambda name: work[name])
    return next(op.name for op in graph.ops if any(use.unit == unit for use in op.uses))
