"""Kernels of models in groups of warps do what they did before, in whatever order things happen."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from xdsl.dialects import scf
from xdsl.dialects.builtin import ModuleOp

from forgec.diagnostics import ForgeError
from forgec.ir.context import context
from forgec.ir.interpreter import interpret
from forgec.ir.tile.interpreter import run_kernel
from forgec.ir.tile.kernel import KernelOp
from forgec.ir.verify import verify_module
from forgec.ir.warp.channels import CreateOp
from forgec.ir.warp.interpreter import at_random
from forgec.ir.warp.kernel import KernelOp as WarpKernelOp
from forgec.passes.instruments import VerifyEach
from forgec.passes.manager import run_pipeline
from forgec.passes.schedule.body import bounding, loops_of
from forgec.passes.schedule.extract import extract, phases
from forgec.passes.schedule.lower import lower
from forgec.schedule import machine
from forgec.schedule.schedule import Schedule
from forgec.schedule.solve import schedules
from tests.ir.build import parse
from tests.passes.schedule.scheduled import arguments, assert_same, is_same, kernels, scheduled

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
    [
        ("", "sm_90a", 1),
        ("", "sm_100a", 2),
        ("causal", "sm_90a", 1),
        ("causal", "sm_90a", 2),
        ("causal", "sm_100a", 1),
        ("", "sm_80", 1),
        ("causal", "sm_80", 2),
    ],
)
def test_attention_on_machines(mask: str, target: str, parts: int) -> None:
    rows = 128 if parts == 2 and not mask else 256
    (kernel,) = kernels(attention(mask, rows), "BM=64,BN=16" if mask and parts == 2 else "BM=64,BN=64")
    warp, _, schedule = scheduled(kernel, target, parts)
    if machine.named(target).registers.uniform:
        assert len({group.registers for group in schedule.groups}) == 1
    assert_same(kernel, warp, [], range(2))


@pytest.mark.parametrize(("rows", "trips"), [(128, 1), (384, 3)])
def test_sums_are_copied_out_of_tensor_memory_before_the_next_iteration_reads_them(rows: int, trips: int) -> None:
    # With few columns the new sums are computed where the maximum is, which reads those of the iteration before.
    (kernel,) = kernels(attention("", rows), "BM=16,BN=128", "cuda:sm_100a")
    warp, extracted, _ = scheduled(kernel, "sm_100a", 1)
    (sums,) = [value for value in extracted.graph.values if value.name == "dot_v_read.0"]
    assert [(read.op, read.distance) for read in sums.reads] == [("max.0", 1)]
    assert extracted.graph.trips == trips
    assert_same(kernel, warp, [], range(3))


@pytest.mark.parametrize("target", ["sm_80", "sm_90a", "sm_100a"])
def test_parts_that_the_grid_does_not_divide_by(target: str) -> None:
    (kernel,) = kernels(LINEAR, "BM=64,BN=64,BK=32")
    warp, _, _ = scheduled(kernel, target, 2)
    for rows in (1, 64, 100, 130):  # one, one, two and three programs of two parts
        assert_same(kernel, warp, [rows], range(2))


@pytest.mark.parametrize("target", ["sm_80", "sm_90a", "sm_100a"])
def test_any_number_of_iterations(target: str) -> None:
    (kernel,) = kernels(MATMUL, "BM=64,BN=64,BK=16")
    warp, _, schedule = scheduled(kernel, target, 1)
    assert schedule.phases[0].stages > 2  # so that some numbers are fewer, some more
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


# Several loops

TWO_LOOPS = """
tile.kernel @two(%x: !X, %w: !X, %y: !tile.block<tensor<64x64xf32>>) symbols [n0, n1] writes [2] grid [1] {
  %zero = tile.index 0() : () -> index
  %step = tile.index 16() : () -> index
  %one = tile.index n0 * 16() : () -> index
  %two = tile.index n1 * 16() : () -> index
  %f = arith.constant 0.0 : f32
  %init = tile.broadcast %f along [] : f32 -> tensor<64x64xf32>
  %first = scf.for %i = %zero to %one step %step iter_args(%acc = %init) -> (tensor<64x64xf32>) {
    %a = tile.load %x[%zero, %i] : !X -> tensor<64x16xbf16>
    %b = tile.load %w[%zero, %i] : !X -> tensor<64x16xbf16>
    %c = tile.dot %a, %b into %acc transposed : tensor<64x16xbf16>, tensor<64x16xbf16> -> tensor<64x64xf32>
    scf.yield %c : tensor<64x64xf32>
  }
  %half = arith.mulf %first, %first : tensor<64x64xf32>
  %second = scf.for %j = %zero to %two step %step iter_args(%acc = %half) -> (tensor<64x64xf32>) {
    %a = tile.load %x[%zero, %j] : !X -> tensor<64x16xbf16>
    %b = tile.load %w[%zero, %j] : !X -> tensor<64x16xbf16>
    %c = tile.dot %a, %b into %acc transposed : tensor<64x16xbf16>, tensor<64x16xbf16> -> tensor<64x64xf32>
    scf.yield %c : tensor<64x64xf32>
  }
  tile.store %second, %y[%zero, %zero] : tensor<64x64xf32>, !tile.block<tensor<64x64xf32>>
  tile.return
}""".replace("!X", "!tile.block<tensor<64x?xbf16, #forge.tensor<[n0 * 16 + n1 * 16]>>>")


def in_phases(kernel: KernelOp, target: str) -> tuple[WarpKernelOp, Schedule]:
    """A kernel in groups of warps that run all of its loops."""
    facts = machine.named(target)
    found = phases(kernel, facts)
    schedule = schedules([[each.graph for each in found]], facts)[0]
    warp = lower(kernel, found, schedule, facts)
    verify_module(ModuleOp([warp]))
    return warp, schedule


@pytest.mark.parametrize("target", ["sm_80", "sm_90a"])
def test_groups_run_one_loop_after_the_other(target: str) -> None:
    (kernel,) = parse(TWO_LOOPS).ops
    assert isinstance(kernel, KernelOp)
    warp, schedule = in_phases(kernel, target)
    rings = [op.ring.name_hint for op in warp.body.block.ops if isinstance(op, CreateOp)]
    if target == "sm_90a":  # both loops use the same rings
        assert len(schedule.groups) > 1
        assert sorted(str(name) for name in rings) == ["a_ring", "b_ring"]
    for first in range(6):
        for second in range(6):
            assert_same(kernel, warp, [first, second], [first + second])


def test_softmax_of_long_rows_runs_all_its_loops() -> None:
    (kernel,) = kernels(SOFTMAX, "")
    warp, schedule = in_phases(kernel, "sm_90a")
    assert len(schedule.phases) == len(loops_of(kernel)) > 1
    for extent in (1, 5, 300):
        assert_same(kernel, warp, [extent], range(2))


KEYS = """
func.func @f(%q: !T, %k: !T, %v: !T, %m: tensor<2x96xi1>) -> !T {
  %y = forge.attention %q, %k, %v keys %m : (!T, !T, !T, tensor<2x96xi1>) -> !T
  func.return %y : !T
}""".replace("!T", "tensor<2x1x96x16xbf16>")


def test_how_far_the_keys_reach_is_found_before_the_groups() -> None:
    (kernel,) = kernels(KEYS, "BM=64,BN=16")
    (loop,) = [loop for loop in loops_of(kernel) if loop not in bounding(kernel)]
    warp, _, _ = scheduled(kernel, "sm_90a", 1, loop)
    assert any(isinstance(op, scf.ForOp) for op in warp.body.block.ops)
    expected, found = arguments(kernel, []), arguments(kernel, [])
    for each, blocks in ((kernel, expected), (warp, found)):
        blocks[3].copy_(torch.arange(96) < torch.tensor([[40], [0]]))
        run_kernel(each, blocks, [], scheduler=at_random(3))
    assert is_same(found, expected)


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


IN_PLACE = loop(read="%y", updates="updates [1]")
STORED_TWICE = loop(more=AGAIN)


@pytest.mark.parametrize("kernel", [IN_PLACE, STORED_TWICE])
def test_one_group_keeps_what_it_does_to_memory_in_order(kernel: KernelOp) -> None:
    warp, _, _ = scheduled(kernel, "sm_90a", 1)
    assert_same(kernel, warp, [], range(12))


@pytest.mark.parametrize(
    ("kernel", "reason"),
    [(IN_PLACE, "it reads memory that it writes"), (STORED_TWICE, "several stores may meet in memory")],
)
def test_memory_that_groups_would_have_to_order_is_refused(kernel: KernelOp, reason: str) -> None:
    hopper = machine.named("sm_90a")
    extracted = extract(kernel, hopper)
    (schedule,) = schedules([[extracted.graph]], hopper)
    (group,) = schedule.groups
    apart = next(name for name in group.ops if name.startswith("store"))
    rest = tuple(name for name in group.ops if name != apart)
    groups = (replace(group, ops=rest), replace(group, name="other", ops=(apart,)))
    with pytest.raises(ForgeError, match=f"FORGE-S020.*{reason}"):
        lower(kernel, extracted, replace(schedule, groups=groups), hopper)


def test_a_schedule_of_another_number_of_loops_is_refused() -> None:
    kernel, hopper = loop(), machine.named("sm_90a")
    extracted = extract(kernel, hopper)
    schedule = schedules([[extracted.graph, extracted.graph]], hopper)[0]
    with pytest.raises(ForgeError, match=r"FORGE-S020.*2 phases for 1 loops"):
        lower(kernel, extracted, schedule, hopper)


def test_launches_run_scheduled_kernels() -> None:
    module = parse(attention("", 128))
    run_pipeline(module, 'lower-to-tile,bind-tiles{target="cuda:sm_90a" tiles="BM=64,BN=64"}', context=context())
    generator = torch.Generator().manual_seed(3)
    inputs = [torch.randn(1, 1, 128, 16, generator=generator).bfloat16() for _ in range(3)]
    expected = interpret(module, inputs, function="f")
    run_pipeline(module, "schedule-kernel{target=sm_90a parts=2}", context=context(), instruments=[VerifyEach()])
    assert any(op.name == "warp.kernel" for op in module.ops)
    assert is_same(interpret(module, inputs, function="f"), expected)
