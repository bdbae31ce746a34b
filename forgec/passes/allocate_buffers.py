"""Liveness and linear-scan allocation of a plan's buffers."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass

from forgec.ir import plan
from forgec.ir.attributes import ExtentAttr, IntsAttr
from forgec.ir.liveness import live_ranges, peak_bytes
from forgec.runtime.linear_scan import Interval, allocate


@dataclass(frozen=True)
class AllocateBuffers(ModulePass):
    """Give every ``plan.buffer`` its live range and, where sizes are known, its offset in the arena.

    Before::

        %1 = plan.buffer bytes 24 : tensor<2x3xf32>

    After::

        %1 = plan.buffer bytes 24 at 0 live [0, 2] : tensor<2x3xf32>

    Live ranges are half open, in launch numbers: from the launch that writes the register first to the one that uses
    it last (views included). Offsets are multiples of 64 bytes; buffers that are live at the same time never overlap.
    A plan with a size that depends on a symbol keeps its offsets open: the runtime runs the same allocation for each
    signature.

    Order: ``forgec.compile`` runs it after ``lower-to-plan``.
    """

    name = "allocate-buffers"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for entry in op.ops:
            if isinstance(entry, plan.EntryOp):
                _allocate(entry)


def _drop_unused(entry: plan.EntryOp) -> None:
    """Remove registers that no launch uses; inputs and states stay, they are part of the contract."""
    block = entry.body.block
    for op in reversed(list(block.ops)):
        if (
            isinstance(op, plan.RegisterOp)
            and not isinstance(op, (plan.InputOp, plan.StateOp))
            and op.result.first_use is None
        ):
            block.erase_op(op)


def _allocate(entry: plan.EntryOp) -> None:
    _drop_unused(entry)
    ranges = live_ranges(entry)
    buffers = [op for op in entry.body.block.ops if isinstance(op, plan.BufferOp)]
    for op in buffers:
        op.live = IntsAttr(ranges[op.result])
    sizes = [op.nbytes.data for op in buffers]
    if all(isinstance(size, int) for size in sizes):
        intervals = [
            Interval(size, *ranges[op.result]) for op, size in zip(buffers, sizes, strict=True) if isinstance(size, int)
        ]
        allocation = allocate(intervals)
        for op, offset in zip(buffers, allocation.offsets, strict=True):
            op.offset = ExtentAttr(offset)
        entry.arena_bytes = ExtentAttr(allocation.peak_bytes)
        peak = peak_bytes(entry, ranges, allocation.peak_bytes)
        if peak is not None:
            entry.peak_bytes = ExtentAttr(peak)
