"""Extents and numbers that only the run of a model tells."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.export import Dim

import forgec
from forgec import ForgeError
from forgec.diagnostics import Location
from forgec.ir import plan
from forgec.ir.ops.aten import AtenOp
from tests.capture.compare import agree
from tests.oracle import Forms, lower, tensor_leaves

x = torch.tensor([[0.5, -1.0, 2.0], [-0.25, 0.0, 3.0], [1.0, 1.0, -4.0], [0.0, 5.0, -6.0]])


class Wrapped(torch.nn.Module):
    """A function of tensors as a module with one positional parameter for each."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, a: torch.Tensor) -> Any:
        return self.function(a)


def routed(a: torch.Tensor) -> torch.Tensor:
    """A mixture of experts that gathers the rows of each expert."""
    result = torch.zeros_like(a)
    for expert in range(3):
        (rows,) = torch.where(a.argmax(1) == expert)
        result.index_add_(0, rows, a[rows] * (expert + 1))
    return result


def two_numbers(a: torch.Tensor) -> Any:
    first, second = a.argmax().item(), (a > 0).sum().item()
    torch._check(first >= 0)
    torch._check(second >= 0)
    return torch.arange(first) + 1, torch.zeros(second), torch.ones(first + second).cumsum(0)


def chained(a: torch.Tensor) -> torch.Tensor:
    kept = a[a > 0]
    kept = kept[kept < kept.mean()]
    return kept.softmax(0)


