"""Writes at places: slices, windows, and elements at places that are read."""

from __future__ import annotations

from typing import Any

from forgec.ir import types
from forgec.ir.ops import index, shape, window
from forgec.passes.tiles.axes import Place, broadcast_place
from forgec.passes.tiles.kernel_builder import KernelBuilder, NotLowered, Tile
from forgec.passes.tiles.rules.index import indexed_place, position
from forgec.passes.tiles.rules.shape import window_place
from forgec.passes.tiles.update import Change, changes
from forgec.runtime.symbolic import Extent


def _source_shape(op: Any) -> tuple[Extent, ...]:
    return types.shape(op.source)


@changes(shape.InsertSliceOp, over=_source_shape)
def insert_slice(k: KernelBuilder, op: Any, place: Place) -> Change:
    dim = op.dim.data
    at = op.start.data + place[dim] * op.step.data
    return Change(k.value(op.source, place), (*place[:dim], at, *place[dim + 1 :]))


@changes(window.InsertWindowOp, over=_source_shape)
def insert_window(k: KernelBuilder, op: Any, place: Place) -> Change:
    return Change(k.value(op.source, place), window_place(op, place))


def _combine(op: Any, adds: bool) -> str:
    """Places may repeat: one of the values stays, or all are added."""
    if not adds:
        return "any"
    if types.dtype(op.result) == "i1":
        raise NotLowered("booleans are not added in memory")
    return "add"


@changes(index.IndexPutOp, over=lambda op: index.indexed_shape(types.shape(op.destination), op.dims.data, op.indices))
def index_put(k: KernelBuilder, op: Any, place: Place) -> Change:
    combine = _combine(op, op.accumulate is not None)
    value = k.value(op.values, broadcast_place(place, types.shape(op.values)))
    return Change(value, indexed_place(k, op, types.shape(op.destination), place), combine=combine)


@changes(index.IndexCopyOp, index.IndexAddOp, over=_source_shape)
def slices(k: KernelBuilder, op: Any, place: Place) -> Change:
    dim = op.dim.data
    return _placed(k, op, place, k.value(op.index, (place[dim],)), isinstance(op, index.IndexAddOp))


@changes(index.ScatterOp, index.ScatterAddOp, over=lambda op: types.shape(op.index))
def elements(k: KernelBuilder, op: Any, place: Place) -> Change:
    return _placed(k, op, place, k.value(op.index, place), isinstance(op, index.ScatterAddOp))


def _placed(k: KernelBuilder, op: Any, place: Place, read: Tile, adds: bool) -> Change:
    combine = _combine(op, adds)
    if not place:
        return Change(k.value(op.source, place), place, combine=combine)
    dim = op.dim.data
    at = position(k, read, types.shape(op.destination)[dim], wraps=False)
    return Change(k.value(op.source, place), (*place[:dim], at, *place[dim + 1 :]), combine=combine)
