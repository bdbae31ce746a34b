"""Kernels of models in groups of warps do what they did before, in whatever order things happen."""

from __future__ import annotations

import pytest
import torch

from forgec.diagnostics import ForgeError
from forgec.ir.context import context
from forgec.ir.interpreter import interpret
from forgec.ir.tile.kernel import KernelOp
from forgec.ir.warp.channels import CreateOp
from forgec.passes.instruments import VerifyEach
from forgec.passes.manager import run_pipeline
from forgec.passes.schedule.body import loops_of
from forgec.passes.schedule.extract import extract
from forgec.passes.schedule.lower import lower
from forgec.schedule import machine
from forgec.schedule.solve import schedules
from tests.ir.build import parse
from tests.passes.schedule.scheduled import assert_same, is_same, kernels, scheduled

ATTENTION = """
func.func @f(%q: !T, %k: !T, %v: !T) -> !T {
  %y = forge.attention %q, %k, %v !M : (!T, !T, !T) -> !T
  func.return %y : !T
}"""

LINEAR = """
func.func @f(%x: !X, %w: tensor<64x128xbf16>) -> !Y {
  %y = forge.fused "linear" (%a = %x : !X, %b = %w : tensor<64x128xbf16>) {
    %g = forge.linear %a, %b : (!X, tensor<64x128xbf16>) -> !Y
    %h = forge.silu %g : (!Y) -> !Y
    forge.yield %h : !Y
  } : !Y
  func.return %y : !Y
}""".replace("!X", "tensor<?x128xbf16, #forge.tensor<[s0]>>").replace("!Y", "tensor<?x64xbf16, #forge.tensor<[s0]>>")

MATMUL = """
func.func @f(%x: tensor<64x?xbf16, #forge.tensor<[s0]>>, %w: tensor<?x64xbf16, #forge.tensor<[s0]>>)
    -> tensor<64x64xbf16> {
  %y = forge.matmul %x, %w
    : (tensor<64x?xbf16, #forge.tensor<[s0]>>, tensor<?x64xbf16, #forge.tensor<[s0]>>) -> tensor<64x64xbf16>
  func.return %y : tensor<64x64xbf16>
}"""

SOFTMAX = """
func.func @f(%x: tensor<8x?xf32, #forge.tensor<[s0]>>) -> tensor<8x?xf32, #forge.tensor<[s0]>> {
  %y = forge.softmax %x dim 1 : (tensor<8x?xf32, #forge.tensor<[s0]>>) -> tensor<8x?xf32, #forge.tensor<[s0]>>
  func.return %y : tensor<8x?xf32, #forge.tensor<[s0]>>
}"""


def attention(mask: str, rows: int) -> str:
    return ATTENTION.replace("!M", mask).replace("!T", f"tensor<1x1x{rows}x16xbf16>")


def test_attention_does_the_same_in_a_hundred_orders() -> None:
    (kernel,) = kernels(attention("", 128), "BM=64,BN=32")
    warp, _, schedule = scheduled(kernel, "sm_90a", 2)
    assert [(group.name, group.warps) for group in schedule.groups] == [
        ("load", 1), ("consumer.0", 4), ("consumer.1", 4),
    ]  # fmt: skip
    depths = {op.ring.name_hint: op.depth.data for op in warp.walk() if isinstance(op, CreateOp)}
    assert depths == {"k_ring": schedule.depths["k"], "v_ring": schedule.depths["v"]}
    assert (kernel.grid.data, warp.grid.data) == ((2,), (1,))
    assert_same(kernel, warp, [], range(100))


@pytest.mark.parametrize(
    ("mask", "target", "parts"),
    [("", "sm_90a", 1), ("", "sm_100a", 2), ("causal", "sm_90a", 1), ("causal", "sm_90a", 2), ("causal", "sm_100a", 1)],
)
def test_attention_on_machines(mask: str, target: str, parts: int) -> None:
    rows = 128 if parts == 2 and not mask else 256
    (kernel,) = kernels(attention(mask, rows), "BM=64,BN=16" if mask and parts == 2 else "BM=64,BN=64")
    warp, _, _ = scheduled(kernel, target, parts)
    assert_same(kernel, warp, [], range(2))


@pytest.mark.parametrize("target", ["sm_90a", "sm_100a"])
def test_parts_that_the_grid_does_not_divide_by(target: str) -> None:
    (kernel,) = kernels(LINEAR, "BM=64,BN=64,BK=32")
    warp, _, _ = scheduled(kernel, target, 2)
    for rows in (1, 64, 100, 130):  # one, one, two and three programs of two parts
        assert_same(kernel, warp, [rows], range(2))


