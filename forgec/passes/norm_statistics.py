"""Means of squares: what a model's arithmetic says about rows before a root is taken of it."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from xdsl.ir import SSAValue

from forgec.ir import types
from forgec.ir.ops.base import producer
from forgec.ir.ops.binary import AddOp, DivOp, MulOp, PowOp, SubOp
from forgec.ir.ops.reduction import MeanOp, ReductionOp, SumOp, VarOp
from forgec.ir.ops.shape import ReshapeOp
from forgec.ir.ops.unary import CastOp
from forgec.passes.patterns import Number, made_by, with_number
from forgec.runtime.symbolic import Extent

NARROW = ("f16", "bf16")


@dataclass
class Statistics:
    """``mean(source²) + eps`` over ``dims``, of ``source`` less its mean where ``centred``; what its root divides is to
    be multiplied by ``factor``.
    """

    source: SSAValue
    dims: tuple[int, ...]
    centred: bool
    eps: float
    factor: float = 1.0


def statistics_of(value: SSAValue, shape: tuple[Extent, ...]) -> Statistics | None:
    """What a value, used in a shape, says about its rows, if it is a mean of squares, perhaps with a number added."""
    eps: Number = 0.0
    add = made_by(value, AddOp)
    added = None if add is None else with_number(add)
    if added is not None:
        value, eps = added
    variance = _variance(value, shape)
    if variance is not None:
        return Statistics(*variance, True, float(eps))
    mean = _mean(value, shape)
    if mean is None:
        return _of_sum(value, shape, float(eps))
    base = _squared(mean[0])
    if base is None or types.dtype(base) != types.dtype(value):
        return None
    centred = centred_of(base)
    if centred is not None and centred[1] == mean[1]:
        return Statistics(centred[0], mean[1], True, float(eps))
    return Statistics(base, mean[1], False, float(eps))


def _of_sum(value: SSAValue, shape: tuple[Extent, ...], eps: float) -> Statistics | None:
    """A sum of squares: the mean, multiplied by the number of its terms."""
    total = made_by(value, SumOp)
    base = None if total is None else _squared(total.input)
    if total is None or base is None or shape != _kept(total) or types.dtype(base) != types.dtype(value):
        return None
    whole, dims = types.shape(total.input), _sorted(total)
    count = prod(whole[d] for d in dims)
    if not isinstance(count, int) or count < 1 or dims != tuple(range(len(whole) - len(dims), len(whole))):
        return None
    return None if centred_of(base) is not None else Statistics(base, dims, False, eps / count, count**-0.5)


def is_difference_of_squares(value: SSAValue) -> bool:
    """True for ``mean(x²) - mean(x)²``, perhaps with a number added: a variance, but rounded otherwise."""
    add = made_by(value, AddOp)
    added = None if add is None else with_number(add)
    op = made_by(value if added is None else added[0], SubOp)
    if op is None or op.rhs is None:
        return False
    of_squares, mean = _mean(op.lhs, types.shape(op.lhs)), _squared(op.rhs)
    of_values = None if mean is None else _mean(mean, types.shape(mean))
    base = None if of_squares is None else _squared(of_squares[0])
    if base is None or of_squares is None or of_values is None:
        return False
    return of_squares[1] == of_values[1] and same(base, of_values[0])


def _mean(value: SSAValue, shape: tuple[Extent, ...]) -> tuple[SSAValue, tuple[int, ...]] | None:
    """For a mean that keeps its dimensions in the shape in which it is used: of what, over which. Also a sum divided by
    the number of its terms.
    """
    reshape = made_by(value, ReshapeOp)
    op = producer(value if reshape is None else reshape.input)
    if isinstance(op, (MulOp, DivOp)):
        op = _divided_sum(op)
    elif not isinstance(op, MeanOp):
        return None
    return None if op is None or shape != _kept(op) else (op.input, _sorted(op))


def _divided_sum(op: MulOp | DivOp) -> SumOp | None:
    """The sum that an op divides by the number of its terms."""
    divided = with_number(op)
    total = None if divided is None else made_by(divided[0], SumOp)
    if divided is None or total is None or types.dtype(total.result) != types.dtype(total.input):
        return None
    count = prod(types.shape(total.input)[d] for d in total.dims.data)
    divides = isinstance(count, int) and count and divided[1] == (count if isinstance(op, DivOp) else 1 / count)
    return total if divides else None


def _variance(value: SSAValue, shape: tuple[Extent, ...]) -> tuple[SSAValue, tuple[int, ...]] | None:
    """For a variance that keeps its dimensions and divides by the number of elements: of what, over which."""
    reshape = made_by(value, ReshapeOp)
    op = made_by(value if reshape is None else reshape.input, VarOp)
    if op is None or op.correction.value != 0 or shape != _kept(op):
        return None
    return op.input, _sorted(op)


def _sorted(op: ReductionOp) -> tuple[int, ...]:
    return tuple(sorted(op.dims.data))


def _kept(op: ReductionOp) -> tuple[Extent, ...]:
    """The shape of a reduction's result if it keeps its dimensions."""
    return tuple(1 if d in op.dims.data else extent for d, extent in enumerate(types.shape(op.input)))


def _squared(value: SSAValue) -> SSAValue | None:
    """x of ``x ** 2`` and of ``x * x``."""
    op = made_by(value, PowOp, MulOp)
    if isinstance(op, PowOp):
        found = with_number(op)
        return found[0] if found is not None and found[1] == 2 else None
    return op.lhs if op is not None and op.rhs is not None and same(op.lhs, op.rhs) else None


def centred_of(value: SSAValue) -> tuple[SSAValue, tuple[int, ...]] | None:
    """x and the dimensions of ``x - mean(x)``; x as the mean reads it."""
    op = made_by(value, SubOp)
    mean = None if op is None or op.rhs is None else _mean(op.rhs, types.shape(op.rhs))
    return mean if op is not None and mean is not None and same(op.lhs, mean[0]) else None


def exact(value: SSAValue) -> SSAValue:
    """The value before casts that keep every number: from half precision to float32."""
    cast = made_by(value, CastOp)
    if cast is not None and types.dtype(cast.input) in NARROW and types.dtype(value) in ("f32", "f64"):
        return cast.input
    return value


def same(left: SSAValue, right: SSAValue) -> bool:
    """True if two values are the same numbers, perhaps in another dtype, by how they were made."""
    left, right = exact(left), exact(right)
    if left is right:
        return True
    one, other = made_by(left, SubOp), made_by(right, SubOp)  # differences from the mean, written twice
    if one is None or other is None:
        return False
    first, second = centred_of(left), centred_of(right)
    return first is not None and second is not None and first[1] == second[1] and exact(first[0]) is exact(second[0])
