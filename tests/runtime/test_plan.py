"""The plan's format: round trip, every rule, and hostile JSON."""

from __future__ import annotations

import copy
import dataclasses
import json
import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forgec.diagnostics import ForgeError
from forgec.runtime.plan import (
    Device,
    DType,
    Launch,
    Layout,
    Literal,
    MemoryFormat,
    Plan,
    Reg,
    TensorSpec,
    from_json,
    row_major,
    to_json,
)
from forgec.runtime.symbolic import symbol
from tests.runtime.build import EntryBuilder, f32, plan_of
from tests.runtime.examples import SEQ, attention, cache, counter, dynamic_mlp, mlp

PLANS = {"mlp": mlp, "dynamic": dynamic_mlp, "attention": attention, "counter": counter, "cache": cache}


@pytest.mark.parametrize("make", PLANS.values(), ids=PLANS.keys())
def test_round_trip(make: Callable[[], Plan]) -> None:
    plan = make()
    text = json.dumps(to_json(plan))
    assert from_json(json.loads(text)) == plan
    assert json.dumps(to_json(from_json(json.loads(text)))) == text


def test_arguments_round_trip() -> None:
    values: tuple[Any, ...] = (
        None, True, -5, 0.1, 1e-300, float("inf"), float("-inf"), "text", 2 + 3j, Reg(0), symbol("s0") * 2,
        DType("bf16"),
        Device("cuda:1"), Layout("strided"), MemoryFormat("channels_last"), (1, (None, Reg(0)), ()),
    )  # fmt: skip
    b = EntryBuilder()
    x = b.input("x", f32(symbol("s0")))
    y = b.external("y", f32(1), 0, 1)
    b.call("aten::made_up", x, *values, results=(y, None), named=values)
    b.fixed("mode", float("nan"))
    plan = plan_of(b.build([y, {"k": Literal(None)}, symbol("s0")]), symbols=(SEQ,))
    again = from_json(json.loads(json.dumps(to_json(plan))))
    assert again.entries[0].launches == plan.entries[0].launches
    assert str(again) == str(plan)


def test_strides_that_are_not_row_major() -> None:
    b = EntryBuilder()
    x = b.input("x", TensorSpec("f32", (2, 3), (1, 2)))
    plan = plan_of(b.build(x))
    assert from_json(to_json(plan)) == plan


def test_spec_sizes() -> None:
    s0 = symbol("s0")
    spec = TensorSpec.contiguous("bf16", (s0, 0, 4))
    assert spec.strides == (4, 4, 1)
    assert row_major((2, s0, 3)) == (s0 * 3, 3, 1)
    assert f32(s0, 4).nbytes == s0 * 16
    assert f32(2, 4).nbytes == 32
    assert not f32(s0).is_static


