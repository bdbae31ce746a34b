"""Convolutions as products of windows, and depthwise ones over padded copies: which are, and that they are right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import forgec

TARGET = "cpu:x86-64-v3"
BOUNDS = {torch.float32: 1e-5, torch.float64: 1e-12, torch.bfloat16: 1e-2, torch.float16: 2e-3}


def compiled(model: nn.Module, *args: Any, shapes: Any = None) -> Any:
    return forgec.compile(model.eval(), args, target=TARGET, dynamic_shapes=shapes)


def taken(program: Any) -> set[str]:
    """The weights that the plan holds as matrices, or as panels of them."""
    names = (name.removesuffix(".panels") for name in program._weights)
    return {name.removesuffix(".windows") for name in names if name.endswith(".windows")}


def same(program: Any, model: nn.Module, *args: torch.Tensor) -> None:
    """Within rounding of what float64 gives."""
    with torch.no_grad():
        found, own = program(*args), model(*args)
        wide = model.double()(*(a.double() for a in args))
        model.to(own.dtype)
    assert (found.shape, found.dtype) == (own.shape, own.dtype)
    if own.numel():
        scale = wide.abs().max().clamp(min=1e-30)
        assert ((found.double() - wide).abs().max() / scale).item() <= BOUNDS[own.dtype]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_dtypes(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model, x = nn.Conv2d(5, 40, 3, padding=1, dtype=dtype), torch.randn(2, 5, 9, 7, dtype=dtype)
    program = compiled(model, x)
    assert taken(program) == {"weight"}
    same(program, model, x)


@pytest.mark.parametrize(
    ("shape", "made", "kernel", "options"),
    [
        ((1, 3, 32, 32), 64, 16, {"stride": 16}),
        ((2, 3, 29, 23), 16, 7, {"stride": 2, "padding": 3, "bias": False}),
        ((1, 8, 11, 13), 33, (3, 1), {"padding": (1, 0), "dilation": (2, 1)}),
        ((1, 4, 12, 9), 32, (1, 3), {"dilation": (1, 3), "stride": (1, 2), "padding": (0, 5)}),
        ((1, 48, 6, 6), 96, 3, {"groups": 2, "padding": 1}),
        ((3, 2, 5, 1), 20, (5, 1), {}),
    ],
)
def test_images(shape: tuple[int, ...], made: int, kernel: Any, options: dict[str, Any]) -> None:
    torch.manual_seed(made)
    model, x = nn.Conv2d(shape[1], made, kernel, **options), torch.randn(shape)
    program = compiled(model, x)
    assert taken(program) == {"weight"}
    same(program, model, x)


@pytest.mark.parametrize(
    ("shape", "made", "kernel", "options"),
    [
        ((1, 80, 50), 48, 3, {"padding": 1}),
        ((2, 1, 101), 32, 10, {"stride": 5, "bias": False}),
        ((1, 24, 30), 48, 8, {"padding": 4, "groups": 3}),
        ((1, 16, 40), 32, 3, {"dilation": 4, "stride": 3, "padding": 2}),
    ],
)
def test_sequences(shape: tuple[int, ...], made: int, kernel: int, options: dict[str, Any]) -> None:
    torch.manual_seed(made)
    model, x = nn.Conv1d(shape[1], made, kernel, **options), torch.randn(shape)
    program = compiled(model, x)
    assert taken(program) == {"weight"}
    same(program, model, x)


def test_volumes() -> None:
    torch.manual_seed(0)
    model, x = nn.Conv3d(3, 32, (2, 3, 3), stride=(2, 1, 2), padding=(0, 1, 1)), torch.randn(1, 3, 6, 7, 8)
    program = compiled(model, x)
    assert taken(program) == {"weight"}
    same(program, model, x)


def test_extents_of_any_size() -> None:
    torch.manual_seed(0)
    model, auto = nn.Conv1d(16, 32, 3, stride=2, padding=1), torch.export.Dim.AUTO
    program = compiled(model, torch.randn(2, 16, 40), shapes=({0: auto, 2: auto},))
    assert taken(program) == {"weight"}
    for batch, length in [(2, 40), (2, 2), (5, 3), (3, 131)]:
        same(program, model, torch.randn(batch, 16, length))


class Block(nn.Module):
    """The image is read again beside the convolution, whose weight is that of two."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(16, 16, 3, padding=1)
        self.norm = nn.BatchNorm2d(16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.norm(self.conv(x)) + x)
        return F.relu(self.conv(x) + x)


