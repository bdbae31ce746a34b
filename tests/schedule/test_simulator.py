"""The simulator holds no more of a unit than there is, and runs long enough for rings that are deep."""

from __future__ import annotations

import pytest

from forgec.schedule.graph import Graph, Op, Read, Use, Value
from forgec.schedule.machine import Machine
from forgec.schedule.schedule import Group, Phase, Schedule
from forgec.schedule.simulate import Simulation, enough, simulate
from tests.schedule.small import random_solved, roomy_machine


def most_held(run: Simulation, graph: Graph, unit: str) -> int:
    """The largest amount of a unit that events hold at one time."""
    changes = []
    for event in run.events:
        for use in graph.op(event.op).uses:
            if use.unit == unit and use.cycles:
                begin = event.start + use.offset
                changes += [(begin, use.amount), (begin + use.cycles, -use.amount)]
    held = most = 0
    for _, amount in sorted(changes):
        held += amount
        most = max(most, held)
    return most


@pytest.mark.parametrize("part", range(4))
def test_no_unit_is_held_beyond_its_capacity(part: int) -> None:
    looked_at = 0
    for seed, schedule, machine, _ in random_solved(range(part, 120, 4)):
        run = simulate(schedule, machine, [24])
        for name, unit in machine.units.items():
            assert most_held(run, schedule.phases[0].graph, name) <= unit.capacity, f"seed {seed}: {name}"
            looked_at += 1
        assert all(share <= 1 for share in run.utilization.values()), f"seed {seed}: {run.utilization}"
    assert looked_at > 20


def test_an_op_that_lost_its_turn_does_not_start_in_the_past() -> None:
    """One that is ready from the first cycle on and loses each tie starts after the others, not beside them."""
    ops = tuple(Op(f"op{n}", "op", 10, 10, (Use("a", 10, amount=1),)) for n in range(4))
    graph = Graph("crowd", ops)
    machine = crowded()
    groups = tuple(Group(f"group{n}", 1, 16, (f"op{n}",)) for n in range(4))
    starts = {f"op{n}": 10 * n for n in range(4)}
    run = simulate(Schedule("crowd", (Phase(graph, 40, starts),), groups, {}), machine, [16])
    assert most_held(run, graph, "a") == 1
    assert run.cycles == 640
    assert run.per_iteration == 40


def crowded() -> Machine:
    """One unit of each kind."""
    machine = roomy_machine()
    return roomy_machine(units={name: type(unit)(1, unit.source) for name, unit in machine.units.items()})


def test_a_run_is_long_enough_for_deep_rings() -> None:
    """An op that is sixteen iterations ahead of its reader leaves it the unit that they share towards the end."""
    ops = (
        Op("fill", "op", 10, 10, (Use("a", 10),)),
        Op("empty", "op", 10, 10, (Use("a", 10),)),
    )
    graph = Graph("deep", ops, (Value("ring", "fill", "shared", 1, (Read("empty", 10),)),))
    groups = (Group("one", 1, 16, ("fill",)), Group("two", 1, 16, ("empty",)))
    schedule = Schedule("deep", (Phase(graph, 20, {"fill": 0, "empty": 10 + 15 * 20}),), groups, {"ring": 16})

    assert enough(schedule) == 128
    assert simulate(schedule, crowded(), [32]).per_iteration != 20
    assert simulate(schedule, crowded()).per_iteration == 20
