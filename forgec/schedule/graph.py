"""The dependence graph of a loop: what the scheduler solves. Plain data, no IR, read from and written to JSON.

An **op** is one asynchronous instruction or one stretch of synchronous code of a tile kernel: a copy by TMA, a matrix
product, the exponentials of a tile. For each op the graph says in cycles how long it holds which functional unit (its
*reservation table*), how long the warps of its group are busy with issuing it, and when its result is there.

A **value** is what an op leaves in registers, shared memory or tensor memory, and who reads it. A **dependence** orders
two ops without a value. Both carry an *iteration distance*: 1 says that the reader is in the next iteration.

What a legal schedule of a graph is, stands in ``schedule.py``; the graph alone says nothing of groups or of time.
Source of the terms: Rau, "Iterative Modulo Scheduling" (1996), sections 2 and 3.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from math import gcd

from forgec.diagnostics import error

STRICT = {"extra": "forbid"}
"""For pydantic, which reads these dataclasses from files: a field that they do not have is refused."""
MEMORIES = ("register", "shared", "tensor")
MOST_CYCLES, MOST_BYTES = 1 << 24, 1 << 40
"""The largest times (and counts) and sizes of graphs from files."""
TOO_MUCH = f"has a number beyond {MOST_CYCLES} (times, counts) or {MOST_BYTES} (bytes)"


@dataclass(frozen=True)
class Use:
    """``amount`` of ``unit`` is held from ``offset`` cycles after the op's start on, for ``cycles``."""

    __pydantic_config__ = STRICT
    unit: str
    cycles: int
    offset: int = 0
    amount: int = 1


@dataclass(frozen=True)
class Op:
    """One op of the loop's body.

    ``issue``: cycles for which the instruction stream of its warp group is busy with it: all of them for synchronous
    code, a few for a copy or a product that runs by itself. ``latency``: cycles after its start when its result may
    be read. ``late``: by how much later that may be without any reader waiting, if this costs no cycles; the latency
    of something that others use as well is no promise. ``variable``: the latency is an expectation (a copy from
    global memory), no promise. ``warps``: how many warps have to carry it out together. ``part``: which of several
    equal sub-tiles it works on; ops that differ in it alone (same ``twin``) may change places, which the solver uses.
    ``role`` (``load``, ``mma``, ``softmax``), ``shape`` and ``source`` are for readers.
    """

    __pydantic_config__ = STRICT
    name: str
    kind: str
    issue: int
    latency: int
    uses: tuple[Use, ...] = ()
    late: int = 0
    variable: bool = False
    warps: int = 1
    part: int | None = None
    twin: str | None = None
    role: str = ""
    shape: tuple[int, ...] = ()
    source: str | None = None

    @property
    def span(self) -> int:
        """Cycles from the start until both its stream and its result are done."""
        return max(self.issue, self.latency)


@dataclass(frozen=True)
class Read:
    """``op`` reads a value of ``distance`` iterations earlier, and is done with it ``release`` cycles after it starts.

    A release of 0 says that the reader overwrites it in place.
    """

    __pydantic_config__ = STRICT
    op: str
    release: int
    distance: int = 0


@dataclass(frozen=True)
class Value:
    """The result of ``producer``, of ``size`` bytes (of the whole group: all threads together, for registers).

    Its storage is taken ``begin`` cycles after the producer's start. ``crossing``: a value in registers may be handed
    to another group, through shared memory, where it needs as many bytes; else its readers are in the producer's
    group.
    """

    __pydantic_config__ = STRICT
    name: str
    producer: str
    memory: str
    size: int
    reads: tuple[Read, ...]
    begin: int = 0
    crossing: bool = False

    def may_cross(self) -> bool:
        """Whether the readers may be in another group than the producer."""
        return self.memory != "register" or self.crossing


@dataclass(frozen=True)
class Dependence:
    """``target`` starts at least ``delay`` cycles after the start of ``source`` of ``distance`` iterations before."""

    __pydantic_config__ = STRICT
    source: str
    target: str
    delay: int
    distance: int = 0


