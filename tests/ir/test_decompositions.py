"""Every composite op means what its decomposition means: the interpreter gives the same result for both."""

from __future__ import annotations

import pytest
import torch
from xdsl.builder import Builder
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp
from xdsl.ir import Operation
from xdsl.rewriter import InsertPoint

from forgec.diagnostics import Location
from forgec.ir.examples import FORGE_EXAMPLES, module_of, op_name
from forgec.ir.forge import FORGE
from forgec.ir.interpreter import interpret
from forgec.ir.locations import location_of, to_attribute
from tests.ir.build import parse, random_inputs

PLACE = Location("model.py", 7, "Block.forward", "layers.0")
COMPOSITES = {op.name for op in FORGE.operations if hasattr(op, "decompose")}

STATIC = """
%r = forge.attention %q, %k, %v mask %m : (TYPES, tensor<3x5xf32>) -> R
%r = forge.attention %q, %k, %v mask %m empty_row "uniform" : (TYPES, tensor<3x5xi1>) -> R
%r = forge.attention %q, %k, %v mask %m causal empty_row "uniform" : (TYPES, tensor<2x1x3x5xf32>) -> R
%r = forge.attention %q, %k, %v mask %m sinks %s empty_row "uniform" : (TYPES, tensor<3x5xi1>, tensor<4xf32>) -> R
%r = forge.attention %q, %k, %v mask %m sinks %s causal window 2 : (TYPES, tensor<5xi1>, tensor<4xf32>) -> R
%r = forge.attention %q, %k, %v scale 2 softcap 1.5 query_scale 0.1 causal window 1 : (TYPES) -> R
%r = forge.attention %q, %k, %v softmax_dtype "f64" : (TYPES) -> R
%r = forge.attention %q, %k, %v mask %m keys %n window 2 : (TYPES, tensor<3x5xf32>, tensor<2x5xi1>) -> R
%r = forge.attention %q, %k, %v keys %m empty_row "uniform" : (TYPES, tensor<2x5xi1>) -> R
%r = forge.attention %q, %k, %v keys %m causal offset 2 window 3 : (TYPES, tensor<1x5xi1>) -> R
%r = forge.attention %q, %k, %v causal offset 3 chunk 2 : (TYPES) -> R
%r = forge.attention %q, %k, %v mask %m sinks %s : (TYPES, tensor<i1>, tensor<4xf32>) -> R
"""
NESTED = {"forge.fused": COMPOSITES, "forge.moe": {"forge.glu", "forge.grouped_matmul"}}
"""Composite ops that a decomposition may consist of."""
TYPES = "tensor<2x4x3x8xf32>, tensor<2x2x5x8xf32>, tensor<2x2x5x6xf32>"
CASES = [
    *(example for example in FORGE_EXAMPLES if op_name(example) in COMPOSITES),
    *(line.replace("TYPES", TYPES).replace("R", "tensor<2x4x3x6xf32>") for line in STATIC.strip().split("\n")),
    '%r = forge.moe %x, %i, %w, %up, %down activation "silu" packed "halves" : '
    "(tensor<5x8xbf16>, tensor<5x2xi32>, tensor<5x2xf32>, tensor<4x16x8xbf16>, tensor<4x8x8xbf16>) -> tensor<5x8xf32>",
    '%r = forge.moe %x, %i, %w, %up, %down w_gate %gate bias_gate %b activation "relu" limit 1.0 transposed : '
    "(tensor<8xf32>, tensor<2xi64>, tensor<2xf32>, tensor<4x8x3xf32>, tensor<4x3x5xf32>, tensor<4x8x3xf32>, "
    "tensor<4x3xf32>) -> tensor<5xf32>",
    "%r = forge.linear %x, %w bias %b : (tensor<8xbf16>, tensor<3x8xbf16>, tensor<3xbf16>) -> tensor<3xbf16>",
    "%r = forge.rope %x cos %c sin %s interleaved : "
    "(tensor<3x8xbf16>, tensor<3x4xf32>, tensor<3x4xf32>) -> tensor<3x8xf32>",
    *(
        f"%r = forge.rope %x cos %c sin %s {form} : "
        f"(tensor<2x3x8x{dtype}>, tensor<3x{width}xf32>, tensor<3x{width}xf32>) -> tensor<2x3x8x{result}>"
        for form, width, dtype, result in (
            ("once", 4, "f32", "f32"),
            ("once", 3, "bf16", "f32"),
            ("interleaved once", 4, "f32", "f32"),
            ("interleaved once start 3", 2, "f32", "f32"),
            ("interleaved to_halves", 6, "f32", "f32"),
            ("interleaved to_halves once start 2", 3, "f32", "f32"),
            ("keep_dtype start 4", 4, "f16", "f16"),
            ("interleaved keep_dtype", 8, "bf16", "bf16"),
        )
    ),
    *(
        f"%r = forge.dequantize %q {form} : ({operands}) -> tensor<4x16x{result}>"
        for form, operands, result in (
            ('compute "bf16"', "tensor<4x16xf8E4M3FN>", "f32"),
            ('scales %s zeros %z compute "f32"', "tensor<4x16xui8>, tensor<f32>, tensor<i64>", "bf16"),
            ('scales %s zeros %z compute "i8"', "tensor<4x16xi8>, tensor<2x1xf32>, tensor<4x8xi8>", "f16"),
            ('scales %s zeros %z compute "f32"', "tensor<4x16xi16>, tensor<1x4xbf16>, tensor<2x8xi32>", "f32"),
            ('scales %s compute "f32" packing "u4" run 4', "tensor<4x8xi8>, tensor<4x1xf32>", "f32"),
            (
                'scales %s zeros %z compute "i8" packing "s4" high_first',
                "tensor<4x8xi8>, tensor<f32>, tensor<i8>",
                "f32",
            ),
            ('scales %s compute "f16" packing "s4" run 8', "tensor<4x8xui8>, tensor<4x2xf16>", "f32"),
        )
    ),
    *(
        f"%r = forge.quantize %x, %s {form} : ({operands}) -> tensor<4x16x{result}>"
        for form, operands, result in (
            ('compute "f32"', "tensor<4x16xf32>, tensor<4x4xf32>", "i8"),
            ('zeros %z compute "f32" reciprocal', "tensor<4x16xbf16>, tensor<f64>, tensor<i64>", "ui8"),
            (
                'zeros %z compute "f32" zeros_first lower -7 upper 7',
                "tensor<4x16xf32>, tensor<4x1xf32>, tensor<i8>",
                "i8",
            ),
            ('zeros %z compute "f32"', "tensor<4x16xf32>, tensor<1x16xf64>, tensor<2x1xi32>", "i16"),
        )
    ),
    '%r = forge.glu %g, %u activation "relu" limit 1 : (tensor<4x8xf32>, tensor<4x8xf32>) -> tensor<4x8xf32>',
]


