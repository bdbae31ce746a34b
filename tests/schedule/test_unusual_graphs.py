"""Graphs unlike those of kernels: ops that hold, read or wait for longer than they take, parts that are none."""

from __future__ import annotations

from dataclasses import replace

import pytest

from forgec.diagnostics import ForgeError
from forgec.schedule.check import check
from forgec.schedule.graph import Dependence, Graph, Op, Read, Use, Value
from forgec.schedule.machine import Machine, Unit
from forgec.schedule.schedule import Schedule
from forgec.schedule.solve import schedules
from forgec.schedule.symmetry import equal_parts
from tests.schedule.small import roomy_machine


def op(name: str, **more: object) -> Op:
    return replace(Op(name, "op", 1, 1), **more)  # type: ignore[arg-type] - of several types


def shared(name: str, producer: str, *reads: Read) -> Value:
    return Value(name, producer, "shared", 1, reads)


def best(machine: Machine, *phases: Graph) -> Schedule:
    (found,) = schedules([phases], machine)
    assert not check(found, machine)
    assert found.certificate is not None
    assert found.certificate.status == "optimal"
    return found


def test_an_op_may_hold_a_unit_for_longer_than_it_takes() -> None:
    machine = roomy_machine(units={"u": Unit(1, "made up")})
    graph = Graph("long", (op("a", uses=(Use("u", 5), Use("u", 5, 7))),))
    # Cycles 0 to 4 and 7 to 11: at 10 and 11 some are the same.
    assert best(machine, graph).phases[0].ii == 12


def test_a_value_may_be_read_for_longer_than_its_reader_takes() -> None:
    machine = roomy_machine()
    machine = replace(machine, handover=replace(machine.handover, bytes_per_cycle=64))
    graph = Graph("long", (op("a"),), (Value("v", "a", "register", 4, (Read("a", 60, 1),)),))
    # Of 16 buffers, which a value may have at the most: 60 cycles and one interval are 16 intervals.
    assert best(machine, graph).phases[0].ii == 4


def test_each_reader_takes_a_value_over() -> None:
    machine = roomy_machine(isolate="loads", most_warps=2)
    machine = replace(machine, handover=replace(machine.handover, get=10))
    readers = [f"r{number}" for number in range(5)]
    graph = Graph(
        "readers",
        (op("load", variable=True), *(op(name) for name in readers)),
        (shared("v", "load", *(Read(name, 1) for name in readers)),),
    )
    assert best(machine, graph).phases[0].ii == 55


def test_results_are_as_late_as_buffers_allow() -> None:
    graph = Graph(
        "late",
        (op("a", late=10), op("b", late=10), op("c")),
        (shared("v", "a", Read("b", 1)), shared("w", "b", Read("c", 1))),
    )
    found = best(roomy_machine(), graph).phases[0]
    assert [found.starts[name] for name in "abc"] == [0, 11, 22]


def test_parts_without_twins_are_not_put_in_order() -> None:
    """What belongs to a part without a twin in the other, or with one that differs, has no place to change."""
    rows = [(op(f"a{part}", part=part), op(f"b{part}", part=part, latency=3, issue=1)) for part in (0, 1)]
    ops = tuple(each for row in rows for each in row)
    values = tuple(Value(f"v{part}", f"b{part}", "register", 4, (Read(f"a{part}", 1),)) for part in (0, 1))
    graph = Graph("alone", ops, values)
    assert not equal_parts([graph])
    assert best(roomy_machine(), graph).phases[0].length == 4
    unlike = Graph(
        "unlike",
        (op("a0", part=0, twin="a", uses=(Use("a", 1),)), op("a1", part=1, twin="a"), op("c")),
        (shared("v", "a1", Read("c", 1)),),
        (Dependence("c", "a0", 5),),
    )
    assert not equal_parts([unlike])
    assert best(roomy_machine(), unlike).phases[0].length == 7


def twins(order: str) -> Graph:
    """A load for two parts, each of which computes ``b`` for long and then ``a``; listed in an order."""
    each = {
        "a": lambda part: op(f"a{part}", part=part, twin="a"),
        "b": lambda part: op(f"b{part}", part=part, twin="b", latency=30, uses=(Use("u", 2),)),
    }
    values = [shared("l", "load", *(Read(f"b{part}", 1) for part in (0, 1)))]
    values += [shared(f"v{part}", f"b{part}", Read(f"a{part}", 1)) for part in (0, 1)]
    return Graph("twins", (op("load"), *(each[name](part) for name in order for part in (0, 1))), tuple(values))


@pytest.mark.parametrize("order", ["ab", "ba"])
def test_parts_by_themselves_may_be_listed_in_any_order(order: str) -> None:
    """The first op of a part may come an interval after the op that stays at 0."""
    machine = roomy_machine(units={"u": Unit(1, "made up")})
    graph = twins(order)
    assert equal_parts([graph]) == [(0, 1)]
    found = best(machine, graph, replace(graph, name="again", trips=3))
    assert [phase.ii for phase in found.phases] == [4, 4]


def test_a_loop_holds_a_buffer_until_the_next_loops_value_takes_it() -> None:
    """The storage of the second loop's value is taken as it starts, of the first loop's later."""
    first = Graph("first", (op("a", latency=2),), (Value("v", "a", "shared", 2, (Read("a", 0, 1),), begin=2),))
    second = Graph("second", (op("a"),), (Value("v", "a", "shared", 2, (Read("a", 0, 1),), begin=1),))
    found = best(roomy_machine(shared_bytes=2), first, second)
    assert found.depths == {"v": 1}
    # The reader of the first loop's last value must have started where the second loop's producer begins.
    late = Graph("late", (op("a", latency=2), op("r")), (Value("w", "a", "shared", 2, (Read("r", 0, 1),), begin=0),))
    later = replace(late, name="later", values=(replace(late.values[0], begin=2),))
    for phases in ((late, later), (later, late)):
        assert best(roomy_machine(shared_bytes=2), *phases).depths == {"w": 1}


def test_a_conflict_names_dependences_where_only_they_keep_values_together() -> None:
    machine = roomy_machine(isolate="loads")
    facts = replace(machine.registers, total=32 * 24, granularity=8, least=8, most=16, group_warps=1)
    machine = replace(machine, registers=facts)
    ops: list[Op] = []
    values: list[Value] = []
    for part in "xy":
        ops += [op(f"a{part}", variable=part == "x"), op(f"b{part}"), op(f"t{part}")]
        values += [Value(f"{name}{part}", f"{name}{part}", "register", 900, (Read(f"t{part}", 1),)) for name in "ab"]
    with pytest.raises(ForgeError) as caught:
        schedules([[Graph("pairs", tuple(ops), tuple(values))]], machine)
    # Without dependences each value may be gone before the next is there.
    assert "dependences, registers, register file and isolation conflict" in str(caught.value)
