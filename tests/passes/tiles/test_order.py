"""Sorting, searching and the places of the greatest elements, in rows of any length."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from xdsl.dialects.builtin import IntAttr
from xdsl.ir import SSAValue

import forgec
from forgec.ir.attributes import ExtentAttr
from forgec.ir.ops.order import MaxOp, SortOp, TopkOp
from forgec.ir.ops.reduction import ArgmaxOp, ArgminOp
from forgec.passes.tiles.rules import order, reduction
from forgec.runtime.kernels import is_kernel
from tests.passes.tiles.lowering import UNIT, check, numbers


@pytest.fixture
def short_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of a few elements are long ones."""
    monkeypatch.setattr(order, "LONGEST", 4)
    monkeypatch.setattr(reduction, "WHOLE", 4)


def sorting(dim: int, descending: bool) -> Any:
    options = {"descending": UNIT} if descending else {}

    def make(emit: Any, value: SSAValue) -> list[SSAValue]:
        return list(emit.all(SortOp, value, dim=IntAttr(dim), stable=UNIT, **options))

    return make


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.uint8, torch.bool])
@pytest.mark.parametrize("descending", [False, True])
def test_long_rows_are_sorted(short_rows: None, dtype: torch.dtype, descending: bool) -> None:
    check(sorting(1, descending), numbers(3, 9, dtype=dtype))


@pytest.mark.parametrize("length", [1, 2, 7])
def test_rows_of_any_length_are_sorted(length: int) -> None:
    check(sorting(0, True), numbers(length, 3), dynamic=[(0, 0)])


@settings(max_examples=10, deadline=None)
@given(st.lists(st.sampled_from([0.0, -0.0, 1.0, float("nan"), float("inf"), -float("inf")]), min_size=1, max_size=9))
def test_nan_is_the_greatest(values: list[float]) -> None:
    before, order.LONGEST = order.LONGEST, 0
    try:
        check(sorting(0, len(values) % 2 == 0), torch.tensor(values))
    finally:
        order.LONGEST = before


@pytest.mark.parametrize("smallest", [False, True])
def test_the_first_of_long_rows(short_rows: None, smallest: bool) -> None:
    options = {"smallest": UNIT} if smallest else {}

    def make(emit: Any, value: SSAValue) -> list[SSAValue]:
        return list(emit.all(TopkOp, value, k=ExtentAttr(3), dim=IntAttr(1), **options))

    check(make, torch.randperm(22).reshape(2, 11).float())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.int64, torch.uint8])
@pytest.mark.parametrize("cls", [ArgmaxOp, ArgminOp])
def test_places_in_long_rows(short_rows: None, cls: Any, dtype: torch.dtype) -> None:
    check(lambda emit, value: [emit(cls, value, dim=IntAttr(0))], numbers(150, 3, dtype=dtype))


def test_places_of_nan_and_of_rows_of_infinities(short_rows: None) -> None:
    value = numbers(4, 90)
    value[0, 77] = value[0, 80] = float("nan")
    value[1] = -float("inf")
    value[2] = float("inf")
    for cls in (ArgmaxOp, ArgminOp):
        check(lambda emit, given, cls=cls: [emit(cls, given, dim=IntAttr(1))], value)


@pytest.mark.parametrize("length", [1, 5, 70])
def test_places_in_rows_of_any_length(length: int) -> None:
    def make(emit: Any, value: SSAValue) -> list[SSAValue]:
        return [*emit.all(MaxOp, value, dim=IntAttr(0)), emit(ArgminOp, value, dim=IntAttr(0), keepdim=UNIT)]

    check(make, numbers(length, 2), dynamic=[(0, 0)])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("count", [6, 600])
def test_zeros_keep_their_signs(dtype: torch.dtype, count: int) -> None:
    """What is sorted is a permutation of what is given: equal values in their order, each with its own sign."""
    x = torch.arange(count, dtype=torch.float32).fmod(3).sub(1).to(dtype)
    x[::2] *= -0.0
    compiled = forgec.compile(Sorted(), (x,), target="cpu:host")
    assert all(is_kernel(launch.op) for entry in compiled._exported.entries for launch in entry.launches)
    values, greatest = compiled(x)
    expected = x.sort(stable=True)
    assert torch.equal(values, expected.values)
    assert torch.equal(values.signbit(), x[expected.indices].signbit())
    descending = x.sort(stable=True, descending=True)
    assert torch.equal(greatest.signbit(), x[descending.indices[:5]].signbit())


class Sorted(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x.sort(stable=True).values, x.topk(5).values


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.uint8]
)
@pytest.mark.parametrize(("rows", "extent", "kept"), [(3, 700, 50), (1, 64, 64), (5, 9, 8), (2, 1, 1)])
def test_the_greatest_few_one_after_the_other(dtype: torch.dtype, rows: int, extent: int, kept: int) -> None:
    """As a stable sort has them, with NaN before all, infinities that repeat, and zeros of both signs."""
    x = numbers(rows, extent, dtype=dtype)
    if dtype.is_floating_point:
        x[0, ::3] = -float("inf")
        x[-1, 1::4] = float("nan")
        x[-1, 2::8], x[-1, 6::8] = 0.0, -0.0

    def greatest(value: Tensor) -> tuple[Tensor, Tensor]:
        found = value.topk(kept)
        return found.values, found.indices

    program = forgec.compile(greatest, (x,), target="cpu:x86-64-v3")
    expected = x.sort(stable=True, descending=True)
    values, places = program(x)
    assert torch.equal(places, expected.indices[:, :kept])
    assert torch.equal(values.nan_to_num(7), expected.values[:, :kept].nan_to_num(7))
    if dtype.is_floating_point:
        assert torch.equal(values.signbit() & ~values.isnan(), expected.values[:, :kept].signbit() & ~values.isnan())


def test_the_greatest_few_along_another_dimension() -> None:
    def greatest(value: Tensor) -> tuple[Tensor, Tensor]:
        found = (value * 2).topk(3, 0)
        return found.values + 1, found.indices

    x = torch.randperm(40 * 6).reshape(40, 6).float()
    program = forgec.compile(greatest, (x,), target="cpu:x86-64-v3")
    for found, expected in zip(program(x), greatest(x), strict=True):
        assert torch.equal(found, expected)
