"""The search around the solver: the k best, conflicts, determinism, the heuristic, and what a time limit leaves."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise, product
from random import Random

import pytest

from forgec.diagnostics import ForgeError
from forgec.schedule.bounds import length_bound, lower_bounds
from forgec.schedule.check import check
from forgec.schedule.conflict import conflicting
from forgec.schedule.graph import Dependence, Graph, Op, Read, Use, Value
from forgec.schedule.machine import Machine
from forgec.schedule.model import FAMILIES, Model, anchor_of
from forgec.schedule.schedule import Phase, Schedule
from forgec.schedule.search import Search
from forgec.schedule.solve import schedules
from forgec.schedule.solver import Solver
from tests.schedule.small import (
    Steps,
    TooMuchError,
    complete,
    grants,
    is_legal,
    isolated_row,
    partitions,
    random_graph,
    random_machine,
    roomy_machine,
)

Key = tuple[int, int, int, int]


def key_of(schedule: Schedule) -> Key:
    """Interval, length, groups and the negative of the slack."""
    phase = schedule.phases[0]
    slacks = [
        phase.starts[target] + distance * phase.ii - phase.starts[source] - delay
        for source, target, delay, distance in phase.graph.precedences()
        if distance
    ]
    return phase.ii, phase.length, len(schedule.groups), -min(slacks, default=0)


def everything(graph: Graph, machine: Machine, most: Key) -> Iterator[tuple[Key, object]]:
    """The key of every legal schedule up to an interval and a length, and what tells it from others."""
    first = anchor_of(graph, machine)
    names = [op.name for op in graph.ops]
    for row in partitions(len(names)):
        home = dict(zip(names, row, strict=True))
        if not isolated_row(graph, machine, home):
            continue
        for groups in grants(graph, machine, home, Steps(20_000)):
            for ii in range(1, most[0] + 1):
                for times in product(range(most[1] + 1), repeat=len(names)):
                    starts = dict(zip(names, times, strict=True))
                    late = any(
                        starts[t] + distance * ii < starts[s] + delay for s, t, delay, distance in graph.precedences()
                    )
                    if min(times) or late or max(starts[op.name] + op.span for op in graph.ops) > most[1]:
                        continue
                    if not complete(graph, machine, ii, starts, groups):
                        continue
                    depths = {}
                    for value in graph.values:
                        depths[value.name] = next(
                            d for d in range(1, 99) if buffered(graph, value, starts, ii, d, home, machine)
                        )
                    schedule = Schedule(machine.name, (Phase(graph, ii, starts),), groups, depths)
                    if is_legal(schedule, machine):
                        stages = tuple((starts[name] - starts[first]) // ii for name in names)
                        yield key_of(schedule), (ii, stages, tuple(row))


def buffered(
    graph: Graph, value: Value, starts: dict[str, int], ii: int, depth: int, home: dict[str, int], machine: Machine
) -> bool:
    """Whether so many buffers of a value are enough."""
    crosses = any(home[read.op] != home[value.producer] for read in value.reads)
    hop = machine.handover.latency if crosses else 0
    again = starts[value.producer] + depth * ii
    if again + value.begin < starts[value.producer] + graph.op(value.producer).latency:
        return False
    return all(
        again + value.begin >= starts[read.op] + read.distance * ii + max(read.release, value.begin) + hop
        for read in value.reads
    )


def test_the_k_best_are_those_of_brute_force() -> None:
    compared = longer = 0
    for seed in range(2000, 2070):
        random = Random(seed)
        machine = replace(random_machine(random), isolate="none")
        graph = random_graph(random, machine, 3)
        try:
            found = schedules([[graph]], machine, k=4)
        except ForgeError:
            continue
        keys = [key_of(schedule) for schedule in found]
        assert keys == sorted(keys), f"seed {seed}"
        most = (max(key[0] for key in keys), max(key[1] for key in keys), 0, 0)
        if most[0] > 6 or most[1] > 7 or len(graph.ops) < 2:
            continue
        best: dict[object, Key] = {}
        try:
            for key, distinct in everything(graph, machine, most):
                best[distinct] = min(best.get(distinct, key), key)
        except TooMuchError:
            continue
        assert keys == sorted(best.values())[: len(keys)], f"seed {seed}"
        compared += 1
        longer += keys[0][0] < keys[-1][0]
    assert compared >= 15
    assert longer >= 3  # where the least interval has fewer than four


@pytest.mark.parametrize(
    "budget",
    [
        {"shared_bytes": 3},
        {"tensor_bytes": 1},
        {"most_warps": 1},
        {"most_warps": 2, "isolate": "waits"},
        {"shared_bytes": 5, "most_warps": 1},
    ],
)
def test_a_conflict_is_irreducible(budget: dict[str, object]) -> None:
    explained = 0
    for seed in range(3000, 3040):
        random = Random(seed)
        machine = replace(random_machine(random), **budget)  # type: ignore[arg-type] - of several types
        graph = random_graph(random, machine, 4)
        try:
            schedules([[graph]], machine)
            continue
        except ForgeError as caught:
            code = caught.code
        assert code == "FORGE-S001"
        search, solver = Search([graph], machine), Solver(machine)
        conflict = conflicting(search.graphs, search.serial, search.unit, machine, solver.run)
        others = frozenset(FAMILIES) - set(conflict)
        assert solver.run(Model(search.graphs, search.serial, machine, search.unit, others))[1] == "infeasible"
        for family in conflict:
            less = Model(search.graphs, search.serial, machine, search.unit, others | {family})
            assert solver.run(less)[1] == "optimal", f"seed {seed}: {family}"
        explained += 1
        if explained == 8:
            return
    assert explained >= 3


def test_a_conflict_says_how_much_would_be_enough() -> None:
    # What is in registers goes through shared memory, since groups are kept apart.
    row = (Op("a", "op", 1, 1, variable=True), Op("b", "op", 1, 1))
    value = Value("v", "a", "register", 100, (Read("b", 1),), crossing=True)
    small = roomy_machine(shared_bytes=99, isolate="loads")
    with pytest.raises(ForgeError) as caught:
        schedules([[Graph("staged", row, (value,))]], small)
    assert "staged does not fit machine small: shared memory and isolation conflict" in str(caught.value)
    assert "it takes at the least 100 bytes of shared memory, there are 99" in str(caught.value)
    assert schedules([[Graph("staged", row, (value,))]], replace(small, shared_bytes=100))
    # The first value lives over the second, whose producer does not read it.
    names = "abcd"
    values = tuple(
        Value(f"v{n}", one, "register", size, (Read(other, 1),))
        for n, (one, other, size) in enumerate((("a", "c", 5000), ("b", "d", 5000), ("a", "b", 4)))
    )
    order = tuple(Dependence(one, other, 1) for one, other in pairwise(names))
    graph = Graph("live", tuple(Op(name, "op", 1, 1) for name in names), values, order)
    with pytest.raises(ForgeError) as caught:
        schedules([[graph]], roomy_machine())
    # A warp may be granted 64 registers of 4 bytes for each of 32 threads.
    assert "dependences and registers conflict" in str(caught.value)
    assert f"at the least {10004 - 64 * 4 * 32} bytes of registers beyond what a group may be granted" in str(
        caught.value
    )


def test_a_schedule_depends_on_its_arguments_alone() -> None:
    script = (
        "from random import Random\n"
        "from tests.schedule.small import random_graph, roomy_machine\n"
        "from forgec.schedule.solve import schedules\n"
        "for count, limit in ((9, 60.0), (26, 0.0)):\n"
        "    machine, random = roomy_machine(), Random(5)\n"
        "    graph = random_graph(random, machine, count)\n"
        "    found = schedules([[graph]], machine, k=2, limit=limit)\n"
        "    print([(s.phases[0].ii, s.phases[0].starts, s.groups, s.depths, s.slack) for s in found])\n"
    )
    told = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "77")
    }
    assert len(told) == 1
    assert next(iter(told)).count("Group(") >= 3


def test_the_heuristic_alone_gives_legal_schedules_of_many_ops() -> None:
    gaps = []
    for seed in range(12):
        random = Random(seed)
        machine = roomy_machine(handover=random_machine(random).handover)
        graph = random_graph(random, machine, 64)
        schedule = schedules([[graph]], machine, limit=0.0)[0]
        assert check(schedule, machine) == []
        assert schedule.certificate is not None
        assert schedule.certificate.status in ("timeout", "feasible")
        bound = lower_bounds(graph, machine)[0].cycles
        missed = set(range(bound, schedule.phases[0].ii)) - set(schedule.certificate.undecided)
        assert not missed
        gaps.append(schedule.phases[0].ii / bound)
    assert sum(gaps) / len(gaps) < 1.25


def test_the_heuristic_gives_fewer_buffers_where_memory_is_small() -> None:
    # Loads as far ahead as they like would take a buffer for each interval of their latency.
    ops = [Op("load", "op", 1, 40), *(Op(f"o{n}", "op", 3, 3, (Use("a", 3),)) for n in range(4))]
    values = [Value("x", "load", "shared", 100, (Read("o3", 3),))]
    machine = roomy_machine(shared_bytes=300, units=replace_unit(roomy_machine()))
    schedule = schedules([[Graph("ring", tuple(ops), tuple(values))]], machine, limit=0.0)[0]
    assert check(schedule, machine) == []
    assert schedule.depths["x"] <= 3


def replace_unit(machine: Machine) -> dict[str, object]:
    return {**machine.units, "a": replace(machine.units["a"], capacity=1)}


def test_the_bound_of_length_counts_units_and_streams() -> None:
    machine = roomy_machine(units=replace_unit(roomy_machine()))
    row = tuple(Op(f"o{n}", "op", 0, 2, (Use("a", 2),)) for n in range(5))
    last = Op("last", "op", 0, 7)
    values = tuple(Value(f"v{n}", f"o{n}", "shared", 1, (Read("last", 1),)) for n in range(5))
    graph = Graph("shop", (*row, last), values)
    assert length_bound(graph, machine) == 5 * 2 + 7
    assert schedules([[graph]], machine)[0].phases[0].length == 17
