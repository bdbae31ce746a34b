"""What quantise and dequantise mean, as ONNX and torch define it, and what their verifiers refuse."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from xdsl.dialects.builtin import IntAttr, StringAttr, UnitAttr
from xdsl.utils.exceptions import VerifyException

from forgec.ir import types
from forgec.ir.cost import module_cost
from forgec.ir.ops.contraction import LinearOp
from forgec.ir.ops.quantization import DequantizeOp, QuantizeOp
from tests.ir.build import module_of_op, parse, run_op

DICE = torch.Generator().manual_seed(0)
X = torch.randn(4, 16, generator=DICE) * 4
Q = torch.randint(0, 256, (4, 16), generator=DICE).to(torch.uint8)


def quantize(x: Tensor, scale: Tensor, zero: Tensor | None, dtype: str, **properties: Any) -> Tensor:
    kind = types.tensor(dtype, tuple(x.shape))
    return run_op(QuantizeOp, [x, scale, zero], {"compute": StringAttr("f32"), **properties}, [kind])


def dequantize(q: Tensor, scale: Tensor | None, zero: Tensor | None, dtype: str = "f32", **properties: Any) -> Tensor:
    columns = q.shape[1] * (2 if "packing" in properties else 1)
    kind = types.tensor(dtype, (q.shape[0], columns))
    return run_op(DequantizeOp, [q, scale, zero], {"compute": StringAttr("f32"), **properties}, [kind])


@pytest.mark.parametrize("zero", [None, torch.tensor(-3, dtype=torch.int8), torch.tensor(200, dtype=torch.uint8)])
def test_quantize_linear_of_onnx_rounds_half_to_even_and_saturates(zero: Tensor | None) -> None:
    x = torch.tensor([[0.5, 1.5, 2.5, -0.5, -1.5, 1e9, -1e9, 0.0]])
    shift = 0 if zero is None else int(zero)
    dtype = "ui8" if shift > 127 else "i8"
    low, high = (0, 255) if dtype == "ui8" else (-128, 127)
    rounded = [0, 2, 2, 0, -2, 1e10, -1e10, 0]
    expected = [[int(min(max(value + shift, low), high)) for value in rounded]]
    assert quantize(x, torch.tensor(1.0), zero, dtype).tolist() == expected


def test_zeros_added_before_rounding_change_ties_only() -> None:
    x, one, zero = torch.tensor([[0.5, 1.5, 0.7]]), torch.tensor(1.0), torch.tensor(1, dtype=torch.int8)
    assert quantize(x, one, zero, "i8").tolist() == [[1, 3, 2]]
    assert quantize(x, one, zero, "i8", zeros_first=UnitAttr()).tolist() == [[2, 2, 2]]


@pytest.mark.parametrize("shape", [(), (1, 1), (4, 1), (1, 16), (4, 4), (2, 8), (4, 16)], ids=str)
def test_blocks(shape: tuple[int, ...]) -> None:
    scale = torch.rand(shape, generator=DICE) + 0.1
    zero = torch.randint(0, 100, shape, generator=DICE).to(torch.uint8)
    whole, shift = scale, zero.float()
    for dim, count in enumerate(shape):
        whole, shift = (v.repeat_interleave(X.shape[dim] // count, dim) for v in (whole, shift))
    expected = ((X / whole).round() + shift).clamp(0, 255).to(torch.uint8)
    assert torch.equal(quantize(X, scale, zero, "ui8"), expected)
    assert torch.equal(dequantize(Q, scale, zero), (Q.float() - shift) * whole)


@pytest.mark.parametrize("run", [1, 4, 16])
@pytest.mark.parametrize("high_first", [False, True])
@pytest.mark.parametrize("packing", ["u4", "s4"])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8], ids=str)
def test_packed_numbers(dtype: torch.dtype, packing: str, high_first: bool, run: int) -> None:
    numbers = [[[b & 15, b >> 4][:: -1 if high_first else 1] for b in row] for row in Q.tolist()]
    expected = []
    for row in numbers:
        runs = [row[start : start + run] for start in range(0, 16, run)]
        expected.append([pair[half] for group in runs for half in (0, 1) for pair in group])
    if packing == "s4":
        expected = [[n - 16 if n > 7 else n for n in row] for row in expected]
    properties: dict[str, Any] = {"packing": StringAttr(packing), "run": IntAttr(run)}
    properties |= {"high_first": UnitAttr()} if high_first else {}
    assert dequantize(Q.view(dtype), None, None, **properties).tolist() == expected


@pytest.mark.parametrize("packing", ["u4", "s4"])
def test_eight_numbers_to_the_word(packing: str) -> None:
    words = torch.randint(-(2**31), 2**31, (3, 5), generator=DICE).to(torch.int32)
    expected = [[(word >> 4 * place) & 15 for word in row for place in range(8)] for row in words.tolist()]
    if packing == "s4":
        expected = [[n - 16 if n > 7 else n for n in row] for row in expected]
    kind = types.tensor("f32", (3, 40))
    properties = {"compute": StringAttr("f32"), "packing": StringAttr(packing)}
    assert run_op(DequantizeOp, [words, None, None], properties, [kind]).tolist() == expected


def test_zeros_subtracted_after_scaling() -> None:
    scale, zero = torch.rand(4, 4, generator=DICE), torch.randn(4, 4, generator=DICE).half()
    whole, shift = (v.float().repeat_interleave(4, 1) for v in (scale, zero))
    assert torch.equal(dequantize(Q, scale, zero, zeros_last=UnitAttr()), Q.float() * whole - shift)


def test_integers_wrap_where_they_are_subtracted_as_such() -> None:
    q, zero = torch.tensor([[100, -100]], dtype=torch.int8), torch.tensor([[-100]], dtype=torch.int8)
    assert dequantize(q, None, zero, compute=StringAttr("i8")).tolist() == [[-56, 0]]
    assert dequantize(q, None, zero, compute=StringAttr("i16")).tolist() == [[200, 0]]


REFUSED = {
    "quantised numbers": '%r = forge.dequantize %q compute "f32" : (tensor<4xi64>) -> tensor<4xf32>',
    "the dtype to compute in": "%r = forge.dequantize %q : (tensor<4xi8>) -> tensor<4xf32>",
    "one number for each block": '%r = forge.dequantize %q scales %s compute "f32" : '
    "(tensor<4x6xi8>, tensor<4x4xf32>) -> tensor<4x6xf32>",
    "for each block: ['4'] in": '%r = forge.dequantize %q scales %s compute "f32" : '
    "(tensor<4x6xi8>, tensor<4xf32>) -> tensor<4x6xf32>",
    "packing must be one of": '%r = forge.dequantize %q compute "f32" packing "u2" : (tensor<4xi8>) -> tensor<8xf32>',
    "does not divide into runs": '%r = forge.dequantize %q compute "f32" packing "u4" run 3 : '
    "(tensor<4xi8>) -> tensor<8xf32>",
    "not in words": '%r = forge.dequantize %q compute "f32" packing "u4" high_first : '
    "(tensor<4xi32>) -> tensor<32xf32>",
    "both have to be there": '%r = forge.dequantize %q scales %s compute "f32" zeros_last : '
    "(tensor<4xi8>, tensor<4xf32>) -> tensor<4xf32>",
    "there is no packing": '%r = forge.dequantize %q compute "f32" run 2 : (tensor<4xi8>) -> tensor<4xf32>',
    "cannot be subtracted": '%r = forge.dequantize %q zeros %z compute "bf16" : '
    "(tensor<4xi8>, tensor<4xf32>) -> tensor<4xf32>",
    "are multiplied in i32": '%r = forge.dequantize %q scales %s compute "i8" : '
    "(tensor<4xi8>, tensor<4xi32>) -> tensor<4xf32>",
    "yields i8, ui8 or i16": '%r = forge.quantize %x, %s compute "f32" : (tensor<4xf32>, tensor<f32>) -> tensor<4xi32>',
    "are no part of ui8": '%r = forge.quantize %x, %s compute "f32" lower -1 : '
    "(tensor<4xf32>, tensor<f32>) -> tensor<4xui8>",
    "in floating point": '%r = forge.quantize %x, %s compute "i32" : (tensor<4xf32>, tensor<f32>) -> tensor<4xi8>',
    "are for quantised weights": "%r = forge.linear %x, %w scales %s : "
    "(tensor<2x4xf32>, tensor<3x4xf32>, tensor<3x1xf32>) -> tensor<2x3xf32>",
    "operands of one dtype": '%r = forge.linear %x, %w compute "f32" : '
    "(tensor<2x4xf32>, tensor<3x4xf64>) -> tensor<2x3xf32>",
    "summed extents": '%r = forge.linear %x, %w compute "f32" packing "u4" : '
    "(tensor<2x4xf32>, tensor<3x4xui8>) -> tensor<2x3xf32>",
    "neither zeros nor bias": '%r = forge.linear %x, %w bias %b scales %s compute "f32" scale_result : '
    "(tensor<2x4xf32>, tensor<3x4xi8>, tensor<3xf32>, tensor<3x1xf32>) -> tensor<2x3xf32>",
    "one for each row": '%r = forge.linear %x, %w scales %s compute "f32" scale_result : '
    "(tensor<2x4xf32>, tensor<3x4xi8>, tensor<3x2xf32>) -> tensor<2x3xf32>",
}


@pytest.mark.parametrize("message", REFUSED)
def test_refusals(message: str) -> None:
    from forgec.ir.examples import module_of

    with pytest.raises(VerifyException, match=message.replace("[", r"\[")):
        parse(module_of(REFUSED[message]))


def test_a_quantised_linear_counts_the_bytes_that_are_stored() -> None:
    inputs = [torch.randn(2, 32), torch.zeros(8, 16, dtype=torch.uint8), None, torch.zeros(8, 4)]
    properties = {"compute": StringAttr("f32"), "packing": StringAttr("u4")}
    cost = module_cost(module_of_op(LinearOp, inputs, properties)).total
    assert cost.bytes_moved == 2 * 32 * 4 + 8 * 16 + 8 * 4 * 4 + 2 * 8 * 4
    assert cost.flops == 2 * 2 * 8 * 32 + 8 * 32
