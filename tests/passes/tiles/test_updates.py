"""Kernels that change some elements of a value, in its own memory where that may be written."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from xdsl.dialects.builtin import IntAttr
from xdsl.ir import SSAValue

from forgec.ir.attributes import ExtentAttr, ExtentsAttr, IntsAttr
from forgec.ir.ops.base import ForgeOp
from forgec.ir.ops.binary import MaximumOp
from forgec.ir.ops.index import IndexAddOp, IndexCopyOp, IndexPutOp, ScatterAddOp, ScatterOp
from forgec.ir.ops.shape import InsertSliceOp
from forgec.ir.ops.window import InsertWindowOp
from forgec.ir.tile.kernel import LaunchOp
from tests.passes.tiles.lowering import UNIT, check, numbers

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.int32, torch.uint8, torch.bool]


def fresh(emit: Any, value: SSAValue) -> SSAValue:
    """The value in memory of its own, which may be written."""
    return emit(MaximumOp, value, value)


def placed(cls: type[ForgeOp], dim: int, owned: bool = True) -> Any:
    def make(emit: Any, destination: SSAValue, index: SSAValue, source: SSAValue) -> list[SSAValue]:
        destination = fresh(emit, destination) if owned else destination
        return [emit(cls, destination, index, source, dim=IntAttr(dim))]

    return make


def updating(module: Any) -> list[LaunchOp]:
    return [op for op in module.walk() if isinstance(op, LaunchOp) and op.updates.data]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("owned", [True, False])
def test_slices_are_copied_to_places(dtype: torch.dtype, owned: bool) -> None:
    index = torch.tensor([8, 0, 3])
    source = numbers(4, 3, 5, dtype=dtype, seed=1)
    module = check(placed(IndexCopyOp, 1, owned), numbers(4, 9, 5, dtype=dtype), index, source)
    assert len(updating(module)) == 1


def test_a_destination_that_is_needed_is_copied_by_a_kernel() -> None:
    def make(emit: Any, destination: SSAValue, index: SSAValue, source: SSAValue) -> list[SSAValue]:
        own = fresh(emit, destination)
        return [emit(IndexCopyOp, own, index, source, dim=IntAttr(0)), own]

    module = check(make, numbers(5, 3), torch.tensor([4, 1]), numbers(2, 3, seed=1))
    assert len([op for op in module.walk() if isinstance(op, LaunchOp)]) == 3


def test_source_and_destination_may_be_one_value() -> None:
    def make(emit: Any, value: SSAValue, index: SSAValue) -> list[SSAValue]:
        own = fresh(emit, value)
        return [emit(ScatterOp, own, index, own, dim=IntAttr(0))]

    check(make, numbers(7), torch.tensor([3, 0, 6, 1, 2, 5, 4]))


@pytest.mark.parametrize("dtype", [d for d in DTYPES if d != torch.bool])
@pytest.mark.parametrize("cls", [IndexAddOp, ScatterAddOp])
def test_repeated_places_add_up(cls: type[ForgeOp], dtype: torch.dtype) -> None:
    index = torch.tensor([2, 0, 2, 2])
    source = numbers(4, 3, dtype=dtype, seed=1)
    check(
        placed(cls, 0),
        numbers(5, 3, dtype=dtype),
        index if cls is IndexAddOp else index[:, None].expand(4, 3).clone(),
        source,
    )


def test_booleans_are_not_added() -> None:
    index, source = torch.tensor([2, 0]), numbers(2, 3, dtype=torch.bool, seed=1)
    check(placed(IndexAddOp, 0), numbers(5, 3, dtype=torch.bool), index, source, rest=["forge.index_add"])


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_elements_at_computed_places(data: st.DataObject) -> None:
    """Scatters of any extents, 0 and 1 too, along any dimension."""
    rank = data.draw(st.integers(1, 3))
    shape = [data.draw(st.integers(1, 9)) for _ in range(rank)]
    dim = data.draw(st.integers(0, rank - 1))
    taken = [data.draw(st.integers(0, n)) for n in shape]
    adds = data.draw(st.booleans())
    if adds:
        index = torch.randint(0, shape[dim], taken)
    else:  # places that do not repeat: what stays of several is not said
        order = torch.rand([*taken[:dim], shape[dim], *taken[dim + 1 :]]).argsort(dim)
        index = order.narrow(dim, 0, taken[dim]).contiguous()
    dtype = data.draw(st.sampled_from([torch.float32, torch.int64, torch.bfloat16]))
    width = torch.int32 if data.draw(st.booleans()) else torch.int64
    source = numbers(*[n + data.draw(st.integers(0, 2)) for n in taken], dtype=dtype, seed=3)
    check(placed(ScatterAddOp if adds else ScatterOp, dim), numbers(*shape, dtype=dtype), index.to(width), source)


@pytest.mark.parametrize("accumulate", [False, True])
@pytest.mark.parametrize("dims", [[0], [1], [0, 1], [0, 2], [1, 2]])
def test_advanced_indices(dims: list[int], accumulate: bool) -> None:
    shape = (5, 6, 7)
    indices = [torch.tensor([[0, -1, 3], [1, 4, -4]]), torch.tensor([2, 1, 4])][: len(dims)]
    value = numbers(*shape)[tuple(indices[dims.index(d)] if d in dims else slice(None) for d in range(3))]
    options = {"accumulate": UNIT} if accumulate else {}

    def make(emit: Any, destination: SSAValue, values: SSAValue, *given: SSAValue) -> list[SSAValue]:
        return [emit(IndexPutOp, fresh(emit, destination), values, *given, dims=IntsAttr(dims), **options)]

    check(make, numbers(*shape, seed=5), numbers(*value.shape, seed=6), *indices)


@pytest.mark.parametrize(("extent", "start", "step", "count"), [(9, 2, 1, 4), (9, 0, 2, 5), (9, 8, 1, 1), (9, 3, 1, 0)])
@pytest.mark.parametrize("owned", [True, False])
def test_slices(extent: int, start: int, step: int, count: int, owned: bool) -> None:
    def make(emit: Any, source: SSAValue, destination: SSAValue) -> list[SSAValue]:
        place = {"dim": IntAttr(1), "start": ExtentAttr(start), "step": ExtentAttr(step)}
        return [emit(InsertSliceOp, source, fresh(emit, destination) if owned else destination, **place)]

    module = check(make, numbers(3, count, 4), numbers(3, extent, 4, seed=1))
    assert len(updating(module)) == owned


def test_windows() -> None:
    def make(emit: Any, source: SSAValue, destination: SSAValue) -> list[SSAValue]:
        place = {"start": ExtentsAttr([1, 0]), "steps": ExtentsAttr([1, 1])}
        return [emit(InsertWindowOp, source, fresh(emit, destination), **place)]

    check(make, numbers(4), numbers(5, 6, seed=1))


def test_an_index_outside_is_refused() -> None:
    with pytest.raises(Exception, match="index"):
        check(placed(IndexCopyOp, 0), numbers(4, 2), torch.tensor([4]), numbers(1, 2))


@pytest.mark.parametrize("rows", [1, 6, 65])
def test_rows_of_any_number(rows: int) -> None:
    index = torch.randperm(80)[:rows]
    check(placed(IndexCopyOp, 0), numbers(80, 5), index, numbers(rows, 5, seed=2), dynamic=[(1, 0), (2, 0)])
