"""What no schedule of a kernel can have on a machine, whatever else is: found by sizes alone, said with them.

Each is a conflict that cannot be made smaller: an op or a value on one side, what the machine has on the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from forgec.schedule.graph import Graph, Value
from forgec.schedule.joined import joined_clusters, joined_ops, kept_apart
from forgec.schedule.machine import Machine
from forgec.schedule.pressure import always_bytes, least_bytes
from forgec.schedule.schedule import ordered_depths

SHOWN = 6
"""Names of a list; the rest are counted."""


def misfits(kernel: Sequence[Graph], machine: Machine, most_depth: int) -> list[str]:
    """In words, each for itself; none: what does not fit is no matter of single ops or sizes.

    ``most_depth``: buffers that a value may have.
    """
    found = [*too_much_of_units(kernel, machine), *too_many_warps(kernel, machine)]
    found += too_many_buffers(kernel, most_depth)
    found += too_large(kernel, machine)
    found += too_many_registers(kernel, machine)
    # What is too wide by itself is so in a group, too.
    return found or list(too_many_groups(kernel, machine))


def named(names: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``; of many names the first, and how many more."""
    if len(names) > SHOWN:
        return f"{', '.join(names[: SHOWN - 1])} and {len(names) - SHOWN + 1} more"
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]


def too_much_of_units(kernel: Sequence[Graph], machine: Machine) -> Iterator[str]:
    """Ops that hold more of a unit at once than there is."""
    told: set[str] = set()
    for op in (op for graph in kernel for op in graph.ops):
        for unit in dict.fromkeys(use.unit for use in op.uses):
            uses = [use for use in op.uses if use.unit == unit and use.cycles]
            held = max(
                (sum(e.amount for e in uses if e.offset <= use.offset < e.offset + e.cycles) for use in uses), default=0
            )
            capacity = machine.units[unit].capacity
            text = f"op {op.name} holds {held} of unit {unit} at once, which has a capacity of {capacity}"
            if held > capacity and text not in told:
                told.add(text)
                yield text


def too_many_warps(kernel: Sequence[Graph], machine: Machine) -> Iterator[str]:
    """Ops that more warps carry out than there may be."""
    for op in joined_ops(kernel).values():
        if op.warps > machine.most_warps:
            yield f"op {op.name} takes {op.warps} warps, and there may be {machine.most_warps} in all groups together"


def least_buffers(kernel: Sequence[Graph]) -> dict[str, tuple[Value, int]]:
    """Each value at its largest, with the buffers that the order of its reads needs at the least."""
    found: dict[str, tuple[Value, int]] = {}
    for graph in kernel:
        depths = ordered_depths(graph)
        for value in graph.values:
            largest, depth = found.get(value.name, (value, 1))
            found[value.name] = (max(largest, value, key=lambda each: each.size), max(depth, depths[value.name]))
    return found


def too_many_buffers(kernel: Sequence[Graph], most: int) -> Iterator[str]:
    """Values that are read so many iterations later that they need more buffers than a value may have."""
    for value, depth in least_buffers(kernel).values():
        if depth > most:
            last = max(value.reads, key=lambda read: read.distance)
            yield (
                f"value {value.name} needs {depth} buffers at the least, since {last.op} reads it {last.distance} "
                f"iterations later, and a value may have {most}"
            )


def too_large(kernel: Sequence[Graph], machine: Machine) -> Iterator[str]:
    """Memories that do not hold the buffers of all values."""
    for memory in ("shared", "tensor"):
        room = machine.memory_bytes(memory)
        rows = [
            (value.size * depth, f"{value.name} ({f'{depth} x ' * (depth > 1)}{value.size})")
            for value, depth in least_buffers(kernel).values()
            if value.memory == memory and value.size
        ]
        resident = max(graph.resident.get(memory, 0) for graph in kernel)
        if resident:
            rows.append((resident, f"what is there for the whole loop ({resident})"))
        taken = sum(size for size, _ in rows)
        if taken > room:
            rows.sort(key=lambda row: -row[0])
            what = named([text for _, text in rows])
            yield f"it takes {taken} bytes of {memory} memory at the least, there are {room}: {what}"


def too_many_registers(kernel: Sequence[Graph], machine: Machine) -> Iterator[str]:
    """Ops of one group that need more registers at one time than its threads may be granted, or than there are."""
    facts, clusters = machine.registers, joined_clusters(kernel)
    threads = 32 * max(op.warps for graph in kernel for op in graph.ops)
    usable = max(facts.most - facts.reserve, 0)

    def of(graph: Graph, names: Sequence[str], measure: Callable[[Graph, list[str]], int]) -> int:
        return measure(graph, [op.name for op in graph.ops if op.name in set(names)])

    for names in clusters:
        graph = max(kernel, key=lambda graph: of(graph, names, least_bytes))
        need = of(graph, names, least_bytes)
        if need > 4 * threads * usable:
            values = [v for v in graph.values if v.memory == "register" and v.size and v.producer in names]
            values.sort(key=lambda value: -value.size)
            yield (
                f"{named(names)} {'are' if len(names) > 1 else 'is'} in one group and need"
                f"{'s' * (len(names) == 1)} {need} bytes of registers at one time, {-(-need // (4 * threads))} in each "
                f"of {threads} threads, and a thread may have {usable} ({facts.most}, of which {facts.reserve} are "
                f"reserved); values in registers: {named([f'{value.name} ({value.size} bytes)' for value in values])}"
            )
    always = max(sum(of(graph, names, always_bytes) for names in clusters) for graph in kernel)
    if always > 4 * facts.total:
        yield (
            f"what stays in registers from iteration to iteration takes {always} bytes, and all registers together "
            f"are {4 * facts.total}"
        )


def too_many_groups(kernel: Sequence[Graph], machine: Machine) -> Iterator[str]:
    """Groups that have to be apart, and together need more warps or registers than there are."""
    clusters, ops, facts = joined_clusters(kernel), joined_ops(kernel), machine.registers
    pairs = set(kept_apart(kernel, machine, clusters))
    # Clusters that nothing keeps apart are of one kind: an op of unknown duration, one that waits for it, the others.
    kinds: list[list[int]] = []
    for index in range(len(clusters)):
        kind = next((row for row in kinds if (row[0], index) not in pairs), None)
        if kind is None:
            kinds.append([index])
        else:
            kind.append(index)
    members = [[ops[name] for index in row for name in clusters[index]] for row in kinds]
    warps = [max(op.warps for op in row) for row in members]
    granted = [-(-number // facts.group_warps) * facts.group_warps for number in warps]
    step = -(-facts.least // facts.granularity) * facts.granularity
    registers = sum(32 * number * step for number in granted)
    names = " / ".join(named([op.name for op in row]) for row in members)
    apart = f"{names} are kept in groups of their own (isolate = {machine.isolate}): these"
    begin = apart if len(members) > 1 else "its ops"
    if sum(warps) > machine.most_warps:
        yield (
            f"{begin} take {' + '.join(map(str, warps))} = {sum(warps)} warps at the least, there may be "
            f"{machine.most_warps}"
        )
    if registers > facts.total:
        yield (
            f"{begin} take {registers} registers at the least ({step} for each thread of {sum(granted)} warps), "
            f"there are {facts.total}"
        )
