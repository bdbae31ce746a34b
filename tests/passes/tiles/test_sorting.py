"""Long rows sorted by their bytes: the interpreter and machine code, as torch sorts them stably."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import forgec
from forgec.capture.capture import export_model, import_program
from forgec.ir import context
from forgec.ir.interpreter import interpret
from forgec.passes.manager import run_pipeline
from forgec.passes.tiles import sorting

DTYPES = [
    torch.float32,
    torch.float64,
    torch.bfloat16,
    torch.float16,
    torch.int64,
    torch.int32,
    torch.int8,
    torch.uint8,
]


class Sort(nn.Module):
    def __init__(self, dim: int, descending: bool) -> None:
        super().__init__()
        self.dim, self.descending = dim, descending

    def forward(self, x: torch.Tensor) -> Any:
        return torch.sort(x, dim=self.dim, descending=self.descending, stable=True)


class Topk(nn.Module):
    def forward(self, x: torch.Tensor) -> Any:
        return torch.topk(x, 70), torch.topk(x, 3, largest=False)


def values(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    torch.manual_seed(0)
    x = (torch.randn(shape) * 50).round()
    if dtype.is_floating_point:
        for step, special in ((7, float("nan")), (11, 0.0), (13, -0.0), (17, float("inf")), (19, -float("inf"))):
            x.view(-1)[::step] = special
    return x.to(dtype)


def same(found: Any, expected: Any) -> None:
    for actual, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(actual, wanted, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("descending", [False, True])
def test_rows_are_sorted(dtype: torch.dtype, descending: bool) -> None:
    x, model = values((2, 70, 3), dtype), Sort(1, descending)
    program = forgec.compile(model, (x,), target="cpu:host", fallback="error")
    same(program(x), model(x))


@pytest.mark.parametrize("descending", [False, True])
def test_the_kernel_means_what_it_does(monkeypatch: pytest.MonkeyPatch, descending: bool) -> None:
    monkeypatch.setattr(sorting, "SHORT", 4)
    x, model = values((3, 9), torch.float32), Sort(-1, descending)
    module = import_program(export_model(model, (x,), {}, None), model).module
    run_pipeline(module, "@O2,lower-to-tile{panel=32},bind-tiles", context=context())
    assert "tile.sort" in str(module)
    same(interpret(module, [x]), model(x))


def test_rows_of_any_length() -> None:
    model = Sort(-1, False)
    shapes = ({0: torch.export.Dim.AUTO, 1: torch.export.Dim.AUTO},)
    program = forgec.compile(model, (torch.randn(2, 40),), target="cpu:host", dynamic_shapes=shapes)
    for shape in ((2, 40), (5, 2), (3, 1000)):
        x = torch.randn(shape)
        same(program(x), model(x))


def test_the_greatest_of_many() -> None:
    x = torch.randperm(20000).float().reshape(1, -1)
    found, expected = forgec.compile(Topk(), (x,), target="cpu:host", fallback="error")(x), Topk()(x)
    for actual, wanted in zip(found, expected, strict=True):
        same(actual, wanted)
