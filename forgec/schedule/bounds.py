"""Lower bounds of the initiation interval, each with the name of what it comes from, and of an iteration's length.

ResMII and RecMII of Rau (1996), section 2.2; the bound of the streams (ops that values in registers tie to one group
share its instruction stream); and those of registers and memories (``pressure.py``). What is held once an interval is
held once an iteration, too: so units and streams bound the length as they do in a shop (Carlier 1982, "The one-machine
sequencing problem": the least head, all work, the least tail).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from forgec.schedule.graph import Graph, Use, order_in_iteration
from forgec.schedule.machine import Machine
from forgec.schedule.pressure import memory_bounds, register_bounds
from forgec.schedule.schedule import Bound


def lower_bounds(graph: Graph, machine: Machine) -> tuple[Bound, ...]:
    """All bounds, the largest first; every legal schedule's interval is at least each of them."""
    found = unit_bounds(graph, machine) + stream_bounds(graph) + recurrence_bounds(graph)
    found += [Bound(f"registers of {first}", cycles) for first, cycles in register_bounds(graph, machine) if cycles]
    found += [Bound(f"{memory} memory", cycles) for memory, cycles in memory_bounds(graph, machine)]
    return tuple(sorted(found, key=lambda bound: -bound.cycles)) or (Bound("nothing", 1),)


def with_most_warps(kernel: Sequence[Graph]) -> list[Graph]:
    """The phases, for bounds: any op may be in a group that has the most warps of all phases, and its registers."""
    most = max(op.warps for graph in kernel for op in graph.ops)
    return [replace(graph, ops=tuple(replace(op, warps=most) for op in graph.ops)) for graph in kernel]


def unit_bounds(graph: Graph, machine: Machine) -> list[Bound]:
    """Work of each unit over its capacity; and the cycles of what holds more than half of it: of that one thing at a
    time, in turns."""
    held: dict[str, int] = {}
    turns: dict[str, int] = {}
    for op in graph.ops:
        for use in op.uses:
            held[use.unit] = held.get(use.unit, 0) + use.cycles * use.amount
            if in_turns(use, machine):
                turns[use.unit] = turns.get(use.unit, 0) + use.cycles
    found = {unit: -(-work // machine.units[unit].capacity) for unit, work in held.items()}
    bounds = [Bound(f"unit {unit}", cycles) for unit, cycles in found.items() if cycles]
    return bounds + [Bound(f"turns of {unit}", cycles) for unit, cycles in turns.items() if cycles > found[unit]]


def in_turns(use: Use, machine: Machine) -> bool:
    """Whether it holds more than half of its unit, beside which there is no room for another that does."""
    return 2 * use.amount > machine.units[use.unit].capacity


def stream_bounds(graph: Graph) -> list[Bound]:
    """The cycles that ops of one group take of its stream."""
    issue = {op.name: op.issue for op in graph.ops}
    sums = {names[0]: sum(issue[name] for name in names) for names in graph.clusters()}
    return [Bound(f"stream of {first}", cycles) for first, cycles in sums.items() if cycles]


def recurrence_bounds(graph: Graph) -> list[Bound]:
    """The largest ratio of delay to distance over the cycles of the graph, with the ops of one such cycle.

    By bisection on the interval: one is too small exactly where the graph with edges of weight delay - distance x II
    has a cycle of positive weight (Lawler 1976).
    """
    edges = [edge for edge in graph.precedences() if edge[2] or edge[3]]
    if not any(distance for *_, distance in edges):
        return []
    # A cycle passes each op once, so that its delays are below this sum, and its distance is at least 1.
    low, high = 0, sum(max(delay for *_, delay, _ in group) for group in by_source(edges).values()) + 1
    witness: list[str] = []
    while low < high:
        middle = (low + high) // 2
        cycle = positive_cycle(graph, edges, middle)
        if cycle:
            low, witness = middle + 1, cycle
        else:
            high = middle
    return [Bound("recurrence " + " -> ".join(witness), low)] if low else []


def by_source(edges: list[tuple[str, str, int, int]]) -> dict[str, list[tuple[str, str, int, int]]]:
    """Edges by their source."""
    found: dict[str, list[tuple[str, str, int, int]]] = {}
    for edge in edges:
        found.setdefault(edge[0], []).append(edge)
    return found


def positive_cycle(graph: Graph, edges: list[tuple[str, str, int, int]], ii: int) -> list[str]:
    """The ops of a cycle whose delays exceed its distance times ``ii``, or none (Bellman and Ford)."""
    longest = dict.fromkeys((op.name for op in graph.ops), 0)
    before: dict[str, str] = {}
    changed = ""
    for _ in range(len(longest) + 1):
        changed = ""
        for source, target, delay, distance in edges:
            if longest[source] + delay - distance * ii > longest[target]:
                longest[target] = longest[source] + delay - distance * ii
                before[target] = source
                changed = target
        if not changed:
            return []
    for _ in range(len(longest)):
        changed = before[changed]
    cycle = [changed]
    while before[cycle[-1]] != changed:
        cycle.append(before[cycle[-1]])
    return cycle[::-1]


def heads(graph: Graph) -> dict[str, int]:
    """The least time from the first start of an iteration to the start of each op."""
    start = dict.fromkeys((op.name for op in graph.ops), 0)
    edges = by_source([edge for edge in graph.precedences() if edge[3] == 0])
    for name in order_in_iteration(graph):
        for _, target, delay, _ in edges.get(name, []):
            start[target] = max(start[target], start[name] + delay)
    return start


def tails(graph: Graph) -> dict[str, int]:
    """The least time from the start of each op to the end of its iteration."""
    left = {op.name: op.span for op in graph.ops}
    edges = by_source([edge for edge in graph.precedences() if edge[3] == 0])
    for name in reversed(order_in_iteration(graph)):
        for _, target, delay, _ in edges.get(name, []):
            left[name] = max(left[name], delay + left[target])
    return left


def critical_path(graph: Graph) -> int:
    """The least length of one iteration, were there units, streams and groups enough."""
    return max(tails(graph).values())


def length_bound(graph: Graph, machine: Machine) -> int:
    """The least length of one iteration: the critical path, and what its ops need of each unit and stream in turn."""
    head, tail = heads(graph), tails(graph)
    jobs: dict[str, list[tuple[int, int, int]]] = {}
    turns: dict[str, list[tuple[int, int, int]]] = {}
    for op in graph.ops:
        for use in op.uses:
            end = use.offset + use.cycles
            job = (head[op.name] + use.offset, use.cycles * use.amount, tail[op.name] - end)
            jobs.setdefault(use.unit, []).append(job)
            if in_turns(use, machine):
                turns.setdefault(use.unit, []).append((head[op.name] + use.offset, use.cycles, tail[op.name] - end))
    found = [in_turn(row, machine.units[unit].capacity) for unit, row in jobs.items()]
    found += [in_turn(row, 1) for row in turns.values()]
    ops = {op.name: op for op in graph.ops}
    for names in graph.clusters():
        found.append(in_turn([(head[n], ops[n].issue, tail[n] - ops[n].issue) for n in names if ops[n].issue], 1))
    return max(critical_path(graph), *found)


def in_turn(jobs: Sequence[tuple[int, int, int]], capacity: int) -> int:
    """The most, over sets of jobs (head, work, tail), of least head + work / capacity + least tail."""
    most = 0
    ordered = sorted(jobs, reverse=True)
    for least_tail in {tail for *_, tail in jobs}:
        work = 0
        for head, each, tail in ordered:
            if tail >= least_tail:
                work += each
                most = max(most, head - (-work // capacity) + least_tail)
    return most
