"""Products of matrices: a tile of the result sums over a loop along the contracted dimension."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from xdsl.ir import SSAValue

from forgec.ir import types
from forgec.ir.ops import contraction
from forgec.ir.ops.byte_linear import ByteLinearOp
from forgec.ir.ops.quantization import DequantizeOp
from forgec.ir.tile import compute
from forgec.passes.tiles.arithmetic import binary as apply
from forgec.passes.tiles.arithmetic import cast, compare, number, select, work_dtype
from forgec.passes.tiles.axes import Axis, Place, broadcast_place
from forgec.passes.tiles.kernel_builder import KernelBuilder, NotLowered, Tile
from forgec.passes.tiles.rule import computes
from forgec.passes.tiles.rules.reduction import reduced
from forgec.runtime.symbolic import Extent, sym_max

Factor = Callable[[Axis], Tile]
"""One side of a product, along the axis that is summed."""


def accumulator_dtype(dtype: str) -> str:
    """The dtype in which products are summed."""
    if dtype in types.FLOATS:
        return work_dtype(dtype)
    return "i64" if dtype == "i64" else "i32"


def product(
    k: KernelBuilder,
    left: Factor,
    right: Factor,
    extent: Extent,
    rows: Sequence[Extent],
    columns: Sequence[Extent],
    dtype: str,
) -> Tile:
    """``Σ left · right`` along ``extent`` places, of factors of ``dtype``, not rounded; ``rows`` are the places that
    only ``left`` depends on, and ``columns`` those that only ``right`` does.
    """
    row_axes, column_axes = k.tiled(*rows), k.tiled(*columns)
    k.rows |= {axis.name for at in rows for axis in k.axes.of(at)}
    k.columns |= {axis.name for at in columns for axis in k.axes.of(at)}
    if len(row_axes) > 1 or len(column_axes) > 1 or set(row_axes) & set(column_axes):
        return _by_sum(k, left, right, extent, (*rows, *columns))
    row, column = matrix_axes(k, row_axes, column_axes)
    axis = k.new_axis(extent, "loop", "BK")

    def body(carried: Sequence[Tile]) -> Sequence[Tile]:
        return [dot(k, left(axis), right(axis), carried[0], axis)]

    found = k.loop(axis, [zeros(k, row, column, accumulator_dtype(dtype))], body)[0]
    return from_matrix(k, found, row_axes, column_axes)


def matrix_axes(k: KernelBuilder, rows: Sequence[Axis], columns: Sequence[Axis]) -> tuple[Axis, Axis]:
    """The axes of a product: those there are, or axes of one place."""
    return (rows[0] if rows else k.unit(-1)), (columns[0] if columns else k.unit(998))


def _by_sum(k: KernelBuilder, left: Factor, right: Factor, extent: Extent, places: Sequence[Extent]) -> Tile:
    """The product as a sum of products of tiles, for shapes that no matrix product has."""

    def element(axis: Axis) -> Tile:
        a, b = left(axis), right(axis)
        wide = accumulator_dtype(a.dtype)
        return apply(k, "mul", cast(k, a, wide), cast(k, b, wide))

    return reduced(k, "add", extent, tuple(places), element)


def zeros(k: KernelBuilder, row: Axis, column: Axis, dtype: str) -> Tile:
    """Zeros [row, column] for a product to be added to."""
    made = compute.BroadcastOp(number(k, 0, dtype).value, [], [row.size, column.size])
    return Tile(k.add(made), (row, column), dtype)


def from_matrix(k: KernelBuilder, given: Tile, rows: Sequence[Axis], columns: Sequence[Axis]) -> Tile:
    """A product without its axes of one place, its axes in their order."""
    if given.axes[0].order > given.axes[1].order:
        given = Tile(k.add(compute.TransposeOp(given.value, [1, 0])), given.axes[::-1], given.dtype)
    for axis in given.axes:
        if axis not in (*rows, *columns):
            given = k.without(given, axis)
    return given


def dot(
    k: KernelBuilder,
    left: Tile,
    right: Tile,
    accumulator: Tile,
    axis: Axis,
    within: Sequence[SSAValue] = (),
    band: str | None = None,
) -> Tile:
    """One step of a product: adds ``left · right`` along ``axis`` to an accumulator [row, column], or to its rows from
    one place up to another, or in a ``band``.
    """
    row, column = accumulator.axes
    a, b = _side(k, left, row, axis), _side(k, right, column, axis)
    dtype = accumulator.dtype
    if left.dtype not in types.FLOATS and left.dtype not in (dtype, "i8"):
        a, b = cast(k, a, dtype), cast(k, b, dtype)
    band = band if within else None
    made = compute.DotOp(a.value, b.value, accumulator.value, transposed=True, rows=within, band=band)
    return Tile(k.add(made), accumulator.axes, dtype)


def _side(k: KernelBuilder, given: Tile, outer: Axis, axis: Axis) -> Tile:
    """A factor as [outer, axis]; what is beyond the extent of ``axis`` is 0."""
    if any(each not in (outer, axis) for each in given.axes):
        raise NotLowered("a factor of a product varies along more axes than a matrix has")
    given = k.spread(given, sorted((outer, axis), key=lambda each: each.order))
    if not given.zero_outside:
        given = k.pad(given, axis, 0)
    if given.axes[0] is axis:
        given = Tile(k.add(compute.TransposeOp(given.value, [1, 0])), (outer, axis), given.dtype)
    return given


def row_scales(weight: SSAValue) -> DequantizeOp | None:
    """The dequantisation of a weight by one scale for each row, and nothing else."""
    op = weight.owner
    if not isinstance(op, DequantizeOp) or op.scales is None or op.zeros is not None or op.packing is not None:
        return None
    rows = types.shape(op.quantized)[0]
    fits = types.shape(op.scales) == (rows, 1) and types.dtype(op.scales) == "f32" and types.dtype(op.result) == "f32"
    return op if fits and op.compute is not None and op.compute.data == "f32" else None


@computes(contraction.LinearOp)
def linear(k: KernelBuilder, op: Any, result: int, place: Place) -> Tile:
    assert not op.is_quantized, "decomposed before"
    dtype = types.dtype(op.result)
    rows, column = place[:-1], place[-1]
    scales = row_scales(op.weight) if dtype == "f32" else None
    found = product(
        k,
        lambda axis: k.value(op.input, (*rows, axis.symbol)),
        lambda axis: (
            k.value(op.weight, (column, axis.symbol))
            if scales is None
            else cast(k, k.value(scales.quantized, (column, axis.symbol)), dtype)
        ),
        types.shape(op.input)[-1],
        rows,
        [column],
        dtype,
    )
    if scales is not None:  # one for each row of the weight: the sum is scaled instead of what is summed
        assert scales.scales is not None, "seen before"
        found = apply(k, "mul", found, cast(k, k.value(scales.scales, (column, 0)), found.dtype))
    if op.bias is not None:
        found = apply(k, "add", found, cast(k, k.value(op.bias, (column,)), found.dtype))
    return cast(k, found, dtype)


@computes(ByteLinearOp)
def byte_linear(k: KernelBuilder, op: Any, result: int, place: Place) -> Tile:
    return product(
        k,
        lambda axis: k.value(op.input, (*place[:-1], axis.symbol)),
        lambda axis: k.value(op.weight, (place[-1], axis.symbol)),
        types.shape(op.input)[-1],
        place[:-1],
        [place[-1]],
        "i32",
    )


@computes(contraction.MatmulOp)
def matmul(k: KernelBuilder, op: Any, result: int, place: Place) -> Tile:
    left, right = list(types.shape(op.lhs)), list(types.shape(op.rhs))
    batch = list(place)
    columns = [batch.pop()] if len(right) > 1 else []
    rows = [batch.pop()] if len(left) > 1 else []
    before_left, before_right = (broadcast_place(tuple(batch), shape[:-2]) for shape in (left, right))

    def lhs(axis: Axis) -> Tile:
        return k.value(op.lhs, (*before_left, *rows, axis.symbol))

    def rhs(axis: Axis) -> Tile:
        return k.value(op.rhs, (*before_right, axis.symbol, *columns))

    dtype = types.dtype(op.result)
    if all(at == 0 for at in before_right):  # one matrix for the whole batch: its rows are one long matrix
        found = product(k, lhs, rhs, left[-1], [*before_left, *rows], columns, dtype)
    else:
        k.batch |= {axis.name for at in before_right for axis in k.axes.of(at)}
        if k.tiled(*before_right):
            found = _by_sum(k, lhs, rhs, left[-1], place)
        else:
            found = product(k, lhs, rhs, left[-1], rows, columns, dtype)
    return cast(k, found, dtype)


@computes(contraction.GroupedMatmulOp)
def grouped_matmul(k: KernelBuilder, op: Any, result: int, place: Place) -> Tile:
    """The sum over all groups of the product with the rows that belong to each; groups without a row of the tile are
    passed over.
    """
    row, column = place
    count, _, _ = types.shape(op.weight)
    dtype, extent = types.dtype(op.result), types.shape(op.input)[1]
    row_axes, column_axes = k.tiled(row), k.tiled(column)
    k.rows |= {axis.name for axis in k.axes.of(row)}
    k.columns |= {axis.name for axis in k.axes.of(column)}
    if len(row_axes) > 1 or len(column_axes) > 1:
        raise NotLowered("rows and columns of grouped products are axes of their own")
    rows, columns = matrix_axes(k, row_axes, column_axes)
    begin = k.start(rows) if rows.symbol == row else k.scalar(row)  # of the tile
    groups = k.new_axis(count, "grid")  # one group for each iteration
    zero = k.constant(0, "index")

    def body(carried: Sequence[Tile]) -> Sequence[Tile]:
        group = groups.symbol
        end = k.number(cast(k, k.value(op.ends, (group,)), "index"))
        before = cast(k, k.value(op.ends, (sym_max(0, group - 1),)), "index")
        first = k.number(select(k, compare(k, "eq", k.index(group), zero), zero, before))
        within = [k.scalar(each - k.number(Tile(begin, (), "index"))) for each in (first, end)]
        axis = k.new_axis(extent, "loop", "BK")

        def step(inner: Sequence[Tile]) -> Sequence[Tile]:
            left = k.value(op.input, (row, axis.symbol))
            return [dot(k, left, k.value(op.weight, (group, axis.symbol, column)), inner[0], axis, within)]

        return k.loop(axis, carried, step, end=_reach(k, row, rows, first, end, extent))

    found = k.loop(groups, [zeros(k, rows, columns, accumulator_dtype(dtype))], body)[0]
    return cast(k, from_matrix(k, found, row_axes, column_axes), dtype)


def _reach(k: KernelBuilder, row: Extent, rows: Axis, first: Extent, end: Extent, extent: Extent) -> Any:
    """``extent`` if some row of the tile lies in ``[first, end)``, else 0: how far to go along the summed dimension."""
    start = k.start(rows) if rows.symbol == row else k.scalar(row)
    lowest = Tile(start, (), "index")
    highest = apply(k, "add", lowest, k.index(rows.size)) if rows.symbol == row else k.index(row + 1)
    meets = k.both(compare(k, "lt", lowest, k.index(end)), compare(k, "gt", highest, k.index(first)))
    return select(k, meets, k.index(extent), k.constant(0, "index")).value
