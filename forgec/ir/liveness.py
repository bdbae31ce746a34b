"""Live ranges of a plan's registers, and the most memory that a call has allocated at one time."""

from __future__ import annotations

from xdsl.ir import SSAValue

from forgec.ir import plan
from forgec.ir.layout import span_bytes
from forgec.ir.types import tensor_type

Ranges = dict[SSAValue, tuple[int, int]]


def live_ranges(entry: plan.EntryOp) -> Ranges:
    """For each register that owns bytes and that a launch uses: ``[first, last)`` in launch numbers, uses through
    views included.

    Registers that the entry returns live to the end.
    """
    ranges: Ranges = {}
    number = 0

    def use(value: SSAValue, at: int) -> None:
        base = plan.base_of(value)
        first, last = ranges.get(base, (at, at))
        ranges[base] = (first, max(last, at + 1))

    for op in entry.body.block.ops:
        if isinstance(op, plan.LaunchOp):
            for value in (*op.operands, *op.results):
                use(value, number)
            number += 1
        elif isinstance(op, plan.ReturnOp):
            for value in op.operands:
                use(value, max(number - 1, 0))
    return ranges


def peak_bytes(entry: plan.EntryOp, ranges: Ranges, arena_bytes: int) -> int | None:
    """The arena, and the most bytes of outputs and externals that are alive together; None if a size is symbolic.

    Outputs are allocated when first written; externals when their launch runs, and freed after their last use.
    """
    changes: dict[int, int] = {}
    returned = {plan.base_of(v) for op in entry.body.block.ops if isinstance(op, plan.ReturnOp) for v in op.operands}
    for op in entry.body.block.ops:
        owned = list(op.results) if isinstance(op, (plan.LaunchOp, plan.OutputOp)) else []
        for value in owned:
            if value not in ranges:
                continue
            size = span_bytes(tensor_type(value))
            if not isinstance(size, int):
                return None
            first, last = ranges[value]
            changes[first] = changes.get(first, 0) + size
            if isinstance(op, plan.LaunchOp) and value not in returned:
                changes[last] = changes.get(last, 0) - size
    alive = peak = 0
    for number in sorted(changes):
        alive += changes[number]
        peak = max(peak, alive)
    return arena_bytes + peak
