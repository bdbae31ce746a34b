"""Frozen batch norms written as arithmetic become one op each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.passes.spellings import Fused

EPS = 1e-5
W, B, M, V = torch.linspace(0.5, 1.5, 4), torch.linspace(-1, 1, 4), torch.linspace(1, -1, 4), torch.linspace(0.1, 2, 4)


def frozen(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor, m: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    w, b, m, v = (p.reshape(1, -1, *[1] * (x.dim() - 2)) for p in (w, b, m, v))
    scale = w * (v + EPS).rsqrt()
    return x * scale + (b - m * scale)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("shape", [(3, 4), (3, 4, 5), (3, 4, 5, 2)], ids=str)
def test_frozen_batch_norm(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    x = torch.randn(shape).to(dtype)
    fused = Fused(frozen, [x, *(p.to(dtype) for p in (W, B, M, V))], "fuse-batch-norm", dynamic=True)
    assert fused.ops["batch_norm"] == 1
    assert fused.ops.keys() & {"mul", "add", "sub", "rsqrt", "reshape"} == set()
    before, after = (fused.forms.forge_results(module)[0] for module in (fused.before, fused.module))
    torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-5)


NO: dict[str, Callable[..., Any]] = {
    "another scale": lambda x, w, b, m, v: x * (w * (v + EPS).rsqrt()) + (b - m * (v + EPS).rsqrt()),
    "scale returned": lambda x, w, b, m, v: (lambda s: (x * s + (b - m * s), s))(w * (v + EPS).rsqrt()),
    "difference turned": lambda x, w, b, m, v: (lambda s: x * s + (m * s - b))(w * (v + EPS).rsqrt()),
    "last dimension": lambda x, w, b, m, v: (lambda s: x * s + (b - m * s))(w * (v + EPS).rsqrt()),
}


@pytest.mark.parametrize("name", NO)
def test_what_is_no_batch_norm_stays(name: str) -> None:
    x = torch.randn(3, 4, 4)
    parameters = [p if name == "last dimension" else p[None, :, None] for p in (W, B, M, V)]
    assert Fused(NO[name], [x, *parameters], "fuse-batch-norm", dynamic=False).ops["batch_norm"] == 0


def test_half_precision_stays() -> None:
    inputs = [torch.randn(3, 4, 5).half(), *(p.half() for p in (W, B, M, V))]
    assert Fused(frozen, inputs, "fuse-batch-norm", dynamic=False).ops["batch_norm"] == 0