def test_what_stands_around_it() -> None:
    torch.manual_seed(0)
    model, x = Block(), torch.randn(2, 16, 6, 10)
    program = compiled(model, x)
    same(program, model, x)


class Outside(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(16, 4, 3))

    def forward(self, x: torch.Tensor, w: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return F.conv1d(x, self.weight), self.weight.exp(), F.conv1d(x, w)


def test_others_stay() -> None:
    """A weight that something else reads too, or that is an input, and groups of few channels."""
    torch.manual_seed(0)
    model, x, w = Outside(), torch.randn(1, 4, 20), torch.randn(16, 4, 3)
    program = compiled(model, x, w)
    assert taken(program) == set()
    for found, expected in zip(program(x, w), model(x, w), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    for narrow in (nn.Conv1d(16, 16, 3, groups=8), nn.Conv1d(16, 8, 3), nn.Conv1d(16, 32, 1)):
        x = torch.randn(1, 16, 20)
        program = compiled(narrow, x)
        assert taken(program) == set()
        same(program, narrow, x)


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((2, 6, 56, 56), {"kernel_size": 7, "padding": 3}),
        ((1, 5, 14, 7), {"kernel_size": 3, "padding": 1, "stride": 2, "bias": False}),
        ((1, 4, 9, 20), {"kernel_size": (3, 5), "padding": (2, 4), "dilation": (2, 2)}),
        ((1, 3, 24, 24), {"kernel_size": 9, "padding": 4}),
        ((1, 3, 24, 24), {"kernel_size": 3}),
    ],
)
@pytest.mark.parametrize("times", [1, 2])
def test_depthwise(shape: tuple[int, ...], options: dict[str, Any], times: int) -> None:
    torch.manual_seed(0)
    model, x = nn.Conv2d(shape[1], shape[1] * times, groups=shape[1], **options), torch.randn(shape)
    same(compiled(model, x), model, x)


@pytest.mark.parametrize(
    ("channels", "made", "options"),
    [
        (8, 16, {"kernel_size": 3, "padding": 1, "groups": 4}),
        (12, 6, {"kernel_size": 5, "padding": 2, "stride": 2, "groups": 2}),
        (8, 16, {"kernel_size": 1, "groups": 4}),
    ],
)
def test_few_channels_in_each_group(channels: int, made: int, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model, x = nn.Conv2d(channels, made, **options), torch.randn(2, channels, 9, 11)
    same(compiled(model, x), model, x)


def test_causal_depthwise() -> None:
    """The convolution of a state space model: what is too much at the end is cut off."""

    class Causal(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv1d(24, 24, 4, padding=3, groups=24)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.silu(self.conv(x)[..., : x.shape[-1]])

    torch.manual_seed(0)
    model = Causal()
    program = compiled(model, torch.randn(1, 24, 50), shapes=({2: torch.export.Dim.AUTO},))
    for length in (50, 2, 7, 64, 129):
        same(program, model, torch.randn(1, 24, length))


def test_any_number_of_threads_gives_the_same(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 64, 7, 2, 3), nn.Conv2d(64, 64, 3, 1, 1, groups=64))
    x = torch.randn(2, 3, 64, 64)
    compiled(model, x).save(tmp_path / "m.forge")
    first, *others = (forgec.load(tmp_path / "m.forge", threads=count)(x) for count in (1, 2, 4))
    assert all(torch.equal(first, other) for other in others)
