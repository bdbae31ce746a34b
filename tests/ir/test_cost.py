"""Costs of modules: floating-point operations, bytes and launches."""

from __future__ import annotations

import pytest

from forgec.diagnostics import ForgeError
from forgec.ir.cost import Cost, module_cost, op_cost
from forgec.ir.examples import FORGE_EXAMPLES, module_of, op_name
from forgec.ir.ops.base import ForgeOp
from forgec.runtime.symbolic import Extent, evaluate, free_symbols
from tests.ir.build import parse

MLP = """
forge.symbol @s0 "seq" min 3 max 2048
forge.param @up : tensor<16x8xf32>
forge.param @down : tensor<8x16xf32>
func.func private @mlp(%x: tensor<?x8xf32, #forge.tensor<[s0]>>) -> tensor<?x8xf32, #forge.tensor<[s0]>> {
  %up = forge.param_ref @up : tensor<16x8xf32>
  %down = forge.param_ref @down : tensor<8x16xf32>
  %a = forge.linear %x, %up : (tensor<?x8xf32, #forge.tensor<[s0]>>, tensor<16x8xf32>)
      -> tensor<?x16xf32, #forge.tensor<[s0]>>
  %b = forge.silu %a : (tensor<?x16xf32, #forge.tensor<[s0]>>) -> tensor<?x16xf32, #forge.tensor<[s0]>>
  %c = forge.linear %b, %down : (tensor<?x16xf32, #forge.tensor<[s0]>>, tensor<8x16xf32>)
      -> tensor<?x8xf32, #forge.tensor<[s0]>>
  func.return %c : tensor<?x8xf32, #forge.tensor<[s0]>>
}
func.func @forward(%x: tensor<?x8xf32, #forge.tensor<[s0]>>) -> tensor<8x?xf32, #forge.tensor<[s0], strides = [1, 8]>> {
  %a = func.call @mlp(%x) : (tensor<?x8xf32, #forge.tensor<[s0]>>) -> tensor<?x8xf32, #forge.tensor<[s0]>>
  %b = func.call @mlp(%a) : (tensor<?x8xf32, #forge.tensor<[s0]>>) -> tensor<?x8xf32, #forge.tensor<[s0]>>
  %t = forge.transpose %b [1, 0] : (tensor<?x8xf32, #forge.tensor<[s0]>>)
      -> tensor<8x?xf32, #forge.tensor<[s0], strides = [1, 8]>>
  func.return %t : tensor<8x?xf32, #forge.tensor<[s0], strides = [1, 8]>>
}
"""


def test_a_module_costs_what_its_ops_cost_once_for_each_call() -> None:
    cost = module_cost(parse(MLP), symbols={"s0": 10})
    assert cost.by_op["forge.linear"] == Cost(4, 4 * 2 * 10 * 8 * 16, 4 * 4 * (10 * 8 + 8 * 16 + 10 * 16), 4)
    assert cost.by_op["forge.silu"] == Cost(2, 2 * 4 * 160, 2 * 2 * 4 * 160, 2)
    assert cost.by_op["forge.transpose"] == Cost(1, 0, 0, 0)
    assert cost.by_op["forge.param_ref"] == Cost(4, 0, 0, 0)
    assert cost.total.launches == 6
    assert cost.total.flops == sum(part.flops for part in cost.by_op.values())
    assert cost.total.bytes_moved == sum(part.bytes_moved for part in cost.by_op.values())


def test_symbols_default_to_their_minimum() -> None:
    assert module_cost(parse(MLP)).total == module_cost(parse(MLP), symbols={"s0": 3}).total


def test_aten_calls_are_listed_by_operator() -> None:
    text = module_of(
        '%v, %i = forge.aten "aten::topk"(%x, 2) : (tensor<4x8xf32>) -> (tensor<4x2xf32>, tensor<4x2xi64>)'
    )
    assert set(module_cost(parse(text)).by_op) == {"aten::topk"}


def test_an_unknown_function_is_refused() -> None:
    with pytest.raises(ForgeError, match="the module has no function main"):
        module_cost(parse(MLP), function="main")


