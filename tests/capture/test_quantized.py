"""Operators of quantised numbers become forge.quantize and forge.dequantize, and compute the same bits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.ao.quantization.fx._decomposed
from torch import Tensor, nn

from tests.oracle import Forms, assert_equal, lower

OPS: Any = torch.ops.quantized_decomposed
DICE = torch.Generator().manual_seed(0)
X = torch.randn(6, 32, generator=DICE)
I8 = torch.randint(-128, 128, (6, 32), generator=DICE).to(torch.int8)
U8 = torch.randint(0, 256, (6, 32), generator=DICE).to(torch.uint8)
SCALES = torch.rand(6, generator=DICE) / 20 + 0.001
ZEROS = torch.randint(-20, 20, (6,), generator=DICE)
GROUPED, GROUPED_ZEROS = torch.rand(6, 4, generator=DICE) / 20 + 0.001, torch.randint(-9, 9, (6, 4), generator=DICE)
TOKENS = torch.rand(6, 1, generator=DICE, dtype=torch.float64) / 20 + 0.001
ONE, THREE = torch.tensor([0.0371]), torch.tensor([3])
TIES = (torch.arange(192).view(6, 32) - 96) * 0.25


def both(x: Tensor, dtype: torch.dtype) -> Tensor:
    low, high = torch.iinfo(dtype).min, torch.iinfo(dtype).max
    q = OPS.quantize_per_tensor(x, 0.0371, 3, low, high, dtype)
    return OPS.dequantize_per_tensor(q, 0.0371, 3, low, high, dtype)


CASES: dict[str, tuple[Callable[[Tensor], Tensor], Tensor, str]] = {
    "per_tensor i8": (lambda x: both(x, torch.int8), X * 5, "quantize dequantize"),
    "per_tensor u8": (lambda x: both(x, torch.uint8), X, "quantize dequantize"),
    "per_tensor i16": (lambda x: both(x, torch.int16), X * 500, "quantize dequantize"),
    "per_tensor of bfloat16": (lambda x: both(x, torch.int8), X.bfloat16(), "quantize dequantize"),
    "ties": (lambda x: OPS.quantize_per_tensor(x, 0.5, 1, -128, 127, torch.int8), TIES, "quantize"),
    "narrow range": (lambda x: OPS.quantize_per_tensor(x, 0.1, 0, -7, 7, torch.int8), X, "quantize"),
    "zeros": (lambda x: OPS.quantize_per_tensor(x - x, 0.1, 5, 0, 255, torch.uint8), X, "quantize"),
    "per_tensor to bfloat16": (
        lambda x: OPS.dequantize_per_tensor(x, 0.0371, -3, -128, 127, torch.int8, out_dtype=torch.bfloat16),
        I8,
        "dequantize",
    ),
    "tensors": (lambda x: OPS.quantize_per_tensor.tensor(x, ONE, THREE, -128, 127, torch.int8), X, "quantize"),
    "tensors back": (lambda x: OPS.dequantize_per_tensor.tensor(x, ONE, THREE, 0, 255, torch.uint8), U8, "dequantize"),
    "per_channel": (
        lambda x: OPS.quantize_per_channel(x, SCALES, ZEROS, 0, -128, 127, torch.int8),
        X,
        "quantize",
    ),
    "per_channel, last axis": (
        lambda x: OPS.quantize_per_channel(x, SCALES.repeat(6)[:32], ZEROS.repeat(6)[:32], 1, -128, 127, torch.int8),
        X,
        "quantize",
    ),
    "per_channel back": (
        lambda x: OPS.dequantize_per_channel(x, SCALES, ZEROS, 0, -128, 127, torch.int8),
        I8,
        "dequantize",
    ),
    "per_channel back, zeros of 8 bits wrap": (
        lambda x: OPS.dequantize_per_channel(x, SCALES, ZEROS.to(torch.int8) * 5, 0, -128, 127, torch.int8),
        I8,
        "dequantize",
    ),
    "per_channel back, no zeros, to float16": (
        lambda x: OPS.dequantize_per_channel(x, SCALES, None, 0, -128, 127, torch.int8, out_dtype=torch.float16),
        I8,
        "dequantize",
    ),
    "groups": (
        lambda x: OPS.quantize_per_channel_group(x, GROUPED, GROUPED_ZEROS, -8, 7, torch.int8, 8),
        X / 10,
        "quantize",
    ),
    "groups back": (
        lambda x: OPS.dequantize_per_channel_group(x, GROUPED, GROUPED_ZEROS, -8, 7, torch.int8, 8, torch.bfloat16),
        I8,
        "dequantize",
    ),
    "one group larger than the rows": (
        lambda x: OPS.dequantize_per_channel_group(x, GROUPED[:, :1], None, -8, 7, torch.int8, 64, torch.float32),
        I8,
        "dequantize",
    ),
    "tokens": (
        lambda x: OPS.quantize_per_token(x, TOKENS, ZEROS[:, None], -128, 127, torch.int8),
        X,
        "quantize",
    ),
    "tokens back": (
        lambda x: OPS.dequantize_per_token(x, TOKENS, ZEROS[:, None], -128, 127, torch.int8, torch.float32),
        I8,
        "dequantize",
    ),
}


class Model(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def captured(function: Callable[[Tensor], Tensor], x: Tensor) -> Counter[str]:
    """The ops of a captured function, whose results are eager's on the interpreter and in the runtime."""
    forms = Forms(Model(function), [x])
    module = forms.optimized("canonicalize,constant-fold,cse,dce")
    expected = function(x)
    assert_equal(forms.forge_results(module), [expected], "interpreter")
    assert_equal([forms.program(lower(module))(x)], [expected], "runtime")
    return Counter(op.name.removeprefix("forge.") for op in module.walk())


