"""Whether a tile of a linear's columns holds whole rows of a norm, as those of one attention head."""

from __future__ import annotations

from collections.abc import Iterable
from math import lcm

from xdsl.ir import Operation, SSAValue

from forgec.ir import types
from forgec.ir.layout import reshape_strides
from forgec.ir.ops.base import ElementwiseOp, producer
from forgec.ir.ops.contraction import LinearOp
from forgec.ir.ops.norm import LayerNormOp, RmsNormOp
from forgec.ir.ops.shape import ReshapeOp, SliceOp, TransposeOp, is_free
from forgec.runtime.symbolic import Extent, mod

NORMS = (LayerNormOp, RmsNormOp)
WIDEST = 256
"""Columns of the widest tile whose rows a kernel reduces while they are in registers."""


def row_of(op: Operation) -> int | None:
    """The extent that a norm reduces, if that is the last dimension alone, constant and no wider than a tile."""
    if not isinstance(op, NORMS) or op.axes.data != 1:
        return None
    extent = types.shape(op.input)[-1]
    return extent if isinstance(extent, int) and 0 < extent <= WIDEST else None


def tile_of(norms: Iterable[Operation]) -> int:
    """The columns of the least tile that holds whole rows of each of these norms."""
    return lcm(*(row for op in norms if (row := row_of(op)) is not None))


def places_in(value: SSAValue, root: LinearOp) -> tuple[Extent, tuple[Extent, ...]] | None:
    """Where the elements of a value were computed: the first one's place among the linear's, in row-major order, and
    how far it is to the next along each dimension.

    None unless slices, transposes, reshapes that split and join dimensions, and pointwise ops of one operand are all
    that stands between.
    """
    chain: list[Operation] = []
    op = producer(value)
    while op is not root:
        if op is None or not (is_free(op) or (isinstance(op, ElementwiseOp) and len(op.operands) == 1)):
            return None
        chain.append(op)
        op = producer(op.operands[0])
    start: Extent = 0
    steps = types.contiguous_strides(types.shape(root.result))
    for op in reversed(chain):
        match op:
            case SliceOp():
                dim = op.dim.data
                start = start + op.start.data * steps[dim]
                steps = (*steps[:dim], steps[dim] * op.step.data, *steps[dim + 1 :])
            case TransposeOp():
                steps = tuple(steps[d] for d in op.permutation.data)
            case ReshapeOp():
                found = reshape_strides(types.shape(op.input), steps, types.shape(op.result))
                if found is None:
                    return None
                steps = found
            case ElementwiseOp():
                pass
            case _:
                return None
    return start, steps


def has_whole_rows(value: SSAValue, root: LinearOp) -> bool:
    """True if each row of a value (its last dimension, of constant extent n) is a piece of one row of the linear's
    result that begins at a multiple of n: a tile of n columns, or of a multiple of n, never cuts one.
    """
    found = places_in(value, root)
    columns = types.shape(root.result)[-1]
    if found is None or not isinstance(columns, int) or columns == 0:
        return False
    start, steps = found
    *outer, row = types.shape(value)
    if not isinstance(row, int) or (row > 1 and steps[-1] != 1):
        return False
    along = [(extent, step) for extent, step in zip(outer, steps[:-1], strict=True) if extent != 1]
    if columns % row == 0:  # what begins at a multiple of n also ends in its row
        return all(mod(place, row) == 0 for place in (start, *(step for _, step in along)))
    last = mod(start, columns)
    if not isinstance(last, int) or last % row:
        return False
    for extent, step in along:
        if mod(step, columns) == 0:
            continue  # to another row
        if not isinstance(extent, int) or not isinstance(step, int) or step % row:
            return False
        last += (extent - 1) * step
    return last + row <= columns