@pytest.mark.parametrize("example", FORGE_EXAMPLES, ids=op_name)
def test_every_op_has_a_cost_that_its_symbols_determine(example: str) -> None:
    for op in parse(module_of(example)).walk():
        cost = op_cost(op, {"s0": 5})
        assert cost.flops >= 0
        assert cost.bytes_moved >= 0
        if isinstance(op, ForgeOp):
            for extent in (op.flops(), op.bytes_moved()):
                assert value(extent) == value(extent)
                assert free_symbols(extent) <= {"s0"}
            results = sum(1 for r in op.results if r.uses)
            assert cost.launches <= 1 or results


def value(extent: Extent) -> int:
    return evaluate(extent, {"s0": 7})


@pytest.mark.parametrize(
    ("line", "flops", "nbytes"),
    [
        ("%r = forge.embedding %w, %i : (tensor<1000x8xf32>, tensor<3xi64>) -> tensor<3x8xf32>", 0, 2 * 96 + 24),
        ("%r = forge.slice %x dim 0 from 1 step 1 : (tensor<4x8xf32>) -> tensor<2x8xf32>", 0, 0),
        ("%r = forge.copy %x : (tensor<4x8xf32>) -> tensor<4x8xf32>", 0, 256),
        (
            "%r = forge.insert_slice %x into %y dim 0 from 1 step 1 : "
            "(tensor<1x8xf32>, tensor<9x8xf32>) -> tensor<9x8xf32>",
            0,
            64,
        ),
        ("%r = forge.softmax %x dim 1 : (tensor<4x8xf32>) -> tensor<4x8xf32>", 160, 256),
        ("%r = forge.rms_norm %x axes 1 : (tensor<4x8xbf16>) -> tensor<4x8xbf16>", 192, 128),
        # What is broadcast, by its shape or by a stride of 0, is read once.
        ("%r = forge.add %x, %y : (tensor<4x8xf32>, tensor<8xf32>) -> tensor<4x8xf32>", 32, 2 * 128 + 32),
        (
            "%r = forge.cos %x : (tensor<4x8xf32, #forge.tensor<[], strides = [0, 1]>>) -> tensor<4x8xf32>",
            32,
            32 + 128,
        ),
        # A window that overlaps itself is no larger than what it looks at.
        (
            "%r = forge.cos %x : (tensor<4x8xf32, #forge.tensor<[], strides = [1, 1]>>) -> tensor<4x8xf32>",
            32,
            44 + 128,
        ),
        # A reshape that strides can express is free; one that they cannot is a copy.
        ("%r = forge.reshape %x : (tensor<4x8xf32>) -> tensor<32xf32>", 0, 0),
        (
            "%r = forge.reshape %x : (tensor<4x8xf32, #forge.tensor<[], strides = [1, 4]>>) -> tensor<32xf32>",
            0,
            2 * 128,
        ),
        (
            "%r = forge.reshape %x : (tensor<4x8xf32, #forge.tensor<[], strides = [0, 1]>>) -> tensor<32xf32>",
            0,
            32 + 128,
        ),
        # Operators of torch that yield views are free as well.
        ('%r = forge.aten "aten::view_as_real"(%x) : (tensor<4xcomplex<f32>>) -> tensor<4x2xf32>', 8, 0),
        ('%r = forge.aten "aten::special_i1"(%x) : (tensor<4x8xf32>) -> tensor<4x8xf32>', 32, 256),
        # Attention reads queries, keys and values and writes the result: scores never reach memory.
        (
            "%r = forge.attention %q, %k, %v causal : (tensor<2x64x8xf32>, tensor<1x64x8xf32>, tensor<1x64x8xf32>) -> "
            "tensor<2x64x8xf32>",
            None,
            4 * (2 * 1024 + 2 * 512),
        ),
        # Of four experts, three rows that choose one each can need three.
        (
            '%r = forge.moe %x, %i, %w, %u, %d activation "silu" packed "halves" : (tensor<3x8xf32>, tensor<3x1xi64>, '
            "tensor<3x1xf32>, tensor<4x32x8xf32>, tensor<4x8x16xf32>) -> tensor<3x8xf32>",
            None,
            4 * (24 + 3 + 24) + 8 * 3 + 3 * 4 * (32 * 8 + 8 * 16),
        ),
    ],
)
def test_costs(line: str, flops: int | None, nbytes: int) -> None:
    total = module_cost(parse(module_of(line))).total
    assert total.bytes_moved == nbytes
    assert flops is None or total.flops == flops


