"""What a model's Python code changes when it runs: every change is warned of once, and undone."""

from __future__ import annotations

from collections import OrderedDict, defaultdict, deque
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils import _pytree

import forgec
from forgec.diagnostics import ForgeError
from forgec.diagnostics.render import source_line
from tests.capture.python_models import Forward, Model, warned, x34


def _fills(self: Any, x: torch.Tensor) -> torch.Tensor:
    if self.h is None:
        self.h = x.mean(0)
    return x * 2


def _caches(self: Any, x: torch.Tensor) -> torch.Tensor:
    if self.h is None:
        self.h = torch.arange(x.shape[1]).to(x.dtype)
    return x + self.h


def _adds_and_deletes(self: Any, x: torch.Tensor) -> torch.Tensor:
    self.new = 1
    self.inner.other = x
    if hasattr(self, "h"):
        del self.h
    return x + 1


def _writes_an_object(self: Any, x: torch.Tensor) -> torch.Tensor:
    self.h.t = x
    self.h.list[0].append(2)
    return x + 1


def _nested(self: Any, x: torch.Tensor) -> torch.Tensor:
    self.h["a"][0].append(x)
    self.h["b"].add(3)
    self.h["c"]["n"] = "two"
    return x + 1


def _shuts(self: Any, x: torch.Tensor) -> torch.Tensor:
    self.h = (*self.h, x)
    return x + 1


CHANGES: dict[str, tuple[Forward, Any, list[str]]] = {
    "None to a tensor": (_fills, None, ["h"]),
    "a cache": (_caches, None, ["h"]),
    "new and deleted": (_adds_and_deletes, 3, ["h", "inner.other", "new"]),
    "an object": (_writes_an_object, SimpleNamespace(t=None, list=[[1]]), ["h.list[0]", "h.t"]),
    "nested": (_nested, {"a": [deque()], "b": set(), "c": {"n": 1}}, ["h['a'][0]", "h['b']", "h['c']"]),
    "a tuple": (_shuts, (1,), ["h"]),
}


@pytest.mark.parametrize("case", CHANGES.values(), ids=CHANGES)
def test_every_change_of_an_attribute_is_warned_of_and_undone(case: tuple[Forward, Any, list[str]]) -> None:
    function, held, names = case
    model = Model(function, h=held)
    before, text = dict(vars(model)), repr(held)
    assert sorted(warned(model, x34)) == [f"the model changes its attribute {name!r}" for name in names]
    assert vars(model) == before
    assert repr(model.h) == text
    assert model.absent is None
    assert not hasattr(model.inner, "other")


class Slotted:
    """An object without a dict."""

    __slots__ = ("last",)

    def __init__(self) -> None:
        self.last = None


class Classy(nn.Module):
    """Keeps what it changes in its class."""

    calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        type(self).calls += 1
        Tally.total += 1
        return x + 1


class Tally:
    """Used by name only."""

    total = 0


def test_attributes_of_classes_and_slots() -> None:
    assert warned(Classy(), x34) == [
        "the model changes its attribute 'Classy.calls'",
        "the model changes its attribute 'Tally.total'",
    ]
    assert (Classy.calls, Tally.total) == (0, 0)

    def slotted(self: Any, x: torch.Tensor) -> torch.Tensor:
        self.h.last = x
        return x + 1

    model = Model(slotted, h=Slotted())
    assert warned(model, x34) == ["the model changes its attribute 'h.last'"]
    assert model.h.last is None


N = 0
CACHE: dict[str, list[Any]] = {"seen": []}


def _counted(x: torch.Tensor) -> torch.Tensor:
    global N
    N += 1  # counted here
    CACHE["seen"].append(x)
    return x + 1


def test_variables_of_functions_that_are_called() -> None:
    called = 0

    def function(x: torch.Tensor) -> torch.Tensor:
        nonlocal called
        called += 1
        return _counted(x)

    with pytest.warns(forgec.ForgecWarning) as caught:
        compiled = forgec.compile(function, (x34,))
    assert len(caught) == 1
    found = {w.message.split(" when")[0]: w.location for w in compiled.report.warnings}
    assert found.keys() == {f"the model changes its variable {n}" for n in ("'N'", "'called'", "\"CACHE['seen']\"")}
    place = found["the model changes its variable 'N'"]
    assert place is not None
    assert "# counted here" in (source_line(place) or "")
    assert (N, CACHE, called) == (0, {"seen": []}, 0)


def test_what_hooks_keep() -> None:
    model, kept = nn.Sequential(nn.Linear(4, 4)), {}
    model.register_forward_hook(lambda module, given, result: kept.update(last=result))
    model[0].register_forward_pre_hook(lambda module, given: kept.update(first=given))
    assert warned(model, x34) == ["the model changes its variable 'kept'"]
    assert kept == {}


def test_hooks_that_the_first_call_installs_are_undone_with_the_mark_that_they_are_there() -> None:
    def function(self: Any, x: torch.Tensor) -> torch.Tensor:
        if not self.installed:
            self.inner.register_forward_hook(lambda module, given, result: result * 2)
            self.inner.register_forward_pre_hook(lambda module, given, kept: None, with_kwargs=True)
            self.installed = True
        return self.inner(x)

    model, other = Model(function, installed=False), Model(function, installed=False)
    other.load_state_dict(model.state_dict())
    assert warned(model, x34) == [
        f"the model changes its attribute {name!r}"
        for name in ("inner._forward_hooks", "inner._forward_pre_hooks", "installed")
    ]
    assert not model.installed
    for name, held in vars(model.inner).items():
        assert "hooks" not in name or not held
    assert torch.equal(model(x34), other(x34))
    assert len(model.inner._forward_hooks) == 1


