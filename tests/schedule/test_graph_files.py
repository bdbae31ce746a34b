"""Graphs as JSON: what is written is read back equal, whatever names, numbers and memories it has."""

from __future__ import annotations

import json
import re
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forgec.diagnostics import ForgeError
from forgec.schedule import files
from forgec.schedule.check import check
from forgec.schedule.graph import MEMORIES, Dependence, Graph, Op, Read, Use, Value, check_extent
from forgec.schedule.machine import Machine, named
from forgec.schedule.solve import schedules

NAMES = st.text(min_size=1, max_size=8)
CYCLES = st.integers(0, 10**9)


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Any graph at all: edges within an iteration go from an op to a later one."""
    names = draw(st.lists(NAMES, min_size=1, max_size=5, unique=True))
    ops = tuple(
        Op(
            name,
            draw(NAMES),
            draw(CYCLES),
            draw(CYCLES),
            tuple(draw(st.lists(st.builds(Use, NAMES, CYCLES, CYCLES, st.integers(0, 9)), max_size=2))),
            late=draw(CYCLES),
            variable=draw(st.booleans()),
            warps=draw(st.integers(1, 16)),
            part=draw(st.none() | st.integers(0, 3)),
            twin=draw(st.none() | NAMES),
            role=draw(st.text(max_size=4)),
            shape=tuple(draw(st.lists(st.integers(0, 512), max_size=3))),
            source=draw(st.none() | st.text(max_size=8)),
        )
        for name in names
    )
    places = st.integers(0, len(names) - 1)

    def edge() -> tuple[int, int, int]:
        source, target = draw(places), draw(places)
        return source, target, draw(st.integers(0 if source < target else 1, 3))

    values = []
    for title in draw(st.lists(NAMES, max_size=4, unique=True)):
        producer = draw(places)
        reads = []
        for target in draw(st.lists(places, max_size=3)):
            distance = draw(st.integers(0 if producer < target else 1, 3))
            reads.append(Read(names[target], draw(CYCLES), distance))
        begin = draw(st.integers(0, ops[producer].latency))
        memory = draw(st.sampled_from(MEMORIES))
        values.append(Value(title, names[producer], memory, draw(CYCLES), tuple(reads), begin, draw(st.booleans())))
    dependences = []
    for _ in range(draw(st.integers(0, 2))):
        source, target, distance = edge()
        dependences.append(Dependence(names[source], names[target], draw(CYCLES), distance))
    return Graph(
        draw(NAMES),
        ops,
        tuple(values),
        tuple(dependences),
        work=draw(st.fractions(min_value=Fraction(1, 1000), max_denominator=1000)),
        tile=draw(st.dictionaries(NAMES, st.integers(1, 512), max_size=3)),
        resident=draw(st.dictionaries(st.sampled_from(MEMORIES), CYCLES, max_size=3)),
        traffic=draw(CYCLES),
        trips=draw(st.integers(1, 10**6)),
    )


@settings(max_examples=60, deadline=None)
@given(graphs())
def test_a_graph_is_what_its_file_says(graph: Graph) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "graph.json"
        files.write(graph, path)
        read = files.read(Graph, path)
    assert read == graph
    assert files.to_values(read) == files.to_values(graph)


def test_the_example_of_the_docs_is_a_graph() -> None:
    page = (Path(__file__).parents[2] / "docs" / "scheduling.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    graph = files.from_values(Graph, json.loads(example), "docs/scheduling.md")
    hopper = named("sm_90a")
    (schedule,) = schedules([[graph]], hopper)
    assert check(schedule, hopper) == []
    assert [set(group.ops) for group in schedule.groups] == [{"load"}, {"add"}]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"ops": []}, "has no ops"),
        ({"colour": 1}, "colour"),
        ({"ops": [{"name": "a", "kind": "k", "issue": "soon", "latency": 1}]}, "ops.0.issue"),
        ({"values": [{"name": "v", "producer": "b", "memory": "register", "size": 1, "reads": []}]}, "names the op b"),
        ({"trips": 0}, "trips are 1 at the least"),
        ({"traffic": -1}, "negative traffic"),
        ({"resident": {"shared": -1}}, "negative traffic or resident"),
        ({"resident": {"disk": 1}}, "resident is in disk"),
    ],
)
def test_what_is_no_graph_is_refused_by_its_place(change: dict[str, Any], says: str, tmp_path: Path) -> None:
    path = tmp_path / "graph.json"
    path.write_text(json.dumps({"name": "g", "ops": [{"name": "a", "kind": "k", "issue": 1, "latency": 1}], **change}))
    with pytest.raises(ForgeError) as caught:
        files.read(Graph, path)
    assert caught.value.code == "FORGE-U010"
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("part", "field"),
    [
        (None, "round_to"),
        (None, "shared_bytes"),
        ("registers", "granularity"),
        ("registers", "group_warps"),
        ("handover", "bytes_per_cycle"),
        ("handover", "latency"),
    ],
)
def test_numbers_that_no_machine_can_have_are_refused_by_name(part: str | None, field: str) -> None:
    values = files.to_values(named("sm_90a"))
    (values if part is None else values[part])[field] = -1
    with pytest.raises(ForgeError, match=f"{field} of machine sm_90a") as caught:
        files.from_values(Machine, values, "mine")
    assert caught.value.code == "FORGE-U010"


def test_an_instruction_takes_no_negative_time() -> None:
    values = files.to_values(named("sm_90a"))
    values["instructions"]["load"]["latency"] = -800
    with pytest.raises(ForgeError, match=r"instructions\.load\.latency of machine sm_90a is negative"):
        files.from_values(Machine, values, "mine")


def test_a_unit_that_the_machine_lacks_is_named() -> None:
    graph = Graph("g", (Op("a", "k", 1, 1, (Use("abacus", 1),)),))
    with pytest.raises(ForgeError, match="op a of graph g uses the unit abacus") as caught:
        schedules([[graph]], named("sm_90a"))
    assert caught.value.code == "FORGE-U010"


@pytest.mark.parametrize(
    ("graph", "says"),
    [
        (Graph("g", (Op("a", "k", 1, 10**15),)), "op a of graph g"),
        (Graph("g", (Op("a", "k", 1, 1),), (Value("v", "a", "shared", 10**30, ()),)), "value v of graph g"),
        (Graph("g", (Op("a", "k", 1, 1),), dependences=(Dependence("a", "a", 1, 10**9),)), "the dependence of a on a"),
        (Graph("g", (Op("a", "k", 1, 1),), resident={"shared": 10**30}), "what is resident in graph g"),
    ],
)
def test_numbers_beyond_what_is_solved_are_refused(graph: Graph, says: str) -> None:
    with pytest.raises(ForgeError, match=f"{says} has a number beyond") as caught:
        check_extent(graph)
    assert caught.value.code == "FORGE-U010"
