"""What may stand in a kernel, and whether its control flow fits: what the ops of other dialects do not check."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from xdsl.dialects import scf
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Attribute, Operation, Region

from forgec.ir.tile.kernel import Kernel, KernelOp

DIALECTS = ("tile", "arith", "math", "scf")
SCHEDULED = (*DIALECTS, "warp", "aref")
"""What a kernel may hold before and after it is scheduled."""


def broken_bodies(module: ModuleOp) -> Iterator[tuple[Operation, str]]:
    """The ops in kernels that do not belong there, or whose regions yield other types than they have to."""
    for kernel in [op for op in module.walk() if isinstance(op, Kernel)]:
        dialects = DIALECTS if isinstance(kernel, KernelOp) else SCHEDULED
        for op in kernel.body.walk():
            if op.name.partition(".")[0] not in dialects or isinstance(op, Kernel):
                yield op, f"stands in a kernel, which holds ops of {', '.join(dialects)}"
            elif isinstance(op, scf.IfOp):
                for name, region in (("then", op.true_region), ("else", op.false_region)):
                    if region.blocks or op.results:
                        yield from _misfitting(op, f"the {name} branch", region, op.result_types)
            elif isinstance(op, scf.ForOp):
                yield from _misfitting(op, "the body", op.body, op.result_types)


def _misfitting(
    op: Operation, where: str, region: Region, wanted: Sequence[Attribute]
) -> Iterator[tuple[Operation, str]]:
    end = region.blocks.last.last_op if region.blocks.last is not None else None
    if not isinstance(end, scf.YieldOp):
        if wanted:
            yield op, f"does not verify: {where} yields nothing, {len(wanted)} values are needed"
        return
    found = [operand.type for operand in end.operands]
    if len(found) != len(wanted):
        yield end, f"does not verify: {where} of {op.name} yields {len(wanted)} values, found {len(found)}"
        return
    for number, (kind, expected) in enumerate(zip(found, wanted, strict=True)):
        if kind != expected:
            yield end, f"does not verify: {where} of {op.name} yields {expected} as value {number}, found {kind}"
