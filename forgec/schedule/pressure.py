"""How many bytes of registers a cluster of ops needs at the least, whatever the order of its ops.

A necessary condition that is read off the graph, so that tiles which cannot fit are refused before anything is solved.
"""

from __future__ import annotations

from collections.abc import Sequence

from forgec.schedule.graph import Graph, Value, order_in_iteration
from forgec.schedule.machine import Machine
from forgec.schedule.schedule import freed


def least_bytes(graph: Graph, names: Sequence[str]) -> int:
    """The most that has to be live at once while one of the ops starts.

    That is what the op reads and does not overwrite, what it writes, and the storage that is handed round from one
    iteration to the next in place (an accumulator), which is always live.
    """
    mine = set(names)
    values = [value for value in graph.values if value.memory == "register" and value.producer in mine]
    rounds = handed_round(values)
    always = sum(size * distance for members, size, distance in rounds)
    inside = {name for members, _, _ in rounds for name in members}
    free = [value for value in values if value.name not in inside]
    latency = {op.name: op.latency for op in graph.ops}
    # What is there at once and nobody reads is never live.
    kept = {value.name for value in free if latency[value.producer] or least_life(graph, value) > 0}
    most = 0
    for op in names:
        live = [
            value.size
            for value in free
            if (value.producer == op and value.begin == 0 and value.name in kept)
            or any(read.op == op and read.release > 0 for read in value.reads)
        ]
        most = max(most, sum(live))
    return always + most


def handed_round(values: Sequence[Value]) -> list[tuple[list[str], int, int]]:
    """Rings of values of one size, each overwritten in place by the op that makes the next: members, size, distance."""
    by_producer: dict[str, list[Value]] = {}
    for value in values:
        by_producer.setdefault(value.producer, []).append(value)
    found: list[tuple[list[str], int, int]] = []
    seen: set[str] = set()
    for first in values:
        members, distance, value = [first.name], 0, first
        while value.name not in seen:
            seen.add(value.name)
            step = next(
                (
                    (read.distance, after)
                    for read in value.reads
                    if read.release == 0
                    for after in by_producer.get(read.op, [])
                    if after.size == value.size and after.begin == 0
                ),
                None,
            )
            if step is None:
                break
            distance, value = distance + step[0], step[1]
            if value.name == first.name:
                if distance:
                    found.append((members, first.size, distance))
                break
            members.append(value.name)
    return found


def least_life(graph: Graph, value: Value) -> int:
    """The least cycles from acquire to release of a value: its reads in the same iteration, over the longest path."""
    start = longest_from(graph, value.producer)
    ends = [graph.op(value.producer).latency]
    ends += [start[read.op] + read.release for read in value.reads if read.distance == 0]
    return max(ends) - value.begin


def longest_from(graph: Graph, producer: str) -> dict[str, int]:
    """The least time from the start of an op to that of each that waits for it in the same iteration."""
    start = {producer: 0}
    reached = edges_within(graph)
    for name in order_in_iteration(graph):
        if name in start:
            for target, delay in reached.get(name, []):
                start[target] = max(start.get(target, 0), start[name] + delay)
    return start


def edges_within(graph: Graph) -> dict[str, list[tuple[str, int]]]:
    """What each op delays in its own iteration."""
    found: dict[str, list[tuple[str, int]]] = {}
    for source, target, delay, distance in graph.precedences():
        if distance == 0:
            found.setdefault(source, []).append((target, delay))
    return found


def always_bytes(graph: Graph, names: Sequence[str]) -> int:
    """What is live of the ops' values at every time: storage that is handed round in place."""
    mine = set(names)
    values = [value for value in graph.values if value.memory == "register" and value.producer in mine]
    return sum(size * distance for _, size, distance in handed_round(values))


