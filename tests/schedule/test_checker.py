"""The checker rejects exactly those changed schedules that go wrong when they run."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from forgec.schedule.check import check
from forgec.schedule.graph import Dependence, Graph, Op
from forgec.schedule.schedule import Bound, Schedule
from forgec.schedule.simulate import simulate
from forgec.schedule.solve import schedules
from tests.schedule.small import is_legal, random_solved, roomy_machine

CHANGES = 60


def changed(schedule: Schedule, random: Random) -> Schedule:
    """A schedule with one or two of its times, depths, groups or grants changed."""
    phase = schedule.phases[0]
    starts, ii, depths, groups = dict(phase.starts), phase.ii, dict(schedule.depths), list(schedule.groups)
    for _ in range(random.choice((1, 1, 2))):
        what = random.choice(("start", "start", "interval", "depth", "registers", "warps", "group"))
        number = random.randrange(len(groups))
        group = groups[number]
        if what == "start":
            name = random.choice(sorted(starts))
            starts[name] = max(0, starts[name] + random.choice((-2, -1, 1, 2, ii, -ii)))
        elif what == "interval":
            ii = max(1, ii + random.choice((-1, 1)))
        elif what == "depth" and depths:
            name = random.choice(sorted(depths))
            depths[name] = max(1, depths[name] + random.choice((-1, 1)))
        elif what == "registers":
            groups[number] = replace(group, registers=max(0, group.registers + random.choice((-4, -2, -1, 2, 4))))
        elif what == "warps":
            groups[number] = replace(group, warps=max(1, group.warps + random.choice((-1, 1, 1))))
        elif what == "group":
            name = random.choice(group.ops)
            groups[number] = replace(group, ops=tuple(op for op in group.ops if op != name))
            groups.append(replace(group, name="new", ops=()))
            other = random.randrange(len(groups))
            groups[other] = replace(groups[other], ops=(*groups[other].ops, name))
            groups = [each for each in groups if each.ops]
    phases = (replace(phase, ii=ii, starts=starts),)
    return replace(schedule, phases=phases, groups=tuple(groups), depths=depths, certificate=None)


@pytest.mark.parametrize("part", range(2))
def test_what_is_rejected_is_what_goes_wrong(part: int) -> None:
    tried = legal = 0
    for seed, schedule, machine, random in random_solved(range(1000 * part, 1000 * part + 70)):
        for _ in range(CHANGES):
            other = changed(schedule, random)
            runs = is_legal(other, machine) and not simulate(other, machine, [24]).deadlock
            assert (check(other, machine) == []) == runs, f"seed {seed}: {check(other, machine)}"
            tried, legal = tried + 1, legal + runs
    assert tried >= 2_500
    assert tried // 4 <= legal <= tried * 3 // 4


def test_a_certificate_that_the_schedule_contradicts_is_rejected() -> None:
    machine = roomy_machine()
    graph = Graph("row", (Op("a", "op", 1, 3), Op("b", "op", 1, 2)), dependences=(Dependence("a", "b", 3),))
    schedule = schedules([[graph]], machine)[0]
    stated, phase = schedule.certificate, schedule.phases[0]
    assert stated is not None
    assert check(schedule, machine) == []
    for wrong in (
        replace(stated, bounds=(Bound("unit a", phase.ii + 1),)),
        replace(stated, undecided=(phase.ii - 1,)),
    ):
        assert [each.rule for each in check(replace(schedule, certificate=wrong), machine)] == ["certificate"]
