"""A cache is written by a small kernel in its own memory, and never copied."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

import forgec


class Cached(nn.Module):
    """Keeps what it gets in rows of a buffer."""

    def __init__(self, append: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], object]) -> None:
        super().__init__()
        self.append = append
        self.register_buffer("cache", torch.zeros(2, 3, 16, 8))

    def forward(self, rows: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        assert isinstance(self.cache, torch.Tensor)
        self.append(self.cache, rows * 2, places)
        return self.cache.sum(2)


def copied(cache: torch.Tensor, rows: torch.Tensor, places: torch.Tensor) -> None:
    cache.index_copy_(2, places, rows)


def assigned(cache: torch.Tensor, rows: torch.Tensor, places: torch.Tensor) -> None:
    cache[:, :, places] = rows


@pytest.mark.parametrize("append", [copied, assigned])
def test_a_cache_is_written_in_place(append: Callable[..., object]) -> None:
    model, other = Cached(append), Cached(append)
    rows, places = torch.randn(2, 3, 4, 8), torch.arange(4)
    compiled = forgec.compile(model, (rows, places), target="cpu:host")
    launches = [launch.op for entry in compiled.plan.entries for launch in entry.launches]
    assert len(launches) <= 3
    assert all(name.startswith("kernel::") for name in launches)
    for step in range(3):
        rows, places = torch.randn(2, 3, 4, 8), torch.arange(4) + 4 * step
        torch.testing.assert_close(compiled(rows, places), other(rows, places))


def test_a_result_that_is_changed_last_is_the_caller_s() -> None:
    """No copy where the changed value is what the function returns."""

    class Scattered(nn.Module):
        def forward(self, x: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
            return torch.zeros(9, 5).index_copy(0, places, x)

    rows, places = torch.randn(3, 5), torch.tensor([7, 0, 4])
    compiled = forgec.compile(Scattered(), (rows, places), target="cpu:host")
    launches = [launch.op for entry in compiled.plan.entries for launch in entry.launches]
    assert len(launches) == 2
    assert all(name.startswith("kernel::") for name in launches)
    torch.testing.assert_close(compiled(rows, places), Scattered()(rows, places))
    assert compiled(rows, places) is not compiled(rows, places)