@pytest.mark.parametrize("name", CASES)
def test_quantized_decomposed(name: str) -> None:
    function, x, expected = CASES[name]
    found = captured(function, x)
    assert found["aten"] == 0
    assert {op for op in ("quantize", "dequantize") if found[op]} == set(expected.split())


def test_what_no_row_covers_stays_an_operator_of_its_library() -> None:
    found = captured(lambda x: OPS.quantize_per_tensor(x, 0.1, 2, 0, 99, torch.int32).float(), X)
    assert (found["quantize"], found["aten"]) == (0, 1)


@pytest.fixture(scope="module")
def torchao() -> Any:
    """torchao's operators, as it defines them, where it is not installed."""
    library = torch.library.Library("torchao", "FRAGMENT")
    if not hasattr(torch.ops.torchao, "dequantize_affine"):
        library.define(
            "dequantize_affine(Tensor input, SymInt[] block_size, Tensor scale, Tensor? zero_point, "
            "ScalarType input_dtype, Scalar? quant_min=None, Scalar? quant_max=None, ScalarType output_dtype=6) "
            "-> Tensor"
        )
        library.define(
            "quantize_affine(Tensor input, SymInt[] block_size, Tensor scale, Tensor? zero_point, "
            "ScalarType output_dtype, Scalar? quant_min=None, Scalar? quant_max=None) -> Tensor"
        )
        library.impl("dequantize_affine", dequantize_affine, "CompositeExplicitAutograd")
        library.impl("quantize_affine", quantize_affine, "CompositeExplicitAutograd")
    yield torch.ops.torchao
    library._destroy()


def blocks(x: Tensor, block_size: list[int]) -> tuple[list[int], list[int]]:
    """The shape that has a block's extent beside the number of blocks, and that of one number for each block."""
    pairs = [(n // size, size) for n, size in zip(x.shape, block_size, strict=True)]
    return [n for pair in pairs for n in pair], [n for count, _ in pairs for n in (count, 1)]


def dequantize_affine(
    input: Tensor, block_size: list[int], scale: Tensor, zero_point: Tensor | None, input_dtype: torch.dtype,
    quant_min: Any = None, quant_max: Any = None, output_dtype: torch.dtype = torch.float32,
) -> Tensor:  # fmt: skip
    shape, one = blocks(input, block_size)
    value = input.reshape(shape).to(output_dtype)
    if zero_point is not None:
        value = value - zero_point.reshape(one).to(output_dtype)
    return (value * scale.reshape(one)).reshape(input.shape).to(output_dtype)


def quantize_affine(
    input: Tensor, block_size: list[int], scale: Tensor, zero_point: Tensor, output_dtype: torch.dtype,
    quant_min: Any = None, quant_max: Any = None,
) -> Tensor:  # fmt: skip
    shape, one = blocks(input, block_size)
    bounds = torch.iinfo(output_dtype)
    low, high = bounds.min if quant_min is None else quant_min, bounds.max if quant_max is None else quant_max
    value = (input.reshape(shape) * (1.0 / scale.reshape(one))).round() + zero_point.reshape(one)
    return value.clamp(low, high).reshape(input.shape).to(output_dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("size", [[1, 32], [1, 8], [6, 32], [3, 8], [6, 1]], ids=str)
def test_torchao(torchao: Any, size: list[int], dtype: torch.dtype) -> None:
    count = [6 // size[0], 32 // size[1]]
    scale = torch.rand(count, generator=DICE) / 20 + 0.001
    zero = torch.randint(-9, 9, count, generator=DICE).to(torch.int8)

    def function(x: Tensor) -> Tensor:
        q = torchao.quantize_affine(x, size, scale, zero, torch.int8, -127, 127)
        a = torchao.dequantize_affine(q, size, scale, zero, torch.int8, -127, 127, dtype)
        return a + torchao.dequantize_affine(q, size, scale.to(dtype), None, torch.int8, output_dtype=dtype)

    found = captured(function, X.to(dtype))
    assert (found["quantize"], found["dequantize"], found["aten"]) == (1, 2, 0)


def test_extents_that_vary(torchao: Any) -> None:
    class Rows(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            scale = x.abs().amax(1, keepdim=True) / 127
            zero = torch.zeros_like(scale, dtype=torch.int64)
            q = torchao.quantize_affine(x, [1, x.shape[1]], scale, zero, torch.int8)
            return torchao.dequantize_affine(q, [1, x.shape[1]], scale, zero, torch.int8)

    forms = Forms(Rows(), [X], dynamic_shapes=({0: torch.export.Dim("rows", min=2, max=64)},))
    names = Counter(op.name for op in forms.captured.module.walk())
    assert (names["forge.quantize"], names["forge.dequantize"], names["forge.aten"]) == (1, 1, 0)
    program = forms.program(lower(forms.captured.module))
    for rows in (2, 5, 6):
        assert_equal([program(X[:rows])], [Rows()(X[:rows])])
