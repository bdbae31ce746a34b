"""Reads at places that need not be any of the value's: padding, parts of a whole."""

from __future__ import annotations

from xdsl.ir import SSAValue

from forgec.ir import types
from forgec.passes.tiles.arithmetic import compare, number, select
from forgec.passes.tiles.axes import Place
from forgec.passes.tiles.kernel_builder import KernelBuilder, Tile
from forgec.runtime.symbolic import Extent, sym_max, sym_min


def inside(k: KernelBuilder, at: Extent, extent: Extent) -> Tile | None:
    """Where a place lies in ``[0, extent)``; None if it is certain to."""
    if k.axes.is_below(at, extent):
        return None
    index = k.index(at)
    return k.both(compare(k, "ge", index, k.constant(0, "index")), compare(k, "lt", index, k.index(extent)))


def read_inside(k: KernelBuilder, value: SSAValue, place: Place, where: Tile | None, other: bool | int | float) -> Tile:
    """A value at a place, ``other`` where the condition does not hold: there the place may be none of the value's."""
    if where is None:
        return k.value(value, place)
    if value in k.parameters:
        return k.load(value, place, where, other)
    clamped = tuple(
        at if k.axes.is_below(at, extent) else sym_max(0, sym_min(at, extent - 1))
        for at, extent in zip(place, types.shape(value), strict=True)
    )
    given = k.value(value, clamped)
    return select(k, where, given, number(k, other, given.dtype))
