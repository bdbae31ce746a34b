"""Rearrangements: they only say where an element comes from."""

from __future__ import annotations

from typing import Any

from forgec.ir import types
from forgec.ir.ops import shape, window
from forgec.passes.tiles.arithmetic import cast, compare, select
from forgec.passes.tiles.axes import Place, broadcast_place, reshaped
from forgec.passes.tiles.kernel_builder import KernelBuilder, Tile
from forgec.passes.tiles.reads import inside, read_inside
from forgec.passes.tiles.rule import computes
from forgec.runtime.symbolic import Extent, floordiv, mod


@computes(shape.CopyOp)
def copy(k: KernelBuilder, op: Any, result: int, place: Place) -> Tile:
    return k.value(op.input, place)


@computes(shape.ReshapeOp)
def reshape(k: KernelBuilder, op: Any, result: int, place: Place) -> Tile:
    return k.value(op.input, reshaped(k.axes, place, types.shape(op.input), types.shape(op.result)))


@computes(shape.TransposeOp)
def transpose(k: KernelBuilder, op: Any, result: int, place: Place) -> Tile:
    source = [place[0]] * len(place) if place else []
    for at, dim in zip(place, op.permutation.data, strict=True):
        source[dim] = at
    return k.value(op.input, tuple(source))


@computes(shape.BroadcastOp)
def broadcast(k: KernelBuilder, op: Any, result: int, place: Place) -> Tile:
    return k.value(op.input, broadcast_place(place, types.shape(op.input)))


@computes(shape.SliceOp)
def slice_(k: KernelBuilder, op: Any, result: int, place: Place) -> Tile:
    dim = op.dim.data
    if not place:
        return k.value(op.input, place)
    at = op.start.data + place[dim] * op.step.data
    return k.value(op.input, (*place[:dim], at, *place[dim + 1 :]))


@computes(window.WindowOp)
def window_(k: KernelBuilder, op: Any, result: int, place: Place) -> Tile:
    return k.value(op.input, window_place(op, place))


@computes(shape.FlipOp)
def flip(k: KernelBuilder, op: Any, result: int, place: Place) -> Tile:
    source, extents = list(place), types.shape(op.input)
    for dim in op.dims.data:
        source[dim] = extents[dim] - 1 - place[dim]
    return k.value(op.input, tuple(source))


@computes(shape.ConcatOp)
def concat(k: KernelBuilder, op: Any, result: int, place: Place) -> Tile:
    """Each part where its places are, by selection; parts are read at places that they have."""
    dim, dtype = op.dim.data, types.dtype(op.result)
    at = place[dim]
    total: Tile | None = None
    begin: Extent = 0
    for part in op.inputs:
        extent = types.shape(part)[dim]
        local, begin = at - begin, begin + extent
        if extent == 0 or k.axes.is_from(local, extent):  # no place is in this part
            continue
        where = inside(k, local, extent)
        here = cast(k, read_inside(k, part, (*place[:dim], local, *place[dim + 1 :]), where, 0), dtype)
        if where is None:  # all places are in this part
            return here
        total = here if total is None else select(k, where, here, total)
    assert total is not None, "a concat of nothing has no places"
    return total


@computes(shape.InsertSliceOp)
def insert_slice(k: KernelBuilder, op: Any, result: int, place: Place) -> Tile:
    """The source where its places are, the destination elsewhere."""
    dim, start, step = op.dim.data, op.start.data, op.step.data
    count = types.shape(op.source)[dim]
    before = k.value(op.destination, place)
    if count == 0:
        return before
    away = place[dim] - start
    number = away if step == 1 else floordiv(away, step)
    fits = None if step == 1 else compare(k, "eq", k.index(mod(away, step)), k.constant(0, "index"))
    where = k.every([inside(k, number, count), fits])
    after = read_inside(k, op.source, (*place[:dim], number, *place[dim + 1 :]), where, 0)
    return after if where is None else select(k, where, after, before)


def window_place(op: Any, place: Place) -> Place:
    """Where in the whole the element of a window lies that is at ``place`` in it."""
    rank = len(place)
    found: list[Extent] = []
    for dim, start in enumerate(op.start.data):
        at = start
        for step, number in zip(op.steps.data[dim * rank : (dim + 1) * rank], place, strict=True):
            at = at + number * step
        found.append(at)
    return tuple(found)
