"""``tile.dot``: a nest of loops around a block of accumulators that stays in registers over the whole sum.

Rows of the result are taken a dozen at a time and columns a few vectors at a time; each step of the sum reads those
vectors of one row of ``rhs`` once for all rows. Operands that cost more than a load to read are in memory, in the
element type of the sum, and rows of ``rhs`` without gaps. For a few rows ``rhs`` is read where it is, with the lanes
along the sum where its elements stand side by side that way. Rows of ``lhs`` that are certain to hold zeros, beyond the
end of a block, are not multiplied.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from xdsl.ir import Attribute, SSAValue

from forgec.backends.cpu.emitter import Emitter
from forgec.backends.cpu.llvm_types import is_float, size_bytes, vector
from forgec.backends.cpu.memory_access import read_apart
from forgec.backends.cpu.nests import loop_nest, stored
from forgec.backends.cpu.places import Place
from forgec.backends.cpu.scaled_sum import ScaledTerms, scaled_sum
from forgec.backends.cpu.tiles import (
    At,
    Buffer,
    Elementwise,
    Kernel,
    MultiplyAdd,
    Stored,
    Tile,
    Transpose,
    lane_count,
    lanes_below,
)

FEW_ROWS = 4
"""So many rows at most are computed along the sum; and the rest of a number of rows that is not known, at a time."""
COLUMNS = 4
"""Columns that are computed at once along the sum."""
REGISTERS = {64: 32, 32: 16}
"""Registers by their size in bytes: AVX-512 has twice as many as AVX2."""
MANY_ROWS = 8
"""Of more rows multiply-adds take all the time, and numbers of ``lhs`` are better repeated once for all columns."""
PAGE = 4096
"""Bytes after which first-level caches (64 sets of 64 bytes) begin again."""
STEPS = 8
"""Steps of a sum that are written out at once where ``rhs`` is computed while it is read, or few rows read it."""
ACCUMULATORS = 8
"""Accumulators that multiply-adds in flight need: four cycles of two of them."""
REGISTERS_ACROSS = 2
"""Registers of a row of the result that are accumulated at once: what one element of ``lhs`` is multiplied with."""


def multiply_add(e: Emitter, a: SSAValue, b: SSAValue, acc: SSAValue) -> SSAValue:
    return e.fma(a, b, acc) if is_float(acc.type) else e.add(acc, e.mul(a, b))


def dot_tile(
    k: Kernel,
    lhs: Tile,
    rhs: Tile,
    accumulator: Tile,
    buffer: Buffer,
    *,
    transposed: bool,
    vector_bytes: int,
) -> None:
    """Compute the product into ``buffer``, which may be where the accumulator is read from, place by place."""
    rows, columns = accumulator.shape
    total = lhs.shape[1]
    lhs, rhs = (_as(side, accumulator.element) for side in (lhs, rhs))
    if rows <= FEW_ROWS and transposed and rhs.is_contiguous(1):
        _along_sum(k, lhs, rhs, accumulator, buffer)
        return
    lanes = lane_count(columns, size_bytes(accumulator.element))
    apart = rows <= FEW_ROWS and total % lanes == 0
    terms = ScaledTerms.of(k, lhs, rhs, transposed) if apart and isinstance(rhs, MultiplyAdd) else None
    if transposed:
        rhs = Transpose(rhs, (1, 0))
    per_vector = max(1, lanes * size_bytes(accumulator.element) // vector_bytes)
    vectors = -(-columns // lanes)
    block = min(vectors, max(1, REGISTERS_ACROSS // per_vector))
    height = (REGISTERS[vector_bytes] - block * per_vector - 1) // (block * per_vector)
    height = min(height, REGISTERS[vector_bytes] // REGISTERS_ACROSS - 2)
    limit = lhs.end(0)
    ends = rows if limit is None else k.max(k.min(rows, limit), 0)
    direct = lhs.before_end(0)
    again = vectors > block and not direct.is_plain
    crowded = rows > height and _crowds(direct)
    strip = k.buffer(lhs.element, (height, total), spread=True) if crowded and vectors <= block else None
    if strip is None and (again or crowded):
        lhs = stored(k, direct, spread=True, rows=None if limit is None else ends)
    else:
        lhs = direct
    if not rhs.is_contiguous(1) or (rows > height and not rhs.is_plain):
        rhs = stored(k, rhs)
    steps = STEPS if rhs.is_plain else 2 * STEPS
    steps = max(1, steps * FEW_ROWS // max(rows, FEW_ROWS)) if not rhs.is_plain or rows <= FEW_ROWS else 1
    k.begin_nest()

    def tile_of(row: Place, height: int, column: Place, width: int, last: Place | None = None) -> None:
        """One block of the result: ``height`` rows of ``width`` vectors; those after ``last`` are the same again."""
        places = [k.add(row, r) if last is None or r == 0 else k.min(k.add(row, r), last) for r in range(height)]

        def at(place: Place, vector_: int) -> At:
            first = k.add(column, vector_ * lanes)
            if lanes == 1:
                return At((place, first))
            active = None if columns % lanes == 0 else lanes_below(k, k.sub(columns, first), lanes)
            return At((place, first), 1, lanes, active)

        cells = [at(place, c) for place in places for c in range(width)]
        left_at = places
        if strip is not None:
            _copy_rows(k, lhs, places, strip)
            left_at = list(range(height))
        source = lhs if strip is None else Stored(strip)
        sources = [source] * width if height > MANY_ROWS else read_apart(k, source, width)

        def step(place: Place, acc: list[SSAValue]) -> Sequence[SSAValue]:
            right = [k.read(rhs, at(place, c)) for c in range(width)]
            found: list[SSAValue] = []
            for r in range(height):
                for c in range(width):
                    left = k.read(sources[c], At((left_at[r], place)))
                    left = left if lanes == 1 else k.spread(left, lanes)
                    found.append(multiply_add(k.e, left, right[c], acc[r * width + c]))
            return found

        first = [k.read(accumulator, cell) for cell in cells]
        if terms is not None:
            sums = scaled_sum(k, terms, places, [at(0, c) for c in range(width)], total, lanes, first)
        else:
            sums = _summed(k, total, steps, step, first)
        for value, cell in zip(sums, cells, strict=True):
            buffer.write(k, value, cell)

    def rows_of(column: Place, width: int) -> None:
        if isinstance(ends, int):
            even = _even(ends, height)
            _in_blocks(k, ends, even, lambda row, size: tile_of(row, size, column, width))
            return
        whole = k.mul(k.floordiv(ends, height), height)
        k.loop(0, whole, height, lambda row, _: tile_of(row, height, column, width) or ())
        few, last = min(FEW_ROWS, height), k.sub(ends, 1)
        k.loop(whole, ends, few, lambda row, _: tile_of(row, few, column, width, last) or ())

    _in_blocks(k, vectors, block, lambda column, width: rows_of(k.mul(column, lanes), width))
    if limit is not None and not _is_in(accumulator, buffer):
        shape = (rows, columns)
        loop_nest(
            k, shape, accumulator.width, lambda at: buffer.write(k, k.read(accumulator, at), at),
            [(ends, rows), (0, columns)],
        )  # fmt: skip


def _summed(
    k: Kernel,
    total: int,
    steps: int,
    step: Callable[[Place, list[SSAValue]], Sequence[SSAValue]],
    first: list[SSAValue],
) -> list[SSAValue]:
    """The accumulators after all steps of a sum, of which several are written out at once: what they read in common,
    such as the byte of two numbers or the scale of a group, is read once. Few accumulators take turns with others that
    begin at 0, so that one multiply-add need not wait for the last.
    """
    whole = total // steps * steps
    turns = max(1, min(steps, ACCUMULATORS // len(first))) if whole > steps else 1
    count = len(first)
    zeros = [k.e.const(value.type, 0) for value in first]

    def several(place: Place, acc: list[SSAValue]) -> Sequence[SSAValue]:
        for number in range(steps):
            turn = number % turns * count
            acc[turn : turn + count] = step(k.add(place, number), acc[turn : turn + count])
        return acc

    sums = k.loop(0, whole, steps, several, [*first, *(zeros * (turns - 1))])
    while turns > 1:
        half = (turns + 1) // 2 * count
        sums = [
            *(k.e.combine("add", a, b) for a, b in zip(sums[: len(sums) - half], sums[half:], strict=True)),
            *sums[len(sums) - half : half],
        ]
        turns = (turns + 1) // 2
    return k.loop(whole, total, 1, step, sums)


def _crowds(tile: Tile) -> bool:
    """True if rows of a tile in memory begin in few sets of a cache, so that a block of them pushes itself out."""
    apart = tile.apart(0)
    return apart is not None and apart != 0 and apart % PAGE == 0


def _copy_rows(k: Kernel, tile: Tile, rows: Sequence[Place], buffer: Buffer) -> None:
    """Some rows of a tile, side by side in the first-level cache."""
    total = tile.shape[1]
    lanes = lane_count(total, tile.width)

    def chunk(place: Place, active: SSAValue | None = None) -> Sequence[SSAValue]:
        axis = None if lanes == 1 else 1
        for number, row in enumerate(rows):
            value = k.read(tile, At((row, place), axis, lanes, active))
            buffer.write(k, value, At((number, place), axis, lanes))
        return ()

    whole = total // lanes * lanes
    k.loop(0, whole, lanes, lambda place, _: chunk(place))
    if whole < total:
        k.nested(lambda: chunk(whole, lanes_below(k, total - whole, lanes)))


def _even(count: int, most: int) -> int:
    """How many to take at a time, at most so many, that the last time there are about as many."""
    times = -(-count // most)
    return -(-count // times) if times else most


def _in_blocks(k: Kernel, extent: int, size: int, body: Callable[[Place, int], None]) -> None:
    whole = extent // size * size
    k.loop(0, whole, size, lambda place, _: body(place, size) or ())
    if whole < extent:
        k.nested(lambda: body(whole, extent - whole) or ())


def _is_in(tile: Tile, buffer: Buffer) -> bool:
    return isinstance(tile, Stored) and tile.buffer is buffer


def _as(side: Tile, element: Attribute) -> Tile:
    if side.element == element:
        return side
    return Elementwise(element, side.shape, lambda e, values: e.convert(values[0], element), [side])


def _along_sum(k: Kernel, lhs: Tile, rhs: Tile, accumulator: Tile, buffer: Buffer) -> None:
    """Few rows, ``rhs`` as [n, k]: lanes along the sum, which read both sides as they are stored."""
    rows, columns = accumulator.shape
    total = lhs.shape[1]
    if columns > COLUMNS:
        lhs = stored(k, lhs)
    k.begin_nest()
    lanes = lane_count(total, size_bytes(accumulator.element))
    kind = accumulator.element if lanes == 1 else vector(accumulator.element, lanes)
    whole = total // lanes * lanes

    def columns_from(first: Place, width: int) -> None:
        def step(place: Place, acc: list[SSAValue], active: SSAValue | None = None) -> list[SSAValue]:
            def read(side: Tile, row: Place) -> SSAValue:
                value = k.read(side, At((row, place)) if lanes == 1 else At((row, place), 1, lanes, active))
                return value if active is None else k.e.select(active, value, 0)

            left = [read(lhs, r) for r in range(rows)]
            right = [read(rhs, k.add(first, c)) for c in range(width)]
            return [multiply_add(k.e, left[r], right[c], acc[r * width + c]) for r in range(rows) for c in range(width)]

        sums = k.loop(0, whole, lanes, step, [k.e.const(kind, 0)] * (rows * width))
        if whole < total:
            sums = list(k.nested(lambda: step(whole, sums, lanes_below(k, total - whole, lanes))))
        for r in range(rows):
            for c in range(width):
                cell = At((r, k.add(first, c)))
                value = k.e.reduce("add", sums[r * width + c])
                value = k.e.combine("add", k.read(accumulator, cell), value)
                buffer.write(k, value, cell)

    size = min(COLUMNS, columns)
    k.loop(0, columns // size * size, size, lambda first, _: columns_from(first, size) or ())
    if rest := columns % size:
        k.nested(lambda: columns_from(columns - rest, rest) or ())