@dataclass(frozen=True)
class Graph:
    """One loop.

    ``work`` is what one iteration does, in units that different choices of ``tile`` share (multiply-adds, elements):
    cycles are compared per unit of it. ``resident`` are bytes of a memory that are taken for the whole loop (a tile of
    queries). ``traffic`` are the bytes that an iteration moves from global memory. ``trips``: how often it runs.
    """

    __pydantic_config__ = STRICT
    name: str
    ops: tuple[Op, ...]
    values: tuple[Value, ...] = ()
    dependences: tuple[Dependence, ...] = ()
    work: Fraction = Fraction(1)
    tile: Mapping[str, int] = field(default_factory=dict)
    resident: Mapping[str, int] = field(default_factory=dict)
    traffic: int = 0
    trips: int = 1

    def __post_init__(self) -> None:
        check(self)

    def op(self, name: str) -> Op:
        """The op of that name."""
        return next(op for op in self.ops if op.name == name)

    def index(self) -> dict[str, int]:
        """The position of each op by name."""
        return {op.name: position for position, op in enumerate(self.ops)}

    def precedences(self) -> Iterator[tuple[str, str, int, int]]:
        """``(source, target, delay, distance)`` of all reads and dependences, without what crossing costs."""
        latency = {op.name: op.latency for op in self.ops}
        for value in self.values:
            for read in value.reads:
                yield value.producer, read.op, latency[value.producer], read.distance
        for dependence in self.dependences:
            yield dependence.source, dependence.target, dependence.delay, dependence.distance

    def clusters(self) -> list[list[str]]:
        """Ops that have to be in one group, because a value in registers that may not cross goes between them.

        In the order of their first op.
        """
        pairs = ((read.op, value.producer) for value in self.values if not value.may_cross() for read in value.reads)
        found: dict[str, list[str]] = {}
        for name, first in tied((op.name for op in self.ops), pairs).items():
            found.setdefault(first, []).append(name)
        return list(found.values())

    def quantum(self) -> int:
        """The greatest number of cycles that divides every duration of the graph."""
        result = 0
        for op in self.ops:
            result = gcd(
                result, op.issue, op.latency, op.late, *(n for use in op.uses for n in (use.cycles, use.offset))
            )
        for value in self.values:
            result = gcd(result, value.begin, *(read.release for read in value.reads))
        return gcd(result, *(dependence.delay for dependence in self.dependences)) or 1


def stretches(graph: Graph) -> bool:
    """Whether a longer interval is possible wherever a shorter one is (``intervals.py`` says why): ops that hold one
    unit do so at one offset, and what is in registers takes its storage when its producer starts."""
    offsets: dict[str, int] = {}
    alike = all(offsets.setdefault(use.unit, use.offset) == use.offset for op in graph.ops for use in op.uses)
    return alike and not any(value.begin for value in graph.values if value.memory == "register")


