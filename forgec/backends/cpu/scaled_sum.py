"""Sums of products with numbers of which many have a scale and an offset in common: quantised weights in groups.

``Σ x · (q · scale + offset)`` is ``scale · Σ x · q + offset · Σ x`` where scale and offset are those of all terms. So
the scale is applied once for each group of steps, not to each number. Whether steps have them in common is seen as they
are written out: their scales are the same value then.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from xdsl.ir import SSAValue

from forgec.backends.cpu.llvm_types import i8, size_bytes
from forgec.backends.cpu.memory_access import Gathered, read_apart
from forgec.backends.cpu.nests import stored
from forgec.backends.cpu.places import Place
from forgec.backends.cpu.tiles import At, Broadcast, Elementwise, Kernel, MultiplyAdd, Product, Tile, Transpose

STEPS = 32
"""Steps that are written out at once for one row; of more rows fewer."""
CHAINS = 8
"""Sums that multiply-adds in flight need, so that none waits for the one before: four cycles of two of them."""
LINE = 64
"""Bytes that are read from memory at once."""
AHEAD = 4096
"""How many bytes ahead numbers are asked for: what is read while memory answers."""


@dataclass(frozen=True)
class ScaledTerms:
    """``Σ lhs[row, k] · (numbers · scales + offsets)[k, column] = Σ scaled · numbers · scales + Σ lhs · offsets``."""

    lhs: Tile
    scaled: Tile
    numbers: Tile
    scales: Tile
    offsets: Tile

    @classmethod
    def of(cls, k: Kernel, lhs: Tile, rhs: MultiplyAdd, transposed: bool) -> ScaledTerms:
        """The terms of a product. A factor of the scales that varies along the sum alone, such as one for each place
        in a word of packed numbers, multiplies ``lhs`` instead, which is stored so: then more steps have a scale in
        common.
        """
        numbers, scales, offsets = rhs.operands
        scaled, axis = lhs, 1 if transposed else 0
        for factor, rest in _factors(scales):
            if (along := _along(factor, axis)) is not None:
                spread = Broadcast(along, [1], lhs.shape)
                product = Elementwise(lhs.element, lhs.shape, lambda e, values: e.fmul(*values), [lhs, spread])
                scaled, scales = stored(k, product), rest
                break
        parts = (numbers, scales, offsets)
        return cls(lhs, scaled, *(Transpose(part, (1, 0)) if transposed else part for part in parts))


def _factors(tile: Tile) -> list[tuple[Tile, Tile]]:
    """The factors of a product, each with the other."""
    if not isinstance(tile, Product):
        return []
    a, b = tile.operands
    return [(a, b), (b, a)]


def _along(tile: Tile, axis: int) -> Tile | None:
    """A matrix that varies along one axis alone, as a vector."""
    match tile:
        case Broadcast() if list(tile.along) == [axis] and tile.operand.shape == (tile.shape[axis],):
            return tile.operand
        case Elementwise() if tile.operands:
            parts = [_along(operand, axis) for operand in tile.operands]
            known = [part for part in parts if part is not None]
            return Elementwise(tile.element, known[0].shape, tile.compute, known) if len(known) == len(parts) else None
    return None


def scaled_sum(
    k: Kernel,
    terms: ScaledTerms,
    rows: Sequence[Place],
    columns: Sequence[At],
    total: int,
    lanes: int,
    first: list[SSAValue],
) -> list[SSAValue]:
    """The accumulators [row][column] after ``first`` and all terms of a product.

    ``columns`` are where the vectors of the first step lie, ``lanes`` how many
    elements of a row of ``lhs`` are read at once, of which ``total`` is a multiple.
    """
    e, lhs = k.e, terms.lhs
    steps = lanes * (2 if len(rows) == 1 and total % (2 * lanes) == 0 and 2 * lanes <= STEPS else 1)

    def splat(value: SSAValue, like: SSAValue) -> SSAValue:
        return value if value.type == like.type else k.spread(value, columns[0].lanes)

    source = _gathered(terms.numbers)
    lefts = read_apart(k, terms.scaled, len(columns))

    def ahead(place: Place) -> None:
        """Ask for numbers that are read a few steps later."""
        if source is None:
            return
        tile, turned = source
        addresses = {
            tile.address(k, at[::-1] if turned else at)
            for number in range(steps)
            for at in [(k.add(place, number), column.places[1]) for column in columns]
        }
        first = (place, columns[0].places[1])
        start = k.address(tile.address(k, first[::-1] if turned else first), AHEAD, i8)
        for line in range(0, len(addresses) * columns[0].lanes * size_bytes(tile.element), LINE):
            e.prefetch(k.address(start, line, i8), 1)

    chains = max(1, CHAINS // (len(rows) * len(columns)))

    def several(place: Place, acc: list[SSAValue]) -> Sequence[SSAValue]:
        products: dict[tuple[int, SSAValue], list[list[SSAValue]]] = {}
        shared: dict[tuple[int, SSAValue], list[int]] = {}
        ahead(place)
        for number in range(steps):
            here = k.add(place, number)
            for c, column in enumerate(columns):
                left = [splat(k.read(lefts[c], At((row, here))), acc[0]) for row in rows]
                at = replace(column, places=(here, column.places[1]))
                value = k.read(terms.numbers, at)
                shared.setdefault((c, k.read(terms.offsets, at)), []).append(number)
                sums = products.setdefault((c, k.read(terms.scales, at)), [])
                if len(sums) < chains:
                    sums.append([e.fmul(x, value) for x in left])
                else:  # the sum that was added to the longest ago
                    sums.append([e.fma(x, value, sum_) for x, sum_ in zip(left, sums.pop(0), strict=True)])
        found = list(acc)
        for (c, scale), sums in products.items():
            while len(sums) > 1:
                sums.append([e.fadd(a, b) for a, b in zip(sums.pop(0), sums.pop(0), strict=True)])
            for r, sum_ in enumerate(sums[0]):
                found[r * len(columns) + c] = e.fma(sum_, scale, found[r * len(columns) + c])
        for (c, offset), chosen in shared.items():
            for r, row in enumerate(rows):
                sum_ = splat(_row_sum(k, lhs, row, place, chosen, steps, lanes), acc[0])
                found[r * len(columns) + c] = e.fma(sum_, offset, found[r * len(columns) + c])
        return found

    return k.loop(0, total, steps, several, first)


def _gathered(tile: Tile, turned: bool = False) -> tuple[Gathered, bool] | None:
    """The elements of memory that a tile is computed of, where it is one gather; and whether it is transposed."""
    if isinstance(tile, Gathered):
        return tile, turned
    if isinstance(tile, Transpose):
        return _gathered(tile.operand, not turned)
    found = [_gathered(part, turned) for part in tile.operands] if isinstance(tile, Elementwise) else []
    return next((each for each in found if each is not None), None)


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