def room(graph: Graph, machine: Machine) -> dict[str, int]:
    """The most bytes of registers that each cluster may have, by its first op: the limit, and what others leave.

    A cluster may be in a group with one of more warps, and has its threads then. Others leave what they do not hold
    at every time: the rest they may need while this one needs little, in the same group.
    """
    facts = machine.registers
    clusters = graph.clusters()
    always = [always_bytes(graph, names) for names in clusters]
    own = 4 * 32 * max(op.warps for op in graph.ops) * max(facts.most - facts.reserve, 0)
    return {
        names[0]: min(own, 4 * facts.total - sum(always) + mine) for names, mine in zip(clusters, always, strict=True)
    }


def register_bounds(graph: Graph, machine: Machine) -> list[tuple[str, int]]:
    """Lower bounds of the interval from registers, for each cluster: its first op, cycles.

    Values that cannot be live together, because two of them are more than there is room for, take turns; and all
    together take no more than the room's area.
    """
    found: list[tuple[str, int]] = []
    for first, cap in room(graph, machine).items():
        names = next(names for names in graph.clusters() if names[0] == first)
        mine = set(names)
        values = [
            value for value in graph.values if value.memory == "register" and value.producer in mine and value.size
        ]
        rounds = handed_round(values)
        always = sum(size * distance for _, size, distance in rounds)
        inside = {name for members, _, _ in rounds for name in members}
        free = sorted((value for value in values if value.name not in inside), key=lambda value: -value.size)
        left = cap - always
        if not free or left <= 0:
            continue
        lives = {value.name: least_life(graph, value) for value in free}
        turns = [value for value in free if 2 * value.size > left]
        if turns:
            least = turns[-1].size
            turns += [value for value in free if value not in turns and value.size + least > left][:1]
        area = sum(value.size * lives[value.name] for value in free)
        found.append((first, max(sum(lives[value.name] for value in turns), -(-area // left))))
    return found


def memory_bounds(graph: Graph, machine: Machine) -> list[tuple[str, int]]:
    """Lower bounds of the interval from shared and tensor memory, for each: its name, cycles.

    A value whose buffer is taken for longer than an interval has several, which together have to fit.
    """
    found: list[tuple[str, int]] = []
    for memory in ("shared", "tensor"):
        lives = [(value.size, taken(graph, value)) for value in graph.values if value.memory == memory and value.size]
        left = machine.memory_bytes(memory) - graph.resident.get(memory, 0)
        low, high = 1, max((life for _, life in lives), default=1)
        while low < high:
            middle = (low + high) // 2
            if sum(size * max(1, -(-life // middle)) for size, life in lives) > left:
                low = middle + 1
            else:
                high = middle
        if low > 1:
            found.append((memory, low))
    return found


def taken(graph: Graph, value: Value) -> int:
    """The least cycles for which a buffer of a value is taken, by paths from its producer to its readers."""
    latency = graph.op(value.producer).latency
    start = longest_from(graph, value.producer)
    ends = [latency]
    for read in value.reads:
        # One of a later iteration starts when the result is there, at the earliest.
        begins = start[read.op] if read.distance == 0 else latency
        ends.append(begins + freed(value, read))
    return max(0, max(ends) - value.begin)


def cannot_fit(graph: Graph, machine: Machine) -> bool:
    """Whether there is no schedule at any interval, by sizes alone.

    One buffer of each value, the least that a cluster needs of registers at one time (of what its threads may have),
    and the least that all need at one time, and the warps of one cluster.
    """
    for memory in ("shared", "tensor"):
        size = sum(value.size for value in graph.values if value.memory == memory)
        if size + graph.resident.get(memory, 0) > machine.memory_bytes(memory):
            return True
    warps = max(op.warps for op in graph.ops)
    rooms = room(graph, machine)
    clusters = graph.clusters()
    return (
        any(least_bytes(graph, names) > rooms[names[0]] for names in clusters)
        or sum(always_bytes(graph, names) for names in clusters) > 4 * machine.registers.total
        or warps > machine.most_warps
    )
