"""Structures of arguments and results: flatten, rebuild, match, JSON; classes are found, never imported."""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys
from collections import OrderedDict, deque, namedtuple
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forgec.diagnostics import ForgeError
from forgec.runtime.tree import LEAF, Record, Tree, describe, flatten, from_json, match, paths, to_json, unflatten

Pair = namedtuple("Pair", "left right")


@dataclass
class Box:
    lid: Any
    bottom: Any = None


def round_trip(value: Any) -> Any:
    leaves, tree = flatten(value)
    again = from_json(json.loads(json.dumps(to_json(tree))))
    assert again == tree
    assert again.leaves == len(leaves)
    return unflatten(again, leaves)


@pytest.mark.parametrize(
    "value",
    [
        OrderedDict(b=1, a=[2]), deque([1, {"a": 2}]), deque([1, 2], maxlen=2),
        1, None, [], (), {}, [1, (2, {"a": 3, 4: [5]})], {"b": 1, "a": 2},
        {None: 1, True: 2, 1.5: 3}, Pair(1, [2]), Box(1),
        Box(Box(1, 2), {"k": Pair(3, None)}),
    ],
    ids=repr,
)  # fmt: skip
def test_round_trip(value: Any) -> None:
    again = round_trip(value)
    assert again == value
    assert type(again) is type(value)
    if isinstance(value, dict):
        assert list(again) == list(value)


def test_same_leaves_as_torch() -> None:
    from torch.utils import _pytree

    value = {"b": [1, None, (2, 3)], "a": Pair(4, {"z": 5, "y": 6}), "o": OrderedDict(q=7)}
    assert flatten(value)[0] == _pytree.tree_flatten(value)[0]


def test_model_output() -> None:
    pytest.importorskip("transformers")
    import torch
    from transformers.modeling_outputs import CausalLMOutputWithPast

    value: Any = CausalLMOutputWithPast(logits=torch.ones(2))  # type: ignore[arg-type]
    leaves, tree = flatten(value)
    assert tree.kind == "model_output"
    assert tree.keys == ("logits",)
    again = round_trip(value)
    assert type(again) is CausalLMOutputWithPast
    assert again.logits is leaves[0]
    assert again.loss is None


def test_a_class_that_is_not_there_becomes_a_record() -> None:
    tree = Tree("dataclass", (LEAF, LEAF), ("lid", "bottom"), "somewhere.else:Box", ("label",))
    record = unflatten(tree, [1, 2])
    assert type(record) is Record
    assert record.lid == record["lid"] == record[0] == 1
    assert record[:2] == record.to_tuple() == (1, 2)
    assert record.label is None
    assert record.class_name == "somewhere.else:Box"
    assert repr(record) == "Box(lid=1, bottom=2)"
    with pytest.raises(AttributeError):
        _ = record.other
    record.lid = 3
    assert record["lid"] == 3
    for again in (copy.deepcopy(record), pickle.loads(pickle.dumps(record))):
        assert again == record
        assert again.class_name == record.class_name
    assert flatten(record)[0] == [3, 2]


def test_a_registered_class_that_is_not_there_is_refused() -> None:
    """Classes of torch's own too: an artifact must not get at their functions."""
    for name in ("gone:Bag", "torch._higher_order_ops.flat_apply:_ConstantFunction", "torch:Size", "builtins:tuple"):
        tree = from_json({"registered": ["*"], "class": name, "context": "null"})
        assert to_json(tree) == {"registered": ["*"], "class": name, "context": "null"}
        with pytest.raises(ForgeError) as raised:
            unflatten(tree, [1])
        assert raised.value.code == "FORGE-R012"


def test_a_named_tuple_that_is_not_there_stays_a_named_tuple() -> None:
    left, right = unflatten(Tree("namedtuple", (LEAF, LEAF), ("left", "right"), "gone:Pair"), [1, 2])
    assert (left, right) == (1, 2)


@pytest.mark.parametrize(
    "name",
    [
        "os:system",
        "subprocess:Popen",
        "antigravity:x",
        "this:x",
        "builtins:dict",
        "forgec:compile",
        "transformers.nope:X",
    ],
)
def test_only_matching_classes_are_used(name: str) -> None:
    for kind in ("dataclass", "model_output"):
        assert type(unflatten(Tree(kind, (LEAF,), ("a",), name), [1])) is Record
    fields = Tree("dataclass", (LEAF,), ("nope",), f"{Box.__module__}:Box")
    assert type(unflatten(fields, [1])) is Record


