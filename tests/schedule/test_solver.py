"""The solver against brute force on small random graphs, and the bounds, certificates and errors that it gives."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from random import Random
from typing import Any

import pytest

from forgec.diagnostics import ForgeError
from forgec.schedule import search, solve
from forgec.schedule.bounds import lower_bounds
from forgec.schedule.check import check
from forgec.schedule.graph import Dependence, Graph, Op, Read, Use, Value
from forgec.schedule.heuristic import Guess, guess_from
from forgec.schedule.machine import Machine, Unit
from forgec.schedule.model import Model
from forgec.schedule.reasons import reason
from forgec.schedule.schedule import Bound, Schedule
from forgec.schedule.solve import schedules
from forgec.schedule.solver import Solver
from forgec.schedule.violation import Violation
from tests.schedule.small import (
    Steps,
    TooMuchError,
    best,
    is_legal,
    random_graph,
    random_machine,
    roomy_machine,
    solved,
)

SEEDS = 560
COMPARED = 300
TRIED = 30_000
"""Partial schedules that brute force may look at: graphs that take more are left out, and counted."""


@pytest.mark.parametrize("part", range(4))
def test_interval_and_length_are_those_of_brute_force(part: int) -> None:
    compared = fitting = 0
    for seed in range(part * SEEDS // 4, (part + 1) * SEEDS // 4):
        random = Random(seed)
        machine = random_machine(random)
        graph = random_graph(random, machine)
        schedule = solved([graph], machine)
        if schedule is not None:
            assert check(schedule, machine) == []
            assert is_legal(schedule, machine)
            assert schedule.certificate is not None
            assert schedule.certificate.status == "optimal"
        found = None if schedule is None else (schedule.phases[0].ii, schedule.phases[0].length)
        try:
            expected = best(graph, machine, 3 if found is None else found[0], Steps(TRIED))
        except TooMuchError:
            continue
        assert found == expected, f"seed {seed}"
        compared += 1
        fitting += found is not None
    assert compared >= COMPARED // 4
    assert fitting >= compared // 2


def op(name: str, issue: int, latency: int, *uses: Use) -> Op:
    return Op(name, "op", issue, latency, uses)


def test_the_bound_of_a_recurrence_names_its_ops() -> None:
    graph = Graph(
        "ring",
        (op("a", 1, 3), op("b", 1, 4), op("c", 1, 1)),
        dependences=(Dependence("a", "b", 3), Dependence("b", "a", 4, 2), Dependence("b", "c", 4)),
    )
    bound = lower_bounds(graph, roomy_machine())[0]
    assert bound.cycles == 4  # 7 cycles over a distance of 2
    assert bound.name in ("recurrence a -> b", "recurrence b -> a")


def test_the_bound_of_a_unit_counts_amounts() -> None:
    machine = roomy_machine()
    capacity = machine.units["b"].capacity
    graph = Graph("units", tuple(op(f"o{n}", 0, 1, Use("b", 5, amount=capacity)) for n in range(3)))
    assert (lower_bounds(graph, machine)[0].name, lower_bounds(graph, machine)[0].cycles) == ("unit b", 15)


def test_a_budget_that_is_too_small_is_explained_by_what_conflicts() -> None:
    graph = Graph("large", (op("a", 1, 1), op("b", 1, 1)), (Value("v", "a", "shared", 100, (Read("b", 1),)),))
    with pytest.raises(ForgeError, match="100 bytes of shared memory at the least, there are 99") as caught:
        schedules([[graph]], roomy_machine(shared_bytes=99))
    assert caught.value.code == "FORGE-S001"
    assert solved([graph], roomy_machine(shared_bytes=100)) is not None


def test_a_conflict_of_two_constraints_names_both() -> None:
    # Two loads that may not share a group with the others, and only two warps.
    loads = tuple(replace(op(f"l{n}", 1, 2), variable=True) for n in range(2))
    graph = Graph(
        "warps",
        (*loads, replace(op("use", 1, 1), warps=2)),
        tuple(Value(f"v{n}", f"l{n}", "shared", 1, (Read("use", 1),)) for n in range(2)),
    )
    with pytest.raises(ForgeError) as caught:
        schedules([[graph]], roomy_machine(isolate="loads", most_warps=2))
    message = str(caught.value)
    assert "l0 and l1 / use are kept in groups of their own" in message
    assert "1 + 2 = 3 warps at the least, there may be 2" in message
    assert "memory" not in message


def test_an_op_that_takes_nothing_of_its_stream_may_start_within_another() -> None:
    # A hand-over could take time of the stream, but there is one group only.
    graph = Graph(
        "within",
        (op("long", 3, 3), op("mark", 0, 0)),
        (Value("v", "mark", "shared", 1, (Read("long", 0, 1),)),),
        (Dependence("long", "mark", 1), Dependence("mark", "long", 2, 1)),
    )
    machine = roomy_machine(most_warps=1)
    machine = replace(machine, handover=replace(machine.handover, put=1, get=1))
    schedule = solved([graph], machine)
    assert schedule is not None
    assert check(schedule, machine) == []
    assert (schedule.phases[0].ii, schedule.phases[0].length) == (3, 3)


def test_the_same_seed_gives_the_same_schedule() -> None:
    random = Random(7)
    machine = roomy_machine()
    graph = random_graph(random, machine)
    first, second = (schedules([[graph]], machine)[0] for _ in range(2))
    assert (first.phases, first.groups, first.depths) == (second.phases, second.groups, second.depths)


def test_several_schedules_are_distinct_and_in_order() -> None:
    graph = Graph("free", (op("a", 1, 2), op("b", 1, 2), op("c", 1, 2)), dependences=(Dependence("a", "b", 2),))
    machine = roomy_machine()
    found = schedules([[graph]], machine, k=4)
    assert len(found) == 4
    keys = {(tuple(s.phases[0].starts.items()), tuple(g.ops for g in s.groups)) for s in found}
    assert len(keys) == 4
    lengths = [s.phases[0].length for s in found]
    assert lengths == sorted(lengths)
    assert all(check(s, machine) == [] for s in found)


def test_a_time_limit_is_called_one_and_still_gives_a_schedule() -> None:
    random = Random(3)
    machine = roomy_machine()
    graph = random_graph(random, machine)
    schedule = schedules([[graph]], machine, limit=0.0)[0]
    assert check(schedule, machine) == []
    certificate = schedule.certificate
    assert certificate is not None
    ii, bound = schedule.phases[0].ii, certificate.bounds[0].cycles
    assert certificate.status == ("timeout" if ii > bound else "feasible")
    assert certificate.undecided == tuple(range(bound, ii))


def test_when_the_time_is_over_few_tiles_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """The heuristic's time is not that of the limit: it does not look at each of many tiles."""
    graph = random_graph(Random(25), roomy_machine())
    tiles = [[replace(graph, tile={"M": n}, work=Fraction(60 + n, 64))] for n in range(1, 20)]
    asked = []

    def counted(*args: Any) -> Guess | None:
        asked.append(args)
        return guess_from(*args)

    monkeypatch.setattr(search, "guess_from", counted)
    found = schedules(tiles, roomy_machine(), limit=0.0)[0]
    certificate = found.certificate
    assert certificate is not None
    assert certificate.status == "timeout"
    assert 1 <= len(asked) <= solve.GUESSES
    assert [each["fate"] for each in certificate.alternatives].count("undecided") > solve.GUESSES
    asked.clear()
    assert len(schedules(tiles, roomy_machine(), limit=0.0, k=6)) == 6
    assert len(asked) >= 6


