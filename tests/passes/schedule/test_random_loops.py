"""Random loops, scheduled for random machines, do the same in groups of warps, for any number of iterations."""

from __future__ import annotations

from collections import Counter
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from xdsl.dialects.builtin import ModuleOp

from forgec.diagnostics import ForgeError
from forgec.ir.verify import verify_module
from forgec.passes.schedule.lower import lower
from forgec.schedule.check import check
from forgec.schedule.schedule import Schedule
from forgec.schedule.solve import schedules
from tests.passes.schedule.random_loops import random_extracted, random_kernel, roomy
from tests.passes.schedule.scheduled import assert_same

counts: Counter[str] = Counter()


def check_random(seed: int, loops: int = 1) -> None:
    random = Random(seed)
    trips = [random.choice((None, None, None, 0, 1, 2, 5)) for _ in range(loops)]
    kernel = random_kernel(random, *trips)
    target = roomy(random)
    extracted = random_extracted(random, kernel, target)
    try:
        (schedule,) = schedules([[each.graph for each in extracted]], target)
    except ForgeError as failure:
        if failure.code != "FORGE-S001":
            raise
        counts["none"] += 1
        return
    assert not check(schedule, target)
    reason = ""
    try:
        warp = lower(kernel, extracted, schedule, target)
    except ForgeError as failure:
        if failure.code != "FORGE-S020":
            raise
        reason = str(failure)
    if reason:
        # An order that the checker accepts can be carried out, also among ops that start at one cycle.
        assert not any(words in reason for words in ("runs before", "wait for each other", "filled again"))
        counts[reason] += 1
        return
    counts["lowered"] += 1
    counts[f"{len(schedule.groups)} groups"] += 1
    counts[f"{schedule.phases[0].stages} stages"] += 1
    counts["shared rings"] += len(find_shared(schedule))
    verify_module(ModuleOp([warp]))
    for _ in range(2):
        sizes = [random.randrange(6) if turns is None else 5 for turns in trips]
        assert_same(kernel, warp, sizes, range(seed % 7, seed % 7 + 2))


def find_shared(schedule: Schedule) -> set[str]:
    """The values that groups hand to one another in several phases."""
    crossing = [{v.name for v in phase.graph.values if schedule.crossing(v)} for phase in schedule.phases]
    return set.intersection(*crossing) if len(crossing) > 1 else set()


@settings(max_examples=16, deadline=None)
@given(st.integers(0, 10**9), st.sampled_from((1, 1, 2, 3)))
def test_random_loops_do_the_same(seed: int, loops: int) -> None:
    check_random(seed, loops)


def test_most_loops_are_lowered() -> None:
    counts.clear()
    for seed in range(18):
        check_random(seed, loops=1 + seed % 2)
    assert counts["lowered"] > 14
    assert counts["shared rings"] > 0
    assert sum(count for name, count in counts.items() if name.endswith("groups") and name > "1") > 7
