"""Why a bound holds: the ops whose cycles add up to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from forgec.schedule.bounds import in_turns
from forgec.schedule.graph import Graph
from forgec.schedule.machine import Machine
from forgec.schedule.pressure import least_life, taken
from forgec.schedule.schedule import Bound, Phase


@dataclass(frozen=True)
class Term:
    """What one op or value adds: ``cycles`` of it, and a remark."""

    name: str
    cycles: int
    note: str = ""


@dataclass(frozen=True)
class Reason:
    """A bound in words, the terms of its sum, and how the bound comes from that."""

    text: str
    terms: tuple[Term, ...] = ()
    conclusion: str = ""

    @property
    def total(self) -> int:
        """The sum of the terms."""
        return sum(term.cycles for term in self.terms)


def reason(bound: Bound, graph: Graph, machine: Machine) -> Reason:
    """Why no interval of the graph is below the bound; of a bound of unknown kind, what its name says."""
    kind, _, rest = bound.name.partition(" ")
    if kind == "unit" and rest in machine.units:
        return of_unit(bound, rest, graph, machine)
    if kind == "turns":
        return of_turns(bound, rest.partition("of ")[2], graph, machine)
    if kind == "recurrence":
        return of_recurrence(bound, rest.split(" -> "), graph)
    cluster = next((names for names in graph.clusters() if rest.partition("of ")[2] == names[0]), None)
    if kind == "stream" and cluster is not None:
        return of_stream(bound, cluster, graph)
    if kind == "registers" and cluster is not None:
        return of_registers(bound, cluster, graph)
    if kind in ("shared", "tensor") and rest == "memory":
        return of_memory(bound, kind, graph, machine)
    return Reason(f"{bound.name} takes at least {bound.cycles} cycles of every interval")


def of_unit(bound: Bound, unit: str, graph: Graph, machine: Machine) -> Reason:
    """All that ops hold of a unit, over its capacity."""
    capacity = machine.units[unit].capacity
    terms = []
    for op in graph.ops:
        uses = [use for use in op.uses if use.unit == unit and use.cycles and use.amount]
        if uses:
            notes = [f"{use.amount} for {use.cycles} cycles" for use in uses if use.amount != 1]
            terms.append(Term(op.name, sum(use.cycles * use.amount for use in uses), ", ".join(notes)))
    found = Reason(
        f"each iteration holds {unit} for these cycles, and an interval has no more than its own", tuple(terms)
    )
    over = f"{found.total} cycles" if capacity == 1 else f"{found.total} cycles over {capacity} at once"
    return Reason(found.text, found.terms, f"{over}: no interval is below {bound.cycles}")


def of_turns(bound: Bound, unit: str, graph: Graph, machine: Machine) -> Reason:
    """What holds more than half of a unit."""
    capacity = machine.units[unit].capacity
    terms = [
        Term(op.name, use.cycles, f"{use.amount} of {capacity}")
        for op in graph.ops
        for use in op.uses
        if use.unit == unit and use.cycles and in_turns(use, machine)
    ]
    text = f"each of these holds more than half of {unit}, so that they take turns"
    return Reason(text, tuple(terms), f"{bound.cycles} cycles after one another: no interval is below it")


def of_stream(bound: Bound, cluster: list[str], graph: Graph) -> Reason:
    """Ops that share an instruction stream."""
    terms = tuple(Term(op.name, op.issue) for op in graph.ops if op.name in cluster and op.issue)
    text = "values in registers tie these ops to one group, whose stream issues one after the other"
    return Reason(text, terms, f"{bound.cycles} cycles of one stream: no interval is below it")


def of_recurrence(bound: Bound, cycle: list[str], graph: Graph) -> Reason:
    """The delays around a cycle, over the iterations that it spans."""
    terms: list[Term] = []
    distance = 0
    for source, target in zip(cycle, [*cycle[1:], cycle[0]], strict=True):
        edges = [edge for edge in graph.precedences() if edge[:2] == (source, target)]
        if not edges:
            return Reason(f"the ops {' -> '.join(cycle)} wait for each other, {bound.cycles} cycles for each iteration")
        # The edge by which the interval below the bound is too small.
        *_, delay, away = max(edges, key=lambda edge: edge[2] - edge[3] * (bound.cycles - 1))
        later = f", {away} iteration{'s' * (away != 1)} later" if away else ""
        terms.append(Term(source, delay, f"until {target} may start{later}"))
        distance += away
    total = sum(term.cycles for term in terms)
    span = f"{distance} iteration{'s' * (distance != 1)}"
    text = "these ops wait for each other around a cycle, which each iteration carries into a later one"
    return Reason(text, tuple(terms), f"{total} cycles around, over {span}: no interval is below {bound.cycles}")


def of_registers(bound: Bound, cluster: list[str], graph: Graph) -> Reason:
    """Values in registers and how long each lives at the least."""
    values = [each for each in graph.values if each.memory == "register" and each.producer in cluster and each.size]
    terms = tuple(
        Term(value.name, least_life(graph, value), f"{value.size} bytes")
        for value in sorted(values, key=lambda each: -each.size)
    )
    text = (
        "these values live in the registers of one group for at least so long; those of which no two fit beside each "
        "other take turns, and all together take no more than the registers there are in one interval"
    )
    return Reason(text, terms, f"no interval is below {bound.cycles}")


def of_memory(bound: Bound, memory: str, graph: Graph, machine: Machine) -> Reason:
    """Values in a memory and for how long each takes a buffer at the least."""
    values = sorted((each for each in graph.values if each.memory == memory and each.size), key=lambda each: -each.size)
    left = machine.memory_bytes(memory) - graph.resident.get(memory, 0)
    return Reason(
        f"these values take buffers of {memory} memory for at least so long, and another one for each interval begun",
        tuple(Term(value.name, taken(graph, value), f"{value.size} bytes") for value in values),
        f"the buffers that a shorter interval needs are more than {left} bytes: no interval is below {bound.cycles}",
    )


def between(phase: Phase, bounds: tuple[Bound, ...], refuted: tuple[int, ...], quantum: int) -> str:
    """What lies between the largest bound and the interval, in words."""
    largest = bounds[0].cycles if bounds else 1
    if phase.ii == largest:
        return f"the interval {phase.ii} is the bound itself, so no smaller one exists"
    parts = [f"the interval {phase.ii} is above the largest bound, {largest}"]
    if quantum > 1:
        parts.append(f"times are multiples of {quantum} cycles, durations rounded up to these")
    if refuted:
        parts.append(
            f"CP-SAT proved that there is no schedule at {listed(refuted)}: all constraints together forbid it"
        )
    return "; ".join(parts)


def listed(intervals: Sequence[int | str]) -> str:
    """Intervals in a line; the middle of many is left out."""
    if len(intervals) <= 10:
        return ", ".join(map(str, intervals))
    first, last = intervals[:4], intervals[-2:]
    return f"{', '.join(map(str, first))}, …, {', '.join(map(str, last))} ({len(intervals)} intervals)"
