"""Parameters, buffers and tensors in plain attributes: what is shared stays one, what is written becomes state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from forgec.capture.attributes import held_tensors
from tests.capture.compare import agree, param_names, states_of
from tests.oracle import Forms, assert_equal, lower

ones = torch.ones(3)


class Plain(nn.Module):
    """A module with attributes and a body."""

    def __init__(self, body: Callable[..., Any], **attributes: Any) -> None:
        super().__init__()
        for name, value in attributes.items():
            setattr(self, name, value)
        self.body = body

    def forward(self, *args: Any) -> Any:
        return self.body(self, *args)


class Cache:
    """An object that is no module, with tensors in lists and dicts, as transformers' caches are."""

    def __init__(self) -> None:
        self.layers = [{"keys": torch.zeros(2, 3), "count": torch.zeros(1, dtype=torch.int64)} for _ in range(2)]

    def append(self, layer: int, x: torch.Tensor) -> torch.Tensor:
        held = self.layers[layer]
        held["keys"].index_copy_(0, held["count"] % 2, x[None])
        held["count"].add_(1)
        return held["keys"].sum(0)


def test_a_tied_weight_is_one_parameter() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.embed = nn.Embedding(7, 4)
            self.head = nn.Linear(4, 7, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return self.head(self.embed(ids))

    forms = agree(Tied, [torch.tensor([[1, 5, 6]])])
    assert param_names(forms.captured.module) == ["embed.weight"]
    assert list(forms.captured.tensors) == ["embed.weight"]


def test_a_parameter_that_is_the_same_memory_under_two_objects_is_one() -> None:
    weight = torch.randn(3, 3)

    def make() -> nn.Module:
        return Plain(lambda m, x: m.a @ (m.b @ x), a=nn.Parameter(weight), b=nn.Parameter(weight))

    forms = agree(make, [ones])
    assert param_names(forms.captured.module) == ["a"]


def test_weights_are_shared_with_the_model_and_not_copied() -> None:
    model = nn.Linear(3, 3)
    forms = Forms(model, [ones])
    assert forms.captured.tensors["weight"].data_ptr() == model.weight.data_ptr()


def test_a_tensor_that_nothing_uses_is_no_parameter() -> None:
    forms = agree(lambda: Plain(lambda m, x: m.used + x, used=nn.Parameter(ones), other=nn.Parameter(ones * 2)), [ones])
    assert param_names(forms.captured.module) == ["used"]


def test_a_written_parameter_is_state() -> None:
    forms = agree(lambda: Plain(lambda m, x: m.p.add_(x) * 2, p=nn.Parameter(torch.zeros(3))), [ones])
    assert [info.name for info in states_of(forms.captured.module)] == ["p"]


def test_a_state_keeps_its_initial_value_and_says_whether_that_is_zero() -> None:
    def make() -> nn.Module:
        model = Plain(lambda m, x: (m.count.add_(1), m.mean.mul_(0.5).add_(x)))
        model.register_buffer("count", torch.zeros((), dtype=torch.int64))
        model.register_buffer("mean", torch.full((3,), 4.0))
        return model

    forms = agree(make, [ones], calls=3)
    assert {info.name: info.zeros for info in states_of(forms.captured.module)} == {"count": True, "mean": False}


def test_capture_leaves_the_model_as_it_was() -> None:
    def make() -> nn.Module:
        model = Plain(lambda m, x: m.cache.append(0, x) + m.total.add_(x) + m.weight, cache=Cache())
        model.register_buffer("total", torch.zeros(3))
        model.weight = nn.Parameter(torch.ones(3))
        return model

    model = make()
    before = {name: tensor.clone() for name, tensor in held_tensors(model).items()}
    Forms(model, [ones])
    after = held_tensors(model)
    assert set(after) == {"total", *(f"cache.layers.{i}.{name}" for i in (0, 1) for name in ("keys", "count"))}
    for name, tensor in after.items():
        assert_equal([tensor], [before[name]], name)


def test_a_cache_in_a_plain_attribute_is_state_under_its_own_name() -> None:
    def make() -> nn.Module:
        return Plain(lambda m, x: m.cache.append(0, x) + m.cache.append(1, 2 * x), cache=Cache())

    forms = agree(make, [ones], calls=4)
    expected = {f"cache.layers.{i}.{name}" for i in (0, 1) for name in ("keys", "count")}
    assert {info.name for info in states_of(forms.captured.module)} == expected


def test_a_tensor_held_twice_is_one_state() -> None:
    def make() -> nn.Module:
        cache = Cache()
        model = Plain(lambda m, x: m.cache.append(0, x) + m.keys[0], cache=cache)
        model.register_buffer("keys", cache.layers[0]["keys"])
        return model

    forms = agree(make, [ones], calls=3)
    assert {info.name for info in states_of(forms.captured.module)} == {"keys", "cache.layers.0.count"}


def test_a_buffer_registered_twice_is_one_state() -> None:
    def make() -> nn.Module:
        model = Plain(lambda m, x: m.a.add_(x) + m.b)
        shared = torch.zeros(3)
        model.register_buffer("a", shared)
        model.register_buffer("b", shared)
        return model

    assert len(states_of(agree(make, [ones], calls=3).captured.module)) == 1


def test_a_write_to_a_part_of_another_buffer_shows_in_both() -> None:
    def make() -> nn.Module:
        model = Plain(lambda m, x: m.part.add_(x[1:]) + m.whole[1:])
        whole = torch.zeros(3)
        model.register_buffer("whole", whole)
        model.register_buffer("part", whole[1:])
        return model

    assert len(states_of(agree(make, [ones]).captured.module)) == 1


def test_parts_of_one_storage_that_do_not_overlap_are_separate_states() -> None:
    def make() -> nn.Module:
        model = Plain(lambda m, x: (m.first.add_(x[:1]), m.rest.mul_(2).sub_(x[1:])))
        whole = torch.arange(3.0)
        model.register_buffer("first", whole[:1])
        model.register_buffer("rest", whole[1:])
        return model

    assert len(states_of(agree(make, [ones]).captured.module)) == 2


def test_strided_parameters_and_buffers_keep_their_strides() -> None:
    def make() -> nn.Module:
        model = Plain(lambda m, x: (m.w @ x, m.b.t().add_(x).sum(0)), w=nn.Parameter(torch.arange(9.0).view(3, 3).t()))
        model.register_buffer("b", torch.arange(9.0).view(3, 3).t())
        return model

    agree(make, [ones], calls=3)


def test_constants_are_lifted_and_may_be_changed() -> None:
    table = torch.tensor([5.0, 6.0, 7.0])

    def function(x: torch.Tensor) -> torch.Tensor:
        scale = torch.tensor([1.0, 2.0, 3.0])
        scale += 1
        return x * scale + table

    forms = agree(lambda: function, [ones])
    assert states_of(forms.captured.module) == []
    assert len(param_names(forms.captured.module)) == 2


def test_a_function_with_a_tensor_of_its_own_that_it_writes_has_state() -> None:
    def make() -> Callable[..., Any]:
        total = torch.zeros(3)

        def function(x: torch.Tensor) -> torch.Tensor:
            return total.add_(x) * 1

        return function

    forms = Forms(make(), [ones])
    assert len(states_of(forms.captured.module)) == 1
    session, expected = forms.program(lower(forms.optimized("@O2"))).session(), make()
    for _ in range(3):
        assert_equal([session(ones)], [expected(ones)])


def test_a_module_inside_a_plain_list_is_still_found() -> None:
    class Held:
        def __init__(self) -> None:
            self.tensors = (torch.ones(3), {"deep": [torch.full((3,), 2.0)]})

    forms = agree(lambda: Plain(lambda m, x: x * m.held.tensors[0] + m.held.tensors[1]["deep"][0], held=Held()), [ones])
    assert set(param_names(forms.captured.module)) == {"held.tensors.0", "held.tensors.1.deep.0"}


def test_objects_that_refer_to_each_other_are_walked_once() -> None:
    class Node:
        def __init__(self) -> None:
            self.other: Any = None
            self.tensor = torch.ones(2)

    first, second = Node(), Node()
    first.other, second.other = second, first
    model = Plain(lambda m, x: x, node=first)
    assert sorted(held_tensors(model)) == ["node.other.tensor", "node.tensor"]


def test_empty_and_scalar_states() -> None:
    def make() -> nn.Module:
        model = Plain(lambda m, x: (m.empty.add_(1).sum() + m.scalar.add_(x.sum()), m.wide[:, 1:].fill_(2).sum()))
        model.register_buffer("empty", torch.zeros(0, 3))
        model.register_buffer("scalar", torch.tensor(1.5))
        model.register_buffer("wide", torch.zeros(2, 3, dtype=torch.bfloat16))
        return model

    agree(make, [ones], calls=3)
