"""Chains of pointwise ops and of reductions along rows run as one kernel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation, SSAValue
from xdsl.passes import ModulePass

from forgec.ir import types
from forgec.ir.ops.activation import ActivationOp
from forgec.ir.ops.base import ElementwiseOp
from forgec.ir.ops.binary import PowOp
from forgec.ir.ops.composite import GluOp, RopeOp
from forgec.ir.ops.norm import LayerNormOp, RmsNormOp
from forgec.ir.ops.reduction import ReductionOp, SoftmaxOp
from forgec.ir.ops.shape import ConcatOp, CopyOp
from forgec.ir.ops.unary import CosOp, ErfOp, ExpOp, GeluOp, LogOp, SiluOp, SinOp, TanhOp
from forgec.passes.fusion import Fuser, Group, each_fuser
from forgec.runtime.symbolic import Extent, evaluate, free_symbols

POINTWISE = (ElementwiseOp, RopeOp, GluOp, CopyOp, ConcatOp)
ROWWISE = (ReductionOp, SoftmaxOp, LayerNormOp, RmsNormOp)
DEAR = (ExpOp, LogOp, SinOp, CosOp, TanhOp, ErfOp, GeluOp, SiluOp, PowOp, ActivationOp)
"""Ops that cost more than reading their result again."""
USUAL = 64
"""What a dynamic extent counts, where sizes are compared."""


@dataclass(frozen=True)
class FuseElementwise(ModulePass):
    """Put pointwise ops, and reductions along rows with what is done to their rows, into groups that run as one kernel.

    Before::

        %0 = forge.cos %x : (tensor<9x8xf32>) -> tensor<9x8xf32>
        %1 = forge.mul %0, %y : (tensor<9x8xf32>, tensor<9x8xf32>) -> tensor<9x8xf32>

    After::

        %1 = forge.fused "cos" (%a = %x : tensor<9x8xf32>, %b = %y : tensor<9x8xf32>) {
          %0 = forge.cos %a : (tensor<9x8xf32>) -> tensor<9x8xf32>
          %2 = forge.mul %0, %b : (tensor<9x8xf32>, tensor<9x8xf32>) -> tensor<9x8xf32>
          forge.yield %2 : tensor<9x8xf32>
        } : tensor<9x8xf32>

    Each op that joins saves the bytes of a value that is written and read. It does not join where its result is larger
    by a broadcast and the group holds an op that costs more than reading its result again (a cosine): that would be
    computed once for each copy. A kernel reduces rows of one length. Runs after ``fuse-epilogue``.

    Order: after ``fuse-epilogue``: it takes what no linear or attention has taken.
    """

    name = "fuse-elementwise"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for fuser in each_fuser(op):
            for current in fuser.ops:
                if isinstance(current, (*POINTWISE, *ROWWISE)):
                    _place(fuser, current)


def _place(fuser: Fuser, op: Operation) -> None:
    """Put an op into the groups of its operands, which become one, or into a new one."""
    joined: Group | None = None
    for operand in dict.fromkeys(op.operands):
        source, views = fuser.source(operand)
        group = None if source is None else fuser.group.get(source)
        if group is None or group is joined or not _fits(op, operand, group):
            continue
        if joined is None:
            joined = group if fuser.join(group, [*views, op]) else None
        elif _agree(joined, group) and fuser.unite(joined, group) and views:
            fuser.join(joined, views)
    if joined is None:
        fuser.begin(op)
    elif isinstance(op, ROWWISE):
        joined.root = op


def _fits(op: Operation, operand: SSAValue, group: Group) -> bool:
    """True if an op may join the group that computes its operand."""
    if isinstance(op, ROWWISE):
        return _row(op) is not None and _row_of(group) in (None, _row(op)) and operand is op.operands[0]
    grows = _size(op.results[0]) > 2 * _size(operand)
    return not (grows and any(isinstance(member, DEAR) for member in group.members))


def _agree(first: Group, second: Group) -> bool:
    rows = {_row_of(first), _row_of(second)} - {None}
    return len(rows) < 2 and not (_reduces(first) and _reduces(second))


def _reduces(group: Group) -> bool:
    return any(isinstance(op, ROWWISE) for op in group.members)


def _row_of(group: Group) -> tuple[Extent, ...] | None:
    """The extents that a group reduces over; None if it reduces nothing."""
    return next((row for op in group.members if isinstance(op, ROWWISE) and (row := _row(op)) is not None), None)


def _row(op: Operation) -> tuple[Extent, ...] | None:
    """The last extents that an op reduces over; None if these are not the last."""
    shape = types.shape(op.operands[0])
    dims: Sequence[int]
    match op:
        case ReductionOp():
            dims = sorted(op.dims.data)
        case SoftmaxOp():
            dims = [op.dim.data]
        case LayerNormOp() | RmsNormOp():
            dims = list(range(len(shape) - op.axes.data, len(shape)))
        case _:
            return None
    return tuple(shape[d] for d in dims) if list(dims) == list(range(len(shape) - len(dims), len(shape))) else None


def _size(value: SSAValue) -> int:
    count = types.numel(value)
    return evaluate(count, dict.fromkeys(free_symbols(count), USUAL))
