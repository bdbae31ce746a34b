"""Random loops: their graphs have exactly the dependences of their SSA form, found by another way."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from xdsl.dialects import scf
from xdsl.ir import Operation, SSAValue

from forgec.diagnostics import ForgeError
from forgec.passes.schedule.extract import Extracted, extract, loops_of
from forgec.schedule.bounds import lower_bounds
from forgec.schedule.graph import order_in_iteration
from tests.chooser import Chooser, Drawn
from tests.passes.schedule.loops import RandomLoop, any_machine

TURNS = 6
"""More than the iterations that carried values pass a value through before anything computes with it."""
Edges = set[tuple[str, str, int]]


def ssa_edges(extracted: Extracted) -> Edges:
    """What the loop says when it is written out turn by turn: op reads op of so many turns before, through whatever
    belongs to no op. By the names of part 0.
    """
    block = extracted.loop.body.block
    end = block.last_op
    assert isinstance(end, scf.YieldOp)
    home = {op: name for name, ops in extracted.ops.items() for op in ops if not name.endswith((".1", ".2"))}
    found: Edges = set()

    def makers(value: SSAValue, turn: int) -> set[tuple[Operation, int]]:
        owner = value.owner
        if owner is block:
            number = list(block.args).index(value)  # pyright: ignore[reportArgumentType]
            return set() if number == 0 or turn == 0 else makers(end.operands[number - 1], turn - 1)
        if not isinstance(owner, Operation) or owner.parent is not block:
            return set()
        if owner in home:
            return {(owner, turn)}
        return {maker for operand in owner.operands for maker in makers(operand, turn)}

    last = TURNS - 1
    for op in home:
        for operand in op.operands:
            for maker, turn in makers(operand, last):
                if (home[maker], turn) != (home[op], last):
                    found.add((home[maker], home[op], last - turn))
    return found


def graph_edges(extracted: Extracted) -> Edges:
    """The reads of the graph in part 0, through ops that only the machine needs; without tiles from outside."""
    block = extracted.loop.body.block
    inside = {
        value.name
        for value in extracted.graph.values
        if isinstance(owner := extracted.values[value.name].owner, Operation) and owner.parent is block
    }
    direct = [
        (value.producer, read.op, read.distance)
        for value in extracted.graph.values
        if value.name in inside
        for read in value.reads
    ]
    helpers = {name for name, ops in extracted.ops.items() if not ops}
    found: Edges = set()

    def follow(source: str, name: str, distance: int) -> None:
        if name.endswith((".1", ".2")):
            return
        if name not in helpers:
            found.add((source, name, distance))
            return
        for producer, reader, more in direct:
            if producer == name:
                follow(source, reader, distance + more)

    for producer, reader, distance in direct:
        if producer not in helpers and not reader.endswith((".1", ".2")) and not producer.endswith((".1", ".2")):
            follow(producer, reader, distance)
    return found


def implied(edges: Edges) -> Callable[[str, str, int], bool]:
    """Whether a path of dependences of at most a distance leads from one op to another."""

    def reaches(source: str, target: str, distance: int) -> bool:
        seen: set[tuple[str, int]] = set()
        waiting = [(source, 0)]
        while waiting:
            name, so_far = waiting.pop()
            for first, second, more in edges:
                state = (second, so_far + more)
                if first == name and so_far + more <= distance and state not in seen:
                    if second == target:
                        return True
                    seen.add(state)
                    waiting.append(state)
        return False

    return reaches


def check(chooser: Chooser, parts: int, accumulator: str) -> None:
    kernel = RandomLoop(chooser).kernel()
    kernel.verify()
    if not loops_of(kernel):
        return
    machine = any_machine(accumulator)
    try:
        extracted = extract(kernel, machine, parts=parts)
    except ForgeError as caught:
        # Nothing but addresses in it; or no product whose rows neighbours do not share.
        if parts > 1 or "nothing but addresses" in str(caught):
            return
        raise
    graph = extracted.graph
    assert sorted(order_in_iteration(graph)) == sorted(op.name for op in graph.ops) == sorted(extracted.ops)
    assert set(extracted.values) == {value.name for value in graph.values}
    assert lower_bounds(graph, machine)[0].cycles > 0
    # Each op of the body is in one op of the graph, or free.
    listed = [op for name, ops in extracted.ops.items() if not name.endswith((".1", ".2")) for op in ops]
    assert len(set(listed)) == len(listed)
    wanted, found = ssa_edges(extracted), graph_edges(extracted)
    assert wanted <= found
    if accumulator == "register":
        assert found == wanted
    else:  # what takes the place of sums in tensor memory holds them longer
        assert all(implied(wanted)(*edge) for edge in found - wanted)


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data(), st.integers(1, 3), st.sampled_from(["register", "tensor"]))
def test_dependences_are_those_of_the_loop(data: st.DataObject, parts: int, accumulator: str) -> None:
    check(Drawn(data), parts, accumulator)
