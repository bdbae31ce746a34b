"""Pointwise ops against eager PyTorch: result dtypes by torch's promotion, shapes by broadcasting, values exactly."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from xdsl.dialects.builtin import StringAttr
from xdsl.utils.exceptions import VerifyException

from forgec.ir import types
from forgec.ir.attributes import ScalarAttr
from forgec.ir.evaluator import Evaluator
from forgec.ir.forge import FORGE
from forgec.ir.interpreter import interpret
from forgec.ir.ops.binary import AddOp, BinaryOp, MulOp
from forgec.ir.ops.select import MaskedFillOp, WhereOp
from forgec.ir.ops.unary import CastOp, ClampOp, GeluOp, UnaryOp
from forgec.runtime.dtypes import from_torch, torch_dtype
from tests.ir.build import function, run_op, type_of

SPECIAL = (CastOp, ClampOp, GeluOp)
UNARY = [op for op in FORGE.operations if issubclass(op, UnaryOp) and not issubclass(op, SPECIAL)]
BINARY = [op for op in FORGE.operations if issubclass(op, BinaryOp)]
DTYPES = [name for name in types.ELEMENT_TYPES if not name.startswith("f8")]
REAL = [name for name in DTYPES if name not in types.COMPLEX]


def sample(name: str, shape: tuple[int, ...] = (2, 3)) -> torch.Tensor:
    """Numbers that every op is defined for in every dtype; floats hold a NaN, infinities and a negative zero."""
    count = math.prod(shape)
    if name in types.FLOATS:
        values = torch.tensor([0.5, -1.75, 0.0, -0.0, math.inf, math.nan, -math.inf, 3.25, 2.5])
        return values.repeat(count // 9 + 1)[:count].reshape(shape).to(torch_dtype(name))
    return (torch.arange(count) % 5 + 1).reshape(shape).to(torch_dtype(name))


def eager(function: Callable[[], Any]) -> torch.Tensor | None:
    """What torch computes, or None where it refuses the dtypes."""
    try:
        return function()
    except (RuntimeError, TypeError, NotImplementedError):
        return None


def assert_same(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)
    if expected.is_floating_point():
        same_sign = torch.signbit(found) == torch.signbit(expected)
        assert bool((same_sign | expected.isnan()).all())


@pytest.mark.parametrize("op", UNARY, ids=lambda op: op.name)
def test_unary_ops_are_those_of_torch(op: type[UnaryOp]) -> None:
    function, supported = Evaluator().function(op.TORCH), 0
    for name in DTYPES:
        x = sample(name)
        expected = eager(lambda x=x: function(x))
        if expected is None or from_torch(expected.dtype) is None:
            continue
        supported += 1
        assert_same(run_op(op, [x]), expected)
    assert supported >= 4


@pytest.mark.parametrize("op", UNARY, ids=lambda op: op.name)
def test_unary_ops_in_float64(op: type[UnaryOp]) -> None:
    function = Evaluator().function(op.TORCH)
    for name in ("f32", "bf16", "i64"):
        x = sample(name)
        expected = eager(lambda x=x: function(x.double() if op.TO_FLOAT or x.is_floating_point() else x))
        if expected is not None and eager(lambda x=x: function(x)) is not None:
            assert_same(run_op(op, [x], float64=True), expected)


@pytest.mark.parametrize("op", BINARY, ids=lambda op: op.name)
def test_binary_ops_are_those_of_torch_for_all_dtypes(op: type[BinaryOp]) -> None:
    function, supported = Evaluator().function(op.TORCH), 0
    for left, right in product(DTYPES, DTYPES):
        x, y = sample(left), sample(right, (3,))
        expected = eager(lambda x=x, y=y: function(x, y))
        if expected is None or from_torch(expected.dtype) is None:
            continue
        supported += 1
        assert_same(run_op(op, [x, y]), expected)
    assert supported >= 25


@pytest.mark.parametrize("op", BINARY, ids=lambda op: op.name)
def test_binary_ops_with_a_number_are_those_of_torch(op: type[BinaryOp]) -> None:
    function = Evaluator().function(op.TORCH)
    for name, shape, number in product(DTYPES, ((2, 3), ()), (True, 2, -3, 2.5)):
        x = sample(name, shape)
        other = number if op.TAKES_NUMBERS else torch.tensor(number, dtype=_number_dtype(x, number))
        expected = eager(lambda x=x, other=other: function(x, other))
        if expected is None or from_torch(expected.dtype) is None:
            continue
        assert_same(run_op(op, [x], {"scalar": ScalarAttr.of(number)}), expected)


def _number_dtype(x: torch.Tensor, number: bool | int | float) -> torch.dtype:
    return torch.result_type(x, number)


@given(st.sampled_from(BINARY), st.sampled_from(["f32", "i64"]), st.data())
def test_binary_ops_broadcast_like_torch(op: type[BinaryOp], name: str, data: st.DataObject) -> None:
    shapes = st.lists(st.sampled_from([0, 1, 2, 3]), max_size=3).map(tuple)
    x, y = (sample(name, data.draw(shapes)) for _ in range(2))
    try:
        shape = torch.broadcast_shapes(x.shape, y.shape)
    except RuntimeError:
        with pytest.raises(VerifyException, match="do not broadcast"):
            run_op(op, [x, y])
        return
    expected = eager(lambda: Evaluator().function(op.TORCH)(x, y))
    if expected is not None:
        found = run_op(op, [x, y])
        assert found.shape == shape
        assert_same(found, expected)


def test_float64_widens_integer_promotion_too() -> None:
    thirds = run_op(MulOp, [torch.arange(4)], {"scalar": ScalarAttr.of(1 / 3)}, float64=True)
    assert_same(thirds, torch.arange(4).double() / 3)


def test_a_binary_op_takes_a_tensor_or_a_number() -> None:
    x = torch.ones(2)
    with pytest.raises(VerifyException, match="not both"):
        run_op(AddOp, [x, x], {"scalar": ScalarAttr.of(1)})
    with pytest.raises(VerifyException, match="not both"):
        run_op(AddOp, [x])
    module = function([type_of(x)], lambda builder, args: builder.insert(AddOp.of(args[0], 1.5)).results)
    assert_same(interpret(module, [x])[0], x + 1.5)
    module = function([type_of(x)], lambda builder, args: builder.insert(AddOp.of(args[0], args[0])).results)
    assert_same(interpret(module, [x])[0], x + x)


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_gelu(approximate: str) -> None:
    x = torch.randn(4, 5)
    expected = torch.nn.functional.gelu(x, approximate=approximate)
    assert_same(run_op(GeluOp, [x], {"approximate": StringAttr(approximate)}), expected)


@pytest.mark.parametrize(("source", "target"), list(product(REAL, REAL)))
def test_cast(source: str, target: str) -> None:
    x = torch.tensor([0.0, 1.0, 2.5, 100.75]).to(torch_dtype(source))
    found = run_op(CastOp, [x], result_types=[types.tensor(target, x.shape)])
    assert_same(found, x.to(torch_dtype(target)))


@pytest.mark.parametrize("name", ["f32", "bf16", "i64", "i32", "ui8"])
@pytest.mark.parametrize("bounds", [(1, None), (None, 2), (1, 2), (0.5, None), (0.5, 1.5)])
def test_clamp(name: str, bounds: tuple[float | None, float | None]) -> None:
    x = sample(name)
    properties = {key: ScalarAttr.of(v) for key, v in zip(("lower", "upper"), bounds, strict=True) if v is not None}
    assert_same(run_op(ClampOp, [x], {**properties}), torch.clamp(x, *bounds))


@pytest.mark.parametrize(("left", "right"), list(product(REAL, REAL)))
def test_where(left: str, right: str) -> None:
    condition = torch.tensor([[True], [False]])
    for shapes in (((2, 3), (3,)), ((), (2, 3)), ((), ())):
        x, y = (sample(name, shape) for name, shape in zip((left, right), shapes, strict=True))
        assert_same(run_op(WhereOp, [condition, x, y]), torch.where(condition, x, y))


def test_where_does_not_mix_in_what_it_does_not_choose() -> None:
    x, nan = torch.ones(2), torch.full((2,), math.nan)
    assert_same(run_op(WhereOp, [torch.tensor([True, True]), x, nan]), x)


@pytest.mark.parametrize("name", ["f32", "f16", "bf16", "i64"])
def test_masked_fill_broadcasts_both_ways(name: str) -> None:
    x, mask = sample(name, (1, 3)), torch.tensor([[True], [False]])
    assert_same(run_op(MaskedFillOp, [x, mask], {"value": ScalarAttr.of(2)}), x.masked_fill(mask, 2))
    if x.is_floating_point():
        found = run_op(MaskedFillOp, [x, mask], {"value": ScalarAttr.of(-math.inf)})
        assert_same(found, x.masked_fill(mask, -math.inf))
