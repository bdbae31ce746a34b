"""``tile.dot`` of a few rows: lanes along the sum, which read both factors as they are stored."""

from __future__ import annotations

from collections.abc import Sequence

from xdsl.ir import SSAValue

from forgec.backends.cpu.emitter import Emitter
from forgec.backends.cpu.llvm_types import is_float, lanes, size_bytes, vector
from forgec.backends.cpu.nests import stored
from forgec.backends.cpu.places import Place
from forgec.backends.cpu.tiles import VECTOR_BYTES, At, Buffer, Kernel, Tile, lane_count, lanes_below

ROWS = 8
"""So many rows at most are computed along the sum."""
REGISTERS = {64: 24, 32: 12}
"""Registers for accumulators, by their size in bytes: a quarter is left for what is multiplied."""
STEPS = 8
"""Vectors along a sum that are written out at once, at most: rows of ``rhs`` are read one after the other."""
PRODUCTS = 64
"""Multiply-adds that are written out at once, about."""


def dot_along_sum(k: Kernel, lhs: Tile, rhs: Tile, accumulator: Tile, buffer: Buffer, *, vector_bytes: int) -> None:
    """``lhs`` [rows, sum] times ``rhs`` [columns, sum], whose rows lie without gaps, into ``buffer`` [rows, columns].

    Several columns are summed side by side, and in the end the lanes of all sums are added together in a tree, which
    leaves one vector of results.
    """
    rows, columns = accumulator.shape
    total = lhs.shape[1]
    count = lane_count(total, size_bytes(accumulator.element))
    registers = max(1, count * size_bytes(accumulator.element) // vector_bytes)
    whole = total // count * count
    unrolled = next(n for n in range(STEPS, 0, -1) if whole // count % n == 0)
    at_once = max(1, min(REGISTERS[vector_bytes] // registers, PRODUCTS // unrolled) // rows)
    size = min(columns, VECTOR_BYTES // size_bytes(accumulator.element), at_once)
    size = 1 << (size.bit_length() - 1)
    if columns > size:
        lhs = stored(k, lhs)
    k.begin_nest()
    kind = accumulator.element if count == 1 else vector(accumulator.element, count)

    def columns_from(first: Place, width: int) -> None:
        def read(side: Tile, row: Place, place: Place, active: SSAValue | None = None) -> SSAValue:
            value = k.read(side, At((row, place)) if count == 1 else At((row, place), 1, count, active))
            return value if active is None else k.e.select(active, value, 0)

        def steps(places: Sequence[Place], acc: list[SSAValue], active: SSAValue | None = None) -> list[SSAValue]:
            """Row after row of ``rhs``: memory is read in the order in which it lies."""
            found = list(acc)
            for c in range(width):
                for place in places:
                    right = read(rhs, k.add(first, c), place, active)
                    for r in range(rows):
                        n = r * width + c
                        found[n] = multiply_add(k.e, read(lhs, r, place, active), right, found[n])
            return found

        def several(place: Place, acc: list[SSAValue]) -> Sequence[SSAValue]:
            return steps([k.add(place, number * count) for number in range(unrolled)], acc)

        sums = k.loop(0, whole, count * unrolled, several, [k.e.const(kind, 0)] * (rows * width))
        if whole < total:
            sums = list(k.nested(lambda: steps([whole], sums, lanes_below(k, total - whole, count))))
        for r in range(rows):
            cell = At((r, first)) if width == 1 else At((r, first), 1, width)
            value = sums_of_lanes(k.e, sums[r * width : (r + 1) * width])
            buffer.write(k, k.e.combine("add", k.read(accumulator, cell), value), cell)

    done = columns // size * size
    k.loop(0, done, size, lambda first, _: columns_from(first, size) or ())
    while done < columns:
        size = 1 << ((columns - done).bit_length() - 1)
        start, width = done, size
        k.nested(lambda start=start, width=width: columns_from(start, width) or ())
        done += size


def sums_of_lanes(e: Emitter, values: Sequence[SSAValue]) -> SSAValue:
    """The sum of the lanes of each of some vectors, as many as a power of two, in one vector; a number for one."""
    count = lanes(values[0].type) or 1
    if len(values) == 1:
        return e.reduce("add", values[0])
    while count > len(values):
        count //= 2
        values = [e.combine("add", e.slice(value, 0, count), e.slice(value, count, count)) for value in values]
    if count < len(values):
        half = len(values) // 2
        return e.concat(sums_of_lanes(e, values[:half]), sums_of_lanes(e, values[half:]))
    block = count
    while block > 1:
        half, pairs = block // 2, len(values) // 2
        first = [lane if lane % block < half else count + lane - half for lane in range(count)]
        second = [lane + half if lane % block < half else count + lane for lane in range(count)]
        values = [
            e.combine("add", e.shuffle(a, first, b), e.shuffle(a, second, b))
            for a, b in zip(values[:pairs], values[pairs:], strict=True)
        ]
        block = half
    return values[0]


def multiply_add(e: Emitter, a: SSAValue, b: SSAValue, acc: SSAValue) -> SSAValue:
    return e.fma(a, b, acc) if is_float(acc.type) else e.add(acc, e.mul(a, b))
