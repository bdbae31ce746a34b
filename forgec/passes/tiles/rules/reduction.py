"""Reductions, softmax and running sums: along an axis that is in one tile, or in a loop over tiles of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

from xdsl.dialects import math
from xdsl.ir import SSAValue

from forgec.ir import types
from forgec.ir.ops import reduction
from forgec.ir.ops.module import YieldOp
from forgec.ir.tile import compute
from forgec.passes.tiles.arithmetic import binary as apply
from forgec.passes.tiles.arithmetic import cast, compare, made, number, select, work_dtype
from forgec.passes.tiles.axes import Axis, Place
from forgec.passes.tiles.kernel_builder import KernelBuilder, NotLowered, Tile
from forgec.passes.tiles.rule import computes
from forgec.runtime.symbolic import Extent, free_symbols

WHOLE = 16384
"""Elements of a row that are still kept in one tile; longer rows, and rows whose extent is not known, are looped
over.
"""
WHOLE_TILE = 1 << 15
"""Elements of a tile that holds several axes whole, of which the stack has to have the place."""

Element = Callable[[Axis], Tile]
"""A value along an axis that is reduced."""

_INFINITY = float("inf")


def neutral(kind: str, dtype: str) -> bool | int | float:
    """What does not change a reduction."""
    if kind in ("add", "or"):
        return False if dtype == "i1" else 0
    if kind in ("mul", "and"):
        return True if dtype == "i1" else (-1 if kind == "and" else 1)
    least = kind in ("max", "maxnum", "argmax")
    if dtype in types.FLOATS:
        return -_INFINITY if least else _INFINITY
    if dtype == "i1":
        return not least
    if dtype == "ui8":
        return 0 if least else 255
    bits = 8 * types.ITEM_BYTES[dtype] - 1
    return -(1 << bits) if least else (1 << bits) - 1


LONG_COLUMN = 256
"""Elements apart in memory that are reduced in one tile: a longer tile would have to be narrow."""


def reduced(k: KernelBuilder, kind: str, extent: Extent, places: Place, element: Element) -> Tile:
    """``kind`` (``add``, ``max``, …) of ``element`` along ``extent`` places, in float32 at least; ``places`` are those
    of the result.
    """
    axis = whole_axis(k, extent, places)
    if axis is not None:
        return reduce_tile(k, kind, element(axis), axis)
    return reduced_in_loop(k, kind, k.new_axis(extent, "loop", "BK"), element)


def reduced_in_loop(k: KernelBuilder, kind: str, axis: Axis, element: Element, end: SSAValue | None = None) -> Tile:
    """``kind`` of ``element`` over tiles of an axis, up to its extent or to ``end``."""

    def body(carried: Sequence[Tile]) -> Sequence[Tile]:
        part = reduce_tile(k, kind, element(axis), axis)
        return [apply(k, "max" if kind == "maxnum" else kind, *k.aligned(carried[0], part))]

    return k.loop(axis, [start(k, kind, axis, element)], body, end=end)[0]


def start(k: KernelBuilder, kind: str, axis: Axis, element: Element) -> Tile:
    """The neutral number, along the axes and in the dtype that the reduced value has: a trial of the element tells."""
    found = k.tried(axis, lambda: element(axis))
    dtype = work_dtype(found.dtype)
    return k.spread(number(k, neutral(kind, dtype), dtype), [each for each in found.axes if each is not axis])


def whole_axis(k: KernelBuilder, extent: Extent, places: Place) -> Axis | None:
    """An axis with all places in one tile: one that the kernel has and that the result does not use, else a new one;
    None where rows are too long, or as many of them as a tile would have that already holds other axes whole.
    """
    if not isinstance(extent, int) or extent > WHOLE:
        return None
    whole = {axis.name: axis.extent for axis in k.axes.of_all(places) if axis.role == "whole"}
    sizes = (1 << (each - 1).bit_length() for each in (extent, *whole.values()) if isinstance(each, int) and each)
    if whole and prod(sizes) > WHOLE_TILE:
        return None
    k.reduced.add((extent, frozenset(name for at in places for name in free_symbols(at))))
    found = k.free_whole_axis(extent, *places)
    return found or k.new_axis(extent, "whole", "BD")


def reduce_tile(k: KernelBuilder, kind: str, given: Tile, axis: Axis) -> Tile:
    """A tile reduced along an axis; in float32 for halves, and not rounded back."""
    given = cast(k, k.along(given, axis), work_dtype(given.dtype))
    if not (given.zero_outside and neutral(kind, given.dtype) == 0):
        given = k.pad(given, axis, neutral(kind, given.dtype))
    position = given.axes.index(axis)
    rest = tuple(each for each in given.axes if each is not axis)
    name = {"add": "or", "max": "or", "mul": "and", "min": "and"}.get(kind, kind) if given.dtype == "i1" else kind
    if given.dtype == "ui8" and kind in ("max", "min"):
        wide = cast(k, given, "i32")
        return cast(k, Tile(k.add(compute.ReduceOp(kind, wide.value, position)), rest, "i32"), "ui8")
    dtype = "index" if kind.startswith("arg") else given.dtype
    return Tile(k.add(compute.ReduceOp(name, given.value, position)), rest, dtype)


def over(k: KernelBuilder, op: Any, place: Place, kind: str, dtype: str, form: Callable[[Tile], Tile]) -> Tile:
    """``kind`` of ``form`` of the op's input along its dimensions, one after the other, computed in ``dtype``."""
    shape, dims = types.shape(op.input), tuple(op.dims.data)
    keep = op.keepdim is not None
    rest = iter(place)
    outer: list[Extent | None] = []
    for dim in range(len(shape)):
        if dim in dims:
            outer.append(None)
            if keep:
                next(rest)
        else:
            outer.append(next(rest))
    return along(k, shape, outer, lambda at: form(cast(k, k.value(op.input, at), dtype)), kind, in_loop=_reads_once(op))


