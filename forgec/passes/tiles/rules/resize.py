"""Resampling of images: along each dimension a few elements around a place that is computed in float32, as torch's
kernels compute it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from xdsl.dialects import math

from forgec.ir import types
from forgec.ir.ops import spatial
from forgec.passes.tiles.arithmetic import binary as apply
from forgec.passes.tiles.arithmetic import cast, made, number, work_dtype
from forgec.passes.tiles.axes import Place
from forgec.passes.tiles.kernel_builder import KernelBuilder, NotLowered, Tile
from forgec.passes.tiles.rule import computes
from forgec.runtime.symbolic import Extent, floordiv

Tap = tuple[Extent, Tile | None]
"""A place in the input and its weight; None for a weight of 1."""


@computes(spatial.ResizeOp)
def resize(k: KernelBuilder, op: Any, result: int, place: Place) -> Tile:
    """``Σ weight · input[tap]``, one dimension in the other."""
    dtype = types.dtype(op.result)
    if dtype not in types.FLOATS and not op.mode.data.startswith("nearest"):
        raise NotLowered("numbers between integers have no rule")
    wide = work_dtype(dtype)
    shape, count = types.shape(op.input), len(op.sizes.data)
    taps = [_TAPS[op.mode.data](k, op, dim, place[2 + dim], shape[2 + dim], wide) for dim in range(count)]

    def along(dim: int, at: tuple[Extent, ...]) -> Tile:
        if dim == count:
            return k.value(op.input, (*place[:2], *at))
        total: Tile | None = None
        for where, weight in taps[dim]:
            part = along(dim + 1, (*at, where))
            if weight is None:
                return part
            part = apply(k, "mul", cast(k, part, wide), weight)
            total = part if total is None else apply(k, "add", *k.aligned(total, part))
        assert total is not None, "every mode has taps"
        return total

    return cast(k, along(0, ()), dtype)


def _ratio(k: KernelBuilder, op: Any, dim: int, extent: Extent, dtype: str) -> Tile:
    """How far apart neighbours of the result lie in the input."""
    size = op.sizes.data[dim]
    if op.align_corners is not None:
        if size == 1:
            return number(k, 0.0, dtype)
        return _quotient(k, extent - 1, size - 1, dtype)
    if op.scales is not None and op.scales.values[dim] is not None:
        return number(k, 1.0 / float(op.scales.values[dim]), dtype)
    return _quotient(k, extent, size, dtype)


def _quotient(k: KernelBuilder, above: Extent, below: Extent, dtype: str) -> Tile:
    def part(extent: Extent) -> Tile:
        return number(k, float(extent), dtype) if isinstance(extent, int) else cast(k, k.index(extent), dtype)

    return apply(k, "div", part(above), part(below))


def _nearest(k: KernelBuilder, op: Any, dim: int, at: Extent, extent: Extent, dtype: str) -> list[Tap]:
    size = op.sizes.data[dim]
    if size == extent:
        return [(at, None)]
    exact = op.mode.data == "nearest-exact"
    if op.scales is None and isinstance(size, int) and isinstance(extent, int) and _is_multiple(size, extent, exact):
        return [(floordiv(at, size // extent), None)]
    here = cast(k, k.index(at), "f32")
    if exact:
        here = apply(k, "add", here, number(k, 0.5, "f32"))
    spot = made(k, math.FloorOp, apply(k, "mul", here, _ratio(k, op, dim, extent, "f32")))
    return [(_bounded(k, cast(k, spot, "i64"), extent), None)]


def _is_multiple(size: int, extent: int, exact: bool) -> bool:
    """True if every element is simply repeated, in the arithmetic of float32 too."""
    import numpy

    if extent == 0 or size % extent:
        return False
    places = numpy.arange(size, dtype=numpy.float32) + numpy.float32(0.5 if exact else 0)
    found = numpy.floor(places * (numpy.float32(extent) / numpy.float32(size)))
    return bool((found == numpy.arange(size) // (size // extent)).all())


def _bounded(k: KernelBuilder, at: Tile, extent: Extent) -> Extent:
    """A place that is computed, made to lie in ``[0, extent)``."""
    last = cast(k, k.index(extent - 1), "i64")
    least = apply(k, "min", *k.aligned(at, last))
    return k.number(cast(k, apply(k, "max", *k.aligned(least, number(k, 0, "i64"))), "index"))


def _spot(k: KernelBuilder, op: Any, dim: int, at: Extent, extent: Extent, dtype: str) -> Tile:
    """Where a place of the result lies in the input, as a float."""
    here = cast(k, k.index(at), dtype)
    ratio = _ratio(k, op, dim, extent, dtype)
    if op.align_corners is not None:
        return apply(k, "mul", here, ratio)
    half = number(k, 0.5, dtype)
    return apply(k, "sub", apply(k, "mul", apply(k, "add", here, half), ratio), half)


def _linear(k: KernelBuilder, op: Any, dim: int, at: Extent, extent: Extent, dtype: str) -> list[Tap]:
    if op.sizes.data[dim] == extent:
        return [(at, None)]
    spot = apply(k, "max", _spot(k, op, dim, at, extent, dtype), number(k, 0.0, dtype))
    before = cast(k, spot, "i64")
    share = apply(k, "sub", spot, cast(k, before, dtype))
    share = apply(k, "min", share, number(k, 1.0, dtype))
    after = apply(k, "add", before, number(k, 1, "i64"))
    return [
        (_bounded(k, before, extent), apply(k, "sub", number(k, 1.0, dtype), share)),
        (_bounded(k, after, extent), share),
    ]


def _cubic(k: KernelBuilder, op: Any, dim: int, at: Extent, extent: Extent, dtype: str) -> list[Tap]:
    spot = _spot(k, op, dim, at, extent, dtype)
    whole = made(k, math.FloorOp, spot)
    weights, before = cubic_weights(k, apply(k, "sub", spot, whole), dtype), cast(k, whole, "i64")
    return [
        (_bounded(k, apply(k, "add", before, number(k, step - 1, "i64")), extent), weight)
        for step, weight in enumerate(weights)
    ]


def cubic_weights(k: KernelBuilder, share: Tile, dtype: str) -> list[Tile]:
    """The weights of the four elements around a place that lies ``share`` behind the second (Keys 1981 with
    a = -0.75).
    """

    def c(value: float) -> Tile:
        return number(k, value, dtype)

    def near(x: Tile) -> Tile:  # |x| <= 1: ((a + 2) x - (a + 3)) x² + 1
        inner = apply(k, "sub", apply(k, "mul", c(1.25), x), c(2.25))
        return apply(k, "add", apply(k, "mul", apply(k, "mul", inner, x), x), c(1.0))

    def far(x: Tile) -> Tile:  # 1 < |x| < 2: ((a x - 5a) x + 8a) x - 4a
        inner = apply(k, "add", apply(k, "mul", c(-0.75), x), c(3.75))
        inner = apply(k, "sub", apply(k, "mul", inner, x), c(6.0))
        return apply(k, "add", apply(k, "mul", inner, x), c(3.0))

    rest = apply(k, "sub", c(1.0), share)
    return [far(apply(k, "add", share, c(1.0))), near(share), near(rest), far(apply(k, "add", rest, c(1.0)))]


_TAPS: dict[str, Callable[[KernelBuilder, Any, int, Extent, Extent, str], list[Tap]]] = {
    "nearest": _nearest, "nearest-exact": _nearest, "linear": _linear, "cubic": _cubic
}  # fmt: skip