FUNCTIONS: dict[str, Callable[[torch.Tensor], Any]] = {
    "nonzero": lambda a: a.nonzero() + 1,
    "nonzero alone": lambda a: a.nonzero(),
    "where": lambda a: torch.where(a > 0)[1] * 2,
    "a boolean mask": lambda a: a[a > 0],
    "the sum of a mask": lambda a: a[a > 0].sum(),
    "masks of masks": chained,
    "masked_select": lambda a: torch.masked_select(a, a > 0).sigmoid(),
    "unique": lambda a: torch.unique(a.abs().round()) + 1,
    "repeat_interleave": lambda a: torch.repeat_interleave(a, (a.sum(1) > 0).long() + 1, dim=0) * 2,
    "an extent from data": lambda a: torch.zeros(a.argmax().item() + 2, 2) + 1,
    "two extents": two_numbers,
    "experts": routed,
    "a float": lambda a: a * a.sum().item(),
    "comparing with a float": lambda a: (a > a.mean().item(), a.clamp(min=a.mean().item())),
    "a float and integers": lambda a: (a > 0).to(torch.int64) * a.sum().item(),
    "a float and half precision": lambda a: a.to(torch.bfloat16) * a.mean().item(),
    "filled with a float": lambda a: torch.full((2, 2), a.sum().item()),
    "arithmetic on numbers": lambda a: a * (a.sum().item() / 3 + a.max().item() ** 2),
    "a slice": lambda a: a.flatten()[: a.argmax().item() % 4 + 1],
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_level_gives_what_eager_gives(name: str) -> None:
    agree(lambda: Wrapped(FUNCTIONS[name]), [x], sharing=False)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_one_program_serves_other_data(name: str) -> None:
    """Also data for which nothing is selected, and every element."""
    model = Wrapped(FUNCTIONS[name])
    compiled = forgec.compile(model, (x,))
    for other in (x, -x, torch.full_like(x, -1.0), torch.ones_like(x), x.flip(0), x):
        try:
            expected = model(other)
        except (RuntimeError, ValueError):
            with pytest.raises(ForgeError):
                compiled(other)
            continue
        torch.testing.assert_close(compiled(other), expected, equal_nan=True)


NUMBERS: dict[str, tuple[Callable[[torch.Tensor], Any], int]] = {
    "a power of an extent": (lambda a: a * a.shape[0] ** -0.5, 0),
    "a quotient of extents": (lambda a: a * (a.shape[0] / 7 + 1.5), 0),
    "filled with a number": (lambda a: torch.full((a.shape[1],), a.shape[0] * 0.5), 0),
    "an integer returned": (lambda a: (a.shape[0], a.shape[0] * 2 + 1, a + 1), 0),
    "a float returned": (lambda a: {"a": a.shape[0] / 2, "b": a + 1}, 0),
    "a condition returned": (lambda a: (a.shape[0] > 5, a + 1), 0),
    "upsampled": (lambda a: F.interpolate(a[None], scale_factor=1.5) + 1, 1),
    "a tensor of extents": (lambda a: torch.tensor([a.shape[0], a.shape[1]]) + 1, 0),
    "a slice from a computed place": (lambda a: a.flatten()[a.shape[0] - 2 :] * 2, 0),
    "rounded": (lambda a: torch.zeros(math.floor(a.shape[0] * 0.75)) + 1, 0),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_computed_from_extents(name: str) -> None:
    function, axis = NUMBERS[name]
    model = Wrapped(function)
    for pipeline in ("", "@O2"):
        compiled = forgec.compile(model, (x,), dynamic_shapes=({axis: Dim.DYNAMIC},), pipeline=pipeline)
        for size in (4, 9, 2, 6):
            shape = [size, 3] if axis == 0 else [4, size]
            given = torch.randn(shape)
            found, expected = compiled(given), model(given)
            torch.testing.assert_close(found, expected)
            assert [type(v) for v in leaves_of(found)] == [type(v) for v in leaves_of(expected)]


def leaves_of(value: Any) -> Sequence[Any]:
    return torch.utils._pytree.tree_leaves(value)


def test_numbers_are_returned_as_numbers() -> None:
    def function(a: torch.Tensor) -> Any:
        return a.argmax().item(), a.sum().item(), (a.sum() > 0).item(), a + 1

    compiled = forgec.compile(Wrapped(function), (x,))
    for other in (x, -x):
        found, expected = compiled(other), function(other)
        assert [type(v) for v in found] == [type(v) for v in expected]
        assert found[:3] == pytest.approx(expected[:3])


def test_integers_of_the_caller_vary() -> None:
    class Repeated(torch.nn.Module):
        def forward(self, a: torch.Tensor, times: int) -> torch.Tensor:
            return a * times + torch.arange(times).sum()

    compiled = forgec.compile(Repeated(), (x, 5), dynamic_shapes=(None, Dim.DYNAMIC))
    for times in (5, 3, 8):
        torch.testing.assert_close(compiled(x, times), Repeated()(x, times))
    with pytest.raises(ForgeError, match="FORGE-R00"):
        compiled(x, "five")


def test_the_plan_is_cut_where_extents_become_known() -> None:
    forms = Forms(Wrapped(routed), [x])
    defining = [op for op in forms.captured.module.walk() if isinstance(op, AtenOp) and op.defines is not None]
    assert [op.defined_symbols for op in defining] == [("u0",), ("u1",), ("u2",)]
    entries = [op for op in lower(forms.captured.module).ops if isinstance(op, plan.EntryOp)]
    assert len(entries) == 3, "all rows are chosen at once, and the rest is one segment"
    assert [op.private is not None for op in entries] == [False, True, True]


def test_an_extent_outside_the_range_that_the_model_demands() -> None:
    def function(a: torch.Tensor) -> torch.Tensor:
        count = a.argmax().item()
        torch._check(count >= 2)
        torch._check(count <= 10)
        return torch.zeros(count)

    compiled = forgec.compile(Wrapped(function), (torch.eye(4)[2],))
    assert compiled(torch.eye(4)[3]).shape == (3,)
    with pytest.raises(ForgeError) as raised:
        compiled(torch.eye(4)[1])
    assert raised.value.code in ("FORGE-R004", "FORGE-R011")
    place = raised.value.diagnostics[0].location
    assert isinstance(place, Location)
    assert place.file.endswith("test_run_time_extents.py")


def test_the_models_own_words_for_a_negative_number() -> None:
    def function(a: torch.Tensor) -> torch.Tensor:
        count = a.sum().long().item()
        torch._check(count >= 0, lambda: "no negative numbers")
        torch._check(2 * count + 1 < 30, lambda: "not so many")
        return torch.zeros(count)

    compiled = forgec.compile(Wrapped(function), (torch.ones(2),))
    assert compiled(torch.ones(9)[:2] * 3).shape == (6,)
    for value, message in ((-3.0, "no negative numbers"), (9.0, "not so many")):
        with pytest.raises(ForgeError, match=message) as raised:
            compiled(torch.full((2,), value))
        assert raised.value.code == "FORGE-R011"


def test_a_number_without_a_name_is_called_what_the_user_wrote() -> None:
    def function(a: torch.Tensor) -> torch.Tensor:
        return torch.zeros(a.sum().long().item())

    with pytest.raises(ForgeError, match=r"'a.sum\(\).long\(\).item\(\)' is -6") as raised:
        forgec.compile(Wrapped(function), (torch.ones(2),))(torch.full((2,), -3.0))
    assert raised.value.code == "FORGE-R004"


def test_the_models_own_words_for_what_it_demands() -> None:
    def function(a: torch.Tensor) -> torch.Tensor:
        count = a.argmax().item()
        torch._check(count > 2, lambda: "at least three")
        torch._check(count % 2 == 0, lambda: "an even number")
        return torch.zeros(count)

    compiled = forgec.compile(Wrapped(function), (torch.eye(9)[4],))
    assert compiled(torch.eye(9)[6]).shape == (6,)
    for index, message in ((2, "at least three"), (5, "an even number")):
        with pytest.raises(ForgeError, match=message) as raised:
            compiled(torch.eye(9)[index])
        assert raised.value.code == "FORGE-R011"
        place = raised.value.diagnostics[0].location
        assert place is not None
        assert message in Path(place.file).read_text().splitlines()[place.line - 1]


def test_saved_and_loaded(tmp_path: Any) -> None:
    compiled = forgec.compile(Wrapped(routed), (x,))
    compiled.save(tmp_path / "experts.forge")
    loaded = forgec.load(tmp_path / "experts.forge")
    assert loaded.entries == ("forward",)
    for other in (x, -x):
        torch.testing.assert_close(loaded(other), routed(other))


def test_state_is_written_across_segments() -> None:
    class Remembering(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("seen", torch.zeros(3))

        def forward(self, a: torch.Tensor) -> torch.Tensor:
            before = self.seen.clone()
            (rows,) = torch.where(a.sum(1) > 0)
            self.seen += a[rows].sum(0)
            return before + self.seen * rows.shape[0]

    agree(Remembering, [x], calls=3)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_random_chains_of_selections(data: st.DataObject) -> None:
    """Each step selects, computes, or takes a number of what is left."""
    steps: list[tuple[str, float]] = data.draw(
        st.lists(
            st.tuples(st.sampled_from(["select", "scale", "shift", "rows", "number"]), st.floats(-1, 1)), max_size=6
        )
    )

    def function(a: torch.Tensor) -> Any:
        numbers = []
        for step, value in steps:
            if step == "select":
                a = a[a > value]
            elif step == "scale":
                a = a * (value + 2)
            elif step == "shift":
                a = a - a.sum().item() * value
            elif step == "rows":
                a = a[torch.where(a.abs() > abs(value))[0]]
            else:
                numbers.append(a.sum().item())
        return a, numbers

    flat = torch.linspace(-2, 2, 9)
    compiled = forgec.compile(Wrapped(function), (flat,))
    for given_ in (flat, flat * 0, flat.exp()):
        found, expected = compiled(given_), function(given_)
        torch.testing.assert_close(tensor_leaves(found), tensor_leaves(expected))
        assert found[1] == pytest.approx(expected[1], rel=1e-5, abs=1e-6)


class Cache(torch.nn.Module):
    """Writes its rows at the place that it counts."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.tensor(0))
        self.register_buffer("rows", torch.zeros(16, 3))

    def forward(self, a: torch.Tensor) -> torch.Tensor:
        start = self.get_buffer("count").item()
        torch._check(start >= 0)
        torch._check(start + a.shape[0] <= 16, lambda: "the cache is full")
        self.get_buffer("rows")[start : start + a.shape[0]] = a
        self.get_buffer("count").add_(a.shape[0])
        return self.get_buffer("rows").sum(0)


@pytest.mark.parametrize("dynamic", [False, True])
def test_a_cache_that_counts(dynamic: bool) -> None:
    shapes = ({0: forgec.Dim("rows", min=1, max=8)},) if dynamic else None
    session = forgec.compile(Cache(), (x,), dynamic_shapes=shapes).session()
    eager = Cache()
    for _ in range(4):
        torch.testing.assert_close(session(x), eager(x))
    with pytest.raises(ForgeError) as raised:
        session(x)
    assert raised.value.code == "FORGE-R011"
    assert dynamic or "the cache is full" in str(raised.value)


def test_a_branch_on_what_was_known_before_the_extents() -> None:
    def function(a: torch.Tensor) -> torch.Tensor:
        positive = a.sum() > 0
        return torch.cond(positive, lambda i: i * 2, lambda i: i + 1, (a.flatten().nonzero(),))

    compiled = forgec.compile(Wrapped(function), (x,))
    for given_ in (x + 1, x - 1):
        torch.testing.assert_close(compiled(given_), function(given_))
    agree(lambda: Wrapped(function), [x + 1], sharing=False)


@pytest.mark.parametrize("own", [True, False])
def test_a_number_of_what_is_written_later(own: bool) -> None:
    def model(x: torch.Tensor) -> torch.Tensor:
        x = x if own else x * 1
        first = x[0].item()
        x.add_(1)
        return x * first

    agree(lambda: model, (torch.tensor([2.0, 3.0]),))