def _reads_once(op: Any) -> bool:
    """True if the group does not need the op's input again beside its result, as norms do."""
    return all(isinstance(use.operation, YieldOp) for use in op.results[0].uses)


def along(
    k: KernelBuilder,
    shape: Sequence[Extent],
    outer: Sequence[Extent | None],
    element: Callable[[Place], Tile],
    kind: str,
    *,
    in_loop: bool = False,
) -> Tile:
    """``kind`` of elements over the dimensions that ``outer`` leaves open (None). ``in_loop``: long columns may be
    reduced in a loop, so that tiles can have long rows.
    """
    open_dims = [dim for dim, at in enumerate(outer) if at is None and shape[dim] != 1]
    fixed: list[Extent] = [0 if at is None else at for at in outer]
    if not open_dims:
        return element(tuple(fixed))
    dim = open_dims[0]
    others = tuple(at for at in outer if at is not None)

    def at(where: Extent) -> Tile:
        places = list(outer)
        places[dim] = where
        return along(k, shape, places, element, kind, in_loop=in_loop)

    inner = max(number for number, extent in enumerate(shape) if extent != 1)
    if in_loop and inner not in open_dims and isinstance(extent := shape[dim], int) and extent > LONG_COLUMN:
        return reduced_in_loop(k, kind, k.new_axis(extent, "loop", "BK"), lambda axis: at(axis.symbol))
    found = _by_parts(k, kind, shape[dim], others, at)
    return found or reduced(k, kind, shape[dim], others, lambda axis: at(axis.symbol))


def _by_parts(k: KernelBuilder, kind: str, extent: Extent, places: Place, at: Callable[[Extent], Tile]) -> Tile | None:
    """A reduction along an axis that the kernel has in parts, one tile for each: those tiles are needed anyhow (for a
    rotation after the norm, say). None if there is no such axis.
    """
    if extent not in k.parts or k.free_whole_axis(extent, *places) is not None:
        return None
    number_of_parts, axis = k.parts[extent]
    if axis in k.axes.of_all(places):
        return None
    total: Tile | None = None
    for part in range(number_of_parts):
        found = reduce_tile(k, kind, at(part * axis.extent + axis.symbol), axis)
        total = found if total is None else apply(k, kind, *k.aligned(total, found))
    return total


