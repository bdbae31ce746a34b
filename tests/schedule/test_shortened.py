"""Long loops without their middles: what is legal, and how long turns take, is the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from random import Random

import pytest

from forgec.schedule import check_persistent as checker
from forgec.schedule.check_persistent import check_persistent
from forgec.schedule.machine import Machine
from forgec.schedule.persistent import Persistent, unroll_turns
from forgec.schedule.shortened import lengthened, shortened, stretches
from forgec.schedule.simulate import simulate_turns
from forgec.schedule.solve_persistent import turns
from forgec.schedule.tile import Tile
from tests.schedule.small import random_machine
from tests.schedule.test_persistent import random_tile, solved
from tests.schedule.tiles import product


def with_trips(tile: Tile, trips: int) -> Tile:
    """With loops that run so often."""
    return replace(tile, phases=tuple(replace(graph, trips=trips) for graph in tile.phases))


def mutants(schedule: Persistent, random: Random, count: int) -> Iterator[Persistent]:
    """With one number changed: a start, the interval, buffers of a value, a loop's place."""
    for _ in range(count):
        kind = random.choice(("start", "interval", "depth", "base"))
        number = random.randrange(len(schedule.placed))
        placed = schedule.placed[number]
        by = random.choice((-40, -5, -2, -1, 1, 2, 5, 40))
        if kind == "interval":
            yield replace(schedule, interval=max(schedule.interval + by, 1))
        elif kind == "depth":
            name = random.choice(sorted(schedule.depths))
            yield replace(schedule, depths={**schedule.depths, name: max(schedule.depths[name] + by, 1)})
        else:
            part = random.choice(("prologue", "epilogue"))
            starts = {name: start + by for name, start in getattr(placed, part).items()}
            moved = replace(placed, **{part: starts})
            if kind == "base":
                moved = replace(placed, bases=tuple(base + by for base in placed.bases))
            rows = (*schedule.placed[:number], moved, *schedule.placed[number + 1 :])
            yield replace(schedule, placed=rows)


def rules(schedule: Persistent, machine: Machine) -> set[str]:
    """That are broken, but for what a certificate says."""
    return {each.rule for each in check_persistent(replace(schedule, certificate=None), machine)}


def test_short_loops_break_the_rules_that_long_ones_break(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = broken = 0
    for seed in range(20):
        random = Random(seed)
        made_up = random_machine(random)
        tile = with_trips(random_tile(random, made_up), 40)
        schedule = solved(tile, made_up, 1 + seed % 2)
        if schedule is None:
            continue
        for each in (schedule, *mutants(schedule, random, 10)):
            short = shortened(each, made_up)[0]
            if short == each:
                continue
            found = rules(each, made_up)
            with monkeypatch.context() as patch:
                patch.setattr(checker, "shortened", lambda whole, machine: (whole, 0))
                assert rules(each, made_up) == found, f"seed {seed}"
            compared, broken = compared + 1, broken + bool(found)
    assert compared >= 80
    assert 20 <= broken <= compared - 20


def test_what_is_left_out_is_put_in_again(hopper: Machine) -> None:
    schedule = turns(product(hopper, 1, 64, 128, 64, 64), hopper)
    short, more = shortened(schedule, hopper)
    assert more > 0
    assert short.interval == schedule.interval - more
    assert lengthened(short, (64,), hopper) == schedule
    assert len(unroll_turns(short, 1).instances) < len(unroll_turns(schedule, 1).instances)
    # Nothing is left to be cut out, and an interval fewer would not show what happens.
    assert [each.spare for each in stretches(short, hopper)] == [0]


def test_simulations_of_long_loops_take_as_long(hopper: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    from forgec.schedule import simulate

    schedule = turns(product(hopper, 1, 64, 128, 64, 48), hopper)
    found = simulate_turns(schedule, hopper, 6)
    monkeypatch.setattr(simulate, "shortened", lambda whole, machine: (whole, 0))
    whole = simulate_turns(schedule, hopper, 6)
    assert found.per_iteration == whole.per_iteration
    assert found.cycles == whole.cycles
    assert found.utilization == pytest.approx(whole.utilization)


def test_time_does_not_depend_on_how_often_a_loop_runs(hopper: Machine) -> None:
    """A loop of a thousand million iterations, and the same with a hundred: the ends are the same."""
    few, many = (turns(product(hopper, 1, 64, 128, 64, trips), hopper) for trips in (100, 10**9))
    (loop,) = many.placed[0].phases
    longer = (10**9 - 100) * loop.ii
    assert many.interval - few.interval == longer
    # What waits for a gap between two loops waits for all of the next one.
    assert (many.span - few.span) % longer == 0
    assert check_persistent(many, hopper) == []
    assert simulate_turns(many, hopper, 4).deadlock == {}


def test_what_cannot_be_looked_at_is_said(hopper: Machine) -> None:
    """A schedule of long loops that are never alone is refused, not unrolled."""
    many = turns(product(hopper, 1, 64, 128, 64, 10**9), hopper)
    packed = replace(many, interval=many.interval // 4000, certificate=None)
    assert [each.rule for each in check_persistent(packed, hopper)] == ["extent"]
