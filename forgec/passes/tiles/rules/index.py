"""Reads at places that are read themselves: embedding, gather, index."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from forgec.ir import types
from forgec.ir.ops import index
from forgec.passes.tiles.arithmetic import binary as apply
from forgec.passes.tiles.arithmetic import cast, compare, select
from forgec.passes.tiles.axes import Place, broadcast_place
from forgec.passes.tiles.kernel_builder import KernelBuilder, Tile
from forgec.passes.tiles.rule import computes
from forgec.runtime.symbolic import Extent, SymExpr


def position(k: KernelBuilder, read: Tile, extent: Extent, wraps: bool) -> SymExpr:
    """A number that was read as a place along a dimension of ``extent``, checked; with ``wraps`` negative ones count
    from the end.
    """
    at = cast(k, read, "index")
    zero, bound = k.constant(0, "index"), k.index(extent)
    if wraps:
        at = select(k, compare(k, "lt", at, zero), apply(k, "add", at, bound), at)
    inside = k.both(compare(k, "ge", at, zero), compare(k, "lt", at, bound))
    within = k.inside(at.axes)
    if within is not None:  # what is beyond the extents was not read
        inside = select(k, within, inside, k.spread(k.constant(True, "i1"), at.axes))
    k.check(inside, "index out of range")
    return k.number(at)


@computes(index.EmbeddingOp)
def embedding(k: KernelBuilder, op: Any, result: int, place: Place) -> Tile:
    row = position(k, k.value(op.indices, place[:-1]), types.shape(op.weight)[0], wraps=False)
    return k.value(op.weight, (row, place[-1]))


@computes(index.IndexSelectOp)
def index_select(k: KernelBuilder, op: Any, result: int, place: Place) -> Tile:
    dim = op.dim.data
    at = position(k, k.value(op.index, (place[dim],)), types.shape(op.input)[dim], wraps=False)
    return k.value(op.input, (*place[:dim], at, *place[dim + 1 :]))


@computes(index.GatherOp)
def gather(k: KernelBuilder, op: Any, result: int, place: Place) -> Tile:
    dim = op.dim.data
    if not place:
        return k.value(op.input, place)
    at = position(k, k.value(op.index, place), types.shape(op.input)[dim], wraps=False)
    return k.value(op.input, (*place[:dim], at, *place[dim + 1 :]))


def indexed_place(k: KernelBuilder, op: Any, shape: Sequence[Extent], place: Place) -> Place:
    """Where in a tensor of this shape the element lies that advanced indexing with ``op.indices`` at ``op.dims`` has at
    a place.
    """
    dims = op.dims.data
    places = types.broadcast(*(types.shape(v) for v in op.indices))
    front = dims[0] if dims[-1] - dims[0] == len(dims) - 1 else 0
    inner = place[front : front + len(places)]
    rest = iter((*place[:front], *place[front + len(places) :]))
    numbers = {
        dim: position(k, k.value(v, broadcast_place(inner, types.shape(v))), shape[dim], wraps=True)
        for dim, v in zip(dims, op.indices, strict=True)
    }
    return tuple(numbers[dim] if dim in numbers else next(rest) for dim in range(len(shape)))


@computes(index.IndexOp)
def indexed(k: KernelBuilder, op: Any, result: int, place: Place) -> Tile:
    return k.value(op.input, indexed_place(k, op, types.shape(op.input), place))
