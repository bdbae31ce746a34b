"""Tensor types: canonical encodings, strides, sizes, and torch's type promotion."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from xdsl.dialects.builtin import DYNAMIC_INDEX, NoneAttr, TensorType, UnrankedTensorType, f32, i64
from xdsl.utils.exceptions import VerifyException

from forgec.ir import types
from forgec.ir.attributes import TensorEncodingAttr
from forgec.runtime.dtypes import from_torch, torch_dtype
from forgec.runtime.symbolic import symbol

S0, S1 = symbol("s0"), symbol("s1")
PROMOTABLE = [name for name in types.ELEMENT_TYPES if not name.startswith("f8")]
PAIRS = list(product(PROMOTABLE, PROMOTABLE))


def test_equal_types_are_one_attribute() -> None:
    assert types.tensor("f32", [4, S0 + 1]) is types.tensor("f32", (4, 1 + S0))
    assert types.tensor("f32", [4, 8], [8, 1]) is types.tensor("f32", [4, 8])
    assert types.tensor(f32, [4, 8]) is types.tensor("f32", [4, 8])


def test_static_row_major_types_have_no_encoding() -> None:
    assert types.tensor("f32", [4, 8]).encoding == NoneAttr()
    assert types.tensor("f32", [4, 8], [1, 4]).encoding == TensorEncodingAttr(((), (1, 4)))
    assert types.tensor("f32", [4, S0]).encoding == TensorEncodingAttr(((S0,), None))


@pytest.mark.parametrize(
    ("shape", "strides"),
    [((1, 8), (3, 1)), ((4, 1), (1, 99)), ((0, 8), (5, 5)), ((S0, 1, 8), (8, 2, 1)), ((), ())],
)
def test_strides_that_address_nothing_do_not_matter(shape: tuple, strides: tuple) -> None:
    assert types.tensor("f32", shape, strides) is types.tensor("f32", shape)
    assert types.is_contiguous(types.tensor("f32", shape, strides))


def test_a_type_says_its_shape_strides_and_size() -> None:
    kind = types.tensor("bf16", (2, S0, 8), (1, 16, 2))
    assert types.shape(kind) == (2, S0, 8)
    assert types.strides(kind) == (1, 16, 2)
    assert types.strides(types.tensor("f32", (2, S0, 8))) == (S0 * 8, 8, 1)
    assert types.numel(kind) == S0 * 16
    assert types.nbytes(kind) == S0 * 32
    assert types.rank(kind) == 3
    assert types.dtype(kind) == "bf16"
    assert not types.is_contiguous(kind)


@pytest.mark.parametrize(
    "kind",
    [
        TensorType(f32, [DYNAMIC_INDEX]),
        TensorType(f32, [DYNAMIC_INDEX], TensorEncodingAttr(((), None))),
        TensorType(f32, [4], TensorEncodingAttr(((S0,), None))),
    ],
)
def test_every_dynamic_extent_needs_one_name(kind: TensorType) -> None:
    with pytest.raises(VerifyException, match="name each dynamic extent"):
        types.shape(kind)


def test_encodings_that_say_too_much_are_not_canonical() -> None:
    assert types.is_canonical(types.tensor("f32", (4, S0), (1, 4)))
    assert not types.is_canonical(TensorType(f32, [4, 8], TensorEncodingAttr(((), (8, 1)))))
    assert not types.is_canonical(TensorType(f32, [4, 8], TensorEncodingAttr(((), None))))
    assert not types.is_canonical(TensorType(f32, [DYNAMIC_INDEX], TensorEncodingAttr(((4,), None))))


def test_what_is_no_tensor_is_refused() -> None:
    with pytest.raises(VerifyException, match="expected a tensor"):
        types.tensor_type(i64)
    with pytest.raises(VerifyException, match="expected a tensor"):
        types.tensor_type(UnrankedTensorType(f32))
    with pytest.raises(VerifyException, match="none that forgec knows"):
        types.dtype(TensorType(TensorType(f32, [1]), [1]))


@pytest.mark.parametrize(("left", "right"), PAIRS)
def test_promotion_of_tensors_is_that_of_torch(left: str, right: str) -> None:
    expected = from_torch(torch.promote_types(torch_dtype(left), torch_dtype(right)))
    assert types.promote(left, right) == (expected or "c64")  # torch's complex32 is none of forgec's dtypes


def test_eight_bit_floats_promote_with_themselves_only() -> None:
    assert types.promote("f8e5m2", "f8e5m2") == "f8e5m2"
    for other in ("f8e4m3fn", "f32", "i64", "i1"):
        with pytest.raises(VerifyException, match="do not promote"):
            types.promote("f8e5m2", other)


operands = st.tuples(st.sampled_from(PROMOTABLE), st.integers(0, 2))
scalars = st.sampled_from([True, 2, 2.5])


@given(st.lists(operands, min_size=1, max_size=2), st.lists(scalars, max_size=1))
def test_result_dtype_is_that_of_torch(values: list[tuple[str, int]], numbers: list[bool | int | float]) -> None:
    tensors = [torch.ones([1] * rank, dtype=torch_dtype(name)) for name, rank in values]
    kinds = [types.tensor(name, [1] * rank) for name, rank in values]
    arguments = [*tensors, *numbers]
    if len(arguments) == 1:
        arguments.append(tensors[0])
    expected = from_torch(torch.result_type(*arguments[:2]))
    if expected is None:
        return
    assert types.result_dtype(kinds[: 2 if len(values) == 2 else 1], [] if len(values) == 2 else numbers) == expected


@pytest.mark.parametrize(("name", "rank", "number"), list(product(PROMOTABLE, (0, 2), (True, 2, 2.5))))
def test_result_dtype_with_a_number_is_that_of_torch(name: str, rank: int, number: bool | int | float) -> None:
    expected = from_torch(torch.result_type(torch.ones([1] * rank, dtype=torch_dtype(name)), number))
    assert types.result_dtype([types.tensor(name, [1] * rank)], [number]) == expected


@pytest.mark.parametrize(("left", "right"), PAIRS)
@pytest.mark.parametrize("ranks", [(0, 1), (1, 0), (0, 0)])
def test_result_dtype_with_rank_0_is_that_of_torch(left: str, right: str, ranks: tuple[int, int]) -> None:
    tensors = [torch.ones([2] * r, dtype=torch_dtype(n)) for n, r in zip((left, right), ranks, strict=True)]
    expected = from_torch(torch.result_type(*tensors))
    kinds = [types.tensor(n, [2] * r) for n, r in zip((left, right), ranks, strict=True)]
    assert types.result_dtype(kinds) == (expected or "c64")


shapes = st.lists(st.sampled_from([0, 1, 2, 3]), max_size=3).map(tuple)


@given(st.lists(shapes, min_size=1, max_size=3))
def test_broadcast_is_that_of_torch(several: list[tuple[int, ...]]) -> None:
    try:
        expected = tuple(torch.broadcast_shapes(*several))
    except RuntimeError:
        with pytest.raises(VerifyException, match="do not broadcast"):
            types.broadcast(*several)
    else:
        assert types.broadcast(*several) == expected


def test_symbolic_extents_broadcast_with_one_and_themselves() -> None:
    assert types.broadcast((S0, 1), (1, S1), (S0, S1)) == (S0, S1)
    for other in (4, S1, S0 + 1, 0):
        with pytest.raises(VerifyException, match="do not broadcast"):
            types.broadcast((S0,), (other,))
