r"""A schedule of loops, and what makes it legal.

**Definition.** A schedule of a graph on a machine gives an initiation interval :math:`II`, for each op :math:`v` a
start :math:`\sigma_v \ge 0` and a group :math:`\gamma_v`, for each value :math:`x` a number of buffers
:math:`D_x \ge 1`, and for each group its warps and registers. Iteration :math:`i` runs op :math:`v` from
:math:`\sigma_v + i\,II` on. It is legal when

1. *Streams*: in one group the intervals :math:`[\sigma_v - get_v,\; \sigma_v + issue_v + put_v)` of its ops are
   disjoint modulo :math:`II`; :math:`get_v` is the machine's ``get`` for each value that :math:`v` reads from another
   group, :math:`put_v` its ``put`` for each value of :math:`v` that another group reads.
2. *Units*: at every cycle modulo :math:`II` the amounts that ops hold of a unit are within its capacity.
3. *Dependences*: :math:`\sigma_t + k\,II \ge \sigma_s + delay + cross`, for a read :math:`delay = latency_s`;
   ``cross`` is 0 within a group, else the hand-over's latency, and for a value in registers the time of two copies of
   it as well.
4. *Buffers*: :math:`D_x\,II \ge release_x - acquire_x + cross_x`, where :math:`acquire_x = \sigma_p + begin_x`,
   :math:`release_x` is the last :math:`\sigma_t + k\,II + \max(release, begin_x)` of its readers (at least the end
   of its producer; a producer starts no earlier than the readers whose buffer it takes), and
   :math:`cross_x` the hand-over's latency if a reader is in another group.
5. *Memories*: :math:`\sum_x D_x\,size_x` over the values of shared memory, and over those in registers that
   another group reads, with what is resident is within the machine's; the same for tensor memory.
6. *Registers*: at every cycle modulo :math:`II` the bytes of values in registers that are between acquire and release,
   for the producer's group and for each reader's, are within
   :math:`4 \cdot threads \cdot (registers - reserve)`; all grants together are within the register file. What is in
   registers and may not cross is in one group, also where several phases have a value of one name: it is one storage.
7. *Warps*: a group has the warps that its ops take; all together are within the machine's.
8. *Isolation*, as the machine's ``isolate`` says.
9. *Order*: a group runs its ops in the order of their starts (those of one time as ``rank`` says), and waits for what
   it reads and for buffers to be empty. Nothing waits for itself: no cycle of orders and waits goes over 0 iterations
   or fewer. By 3 and 4 no wait goes backward in time, so that this is open only between ops that start at one time.

Several loops of a kernel (masked and unmasked blocks of an attention) are *phases*: each has an interval and starts of
its own; groups, registers and buffers are shared by name. Values of one name are one value, in one ring: a read at
distance :math:`k` in the first iterations of a phase reads what the last iterations of the phase before left.

10. *Transitions*: a phase of :math:`n` iterations from :math:`B` on is followed by the next one from
   :math:`B + n\,II + T` on, :math:`T \ge 0`: what draining the one and filling the other costs beyond their steady
   states. Over all instances of both (``unrolled.py``), not modulo anything, rules 1 to 4 and 6 hold, and a value of
   both is produced in their order; the :math:`begin` up to which a reader has its buffer is that of the value which
   takes it. At :math:`T = 0` the next loop begins as the next iteration would have. All this holds for the trips of
   the graphs, and for so many that nothing new happens: how often a loop runs may differ from program to program.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

from forgec.schedule.graph import STRICT, Graph, Op, Read, Value
from forgec.schedule.machine import Machine


@dataclass(frozen=True)
class Group:
    """Warps that run one instruction stream. ``registers``: of each thread. ``kind``: the role of its ops (``load``,
    ``mma``, …), or ``consumer`` where they have several.
    """

    __pydantic_config__ = STRICT
    name: str
    warps: int
    registers: int
    ops: tuple[str, ...]
    kind: str = "consumer"


@dataclass(frozen=True)
class Phase:
    """One loop with its interval, and the start of each op in cycles."""

    __pydantic_config__ = STRICT
    graph: Graph
    ii: int
    starts: Mapping[str, int]

    @property
    def length(self) -> int:
        """Cycles from the first start of an iteration to the end of all its ops."""
        return max(self.starts[op.name] + op.span for op in self.graph.ops)

    @property
    def stages(self) -> int:
        """How many iterations are under way at once."""
        return max(self.starts[op.name] // self.ii for op in self.graph.ops) + 1


@dataclass(frozen=True)
class Bound:
    """A lower bound of the interval, and what it comes from: ``unit tensor_core``, ``recurrence a -> b``."""

    __pydantic_config__ = STRICT
    name: str
    cycles: int


@dataclass(frozen=True)
class Certificate:
    """What is proved about a schedule.

    ``bounds``: lower bounds of the interval, the largest first; of several loops those of the last, and those of the
    others are ``earlier_bounds``. ``refuted``: intervals between the largest bound and the schedule's that the solver
    proved impossible; ``undecided``: those that it had no time for. Of several loops ``refuted_together`` and
    ``undecided_together`` hold intervals of all of them, in their order: None is any, so that ``(None, 96)`` is the
    second loop's by itself. ``status``: ``optimal`` (interval and length are the least),
    ``feasible`` (a time limit ended the search for a shorter length), ``timeout`` (the limit left smaller intervals
    undecided). ``least_length``: what no iteration at the schedule's interval is shorter than (of several loops the
    sum). ``quantum``: cycles that times are multiples of; ``distortion``: by how much rounding to them lengthened
    the largest bound. ``alternatives``: other tiles, each with the least cost that it could have and what became of it.

    Of a persistent kernel ``bounds`` are those of the program, whatever its schedule is like, and ``reduction`` those
    of the problem that was solved, in which each loop is moved as a whole: groups that run as soon as they can may stay
    below these. ``refuted`` is of this problem, and so is the status ``optimal for the reduction``; ``optimal`` says
    that the interval is at a bound of the program.
    """

    __pydantic_config__ = STRICT
    bounds: tuple[Bound, ...]
    status: str
    refuted: tuple[int, ...] = ()
    undecided: tuple[int, ...] = ()
    least_length: int = 0
    quantum: int = 1
    distortion: float = 0.0
    alternatives: tuple[Mapping[str, str | int | float], ...] = ()
    solve_seconds: float = 0.0
    deterministic_time: float = 0.0
    reduction: tuple[Bound, ...] = ()
    earlier_bounds: tuple[tuple[Bound, ...], ...] = ()
    refuted_together: tuple[tuple[int | None, ...], ...] = ()
    undecided_together: tuple[tuple[int | None, ...], ...] = ()


@dataclass(frozen=True)
class Schedule:
    """A kernel's schedule: phases that share ``groups`` and ``depths`` (buffers of each value, by name).

    ``transitions``: the cycles lost between each phase and the next. ``slack``: by how many cycles the least of the
    dependences that are carried into a later iteration is met early, whose delays are whole units of the quantum.
    """

    __pydantic_config__ = STRICT
    machine: str
    phases: tuple[Phase, ...]
    groups: tuple[Group, ...]
    depths: Mapping[str, int]
    certificate: Certificate | None = None
    slack: int = 0
    transitions: tuple[int, ...] = ()

    @cached_property
    def group_of(self) -> dict[str, int]:
        """The index of each op's group."""
        return {name: index for index, group in enumerate(self.groups) for name in group.ops}

    @property
    def cost(self) -> Fraction:
        """Cycles per unit of work over all phases in their steady state."""
        cycles = sum(phase.ii * phase.graph.trips for phase in self.phases)
        return Fraction(cycles) / sum(phase.graph.work * phase.graph.trips for phase in self.phases)

    def crossing(self, value: Value) -> bool:
        """Whether a group other than the producer's reads the value."""
        return crosses(value, self.group_of)


