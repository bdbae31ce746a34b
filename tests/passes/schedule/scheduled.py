"""Kernels with schedules, and whether what they are lowered to does the same as they."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from xdsl.dialects.builtin import ModuleOp

from forgec.ir.context import context
from forgec.ir.evaluator import Evaluator
from forgec.ir.tile.interpreter import bound_symbols, placed, run_kernel
from forgec.ir.tile.kernel import Kernel, KernelOp
from forgec.ir.tile.types import block_type
from forgec.ir.verify import verify_module
from forgec.ir.warp.interpreter import Scheduler, at_random
from forgec.ir.warp.kernel import KernelOp as WarpKernelOp
from forgec.passes.manager import run_pipeline
from forgec.passes.schedule.extract import Extracted, extract
from forgec.passes.schedule.lower import lower
from forgec.schedule import machine
from forgec.schedule.schedule import Schedule
from forgec.schedule.solve import schedules
from tests.ir.build import parse


def kernels(text: str, tiles: str, target: str = "cuda:sm_90a") -> list[KernelOp]:
    """The kernels of forge functions, with tile extents."""
    module = parse(text)
    run_pipeline(module, f'lower-to-tile,bind-tiles{{target="{target}" tiles="{tiles}"}}', context=context())
    return [op for op in module.ops if isinstance(op, KernelOp)]


def scheduled(kernel: KernelOp, target: str, parts: int, loop: Any = None) -> tuple[WarpKernelOp, Extracted, Schedule]:
    """A kernel in groups of warps, verified, with its graph and the schedule."""
    hopper = machine.named(target)
    extracted = extract(kernel, hopper, parts=parts, loop=loop)
    schedule = schedules([[extracted.graph]], hopper)[0]
    found = lower(kernel, extracted, schedule, hopper)
    verify_module(ModuleOp([found]))
    return found, extracted, schedule


def arguments(kernel: Kernel, symbols: Sequence[int]) -> list[Any]:
    """Tensors for a kernel's parameters: random ones, and 7 everywhere for what it writes."""
    evaluator = Evaluator(bound_symbols(kernel, symbols, None), {}, False)
    generator = torch.Generator().manual_seed(0)
    found = []
    for position, parameter in enumerate(kernel.parameters):
        kind = block_type(parameter)
        value = torch.randn(evaluator.shape(kind), generator=generator).to(evaluator.dtype(kind))
        if position in kernel.writes.data:
            value = torch.full_like(value, 7)
        found.append(placed(evaluator, kind, value))
    return found


def results(
    kernel: Kernel, symbols: Sequence[int], scheduler: Scheduler | None = None, order: Iterable[int] | None = None
) -> list[Any]:
    """What a kernel writes."""
    torch.set_num_threads(1)  # tiles are small: several threads only wait for each other
    blocks = arguments(kernel, symbols)
    run_kernel(kernel, blocks, symbols, order=order, scheduler=scheduler)
    return [blocks[position] for position in kernel.writes.data]


def is_same(one: Sequence[Any], other: Sequence[Any]) -> bool:
    """Whether results are equal in each element, NaN in the same places."""
    return all(
        torch.equal(a.nan_to_num(nan=12345.0), b.nan_to_num(nan=12345.0)) for a, b in zip(one, other, strict=True)
    )


def assert_same(kernel: KernelOp, warp: WarpKernelOp, symbols: Sequence[int], seeds: Iterable[int]) -> None:
    """In orders at random the scheduled kernel does what the kernel does, and all that it does is finite."""
    expected = results(kernel, symbols)
    assert all(each.isfinite().all() for each in expected)
    for seed in seeds:
        found = results(warp, symbols, at_random(seed))
        assert is_same(found, expected), f"seed {seed}, symbols {symbols}"
