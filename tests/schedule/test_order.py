"""The checker's rule of order: it rejects exactly the schedules whose groups wait for each other for ever."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from forgec.schedule.check import check, order
from forgec.schedule.schedule import Schedule
from forgec.schedule.simulate import simulate
from tests.schedule.small import random_solved


def reordered(schedule: Schedule, random: Random) -> Schedule:
    """The order of ops in groups, the groups or the depths changed, by which puts and gets may no longer meet."""
    phase = schedule.phases[0]
    starts, depths, groups = dict(phase.starts), dict(schedule.depths), list(schedule.groups)
    for _ in range(random.choice((1, 2, 3))):
        one, other = random.choice(sorted(starts)), random.choice(sorted(starts))
        what = random.choice(("swap", "swap", "stage", "depth", "group"))
        if what == "swap":
            starts[one], starts[other] = starts[other], starts[one]
        elif what == "stage":
            starts[one] = max(0, starts[one] + random.choice((-1, 1, 2)) * phase.ii)
        elif what == "depth" and depths:
            name = random.choice(sorted(depths))
            depths[name] = max(1, depths[name] - 1)
        elif what == "group":
            target = random.randrange(len(groups))
            groups = [
                replace(group, ops=tuple(n for n in group.ops if n != one) + ((one,) if number == target else ()))
                for number, group in enumerate(groups)
            ]
    return replace(schedule, phases=(replace(phase, starts=starts),), depths=depths, groups=tuple(groups))


@pytest.mark.parametrize("part", range(2))
def test_what_is_rejected_is_what_never_ends(part: int) -> None:
    tried = stuck = 0
    for seed, schedule, machine, random in random_solved(range(500 * part, 500 * part + 60)):
        assert check(schedule, machine) == []
        assert simulate(schedule, machine, [24]).deadlock == {}
        for _ in range(25):
            other = reordered(schedule, random)
            rejected = list(order(other, other.phases[0]))
            assert bool(rejected) == bool(simulate(other, machine, [24]).deadlock), f"seed {seed}: {rejected}"
            tried, stuck = tried + 1, stuck + bool(rejected)
    assert tried >= 800
    assert tried // 10 <= stuck <= tried * 9 // 10