def test_a_time_limit_before_anything_is_found_is_an_error() -> None:
    # One warp for two ops that each take it, and values that must not be in one group: the heuristic has no answer.
    loads = tuple(replace(op(f"l{n}", 1, 2), variable=True) for n in range(2))
    graph = Graph("none", (*loads, op("use", 1, 1)), (Value("v", "l0", "shared", 1, (Read("use", 1),)),))
    with pytest.raises(ForgeError) as caught:
        schedules([[graph]], roomy_machine(isolate="loads", most_warps=1), limit=0.0)
    assert caught.value.code == "FORGE-S002"


def turns_at_registers(size: int) -> Graph:
    """Two pairs of ops, each of which needs so many bytes of registers for a cycle."""
    ops = tuple(op(name, 1, 1) for name in ("a", "b", "c", "d"))
    pairs = (("a", "b"), ("c", "d"))
    return Graph("turns", ops, tuple(Value(f"v{a}", a, "register", size, (Read(b, 1),)) for a, b in pairs))


def test_registers_that_are_needed_at_different_times_are_not_added_up() -> None:
    # A group has 64 registers for each of 32 threads, 8192 bytes: room for one of both values.
    roomy = roomy_machine(most_warps=1)
    roomy = replace(roomy, registers=replace(roomy.registers, group_warps=1))
    for total in (roomy.registers.total, 32 * 64):
        machine = replace(roomy, registers=replace(roomy.registers, total=total))
        schedule = solved([turns_at_registers(5000)], machine)
        assert schedule is not None
        assert len(schedule.groups) == 1
        assert check(schedule, machine) == []
        assert is_legal(schedule, machine)
        assert solved([turns_at_registers(8196)], machine) is None


