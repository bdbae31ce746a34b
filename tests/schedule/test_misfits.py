"""What is said of kernels that do not fit: ops, values and numbers where one of them is too much by itself."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from forgec.diagnostics import ForgeError
from forgec.schedule.conflict import WORDS, filtered
from forgec.schedule.graph import Dependence, Graph, Op, Read, Use, Value
from forgec.schedule.machine import Machine
from forgec.schedule.misfits import misfits
from forgec.schedule.model import FAMILIES, MOST_DEPTH, Model
from forgec.schedule.search import Search
from forgec.schedule.solve import schedules
from forgec.schedule.solver import Budget, Solver
from tests.schedule.small import random_graph, random_machine, roomy_machine


def op(name: str, **more: object) -> Op:
    return replace(Op(name, "op", 1, 1), **more)  # type: ignore[arg-type] - of several types


def between(name: str, producer: str, reader: str, memory: str, size: int, distance: int = 0) -> Value:
    return Value(name, producer, memory, size, (Read(reader, 1, distance),))


def said(machine: Machine, *phases: Graph) -> str:
    with pytest.raises(ForgeError) as caught:
        schedules([phases], machine)
    assert caught.value.code == "FORGE-S001"
    return str(caught.value)


def test_an_op_that_holds_more_of_a_unit_than_there_is() -> None:
    unit, facts = next(iter(roomy_machine().units.items()))
    much = facts.capacity + 2
    graph = Graph("row", (op("a", uses=(Use(unit, 3, 0, much),)), op("b")))
    assert f"op a holds {much} of unit {unit} at once, which has a capacity of {facts.capacity}" in said(
        roomy_machine(), graph
    )
    # The second of two loops, by two uses that overlap; those that do not are legal.
    twice = (Use(unit, 3, 0, facts.capacity), Use(unit, 3, 2, 1))
    assert f"op a holds {facts.capacity + 1} of unit {unit}" in said(
        roomy_machine(), Graph("one", (op("a"),)), Graph("two", (op("a", uses=twice),))
    )
    apart = (Use(unit, 3, 0, facts.capacity), Use(unit, 3, 3, 1))
    assert schedules([[Graph("row", (op("a", uses=apart),))]], roomy_machine())


def test_an_op_that_is_too_wide() -> None:
    text = said(roomy_machine(most_warps=4), Graph("row", (op("a", warps=5), op("b"))))
    assert "op a takes 5 warps, and there may be 4 in all groups together" in text


def test_values_that_are_too_large() -> None:
    row = (op("a"), op("b"))
    values = (between("v", "a", "b", "shared", 70), between("w", "a", "b", "shared", 60))
    text = said(roomy_machine(shared_bytes=139), Graph("row", row, values, resident={"shared": 10}, tile={"BN": 8}))
    assert "row with BN=8 does not fit machine small: it takes 140 bytes of shared memory at the least" in text
    assert "there are 139: v (70), w (60) and what is there for the whole loop (10)" in text
    text = said(roomy_machine(tensor_bytes=0), Graph("row", row, (between("v", "a", "b", "tensor", 4),)))
    assert "it takes 4 bytes of tensor memory at the least, there are 0: v (4)" in text


def test_values_that_need_more_buffers_than_a_value_has() -> None:
    # b reads what a left 20 iterations before, and waits for what a leaves now.
    value = Value("v", "a", "shared", 4, (Read("b", 1), Read("b", 1, 20)))
    text = said(roomy_machine(), Graph("row", (op("a"), op("b")), (value,)))
    assert "value v needs 21 buffers at the least, since b reads it 20 iterations later" in text
    assert f"and a value may have {MOST_DEPTH}" in text


def test_registers_of_a_thread_and_all_registers() -> None:
    graph = Graph("row", (op("a"), op("b")), (between("v", "a", "b", "register", 9000),))
    text = said(roomy_machine(), graph)
    assert "a and b are in one group and need 9000 bytes of registers at one time, 71 in each of 32 threads" in text
    assert "a thread may have 64 (64, of which 0 are reserved); values in registers: v (9000 bytes)" in text
    facts = roomy_machine().registers
    narrow = roomy_machine(registers=replace(facts, total=40))
    kept = Graph("row", (op("a"),), (Value("v", "a", "register", 400, (Read("a", 0, 1),)),))
    assert "takes 400 bytes, and all registers together are 160" in said(narrow, kept)


def test_groups_that_have_to_be_apart() -> None:
    ops = (op("a", variable=True), op("b", warps=8), op("c", warps=4))
    graph = Graph("row", ops, (between("v", "a", "b", "shared", 4),))
    text = said(roomy_machine(isolate="waits", most_warps=12), graph)
    assert "a / b / c are kept in groups of their own (isolate = waits): these take 1 + 8 + 4 = 13 warps" in text
    assert "there may be 12" in text
    assert schedules([[graph]], roomy_machine(isolate="waits", most_warps=13))
    facts = replace(roomy_machine().registers, total=32 * 13 * 2 - 1, least=2, granularity=2, group_warps=1)
    text = said(roomy_machine(isolate="waits", registers=facts), graph)
    assert f"these take {32 * 13 * 2} registers at the least (2 for each thread of 13 warps), there are 831" in text


def test_ops_that_wait_for_themselves() -> None:
    with pytest.raises(ForgeError, match=r"FORGE-U010.*wait for each other: a, b"):
        Graph("row", (op("a"), op("b")), (between("v", "a", "b", "shared", 4),), (Dependence("b", "a", 3),))


@pytest.mark.parametrize(
    "budget",
    [
        {"shared_bytes": 3},
        {"tensor_bytes": 0},
        {"most_warps": 1, "isolate": "loads"},
        {"most_warps": 2, "isolate": "waits"},
    ],
)
def test_what_is_said_not_to_fit_never_does(budget: dict[str, object]) -> None:
    told = 0
    for seed in range(40):
        random = Random(seed)
        machine = replace(random_machine(random), **budget)  # type: ignore[arg-type] - of several types
        facts = replace(machine.registers, total=random.choice((100, 400, 1 << 12)))
        machine = replace(machine, registers=facts)
        graph = random_graph(random, machine, 5)
        if not misfits([graph], machine, MOST_DEPTH):
            continue
        told += 1
        search = Search([graph], machine)
        model = Model(search.graphs, search.serial, machine, search.unit)
        assert Solver(machine).run(model)[1] == "infeasible", f"seed {seed}: {misfits([graph], machine, MOST_DEPTH)}"
    assert told >= 5


def test_what_time_leaves_open_is_said_to_be() -> None:
    machine = roomy_machine(shared_bytes=1)
    graph = Graph("row", (op("a"), op("b")), (between("v", "a", "b", "shared", 2),))
    search = Search([graph], machine)
    conflict, undecided = filtered(search.graphs, search.serial, 1, machine, Solver(machine, Budget(0.0)).run)
    assert (conflict, undecided) == (list(FAMILIES), set(FAMILIES))
    assert WORDS.keys() == set(FAMILIES)
