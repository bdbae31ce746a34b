"""Attention with a running softmax (Milakov and Gimelshein 2018; Dao et al. 2022): scores are never stored.

A program has a tile of queries of one head and goes through the keys tile by tile. It carries the sum of products, the
greatest
score so far and the sum of exponentials; tiles that causal, window and chunk leave out are skipped.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from xdsl.dialects import math
from xdsl.ir import SSAValue

from forgec.ir import types
from forgec.ir.ops.attention import AttentionOp
from forgec.ir.tile import compute
from forgec.passes.tiles.arithmetic import binary as apply
from forgec.passes.tiles.arithmetic import cast, compare, made, number, select
from forgec.passes.tiles.axes import Axis, Place, broadcast_place
from forgec.passes.tiles.kernel_builder import KernelBuilder, NotLowered, Tile
from forgec.passes.tiles.rule import computes
from forgec.passes.tiles.rules.contraction import dot, from_matrix, matrix_axes, zeros
from forgec.passes.tiles.rules.reduction import mean, reduce_tile, reduced, want_whole, whole_axis
from forgec.runtime.symbolic import Extent, floordiv, free_symbols, sym_max, sym_min, symbol

_INFINITY = float("inf")


@computes(AttentionOp)
def attention(k: KernelBuilder, op: Any, result: int, place: Place) -> Tile:
    return Attention(k, op, place).run()


class Attention:
    """The attention of a place of the result: to all columns, or to those of one of several parts of ``extent``."""

    def __init__(
        self, k: KernelBuilder, op: AttentionOp, place: Place, part: Extent = 0, extent: int | None = None
    ) -> None:
        """``extent`` divides the number of columns."""
        self.k, self.op = k, op
        *batch, self.head, self.row, self.feature = place
        self.batch = tuple(batch)
        self.all_columns = types.shape(op.key)[-2]
        self.columns = self.all_columns if extent is None else extent
        self.first = 0 if extent is None else part * extent
        self.kv_head, inner = self._heads()
        self.work = "f64" if op.softmax_dtype.data == "f64" or types.dtype(op.query) == "f64" else "f32"
        want_whole(k, self.feature, types.shape(op.value)[-1])
        rows, outer = (self.row, (self.head,)) if inner is None else (inner, (self.kv_head,))
        k.rows |= {axis.name for axis in k.axes.of(rows)}
        k.batch |= {axis.name for at in (*batch, *outer, part) for axis in k.axes.of(at)}
        self.row_axes, self.column_axes = k.tiled(rows), k.tiled(self.feature)
        if k.tiled(*batch, *outer, part) or len(self.row_axes) > 1 or len(self.column_axes) > 1:
            raise NotLowered("rows and features of this attention are not axes of their own")

    def _heads(self) -> tuple[Extent, Extent | None]:
        """The head of keys and values, and the place of the query's head among those that share it, if those are the
        rows: where each has one query, so that keys and values are read once for all.
        """
        heads, kv_heads = types.shape(self.op.query)[-3], types.shape(self.op.key)[-3]
        outer, inner = (0, self.head) if kv_heads == 1 else self.k.axes.divide(self.head, heads // kv_heads)
        if self.row != 0 or isinstance(inner, int):
            return outer, None
        shared = set(self.k.axes.of(inner)) & set(self.k.axes.of(outer))  # a first run: the axis is not split yet
        return outer, None if shared or len(self.k.axes.of(inner)) != 1 else inner

    def run(self) -> Tile:
        k, op = self.k, self.op
        query, (total, _, weight) = self._summed(op.sinks)
        inverse = apply(k, "div", number(k, 1.0, self.work), weight)
        found = apply(k, "mul", *k.aligned(total, inverse))
        if op.may_have_empty_rows:
            empty = compare(k, "eq", weight, number(k, 0.0, self.work))
            found = select(k, empty, self._empty(*query), found)
        return cast(k, from_matrix(k, found, self.row_axes, self.column_axes), types.dtype(op.result))

    def part(self) -> list[Tile]:
        """The sum of products, the greatest score and the sum of exponentials of a part of the columns, the two last
        for each feature alike; sinks are left out.
        """
        k = self.k
        _, (total, greatest, weight) = self._summed(None)
        found = [total, *(k.spread(each, total.axes) for each in (greatest, weight))]
        return [from_matrix(k, each, self.row_axes, self.column_axes) for each in found]

    def _summed(self, sinks: SSAValue | None) -> tuple[tuple[Tile, Axis], list[Tile]]:
        """The query, and what the loop over the columns leaves."""
        k = self.k
        if self.columns == 0:
            raise NotLowered("attention over no keys is zeros, and no loop says so")
        query = self._query()
        row, column = matrix_axes(k, self.row_axes, self.column_axes)
        axis = k.new_axis(self.columns, "loop", "BN")
        first, end = self._bounds(axis)
        self.end = end
        least = k.spread(number(k, -_INFINITY, self.work), (row,))
        start = [zeros(k, row, column, self.work), least, k.spread(number(k, 0.0, self.work), (row,))]
        if sinks is not None:
            sink = k.spread(cast(k, k.value(sinks, (self.head,)), self.work), (row,))
            start[1], start[2] = sink, self._exponential(sink, sink)

        def body(carried: Sequence[Tile]) -> Sequence[Tile]:
            return self._step(axis, row, query, carried)

        return query, k.loop(axis, start, body, first, end)

    def _column(self, axis: Axis) -> Extent:
        """The column that a place along the axis of the loop is."""
        return self.first + axis.symbol

    def _read(self, value: SSAValue, *tail: Extent) -> Tile:
        shape = types.shape(value)
        batch = broadcast_place(self.batch, shape[:-3])
        return self.k.value(value, (*batch, *broadcast_place(tail, shape[-3:])))

    def _query(self) -> tuple[Tile, Axis]:
        """A tile of queries, and the axis of its features."""
        k, op = self.k, self.op
        extent = types.shape(op.query)[-1]
        features = whole_axis(k, extent, (*self.batch, self.head, self.row))
        if features is None:
            raise NotLowered("attention whose number of features is not known")
        query = self._read(op.query, self.head, self.row, features.symbol)
        if op.query_scale is not None:
            wide = apply(k, "mul", cast(k, query, self.work), number(k, float(op.query_scale.value), self.work))
            query = cast(k, wide, query.dtype)
        return query, features

    def _exponential(self, score: Tile, greatest: Tile) -> Tile:
        """``exp(score - greatest)``; 0 where both are -inf."""
        k = self.k
        infinite = compare(k, "eq", greatest, number(k, -_INFINITY, self.work))
        safe = select(k, infinite, number(k, 0.0, self.work), greatest)
        return made(k, math.ExpOp, apply(k, "sub", *k.aligned(score, safe)))

    def _step(self, axis: Axis, row: Axis, query: tuple[Tile, Axis], carried: Sequence[Tile]) -> Sequence[Tile]:
        """One tile of keys and values."""
        k, op = self.k, self.op
        total, greatest, weight = carried
        band, key = self._band(axis), self._key(axis, query[1])
        score = dot(k, query[0], key, zeros(k, row, axis, self._accumulator()), query[1], band, "result")
        score = apply(k, "mul", cast(k, score, self.work), number(k, op.score_scale, self.work))
        if op.softcap is not None:
            cap = number(k, float(op.softcap.value), self.work)
            score = apply(k, "mul", made(k, math.TanhOp, apply(k, "div", score, cap)), cap)
        kept = self._kept(axis)
        if op.replaced is not None:
            score = select(k, self._scores(op.replaced, axis), number(k, 0.0, self.work), score)
        if op.mask is not None and types.dtype(op.mask) != "i1":
            score = apply(k, "add", *k.aligned(score, cast(k, self._mask(axis), self.work)))
        if kept is not None:
            score = select(k, kept, score, number(k, -_INFINITY, self.work))
        score = k.pad(score, axis, -_INFINITY)
        highest = apply(k, "max", greatest, reduce_tile(k, "maxnum", score, axis))
        weights = self._exponential(score, highest)
        decay = self._exponential(greatest, highest)
        weight = apply(k, "add", apply(k, "mul", weight, decay), reduce_tile(k, "add", weights, axis))
        value = self._read(op.value, self.kv_head, self._column(axis), self.feature)
        if kept is not None and not (band and self._structured_alone()):
            # What no row of the tile keeps is not read: 0 · NaN would be NaN. A product in a band leaves it out itself.
            read = self._read_columns(axis, kept)
            value = select(k, read, value, number(k, 0.0, value.dtype))
        scaled = apply(k, "mul", *k.aligned(total, decay))
        return [dot(k, cast(k, weights, value.dtype), value, scaled, axis, band, "sum"), highest, weight]

    def _read_columns(self, axis: Axis, kept: Tile) -> Tile:
        """Which columns some row of the tile keeps. Under causal alone those are the columns before the loop's end."""
        k, op = self.k, self.op
        if self.end is not None and op.window is None and self._structured_alone():
            return compare(k, "lt", k.index(axis.symbol), Tile(self.end, (), "index"))
        for each in kept.axes:
            if each is not axis:
                kept = reduce_tile(k, "or", kept, each)
        return kept

    def _structured_alone(self) -> bool:
        """Whether causal and window alone say what is kept."""
        op = self.op
        return all(other is None for other in (op.mask, op.keys, op.prefix, op.chunk))

    def _accumulator(self) -> str:
        return "f64" if types.dtype(self.op.query) == "f64" else "f32"

    def _key(self, axis: Axis, features: Axis) -> Tile:
        return self._read(self.op.key, self.kv_head, self._column(axis), features.symbol)

    def _mask(self, axis: Axis) -> Tile:
        assert self.op.mask is not None, "asked only where there is one"
        return self._scores(self.op.mask, axis)

    def _scores(self, value: SSAValue, axis: Axis) -> Tile:
        """What has a number for each score."""
        place = (*self.batch, self.head, self.row, self._column(axis))
        return self.k.value(value, broadcast_place(place, types.shape(value)))

    def _by_column(self, value: SSAValue, axis: Axis) -> Tile:
        """What has a number for each column."""
        return self.k.value(value, broadcast_place((*self.batch, self._column(axis)), types.shape(value)))

    def _kept(self, axis: Axis) -> Tile | None:
        """Which positions are attended; None if all are."""
        k, op = self.k, self.op
        found: list[Tile] = []
        if op.mask is not None:
            mask = self._mask(axis)
            least = number(k, -_INFINITY, mask.dtype) if mask.dtype != "i1" else None
            found.append(mask if least is None else compare(k, "ne", mask, least))
        places = k.every(self._positions(axis))
        if places is not None and op.prefix is not None:
            places = apply(k, "or", *k.aligned(places, self._by_column(op.prefix, axis)))
        found += [] if places is None else [places]
        if op.keys is not None:
            found.append(self._by_column(op.keys, axis))
        return k.every(found)

    def _positions(self, axis: Axis) -> list[Tile]:
        """What causal, window and chunk keep."""
        k, op = self.k, self.op
        found: list[Tile] = []
        position, zero = self.row + op.position_offset, k.constant(0, "index")
        column = self._column(axis)
        if op.causal is not None:
            found.append(compare(k, "ge", k.index(position - column), zero))
        if op.window is not None:
            window = k.constant(op.window.data, "index")
            found.append(compare(k, "lt", k.index(position - column), window))
            if op.causal is None:
                found.append(compare(k, "lt", k.index(column - position), window))
        if op.chunk is not None:
            same = floordiv(position, op.chunk.data) - floordiv(column, op.chunk.data)
            found.append(compare(k, "eq", k.index(same), zero))
        return found

    def _band(self, axis: Axis) -> Sequence[SSAValue]:
        """Between which differences of a column's place in its tile and a row's in its own causal and window keep
        scores; nothing if they do not say.
        """
        k, op = self.k, self.op
        if op.prefix is not None or (op.causal is None and op.window is None) or not k.tiled(self.row):
            return ()
        (rows,) = k.tiled(self.row)
        if self.row != rows.symbol or self.first != 0:
            return ()
        same = symbol("p0") - symbol("p1") + op.position_offset  # where the column is the row's position
        low = -rows.size if op.window is None else same - op.window.data + 1
        high = same + (1 if op.causal is not None or op.window is None else op.window.data)
        starts = [k.start(rows), k.start(axis)]
        return [k.add(compute.IndexOp(each, starts if free_symbols(each) & {"p0"} else [])) for each in (low, high)]

    def _bounds(self, axis: Axis) -> tuple[SSAValue | None, SSAValue | None]:
        """The first key and the end of the keys that some row of the tile may keep; None for the first and the last."""
        k, op = self.k, self.op
        structured = op.prefix is None and not (op.causal is None and op.window is None and op.chunk is None)
        first, end = self._structure_bounds(axis) if structured else (None, None)
        if op.keys is not None:
            last = self._end_of_keys()
            end = last if end is None else k.add(compute.IndexOp(sym_min(symbol("p0"), symbol("p1")), [end, last]))
        return first, end

    def _end_of_keys(self) -> SSAValue:
        """The place after the last column that ``keys`` keeps."""
        k, keys = self.k, self.op.keys
        assert keys is not None, "asked only where there are some"
        axis = k.new_axis(self.columns, "loop", "BN")

        def body(carried: Sequence[Tile]) -> Sequence[Tile]:
            place = cast(k, k.index(axis.symbol + 1), "i32")
            kept = select(k, self._by_column(keys, axis), place, number(k, 0, "i32"))
            return [apply(k, "max", carried[0], reduce_tile(k, "max", kept, axis))]

        found = cast(k, k.loop(axis, [number(k, 0, "i32")], body)[0], "index")
        found = apply(k, "max", found, k.constant(0, "index"))  # so that it is seen to be no place outside
        return apply(k, "min", found, k.index(self.columns)).value

    def _structure_bounds(self, axis: Axis) -> tuple[SSAValue | None, SSAValue | None]:
        """The same, by causal, window and chunk."""
        k, op = self.k, self.op
        operands: list[SSAValue] = []
        low = self.row
        high = self.row
        if k.tiled(self.row):
            (rows,) = k.tiled(self.row)
            if self.row != rows.symbol:
                return None, None
            operands = [k.start(rows)]
            low, high = symbol("p0"), symbol("p0") + rows.size - 1
        elif not isinstance(self.row, int):
            operands = [k.scalar(self.row)]
            low = high = symbol("p0")
        low, high = low + op.position_offset, high + op.position_offset
        firsts: list[Extent] = [0]
        ends: list[Extent] = [self.all_columns]
        if op.causal is not None:
            ends.append(high + 1)
        if op.window is not None:
            firsts.append(low - op.window.data + 1)
            if op.causal is None:
                ends.append(high + op.window.data)
        if op.chunk is not None:
            firsts.append(floordiv(low, op.chunk.data) * op.chunk.data)
            ends.append((floordiv(high, op.chunk.data) + 1) * op.chunk.data)
        if self.first != 0:
            assert not operands, "a part has rows of one position"
            low = sym_max(0, sym_max(*firsts) - self.first)
            end = k.index(sym_max(0, sym_min(*ends, self.first + self.columns) - self.first))
            return k.index(floordiv(low, axis.size) * axis.size).value, end.value
        first = floordiv(sym_max(*firsts), axis.size) * axis.size
        end = sym_max(0, sym_min(*ends))
        return (
            k.add(compute.IndexOp(first, operands if not isinstance(first, int) else [])),
            k.add(compute.IndexOp(end, operands if not isinstance(end, int) else [])),
        )

    def _empty(self, query: Tile, features: Axis) -> Tile:
        """What a row with nothing to attend gives."""
        k, op = self.k, self.op
        if op.shows_query:
            wide = cast(k, query, self.work)
            return reduce_tile(k, "add", apply(k, "mul", wide, number(k, 0.0, self.work)), features)
        if op.empty_value is not None:
            return number(k, op.empty_value, self.work)

        def element(axis: Axis) -> Tile:
            return cast(k, self._read(op.value, self.kv_head, axis.symbol, self.feature), self.work)

        places = (*self.batch, self.kv_head, self.feature)
        return mean(k, reduced(k, "add", self.all_columns, places, element), self.all_columns)
