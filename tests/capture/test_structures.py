"""Arguments and results in every container that a model may use, by position and by name."""

from __future__ import annotations

import subprocess
import sys
from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn
from torch.utils import _pytree
from transformers.modeling_outputs import BaseModelOutput

import forgec
from forgec.diagnostics import ForgeError

x = torch.arange(6.0).reshape(2, 3)
y = torch.ones(2, 3)

Pair = namedtuple("Pair", ["first", "second"])


class Typed(NamedTuple):
    """A named tuple with types."""

    value: Any
    count: int


@dataclass
class Outcome:
    """A registered dataclass, with a field that may be None."""

    value: torch.Tensor
    extra: torch.Tensor | None = None
    label: str = "none"


torch.export.register_dataclass(Outcome, serialized_type_name="tests.Outcome")


def compiled(function: Any, *args: Any, **kwargs: Any) -> Any:
    """The compiled function and what it returns for its example inputs."""
    model = forgec.compile(function, args, kwargs)
    return model(*args, **kwargs)


def assert_same(found: Any, expected: Any) -> None:
    """The same classes, leaves and tensors all the way down."""
    assert type(found) is type(expected)
    leaves, structure = _pytree.tree_flatten(found)
    other, expected_structure = _pytree.tree_flatten(expected)
    assert structure == expected_structure
    for a, b in zip(leaves, other, strict=True):
        if isinstance(b, torch.Tensor):
            assert a.dtype == b.dtype
            assert torch.equal(a, b)
        else:
            assert (type(a), a) == (type(b), b)


RESULTS = {
    "a tensor": lambda a: a + 1,
    "a tuple": lambda a: (a + 1, a * 2),
    "a tuple of one": lambda a: (a + 1,),
    "a list": lambda a: [a + 1, [a * 2]],
    "a dict": lambda a: {"b": a + 1, "a": (a * 2, {"c": a})},
    "a dict with numbers as keys": lambda a: {1: a + 1, 2: a * 2},
    "a named tuple": lambda a: Pair(a + 1, a * 2),
    "a typed named tuple": lambda a: Typed(a + 1, 3),
    "a dataclass": lambda a: Outcome(a + 1, a * 2, "some"),
    "a dataclass with a field that is None": lambda a: Outcome(a + 1),
    "a ModelOutput": lambda a: BaseModelOutput(last_hidden_state=a + 1, hidden_states=(a, a * 2)),
    "None": lambda a: None,
    "None beside a tensor": lambda a: (None, a + 1, None),
    "numbers and strings": lambda a: (1, 2.5, True, "text", None, a + 1),
    "an empty tuple": lambda a: ((), a + 1, {}, []),
    "an input": lambda a: a,
    "an input twice": lambda a: (a, a),
    "a result twice": lambda a: (lambda b: (b, b, b.t()))(a + 1),
    "a view of an input": lambda a: (a.t(), a[1], a[:, 1:]),
    "a constant": lambda a: (torch.arange(3), torch.zeros(2, 2).t(), a.new_ones(1)),
    "a transposed constant": lambda a: torch.arange(6).reshape(2, 3).t(),
}


@pytest.mark.parametrize("name", RESULTS)
def test_results_have_the_structure_of_the_model_s(name: str) -> None:
    function = RESULTS[name]
    assert_same(compiled(function, x), function(x))


class Weighted(nn.Module):
    """Returns its own tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.arange(3.0))
        self.register_buffer("table", torch.ones(2))

    def forward(self, a: torch.Tensor) -> Any:
        return self.weight, self.table, self.weight.view(3, 1), a + self.weight


def test_parameters_are_returned_as_copies() -> None:
    model = Weighted()
    first = forgec.compile(model, (x,))
    found = first(x)
    with torch.no_grad():
        assert_same(tuple(t.clone() for t in found), tuple(t.detach().clone() for t in model(x)))
        found[0].add_(100)
        found[2].add_(100)
    assert torch.equal(first(x)[0], torch.arange(3.0))
    assert torch.equal(model.weight, torch.arange(3.0))


def test_results_of_two_calls_share_no_memory() -> None:
    model = forgec.compile(lambda a: (a + 1, (a * 2).t()), (x,))
    first = model(x)
    kept = [t.clone() for t in first]
    model(y)
    for found, expected in zip(first, kept, strict=True):
        assert torch.equal(found, expected)


ARGUMENTS: dict[str, tuple[Any, tuple[Any, ...], dict[str, Any]]] = {
    "a dict": (lambda d: d["a"] - d["b"], ({"a": x, "b": y},), {}),
    "a list of tuples": (lambda p: p[0][0] - p[1][1], ([(x, y), (y, x)],), {}),
    "a named tuple": (lambda p: p.first - p.second, (Pair(x, y),), {}),
    "a dataclass": (lambda o: o.value * 2, (Outcome(x, y, "some"),), {}),
    "a dataclass with None": (lambda o: o.value * 2, (Outcome(x),), {}),
    "keywords": (lambda a, *, b, c=2: a - b * c, (x,), {"b": y, "c": 3}),
    "a keyword by its position": (lambda a, b: a - b, (), {"b": y, "a": x}),
    "None": (lambda a, mask=None: a if mask is None else a * mask, (x, None), {}),
    "a number": (lambda a, n: a * n, (x, 3), {}),
    "a string": (lambda a, mode: a + 1 if mode == "plus" else a - 1, (x, "plus"), {}),
    "a bool by name": (lambda a, flag=False: a + 1 if flag else a - 1, (x,), {"flag": True}),
    "variable positional": (lambda *tensors: tensors[0] - tensors[1], (x, y), {}),
    "variable keywords": (lambda **tensors: tensors["p"] - tensors["q"], (), {"p": x, "q": y}),
    "a tensor that nothing uses": (lambda a, b: a + 1, (x, y), {}),
    "no tensors": (lambda n=3: torch.arange(n), (), {"n": 4}),
    "the same tensor twice": (lambda a, b: a - 2 * b, (x, x), {}),
}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_arguments_may_have_every_structure(name: str) -> None:
    function, args, kwargs = ARGUMENTS[name]
    assert_same(compiled(function, *args, **kwargs), function(*args, **kwargs))


def test_arguments_may_be_passed_by_position_or_by_name() -> None:
    model = forgec.compile(lambda a, b, c=2: a - b * c, (x, y), {"c": 3})
    for found in (model(x, y, c=3), model(x, y, 3), model(a=x, b=y, c=3), model(x, c=3, b=y)):
        assert torch.equal(found, x - y * 3)


def test_positional_only_parameters_keep_their_places() -> None:
    def function(a: torch.Tensor, /, b: torch.Tensor, *, c: torch.Tensor) -> torch.Tensor:
        return a - 2 * b + 4 * c

    model = forgec.compile(function, (x, y), {"c": x})
    for found in (model(x, y, c=x), model(x, b=y, c=x)):
        assert torch.equal(found, x - 2 * y + 4 * x)
    with pytest.raises(ForgeError) as raised:
        model(y, a=x, c=x)
    assert raised.value.code == "FORGE-R001"


def test_the_same_tensor_twice_does_not_bind_the_arguments_together() -> None:
    model = forgec.compile(lambda a, b: a - 2 * b, (x, x))
    assert torch.equal(model(x, y), x - 2 * y)


def test_an_argument_that_torch_export_drops_is_still_accepted() -> None:
    model = forgec.compile(lambda a, unused: a + 1, (x, {"ids": y}))
    assert torch.equal(model(x, {"ids": x}), x + 1)


class Bag:
    """A container that only torch's registry describes: tensors, and a context."""

    def __init__(self, tensors: list[Any], label: str = "") -> None:
        assert all(isinstance(t, (torch.Tensor, Bag)) for t in tensors), "nothing else is ever passed"
        self.tensors = tensors
        self.label = label


