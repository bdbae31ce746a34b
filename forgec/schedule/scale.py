"""Times of a graph in coarser units, so that the solver's domains stay small.

What Twill (arXiv 2512.18134) calls cost normalisation. Durations are rounded up and what gives room is rounded down, so
that a schedule of the scaled graph is one of the graph when its times are multiplied again.
"""

from __future__ import annotations

from dataclasses import replace

from forgec.schedule.bounds import lower_bounds
from forgec.schedule.graph import Graph
from forgec.schedule.machine import Machine

LARGEST = 128
"""Intervals of up to so many units are solved as they are."""
TOLERANCE = 0.01
"""How much longer the largest lower bound may become by rounding."""


def scaled(graph: Graph, quantum: int) -> Graph:
    """The graph with times in units of ``quantum`` cycles."""

    def up(cycles: int) -> int:
        return -(-cycles // quantum)

    ops = tuple(
        replace(
            op,
            issue=up(op.issue),
            latency=up(op.latency),
            late=up(op.late),
            uses=tuple(
                # The end is rounded up by itself: what is held begins at a rounded time.
                replace(use, offset=use.offset // quantum, cycles=up(use.offset + use.cycles) - use.offset // quantum)
                for use in op.uses
            ),
        )
        for op in graph.ops
    )
    values = tuple(
        replace(
            value,
            begin=value.begin // quantum,
            reads=tuple(replace(read, release=up(read.release)) for read in value.reads),
        )
        for value in graph.values
    )
    dependences = tuple(replace(each, delay=up(each.delay)) for each in graph.dependences)
    return replace(graph, ops=ops, values=values, dependences=dependences)


def quantum(graph: Graph, machine: Machine, exact: int) -> tuple[int, float, int]:
    """The unit to solve in, by how much of itself the largest lower bound (``exact``) grows with it, and it in units.

    1 for intervals of up to ``LARGEST`` cycles. For longer ones the common divisor of all times and its doubles, until
    intervals are so short, as long as the bound grows by no more than ``TOLERANCE``. Intervals are multiples of it.
    """
    best, loss, bound, size = 1, 0.0, exact, graph.quantum()
    while exact // best > LARGEST:
        units = lower_bounds(scaled(graph, size), machine)[0].cycles
        grown = units * size / exact - 1
        if grown > TOLERANCE:
            break
        best, loss, bound = size, grown, units
        size *= 2
    return best, loss, bound
