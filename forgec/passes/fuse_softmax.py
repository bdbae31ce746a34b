"""Softmax that the model spells out, as one op."""

from __future__ import annotations

from dataclasses import dataclass, field

from xdsl.context import Context
from xdsl.dialects.builtin import IntAttr, ModuleOp
from xdsl.ir import Operation, SSAValue
from xdsl.passes import ModulePass

from forgec.ir import types
from forgec.ir.attributes import ScalarAttr
from forgec.ir.ops.base import producer
from forgec.ir.ops.binary import AddOp, DivOp, EqOp, MaximumOp, MulOp, SubOp
from forgec.ir.ops.contraction import MatmulOp
from forgec.ir.ops.order import MaxOp
from forgec.ir.ops.reduction import AmaxOp, LogSoftmaxOp, LogsumexpOp, SoftmaxOp, SumOp
from forgec.ir.ops.select import MaskedFillOp, WhereOp
from forgec.ir.ops.shape import CopyOp, ReshapeOp
from forgec.ir.ops.unary import ClampOp, ExpOp, LogicalNotOp
from forgec.passes.mask_gates import Gates
from forgec.passes.patterns import is_private, made_by, missed, number, substitute, through
from forgec.passes.rewriting import blocks

MASKS = 4
"""Masks on exponentials, at most."""


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

    Exponentials, or the results of another softmax, that a mask leaves and that are divided by their sum after that,
    are the softmax of what the mask leaves: with -inf elsewhere, which makes a row with nothing left NaN, as 0 / 0 is.
    The mask is a boolean or a factor of which it is certain that it is 0 or 1. A matrix product may stand before the
    division. Where a number is added to the sum, or bounds it, the spelling stays, with a remark.

    Order: before ``fuse-attention``, which looks for a softmax.
    """

    name = "fuse-softmax"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for block in blocks(op):
            for root in [child for child in block.ops if isinstance(child, (DivOp, ExpOp))]:
                found = _divided(root) if isinstance(root, DivOp) else _of_logarithm(root)
                if found is not None:
                    _replace(root, found)


@dataclass
class _Match:
    """What the softmax is of, along which dimension, and the ops that spell it.

    ``masks`` mask what it is of. ``value`` is what the exponentials were multiplied by, as a matrix, before they were
    divided by their sum.
    """

    source: SSAValue
    dim: int
    ops: list[Operation]
    masks: list[_Mask] = field(default_factory=list)
    value: SSAValue | None = None


@dataclass(frozen=True)
class _Mask:
    """What makes all but some of ``kept`` 0: a boolean, or a factor of 0 and 1. It ``keeps`` where it is true, or 1."""

    op: Operation
    kept: SSAValue
    gate: SSAValue
    keeps: bool


def _replace(root: DivOp | ExpOp, found: _Match) -> None:
    source = found.source
    dtype = types.dtype(source)
    if dtype not in types.FLOATS or dtype != types.dtype(root.result):
        return
    new: list[Operation] = []

    def insert(op: Operation) -> SSAValue:
        new.append(op)
        return op.results[0]

    for mask in found.masks:
        shut = mask.gate
        if types.dtype(shut) != "i1":
            shut = insert(EqOp.of(shut, 0))
        elif mask.keeps:
            shut = insert(LogicalNotOp.make([shut]))
        source = insert(MaskedFillOp.make([source, shut], {"value": ScalarAttr.of(-float("inf"))}))
    if found.value is None:
        insert(SoftmaxOp.make([source], {"dim": IntAttr(found.dim)}, [root.result.type]))
    else:
        weights = insert(SoftmaxOp.make([source], {"dim": IntAttr(found.dim)}))
        insert(MatmulOp.make([weights, found.value], result_types=[root.result.type]))
    substitute(root, new, found.ops, "made one forge.softmax of exponentials over their sum")


def _divided(root: DivOp) -> _Match | None:
    """Exponentials, or what a mask leaves of them or of another softmax, over their sum."""
    reduced = None if root.rhs is None else through(root.rhs, ReshapeOp, CopyOp)
    total = made_by(reduced, SumOp)
    if root.rhs is None or total is None or len(total.dims.data) != 1:
        _remark_on_epsilon(root, reduced)
        return None
    (dim,) = total.dims.data
    numerator, value = total.input, None
    product = made_by(root.lhs, MatmulOp)
    if product is not None and product.lhs is numerator:
        value = product.rhs
        if dim != types.rank(numerator) - 1 or not is_private(product.result, [root]):
            return None
    elif root.lhs is not numerator:
        return None
    if types.dtype(root.rhs) != types.dtype(numerator) or not _kept(root.rhs, numerator, dim):
        return None
    masks = _masks(numerator)
    inner = masks[-1].kept if masks else numerator
    found = _exponentials(inner, dim)
    if found is None:
        previous = made_by(inner, SoftmaxOp)
        if not masks or previous is None or previous.dim.data != dim:
            return None
        found = _Match(previous.input, dim, [previous])
    found.ops += [op for op in (product, total) if op is not None]
    found.value, found.masks = value, masks
    found.ops += [mask.op for mask in masks]
    return found


def _exponentials(value: SSAValue, dim: int) -> _Match | None:
    """``exp(x - max(x))``."""
    exponential = made_by(value, ExpOp)
    shift = None if exponential is None else made_by(exponential.input, SubOp)
    if exponential is None or shift is None or shift.rhs is None:
        return None
    greatest = producer(through(shift.rhs, ReshapeOp, CopyOp))
    if not isinstance(greatest, (AmaxOp, MaxOp)) or greatest.input is not shift.lhs:
        return None
    along = greatest.dims.data == (dim,) if isinstance(greatest, AmaxOp) else greatest.dim.data == dim
    first = isinstance(greatest, AmaxOp) or through(shift.rhs, ReshapeOp, CopyOp) is greatest.results[0]
    if not along or not first or not _kept(shift.rhs, shift.lhs, dim):
        return None
    return _Match(shift.lhs, dim, [shift, exponential])


def _masks(value: SSAValue) -> list[_Mask]:
    """What hides parts of exponentials, or of the results of a softmax, the last one first."""
    found: list[_Mask] = []
    while len(found) < MASKS and (mask := _mask(value)) is not None:
        found.append(mask)
        value = mask.kept
    return found if isinstance(producer(value), (SoftmaxOp, ExpOp)) else []


def _mask(value: SSAValue) -> _Mask | None:
    op, shape = producer(value), types.shape(value)
    match op:
        case MaskedFillOp() if op.value.value == 0 and types.shape(op.input) == shape:
            return _Mask(op, op.input, op.mask, False)
        case WhereOp() if number(op.otherwise) == 0 and types.shape(op.then) == shape:
            return _Mask(op, op.then, op.condition, True)
        case WhereOp() if number(op.then) == 0 and types.shape(op.otherwise) == shape:
            return _Mask(op, op.otherwise, op.condition, False)
        case MulOp() if op.rhs is not None:
            for kept, gate in ((op.lhs, op.rhs), (op.rhs, op.lhs)):
                alike = types.shape(kept) == shape and types.dtype(kept) == types.dtype(value)
                if alike and Gates(shape).is_gate(gate):
                    return _Mask(op, kept, gate, True)
    return None


def _remark_on_epsilon(root: DivOp, reduced: SSAValue | None) -> None:
    """Say that ``p / (sum(p) + eps)`` is no softmax: a row with nothing left is 0, the others sum up to less than 1."""
    added = made_by(reduced, AddOp, ClampOp, MaximumOp)
    total = None if added is None else made_by(through(added.operands[0], ReshapeOp, CopyOp), SumOp)
    if total is None or root.lhs is not total.input:
        return
    masks = _masks(total.input)
    inner = made_by(masks[-1].kept if masks else total.input, SoftmaxOp, ExpOp)
    if inner is not None:
        missed(root, "no softmax is made of exponentials over their sum: the sum is changed by a number before")


def _of_logarithm(root: ExpOp) -> _Match | None:
    inner = made_by(root.input, LogSoftmaxOp, SubOp)
    if isinstance(inner, LogSoftmaxOp):
        return _Match(inner.input, inner.dim.data, [inner])
    if inner is None or inner.rhs is None:
        return None
    total = made_by(through(inner.rhs, ReshapeOp, CopyOp), LogsumexpOp)
    if total is None or total.input is not inner.lhs or len(total.dims.data) != 1:
        return None
    (dim,) = total.dims.data
    return _Match(inner.lhs, dim, [inner, total]) if _kept(inner.rhs, inner.lhs, dim) else None


def _kept(value: SSAValue, source: SSAValue, dim: int) -> bool:
    """True if a reduction of ``source`` along ``dim`` keeps the dimension, with extent 1."""
    shape = types.shape(source)
    return types.shape(value) == (*shape[:dim], 1, *shape[dim + 1 :]) and types.dtype(value) == types.dtype(source)
