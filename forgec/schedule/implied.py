"""Units that a graph cannot overload, because of how it holds others: the model says nothing of them."""

from __future__ import annotations

from forgec.schedule.graph import Graph, Op
from forgec.schedule.machine import Machine


def implied_units(graph: Graph, machine: Machine) -> set[str]:
    """Units that nothing needs to be said of: whoever holds one holds another for as long, which only one op may.

    So at each cycle one op at the most holds such a unit, and alone no op holds more of it than there is.
    """
    found: set[str] = set()
    held = {unit: [op for op in graph.ops if any(use.unit == unit for use in op.uses)] for unit in machine.units}
    exclusive = [
        unit
        for unit, facts in machine.units.items()
        if all(2 * use.amount > facts.capacity for op in held[unit] for use in op.uses if use.unit == unit)
    ]
    for unit, facts in machine.units.items():
        if any(sum(use.amount for use in op.uses if use.unit == unit) > facts.capacity for op in held[unit]):
            continue
        for other in exclusive:
            if other != unit and other not in found and all(within(op, unit, other) for op in held[unit]):
                found.add(unit)
                break
    return found


def within(op: Op, unit: str, other: str) -> bool:
    """Whether the op holds one unit only while it holds another."""
    return all(
        any(
            more.offset <= use.offset and use.offset + use.cycles <= more.offset + more.cycles
            for more in op.uses
            if more.unit == other
        )
        for use in op.uses
        if use.unit == unit
    )
