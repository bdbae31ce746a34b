"""Images: convolutions, pools, padding. A place outside an input is not read."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product as indices
from math import prod
from typing import Any

from xdsl.dialects import math

from forgec.ir import types
from forgec.ir.ops import contraction, spatial
from forgec.ir.ops.windowed_linear import WindowedLinearOp
from forgec.passes.tiles.arithmetic import binary as apply
from forgec.passes.tiles.arithmetic import cast, compare, number, work_dtype
from forgec.passes.tiles.axes import Axis, Place, unflattened
from forgec.passes.tiles.kernel_builder import KernelBuilder, NotLowered, Tile
from forgec.passes.tiles.reads import inside, read_inside
from forgec.passes.tiles.rule import computes
from forgec.passes.tiles.rules.contraction import accumulator_dtype, dot, from_matrix, matrix_axes, product, zeros
from forgec.passes.tiles.rules.reduction import neutral, reduced
from forgec.runtime.symbolic import Extent, floordiv, mod, sym_max, sym_min

UNROLLED = 64
"""Places of a kernel that are written out."""
ENOUGH_ROWS = 14
"""Rows that a product takes at once where registers are widest."""


@computes(contraction.ConvolutionOp)
def convolution(k: KernelBuilder, op: Any, result: int, place: Place) -> Tile:
    """A product over channels and places of the kernel, which are one axis."""
    image, weight = types.shape(op.input), types.shape(op.weight)
    batch, channel, *spots = place
    per_group = weight[1]
    kernel = [extent for extent in weight[2:] if isinstance(extent, int)]
    narrow = per_group == 1 or op.groups.data > 1
    if narrow and not any(op.padding.data) and len(kernel) == len(spots) and prod(kernel) <= UNROLLED:
        return _narrow(k, op, place, kernel)
    group = 0 if op.groups.data == 1 else k.axes.divide(channel, weight[0] // op.groups.data)[0]

    def pixels(axis: Axis) -> Tile:
        first, *taps = unflattened(k.axes, axis.symbol, weight[1:])
        places = [
            y * s + tap * d - p
            for y, tap, s, d, p in zip(spots, taps, op.strides.data, op.dilation.data, op.padding.data, strict=True)
        ]
        where = k.every([inside(k, at, extent) for at, extent in zip(places, image[2:], strict=True)])
        return read_inside(k, op.input, (batch, group * per_group + first, *places), where, 0)

    def factors(axis: Axis) -> Tile:
        return k.value(op.weight, (channel, *unflattened(k.axes, axis.symbol, weight[1:])))

    return _with_bias(k, op, _channels(k, op, pixels, factors, prod(weight[1:], start=1), place), channel)


@computes(WindowedLinearOp)
def windowed_linear(k: KernelBuilder, op: Any, result: int, place: Place) -> Tile:
    """For each row of the windows a product: its places and channels lie in memory without gaps, also beyond the end of
    a place's channels, where those of the next begin.
    """
    if op.input not in k.parameters:
        raise NotLowered("windows are taken of what lies in memory")
    made, channels = types.shape(op.weight)[1], types.shape(op.input)[-1]
    batch, channel, *spots = place
    group, within = k.axes.divide(channel, made)
    kernel, dtype = list(op.kernel.data), types.dtype(op.result)
    if op.dilation.data[-1] != 1:
        kernel.append(1)
    *outer, last = kernel
    longest = max(range(len(spots)), key=lambda n: (_useful(k, spots[n]), n))
    rows, columns = k.tiled(spots[longest]), k.tiled(channel)
    k.rows |= {axis.name for axis in k.axes.of(spots[longest])}
    k.columns |= {axis.name for axis in k.axes.of(channel)}
    if len(rows) > 1 or len(columns) > 1 or any(k.tiled(at) for n, at in enumerate(spots) if n != longest):
        raise NotLowered("rows and columns of windows are axes of their own")
    row, column = matrix_axes(k, rows, columns)

    def product_of(taps: Sequence[Extent], number: Extent, total: Tile) -> Tile:
        axis = k.new_axis(last * channels, "loop", "BK")
        at = [
            y * s + tap * d for y, s, d, tap in zip(spots, op.strides.data, op.dilation.data, (*taps, 0), strict=False)
        ]

        def step(carried: Sequence[Tile]) -> Sequence[Tile]:
            left = k.load(op.input, (batch, group, *at, axis.symbol))
            right = k.value(op.weight, (group, within, number * last * channels + axis.symbol))
            return [dot(k, left, right, carried[0], axis)]

        return k.loop(axis, [total], step)[0]

    total = zeros(k, row, column, accumulator_dtype(dtype))
    if prod(outer) == 1:
        total = product_of([0] * len(outer), 0, total)
    else:
        taps = k.new_axis(prod(outer), "grid")  # one row of the windows for each iteration

        def body(carried: Sequence[Tile]) -> Sequence[Tile]:
            return [product_of(unflattened(k.axes, taps.symbol, outer), taps.symbol, carried[0])]

        total = k.loop(taps, [total], body)[0]
    return _with_bias(k, op, from_matrix(k, total, rows, columns), channel)


def _useful(k: KernelBuilder, at: Extent) -> int:
    """Rows of a product that places along a dimension of the result give, as far as more are better."""
    count = prod(axis.extent for axis in k.axes.of(at))
    return min(count, ENOUGH_ROWS) if isinstance(count, int) else ENOUGH_ROWS


@computes(contraction.ConvTransposeOp)
def transposed_convolution(k: KernelBuilder, op: Any, result: int, place: Place) -> Tile:
    """The product over the input's elements that reach a place of the result."""
    image, weight = types.shape(op.input), types.shape(op.weight)
    batch, channel, *spots = place
    groups, made = op.groups.data, weight[1]
    per_group = weight[0] // groups
    group, within = (0, channel) if groups == 1 else k.axes.divide(channel, made)
    shape = (per_group, *weight[2:])

    def pixels(axis: Axis) -> Tile:
        first, *taps = unflattened(k.axes, axis.symbol, shape)
        places: list[Extent] = []
        conditions: list[Tile | None] = []
        settings = zip(op.strides.data, op.dilation.data, op.padding.data, image[2:], strict=True)
        for y, tap, (s, d, p, extent) in zip(spots, taps, settings, strict=True):
            reached = y + p - tap * d
            at = reached if s == 1 else floordiv(reached, s)
            places.append(at)
            conditions.append(inside(k, at, extent))
            if s != 1:
                conditions.append(compare(k, "eq", k.index(mod(reached, s)), k.constant(0, "index")))
        return read_inside(k, op.input, (batch, group * per_group + first, *places), k.every(conditions), 0)

    def factors(axis: Axis) -> Tile:
        first, *taps = unflattened(k.axes, axis.symbol, shape)
        return k.value(op.weight, (group * per_group + first, within, *taps))

    return _with_bias(k, op, _channels(k, op, pixels, factors, prod(shape, start=1), place), channel)


