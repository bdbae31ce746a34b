"""Views that are windows: diagonals, sliding windows, and memory addressed by strides."""

from __future__ import annotations

from collections.abc import Sequence

from xdsl.ir import SSAValue

from forgec.capture.aten.shape import take_slice
from forgec.capture.call import Call, Decline, Result, from_aten, ints
from forgec.ir import types
from forgec.ir.attributes import ExtentsAttr
from forgec.ir.ops.shape import BroadcastOp, ReshapeOp, TransposeOp
from forgec.ir.ops.window import WindowOp
from forgec.runtime.symbolic import Extent


def _window(call: Call, source: SSAValue, start: Sequence[Extent], rows: Sequence[Sequence[Extent]]) -> Result:
    properties = {"start": ExtentsAttr(start), "steps": ExtentsAttr(step for row in rows for step in row)}
    return call.emit(WindowOp, [source], properties)


@from_aten("aten::diagonal", "aten::linalg_diagonal")
def _diagonal(call: Call) -> Result:
    """The diagonal is the last dimension of the result, after those that stay."""
    source = call.tensor("self" if "self" in call.arguments else "A")
    rank = types.rank(source)
    first, second = call.dim("dim1", rank), call.dim("dim2", rank)
    offset = call.integer("offset")
    start = [0] * rank
    if types.numel(call.results[0] or source) != 0:
        start[first], start[second] = max(-offset, 0), max(offset, 0)
    kept = [d for d in range(rank) if d not in (first, second)]
    rows = [[int(d == k) for k in kept] + [int(d in (first, second))] for d in range(rank)]
    return _window(call, source, start, rows)


@from_aten("aten::unfold")
def _unfold(call: Call) -> Result:
    """Windows of ``size`` elements, ``step`` apart; the places within a window are the last dimension of the result."""
    source = call.tensor("self")
    rank = types.rank(source)
    if rank == 0:
        raise Decline
    along = call.dim("dimension", rank)
    rows = [[int(d == k) for k in range(rank)] + [0] for d in range(rank)]
    rows[along][along], rows[along][rank] = call["step"], 1
    return _window(call, source, [0] * rank, rows)


@from_aten("aten::as_strided", "aten::as_strided_copy")
def _as_strided(call: Call) -> Result:
    """Elements of the tensor that owns the memory, numbered as they lie there; ``storage_offset`` counts from its
    first."""
    source, start = call.tensor("self"), call["storage_offset"]
    shape, strides = types.shape(source), types.strides(source)
    order = sorted(range(len(shape)), key=lambda d: (not isinstance(strides[d], int), -_number(strides[d])))
    if not types.is_contiguous(source):
        expected = types.contiguous_strides([shape[d] for d in order])
        if any(strides[d] != e and shape[d] != 1 for d, e in zip(order, expected, strict=True)):
            raise Decline
        lying = types.tensor(types.dtype(source), [shape[d] for d in order])
        source = call.emit(TransposeOp, [source], {"permutation": ints(*order)}, lying)
    flat = call.emit(ReshapeOp, [source], None, types.tensor(types.dtype(source), [types.numel(source)]))
    if types.numel(call.results[0] or source) == 0:
        start = 0
    return _window(call, flat, [start], [call["stride"]])


def _number(stride: Extent) -> int:
    return stride if isinstance(stride, int) else 0


SPLIT_DIMENSIONS = {"hsplit": 1, "vsplit": 0, "dsplit": 2}


@from_aten(*(f"aten::{name}.{kind}" for name in SPLIT_DIMENSIONS for kind in ("int", "array")))
def _numpy_split(call: Call) -> Result:
    """numpy's splits: into equal sections, or before each index."""
    source = call.tensor("self")
    dim = SPLIT_DIMENSIONS[call.name.removeprefix("aten::").partition(".")[0]] if types.rank(source) > 1 else 0
    size = types.shape(source)[dim]
    if not isinstance(size, int):
        raise Decline
    parts: list[SSAValue] = []
    start = 0
    for position, target in enumerate(call.results):
        if target is None:
            raise Decline
        count = types.shape(target)[dim]
        if call.name.endswith(".array") and position:
            bound = call["indices"][position - 1]
            start = min(max(bound + size if bound < 0 else bound, 0), size)
        parts.append(take_slice(call, source, dim, 0 if count == 0 else start, count, 1, target))
        start = start + count
    return parts


@from_aten("aten::meshgrid", "aten::meshgrid.indexing")
def _meshgrid(call: Call) -> Result:
    """Each operand, a line, as a view along its own dimension of a grid; ``xy`` exchanges the first two dimensions."""
    swapped = call.arguments.get("indexing", "ij") == "xy"
    grids: list[SSAValue] = []
    for position, (value, target) in enumerate(zip(call.tensors("tensors"), call.results, strict=True)):
        if target is None:
            raise Decline
        own = 1 - position if swapped and position < 2 and len(call.results) > 1 else position
        shape = [types.numel(value) if d == own else 1 for d in range(types.rank(target))]
        line = call.emit(ReshapeOp, [value], None, types.tensor(types.dtype(value), shape))
        grids.append(call.emit(BroadcastOp, [line], None, target))
    return grids
