"""Schedules of kernels by name, each solved once for all tests."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from forgec.schedule.graph import Graph
from forgec.schedule.kernels import named as kernel_named
from forgec.schedule.machine import Machine
from forgec.schedule.machine import named as machine_named
from forgec.schedule.schedule import Schedule
from forgec.schedule.simulate import simulate
from forgec.schedule.solve import schedules


def kernel(name: str, machine: str, dtype: str = "bf16", **shape: int) -> list[tuple[Graph, ...]]:
    """The kernel's loops at every tile."""
    return kernel_named(name, machine_named(machine), shape, dtype)


def solved(
    name: str,
    machine: str,
    dtype: str = "bf16",
    *,
    least: Mapping[str, int] | None = None,
    most: Mapping[str, int] | None = None,
    **shape: int,
) -> Schedule:
    """The best schedule, of all tiles or of those within ``least`` and ``most``."""
    bounds = tuple((least or {}).items()), tuple((most or {}).items())
    return _solved(name, machine, dtype, bounds, tuple(shape.items()))


@cache
def _solved(
    name: str,
    machine: str,
    dtype: str,
    bounds: tuple[tuple[tuple[str, int], ...], tuple[tuple[str, int], ...]],
    shape: tuple[tuple[str, int], ...],
) -> Schedule:
    loops = [
        graphs
        for graphs in kernel(name, machine, dtype, **dict(shape))
        if all(graphs[0].tile[key] >= size for key, size in bounds[0])
        and all(graphs[0].tile[key] <= size for key, size in bounds[1])
    ]
    return schedules(loops, machine_named(machine))[0]


def starts_of(schedule: Schedule, twin: str) -> list[int]:
    """The starts of an op's parts in the first phase."""
    phase = schedule.phases[0]
    return [phase.starts[op.name] for op in phase.graph.ops if op.twin == twin]


def per_iteration(schedule: Schedule, machine: Machine) -> float:
    """Cycles of an iteration of the only phase, as simulated."""
    found = simulate(schedule, machine, [32])
    assert found.deadlock == {}
    return found.per_iteration
