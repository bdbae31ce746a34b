"""Waits that no times resolve: what rule 9 asks of the number of buffers.

A reader waits for the producer of what it reads, over the read's distance, and a producer for the readers of the buffer
that it fills again, over the buffers less that distance. Around a circle of such waits these add up to one iteration
at the least, whenever the ops start: so the buffers of the circle's values have a least sum. One value's share of it is
known beforehand (``schedule.ordered_depths``); sums over several values are found as they are broken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from forgec.schedule.graph import Graph


@dataclass(frozen=True)
class Circle:
    """The buffers of ``values`` (as often as they are in it) are ``least`` together at the least."""

    values: tuple[str, ...]
    least: int


def circle(graph: Graph, depths: Mapping[str, int]) -> Circle | None:
    """A circle of waits that these buffers are too few for, or none (Bellman and Ford, as the checker does)."""
    edges = [(source, target, distance, "") for source, target, _, distance in graph.precedences()]
    for value in graph.values:
        for read in value.reads:
            # What overwrites a value in place reads it as it does.
            if read.op != value.producer or depths[value.name] > read.distance:
                edges.append((read.op, value.producer, -read.distance, value.name))
    scale = len(graph.ops) + 1
    least = {op.name: 0 for op in graph.ops}
    before: dict[str, tuple[str, int, str]] = {}
    changed = ""
    for _ in range(scale):
        changed = ""
        for source, target, distance, name in edges:
            length = (distance + (depths[name] if name else 0)) * scale - 1
            if least[source] + length < least[target]:
                least[target], before[target], changed = least[source] + length, (source, distance, name), target
        if not changed:
            return None
    for _ in range(scale):
        changed = before[changed][0]
    row = [before[changed]]
    while row[-1][0] != changed:
        row.append(before[row[-1][0]])
    return Circle(tuple(name for *_, name in row if name), 1 - sum(distance for _, distance, _ in row))


def circles(graphs: Sequence[Graph], depths: Mapping[str, int]) -> list[Circle]:
    """One of each graph that has any."""
    return [found for graph in graphs if (found := circle(graph, depths)) is not None]
