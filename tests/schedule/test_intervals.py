"""What is impossible at an interval is so at every shorter one; and what single loops and parts say of all."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from random import Random

from forgec.schedule.alone import Alone, move_freely, parts_only
from forgec.schedule.check import check
from forgec.schedule.circles import circle
from forgec.schedule.claims import false_claims
from forgec.schedule.graph import Graph, Op, Read, Use, Value, stretches
from forgec.schedule.intervals import Intervals
from forgec.schedule.kernels import named
from forgec.schedule.machine import Machine
from forgec.schedule.machine import named as named_machine
from forgec.schedule.model import Model
from forgec.schedule.schedule import Schedule
from forgec.schedule.solve import schedules
from forgec.schedule.solver import Solver
from tests.schedule.phases import two_phases
from tests.schedule.small import is_legal, random_graph, random_machine, random_solved, roomy_machine, solved


def stretched(schedule: Schedule, more: int) -> Schedule:
    """With so many cycles between turns; buffers, groups and grants stay."""
    phases = []
    for phase in schedule.phases:
        starts = {name: start + more * (start // phase.ii) for name, start in phase.starts.items()}
        phases.append(replace(phase, ii=phase.ii + more, starts=starts))
    return replace(schedule, phases=tuple(phases), certificate=None)


def moved(schedule: Schedule, by: int) -> Schedule:
    """The same schedule, begun later: so that other ops stand at the turn."""
    phases = [
        replace(phase, starts={name: start + by for name, start in phase.starts.items()}) for phase in schedule.phases
    ]
    return replace(schedule, phases=tuple(phases), certificate=None)


def test_a_schedule_stays_legal_when_turns_move_apart() -> None:
    tried = 0
    for seed, schedule, small, random in random_solved(range(260)):
        if not stretches(schedule.phases[0].graph):
            continue
        longer = stretched(moved(schedule, random.randrange(4)), random.randint(1, 5))
        assert check(longer, small) == [], f"seed {seed}"
        assert is_legal(longer, small), f"seed {seed}"
        tried += 1
    assert tried >= 80


def test_what_is_possible_of_a_loop_that_stretches_is_so_at_longer_intervals() -> None:
    changes = 0
    for seed in range(120):
        random = Random(seed)
        small = random_machine(random)
        graph = random_graph(random, small)
        if not stretches(graph):
            continue
        said = [Solver(small).run(Model([graph], [ii], small))[1] != "infeasible" for ii in range(1, 9)]
        assert said == sorted(said), f"seed {seed}: {said}"
        changes += said[0] != said[-1]
    assert changes >= 20


def with_parts(random: Random, machine: Machine) -> Graph:
    """A random loop twice, as two parts, and an op that both parts read and one that reads both."""
    one = random_graph(random, machine, 3)
    ops = [Op("first", "op", random.choice((0, 1)), random.choice((0, 2)), (Use("a", 1, 0, 1),))]
    values, reads = [], []
    for part in range(2):
        ops += [replace(op, name=f"{op.name}.{part}", part=part, twin=op.name) for op in one.ops]
        for value in one.values:
            inner = tuple(replace(read, op=f"{read.op}.{part}") for read in value.reads)
            values.append(
                replace(value, name=f"{value.name}.{part}", producer=f"{value.producer}.{part}", reads=inner, begin=0)
            )
        reads.append(Read(f"op0.{part}", random.choice((0, 1))))
    values.append(Value("shared", "first", "shared", 1, tuple(reads)))
    ops += [Op("last", "op", 1, 1)]
    values += [Value(f"end.{part}", f"op0.{part}", "shared", 1, (Read("last", 1),)) for part in range(2)]
    plain = tuple(replace(op, uses=tuple(replace(use, offset=0) for use in op.uses)) for op in ops)
    return Graph("parts", plain, tuple(values))


def test_what_parts_cannot_do_by_themselves_is_impossible() -> None:
    refuted = possible = 0
    for seed in range(90):
        random = Random(seed)
        small = random_machine(random)
        graph = with_parts(random, small)
        solver = Solver(small)
        for ii in range(1, 6):
            relaxed = Model([parts_only(graph)], [ii], small)
            move_freely(relaxed)
            says = solver.run(relaxed)[1] == "infeasible"
            truth = solver.run(Model([graph], [ii], small))[1] == "infeasible"
            plain = solver.run(Model([parts_only(graph)], [ii], small))[1] == "infeasible"
            # To leave out what is moved by whole intervals, or turned by half of one, leaves out nothing.
            assert says == plain, f"seed {seed} at {ii}"
            assert truth or not says, f"seed {seed} at {ii}"
            refuted, possible = refuted + says, possible + (not truth)
    assert refuted >= 60
    assert possible >= 60


def test_the_least_interval_of_each_phase_by_itself_is_found() -> None:
    found = 0
    for seed in range(40):
        random = Random(seed)
        small = random_machine(random)
        kernel = two_phases(random, small)
        stretch = [stretches(graph) for graph in kernel]
        intervals = Intervals((1, 1), (8, 8), (2, 1), stretch)
        alone, solver = Alone(kernel, small, 1, intervals), Solver(small)
        while (iis := intervals.peek()) is not None and (place := alone.open(iis)) is not None:
            alone.probe(place, iis, solver, None)
        for place in range(2):
            says = [solver.run(Model(kernel, [ii, ii], small, alone=place))[1] != "infeasible" for ii in range(1, 9)]
            if iis is None:
                continue
            assert says[iis[place] - 1], f"seed {seed}"
            assert not any(says[: iis[place] - 1]), f"seed {seed}"
            found += 1
    assert found >= 40


def test_what_is_impossible_together_is_so_at_shorter_intervals() -> None:
    every = Intervals((1, 1), (4, 4), (3, 1), (True, True))
    every.refute_together((2, 3))
    every.refute(1, 1)
    found = []
    while (iis := every.peek()) is not None:
        found.append(iis)
        every.pop()
    wanted = {(a, b) for a, b in product(range(1, 5), range(2, 5)) if not (a <= 2 and b <= 3)}
    assert set(found) == wanted
    assert len(found) == len(wanted)


def swap() -> Graph:
    """Two ops that read what the other left, with results at once: with single buffers each waits for the other."""
    ops = (Op("a", "op", 0, 0), Op("b", "op", 0, 0))
    values = (
        Value("x", "a", "shared", 2, (Read("b", 0, 1),)),
        Value("y", "b", "shared", 1, (Read("a", 0, 1),)),
    )
    return Graph("swap", ops, values)


def test_a_circle_of_waits_gets_the_buffers_that_it_needs() -> None:
    found = circle(swap(), {"x": 1, "y": 1})
    assert found is not None
    assert (sorted(found.values), found.least) == (["x", "y"], 3)
    assert circle(swap(), {"x": 1, "y": 2}) is None
    assert circle(swap(), {"x": 2, "y": 1}) is None
    # Four bytes: there is no room for x twice.
    schedule = solved([swap()], roomy_machine(shared_bytes=4))
    assert schedule is not None
    assert schedule.depths == {"x": 1, "y": 2}
    assert schedule.certificate is not None
    assert schedule.certificate.status == "optimal"
    assert solved([swap()], roomy_machine(shared_bytes=3)) is None


def test_loops_that_take_no_time_are_solved_to_the_end() -> None:
    """Where everything may happen at one time, waits are what counts."""
    solved_ones = 0
    for seed in range(120):
        random = Random(seed)
        small = random_machine(random)
        graph = random_graph(random, small, 3)
        ops = tuple(
            replace(op, issue=op.issue * (random.random() < 0.5), latency=op.latency * (random.random() < 0.4))
            for op in graph.ops
        )
        late = {op.name: op.latency for op in ops}
        values = tuple(replace(value, begin=min(value.begin, late[value.producer])) for value in graph.values)
        schedule = solved([replace(graph, ops=ops, values=values)], small)
        if schedule is not None:
            assert schedule.certificate is not None
            assert schedule.certificate.status == "optimal", f"seed {seed}"
            assert is_legal(schedule, small), f"seed {seed}"
            solved_ones += 1
    assert solved_ones >= 60


def test_a_reader_may_run_ahead_of_what_it_reads_of_long_ago() -> None:
    """What is read 40 iterations later is in fewer than 40 buffers if its reader is that far ahead."""
    ops = (Op("a", "op", 1, 1), Op("b", "op", 1, 1))
    graph = Graph("far", ops, (Value("v", "a", "shared", 1, (Read("b", 1, 40),)),))
    schedule = solved([graph], roomy_machine(shared_bytes=2))
    assert schedule is not None
    assert check(schedule, roomy_machine(shared_bytes=2)) == []
    assert schedule.depths["v"] <= 2


def test_buffers_that_do_not_fit_leave_out_many_intervals_at_once() -> None:
    """With little shared memory thousands of pairs of intervals are impossible, of which a few say so of all."""
    small = replace(named_machine("sm_90a"), shared_bytes=65536)
    schedule = schedules(named("gemm-epilogue", small), small, limit=8)[0]
    assert schedule.certificate is not None
    assert schedule.certificate.status == "optimal"
    assert false_claims(schedule, small) == []
    pairs = [row for row in schedule.certificate.refuted_together if None not in row]
    assert len(pairs) <= 300
    # One that would refute the schedule itself is found.
    beyond = tuple(phase.ii + schedule.certificate.quantum for phase in schedule.phases)
    claimed = replace(schedule.certificate, refuted_together=(*schedule.certificate.refuted_together, beyond))
    assert "shorter ones" in false_claims(replace(schedule, certificate=claimed), small)[0].text
