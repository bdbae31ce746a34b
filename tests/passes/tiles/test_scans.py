"""Running sums and products, softmax and normalisation over rows that no tile holds."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from xdsl.dialects.builtin import IntAttr
from xdsl.ir import SSAValue

from forgec.ir.attributes import ScalarAttr
from forgec.ir.ops.norm import GroupNormOp
from forgec.ir.ops.reduction import CumprodOp, CumsumOp, LogSoftmaxOp, SoftmaxOp
from forgec.passes.tiles.rules import reduction
from tests.passes.tiles.lowering import check, numbers


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool])
@pytest.mark.parametrize("length", [1, 2, 64, 130])
def test_running_sums_of_any_length(length: int, dtype: torch.dtype) -> None:
    check(lambda emit, x: [emit(CumsumOp, x, dim=IntAttr(0))], numbers(length, 3, dtype=dtype), dynamic=[(0, 0)])
    check(lambda emit, x: [emit(CumsumOp, x, dim=IntAttr(1))], numbers(2, length, dtype=dtype), dynamic=[(0, 1)])


def test_running_products() -> None:
    value = 1 + numbers(3, 40) / 50
    check(lambda emit, x: [emit(CumprodOp, x, dim=IntAttr(1))], value, dynamic=[(0, 1)])


@pytest.mark.parametrize("cls", [SoftmaxOp, LogSoftmaxOp])
def test_softmax_of_long_rows(monkeypatch: pytest.MonkeyPatch, cls: Any) -> None:
    monkeypatch.setattr(reduction, "WHOLE", 8)
    value = numbers(3, 70)
    value[0, :40] = -float("inf")
    value[1] = -float("inf")
    module = check(lambda emit, x: [emit(cls, x, dim=IntAttr(1))], value)
    assert str(module).count("tile.launch") == 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("groups", [1, 3, 6])
def test_group_norm(groups: int, dtype: torch.dtype) -> None:
    settings = {"groups": IntAttr(groups), "eps": ScalarAttr.of(1e-5)}

    def make(emit: Any, x: SSAValue, weight: SSAValue, bias: SSAValue) -> list[SSAValue]:
        return [emit(GroupNormOp, x, weight, bias, **settings)]

    check(make, numbers(2, 6, 3, 5, dtype=dtype) + 4, numbers(6, dtype=dtype), numbers(6, dtype=dtype, seed=1))
