"""Reductions, running sums and softmax against eager PyTorch."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from xdsl.dialects.builtin import IntAttr, UnitAttr
from xdsl.ir import Attribute
from xdsl.utils.exceptions import VerifyException

from forgec.ir import types
from forgec.ir.attributes import IntsAttr, ScalarAttr
from forgec.ir.ops.reduction import (
    AllOp,
    AmaxOp,
    AminOp,
    AnyOp,
    ArgmaxOp,
    ArgminOp,
    CumsumOp,
    LogSoftmaxOp,
    MeanOp,
    ProdOp,
    ReductionOp,
    SoftmaxOp,
    SumOp,
    VarOp,
)
from forgec.runtime.dtypes import torch_dtype
from tests.ir.build import run_op

NUMBERS = ["f64", "f32", "f16", "bf16", "i64", "i32", "i16", "i8", "ui8", "i1"]
FLOATS = ["f64", "f32", "f16", "bf16"]
ANY_DIMS = [dims for count in (1, 2, 3) for dims in combinations(range(3), count)]


def numbers(name: str, *shape: int) -> torch.Tensor:
    """Small random numbers."""
    generator = torch.Generator().manual_seed(0)
    if name in types.FLOATS:
        return torch.randn(shape, generator=generator).to(torch_dtype(name))
    return torch.randint(0, 4, shape, generator=generator).to(torch_dtype(name))


def over(*dims: int, keepdim: bool = False) -> dict[str, Attribute]:
    """The properties of a reduction."""
    return {"dims": IntsAttr(dims), **({"keepdim": UnitAttr()} if keepdim else {})}


def assert_same(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("keepdim", [False, True])
@pytest.mark.parametrize("dims", ANY_DIMS)
def test_sum_and_extremes(name: str, dims: tuple[int, ...], keepdim: bool) -> None:
    x = numbers(name, 2, 3, 4)
    assert_same(run_op(SumOp, [x], over(*dims, keepdim=keepdim)), x.sum(dims, keepdim))
    assert_same(run_op(AmaxOp, [x], over(*dims, keepdim=keepdim)), x.amax(dims, keepdim))
    assert_same(run_op(AminOp, [x], over(*dims, keepdim=keepdim)), x.amin(dims, keepdim))


@pytest.mark.parametrize("name", NUMBERS)
def test_prod_multiplies_one_dimension_after_the_other(name: str) -> None:
    x = numbers(name, 2, 3)
    assert_same(run_op(ProdOp, [x], over(1)), x.prod(1))
    assert_same(run_op(ProdOp, [x], over(0, keepdim=True)), x.prod(0, keepdim=True))
    torch.testing.assert_close(run_op(ProdOp, [x], over(0, 1)), x.prod())


@pytest.mark.parametrize("op", [SumOp, ProdOp])
def test_integers_may_be_reduced_to_a_float(op: type[ReductionOp]) -> None:
    x = numbers("i64", 2, 3)
    found = run_op(op, [x], over(1), [types.tensor("f32", (2,))])
    assert_same(found, getattr(x, op.name.removeprefix("forge."))(1, dtype=torch.float32))
    with pytest.raises(VerifyException, match="has type i16"):
        run_op(op, [x], over(1), [types.tensor("i16", (2,))])


@pytest.mark.parametrize("name", FLOATS)
@pytest.mark.parametrize("dims", ANY_DIMS)
def test_mean_and_variance(name: str, dims: tuple[int, ...]) -> None:
    x = numbers(name, 2, 3, 4)
    assert_same(run_op(MeanOp, [x], over(*dims)), x.mean(dims))
    for correction in (0, 1, 0.5):
        properties = {**over(*dims, keepdim=True), "correction": ScalarAttr.of(correction)}
        assert_same(run_op(VarOp, [x], properties), torch.var(x, dims, correction=correction, keepdim=True))


@pytest.mark.parametrize("name", NUMBERS)
def test_any_and_all_are_boolean(name: str) -> None:
    x = numbers(name, 4, 5)
    for dims in ((0,), (1,), (0, 1)):
        assert_same(run_op(AnyOp, [x], over(*dims)), x.bool().any(dims))
        assert_same(run_op(AllOp, [x], over(*dims)), x.bool().all(dims))


@pytest.mark.parametrize("name", NUMBERS[:-1])
@pytest.mark.parametrize("keepdim", [False, True])
def test_argmax_and_argmin(name: str, keepdim: bool) -> None:
    x = numbers(name, 3, 5)
    flag: dict[str, Attribute] = {"keepdim": UnitAttr()} if keepdim else {}
    for dim in (0, 1):
        assert_same(run_op(ArgmaxOp, [x], {"dim": IntAttr(dim), **flag}), x.argmax(dim, keepdim))
        assert_same(run_op(ArgminOp, [x], {"dim": IntAttr(dim), **flag}), x.argmin(dim, keepdim))


@pytest.mark.parametrize("name", NUMBERS)
def test_cumsum(name: str) -> None:
    x = numbers(name, 3, 5)
    for dim in (0, 1):
        assert_same(run_op(CumsumOp, [x], {"dim": IntAttr(dim)}), x.cumsum(dim))


@pytest.mark.parametrize("name", FLOATS)
def test_softmax(name: str) -> None:
    x = numbers(name, 3, 5)
    for dim in (0, 1):
        assert_same(run_op(SoftmaxOp, [x], {"dim": IntAttr(dim)}), x.softmax(dim))
        assert_same(run_op(LogSoftmaxOp, [x], {"dim": IntAttr(dim)}), x.log_softmax(dim))


@pytest.mark.parametrize("op", [SumOp, MeanOp, AmaxOp, AminOp, AnyOp, AllOp, ProdOp])
def test_a_rank_0_tensor_reduces_over_no_dimension(op: type[ReductionOp]) -> None:
    found = run_op(op, [torch.tensor(2.0)], over())
    assert_same(found, torch.tensor(2.0) if found.dtype == torch.float32 else torch.tensor(True))


def test_other_ops_take_rank_0_too() -> None:
    x = torch.tensor(2.0)
    assert_same(run_op(ArgmaxOp, [x], {"dim": IntAttr(0), "keepdim": UnitAttr()}), x.argmax(0, keepdim=True))
    assert_same(run_op(CumsumOp, [x], {"dim": IntAttr(0)}), x)
    assert_same(run_op(SoftmaxOp, [x], {"dim": IntAttr(0)}), torch.tensor(1.0))


@given(st.lists(st.integers(0, 3), min_size=1, max_size=3), st.data())
def test_shapes_are_those_of_torch_with_empty_dimensions(shape: list[int], data: st.DataObject) -> None:
    x = torch.ones(shape)
    dims = data.draw(st.lists(st.integers(0, len(shape) - 1), min_size=1, unique=True))
    keepdim = data.draw(st.booleans())
    assert_same(run_op(SumOp, [x], over(*dims, keepdim=keepdim)), x.sum(dims, keepdim))
    assert_same(run_op(MeanOp, [x], over(*dims, keepdim=keepdim)), x.mean(dims, keepdim))


def test_float64_computes_in_double() -> None:
    x = numbers("f32", 7, 9)
    assert_same(run_op(SumOp, [x], over(0, 1), float64=True), x.double().sum())
    assert_same(run_op(SoftmaxOp, [x], {"dim": IntAttr(1)}, float64=True), x.double().softmax(1))
    assert_same(run_op(SumOp, [x.bfloat16()], over(1), float64=True), x.bfloat16().double().sum(1))


@pytest.mark.parametrize(
    ("properties", "message"),
    [
        (over(), "names the dimensions"),
        (over(0, 0), "repeat"),
        (over(2), "out of range"),
        (over(-1), "out of range"),
    ],
)
def test_bad_dimensions_are_refused(properties: dict[str, Attribute], message: str) -> None:
    with pytest.raises(VerifyException, match=message):
        run_op(SumOp, [torch.ones(2, 3)], properties)


def test_ops_on_floats_refuse_integers() -> None:
    x = torch.ones(2, 3, dtype=torch.int64)
    for op, properties in (
        (MeanOp, over(0)),
        (VarOp, {**over(0), "correction": ScalarAttr.of(0)}),
        (SoftmaxOp, {"dim": IntAttr(0)}),
    ):
        with pytest.raises(VerifyException, match="takes floating-point numbers, found i64"):
            run_op(op, [x], properties)
