"""Sorting by counting: an element's rank is how many elements come before it. For rows that are short."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Any

from xdsl.builder import Builder
from xdsl.dialects.builtin import IntAttr
from xdsl.ir import SSAValue

from forgec.ir import types
from forgec.ir.attributes import IntsAttr
from forgec.ir.ops import order
from forgec.ir.ops.binary import EqOp, LogicalAndOp, LogicalOrOp, LtOp, NeOp
from forgec.ir.ops.decomposition import Emitter
from forgec.ir.ops.index import ScatterOp
from forgec.ir.ops.reduction import SumOp
from forgec.passes.tiles.arithmetic import binary as apply
from forgec.passes.tiles.arithmetic import cast, compare, number, select, work_dtype
from forgec.passes.tiles.axes import Axis, Place
from forgec.passes.tiles.kernel_builder import KernelBuilder, NotLowered, Tile
from forgec.passes.tiles.operators import group
from forgec.passes.tiles.rule import computes, expands
from forgec.passes.tiles.rules.reduction import argument_place, neutral, reduce_tile, reduced, want_whole, whole_axis
from forgec.runtime.symbolic import Extent

LONGEST = 512
"""Elements of a row that are still ranked in the kernel that needs them: the comparisons are its square, and each tile
of results makes them anew.
"""
MOST_ROUNDS = 64
"""The greatest elements of a row that are found one after the other."""
LONGEST_RANKED = 16384
"""Elements of a row that are still ranked by a kernel of their own."""


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
        return select(k, here, found, number(k, -inf if found.dtype in types.FLOATS else 0, found.dtype))

    moves_floats = result == 0 and types.dtype(op.input) in types.FLOATS
    total = reduced(k, "max" if moves_floats else "add", extent, place, chosen)  # 0 + -0 would not be -0
    return cast(k, total, types.dtype(op.results[result]))


def _picked(k: KernelBuilder, op: Any, place: Place) -> Tile:
    """The places of the greatest elements, i32, one after the other: of those that come after the last one the greatest
    is taken, and of its equals the first.
    """
    dim, shape, count = op.dim.data, types.shape(op.input), types.shape(op.results[0])[op.dim.data]
    others = (*place[:dim], *place[dim + 1 :])

    def body(carried: Sequence[Tile]) -> Sequence[Tile]:
        value, last, found = carried
        axis = whole_axis(k, shape[dim], place)
        if axis is None:
            raise NotLowered("rows are too long to be in one tile")
        given = k.value(op.input, (*place[:dim], axis.symbol, *place[dim + 1 :]))
        given, at = cast(k, given, value.dtype), cast(k, k.index(axis.symbol), "i32")
        tie = k.both(_same(k, value, given), compare(k, "gt", at, last))
        after = apply(k, "or", *k.aligned(_before(k, value, given, True), tie))
        is_first = compare(k, "eq", k.index(rounds.symbol), k.constant(0, "index"))
        free = apply(k, "or", *k.aligned(after, is_first))
        greatest = select(k, free, given, number(k, neutral("max", value.dtype), value.dtype))
        greatest = reduce_tile(k, "max", greatest, axis)
        equal = k.both(free, _same(k, given, greatest))
        first = reduce_tile(k, "min", select(k, equal, at, number(k, shape[dim], "i32")), axis)
        here = compare(k, "eq", k.index(place[dim]), k.index(rounds.symbol))
        return [greatest, first, select(k, here, first, found)]

    dtype = types.dtype(op.input)
    wide = "i32" if dtype in ("i1", "ui8") else work_dtype(dtype)
    rounds = k.new_axis(count, "grid")
    rows = k.tiled(*others)
    start = [k.spread(number(k, 0, wide), rows), k.spread(number(k, 0, "i32"), rows)]
    return k.loop(rounds, [*start, k.spread(number(k, 0, "i32"), k.tiled(*place))], body)[2]


@computes(order.TopkOp)
def topk(k: KernelBuilder, op: Any, result: int, place: Place) -> Tile:
    shape, dim = types.shape(op.input), op.dim.data
    count = types.shape(op.results[0])[dim] if shape else 0
    few = isinstance(count, int) and 0 < count <= MOST_ROUNDS and isinstance(shape[dim], int)
    if few and op.smallest is None and types.dtype(op.input) not in types.COMPLEX:
        want_whole(k, place[dim], count)
        at = k.remembered(("picked", op, place), k.depth_of(*place), lambda: _picked(k, op, place))
        if result == 1:
            return cast(k, at, "i64")
        found = k.value(op.input, (*place[:dim], k.number(cast(k, at, "index")), *place[dim + 1 :]))
        return found
    return ranked(k, op, result, place, op.dim.data, op.smallest is None)


@computes(order.SortOp)
def sort(k: KernelBuilder, op: Any, result: int, place: Place) -> Tile:
    return ranked(k, op, result, place, op.dim.data, op.descending is not None)


@expands(order.SortOp, order.TopkOp)
def sort_by_ranks(op: Any, builder: Builder) -> list[SSAValue]:
    """Long rows, and rows of any length: one kernel counts for each element those before it, which is its place; two
    more put elements and their numbers there.
    """
    shape, dim, dtype = types.shape(op.input), op.dim.data, types.dtype(op.input)
    extent = shape[dim] if shape else 1
    if not shape or dtype in types.COMPLEX:
        raise NotLowered("this has no rows to sort")
    if isinstance(extent, int) and extent > LONGEST_RANKED:
        raise NotLowered(f"rows of more than {LONGEST_RANKED} elements are not sorted by counting")
    descending = op.descending is not None if isinstance(op, order.SortOp) else op.smallest is None
    ranks = _ranks(op, builder, dim, descending)
    emit = Emitter(builder, op)
    where = IntAttr(dim)
    line = [1] * len(shape)
    line[dim] = extent
    numbers = emit.broadcast(emit.reshape(emit.iota(extent), line), shape)
    found = [
        emit(ScatterOp, emit.full(0, types.dtype(given), shape), ranks, given, dim=where)
        for given in (op.input, numbers)
    ]
    kept = types.shape(op.results[0])[dim]
    return [value if kept == extent else emit.slice(value, dim, 0, kept) for value in found]


def _ranks(op: Any, builder: Builder, dim: int, descending: bool) -> SSAValue:
    """How many elements of its row come before each element, i64: a group of ops, one kernel."""
    shape, dtype = types.shape(op.input), types.dtype(op.input)
    extent = shape[dim]
    pairs = (*shape[: dim + 1], extent, *shape[dim + 1 :])

    def counted(emit: Emitter, given: SSAValue) -> Sequence[SSAValue]:
        here = emit.broadcast(emit.reshape(given, (*shape[: dim + 1], 1, *shape[dim + 1 :])), pairs)
        other = emit.broadcast(emit.reshape(given, (*shape[:dim], 1, *shape[dim:])), pairs)
        left, right = (here, other) if descending else (other, here)
        before, same = emit(LtOp, left, right), emit(EqOp, here, other)
        if dtype in types.FLOATS:
            nan = [emit(NeOp, value, value) for value in (left, right)]
            later = emit(LogicalAndOp, emit(EqOp, left, left), nan[1])
            before = emit(LogicalOrOp, before, later)
            same = emit(LogicalOrOp, same, emit(LogicalAndOp, *nan))
        first, second = (
            emit.broadcast(emit.reshape(emit.iota(extent), (*[1] * dim, *each, *[1] * (len(shape) - dim - 1))), pairs)
            for each in ((extent, 1), (1, extent))
        )
        earlier = emit(LogicalAndOp, same, emit(LtOp, second, first))
        ahead = emit.cast(emit(LogicalOrOp, before, earlier), "i64")
        return [emit(SumOp, ahead, dims=IntsAttr([dim + 1]))]

    return group(op, builder, "sum", [op.input], counted)[0]


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
