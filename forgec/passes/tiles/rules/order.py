"""Sorting by counting: an element's rank is how many elements come before it. For rows that are short."""

from __future__ import annotations

from typing import Any

from forgec.ir import types
from forgec.ir.ops import order
from forgec.passes.tiles.arithmetic import binary as apply
from forgec.passes.tiles.arithmetic import cast, compare, number, select
from forgec.passes.tiles.axes import Axis, Place
from forgec.passes.tiles.kernel_builder import KernelBuilder, NotLowered, Tile
from forgec.passes.tiles.rule import computes
from forgec.passes.tiles.rules.reduction import argument_place, reduced
from forgec.runtime.symbolic import Extent

LONGEST = 512
"""Elements of a row that are still ranked: the comparisons are its square."""


def _before(k: KernelBuilder, left: Tile, right: Tile, descending: bool) -> Tile:
    """Where ``left`` comes before ``right``; NaN is greater than all numbers, as in torch."""
    if descending:
        left, right = right, left
    less = compare(k, "lt", left, right)
    if left.dtype not in types.FLOATS:
        return less
    only = k.both(compare(k, "eq", left, left), compare(k, "ne", right, right))
    return apply(k, "or", *k.aligned(less, only))


def _same(k: KernelBuilder, left: Tile, right: Tile) -> Tile:
    same = compare(k, "eq", left, right)
    if left.dtype not in types.FLOATS:
        return same
    both = k.both(compare(k, "ne", left, left), compare(k, "ne", right, right))
    return apply(k, "or", *k.aligned(same, both))


def ranked(k: KernelBuilder, op: Any, result: int, place: Place, dim: int, descending: bool) -> Tile:
    """Result 0 (values) or 1 (places) of a stable sort at a place."""
    shape = types.shape(op.input)
    if not shape:
        return number(k, 0, "i64") if result else k.value(op.input, ())
    extent = shape[dim]
    if not isinstance(extent, int) or extent > LONGEST:
        raise NotLowered(f"rows of more than {LONGEST} elements are not sorted by a kernel")
    others = (*place[:dim], *place[dim + 1 :])

    def at(where: Extent) -> Tile:
        return k.value(op.input, (*place[:dim], where, *place[dim + 1 :]))

    def ranks(axis: Axis) -> Tile:
        def earlier(other: Axis) -> Tile:
            first = _before(k, at(other.symbol), at(axis.symbol), descending)
            tie = k.both(
                _same(k, at(other.symbol), at(axis.symbol)),
                compare(k, "lt", k.index(other.symbol - axis.symbol), k.constant(0, "index")),
            )
            return cast(k, apply(k, "or", *k.aligned(first, tie)), "i32")

        return reduced(k, "add", extent, (*others, axis.symbol), earlier)

    def chosen(axis: Axis) -> Tile:
        here = compare(k, "eq", ranks(axis), cast(k, k.index(place[dim]), "i32"))
        if result == 1:
            found = cast(k, k.index(axis.symbol), "i64")
        else:
            found = at(axis.symbol)
            if found.dtype in ("i1", "ui8"):
                found = cast(k, found, "i32")
        return select(k, here, found, number(k, 0, found.dtype))

    total = reduced(k, "add", extent, place, chosen)
    return cast(k, total, types.dtype(op.results[result]))


@computes(order.TopkOp)
def topk(k: KernelBuilder, op: Any, result: int, place: Place) -> Tile:
    return ranked(k, op, result, place, op.dim.data, op.smallest is None)


@computes(order.SortOp)
def sort(k: KernelBuilder, op: Any, result: int, place: Place) -> Tile:
    return ranked(k, op, result, place, op.dim.data, op.descending is not None)


@computes(order.MaxOp, order.MinOp)
def extreme(k: KernelBuilder, op: Any, result: int, place: Place) -> Tile:
    shape, dim = types.shape(op.input), op.dim.data
    if not shape:
        return number(k, 0, "i64") if result else k.value(op.input, ())
    others = list(place)
    if op.keepdim is not None:
        del others[dim]
    if result:
        return argument_place(k, op, others, isinstance(op, order.MaxOp))
    kind, dtype = ("max" if isinstance(op, order.MaxOp) else "min"), types.dtype(op.input)

    def element(axis: Axis) -> Tile:
        return k.value(op.input, (*others[:dim], axis.symbol, *others[dim:]))

    return cast(k, reduced(k, kind, shape[dim], tuple(others), element), dtype)