def tied(names: Iterable[str], pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """For each name one that stands for all that pairs tie to it, directly or through others."""
    parent = {name: name for name in names}

    def root(name: str) -> str:
        while parent[name] != name:
            name = parent[name]
        return name

    for one, other in pairs:
        parent[root(one)] = root(other)
    return {name: root(name) for name in parent}


def check(graph: Graph) -> None:
    """Raise FORGE-U010 where a graph is none: names twice or unknown, negative times, a cycle in one iteration."""
    names = [op.name for op in graph.ops]
    known = set(names)
    if not names:
        raise error("FORGE-U010", f"graph {graph.name} has no ops")
    for name in names:
        if names.count(name) > 1:
            raise error("FORGE-U010", f"graph {graph.name} has two ops named {name}")
    titles = [value.name for value in graph.values]
    for title in titles:
        if titles.count(title) > 1:
            raise error("FORGE-U010", f"graph {graph.name} has two values named {title}")
    for op in graph.ops:
        numbers = (op.issue, op.latency, op.late, *(n for use in op.uses for n in (use.cycles, use.offset, use.amount)))
        if min(numbers) < 0 or op.warps < 1:
            raise error("FORGE-U010", f"op {op.name} of graph {graph.name} has a negative duration or no warps")
    for value in graph.values:
        if value.memory not in MEMORIES:
            raise error(
                "FORGE-U010", f"value {value.name} is in {value.memory}, which is none of {', '.join(MEMORIES)}"
            )
        if value.size < 0 or value.begin < 0 or any(read.release < 0 or read.distance < 0 for read in value.reads):
            raise error("FORGE-U010", f"value {value.name} of {graph.name} has a negative size, time or distance")
        for name in (value.producer, *(read.op for read in value.reads)):
            if name not in known:
                raise error(
                    "FORGE-U010", f"value {value.name} names the op {name}, which graph {graph.name} does not have"
                )
        if value.begin > graph.op(value.producer).latency:
            raise error("FORGE-U010", f"the storage of value {value.name} is taken after the value is there")
    for dependence in graph.dependences:
        if dependence.distance < 0 or dependence.delay < 0:
            raise error("FORGE-U010", f"a dependence on {dependence.source} has a negative delay or distance")
        for name in (dependence.source, dependence.target):
            if name not in known:
                raise error("FORGE-U010", f"a dependence names op {name}, which {graph.name} does not have")
    if graph.trips < 1:
        raise error("FORGE-U010", f"graph {graph.name} runs {graph.trips} times; trips are 1 at the least")
    if graph.traffic < 0 or min(graph.resident.values(), default=0) < 0:
        raise error("FORGE-U010", f"graph {graph.name} has negative traffic or resident bytes")
    for memory in graph.resident:
        if memory not in MEMORIES:
            raise error("FORGE-U010", f"what is resident is in {memory}, which is none of {', '.join(MEMORIES)}")
    if graph.work <= 0:
        raise error("FORGE-U010", f"graph {graph.name} does no work: {graph.work}")
    order_in_iteration(graph)


def check_extent(graph: Graph) -> None:
    """Raise FORGE-U010 where numbers are beyond what is solved and checked cycle by cycle: for graphs from files."""
    for op in graph.ops:
        uses = [n for use in op.uses for n in (use.offset + use.cycles, use.amount)]
        if max(op.issue, op.latency, op.late, op.warps, *uses) > MOST_CYCLES:
            raise error("FORGE-U010", f"op {op.name} of graph {graph.name} {TOO_MUCH}")
    for value in graph.values:
        reads = [n for read in value.reads for n in (read.release, read.distance)]
        if max(value.begin, *reads, 0) > MOST_CYCLES or value.size > MOST_BYTES:
            raise error("FORGE-U010", f"value {value.name} of graph {graph.name} {TOO_MUCH}")
    for each in graph.dependences:
        if max(each.delay, each.distance) > MOST_CYCLES:
            raise error("FORGE-U010", f"the dependence of {each.target} on {each.source} {TOO_MUCH}")
    if max([0, *graph.resident.values()]) > MOST_BYTES:
        raise error("FORGE-U010", f"what is resident in graph {graph.name} {TOO_MUCH}")
    # How often a loop runs is only multiplied with.
    if max(graph.trips, graph.traffic) > MOST_BYTES:
        raise error("FORGE-U010", f"graph {graph.name} has trips or traffic beyond {MOST_BYTES}")
    for name, extent in graph.tile.items():
        if not 1 <= extent <= MOST_CYCLES:
            raise error("FORGE-U010", f"the extent {name} of the tile of graph {graph.name} is {extent}")


def order_in_iteration(graph: Graph) -> list[str]:
    """The ops in an order that respects what one iteration orders by itself.

    Raises:
        ForgeError: FORGE-U010, where ops of one iteration wait for each other.
    """
    waiting: dict[str, set[str]] = {op.name: set() for op in graph.ops}
    for source, target, _, distance in graph.precedences():
        if distance == 0:
            waiting[target].add(source)
    order: list[str] = []
    while waiting:
        ready = [name for name, sources in waiting.items() if not sources]
        if not ready:
            raise error("FORGE-U010", f"ops of one iteration wait for each other: {', '.join(sorted(waiting))}")
        for name in ready:
            del waiting[name]
        for sources in waiting.values():
            sources.difference_update(ready)
        order += ready
    return order