def count(op: Any) -> Extent:
    """How many elements a reduction combines."""
    shape = types.shape(op.input)
    return prod((shape[dim] for dim in op.dims.data), start=1)


def _same(x: Tile) -> Tile:
    return x


@computes(reduction.SumOp, reduction.ProdOp, reduction.AmaxOp, reduction.AminOp)
def plain(k: KernelBuilder, op: Any, result: int, place: Place) -> Tile:
    kind = {reduction.SumOp: "add", reduction.ProdOp: "mul", reduction.AmaxOp: "max", reduction.AminOp: "min"}[type(op)]
    dtype = types.dtype(op.result)
    return cast(k, over(k, op, place, kind, work_dtype(dtype), _same), dtype)


@computes(reduction.AnyOp, reduction.AllOp)
def logical(k: KernelBuilder, op: Any, result: int, place: Place) -> Tile:
    return over(k, op, place, "or" if isinstance(op, reduction.AnyOp) else "and", "i1", _same)


def mean(k: KernelBuilder, total: Tile, elements: Extent) -> Tile:
    """A sum divided by the number of elements."""
    if isinstance(elements, int):
        return apply(k, "div", total, number(k, float(elements), total.dtype))
    return apply(k, "div", total, cast(k, k.index(elements), total.dtype))


@computes(reduction.MeanOp)
def mean_(k: KernelBuilder, op: Any, result: int, place: Place) -> Tile:
    dtype = types.dtype(op.result)
    return cast(k, mean(k, over(k, op, place, "add", work_dtype(dtype), _same), count(op)), dtype)


@computes(reduction.VarOp, reduction.StdOp)
def deviation(k: KernelBuilder, op: Any, result: int, place: Place) -> Tile:
    dtype, elements = types.dtype(op.result), count(op)
    wide = work_dtype(dtype)
    centre = mean(k, over(k, op, place, "add", wide, _same), elements)

    def square(x: Tile) -> Tile:
        away = apply(k, "sub", x, centre)
        return apply(k, "mul", away, away)

    total = over(k, op, place, "add", wide, square)
    correction = op.correction.value
    zero = number(k, 0.0, wide)
    if isinstance(elements, int):
        size = number(k, max(float(elements) - float(correction), 0.0), wide)
    else:
        size = apply(k, "sub", cast(k, k.index(elements), wide), number(k, float(correction), wide))
        size = apply(k, "max", size, zero)
    found = apply(k, "div", total, size)
    return cast(k, made(k, math.SqrtOp, found) if isinstance(op, reduction.StdOp) else found, dtype)


@computes(reduction.VectorNormOp)
def vector_norm(k: KernelBuilder, op: Any, result: int, place: Place) -> Tile:
    dtype, order = types.dtype(op.result), float(op.ord.value)
    wide = work_dtype(dtype)

    def size(x: Tile) -> Tile:
        return made(k, math.AbsFOp, x)

    if order in (_INFINITY, -_INFINITY):
        found = over(k, op, place, "max" if order > 0 else "min", wide, size)
    elif order == 2:
        found = made(k, math.SqrtOp, over(k, op, place, "add", wide, lambda x: apply(k, "mul", x, x)))
    elif order == 1:
        found = over(k, op, place, "add", wide, size)
    elif order == 0:
        zero = number(k, 0.0, wide)
        found = over(k, op, place, "add", wide, lambda x: cast(k, compare(k, "ne", x, zero), wide))
    else:
        power, root = number(k, order, wide), number(k, 1 / order, wide)
        total = over(k, op, place, "add", wide, lambda x: made(k, math.PowFOp, size(x), power))
        found = made(k, math.PowFOp, total, root)
    return cast(k, found, dtype)


