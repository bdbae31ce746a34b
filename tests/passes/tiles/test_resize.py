"""Images of other sizes, element by element as torch computes them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from xdsl.dialects.builtin import StringAttr

from forgec.ir.attributes import ExtentsAttr, ScalarsAttr
from forgec.ir.ops.spatial import ResizeOp
from tests.passes.tiles.lowering import UNIT, check, numbers


def resized(mode: str, sizes: tuple[int, ...], corners: bool = False, scales: tuple[float, ...] = ()) -> Any:
    options: dict[str, Any] = {"mode": StringAttr(mode), "sizes": ExtentsAttr(sizes)}
    if corners:
        options["align_corners"] = UNIT
    if scales:
        options["scales"] = ScalarsAttr.of(scales)
    return lambda emit, x: [emit(ResizeOp, x, **options)]


@pytest.mark.parametrize("sizes", [(14, 30), (7, 10), (3, 4), (11, 23), (1, 1)])
@pytest.mark.parametrize("mode", ["nearest", "nearest-exact", "linear", "cubic"])
def test_sizes(mode: str, sizes: tuple[int, ...]) -> None:
    check(resized(mode, sizes), numbers(1, 2, 7, 10))
    if not mode.startswith("nearest"):
        check(resized(mode, sizes, corners=True), numbers(1, 2, 7, 10))


def test_scales_that_are_given() -> None:
    check(resized("linear", (11, 17), scales=(1.6, 1.7)), numbers(1, 2, 7, 10))
    check(resized("nearest", (11, 17), scales=(1.6, 1.7)), numbers(1, 2, 7, 10))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_dtypes(dtype: torch.dtype) -> None:
    check(resized("linear", (5,)), numbers(2, 2, 9, dtype=dtype))


def test_an_element_is_repeated_where_float32_says_so() -> None:
    """41 · float32(1 / 41) is below 1."""
    check(resized("nearest", (41 * 3,)), numbers(1, 1, 3), tolerance=0.0)


@pytest.mark.parametrize("extent", [1, 6])
def test_images_of_any_size(extent: int) -> None:
    check(resized("linear", (4, 9)), numbers(1, 2, extent, 3), dynamic=[(0, 2)])