@pytest.mark.parametrize(
    ("body", "operands", "results", "nbytes"),
    [
        # The value in between never reaches memory.
        (
            "%0 = forge.cos %a : (tensor<4x8xf32>) -> tensor<4x8xf32>\n"
            "%1 = forge.mul %0, %b : (tensor<4x8xf32>, tensor<4x8xf32>) -> tensor<4x8xf32>\n"
            "forge.yield %1 : tensor<4x8xf32>",
            "%a = %x : tensor<4x8xf32>, %b = %y : tensor<4x8xf32>",
            "tensor<4x8xf32>",
            3 * 128,
        ),
        # Of a table the rows that are looked up, and a sum of two looked up in one.
        (
            "%0 = forge.embedding %a, %b : (tensor<1000x8xf32>, tensor<3xi64>) -> tensor<3x8xf32>\n"
            "%1 = forge.embedding %a, %c : (tensor<1000x8xf32>, tensor<3xi64>) -> tensor<3x8xf32>\n"
            "%2 = forge.add %0, %1 : (tensor<3x8xf32>, tensor<3x8xf32>) -> tensor<3x8xf32>\n"
            "forge.yield %2 : tensor<3x8xf32>",
            "%a = %x : tensor<1000x8xf32>, %b = %y : tensor<3xi64>, %c = %z : tensor<3xi64>",
            "tensor<3x8xf32>",
            2 * (96 + 24) + 96,
        ),
        # A lookup in what the kernel itself computes takes nothing off what it reads.
        (
            "%0 = forge.cos %a : (tensor<1000x8xf32>) -> tensor<1000x8xf32>\n"
            "%1 = forge.embedding %0, %b : (tensor<1000x8xf32>, tensor<3xi64>) -> tensor<3x8xf32>\n"
            "forge.yield %1 : tensor<3x8xf32>",
            "%a = %x : tensor<1000x8xf32>, %b = %y : tensor<3xi64>",
            "tensor<3x8xf32>",
            32000 + 24 + 96,
        ),
        # Of a sliced operand the slice.
        (
            "%0 = forge.slice %a dim 0 from 1 step 1 : (tensor<9x8xf32>) -> tensor<2x8xf32>\n"
            "%1 = forge.cos %0 : (tensor<2x8xf32>) -> tensor<2x8xf32>\n"
            "forge.yield %1 : tensor<2x8xf32>",
            "%a = %x : tensor<9x8xf32>",
            "tensor<2x8xf32>",
            2 * 64,
        ),
        # An operand that is broadcast inside is not read more often than it is long.
        (
            "%0 = forge.broadcast %a : (tensor<8xf32>) -> tensor<4x8xf32>\n"
            "%1 = forge.cos %0 : (tensor<4x8xf32>) -> tensor<4x8xf32>\n"
            "forge.yield %1 : tensor<4x8xf32>",
            "%a = %x : tensor<8xf32>",
            "tensor<4x8xf32>",
            32 + 128,
        ),
    ],
)
def test_a_kernel_reads_its_operands_and_writes_its_results(
    body: str, operands: str, results: str, nbytes: int
) -> None:
    arguments = ", ".join(part.split(" = ")[1].replace(" :", ":") for part in operands.split(", %") if part)
    kernel = f'%r = forge.fused "k" ({operands}) {{\n{body}\n}} : {results}'
    text = f"func.func @forward({arguments}) -> {results} {{\n{kernel}\nfunc.return %r : {results}\n}}"
    total = module_cost(parse(text)).total
    assert (total.bytes_moved, total.launches, total.count) == (nbytes, 1, 1)


def test_a_value_that_is_both_operands_is_read_once() -> None:
    text = module_of("%r = forge.mul %x, %y : (tensor<4x8xf32>, tensor<4x8xf32>) -> tensor<4x8xf32>")
    assert module_cost(parse(text)).total.bytes_moved == 3 * 128
    assert module_cost(parse(text.replace("forge.mul %x, %y", "forge.mul %x, %x"))).total.bytes_moved == 2 * 128