@pytest.mark.filterwarnings("ignore:.*_output_capturing_hooks_installed")
def test_a_model_of_transformers_records_once_after_compiling() -> None:
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = transformers.LlamaModel(transformers.LlamaConfig(**sizes, vocab_size=8, attn_implementation="eager")).eval()
    inputs = {"input_ids": torch.tensor([[1, 2, 3]]), "use_cache": False}
    inputs |= {"output_attentions": True, "output_hidden_states": True}
    compiled = forgec.compile(model, (), inputs)
    for run in (compiled, model):
        result = run(**inputs)
        assert (len(result.hidden_states), len(result.attentions)) == (3, 2)


def test_a_model_that_fails_changes_nothing() -> None:
    def failing(x: torch.Tensor) -> torch.Tensor:
        global N
        N = 5
        CACHE["other"] = []
        raise ValueError("no")

    with pytest.raises(ForgeError):
        forgec.compile(failing, (x34,))
    assert (N, CACHE) == (0, {"seen": []})


def test_what_changes_nothing_is_not_warned_of() -> None:
    def function(self: Any, x: torch.Tensor) -> torch.Tensor:
        self.h = []  # as empty as it was
        self.kept += x  # state
        self.n = 3
        x.add_(1)
        return x + self.n

    assert warned(Model(function, h=[], n=3), x34.clone()) == []


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_what_modules_of_torch_set_is_not_warned_of() -> None:
    assert warned(torch.nn.utils.weight_norm(nn.Linear(4, 4)).eval(), x34) == []


@dataclass
class Box:
    """A dataclass as argument."""

    a: Any
    b: Any = None


class Bag:
    """Registered with torch."""

    def __init__(self, items: list[Any]) -> None:
        self.items = items


_pytree.register_pytree_node(Bag, lambda bag: (bag.items, None), lambda items, _: Bag(list(items)))


def _append(self: Any, x: Any) -> Any:
    x.append(x[0] + 1)
    return x[0] * 2


def _set_item(self: Any, x: Any) -> Any:
    x["n"]["m"] = x["a"] + 1
    return x["a"] * 2


def _set_field(self: Any, x: Any) -> Any:
    x.b = x.a + 1
    return x.a * 2


def _put(self: Any, x: Any) -> Any:
    x.items[0] = x.items[0] + 1
    return x.items[0] * 2


@pytest.mark.parametrize(
    ("function", "value"),
    [(_append, [x34]), (_set_item, {"a": x34, "n": {"m": x34}}), (_set_field, Box(x34)), (_put, Bag([x34]))],
)
def test_arguments_that_are_changed(function: Forward, value: Any) -> None:
    def model(values: Any) -> Any:
        return function(None, values)

    assert warned(model, value) == ["the model changes its argument 'values'"]
    assert warned(model, values=value) == ["the model changes its argument 'values'"]


def test_arguments_that_are_only_read_or_written_in_place() -> None:
    def model(values: Any, other: Any) -> Any:
        values["a"].add_(1)
        return values["a"] + other[0]

    assert warned(model, {"a": x34.clone()}, [x34]) == []


def test_a_cache_of_transformers() -> None:
    transformers = pytest.importorskip("transformers")

    class Cache(transformers.DynamicCache):
        """Registered here only: transformers registers its own where it exports models itself."""

    def flat(cache: Any) -> tuple[list[Any], None]:
        return [cache.layers[0].keys, cache.layers[0].values], None

    def whole(tensors: Any, _: None) -> Any:
        cache = Cache()
        cache.update(*tensors, 0)
        return cache

    _pytree.register_pytree_node(Cache, flat, whole)

    def model(key: torch.Tensor, cache: Any) -> Any:
        return cache.update(key, key, 0)[0] * 2

    cache = whole((torch.ones(1, 2, 3, 4), torch.ones(1, 2, 3, 4)), None)
    assert warned(model, torch.ones(1, 2, 1, 4), cache) == ["the model changes its argument 'cache'"]


def test_lazy_models_warn_at_the_call() -> None:
    with pytest.warns(forgec.ForgecWarning, match="'h'") as caught:
        forgec.compile(Model(_fills, h=None))(x34)
    assert caught[0].filename == __file__


def test_results_that_are_ordered_dicts_and_deques() -> None:
    compiled = forgec.compile(
        lambda a, b: (OrderedDict(z=a["k"] + 1, a=deque([b[0]], maxlen=3)), defaultdict(list, n=b[1])),
        (OrderedDict(k=x34), deque([x34, x34 * 2])),
    )
    found, other = compiled({"k": x34}, deque([x34, x34 * 2], maxlen=9))
    assert type(found) is OrderedDict
    assert list(found) == ["z", "a"]
    assert type(found["a"]) is deque
    assert found["a"].maxlen == 3
    assert type(other) is dict
    assert torch.equal(found["z"], x34 + 1)
    with pytest.raises(ForgeError) as raised:
        compiled(OrderedDict(k=x34), [x34, x34])
    assert raised.value.code == "FORGE-R001"
    with pytest.raises(ForgeError, match=r"dict key \(1, 2\) is a tuple; keys must be texts or numbers") as raised:
        forgec.compile(lambda a: {(1, 2): a + 1}, (x34,))
    assert raised.value.code == "FORGE-C004"
