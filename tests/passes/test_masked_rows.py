"""Writes by a boolean mask: of one value, and of rows that the same mask picked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import forgec
from forgec.runtime.kernels import is_kernel

Step = Callable[[Tensor, Tensor, Tensor], Any]


class Masked(nn.Module):
    def __init__(self, step: Step) -> None:
        super().__init__()
        self.step = step

    def forward(self, x: Tensor, y: Tensor, mask: Tensor) -> Any:
        return self.step(x.clone(), y, mask)


def picked(x: Tensor, y: Tensor, mask: Tensor) -> Tensor:
    x[mask] = y[mask]
    return x


def changed(x: Tensor, y: Tensor, mask: Tensor) -> Tensor:
    x[mask] = x[mask] * 2 + y[mask]
    x[~mask] += 1
    return x


def normalized(x: Tensor, y: Tensor, mask: Tensor) -> Tensor:
    x[mask] = F.layer_norm(y[mask], (5,)).softmax(-1) * y[0, 0]
    return x


def added(x: Tensor, y: Tensor, mask: Tensor) -> Tensor:
    return x.index_put((mask,), y[mask] * torch.arange(5.0), accumulate=True)


def one_value(x: Tensor, y: Tensor, mask: Tensor) -> Tensor:
    x[mask] = y[0, 0]
    return x.index_put((mask,), torch.tensor(3.0), accumulate=True)


ALONE: list[Step] = [picked, changed, normalized, added, one_value]


def along_the_second(x: Tensor, y: Tensor, mask: Tensor) -> Tensor:
    x[:, mask[0]] = y[:, :1]
    return x


def summed(x: Tensor, y: Tensor, mask: Tensor) -> Tensor:
    x[mask] += x[mask].sum(0)
    return x


def returned(x: Tensor, y: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    rows = y[mask]
    x[mask] = rows * 2
    return x, rows


def counted(x: Tensor, y: Tensor, mask: Tensor) -> Tensor:
    rows = y[mask]
    x[mask] = rows * rows.shape[0]
    return x


def product(x: Tensor, y: Tensor, mask: Tensor) -> Tensor:
    x[mask] = F.linear(y[mask], torch.ones(5, 5))
    return x


NEEDED: list[Step] = [summed, returned, counted, product]


def arguments(length: int, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(length)
    x, y = torch.randn(2, length, 4, 5, generator=generator)
    return x, y, torch.rand((length, 4)[:rank], generator=generator) < 0.6


def compared(step: Step, rank: int, lengths: tuple[int, ...], is_native: bool) -> None:
    model, example = Masked(step), arguments(3, rank)
    dims = {0: forgec.Dim("length", min=0)}
    compiled = forgec.compile(model, example, dynamic_shapes=(dims, dims, dims), target="cpu:host")
    launches = [launch.op for entry in compiled._exported.entries for launch in entry.launches]
    assert all(map(is_kernel, launches)) == is_native
    for length in lengths:
        given = arguments(length, rank)
        torch.testing.assert_close(compiled(*given), model(*given), equal_nan=True, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize("step", ALONE)
def test_all_rows_are_computed_and_chosen(step: Step, rank: int) -> None:
    compared(step, rank, (3, 1, 17, 0) if step not in (normalized, one_value) else (3, 1, 17), is_native=True)


@pytest.mark.parametrize("step", NEEDED)
def test_rows_that_have_to_be_picked(step: Step) -> None:
    compared(step, 2, (3, 1, 17), is_native=False)


def test_a_mask_of_a_later_dimension() -> None:
    x, y, mask = arguments(3, 2)
    compiled = forgec.compile(Masked(along_the_second), (x, y, mask), target="cpu:host")
    torch.testing.assert_close(compiled(x, y, mask), along_the_second(x.clone(), y, mask))


def test_what_is_not_picked_may_be_anything() -> None:
    """A NaN in a row that stays does not show in others, nor does what would be computed of it."""
    x, y, mask = arguments(4, 1)
    mask[1] = False
    y[1] = float("nan")
    compiled = forgec.compile(Masked(changed), (x, y, mask), target="cpu:host")
    torch.testing.assert_close(compiled(x, y, mask), changed(x.clone(), y, mask))
