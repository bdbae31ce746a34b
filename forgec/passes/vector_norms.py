"""Rows that are divided by their length: RMS norms in terms of a vector norm."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from math import prod

from xdsl.ir import Operation, SSAValue

from forgec.ir import types
from forgec.ir.ops.base import producer
from forgec.ir.ops.binary import AddOp, DivOp, MaximumOp, MulOp
from forgec.ir.ops.reduction import VectorNormOp
from forgec.ir.ops.shape import BroadcastOp, CopyOp, ReshapeOp
from forgec.ir.ops.unary import ClampOp
from forgec.passes.patterns import made_by, only_neighbour, with_number


@dataclass
class Length:
    """``x / f(|x|)``: ``factor`` times the RMS norm of ``source`` over ``dims`` with this eps, at ``root``."""

    root: Operation
    source: SSAValue
    dims: tuple[int, ...]
    eps: float
    form: str
    factor: float
    matched: list[Operation] = field(default_factory=list)


def length_of(root: DivOp) -> Length | None:
    """What a quotient is, if it divides a value by its length along some dimensions: multiplied by a number, and with a
    number added or as its least value.
    """
    if root.rhs is None or types.dtype(root.result) not in ("f32", "f64"):
        return None
    matched: list[Operation] = []
    value, form, eps, factor = root.rhs, "inside", 0.0, 1.0
    while not isinstance(producer(value), VectorNormOp):
        op = producer(value)
        if op is None or only_neighbour(value) is None:
            return None
        if isinstance(op, (BroadcastOp, CopyOp, ReshapeOp)):
            value = op.input
            continue
        found = _step(op)
        if found is None or types.shape(found[0]) != types.shape(value) or types.dtype(found[0]) != types.dtype(value):
            return None
        value, number = found
        matched.append(op)
        if isinstance(op, (MulOp, DivOp)) and number > 0:
            factor *= number
        elif form == "inside" and number > 0 and isinstance(op, (AddOp, MaximumOp, ClampOp)):
            form, eps = "outside" if isinstance(op, AddOp) else "least", number * factor
        else:
            return None
    norm = made_by(value, VectorNormOp)
    if norm is None or norm.ord.value != 2 or norm.input is not root.lhs or only_neighbour(value) is None:
        return None
    dims = tuple(sorted(norm.dims.data))
    shape = types.shape(norm.input)
    count = prod(shape[d] for d in dims)
    kept = tuple(1 if d in dims else extent for d, extent in enumerate(shape))
    if (
        not isinstance(count, int)
        or not count
        or not _is_kept(root.rhs, kept, shape)
        or types.shape(root.result) != shape
    ):
        return None
    size = factor * math.sqrt(count)  # of the root mean square
    if dims != tuple(range(len(shape) - len(dims), len(shape))):
        return None  # a norm would need transposes
    return Length(root, norm.input, dims, eps / size, form, 1 / size, [norm, *matched])


def _step(op: Operation) -> tuple[SSAValue, float] | None:
    """The operand and the number of an op on a length; 1/c of a quotient by c."""
    if isinstance(op, ClampOp):
        return None if op.lower is None or op.upper is not None else (op.input, float(op.lower.value))
    if not isinstance(op, (MulOp, DivOp, AddOp, MaximumOp)):
        return None
    found = with_number(op)
    if found is None or (isinstance(op, DivOp) and not found[1]):
        return None
    return found[0], 1 / float(found[1]) if isinstance(op, DivOp) else float(found[1])


def _is_kept(value: SSAValue, kept: tuple, shape: tuple) -> bool:
    """True if lengths stand for the rows that they are of: in the shape of a reduction that keeps its dimensions, or
    broadcast from it.
    """
    while types.shape(value) == shape and types.shape(value) != kept:
        op = producer(value)
        if not isinstance(op, (BroadcastOp, CopyOp)):
            return False
        value = op.input
    return types.shape(value) == kept
