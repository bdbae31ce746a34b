"""Sums of products with numbers of which many have a scale and an offset in common: quantised weights in groups.

``Σ x · (q · scale + offset)`` is ``scale · Σ x · q + offset · Σ x`` where scale and offset are those of all terms. So
the scale is applied once for each group of steps, not to each number. Whether steps have them in common is seen as they
are written out: their scales are the same value then.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from xdsl.ir import SSAValue

from forgec.backends.cpu.places import Place
from forgec.backends.cpu.tiles import At, Kernel, Tile

STEPS = 32
"""Steps that are written out at once for one row; of more rows fewer."""


def scaled_sum(
    k: Kernel,
    lhs: Tile,
    parts: Sequence[Tile],
    rows: Sequence[Place],
    columns: Sequence[At],
    total: int,
    lanes: int,
    first: list[SSAValue],
) -> list[SSAValue]:
    """The accumulators [row][column] after ``first + Σ lhs[row, k] · (numbers · scales + offsets)[k, column]``.

    ``parts`` are numbers, scales and offsets, ``columns`` where the vectors of the first step lie, ``lanes`` how many
    elements of a row of ``lhs`` are read at once, of which ``total`` is a multiple.
    """
    e = k.e
    numbers, scales, offsets = parts
    steps = lanes * (2 if len(rows) == 1 and total % (2 * lanes) == 0 and 2 * lanes <= STEPS else 1)

    def splat(value: SSAValue, like: SSAValue) -> SSAValue:
        return value if value.type == like.type else k.spread(value, columns[0].lanes)

    def several(place: Place, acc: list[SSAValue]) -> Sequence[SSAValue]:
        products: dict[tuple[int, SSAValue], list[SSAValue]] = {}
        shared: dict[tuple[int, SSAValue], list[int]] = {}
        for number in range(steps):
            here = k.add(place, number)
            left = [splat(k.read(lhs, At((row, here))), acc[0]) for row in rows]
            for c, column in enumerate(columns):
                at = replace(column, places=(here, column.places[1]))
                value = k.read(numbers, at)
                shared.setdefault((c, k.read(offsets, at)), []).append(number)
                key = (c, k.read(scales, at))
                if key in products:
                    products[key] = [e.fma(x, value, sum_) for x, sum_ in zip(left, products[key], strict=True)]
                else:
                    products[key] = [e.fmul(x, value) for x in left]
        found = list(acc)
        for (c, scale), sums in products.items():
            for r, sum_ in enumerate(sums):
                found[r * len(columns) + c] = e.fma(sum_, scale, found[r * len(columns) + c])
        for (c, offset), chosen in shared.items():
            for r, row in enumerate(rows):
                sum_ = splat(_row_sum(k, lhs, row, place, chosen, steps, lanes), acc[0])
                found[r * len(columns) + c] = e.fma(sum_, offset, found[r * len(columns) + c])
        return found

    return k.loop(0, total, steps, several, first)


def _row_sum(k: Kernel, lhs: Tile, row: Place, place: Place, chosen: Sequence[int], steps: int, lanes: int) -> SSAValue:
    """The sum of a row of ``lhs`` over chosen steps from a place on."""

    def whole() -> SSAValue:
        parts = [k.read(lhs, At((row, k.add(place, start)), 1, lanes)) for start in range(0, steps, lanes)]
        while len(parts) > 1:
            parts = [k.e.fadd(a, b) for a, b in zip(parts[::2], parts[1::2], strict=True)]
        return k.e.reduce("add", parts[0])

    def each() -> SSAValue:
        values = [k.read(lhs, At((row, k.add(place, number)))) for number in chosen]
        while len(values) > 1:
            rest = values[len(values) // 2 * 2 :]
            values = [*(k.e.fadd(a, b) for a, b in zip(values[::2], values[1::2], strict=False)), *rest]
        return values[0]

    make = whole if len(chosen) == steps and lanes > 1 and lhs.is_contiguous(1) else each
    return k.once(("sum of a row", lhs, row, place, tuple(chosen)), make)