def _finite(k: KernelBuilder, greatest: Tile) -> Tile:
    """The maximum that exponents are taken from: 0 in the place of infinities, whose difference is NaN."""
    size = made(k, math.AbsFOp, greatest)
    infinite = compare(k, "eq", size, number(k, _INFINITY, greatest.dtype))
    return select(k, infinite, number(k, 0.0, greatest.dtype), greatest)


@computes(reduction.LogsumexpOp)
def logsumexp(k: KernelBuilder, op: Any, result: int, place: Place) -> Tile:
    dtype = types.dtype(op.result)
    wide = work_dtype(dtype)
    greatest = _finite(k, over(k, op, place, "maxnum", wide, _same))  # a NaN shows in the sum
    total = over(k, op, place, "add", wide, lambda x: made(k, math.ExpOp, apply(k, "sub", x, greatest)))
    return cast(k, apply(k, "add", made(k, math.LogOp, total), greatest), dtype)


@computes(reduction.ArgmaxOp, reduction.ArgminOp)
def argument(k: KernelBuilder, op: Any, result: int, place: Place) -> Tile:
    others = list(place)
    if op.keepdim is not None and types.rank(op.input):
        del others[op.dim.data]
    return argument_place(k, op, others, isinstance(op, reduction.ArgmaxOp))


def argument_place(k: KernelBuilder, op: Any, others: Sequence[Extent], greatest: bool) -> Tile:
    """The place along ``op.dim`` of the greatest or least element, where the other dimensions are at ``others``."""
    shape, dim = types.shape(op.input), op.dim.data
    if not shape or shape[dim] == 1:
        return number(k, 0, "i64")
    kind = "argmax" if greatest else "argmin"

    def element(axis: Axis) -> Tile:
        given = k.value(op.input, (*others[:dim], axis.symbol, *others[dim:]))
        given = cast(k, given, "i32") if given.dtype in ("ui8", "i1") else given
        return cast(k, given, work_dtype(given.dtype))

    axis = whole_axis(k, shape[dim], tuple(others))
    if axis is not None:
        return cast(k, reduce_tile(k, kind, element(axis), axis), "i64")
    axis = k.new_axis(shape[dim], "loop", "BK")
    least = start(k, kind, axis, element)

    def body(carried: Sequence[Tile]) -> Sequence[Tile]:
        best, place = carried
        given = element(axis)
        found = reduce_tile(k, "max" if greatest else "min", given, axis)
        within = cast(k, reduce_tile(k, kind, given, axis), "i64")
        first = cast(k, Tile(k.start(axis), (), "index"), "i64")
        better = compare(k, "gt" if greatest else "lt", found, best)
        if best.dtype in types.FLOATS:  # NaN is the greatest and the least
            nan = k.both(compare(k, "ne", found, found), compare(k, "eq", best, best))
            better = apply(k, "or", *k.aligned(better, nan))
        return [
            select(k, better, found, best),
            select(k, better, apply(k, "add", *k.aligned(within, first)), place),
        ]

    return k.loop(axis, [least, k.spread(number(k, 0, "i64"), least.axes)], body)[1]


@computes(reduction.SoftmaxOp, reduction.LogSoftmaxOp)
def softmax(k: KernelBuilder, op: Any, result: int, place: Place) -> Tile:
    """Maximum, sum of exponentials, and the product with the inverse of that, in float32 at least."""
    dtype, shape, dim = types.dtype(op.result), types.shape(op.input), op.dim.data
    if not shape:
        return number(k, 1.0 if isinstance(op, reduction.SoftmaxOp) else 0.0, dtype)
    wide, extent = work_dtype(dtype), shape[dim]
    if isinstance(extent, int) and extent > WHOLE:
        raise NotLowered(f"rows of more than {WHOLE} elements are not normalised in one tile")
    want_whole(k, place[dim], extent)
    others = (*place[:dim], *place[dim + 1 :])

    def at(where: Extent) -> Tile:
        return cast(k, k.value(op.input, (*place[:dim], where, *place[dim + 1 :])), wide)

    # A NaN shows in the sum, and with it in all of the row, whatever the maximum is.
    greatest = reduced(k, "maxnum", shape[dim], others, lambda axis: at(axis.symbol))

    def exponent(x: Tile) -> Tile:
        return made(k, math.ExpOp, apply(k, "sub", x, greatest))

    total = reduced(k, "add", shape[dim], others, lambda axis: exponent(at(axis.symbol)))
    if isinstance(op, reduction.SoftmaxOp):
        # One division for a row: a vector of quotients takes as long as ten other operations.
        found = apply(k, "mul", exponent(at(place[dim])), apply(k, "div", number(k, 1.0, wide), total))
    else:
        found = apply(k, "sub", apply(k, "sub", at(place[dim]), greatest), made(k, math.LogOp, total))
    return cast(k, found, dtype)


