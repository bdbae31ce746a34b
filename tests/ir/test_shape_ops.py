"""Rearranging, creating, indexing ops against eager PyTorch."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from xdsl.dialects.builtin import IntAttr, UnitAttr
from xdsl.ir import Attribute
from xdsl.utils.exceptions import VerifyException

from forgec.ir import types
from forgec.ir.attributes import ExtentAttr, IntsAttr, ScalarAttr
from forgec.ir.ops.creation import FullOp, IotaOp
from forgec.ir.ops.index import (
    EmbeddingOp,
    GatherOp,
    IndexCopyOp,
    IndexOp,
    IndexPutOp,
    IndexSelectOp,
    ScatterOp,
)
from forgec.ir.ops.shape import BroadcastOp, ConcatOp, CopyOp, InsertSliceOp, ReshapeOp, SliceOp, TransposeOp
from forgec.runtime.dtypes import torch_dtype
from tests.ir.build import run_op

X = torch.arange(2 * 3 * 4, dtype=torch.float32).reshape(2, 3, 4)


def same(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def part(dim: int, start: int, step: int = 1) -> dict[str, Attribute]:
    """The properties of a slice."""
    return {"dim": IntAttr(dim), "start": ExtentAttr(start), "step": ExtentAttr(step)}


def test_copy_and_reshape_and_broadcast() -> None:
    same(run_op(CopyOp, [X]), X)
    same(run_op(CopyOp, [X], None, [types.tensor("f32", (2, 3, 4), (1, 2, 6))]), X)
    same(run_op(ReshapeOp, [X], None, [types.tensor("f32", (6, 2, 2))]), X.reshape(6, 2, 2))
    same(run_op(BroadcastOp, [X[:, :1]], None, [types.tensor("f32", (5, 2, 3, 4))]), X[:, :1].expand(5, 2, 3, 4))
    with pytest.raises(VerifyException, match="cannot reshape 24 elements to 20"):
        run_op(ReshapeOp, [X], None, [types.tensor("f32", (5, 4))])
    with pytest.raises(VerifyException, match="do not broadcast"):
        run_op(BroadcastOp, [X], None, [types.tensor("f32", (2, 5, 4))])
    with pytest.raises(VerifyException, match="does not broadcast"):
        run_op(BroadcastOp, [X], None, [types.tensor("f32", (1, 3, 4))])


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_transpose(order: tuple[int, ...]) -> None:
    same(run_op(TransposeOp, [X], {"permutation": IntsAttr(order)}), X.permute(order))


@pytest.mark.parametrize("order", [(0, 1), (0, 1, 1), (0, 1, 3), (-1, 0, 1)])
def test_transpose_needs_a_permutation(order: tuple[int, ...]) -> None:
    with pytest.raises(VerifyException, match="no permutation"):
        run_op(TransposeOp, [X], {"permutation": IntsAttr(order)})


@given(st.integers(0, 9), st.integers(0, 10), st.integers(1, 4))
def test_slice_and_insert_slice_are_those_of_torch(start: int, stop: int, step: int) -> None:
    x = torch.arange(20.0).reshape(2, 10)
    expected = x[:, start:stop:step]
    found = run_op(SliceOp, [x], part(1, start, step), [types.tensor("f32", expected.shape)])
    same(found, expected)
    source = -torch.ones_like(expected)
    changed = x.clone()
    changed[:, start:stop:step] = source
    same(run_op(InsertSliceOp, [source, x], part(1, start, step)), changed)


@pytest.mark.parametrize(
    ("start", "count", "step"), [(0, 11, 1), (10, 1, 1), (1, 5, 2 + 1), (-1, 1, 1), (0, 2, 0), (0, 2, -1)]
)
def test_slices_stay_inside(start: int, count: int, step: int) -> None:
    x = torch.ones(2, 10)
    with pytest.raises(VerifyException, match=r"leaves the dimension|must be positive|must not be negative"):
        run_op(SliceOp, [x], part(1, start, step), [types.tensor("f32", (2, count))])
    with pytest.raises(VerifyException, match=r"leaves the dimension|must be positive|must not be negative"):
        run_op(InsertSliceOp, [torch.ones(2, count), x], part(1, start, step))


def test_insert_slice_keeps_dtypes_and_extents() -> None:
    with pytest.raises(VerifyException, match="different dtypes"):
        run_op(InsertSliceOp, [X[:1].long(), X], part(0, 0))
    with pytest.raises(VerifyException, match="outside the sliced dimension"):
        run_op(InsertSliceOp, [X[:, :2], X], part(0, 0))


def test_concat_promotes_and_adds_up() -> None:
    same(run_op(ConcatOp, [X, X[:, :1].bfloat16(), X], {"dim": IntAttr(1)}), torch.cat([X, X[:, :1], X], 1))
    same(run_op(ConcatOp, [X], {"dim": IntAttr(2)}), X)
    with pytest.raises(VerifyException, match="extents differ"):
        run_op(ConcatOp, [X, X[:1]], {"dim": IntAttr(1)})
    with pytest.raises(VerifyException, match="needs an operand"):
        run_op(ConcatOp, [], {"dim": IntAttr(1)})


@pytest.mark.parametrize("name", ["f32", "f16", "bf16", "i64", "i32", "ui8", "i1"])
def test_full(name: str) -> None:
    for value in (True, 2, 0.5):
        expected = torch.full((2, 3), value, dtype=torch_dtype(name))
        same(run_op(FullOp, [], {"value": ScalarAttr.of(value)}, [types.tensor(name, (2, 3))]), expected)
    with pytest.raises(VerifyException, match="must be given"):
        FullOp.make([], {"value": ScalarAttr.of(1)})


def test_iota() -> None:
    properties: dict[str, Attribute] = {"start": ExtentAttr(3), "step": ExtentAttr(-2)}
    same(run_op(IotaOp, [], properties, [types.tensor("i32", (4,))]), torch.arange(3, -5, -2, dtype=torch.int32))
    same(run_op(IotaOp, [], properties, [types.tensor("i64", (0,))]), torch.arange(0))
    for kind in (types.tensor("f32", (4,)), types.tensor("i64", (2, 2)), types.tensor("i1", (2,))):
        with pytest.raises(VerifyException, match="integers of rank 1"):
            run_op(IotaOp, [], properties, [kind])


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
def test_embedding_index_select_and_gather(dtype: torch.dtype) -> None:
    weight = torch.randn(7, 3)
    indices = torch.tensor([[0, 6, 2], [2, 2, 1]], dtype=dtype)
    same(run_op(EmbeddingOp, [weight, indices]), weight[indices])
    same(run_op(EmbeddingOp, [weight, indices[0, 0]]), weight[0])
    row = torch.tensor([2, 0, 0, 1], dtype=dtype)
    for dim in (0, 1):
        row = row % X.shape[dim]
        same(run_op(IndexSelectOp, [X, row], {"dim": IntAttr(dim)}), X.index_select(dim, row))
    places = torch.tensor([[[0, 1], [2, 0]]], dtype=dtype)
    same(run_op(GatherOp, [X, places], {"dim": IntAttr(1)}), X.gather(1, places.long()))


INDEXINGS: list[tuple[list[int], list[tuple[int, ...]]]] = [
    ([0], [()]),
    ([0], [(5,)]),
    ([1], [(2, 2)]),
    ([0, 1], [(3,), (3,)]),
    ([0, 1], [(2, 1), (3,)]),
    ([1, 2], [(3,), ()]),
    ([0, 2], [(3,), (3,)]),
    ([0, 2], [(), ()]),
    ([1, 3], [(2, 1), (1, 2)]),
    ([0, 2, 3], [(3,), (3,), (3,)]),
    ([0, 1, 2, 3], [(3,), (2, 1), (1,), ()]),
]


def _indices(dims: list[int], shapes: list[tuple[int, ...]], extents: torch.Size) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [
        torch.randint(-extents[d], extents[d], shape, generator=generator)
        for d, shape in zip(dims, shapes, strict=True)
    ]


@pytest.mark.parametrize(("dims", "shapes"), INDEXINGS)
def test_index_follows_torch_where_dimensions_are_adjacent_and_where_not(dims: list[int], shapes: list) -> None:
    x = torch.randn(2, 3, 4, 5)
    indices = _indices(dims, shapes, x.shape)
    subscript: list[Any] = [slice(None)] * 4
    for dim, index in zip(dims, indices, strict=True):
        subscript[dim] = index
    same(run_op(IndexOp, [x, *indices], {"dims": IntsAttr(dims)}), x[tuple(subscript)])


@pytest.mark.parametrize("accumulate", [False, True])
@pytest.mark.parametrize(("dims", "shapes"), INDEXINGS)
def test_index_put_writes_what_index_reads(dims: list[int], shapes: list, accumulate: bool) -> None:
    x = torch.zeros(2, 3, 4, 5)
    indices = _indices(dims, shapes, x.shape)
    properties: dict[str, Attribute] = {"dims": IntsAttr(dims)}
    if accumulate:
        properties["accumulate"] = UnitAttr()
    before = x.clone()
    found = run_op(IndexPutOp, [x, torch.tensor(1.5), *indices], properties)
    same(x, before)
    places: list[torch.Tensor | None] = [None] * 4
    for dim, index in zip(dims, indices, strict=True):
        places[dim] = index
    expected = torch.ops.aten.index_put(x, places, torch.tensor(1.5), accumulate)
    same(found, expected)


def test_index_refuses_what_is_no_index() -> None:
    mask, place = torch.ones(2, dtype=torch.bool), torch.zeros(2, dtype=torch.int64)
    with pytest.raises(VerifyException, match="takes indices of type i64 or i32, found i1"):
        run_op(IndexOp, [X, mask], {"dims": IntsAttr([0])})
    for dims in ([], [0, 1], [1, 0], [3]):
        with pytest.raises(VerifyException, match=r"index tensors for|must exist and ascend|out of range"):
            run_op(IndexOp, [X, *([place] * (2 if dims == [1, 0] else 1))], {"dims": IntsAttr(dims)})
    with pytest.raises(VerifyException, match="the values do not broadcast"):
        run_op(IndexPutOp, [X, torch.ones(1, 2, 3, 4), place], {"dims": IntsAttr([0])})
    with pytest.raises(VerifyException, match="do not broadcast"):
        run_op(IndexPutOp, [X, torch.ones(9), place], {"dims": IntsAttr([0])})


def test_index_copy() -> None:
    index, source = torch.tensor([3, 0]), -torch.ones(2, 3, 2)
    same(run_op(IndexCopyOp, [X, index, source], {"dim": IntAttr(2)}), X.index_copy(2, index, source))
    with pytest.raises(VerifyException, match="the source must have shape"):
        run_op(IndexCopyOp, [X, index, source], {"dim": IntAttr(1)})
    with pytest.raises(VerifyException, match="operands of one dtype"):
        run_op(IndexCopyOp, [X, index, source.long()], {"dim": IntAttr(2)})


def test_scatter() -> None:
    index = torch.tensor([[[0, 2], [1, 0]]])
    source = -torch.ones(1, 2, 2)
    same(run_op(ScatterOp, [X, index, source], {"dim": IntAttr(2)}), X.scatter(2, index, source))
    with pytest.raises(VerifyException, match="extent 2 of dimension 1 exceeds 1"):
        run_op(ScatterOp, [X, index, source[:, :1]], {"dim": IntAttr(2)})
    with pytest.raises(VerifyException, match="ranks"):
        run_op(ScatterOp, [X, index[0], source[0]], {"dim": IntAttr(1)})
    with pytest.raises(VerifyException, match="ranks"):
        run_op(GatherOp, [X, index[0]], {"dim": IntAttr(1)})
