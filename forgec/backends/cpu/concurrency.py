"""What the runtime has to know to run a kernel's programs on several threads."""

from __future__ import annotations

from xdsl.dialects.builtin import IntegerType

from forgec.ir.tile.cache_sets import SIDE_BY_SIDE, crowds, left_factors
from forgec.ir.tile.cost import kernel_cost
from forgec.ir.tile.kernel import KernelOp
from forgec.ir.tile.memory import ScatterOp
from forgec.ir.tile.types import block_type
from forgec.runtime.symbolic import evaluate

ASSUMED_EXTENT = 128
"""What extents are taken for that only the call tells."""
DOT_FLOPS, ELEMENT_OPS, LINE_BYTES = 100.0, 4.0, 10.0
"""Per nanosecond, on one core, of what the machine would do at best: an estimate that decides about threads only."""
PROGRAM_NS = 20
TOGETHER = 4
"""Programs that use what the first of them packs: what it costs is about a tenth of a program."""


def is_serial(kernel: KernelOp) -> bool:
    """Whether the result depends on the order of the programs: elements that several of them write, unless they are
    combined in a way that no order changes (sums, greatest and least of integers, which are changed in one step).
    """
    return any(_depends_on_order(op) for op in kernel.body.walk() if isinstance(op, ScatterOp))


def _depends_on_order(op: ScatterOp) -> bool:
    if op.combine is None:  # no two elements meet
        return False
    return op.combine.data == "any" or not isinstance(block_type(op.block).element_type, IntegerType)


def together(kernel: KernelOp) -> int:
    """How many programs one thread should run after one another: several where they read a factor that is packed."""
    return TOGETHER if any(apart is None or crowds(apart, SIDE_BY_SIDE) for _, _, apart in left_factors(kernel)) else 1


def cost_ns(kernel: KernelOp) -> int:
    """How long one program takes, about and on the average of all, for typical extents."""
    kernel_costs = kernel_cost(kernel)
    cost, values = kernel_costs.launch, dict.fromkeys(kernel.symbol_names, ASSUMED_EXTENT)
    programs = max(evaluate(kernel_costs.programs, values), 1)
    dots, elements, lines = (evaluate(part, values) for part in (cost.dot_flops, cost.element_ops, cost.line_bytes))
    return PROGRAM_NS + int((dots / DOT_FLOPS + elements / ELEMENT_OPS + lines / LINE_BYTES) / programs)
