"""Softmax that the model spells out, as one op."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import IntAttr, ModuleOp
from xdsl.ir import Operation, SSAValue
from xdsl.passes import ModulePass

from forgec.ir import types
from forgec.ir.ops.base import producer
from forgec.ir.ops.binary import DivOp, SubOp
from forgec.ir.ops.order import MaxOp
from forgec.ir.ops.reduction import AmaxOp, LogSoftmaxOp, LogsumexpOp, SoftmaxOp, SumOp
from forgec.ir.ops.shape import CopyOp, ReshapeOp
from forgec.ir.ops.unary import ExpOp
from forgec.passes.patterns import made_by, substitute, through
from forgec.passes.rewriting import blocks


@dataclass(frozen=True)
class FuseSoftmax(ModulePass):
    """Make one ``forge.softmax`` of exponentials that are divided by their sum.

    Before::

        %0 = forge.amax %x over [1] keepdim : (tensor<4x8xf32>) -> tensor<4x1xf32>
        %1 = forge.sub %x, %0 : (tensor<4x8xf32>, tensor<4x1xf32>) -> tensor<4x8xf32>
        %2 = forge.exp %1 : (tensor<4x8xf32>) -> tensor<4x8xf32>
        %3 = forge.sum %2 over [1] keepdim : (tensor<4x8xf32>) -> tensor<4x1xf32>
        %4 = forge.div %2, %3 : (tensor<4x8xf32>, tensor<4x1xf32>) -> tensor<4x8xf32>

    After::

        %4 = forge.softmax %x dim 1 : (tensor<4x8xf32>) -> tensor<4x8xf32>

    The greatest element has to be subtracted first, as the softmax does: without that, large elements overflow in the
    spelling alone. Also fused: ``exp(log_softmax(x))`` and ``exp(x - logsumexp(x))``. So attention with a softmax of
    its own is found.

    Order: before ``fuse-attention``, which looks for a softmax.
    """

    name = "fuse-softmax"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for block in blocks(op):
            for root in [child for child in block.ops if isinstance(child, (DivOp, ExpOp))]:
                found = _divided(root) if isinstance(root, DivOp) else _of_logarithm(root)
                if found is None:
                    continue
                source, dim, matched = found
                if types.dtype(source) in types.FLOATS and _kind(source) == _kind(root.result):
                    new = SoftmaxOp.make([source], {"dim": IntAttr(dim)}, [root.result.type])
                    substitute(root, [new], matched, "made one forge.softmax of exponentials over their sum")


Match = tuple[SSAValue, int, list[Operation]]
"""What the softmax is of, along which dimension, and the ops that spell it."""


def _divided(root: DivOp) -> Match | None:
    exponential = made_by(root.lhs, ExpOp)
    reduced = None if root.rhs is None else through(root.rhs, ReshapeOp, CopyOp)
    total = made_by(reduced, SumOp)
    if exponential is None or total is None or root.rhs is None or total.input is not exponential.result:
        return None
    shift = made_by(exponential.input, SubOp)
    if shift is None or shift.rhs is None or len(total.dims.data) != 1:
        return None
    (dim,) = total.dims.data
    greatest = producer(through(shift.rhs, ReshapeOp, CopyOp))
    if not isinstance(greatest, (AmaxOp, MaxOp)) or greatest.input is not shift.lhs:
        return None
    along = greatest.dims.data == (dim,) if isinstance(greatest, AmaxOp) else greatest.dim.data == dim
    first = isinstance(greatest, AmaxOp) or through(shift.rhs, ReshapeOp, CopyOp) is greatest.results[0]
    if not along or not first or not _kept(shift.rhs, shift.lhs, dim) or not _kept(root.rhs, shift.lhs, dim):
        return None
    return shift.lhs, dim, [shift, exponential, total]


def _of_logarithm(root: ExpOp) -> Match | None:
    inner = made_by(root.input, LogSoftmaxOp, SubOp)
    if isinstance(inner, LogSoftmaxOp):
        return inner.input, inner.dim.data, [inner]
    if inner is None or inner.rhs is None:
        return None
    total = made_by(through(inner.rhs, ReshapeOp, CopyOp), LogsumexpOp)
    if total is None or total.input is not inner.lhs or len(total.dims.data) != 1:
        return None
    (dim,) = total.dims.data
    return (inner.lhs, dim, [inner, total]) if _kept(inner.rhs, inner.lhs, dim) else None


def _kept(value: SSAValue, source: SSAValue, dim: int) -> bool:
    """True if a reduction of ``source`` along ``dim`` keeps the dimension, with extent 1."""
    shape = types.shape(source)
    return types.shape(value) == (*shape[:dim], 1, *shape[dim + 1 :]) and types.dtype(value) == types.dtype(source)


def _kind(value: SSAValue) -> tuple[object, ...]:
    return types.dtype(value), types.shape(value)
