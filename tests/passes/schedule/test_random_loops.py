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
from forgec.schedule.solve import schedules
from tests.passes.schedule.random_loops import random_extracted, random_kernel, roomy
from tests.passes.schedule.scheduled import assert_same

counts: Counter[str] = Counter()


def check_random(seed: int) -> None:
    random = Random(seed)
    trips = random.choice((None, None, None, 0, 1, 2, 5))
    kernel = random_kernel(random, trips)
    target = roomy(random)
    extracted = random_extracted(random, kernel, target)
    try:
        (schedule,) = schedules([[extracted.graph]], target)
    except ForgeError as failure:
        if failure.code != "FORGE-S001":
            raise
        counts["none"] += 1
        return
    assert not check(schedule, target)
    try:
        warp = lower(kernel, extracted, schedule)
    except ForgeError as failure:
        if failure.code != "FORGE-S020":
            raise
        counts[str(failure)] += 1
        return
    counts["lowered"] += 1
    counts[f"{len(schedule.groups)} groups"] += 1
    counts[f"{schedule.phases[0].stages} stages"] += 1
    verify_module(ModuleOp([warp]))
    for number in [5] if trips is not None else random.sample(range(8), 3):
        assert_same(kernel, warp, [number], range(seed % 7, seed % 7 + 3))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**9))
def test_random_loops_do_the_same(seed: int) -> None:
    check_random(seed)


def test_most_loops_are_lowered() -> None:
    counts.clear()
    for seed in range(40):
        check_random(seed)
    assert counts["lowered"] > 30
    assert sum(count for name, count in counts.items() if name.endswith("groups") and name > "1") > 10