def test_every_composite_op_has_a_decomposition_and_a_case() -> None:
    names = {
        "linear",
        "quantize",
        "dequantize",
        "attention",
        "rms_norm",
        "layer_norm",
        "rope",
        "glu",
        "moe",
        "batch_norm",
        "grouped_matmul",
    }
    assert {f"forge.{name}" for name in names} <= COMPOSITES
    assert {op_name(case) for case in CASES} == COMPOSITES


@pytest.mark.parametrize("case", CASES)
def test_a_decomposition_means_the_same(case: str) -> None:
    module = parse(module_of(case))
    inputs = random_inputs(module)
    if "batch_norm" in case:
        inputs[2] = inputs[2].abs()  # a variance
    if "grouped_matmul" in case:
        inputs[2] = inputs[2].sort().values + 3  # beyond all rows
    narrow, exact = interpret(module, inputs), interpret(module, inputs, float64=True)
    inserted = decompose(module)
    module.verify()
    assert all(location_of(op) == PLACE for op in inserted)
    parts = {"forge.dequantize", "forge.linear"} if "forge.linear" in case and "compute" in case else set()
    assert COMPOSITES & {op.name for op in inserted} <= NESTED.get(op_name(case), set()) | parts
    for found, expected in zip(interpret(module, inputs, float64=True), exact, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    for found, expected in zip(interpret(module, inputs), narrow, strict=True):
        wide = expected.dtype == torch.bfloat16
        torch.testing.assert_close(found, expected, rtol=2e-2 if wide else 1e-5, atol=2e-2 if wide else 1e-5)


def test_decomposed_attention_does_not_read_what_no_row_attends() -> None:
    case = next(case for case in CASES if "tensor<5xi1>" in case)
    module = parse(module_of(case))
    q, k, v, mask, sinks = random_inputs(module)
    mask[2] = False
    expected = interpret(module, [q, k, v, mask, sinks])
    k[:, :, 2], v[:, :, 2] = torch.nan, torch.inf
    decompose(module)
    torch.testing.assert_close(interpret(module, [q, k, v, mask, sinks]), expected)


def test_decomposed_attention_reads_for_an_empty_row_what_no_other_row_attends() -> None:
    case = next(case for case in CASES if '%m empty_row "uniform"' in case and "tensor<3x5xi1>" in case)
    module = parse(module_of(case))
    q, k, v, mask = random_inputs(module)
    mask[:] = False
    mask[0, :2] = True
    expected = interpret(module, [q, k, v, mask])
    decompose(module)
    (found,) = interpret(module, [q, k, v, mask])
    torch.testing.assert_close(found, expected[0])
    torch.testing.assert_close(found[:, :, 1], v.mean(2).repeat_interleave(q.shape[1] // v.shape[1], 1))


@pytest.mark.parametrize("empty_row", ["zero", "uniform", "nan"])
def test_decomposed_attention_of_a_batch_of_which_nothing_is_kept(empty_row: str) -> None:
    case = next(case for case in CASES if "keys %m empty_row" in case).replace("uniform", empty_row)
    module = parse(module_of(case))
    q, k, v, keys = random_inputs(module)
    keys[:] = torch.tensor([[False], [True]])
    expected = interpret(module, [q, k, v, keys])
    decompose(module)
    torch.testing.assert_close(interpret(module, [q, k, v, keys]), expected, equal_nan=True)


def decompose(module: ModuleOp) -> list[Operation]:
    """Replace the one composite op of a module; returns what took its place."""
    (function,) = (op for op in module.ops if isinstance(op, FuncOp))
    block = function.body.block
    op = block.first_op
    assert op is not None
    op.location = to_attribute(PLACE)
    values = op.decompose(Builder(InsertPoint.before(op)))  # pyright: ignore[reportAttributeAccessIssue]
    inserted = list(block.ops)[: list(block.ops).index(op)]
    for old, new in zip(op.results, values, strict=True):
        assert new.type == old.type
        old.replace_all_uses_with(new)
    op.detach()
    op.erase()
    return inserted
