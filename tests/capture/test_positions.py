"""Positions that are expressions of extents, and operators whose ``out=`` form is not what it should be."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

import forgec

Function = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

POSITIONS: dict[str, Function] = {
    "from the end": lambda x, y: x[:, -y.shape[1] :] * 2,
    "up to the end": lambda x, y: x[:, : -y.shape[1]] * 2,
    "between two counted from the end": lambda x, y: x[:, -y.shape[1] : -1] * 2,
    "every second from the end": lambda x, y: x[:, -y.shape[1] :: 2] * 2,
    "a sign that no bound shows": lambda x, y: x[:, y.shape[1] // 2 - y.shape[1] : -1] * 2,
    "a sum from the end": lambda x, y: x[:, y.shape[1] // 2 - y.shape[1] :] * 2,
    "one from the end": lambda x, y: x[:, -y.shape[1]] * 2,
    "one after that": lambda x, y: x[:, 1 - y.shape[1]] * 2,
    "narrowed": lambda x, y: torch.narrow(x, 1, -y.shape[1], y.shape[1]) * 2,
    "written": lambda x, y: torch.slice_scatter(x, y, 1, -y.shape[1]) * 2,
    "split": lambda x, y: torch.tensor_split(x, [-y.shape[1]], 1)[1] * 2,
}


@pytest.mark.parametrize("function", POSITIONS.values(), ids=POSITIONS)
def test_a_symbolic_position_counts_as_it_does_in_python(function: Function) -> None:
    example = (torch.randn(2, 12), torch.randn(2, 5))
    compiled = forgec.compile(function, example, dynamic_shapes=({1: torch.export.Dim.AUTO},) * 2)
    for sizes in ((12, 5), (8, 7), (40, 4)):
        x, y = (torch.randn(2, size) for size in sizes)
        assert torch.equal(compiled(x, y), function(x, y))


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("loss", [torch.nn.functional.mse_loss, torch.nn.functional.smooth_l1_loss])
def test_losses_of_every_reduction(loss: Callable[..., torch.Tensor], reduction: str) -> None:
    x, y = torch.randn(2, 4, 12), torch.randn(2, 4, 12)
    compiled = forgec.compile(lambda x, y: loss(x, y, reduction=reduction), (x, y))
    torch.testing.assert_close(compiled(x, y), loss(x, y, reduction=reduction))


@pytest.mark.parametrize("size", [1, 2])
def test_a_pool_of_a_channels_last_tensor(size: int) -> None:
    x = torch.randn(2, 4, 8, 8).to(memory_format=torch.channels_last)
    pool = torch.nn.AdaptiveAvgPool2d(size)
    torch.testing.assert_close(forgec.compile(pool, (x,))(x), pool(x))
