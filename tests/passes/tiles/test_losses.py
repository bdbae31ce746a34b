"""Losses, as torch computes them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import forgec
from forgec.runtime.kernels import is_kernel


class Compared(nn.Module):
    def __init__(self, name: str, **options: Any) -> None:
        super().__init__()
        self.name, self.options = name, options

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return getattr(F, self.name)(left, right, **self.options)


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mse_loss", {}),
        ("l1_loss", {}),
        ("smooth_l1_loss", {"beta": 0.3}),
        ("smooth_l1_loss", {"beta": 0.0}),
        ("huber_loss", {"delta": 0.3}),
    ],
)
def test_losses(name: str, options: dict[str, float], reduction: str) -> None:
    torch.manual_seed(0)
    model = Compared(name, reduction=reduction, **options)
    for shape, dtype in (((3, 4, 5), torch.float32), ((), torch.float64), ((0, 3), torch.float32)):
        given = torch.randn(shape).to(dtype), torch.randn(shape).to(dtype)
        compiled = forgec.compile(model, given, target="cpu:host")
        assert all(is_kernel(launch.op) for entry in compiled._exported.entries for launch in entry.launches)
        torch.testing.assert_close(compiled(*given), model(*given), equal_nan=True, rtol=1e-5, atol=1e-6)
