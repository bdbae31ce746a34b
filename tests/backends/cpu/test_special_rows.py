"""Softmax of rows with NaN and infinities, and GELU by tanh where it is small, as machine code."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

import forgec

INF, NAN = float("inf"), float("nan")


class Function(torch.nn.Module):
    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x)


def run(function: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    return forgec.compile(Function(function), (x,), target="cpu:host")(x)


@pytest.mark.parametrize("function", [torch.softmax, torch.log_softmax, torch.logsumexp])
@pytest.mark.parametrize("columns", [5, 80])
def test_rows_with_special_numbers(function: Callable[..., torch.Tensor], columns: int) -> None:
    """The maximum does not see NaN; the sum does."""
    x = torch.randn(9, columns, generator=torch.Generator().manual_seed(0))
    x[1, 0], x[2, -1], x[3], x[4], x[5, 3], x[6, 2] = NAN, NAN, NAN, -INF, INF, -INF
    x[7], x[7, 1] = -INF, NAN
    x[8, 0], x[8, -1] = INF, NAN
    torch.testing.assert_close(run(lambda x: function(x, -1), x), function(x, -1), equal_nan=True)


def test_gelu_by_tanh_keeps_its_digits_below_zero() -> None:
    x = torch.cat((torch.linspace(-9, 9, 4001), torch.tensor([0.0, -0.0, INF, -INF, NAN, 1e30, -1e30])))
    wide = x.double()
    exact = wide / (1 + torch.exp(-2 * math.sqrt(2 / math.pi) * (wide + 0.044715 * wide**3)))
    found = run(lambda x: F.gelu(x, approximate="tanh"), x)
    torch.testing.assert_close(found.double(), exact, rtol=3e-5, atol=0.0, equal_nan=True)
    torch.testing.assert_close(found, F.gelu(x, approximate="tanh"), rtol=2e-6, atol=3e-7, equal_nan=True)