def want_whole(k: KernelBuilder, at: Extent, extent: Extent) -> None:
    """Note that the kernel's axis at a place had better be in one tile, where it runs over all of a row."""
    if isinstance(extent, int) and extent <= WHOLE:
        k.whole |= {axis.name for axis in k.axes.of(at) if axis.symbol == at and axis.extent == extent}


@computes(reduction.CumsumOp, reduction.CumprodOp)
def scan(k: KernelBuilder, op: Any, result: int, place: Place) -> Tile:
    dtype, shape, dim = types.dtype(op.result), types.shape(op.input), op.dim.data
    if not shape or shape[dim] == 1:
        return cast(k, k.value(op.input, place), dtype)
    want_whole(k, place[dim], shape[dim])
    axes = [axis for axis in k.axes.of(place[dim]) if axis.symbol == place[dim] and axis.role == "whole"]
    kind = "add" if isinstance(op, reduction.CumsumOp) else "mul"
    if not axes or axes[0].extent != shape[dim]:
        return _long_scan(k, op, place, kind, dtype)
    (axis,) = axes
    given = cast(k, k.value(op.input, place), _scan_dtype(kind, dtype))
    return cast(k, _scanned(k, kind, given, axis), dtype)


def _scanned(k: KernelBuilder, kind: str, given: Tile, axis: Axis) -> Tile:
    """A tile with everything up to each place along an axis combined."""
    given = k.along(given, axis)
    return Tile(k.add(compute.ScanOp(kind, given.value, given.axes.index(axis))), given.axes, given.dtype)


def _scan_dtype(kind: str, dtype: str, long: bool = False) -> str:
    """Products of many factors, and long sums, are as exact as torch's, which has them in float64."""
    return "f64" if dtype in types.FLOATS and (long or kind == "mul") else work_dtype(dtype)


def _long_scan(k: KernelBuilder, op: Any, place: Place, kind: str, dtype: str) -> Tile:
    """What comes before a tile, reduced in a loop, combined with the scan of the tile. Where the dimension is no axis
    of tiles, everything up to each place is reduced.
    """
    dim = op.dim.data
    shape, wide = types.shape(op.input), _scan_dtype(kind, dtype, long=True)
    k.scanned |= {axis.name for axis in k.axes.of(place[dim]) if axis.symbol == place[dim]}
    axes = [axis for axis in k.tiled(place[dim]) if axis.symbol == place[dim] and axis.role == "tile"]
    last = k.index(place[dim]) if not axes else Tile(k.start(axes[0]), (), "index")
    limit = cast(k, last, "i64")

    def element(axis: Axis) -> Tile:
        at = cast(k, k.index(axis.symbol), "i64")
        before = compare(k, "lt" if axes else "le", at, limit)
        given = cast(k, k.value(op.input, (*place[:dim], axis.symbol, *place[dim + 1 :])), wide)
        return select(k, before, given, number(k, neutral(kind, wide), wide))

    end = k.start(axes[0]) if axes else None
    total = reduced_in_loop(k, kind, k.new_axis(shape[dim], "loop", "BK"), element, end)
    if axes:
        within = _scanned(k, kind, cast(k, k.value(op.input, place), wide), axes[0])
        total = apply(k, kind, *k.aligned(total, within))
    return cast(k, total, dtype)