class Named(dict[str, Any]):
    """A dict of a class of its own, registered."""


class Vague:
    """Registered with a context that is no JSON."""


_pytree.register_pytree_node(
    Bag,
    lambda value: (value.tensors, {"label": value.label}),
    lambda tensors, context: Bag(list(tensors), context["label"]),
    serialized_type_name="tests.Bag",
)
_pytree.register_pytree_node(
    Named,
    lambda value: (list(value.values()), list(value)),
    lambda values, keys: Named(zip(keys, values, strict=True)),
)
_pytree.register_pytree_node(Vague, lambda value: ([], object), lambda tensors, _: Vague())

REGISTERED: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "a result": (lambda a: Bag([a + 1, a * 2], "two"), (x,)),
    "deep in a result": (lambda a: {"deep": [Bag([a, Bag([a + 1])], "b"), (a,)]}, (x,)),
    "an argument": (lambda bag, a: bag.tensors[0] - bag.tensors[1] * a, (Bag([x, y], "in"), x)),
    "both": (lambda bag: Bag([bag.tensors[0] + 1], bag.label), (Bag([x], "kept"),)),
    "a dict of another class": (lambda a: Named(b=a + 1, a=a), (x,)),
}


@pytest.mark.parametrize("name", REGISTERED)
def test_registered_containers(name: str, tmp_path: Path) -> None:
    function, args = REGISTERED[name]
    model = forgec.compile(function, args)
    path = tmp_path / "model.forge"
    model.save(path)
    expected = function(*args)
    for found in (model(*args), forgec.load(path)(*args)):
        assert_same(found, expected)


def test_a_registered_argument_of_another_context_is_refused() -> None:
    model = forgec.compile(lambda bag: bag.tensors[0] + 1, (Bag([x], "one"),))
    for other in (Bag([x], "two"), Bag([x, x], "one"), x, [x]):
        with pytest.raises(ForgeError) as raised:
            model(other)
        assert raised.value.code == "FORGE-R001"


def test_a_context_that_an_artifact_cannot_hold_is_refused() -> None:
    with pytest.raises(ForgeError) as raised:
        forgec.compile(lambda a: (a + 1, Vague()), (x,))
    assert raised.value.code == "FORGE-C004"
    assert "to_dumpable_context" in str(raised.value)


FRESH = """
import sys, torch, forgec
from torch.utils import _pytree
model = forgec.load(sys.argv[1])
try:
    model(torch.ones(2, 3))
except forgec.ForgeError as refused:
    assert refused.code == "FORGE-R012", refused.code
    assert "Bag" in str(refused)
else:
    raise AssertionError("not refused")
import tests.capture.test_structures as known
assert type(model(torch.ones(2, 3))) is known.Bag
"""


def test_a_registered_class_in_a_fresh_process(tmp_path: Path) -> None:
    path = tmp_path / "model.forge"
    forgec.compile(lambda a: Bag([a + 1]), (x,)).save(path)
    subprocess.run([sys.executable, "-c", FRESH, str(path)], check=True, timeout=120)


def test_operators_return_named_tuples() -> None:
    def function(a: torch.Tensor) -> Any:
        return a.sort(), a.max(0), torch.topk(a, 2), torch.linalg.qr(a)

    found = compiled(function, x)
    assert_same(found, function(x))
    assert type(found[0]) is torch.return_types.sort
    assert torch.equal(found[1].indices, torch.tensor([1, 1, 1]))


def test_a_dict_keeps_the_order_of_its_keys() -> None:
    found = compiled(lambda a: OrderedDict(z=a + 1, a=a * 2), x)
    assert type(found) is OrderedDict
    assert list(found) == ["z", "a"]
