"""Sampling of images and volumes at places that a grid gives (``torch.nn.functional.grid_sample``)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any

from xdsl.dialects import math

from forgec.ir import types
from forgec.passes.tiles.arithmetic import binary as apply
from forgec.passes.tiles.arithmetic import cast, compare, made, number, select, work_dtype
from forgec.passes.tiles.axes import Place
from forgec.passes.tiles.kernel_builder import KernelBuilder, NotLowered, Tile
from forgec.passes.tiles.operators import settings
from forgec.passes.tiles.rule import computes_operator
from forgec.passes.tiles.rules.resize import cubic_weights
from forgec.runtime.symbolic import Extent

_MODES = ("bilinear", "nearest", "bicubic")
_PADDINGS = ("zeros", "border", "reflection")


@computes_operator(
    "aten::grid_sampler", "aten::grid_sampler_2d", "aten::grid_sampler_3d", "aten::_grid_sampler_2d_cpu_fallback"
)
def grid_sample(k: KernelBuilder, op: Any, place: Place) -> Tile:
    """``input[b, c, y, x]`` at the place ``grid[b, …, (x, y)]``, from -1 to 1: input [B, C, *N], grid [B, *M, len(N)],
    result [B, C, *M].
    """
    given = settings(op, "input grid interpolation_mode padding_mode align_corners")
    image, grid = op.inputs[given["input"].id], op.inputs[given["grid"].id]
    dtype = types.dtype(op.outputs[0])
    if dtype not in types.FLOATS:
        raise NotLowered("numbers between integers have no rule")
    batch, channel, *spots = place
    extents = types.shape(image)[2:]
    sampler = _Sampler(
        k, work_dtype(dtype), _MODES[given["interpolation_mode"]], _PADDINGS[given["padding_mode"]],
        bool(given["align_corners"]), len(extents),
    )  # fmt: skip
    places = [  # the grid names the last dimension first
        sampler.unnormalized(k.value(grid, (batch, *spots, len(extents) - 1 - dim)), extent)
        for dim, extent in enumerate(extents)
    ]
    return cast(k, sampler.at(places, extents, lambda at, where: k.load(image, (batch, channel, *at), where)), dtype)


Read = Callable[[Place, Tile], Tile]
"""The image at a place where a condition holds, else 0."""


class _Sampler:
    """How one call samples; computed in ``dtype``."""

    def __init__(self, k: KernelBuilder, dtype: str, mode: str, padding: str, corners: bool, rank: int) -> None:
        if mode == "bicubic" and rank != 2:
            raise NotLowered(f"bicubic sampling of {rank} dimensions has no rule")
        self.k, self.dtype, self.mode, self.padding, self.corners, self.rank = k, dtype, mode, padding, corners, rank
        self.apply = partial(apply, k)

    def number(self, value: float | Extent) -> Tile:
        if isinstance(value, (int, float)):
            return number(self.k, float(value), self.dtype)
        return cast(self.k, self.k.index(value), self.dtype)

    def unnormalized(self, given: Tile, extent: Extent) -> Tile:
        """A place from -1 to 1 as one in ``[0, extent)``, step by step as torch's two kernels compute it."""
        one = self.apply("add", *self.k.aligned(cast(self.k, given, self.dtype), self.number(1.0)))
        half, all_of_it = self.number(0.5), self.number(extent - 1 if self.corners else extent)
        if self.rank == 2:
            wide = self.apply("mul", *self.k.aligned(one, self.apply("mul", all_of_it, half)))
            return wide if self.corners else self.apply("sub", *self.k.aligned(wide, half))
        if self.corners:
            return self.apply("mul", *self.k.aligned(self.apply("mul", *self.k.aligned(one, half)), all_of_it))
        wide = self.apply("sub", *self.k.aligned(self.apply("mul", *self.k.aligned(one, all_of_it)), self.number(1.0)))
        return self.apply("mul", *self.k.aligned(wide, half))

    def padded(self, at: Tile, extent: Extent) -> Tile:
        """A place outside of the image as the one inside that the padding repeats; NaN as torch's kernels have it: the
        first of an image, the last of a volume.
        """
        if self.padding == "zeros":
            return at
        if self.padding == "reflection":
            at = self._reflected(at, extent)
        zero = self.number(0.0)
        if self.rank == 2:
            at = select(self.k, compare(self.k, "ge", at, zero), at, zero)
        else:
            at = select(self.k, compare(self.k, "lt", at, zero), zero, at)
        last = self.number(extent - 1)
        return select(self.k, compare(self.k, "lt", at, last), at, last)

    def _reflected(self, at: Tile, extent: Extent) -> Tile:
        """Between the centres of the first and the last element, or between their outer edges."""
        low = self.number(0.0 if self.corners else -0.5)
        period = self.number(2 * (extent - 1) if self.corners else 2 * extent)
        if self.corners:  # an image of one element has no period
            period = select(self.k, compare(self.k, "gt", period, self.number(0.0)), period, self.number(1.0))
        away = made(self.k, math.AbsFOp, self.apply("sub", *self.k.aligned(at, low)))
        times = made(self.k, math.FloorOp, self.apply("div", *self.k.aligned(away, period)))
        rest = self.apply("sub", *self.k.aligned(away, self.apply("mul", *self.k.aligned(times, period))))
        back = self.apply("sub", *self.k.aligned(period, rest))
        return self.apply("add", *self.k.aligned(self.apply("min", *self.k.aligned(rest, back)), low))

    def whole(self, at: Tile, extent: Extent) -> tuple[Extent, Tile]:
        """A place that is a whole number, and where it lies in the image."""
        k = self.k
        inside = k.both(
            compare(k, "ge", *k.aligned(at, self.number(0.0))), compare(k, "lt", *k.aligned(at, self.number(extent)))
        )
        safe = select(k, inside, at, self.number(0.0))
        return k.number(cast(k, cast(k, safe, "i64"), "index")), inside

    def at(self, places: list[Tile], extents: tuple[Extent, ...], read: Read) -> Tile:
        """The image at places that are fractions."""
        if self.mode == "bicubic":
            return self._cubic(places, extents, read)
        places = [self.padded(at, extent) for at, extent in zip(places, extents, strict=True)]
        if self.mode == "nearest":
            rounded = [made(self.k, math.RoundEvenOp, at) for at in places]
            return self._read(rounded, extents, read)[0]
        taps = [self._linear(at) for at in places]
        total: Tile | None = None
        for corner in product(*taps):
            element, inside = self._read([at for at, _ in corner], extents, read)
            weight = corner[-1][1]
            for _, other in corner[-2::-1]:
                weight = self.apply("mul", *self.k.aligned(weight, other))
            part = self.apply("mul", *self.k.aligned(element, weight))
            if self.rank == 3:  # torch's kernel of volumes leaves such elements out; that of images adds 0 · weight
                part = select(self.k, inside, part, self.number(0.0))
            total = part if total is None else self.apply("add", *self.k.aligned(total, part))
        assert total is not None, "there is a corner"
        return total

    def _read(self, places: list[Tile], extents: tuple[Extent, ...], read: Read) -> tuple[Tile, Tile]:
        """The image at whole places, and where it has them."""
        found = [self.whole(at, extent) for at, extent in zip(places, extents, strict=True)]
        inside = self.k.every([where for _, where in found])
        assert inside is not None, "an image has dimensions"
        return cast(self.k, read(tuple(at for at, _ in found), inside), self.dtype), inside

    def _linear(self, at: Tile) -> list[tuple[Tile, Tile]]:
        """The elements before and after a place, and their weights."""
        before = made(self.k, math.FloorOp, at)
        share = self.apply("sub", at, before)
        rest = self.apply("sub", *self.k.aligned(self.number(1.0), share))
        return [(before, rest), (self.apply("add", *self.k.aligned(before, self.number(1.0))), share)]

    def _cubic(self, places: list[Tile], extents: tuple[Extent, ...], read: Read) -> Tile:
        """Rows first; each element on its own is one that the padding repeats."""
        taps: list[list[tuple[Tile, Tile]]] = []
        for at, extent in zip(places, extents, strict=True):
            before = made(self.k, math.FloorOp, at)
            weights = cubic_weights(self.k, self.apply("sub", at, before), self.dtype)
            steps = (self.apply("add", *self.k.aligned(before, self.number(float(n - 1)))) for n in range(4))
            taps.append([(self.padded(step, extent), weight) for step, weight in zip(steps, weights, strict=True)])

        def along(dim: int, at: tuple[Tile, ...]) -> Tile:
            if dim == len(taps):
                return self._read(list(at), extents, read)[0]
            total: Tile | None = None
            for where, weight in taps[dim]:
                part = self.apply("mul", *self.k.aligned(along(dim + 1, (*at, where)), weight))
                total = part if total is None else self.apply("add", *self.k.aligned(total, part))
            assert total is not None, "there are four"
            return total

        return along(0, ())