def test_nothing_is_imported() -> None:
    code = (
        "import sys; from forgec.runtime.tree import *\n"
        "for name in ('antigravity:x', 'this:x', 'transformers.modeling_outputs:ModelOutput', 'forgec.api:compile'):\n"
        "    unflatten(Tree('dataclass', (LEAF,), ('a',), name), [1])\n"
        "assert not {'this', 'antigravity', 'transformers', 'forgec.api', 'torch', 'numpy'} & sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_match() -> None:
    leaves, tree = flatten(({"a": 1, "b": [2, Box(3)]}, Pair(4, 5)))
    found: list[Any] = []
    assert match(tree, ({"b": [2, Box(3)], "a": 1}, Pair(4, 5)), found)
    assert found == leaves == [1, 2, 3, 4, 5]
    for other in (
        [{"a": 1, "b": [2, Box(3)]}, Pair(4, 5)],
        ({"a": 1, "b": [2, Box(3)]}, (4, 5)),
        ({"a": 1, "c": [2, Box(3)]}, Pair(4, 5)),
        ({"a": 1, "b": [2]}, Pair(4, 5)),
        ({"a": 1, "b": [2, Box(3, 4)]}, Pair(4, 5)),
        ({"a": 1, "b": (2, Box(3))}, Pair(4, 5)),
        ({"a": (1,), "b": [2, Box(3)]}, Pair(4, 5)),
        7,
    ):
        assert not match(tree, other, [])


def test_a_record_stands_for_its_class() -> None:
    _, tree = flatten(Box(1, 2))
    record = unflatten(Tree("dataclass", (LEAF, LEAF), ("lid", "bottom"), "gone:Box"), [1, 2])
    found: list[Any] = []
    assert match(tree, record, found)
    assert found == [1, 2]


def test_describe_and_paths() -> None:
    leaves, tree = flatten(((1,), {"a": [2, Pair(3, 4)], "b": Box(5)}))
    texts = iter(map(str, leaves))
    assert describe(tree, lambda: next(texts)) == "((1,), {'a': [2, Pair(left=3, right=4)], 'b': Box(lid=5)})"
    assert paths(tree, "x") == ["x[0][0]", "x[1]['a'][0]", "x[1]['a'][1].left", "x[1]['a'][1].right", "x[1]['b'].lid"]


def test_refuses_keys_that_json_cannot_hold() -> None:
    with pytest.raises(ValueError, match="dict key"):
        flatten({(1, 2): 3})


def test_refuses_endless_nesting() -> None:
    value: Any = 1
    for _ in range(100):
        value = [value]
    with pytest.raises(ValueError, match="deep"):
        flatten(value)


def test_the_number_of_leaves_must_fit() -> None:
    with pytest.raises(ValueError, match="leaves"):
        unflatten(flatten([1, 2])[1], [1])


@pytest.mark.parametrize(
    "data",
    [
        None, 1, "x", [], {}, {"leaf": []}, {"tuple": 1}, {"tuple": ["*"], "list": ["*"]}, {"dict": ["*"]},
        {"dict": [["a"]]},
        {"dict": [["a", "*"], ["a", "*"]]}, {"dict": [[["a"], "*"]]}, {"namedtuple": [["a", "*"]]},
        {"tuple": [], "class": "a:b"},
        {"namedtuple": [["a", "*"]], "class": "no colon"}, {"namedtuple": [["class", "*"]], "class": "a:B"},
        {"namedtuple": [["_a", "*"]], "class": "a:B"}, {"namedtuple": [["a b", "*"]], "class": "a:B"},
        {"dataclass": [["a", "*"]], "class": "a:B", "absent": ["a"]},
        {"dataclass": [["a", "*"]], "class": "a:B", "absent": 1},
        {"dataclass": [["a", "*"]], "class": "a:B", "more": 1}, {"dataclass": [["a", "*"]], "class": "a;b:B"},
        {"dataclass": [[1, "*"]], "class": "a:B"}, {"dataclass": [["a", "*"]], "class": 7},
        {"deque": ["*"]}, {"deque": ["*"], "context": "0"}, {"deque": ["*"], "context": "true"},
        {"deque": ["*"], "context": "null", "class": "a:B"}, {"ordered_dict": [["a", "*"]], "class": "a:B"},
        {"registered": ["*"]}, {"registered": ["*"], "class": "a:B"}, {"registered": ["*"], "class": 7, "context": "1"},
        {"registered": ["*"], "class": "a:B", "context": "{"}, {"registered": ["*"], "class": "a:B", "context": 1},
        {"registered": ["*"], "class": "a:B", "context": "1", "absent": []}, {"registered": 1, "class": "a:B"},
    ],
    ids=repr,
)  # fmt: skip
def test_refuses_malformed_json(data: Any) -> None:
    with pytest.raises(ValueError, match=r"."):
        from_json(data)


values = st.recursive(
    st.none() | st.integers() | st.booleans() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=3) | st.integers(0, 9), inner, max_size=3)
        | st.builds(Pair, inner, inner)
        | st.builds(Box, inner.filter(lambda value: value is not None), inner)
    ),
    max_leaves=12,
)


@given(values)
def test_any_structure_round_trips(value: Any) -> None:
    assert round_trip(value) == value
    leaves, tree = flatten(value)
    found: list[Any] = []
    assert match(tree, value, found)
    assert found == leaves
    assert len(paths(tree, "x")) == len(set(paths(tree, "x"))) == len(leaves)
