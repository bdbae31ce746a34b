"""Indices that are known while compiling: which places they name, and whether a slice names the same."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from xdsl.dialects.builtin import DenseIntOrFPElementsAttr, IntAttr
from xdsl.ir import Operation

from forgec.ir import types
from forgec.ir.attributes import ExtentAttr
from forgec.ir.literals import to_tensor
from forgec.ir.ops.base import producer
from forgec.ir.ops.index import IndexOp, IndexSelectOp
from forgec.ir.ops.module import ConstantOp
from forgec.ir.ops.shape import CopyOp, SliceOp
from forgec.passes.rearrangements import reshaped

Reading = IndexOp | IndexSelectOp


def places_of(op: Reading) -> tuple[int, list[int]] | None:
    """The dimension that an op indexes, and the places along it, counted from the front, in row-major order of the
    index; None if they are not constant, not of one dimension, or not known to be in it.
    """
    indices = [op.index] if isinstance(op, IndexSelectOp) else list(op.indices)
    if len(indices) != 1:
        return None
    dim = op.dim.data if isinstance(op, IndexSelectOp) else op.dims.data[0]
    constant, extent = producer(indices[0]), types.shape(op.input)[dim]
    if not isinstance(constant, ConstantOp) or not isinstance(constant.value, DenseIntOrFPElementsAttr):
        return None
    if not isinstance(extent, int):
        return None
    places = to_tensor(constant.value).reshape(-1).tolist()
    if isinstance(op, IndexOp):
        places = [place + extent if place < 0 else place for place in places]
    return (dim, places) if all(0 <= place < extent for place in places) else None


def stepping(places: Sequence[int]) -> tuple[int, int] | None:
    """The first place and the step of places that are evenly apart and ascend."""
    steps = {after - before for before, after in pairwise(places)} or {1}
    return (places[0], steps.pop()) if places and len(steps) == 1 and min(steps) > 0 else None


def as_slice(op: Reading) -> list[Operation] | None:
    """New ops that read the same by a slice, and lay it out as the op did."""
    found = places_of(op)
    steps = None if found is None else stepping(found[1])
    if found is None or steps is None:
        return None
    (dim, places), (start, step) = found, steps
    shape, strides = list(types.shape(op.input)), list(types.strides(op.input))
    shape[dim] = len(places)
    strides[dim] = strides[dim] * step
    place = {"dim": IntAttr(dim), "start": ExtentAttr(start), "step": ExtentAttr(step)}
    kind = types.tensor(types.dtype(op.input), shape, strides)
    ops: list[Operation] = [SliceOp.create(operands=[op.input], properties=place, result_types=[kind])]
    target = types.shape(op.result)
    if target != types.shape(kind):
        ops.append(reshaped(ops[-1].results[0], target))
    if ops[-1].results[0].type != op.result.type:
        ops.append(CopyOp.create(operands=[ops[-1].results[0]], result_types=[op.result.type]))
    return ops
