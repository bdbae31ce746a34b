"""Which parts of a kernel may change places: those that graphs call parts are looked at, not believed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

from forgec.schedule.graph import Graph, Op, Value


def equal_parts(graphs: Sequence[Graph]) -> list[tuple[int, int]]:
    """Parts and the next ones, where a schedule stays one if all that the two do changes places, in all phases.

    Each op of the one has a twin in the other, and what is mapped from twin to twin is the same graph.
    """
    parts = sorted({op.part for graph in graphs for op in graph.ops if op.part is not None})
    return [pair for pair in pairwise(parts) if alike(graphs, *pair)]


def alike(graphs: Sequence[Graph], one: int, other: int) -> bool:
    """Whether graphs are what they were when two parts have changed places; values of one name are one value."""
    ops: dict[str, str] = {}
    values: dict[str, str] = {}
    for graph in graphs:
        twins = {(op.twin, op.part): op for op in graph.ops}
        for op in graph.ops:
            if op.part not in (one, other):
                continue
            twin = twins.get((op.twin, other if op.part == one else one))
            if op.twin is None or twin is None or plain(op) != plain(twin):
                return False
            if twins[op.twin, op.part] != op or ops.setdefault(op.name, twin.name) != twin.name:
                return False
    for graph in graphs:
        if any((op.name in ops) != (op.part in (one, other)) for op in graph.ops):
            return False
        links = Counter((each.source, each.target, each.delay, each.distance) for each in graph.dependences)
        if links != Counter({(ops.get(s, s), ops.get(t, t), *rest): n for (s, t, *rest), n in links.items()}):
            return False
        left = list(graph.values)
        for value in graph.values:
            key = form(value, ops)
            fits = [each for each in left if form(each, {}) == key and values.get(value.name, each.name) == each.name]
            if not fits:
                return False
            found = next((each for each in fits if each.name == value.name), fits[0])
            values[value.name] = found.name
            left.remove(found)
    return True


def plain(op: Op) -> Op:
    """An op without what tells it from its twins, or is for readers."""
    return replace(op, name="", part=None, source=None)


def form(value: Value, ops: Mapping[str, str]) -> tuple[object, ...]:
    """What a value is but for its name, where ops have other names."""
    reads = sorted((ops.get(read.op, read.op), read.release, read.distance) for read in value.reads)
    producer = ops.get(value.producer, value.producer)
    return producer, value.memory, value.size, value.begin, value.crossing, tuple(reads)