def _narrow(k: KernelBuilder, op: Any, place: Place, kernel: Sequence[int]) -> Tile:
    """The sum over the places of the kernel, written out, and the few channels of a group: each reads the image at all
    places of a tile.
    """
    weight = types.shape(op.weight)
    batch, channel, *spots = place
    wide = work_dtype(types.dtype(op.result))
    per_group = weight[1]
    group, _ = k.axes.divide(channel, weight[0] // op.groups.data)

    def added(at_channel: Extent, total: Tile | None) -> Tile | None:
        for taps in indices(*map(range, kernel)):
            at = [y * s + tap * d for y, tap, s, d in zip(spots, taps, op.strides.data, op.dilation.data, strict=True)]
            read = cast(k, k.value(op.input, (batch, group * per_group + at_channel, *at)), wide)
            factor = cast(k, k.value(op.weight, (channel, at_channel, *taps)), wide)
            if total is None:
                total = apply(k, "mul", *k.aligned(read, factor))
            else:
                read, factor, total = k.aligned(read, factor, total)
                total = Tile(k.add(math.FmaOp(read.value, factor.value, total.value)), total.axes, wide)
        return total

    total: Tile | None = None
    if isinstance(per_group, int) and per_group * prod(kernel) <= UNROLLED:
        for each in range(per_group):
            total = added(each, total)
    else:
        axis = k.new_axis(per_group, "grid")

        def body(carried: Sequence[Tile]) -> Sequence[Tile]:
            found = added(axis.symbol, carried[0])
            assert found is not None, "it was given a sum"
            return [found]

        total = k.loop(axis, [k.spread(number(k, 0, wide), k.tiled(*place))], body)[0]
    assert total is not None, "a kernel has places"
    return _with_bias(k, op, total, channel)


def _channels(k: KernelBuilder, op: Any, pixels: Any, factors: Any, extent: Extent, place: Place) -> Tile:
    batch, channel, *spots = place
    if op.groups.data == 1:
        return product(k, pixels, factors, extent, [batch, *spots], [channel], types.dtype(op.input))

    def element(axis: Axis) -> Tile:  # what is multiplied depends on the channel on both sides
        wide = work_dtype(types.dtype(op.result))
        return apply(k, "mul", cast(k, pixels(axis), wide), cast(k, factors(axis), wide))

    return reduced(k, "add", extent, place, element)


def _with_bias(k: KernelBuilder, op: Any, found: Tile, channel: Extent) -> Tile:
    if op.bias is not None:
        found = apply(k, "add", found, cast(k, k.value(op.bias, (channel,)), found.dtype))
    return cast(k, found, types.dtype(op.result))


def _window(k: KernelBuilder, op: Any, place: Place, axis: Axis) -> tuple[Place, Tile | None]:
    """The places of a pool's window, which are one axis, and where they lie in the input."""
    count, shape = len(op.kernel.data), types.shape(op.input)
    taps = unflattened(k.axes, axis.symbol, op.kernel.data)
    places = [
        y * s + tap * d - p
        for y, tap, s, d, p in zip(place[-count:], taps, op.strides.data, op.steps(), op.padding.data, strict=True)
    ]
    where = k.every([inside(k, at, extent) for at, extent in zip(places, shape[-count:], strict=True)])
    return (*place[:-count], *places), where


@computes(spatial.MaxPoolOp)
def max_pool(k: KernelBuilder, op: Any, result: int, place: Place) -> Tile:
    dtype = types.dtype(op.result)

    def element(axis: Axis) -> Tile:
        at, where = _window(k, op, place, axis)
        return read_inside(k, op.input, at, where, neutral("max", dtype))

    return cast(k, reduced(k, "max", prod(op.kernel.data), place, element), dtype)


@computes(spatial.AvgPoolOp)
def avg_pool(k: KernelBuilder, op: Any, result: int, place: Place) -> Tile:
    dtype, wide, size = types.dtype(op.result), work_dtype(types.dtype(op.result)), prod(op.kernel.data)
    if dtype not in types.FLOATS:
        raise NotLowered("averages of integers have no rule")

    def element(axis: Axis) -> Tile:
        at, where = _window(k, op, place, axis)
        return cast(k, read_inside(k, op.input, at, where, 0), wide)

    total = reduced(k, "add", size, place, element)
    if op.divisor is not None:
        return cast(k, apply(k, "div", total, number(k, float(op.divisor.value), wide)), dtype)
    count, shape = len(op.kernel.data), types.shape(op.input)
    counted: Tile | None = None
    constant = 1
    edges = zip(place[-count:], op.kernel.data, op.strides.data, op.padding.data, shape[-count:], strict=True)
    for y, taps, s, p, extent in edges:
        if op.count_padding is not None:
            begin, end = y * s - p, sym_min(y * s - p + taps, extent + p)
        else:
            begin, end = sym_max(0, y * s - p), sym_min(extent, y * s - p + taps)
        if p == 0 and not op.rounds_up:
            constant *= taps
            continue
        here = cast(k, k.index(end - begin), wide)
        counted = here if counted is None else apply(k, "mul", counted, here)
    divisor = number(k, float(constant), wide)
    divisor = divisor if counted is None else apply(k, "mul", counted, divisor)
    return cast(k, apply(k, "div", total, divisor), dtype)


@computes(spatial.AdaptiveAvgPoolOp)
def adaptive_avg_pool(k: KernelBuilder, op: Any, result: int, place: Place) -> Tile:
    """The mean of a part of each dimension, whose first place and end depend on its number."""
    dtype, wide = types.dtype(op.result), work_dtype(types.dtype(op.result))
    count, shape = len(op.sizes.data), types.shape(op.input)
    if any(not isinstance(n, int) for n in (*op.sizes.data, *shape[-count:])):
        raise NotLowered("adaptive pooling has a rule for extents that are known")
    begins, ends, most = [], [], []
    for y, parts, extent in zip(place[-count:], op.sizes.data, shape[-count:], strict=True):
        begins.append(floordiv(y * extent, parts))
        ends.append(floordiv((y + 1) * extent + parts - 1, parts))
        most.append(extent if parts == 1 else min(extent, -(-extent // parts) + 1))

    def element(axis: Axis) -> Tile:
        taps = unflattened(k.axes, axis.symbol, most)
        places = [begin + tap for begin, tap in zip(begins, taps, strict=True)]
        conditions = [
            None if parts == 1 else compare(k, "lt", k.index(at), k.index(end))
            for at, end, parts in zip(places, ends, op.sizes.data, strict=True)
        ]
        return cast(k, read_inside(k, op.input, (*place[:-count], *places), k.every(conditions), 0), wide)

    total = reduced(k, "add", prod(most), place, element)
    size: Extent = 1
    for begin, end in zip(begins, ends, strict=True):
        size = size * (end - begin)
    divisor = number(k, float(size), wide) if isinstance(size, int) else cast(k, k.index(size), wide)
    return cast(k, apply(k, "div", total, divisor), dtype)


@computes(spatial.PadOp)
def pad(k: KernelBuilder, op: Any, result: int, place: Place) -> Tile:
    shape = types.shape(op.input)
    places = [at - low for at, low in zip(place, op.low.data, strict=True)]
    if op.mode.data == "constant":
        conditions = [
            None if (low, high) == (0, 0) else inside(k, at, extent)
            for at, extent, low, high in zip(places, shape, op.low.data, op.high.data, strict=True)
        ]
        return read_inside(k, op.input, tuple(places), k.every(conditions), op.value.value)
    for dim, (at, extent) in enumerate(zip(places, shape, strict=True)):
        if (op.low.data[dim], op.high.data[dim]) == (0, 0):
            continue
        if op.mode.data == "reflect":
            away = sym_max(at, -at)
            places[dim] = sym_min(away, 2 * (extent - 1) - away)
        else:
            places[dim] = sym_max(0, sym_min(at, extent - 1))
    return k.value(op.input, tuple(places))
