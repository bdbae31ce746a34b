"""What is said of a schedule: as data, as text, its lanes and curves, and the reasons of its bounds."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from fractions import Fraction
from functools import cache
from itertools import islice, pairwise
from random import Random

import pytest

from forgec.schedule import timeline
from forgec.schedule.bounds import lower_bounds
from forgec.schedule.check import check
from forgec.schedule.machine import Machine
from forgec.schedule.reasons import between, listed, reason
from forgec.schedule.report import JOINT, as_data, as_text, binding, why
from forgec.schedule.schedule import Bound, Phase, Schedule
from forgec.schedule.solve import schedules
from tests.schedule.loops import ring, solved
from tests.schedule.small import random_graph, random_machine, random_solved

KEYS = {
    "ii_cycles", "ii_lower_bound", "binding", "status", "solve_seconds", "length_cycles", "stages", "tile", "groups",
    "channels", "smem_bytes", "tmem_bytes", "simulated_cycles_per_iteration", "unit_utilization",
}  # fmt: skip


@pytest.fixture(scope="module")
def best(hopper: Machine) -> list[Schedule]:
    return solved(hopper, 64, 128, k=3)


@cache
def random_schedules(count: int = 16) -> list[tuple[Schedule, Machine]]:
    found = [(schedule, made) for _, schedule, made, _ in islice(random_solved(range(3 * count)), count)]
    assert len(found) == count
    return found


def test_data(best: list[Schedule], hopper: Machine) -> None:
    data = as_data(best, hopper, kernel="ring")
    phase = best[0].phases[0]
    assert data.keys() >= KEYS
    assert (data["ii_cycles"], data["length_cycles"], data["stages"]) == (phase.ii, phase.length, phase.stages)
    assert data["tile"] == {"BN": phase.graph.tile["BN"]}
    assert data["ii_lower_bound"] <= data["ii_cycles"]
    assert [set(group) for group in data["groups"]] == [{"name", "kind", "warps", "registers", "ops"}] * 2
    (ring,) = data["channels"]
    size = 2 * 64 * phase.graph.tile["BN"]
    assert (ring["name"], ring["depth"], ring["bytes"]) == ("tiles", best[0].depths["tiles"], size)
    assert data["smem_bytes"] == 64 + ring["depth"] * size
    assert data["tmem_bytes"] == 0
    assert data["simulated_cycles_per_iteration"] == pytest.approx(phase.ii, rel=0.02)
    assert [each["ii_cycles"] for each in data["schedules"]] == [each.phases[0].ii for each in best]
    assert "schedules" not in as_data(best[:1], hopper)
    assert len(data["alternatives"]) == 2


def test_text(best: list[Schedule], hopper: Machine) -> None:
    text = as_text(best, hopper, "ring", "")
    for word in ("ring on sm_90a", "BN=", f"{best[0].phases[0].ii} cycles, optimal", "tiles", "tensor_core"):
        assert word in text
    assert all(group.name in text for group in best[0].groups)
    chart = next(line for line in text.splitlines() if line.startswith("tensor_core"))
    assert all(entry in text for entry in ("a load (stage", "b dot (stage", "c add (stage"))
    # One interval of 72 columns, in which the product holds the tensor cores for its share of them.
    phase = best[0].phases[0]
    cells = chart.partition("|")[2].rstrip("|")
    share = next(use.cycles for use in phase.graph.op("dot").uses if use.unit == "tensor_core") / phase.ii
    assert cells.count("b") == pytest.approx(72 * share, abs=1)
    assert set(cells) <= {"b", "."}


def test_lanes_hold_what_ops_hold() -> None:
    for schedule, made in random_schedules():
        phase = schedule.phases[0]
        first, last = (phase.stages - 1) * phase.ii, (phase.stages + 1) * phase.ii
        for lane in timeline.unit_lanes(phase, made, first, last):
            shown: Counter[str] = Counter()
            for bar in lane.bars:
                shown[bar.op] += min(bar.end, last) - max(bar.start, first)
            for op in phase.graph.ops:
                assert shown[op.name] == 2 * sum(use.cycles for use in op.uses if use.unit == lane.name)
        for lane in timeline.group_lanes(schedule, phase, made, first, last):
            stream = sorted((bar.start, bar.end) for bar in lane.bars if bar.kind != "flight")
            assert all(one[1] <= other[0] for one, other in pairwise(stream))
            for row in range(lane.rows):
                bars = sorted((bar.start, bar.end) for bar in lane.bars if bar.row == row)
                assert all(one[1] <= other[0] for one, other in pairwise(bars))


def test_curves_are_what_the_checker_counts() -> None:
    tight = 0
    for schedule, made in random_schedules():
        phase = schedule.phases[0]
        first, last = (phase.stages - 1) * phase.ii, (phase.stages + 1) * phase.ii
        for number, group in enumerate(schedule.groups):
            curve = timeline.register_curve(schedule, phase, made, group, first, last)
            assert curve.most <= curve.limit
            # With a register less than the most that is shown, the checker finds too few.
            if curve.most <= made.registers.reserve:
                continue
            fewer = [*schedule.groups]
            fewer[number] = replace(group, registers=curve.most - 1)
            found = check(replace(schedule, groups=tuple(fewer)), made)
            assert any(each.rule == "registers" and "live" in each.text for each in found)
            tight += 1
        for memory in ("shared", "tensor"):
            curve = timeline.memory_curve(schedule, phase, made, memory, first, last)
            assert curve.most <= curve.reserved <= curve.limit
            exact = replace(made, shared_bytes=curve.reserved) if memory == "shared" else None
            if exact is not None:
                assert not any(each.rule == "memories" for each in check(schedule, exact))
                if curve.reserved:  # no machine has less than nothing
                    fewer = replace(made, shared_bytes=curve.reserved - 1)
                    assert any(each.rule == "memories" for each in check(schedule, fewer))
    assert tight > 5


def test_reasons_add_up_to_bounds() -> None:
    kinds: Counter[str] = Counter()
    for seed in range(60):
        random = Random(seed)
        made = random_machine(random)
        graph = random_graph(random, made)
        for bound in lower_bounds(graph, made):
            kind = bound.name.split()[0]
            why = reason(bound, graph, made)
            kinds[kind] += 1
            assert why.text
            if kind == "stream":
                assert why.total == bound.cycles
            elif kind == "unit":
                assert -(-why.total // made.units[bound.name.split()[1]].capacity) == bound.cycles
            elif kind == "recurrence":
                distance = int(why.conclusion.partition("over ")[2].split()[0])
                assert -(-Fraction(why.total) // distance) == bound.cycles
    assert {"unit", "stream", "recurrence"} <= set(kinds)


def test_unknown_bounds_are_named(hopper: Machine, best: list[Schedule]) -> None:
    graph = best[0].phases[0].graph
    for name in ("something new", "unit of no machine", "recurrence gone -> dot", "stream of gone"):
        assert reason(Bound(name, 7), graph, hopper).text


def test_between(best: list[Schedule]) -> None:
    graph, starts = best[0].phases[0].graph, best[0].phases[0].starts
    bounds = (Bound("unit tensor_core", 100),)
    assert "is the bound itself" in between(Phase(graph, 100, starts), bounds, (), 16)
    above = between(Phase(graph, 132, starts), bounds, (112, 128), 16)
    assert "112, 128" in above
    assert "multiples of 16" in above
    assert listed(tuple(range(40))) == "0, 1, 2, 3, …, 38, 39 (40 intervals)"
    assert binding(Phase(graph, 100, starts), bounds) == "unit tensor_core"
    assert binding(Phase(graph, 101, starts), bounds) == JOINT


def test_of_several_loops_it_is_said_which_intervals_are_impossible(hopper: Machine) -> None:
    loops = [replace(ring(hopper, 64, name), trips=trips) for name, trips in (("masked", 3), ("unmasked", 40))]
    both = schedules([loops], hopper)[0]
    stated, (first, last) = both.certificate, both.phases
    assert stated is not None
    assert stated.earlier_bounds == (lower_bounds(first.graph, hopper),)
    one, other = first.ii + 32, last.ii + 32
    rows = ((first.ii, None), (None, last.ii + 16), (one - 16, other))
    slow = replace(
        both,
        phases=(replace(first, ii=one), replace(last, ii=other)),
        certificate=replace(stated, refuted_together=rows, undecided_together=((one, last.ii),)),
    )
    assert f"this loop has no schedule at {first.ii}, whatever" in why(slow, slow.phases[0], hopper)
    assert f"no schedule at ({one - 16}, {other})" in why(slow, slow.phases[0], hopper)
    assert f"({one}, {last.ii}) undecided" in why(slow, slow.phases[0], hopper)
    assert f"this loop has no schedule at {last.ii + 16}, whatever" in why(slow, slow.phases[1], hopper)
    assert "is the bound itself" in why(both, last, hopper)
    data = as_data([slow], hopper)
    assert data["refuted"] == [list(row) for row in rows]
    assert data["undecided"] == [[one, last.ii]]
    assert [phase["bounds"][0]["cycles"] for phase in data["phases"]] == [first.ii, last.ii]
