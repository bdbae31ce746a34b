"""Divisions with a remainder, powers of integers, and functions that xDSL's dialects lack."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from forgec.ir.ops.binary import FloorDivOp, FmodOp, PowOp, RemainderOp
from forgec.ir.ops.unary import ErfcOp
from tests.passes.tiles.lowering import check, numbers

SPECIAL = [0.0, -0.0, 1.0, -1.0, 5.5, -5.5, 6.0, 3.0, 1e9, 1e-9, float("inf"), -float("inf"), float("nan")]

NUMBERS = st.floats(width=32, min_value=-(2.0**30), max_value=2.0**30).filter(lambda x: x == 0 or abs(x) > 2.0**-30)
"""torch's vectors of fmod have NaN where the quotient is greater than any float."""


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("cls", [FmodOp, RemainderOp, FloorDivOp])
def test_special_numbers_divide_as_torch_divides_them(cls: Any, dtype: torch.dtype) -> None:
    left = torch.tensor(SPECIAL, dtype=dtype).repeat(len(SPECIAL))
    right = torch.tensor(SPECIAL, dtype=dtype).repeat_interleave(len(SPECIAL))
    check(lambda emit, a, b: [emit(cls, a, b)], left, right, tolerance=0.0)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=8), st.sampled_from([0, 1, 2]))
def test_divisions(pairs: list[tuple[float, float]], which: int) -> None:
    left, right = (torch.tensor(side, dtype=torch.float32) for side in zip(*pairs, strict=True))
    cls = (FmodOp, RemainderOp, FloorDivOp)[which]
    check(lambda emit, a, b: [emit(cls, a, b)], left, right, tolerance=0.0)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.int8, torch.uint8])
def test_powers_of_integers(dtype: torch.dtype) -> None:
    base = numbers(60, dtype=dtype)
    exponent = torch.arange(60).remainder(7).to(dtype) - (0 if dtype == torch.uint8 else 2)
    check(lambda emit, a, b: [emit(PowOp, a, b)], base, exponent)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_complement_of_erf(dtype: torch.dtype) -> None:
    check(lambda emit, x: [emit(ErfcOp, x)], numbers(64, dtype=dtype) * 4)