def edit(plan: Plan, change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    data = copy.deepcopy(to_json(plan))
    change(data)
    return data


def entry(data: dict[str, Any]) -> dict[str, Any]:
    return data["entries"][0]


BREACHES: list[tuple[str, Callable[[], Plan], Callable[[dict[str, Any]], object]]] = [
    ("unknown field", mlp, lambda d: d.update(extra=1)),
    ("unknown field", mlp, lambda d: entry(d)["registers"][0].update(nbytes=0)),
    ("missing", mlp, lambda d: entry(d).pop("launches")),
    ("expected a list", mlp, lambda d: entry(d).update(registers={})),
    ("expected an integer", mlp, lambda d: entry(d)["registers"][0].update(index=True)),
    ("expected an integer", mlp, lambda d: entry(d)["registers"][3].update(first=-1)),
    ("unknown dtype", mlp, lambda d: entry(d)["registers"][0].update(dtype="f31")),
    ("unknown dtype", mlp, lambda d: entry(d)["registers"][0].update(dtype=["f32"])),
    ("kind is one of", mlp, lambda d: entry(d)["registers"][0].update(kind="pointer")),
    ("device", mlp, lambda d: entry(d)["registers"][0].update(device="../x")),
    ("strides", mlp, lambda d: entry(d)["registers"][0].update(strides=[1])),
    ("extent", mlp, lambda d: entry(d)["registers"][0].update(shape=[-1, 8])),
    ("extent", mlp, lambda d: entry(d)["registers"][0].update(shape=[1.0, 8])),
    ("more bytes", mlp, lambda d: entry(d)["registers"][0].update(shape=[1 << 40, 1 << 40])),
    ("cannot be parsed", mlp, lambda d: entry(d)["registers"][0].update(shape=["s0 ?", 8])),
    ("not declared", mlp, lambda d: entry(d)["registers"][0].update(shape=["s9", 8])),
    ("not defined by any input", dynamic_mlp, lambda d: entry(d)["registers"][0].update(shape=["s0 * s0", 8])),
    ("divides by zero", dynamic_mlp, lambda d: entry(d)["registers"][0].update(shape=["s0 // 0", 8])),
    ("declared twice", dynamic_mlp, lambda d: d["symbols"].append(d["symbols"][0])),
    ("range is empty", dynamic_mlp, lambda d: d["symbols"][0].update(minimum=99)),
    ("not a name", dynamic_mlp, lambda d: d["symbols"][0].update(name="max")),
    ("at least one entry", mlp, lambda d: d.update(entries=[])),
    ("same name", mlp, lambda d: d["entries"].append(d["entries"][0])),
    ("relative path", mlp, lambda d: d["locations"][0].__setitem__(0, "/etc/passwd")),
    ("relative path", mlp, lambda d: d["locations"][0].__setitem__(0, "a/../../b")),
    ("no location", mlp, lambda d: entry(d)["launches"][0].update(location=1)),
    ("operation", mlp, lambda d: entry(d)["launches"][0].update(op="os.system")),
    ("no register 99", mlp, lambda d: entry(d)["launches"][0]["args"].__setitem__(0, {"reg": 99})),
    ("not an argument", mlp, lambda d: entry(d)["launches"][0]["args"].__setitem__(0, {"code": "x"})),
    ("integer", mlp, lambda d: entry(d)["launches"][0]["args"].append(1 << 70)),
    ("not an argument", mlp, lambda d: entry(d)["launches"][0]["args"].append({"dtype": "f31"})),
    ("not an argument", mlp, lambda d: entry(d)["launches"][0]["args"].append({"layout": "__class__"})),
    ("one tag", mlp, lambda d: entry(d)["launches"][0]["args"].append({"reg": 0, "expr": "s0"})),
    ("live range", mlp, lambda d: entry(d)["registers"][3].update(last=1)),
    ("live range", mlp, lambda d: entry(d)["registers"][3].update(last=4)),
    ("before it is defined", mlp, lambda d: entry(d)["launches"][0].pop("writes")),
    ("must not be written", mlp, lambda d: entry(d)["launches"][0].update(writes=[3, 0])),
    ("must not be written", mlp, lambda d: entry(d)["launches"][0].update(writes=[3, 1])),
    ("no argument", mlp, lambda d: entry(d)["launches"][0].update(writes=[3, 5])),
    ("not an external", mlp, lambda d: entry(d)["launches"][0].update(results=[5])),
    ("defined twice", attention, lambda d: entry(d)["launches"][0].update(results=[3, 3])),
    ("shares bytes", mlp, lambda d: entry(d)["registers"][4].update(offset=192)),
    ("outside the arena", mlp, lambda d: entry(d).update(arena_bytes=511)),
    ("multiple of 64", mlp, lambda d: entry(d)["registers"][4].update(offset=260)),
    ("offsets and arena_bytes", mlp, lambda d: entry(d).update(arena_bytes=None)),
    ("offsets and arena_bytes", mlp, lambda d: entry(d)["registers"][4].pop("offset")),
    ("too few", mlp, lambda d: entry(d)["registers"][4].update(nbytes=64)),
    ("the view ends", attention, lambda d: entry(d)["registers"][4].update(offset=1)),
    ("not a view", attention, lambda d: entry(d)["registers"][4].update(base=6)),
    ("no register", attention, lambda d: entry(d)["registers"][4].update(base=77)),
    ("leaves in the structure", mlp, lambda d: entry(d)["inputs"].append({"reg": 0})),
    ("leaves in the structure", mlp, lambda d: entry(d)["outputs"].pop()),
    ("structure of", mlp, lambda d: entry(d).update(in_tree={"list": ["*"]})),
    ("not the input", mlp, lambda d: entry(d).update(inputs=[{"reg": 1}])),
    ("among the entry's inputs", mlp, lambda d: entry(d).update(inputs=[{"literal": 1}])),
    ("fixed value", mlp, lambda d: entry(d).update(outputs=[{"literal": {"reg": 1}}])),
    ("arena and cannot be returned", mlp, lambda d: entry(d).update(outputs=[{"reg": 3}])),
    ("never written", mlp, lambda d: (entry(d)["launches"].pop(), entry(d)["registers"][3].update(last=2),
                                      entry(d)["registers"][4].update(last=2))),
    ("twice", mlp, lambda d: entry(d).update(parameters=["x", "x"])),
    ("static", dynamic_mlp, lambda d: entry(d)["registers"][1].update(shape=["s0", 16])),
    ("share memory", mlp, lambda d: entry(d)["registers"][1].update(strides=[8, 1])),
    ("share memory", counter, lambda d: entry(d)["registers"][1].update(shape=[2], strides=[0])),
    ("differently elsewhere", cache, lambda d: d["entries"][1]["registers"][0].update(shape=[5, 3])),
    ("nested too deep", mlp, lambda d: entry(d).update(out_tree=nest("*", 100))),
    ("nested too deep", mlp, lambda d: entry(d)["launches"][0]["args"].append(nest_list(30))),
]  # fmt: skip


def nest(leaf: Any, depth: int) -> Any:
    for _ in range(depth):
        leaf = {"tuple": [leaf]}
    return leaf


def nest_list(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(("reason", "make", "change"), BREACHES, ids=range(len(BREACHES)))
def test_every_breach_is_told(
    reason: str, make: Callable[[], Plan], change: Callable[[dict[str, Any]], object]
) -> None:
    data = edit(make(), change)
    with pytest.raises(ForgeError) as caught:
        from_json(data)
    if reason == "not declared":
        assert "s9" in str(caught.value)
    assert caught.value.code == "FORGE-A004"
    assert reason in str(caught.value)


def test_the_path_is_told() -> None:
    data = edit(mlp(), lambda d: entry(d)["launches"][1]["kwargs"].update(out={"reg": "x"}))
    with pytest.raises(ForgeError, match=r"entries\[0\]\.launches\[1\]\.kwargs\.out\.reg: expected an integer"):
        from_json(data)


def test_another_version() -> None:
    with pytest.raises(ForgeError) as caught:
        from_json(edit(mlp(), lambda d: d.update(version=2)))
    assert caught.value.code == "FORGE-A002"


def test_entry_lookup() -> None:
    plan = cache()
    assert plan.entry().name == "append"
    assert plan.entry("read").name == "read"
    with pytest.raises(KeyError):
        plan.entry("other")
    assert plan.ops == ("aten::index_copy_", "aten::sum.IntList_out")


def test_a_buffer_may_be_defined_through_views() -> None:
    b = EntryBuilder()
    x = b.input("x", f32(4))
    whole = b.buffer("whole", f32(8), 0, 0, 3)
    halves = [b.view(f"half{i}", f32(4), whole, 4 * i) for i in range(2)]
    y = b.output("y", f32(8))
    for half in halves:
        b.out("aten::relu.out", x, out=half)
    b.out("aten::neg.out", whole, out=y)
    plan = plan_of(b.build(y, arena=64))
    assert from_json(to_json(plan)) == plan


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(json_values)
def test_arbitrary_json_is_refused(data: Any) -> None:
    with pytest.raises(ForgeError) as caught:
        from_json(data)
    assert caught.value.code in ("FORGE-A002", "FORGE-A004")


SUBSTITUTES: list[Any] = [
    None, True, -1, 0, 1, 2, 7, 1 << 62, 1 << 63, 1 << 80, 0.5, 1e308, "", "s0", "s0 * s0",
    "s0 - 100", "aten::mm.out", "f32", "cpu",
    [], {}, [0], ["s0"], {"reg": 0}, {"reg": 3}, {"expr": "s0"}, {"literal": None}, "*",
    {"tuple": []}, {"dict": [["a", "*"]]},
]  # fmt: skip


def mutate(data: Any, draw: random.Random) -> Any:
    """One random change somewhere in the JSON: a value replaced, removed, repeated or swapped."""
    places: list[tuple[Any, Any]] = []

    def visit(value: Any) -> None:
        keys = range(len(value)) if isinstance(value, list) else value if isinstance(value, dict) else ()
        for key in keys:
            places.append((value, key))
            visit(value[key])

    visit(data)
    container, key = draw.choice(places)
    match draw.randrange(4):
        case 0:
            del container[key]
        case 1 if isinstance(container, list):
            container.insert(key, copy.deepcopy(container[key]))
        case 2:
            other, place = draw.choice(places)
            container[key] = copy.deepcopy(other[place])
        case _:
            container[key] = copy.deepcopy(draw.choice(SUBSTITUTES))
    return data


@pytest.mark.parametrize("make", PLANS.values(), ids=PLANS.keys())
def test_mutated_plans_are_valid_or_refused(make: Callable[[], Plan]) -> None:
    draw = random.Random(7)
    original = to_json(make())
    refused = 0
    for _ in range(400):
        data = copy.deepcopy(original)
        for _ in range(draw.choice([1, 1, 1, 2, 5])):
            try:
                data = mutate(data, draw)
            except (KeyError, IndexError):
                continue
        try:
            plan = from_json(data)
        except ForgeError as reason:
            assert reason.code in ("FORGE-A002", "FORGE-A004")  # noqa: PT017
            str(reason)
            refused += 1
        else:
            assert from_json(to_json(plan)) == plan
    assert refused > 200


def test_launches_are_hashable_data() -> None:
    launch = Launch("aten::relu", (Reg(1), (1, 2)))
    assert hash(launch) == hash(dataclasses.replace(launch))
