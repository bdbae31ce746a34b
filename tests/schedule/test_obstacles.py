"""What stands in the way of the next smaller interval: an irreducible conflict, asked for anew."""

from __future__ import annotations

from dataclasses import replace

from forgec.schedule.graph import Dependence, Graph, Op, Read, Use, Value
from forgec.schedule.machine import Machine
from forgec.schedule.model import FAMILIES
from forgec.schedule.obstacles import Obstacle, obstacles
from forgec.schedule.page import page
from forgec.schedule.solve import schedules
from tests.schedule.small import roomy_machine


def apart() -> Machine:
    """Loads are apart from all else, and hand-overs take time: what no bound knows of."""
    return roomy_machine(isolate="loads", handover=replace(roomy_machine().handover, latency=3))


def loop(name: str = "one", trips: int = 1) -> Graph:
    unit = next(iter(apart().units))
    ops = (Op("load", "load", 1, 4, variable=True, role="load"), Op("add", "add", 1, 3, (Use(unit, 1),), role="sum"))
    values = (Value("x", "load", "shared", 8, (Read("add", 1),)),)
    return Graph(name, ops, values, (Dependence("add", "load", 3, 1),), trips=trips)


def families(obstacle: Obstacle | None) -> list[str]:
    assert obstacle is not None
    assert {*obstacle.others, *(part.family for part in obstacle.parts)} == set(FAMILIES)
    return [part.family for part in obstacle.parts]


def test_a_recurrence_through_two_groups() -> None:
    schedule = schedules([[loop()]], apart())[0]
    assert schedule.phases[0].ii == 13
    (found,) = obstacles(schedule, apart())
    assert families(found) == ["dependences", "isolation"]
    assert found is not None
    assert (found.interval, found.open) == (12, False)
    text = page([schedule], apart(), "one", obstacles=[found])
    assert "At 12 cycles," in text
    assert "an op starts when what it waits for is there" in text
    assert "These play no part: streams, units, buffers" in text


def test_nothing_is_said_where_a_bound_says_it_or_where_there_is_a_schedule() -> None:
    ops = (Op("a", "op", 1, 4), Op("b", "op", 1, 1), Op("c", "op", 1, 1))
    values = (Value("v", "a", "shared", 60, (Read("c", 3),)),)
    graph = Graph("row", ops, values, (Dependence("a", "b", 4), Dependence("b", "c", 2)))
    small = roomy_machine(shared_bytes=100)
    schedule = schedules([[graph]], small)[0]
    (phase,) = schedule.phases
    assert schedule.certificate is not None
    assert schedule.certificate.bounds[0].cycles == phase.ii
    assert obstacles(schedule, small) == [None]
    assert obstacles(replace(schedule, phases=(replace(phase, ii=phase.ii + 1),)), small) == [None]


def test_loops_by_themselves_and_beside_others() -> None:
    schedule = schedules([[loop("one", 2), loop("two", 5)]], apart())[0]
    found = obstacles(schedule, apart())
    assert [families(each) for each in found] == [["dependences", "isolation"]] * 2
    assert [each.beside for each in found if each] == [(), ()]


def test_without_time_nothing_is_said() -> None:
    schedule = schedules([[loop()]], apart())[0]
    assert obstacles(schedule, apart(), 0.0) == [None]


def test_units_are_named() -> None:
    """A unit that is held twice, two cycles apart, has room for each interval but one of two cycles."""
    facts = roomy_machine().units
    one, other = list(facts)[:2]
    full = facts[one].capacity
    ops = (
        Op("a", "op", 0, 3, (Use(one, 1, 0, full), Use(one, 1, 2, full))),
        Op("b", "op", 0, 1, (Use(other, 1),)),
    )
    schedule = schedules([[Graph("row", ops)]], roomy_machine())[0]
    assert schedule.phases[0].ii == 3
    (found,) = obstacles(schedule, roomy_machine())
    assert families(found) == ["units"]
    assert found is not None
    assert found.parts[0].amount == f"of {one}"
    assert "one kind of constraint is enough" in page([schedule], roomy_machine(), "row", obstacles=[found])
