"""Loops out of branches: programs of one launch that do different things have all loops, and run some no times."""

from __future__ import annotations

from collections.abc import Iterator

from xdsl.dialects import arith, scf
from xdsl.ir import Operation
from xdsl.rewriter import InsertPoint, Rewriter

from forgec.ir.locations import inherit
from forgec.ir.tile.elementwise import CmpiOp, IndexCastOp, SelectOp
from forgec.ir.tile.kernel import KernelOp
from forgec.passes.schedule.body import ADDRESSES, loops_of
from forgec.passes.schedule.flow import operands

SAFE = (*ADDRESSES, CmpiOp, arith.AndIOp, arith.OrIOp, SelectOp, IndexCastOp)
"""What may be computed whether a branch is taken or not: it reads no memory, and costs nothing to speak of."""


def without_branches(kernel: KernelOp) -> KernelOp:
    """A copy of a kernel with the loops of its branches in the kernel itself.

    Before::

        scf.if %mine {
          %r = scf.for %k = %0 to %n step %s iter_args(%acc = %zero) -> … { … }
          tile.store %r, %y[…] …
        }

    After::

        %end = arith.select %mine, %n, %0 : index
        %r = scf.for %k = %0 to %end step %s iter_args(%acc = %zero) -> … { … }
        scf.if %mine {
          tile.store %r, %y[…] …
        }

    A branch stays as it is where a loop needs something of it that may only be done if it is taken (a load), or where
    it has an alternative.
    """
    found = kernel.clone()
    loops = set(loops_of(found))
    for op in list(found.body.block.ops):
        if isinstance(op, scf.IfOp) and not op.results and not op.false_region.blocks:
            moved = list(_moved(op, loops))
            if any(each in loops for each in moved):
                _move(op, moved, loops)
    return found


def _moved(branch: scf.IfOp, loops: set[scf.ForOp]) -> Iterator[Operation]:
    """The ops of a branch that may stand before it; none where a loop cannot."""
    inside = set(branch.true_region.block.ops)
    left = {op for op in inside if not (isinstance(op, SAFE) or op in loops)}
    found: list[Operation] = []
    for op in branch.true_region.block.ops:
        if op not in left and any(operand.owner in left for operand in operands(op)):
            left.add(op)
        if op not in left:
            found.append(op)
    if not any(op in loops for op in left):
        yield from found


def _move(branch: scf.IfOp, ops: list[Operation], loops: set[scf.ForOp]) -> None:
    for op in ops:
        op.detach()
        Rewriter.insert_op(op, InsertPoint.before(branch))
        if isinstance(op, scf.ForOp) and op in loops:
            end = inherit(SelectOp(branch.cond, op.ub, op.lb), op)
            Rewriter.insert_op(end, InsertPoint.before(op))
            op.operands[1] = end.results[0]