def crosses(value: Value, group_of: Mapping[str, int]) -> bool:
    """Whether a group other than the producer's reads a value."""
    return any(group_of[read.op] != group_of[value.producer] for read in value.reads)


def carried_slack(phases: Sequence[Phase], unit: int) -> int:
    """The least slack of a dependence that is carried into a later iteration, with delays rounded up to the unit."""
    return min(
        (
            phase.starts[target] + distance * phase.ii - phase.starts[source] - -(-delay // unit) * unit
            for phase in phases
            for source, target, delay, distance in phase.graph.precedences()
            if distance
        ),
        default=0,
    )


def group_kind(ops: Sequence[Op]) -> str:
    """What a group is by its ops: their role, or ``consumer`` where they have several."""
    roles = {op.role for op in ops}
    return (roles.pop() or "group") if len(roles) == 1 else "consumer"


def lifetime(graph: Graph, value: Value, starts: Mapping[str, int], ii: int) -> int:
    """Cycles from acquire to release."""
    start = starts[value.producer]
    ends = [start + graph.op(value.producer).latency]
    ends += [starts[read.op] + read.distance * ii + read.release for read in value.reads]
    return max(ends) - start - value.begin


def rank(phase: Phase, depths: Mapping[str, int]) -> dict[str, int]:
    """The order in which a group runs ops that start at the same time: what is waited for first.

    Ops wait for what they read, and those that write a buffer again for its readers; where both start at one time,
    this is their order. Else it is that of the graph.
    """
    graph = phase.graph
    edges = [(source, target, distance) for source, target, _, distance in graph.precedences()]
    for value in graph.values:
        edges += [(read.op, value.producer, depths.get(value.name, 1) - read.distance) for read in value.reads]
    first: dict[str, set[str]] = {op.name: set() for op in graph.ops}
    for source, target, distance in edges:
        if source != target and phase.starts[target] + distance * phase.ii == phase.starts[source]:
            first[target].add(source)
    found: dict[str, int] = {}
    while len(found) < len(first):
        left = [name for name in first if name not in found]
        name = next((name for name in left if first[name] <= found.keys()), left[0])
        found[name] = len(found)
    return found


def freed(value: Value, read: Read) -> int:
    """Cycles from the start of a reader until its buffer may be written again, whose writer starts after the reader."""
    return max(read.release, value.begin)


def ordered_depths(graph: Graph) -> dict[str, int]:
    """The buffers of each value that the order of waits needs, whatever the times are (rule 9).

    A reader that waits for instance i and reads the one of k iterations before keeps all in between: with fewer buffers
    the producer of instance i would wait for the reader, which waits for it, perhaps all at one time.
    """
    edges = [(source, target, distance) for source, target, _, distance in graph.precedences()]
    found: dict[str, int] = {}
    for producer in {value.producer for value in graph.values}:
        apart: dict[str, int] = {producer: 0}
        changed = True
        while changed:
            changed = False
            for source, target, distance in edges:
                if source in apart and apart[source] + distance < apart.get(target, apart[source] + distance + 1):
                    apart[target], changed = apart[source] + distance, True
        for value in graph.values:
            if value.producer == producer:
                rows = [r.distance - apart[r.op] + 1 for r in value.reads if r.op != producer and r.op in apart]
                found[value.name] = max([1, *rows])
    return found


def least_depths(
    graphs: Sequence[Graph],
    iis: Sequence[int],
    latency: int,
    starts: Sequence[Mapping[str, int]],
    group_of: Mapping[str, int],
) -> dict[str, int]:
    """The fewest buffers of each value at these times; ``latency``: that of a hand-over."""
    depths: dict[str, int] = {}
    for graph, ii, row in zip(graphs, iis, starts, strict=True):
        least = ordered_depths(graph)
        for value in graph.values:
            hop = latency if crosses(value, group_of) else 0
            ends = [row[read.op] + read.distance * ii + freed(value, read) + hop for read in value.reads]
            held = max([lifetime(graph, value, row, ii), *(end - row[value.producer] - value.begin for end in ends)])
            depths[value.name] = max(depths.get(value.name, 1), least[value.name], -(-held // ii))
    return depths


def gets(graph: Graph, op: Op, group_of: Mapping[str, int]) -> int:
    """How many values an op takes over from other groups."""
    return sum(
        any(read.op == op.name for read in value.reads) and group_of[value.producer] != group_of[op.name]
        for value in graph.values
    )


def puts(graph: Graph, op: Op, group_of: Mapping[str, int]) -> int:
    """How many values an op hands to other groups."""
    return sum(value.producer == op.name and crosses(value, group_of) for value in graph.values)


def transfer(machine: Machine, value: Value) -> int:
    """Cycles that a value in registers takes to get to another group's: into shared memory and out of it."""
    return (
        2 * machine.rounded(Fraction(value.size, machine.handover.bytes_per_cycle)) if value.memory == "register" else 0
    )
