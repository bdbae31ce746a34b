"""Transposed convolutions against float64: strides that divide the kernel and that do not, padding, groups."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import forgec

CASES: list[tuple[int, dict[str, Any], tuple[int, ...]]] = [
    (2, {"in_channels": 8, "out_channels": 6, "kernel_size": 2, "stride": 2}, (2, 8, 5, 6)),
    (2, {"in_channels": 8, "out_channels": 6, "kernel_size": 4, "stride": 2, "padding": 1}, (1, 8, 5, 6)),
    (2, {"in_channels": 8, "out_channels": 6, "kernel_size": 3, "stride": 2, "output_padding": 1}, (1, 8, 4, 5)),
    (2, {"in_channels": 8, "out_channels": 6, "kernel_size": (1, 3), "stride": (3, 2), "groups": 2}, (1, 8, 3, 5)),
    (1, {"in_channels": 8, "out_channels": 32, "kernel_size": 7, "stride": 3, "padding": 2, "bias": False}, (2, 8, 9)),
    (1, {"in_channels": 4, "out_channels": 4, "kernel_size": 3, "padding": 1, "groups": 4}, (2, 4, 9)),
    (1, {"in_channels": 4, "out_channels": 4, "kernel_size": 3, "stride": 2, "dilation": 2}, (2, 4, 9)),
    (3, {"in_channels": 2, "out_channels": 3, "kernel_size": 2, "stride": 2}, (1, 2, 3, 2, 3)),
]


@pytest.mark.parametrize(("rank", "settings", "shape"), CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_results_are_those_of_float64(
    rank: int, settings: dict[str, Any], shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    kind = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)[rank - 1]
    model = nn.Sequential(kind(**settings), nn.SiLU()).to(dtype).eval()
    x = torch.randn(shape).to(dtype)
    found = forgec.compile(model, (x,), target="cpu:host")(x)
    expected = model.double()(x.double())
    torch.testing.assert_close(
        found.double(),
        expected,
        rtol=1e-5 if dtype == torch.float32 else 3e-2,
        atol=1e-5 if dtype == torch.float32 else 2e-2,
    )


@pytest.mark.parametrize("kernel", [3, 4])
def test_what_is_not_finite_stays_where_torch_has_it(kernel: int) -> None:
    torch.manual_seed(0)
    model = nn.ConvTranspose1d(4, 6, kernel, stride=2).eval()
    x = torch.randn(2, 4, 19)
    x[0, 1, 7], x[1, 2, 11] = float("inf"), float("nan")
    found = forgec.compile(model, (x,), target="cpu:host")(x)
    torch.testing.assert_close(found, model(x), rtol=1e-5, atol=1e-5, equal_nan=True)