@pytest.mark.parametrize("target", ["sm_90a", "sm_100a"])
def test_any_number_of_iterations(target: str) -> None:
    (kernel,) = kernels(MATMUL, "BM=64,BN=64,BK=16")
    warp, _, schedule = scheduled(kernel, target, 1)
    assert schedule.phases[0].stages > 3  # so that some numbers are fewer, some more
    for trips in range(8):
        assert_same(kernel, warp, [16 * trips], [trips])


def test_each_loop_of_a_kernel_beside_the_other() -> None:
    (kernel,) = kernels(SOFTMAX, "")
    loops = loops_of(kernel)
    assert len(loops) > 1
    for loop in loops:
        warp, _, _ = scheduled(kernel, "sm_90a", 1, loop)
        for extent in (5, 300):
            assert_same(kernel, warp, [extent], range(2))


# What is refused

LOOP = """
tile.kernel @loop(%x: !tile.block<tensor<4x64xf32>>, %y: !tile.block<tensor<4x64xf32>>,
    %s: !tile.block<tensor<4x4xf32>>) writes [1, 2] {updates} grid [1] {{
  %zero = tile.index 0() : () -> index
  %end = tile.index 64() : () -> index
  %step = tile.index 4() : () -> index
  %init = tile.load %x[%zero, %zero] : !tile.block<tensor<4x64xf32>> -> tensor<4x4xf32>
  %sum = scf.for %i = %zero to %end step %step iter_args(%acc = %init) -> (tensor<4x4xf32>) {{
    %a = tile.load {read}[%zero, %i] : !tile.block<tensor<4x64xf32>> -> tensor<4x4xf32>
    %b = arith.addf %acc, %a : tensor<4x4xf32>
    tile.store %b, %y[%zero, %i] : tensor<4x4xf32>, !tile.block<tensor<4x64xf32>>
    {more}
    scf.yield %b : tensor<4x4xf32>
  }}
  tile.store %sum, %s[%zero, %zero] : tensor<4x4xf32>, !tile.block<tensor<4x4xf32>>
  tile.return
}}"""
AGAIN = "tile.store %a, %y[%zero, %i] : tensor<4x4xf32>, !tile.block<tensor<4x64xf32>>"


def loop(read: str = "%x", updates: str = "", more: str = "") -> KernelOp:
    (kernel,) = parse(LOOP.format(read=read, updates=updates, more=more)).ops
    assert isinstance(kernel, KernelOp)
    return kernel


def test_a_loop_that_stores_is_lowered() -> None:
    kernel = loop()
    warp, _, _ = scheduled(kernel, "sm_90a", 1)
    assert_same(kernel, warp, [], range(6))


@pytest.mark.parametrize(
    ("kernel", "reason"),
    [
        (loop(read="%y", updates="updates [1]"), "it reads memory that it writes"),
        (loop(more=AGAIN), "several stores may meet in memory"),
    ],
)
def test_memory_that_groups_would_have_to_order_is_refused(kernel: KernelOp, reason: str) -> None:
    with pytest.raises(ForgeError, match=f"FORGE-S020.*{reason}"):
        scheduled(kernel, "sm_90a", 1)


def test_several_phases_are_refused() -> None:
    kernel, hopper = loop(), machine.named("sm_90a")
    extracted = extract(kernel, hopper)
    schedule = schedules([[extracted.graph, extracted.graph]], hopper)[0]
    with pytest.raises(ForgeError, match=r"FORGE-S020.*2 phases"):
        lower(kernel, extracted, schedule)


def test_launches_run_scheduled_kernels() -> None:
    module = parse(attention("", 128))
    run_pipeline(module, 'lower-to-tile,bind-tiles{target="cuda:sm_90a" tiles="BM=64,BN=64"}', context=context())
    generator = torch.Generator().manual_seed(3)
    inputs = [torch.randn(1, 1, 128, 16, generator=generator).bfloat16() for _ in range(3)]
    expected = interpret(module, inputs, function="f")
    run_pipeline(module, "schedule-kernel{target=sm_90a parts=2}", context=context(), instruments=[VerifyEach()])
    assert any(op.name == "warp.kernel" for op in module.ops)
    assert is_same(interpret(module, inputs, function="f"), expected)
