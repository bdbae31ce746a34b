"""Loops within loops in groups of warps: grouped products, and nests at random, do what the tile kernels do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from random import Random
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from xdsl.dialects import scf
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation

from forgec.diagnostics import ForgeError
from forgec.ir.tile.interpreter import run_kernel
from forgec.ir.tile.kernel import Kernel, KernelOp
from forgec.ir.verify import verify_module
from forgec.ir.warp.channels import ConsumedOp, PutOp
from forgec.ir.warp.interpreter import Scheduler, at_random
from forgec.ir.warp.kernel import KernelOp as WarpKernelOp
from forgec.passes.schedule.body import loops_of
from forgec.passes.schedule.lower import lower
from forgec.schedule.check import check
from forgec.schedule.solve import schedules
from tests.passes.schedule.random_loops import random_extracted, roomy
from tests.passes.schedule.random_nests import RandomNest
from tests.passes.schedule.scheduled import arguments, is_same, kernels, scheduled
from tests.passes.schedule.test_broken_lowerings import each, erased, of_the_next

GROUPED = """
func.func @f(%x: tensor<128x64xbf16>, %w: tensor<3x64x32xbf16>, %ends: tensor<3xi32>) -> tensor<128x32xbf16> {
  %y = forge.grouped_matmul %x, %w ends %ends
    : (tensor<128x64xbf16>, tensor<3x64x32xbf16>, tensor<3xi32>) -> tensor<128x32xbf16>
  func.return %y : tensor<128x32xbf16>
}"""
ENDS = ((10, 80, 128), (0, 0, 64), (3, 60, 100))
"""Groups that share a tile; that are empty, with rows of no group in tiles of their own; and in the last tile."""


def grouped() -> KernelOp:
    """Rows 64 at a time, in steps of 16."""
    (kernel,) = kernels(GROUPED, "BM=64,BN=32,BK=16")
    assert all(loop.parent_op() is not kernel for loop in loops_of(kernel))
    return kernel


def run(
    kernel: Kernel, integers: Sequence[int], symbols: Sequence[int] = (), scheduler: Scheduler | None = None
) -> list[Any]:
    """What a kernel writes, with these integers in the parameter that has integers."""
    blocks = arguments(kernel, symbols)
    for parameter, block in zip(kernel.parameters, blocks, strict=True):
        if "xi32" in str(parameter.type):
            block.copy_(torch.tensor(integers, dtype=torch.int32))
    run_kernel(kernel, blocks, symbols, scheduler=scheduler)
    return [blocks[position] for position in kernel.writes.data]


@cache
def expected(ends: tuple[int, ...]) -> list[Any]:
    """What the grouped product is."""
    return run(grouped(), ends)


@pytest.mark.parametrize(("target", "parts"), [("sm_90a", 1), ("sm_90a", 2), ("sm_80", 2), ("sm_100a", 1)])
def test_grouped_products(target: str, parts: int) -> None:
    kernel = grouped()
    warp, _, schedule = scheduled(kernel, target, parts)
    if target == "sm_90a":  # the loop around is run by the group that loads too
        assert len(schedule.groups) > 1
        for group in warp.groups:
            (outer,) = [op for op in group.body.block.ops if isinstance(op, scf.ForOp)]
            assert any(isinstance(op, scf.ForOp) for op in outer.body.walk())
    for seed, ends in enumerate(ENDS):
        assert is_same(run(warp, ends, scheduler=at_random(seed)), expected(ends)), ends


def test_what_is_wrong_in_a_turn_of_an_outer_loop_shows() -> None:
    kernel = grouped()
    warp, _, _ = scheduled(kernel, "sm_90a", 1)

    def outcome(broken: WarpKernelOp) -> str:
        for seed in range(4):
            try:
                found = run(broken, ENDS[0], scheduler=at_random(seed))
            except ForgeError as failure:
                return failure.code or ""
            if not is_same(found, expected(ENDS[0])):
                return "wrong"
        return "same"

    def of_one_turn(op: Operation) -> None:
        """What is carried to the next turn is what this one began with."""
        assert isinstance(op, scf.ForOp)
        end = op.body.block.last_op
        assert end is not None
        end.operands = op.body.block.args[1:]

    assert {outcome(broken) for broken in each(warp, PutOp, erased)} <= {"FORGE-X001", "FORGE-X002"}
    assert {outcome(broken) for broken in each(warp, ConsumedOp, erased)} == {"FORGE-X002"}
    assert "same" not in {outcome(broken) for broken in each(warp, PutOp, of_the_next)}
    outer = [op for op in warp.walk() if isinstance(op, scf.ForOp)]
    numbers = [number for number, op in enumerate(outer) if any(isinstance(i, scf.ForOp) for i in op.body.walk())]
    broken = each(warp, scf.ForOp, of_one_turn)
    assert len(numbers) == 2
    assert "same" not in {outcome(broken[number]) for number in numbers}


counts: Counter[str] = Counter()


def check_random(seed: int) -> None:
    random = Random(seed)
    nest, target = RandomNest(random), roomy(random)
    kernel = nest.kernel()
    if nest.in_memory:  # a block that several ops touch is one group's
        target = replace(target, isolate="none", most_warps=random.choice((1, 1, 2)))
    extracted = random_extracted(random, kernel, target)
    (schedule,) = schedules([[each.graph for each in extracted]], target)
    assert not check(schedule, target)
    try:
        warp = lower(kernel, extracted, schedule, target)
    except ForgeError as failure:
        if failure.code != "FORGE-S020":
            raise
        counts[str(failure)] += 1
        return
    verify_module(ModuleOp([warp]))
    counts["lowered"] += 1
    counts["in memory"] += nest.in_memory
    counts["handed"] += "last_" in str(warp)
    counts["deep"] += any(loop.parent_op().parent_op() is not kernel for loop in loops_of(kernel))  # type: ignore[union-attr] - parts of the kernel
    counts["several groups"] += len(schedule.groups) > 1
    for symbols in ([random.randrange(4), random.randrange(4)], [2, 3]):
        wanted = run(kernel, [2, 0, 1, 3], symbols)
        for more in range(2):
            assert is_same(run(warp, [2, 0, 1, 3], symbols, at_random(seed + more)), wanted), (symbols, more)


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10**9))
def test_random_nests_do_the_same(seed: int) -> None:
    check_random(seed)


def test_most_nests_are_lowered() -> None:
    counts.clear()
    for seed in range(12):
        check_random(seed)
    assert counts["lowered"] >= 9
    assert min(counts["handed"], counts["deep"], counts["several groups"], counts["in memory"]) > 1, counts
