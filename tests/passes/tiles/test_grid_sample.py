"""Images and volumes sampled at places of a grid, as torch samples them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import forgec
from forgec.ir.context import context
from forgec.ir.interpreter import interpret
from forgec.passes.manager import run_pipeline
from forgec.runtime.kernels import is_kernel
from tests.ir.build import parse

ODD = (float("nan"), float("inf"), -float("inf"), -1.0, 1.0)


class Sampled(nn.Module):
    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.options = options

    def forward(self, image: Tensor, grid: Tensor) -> Tensor:
        return F.grid_sample(image, grid, **self.options)


def places(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Places inside and outside of the image; some are on its edge, or no numbers."""
    grid = 1.3 * torch.randn(shape, generator=torch.Generator().manual_seed(1))
    if grid.numel() > 3 + 4 * len(ODD):
        grid.view(-1)[3::5][: len(ODD)] = torch.tensor(ODD)
    return grid.to(dtype)


def image(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)


def compare(model: Sampled, given: Tensor, grid: Tensor, tolerance: float = 1e-5) -> None:
    compiled = forgec.compile(model, (given, grid), target="cpu:host")
    assert all(is_kernel(launch.op) for entry in compiled._exported.entries for launch in entry.launches)
    torch.testing.assert_close(compiled(given, grid), model(given, grid), equal_nan=True, rtol=0, atol=tolerance)


@pytest.mark.parametrize("corners", [True, False])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("mode", ["bilinear", "nearest", "bicubic"])
def test_images(mode: str, padding: str, corners: bool) -> None:
    model = Sampled(mode=mode, padding_mode=padding, align_corners=corners)
    compare(model, image(2, 3, 4, 5), places(2, 6, 7, 2))
    compare(model, image(1, 2, 1, 1), places(1, 3, 1, 2))


@pytest.mark.parametrize("corners", [True, False])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
def test_volumes(mode: str, padding: str, corners: bool) -> None:
    model = Sampled(mode=mode, padding_mode=padding, align_corners=corners)
    compare(model, image(2, 3, 3, 4, 5), places(2, 2, 3, 4, 3))


@pytest.mark.parametrize(("shape", "grid"), [((0, 3, 4, 5), (0, 6, 7, 2)), ((2, 3, 4, 5), (2, 0, 7, 2))])
def test_nothing_is_sampled(shape: tuple[int, ...], grid: tuple[int, ...]) -> None:
    compare(Sampled(align_corners=False), image(*shape), places(*grid))


@pytest.mark.parametrize("mode", ["bilinear", "nearest", "bicubic"])
def test_doubles(mode: str) -> None:
    double = torch.float64
    compare(Sampled(mode=mode, align_corners=False), image(1, 2, 4, 5, dtype=double), places(1, 3, 4, 2, dtype=double))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_halves_are_sampled_in_float32(dtype: torch.dtype) -> None:
    model, given, grid = Sampled(align_corners=False), image(1, 2, 4, 5, dtype=dtype), places(1, 3, 4, 2, dtype=dtype)
    compiled = forgec.compile(model, (given, grid), target="cpu:host")
    expected = model(given.float(), grid.float())
    torch.testing.assert_close(compiled(given, grid).float(), expected, equal_nan=True, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("mode", [0, 1, 2])
@pytest.mark.parametrize("padding", [0, 1, 2])
def test_kernels_read_inside_of_the_image_only(mode: int, padding: int) -> None:
    """Which the interpreter of tiles checks."""
    module = parse(f"""
func.func @forward(%x : tensor<2x3x4x5xf32>, %g : tensor<2x6x7x2xf32>) -> tensor<2x3x6x7xf32> {{
  %0 = forge.aten "aten::grid_sampler"(%x, %g, {mode}, {padding}, false) : (tensor<2x3x4x5xf32>, tensor<2x6x7x2xf32>) -> tensor<2x3x6x7xf32>
  func.return %0 : tensor<2x3x6x7xf32>
}}
""")  # noqa: E501
    given = [image(2, 3, 4, 5), places(2, 6, 7, 2)]
    (expected,) = interpret(module, given)
    run_pipeline(module, "lower-to-tile", context=context())
    assert "forge.aten" not in str(module)
    torch.testing.assert_close(interpret(module, given)[0], expected, equal_nan=True, rtol=0, atol=1e-5)


def test_extents_of_any_size() -> None:
    batch, height, points = forgec.Dim("batch"), forgec.Dim("height"), forgec.Dim("points")
    model = Sampled(padding_mode="reflection", align_corners=False)
    compiled = forgec.compile(
        model,
        (image(2, 3, 4, 5), places(2, 6, 7, 2)),
        dynamic_shapes=({0: batch, 2: height}, {0: batch, 1: points}),
        target="cpu:host",
    )
    for count, rows, points_ in ((2, 4, 6), (1, 1, 1), (3, 17, 33)):
        given, grid = image(count, 3, rows, 5), places(count, points_, 7, 2)
        torch.testing.assert_close(compiled(given, grid), model(given, grid), equal_nan=True, rtol=0, atol=1e-4)