def test_a_third_cluster_brings_warps_and_their_registers() -> None:
    graph = turns_at_registers(6000)
    third = replace(op("e", 1, 1), warps=4)
    machine = roomy_machine(most_warps=4)
    schedule = solved([replace(graph, ops=(*graph.ops, third))], machine)
    assert schedule is not None
    assert check(schedule, machine) == []
    assert len(schedule.groups) == 1


def test_memories_bound_the_interval() -> None:
    # A buffer is taken for 10 cycles, and there are two.
    graph = Graph("deep", (op("a", 1, 9), op("b", 1, 1)), (Value("v", "a", "shared", 40, (Read("b", 1),)),))
    machine = roomy_machine(shared_bytes=100)
    bounds = {bound.name: bound.cycles for bound in lower_bounds(graph, machine)}
    assert bounds["shared memory"] == 5
    schedule = solved([graph], machine)
    assert schedule is not None
    assert schedule.phases[0].ii == 5
    assert Solver(machine).run(Model([graph], [4], machine))[1] == "infeasible"


def test_what_waits_at_one_time_has_buffers_enough() -> None:
    # The reader waits for the producer, and reads what it made an iteration before: that is two buffers at any time.
    graph = Graph(
        "order",
        (op("p", 1, 1), op("t", 1, 1)),
        (Value("v", "p", "shared", 100, (Read("t", 0, 1),)),),
        (Dependence("p", "t", 0),),
    )
    schedule = solved([graph], roomy_machine(shared_bytes=200))
    assert schedule is not None
    assert schedule.depths["v"] == 2
    assert check(schedule, roomy_machine(shared_bytes=200)) == []
    assert solved([graph], roomy_machine(shared_bytes=199)) is None


def test_what_the_checker_rejects_is_never_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = Graph("pair", (op("a", 1, 1), op("b", 1, 1)), (Value("v", "a", "shared", 4, (Read("b", 1),)),))
    machine = roomy_machine()
    first = solved([graph], machine)
    assert first is not None
    rejected: list[Schedule] = []

    def rejects(schedule: Schedule, _: Machine) -> list[Violation]:
        if len(schedule.groups) == len(first.groups):
            rejected.append(schedule)
            return [Violation("order", "as if")]
        return []

    monkeypatch.setattr(search, "check", rejects)
    other = solved([graph], machine)
    assert rejected
    assert other is not None
    assert len(other.groups) != len(first.groups)
    monkeypatch.setattr(search, "check", lambda *_: [Violation("order", "as if")])
    with pytest.raises(ForgeError) as caught:
        schedules([[graph]], machine)
    assert caught.value.code == "FORGE-S002"
    assert "of those that were looked at as if" in str(caught.value)


def test_what_holds_more_than_half_of_a_unit_takes_turns() -> None:
    """Three of four at a time: their cycles add up, whatever the work over the capacity is."""
    four = replace(roomy_machine(), units={"a": Unit(4, "made up")})
    ops = tuple(Op(f"op{n}", "op", 0, 1, (Use("a", 5, 0, 3 if n else 1),)) for n in range(4))
    graph = Graph("turns", ops)
    assert lower_bounds(graph, four)[0] == Bound("turns of a", 15)
    schedule = solved([graph], four)
    assert schedule is not None
    assert schedule.phases[0].ii == 15
    why = reason(Bound("turns of a", 15), graph, four)
    assert [term.name for term in why.terms] == ["op1", "op2", "op3"]
    assert why.total == 15
