"""Several loops of one kernel: solved as brute force says, and followed by each other as soon as may be."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from random import Random

import pytest

from forgec.schedule import machine
from forgec.schedule.check import check
from forgec.schedule.graph import Graph, Op, Read, Value
from forgec.schedule.intervals import Intervals
from forgec.schedule.kernels import named
from forgec.schedule.model import Model
from forgec.schedule.rings import Rings
from forgec.schedule.simulate import simulate
from forgec.schedule.solve import schedules
from forgec.schedule.solver import Solver
from tests.schedule.loops import attention
from tests.schedule.phases import follows, least_length, two_phases
from tests.schedule.small import Steps, TooMuchError, is_legal, random_machine, solved

TRIED = 3_000
"""Starts that brute force may look at for one kernel: those that take more are left out, and counted."""


def test_cycles_and_lengths_of_two_phases_are_those_of_brute_force() -> None:
    compared = 0
    for seed in range(30):
        random = Random(seed)
        machine = random_machine(random)
        kernel = two_phases(random, machine)
        schedule, steps = solved(kernel, machine), Steps(TRIED)
        trips = [graph.trips for graph in kernel]
        try:
            if schedule is None:
                for iis in product(range(1, 4), repeat=2):
                    assert least_length(kernel, machine, iis, 10, steps) is None, f"seed {seed} at {iis}"
            else:
                found = [phase.ii for phase in schedule.phases]
                length = sum(phase.length for phase in schedule.phases)
                cost = sum(ii * n for ii, n in zip(found, trips, strict=True))
                for iis in product(range(1, cost + 1), repeat=2):
                    if sum(ii * n for ii, n in zip(iis, trips, strict=True)) < cost:
                        assert least_length(kernel, machine, iis, length + 3, steps) is None, f"seed {seed} at {iis}"
                assert least_length(kernel, machine, found, length, steps) == length, f"seed {seed}"
        except TooMuchError:
            continue
        compared += 1
    assert compared >= 12


def test_phases_follow_each_other_as_soon_as_brute_force_lets_them() -> None:
    fitting = delayed = 0
    for seed in range(110):
        random = Random(seed)
        machine = random_machine(random)
        schedule = solved(two_phases(random, machine, 4), machine)
        if schedule is None:
            continue
        assert check(schedule, machine) == [], f"seed {seed}"
        assert is_legal(schedule, machine)
        assert follows(schedule, machine, [8, 8])
        for sooner in range(schedule.transitions[0]):
            assert not follows(replace(schedule, transitions=(sooner,)), machine, [8, 8]), f"seed {seed}: {sooner}"
        ran = simulate(schedule, machine, [8, 8])
        assert ran.deadlock == {}
        first, second = (
            [(event.start, event.done) for event in ran.events if event.phase == number] for number in (0, 1)
        )
        assert min(first) <= min(second)
        assert max(end for _, end in first) <= max(end for _, end in second)
        fitting, delayed = fitting + 1, delayed + (schedule.transitions[0] > 0)
    assert fitting >= 80
    assert delayed >= 4


def test_what_is_rejected_of_two_phases_is_what_goes_wrong() -> None:
    tried = legal = 0
    for seed in range(36):
        random = Random(seed)
        machine = random_machine(random)
        schedule = solved(two_phases(random, machine, 4), machine)
        if schedule is None:
            continue
        for _ in range(20):
            number = random.randrange(2)
            phases = list(schedule.phases)
            starts = dict(phases[number].starts)
            name = random.choice(sorted(starts))
            starts[name] = max(0, starts[name] + random.choice((-2, -1, 1, 2)))
            if random.random() < 0.6:
                phases[number] = replace(phases[number], starts=starts)
            delay = max(0, schedule.transitions[0] + random.choice((-2, -1, 0, 0, 1, 2)))
            depths = {each: max(1, depth - (random.random() < 0.1)) for each, depth in schedule.depths.items()}
            other = replace(schedule, phases=tuple(phases), transitions=(delay,), depths=depths, certificate=None)
            told = [phase.graph.trips for phase in phases]
            runs = is_legal(other, machine) and all(follows(other, machine, counts) for counts in ([9, 9], told))
            assert (check(other, machine) == []) == runs, f"seed {seed}: {check(other, machine)}"
            tried, legal = tried + 1, legal + runs
    assert tried >= 500
    assert tried // 5 <= legal <= tried * 4 // 5


def test_what_is_refuted_before_phases_are_solved_together_is_impossible() -> None:
    refuted = {"alone": 0, "static": 0, "solved": 0}
    possible = 0
    for seed in range(14):
        random = Random(seed)
        machine = random_machine(random)
        kernel = two_phases(random, machine)
        if seed % 2:
            # With no ring in common, what each needs of memories adds up.
            kernel = kernel[0], renamed(kernel[1])
        solver, rings = Solver(machine), Rings(kernel, machine, 1)
        for iis in product(range(1, 5), repeat=2):
            together = solver.run(Model(kernel, iis, machine))[1] != "infeasible"
            said = {
                "alone": any(solver.run(Model(kernel, iis, machine, alone=p))[1] == "infeasible" for p in (0, 1)),
                "static": rings.too_many(iis),
                "solved": rings.too_large(iis, solver),
            }
            assert not (together and any(said.values())), f"seed {seed} at {iis}: {said}"
            possible += together
            for name, says in said.items():
                refuted[name] += says
    assert possible >= 20
    assert all(refuted.values())


def renamed(graph: Graph) -> Graph:
    """The same loop with other names of values in memory."""
    values = tuple(replace(v, name=f"{v.name}'") if v.memory != "register" else v for v in graph.values)
    return replace(graph, values=tuple(replace(v, crossing=False) if v.memory == "register" else v for v in values))


def test_intervals_come_in_the_order_of_cost_without_those_refuted() -> None:
    every = Intervals((2, 3), (5, 7), (3, 1))
    every.refute(0, 3)
    every.refute(1, 4)
    found = []
    while (iis := every.peek()) is not None:
        found.append(iis)
        every.pop()
        if iis == (4, 3):
            every.refute(1, 6)
    costs = [3 * a + b for a, b in found]
    assert costs == sorted(costs)
    late = 3 * 4 + 3
    wanted = {(a, b) for a in (2, 4, 5) for b in (3, 5, 6, 7) if b != 6 or 3 * a + b <= late}
    assert set(found) == wanted
    assert len(found) == len(wanted)


def test_a_value_of_both_phases_has_one_ring() -> None:
    wide = replace(random_machine(Random(0)), shared_bytes=8, isolate="none", most_warps=8)

    def phase(name: str, size: int, release: int) -> Graph:
        ops = (Op("a", "op", 1, 1), Op("b", "op", 1, 1))
        return Graph(name, ops, (Value("v", "a", "shared", size, (Read("b", release),)),))

    # Three buffers in one phase and four bytes in the other: twelve bytes, of which there are eight.
    schedule = solved((phase("long", 1, 5), phase("large", 4, 1)), wide)
    assert schedule is not None
    assert check(schedule, wide) == []
    assert schedule.depths["v"] <= 2
    alone = solved((phase("long", 1, 5), phase("large", 1, 1)), wide)
    assert alone is not None
    assert alone.phases[0].ii < schedule.phases[0].ii


@pytest.mark.parametrize("masked_trips", [1, 2])
def test_causal_attention_is_two_phases(masked_trips: int) -> None:
    hopper = machine.named("sm_90a")
    loop = replace(attention(hopper, 2, 128), trips=15)
    ops = []
    for op in loop.ops:
        if op.twin == "max":
            masked = hopper.op(op.name, {"arithmetic": 2 * 64 * 128}, part=op.part, twin=op.twin, role=op.role)
            op = replace(masked, shape=op.shape)
        ops.append(op)
    masked = replace(loop, name="masked", ops=tuple(ops), trips=masked_trips)
    schedule = schedules([[loop, masked]], hopper)[0]
    assert check(schedule, hopper) == []
    assert schedule.certificate is not None
    assert schedule.certificate.status == "optimal"
    ran = simulate(schedule, hopper, [15, masked_trips])
    assert ran.deadlock == {}
    stated = sum(phase.ii * phase.graph.trips for phase in schedule.phases) + sum(schedule.transitions)
    assert ran.cycles <= stated + schedule.phases[-1].length
    assert ran.cycles >= 0.95 * stated


def test_intervals_at_which_buffers_cannot_fit_are_not_tried_one_by_one() -> None:
    """With little shared memory, most pairs of intervals are too short for what their loops keep."""
    small = replace(machine.named("sm_90a"), shared_bytes=65536)
    schedule = schedules(named("gemm-epilogue", small), small, limit=8)[0]
    assert schedule.certificate is not None
    assert schedule.certificate.status == "optimal"
    assert check(schedule, small) == []
