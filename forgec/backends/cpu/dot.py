"""``tile.dot``: a nest of loops around a block of accumulators that stays in registers over the whole sum.

Rows of the result are taken a dozen at a time and columns a few vectors at a time; each step of the sum reads those
vectors of one row of ``rhs`` once for all rows. Operands that cost more than a load to read are in memory, in the
element type of the sum, and rows of ``rhs`` without gaps. For a few rows ``rhs`` is read where it is, with the lanes
along the sum where its elements stand side by side that way. Rows of ``lhs`` that are certain to hold zeros, beyond the
end of a block, are not multiplied.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from xdsl.ir import SSAValue

from forgec.backends.cpu.dot_along_sum import PRODUCTS, dot_along_sum, multiply_add
from forgec.backends.cpu.dot_along_sum import ROWS as ROWS_ALONG_SUM
from forgec.backends.cpu.llvm_types import i8, size_bytes
from forgec.backends.cpu.memory_access import read_apart
from forgec.backends.cpu.nests import loop_nest, stored, write
from forgec.backends.cpu.places import Place
from forgec.backends.cpu.scaled_sum import ScaledTerms, scaled_sum
from forgec.backends.cpu.short_products import Groups, converted
from forgec.backends.cpu.tiles import (
    At,
    Buffer,
    Kernel,
    MultiplyAdd,
    Stored,
    Tile,
    Transpose,
    lane_count,
    lanes_below,
)
from forgec.ir.tile.cache_sets import crowds

FEW_ROWS = 4
"""Of so many rows memory is as fast as their products are: nothing is read ahead for them."""
RESTS = (8, 4, 1)
"""How many rows are taken at a time of what is left of a number of rows that is not known."""
REGISTERS = {64: 32, 32: 16, 16: 32}
"""Registers by their size in bytes: AVX-512 and NEON have twice as many as AVX2."""
LINE = 64
"""Bytes that are read from memory at once."""
SLAB = 8 << 10
"""Bytes of rows of ``rhs`` that few rows of the result (no more than have their lanes along a sum) multiply with before
they go on: each comes from memory once, and its neighbours with it.
"""
MANY_ROWS = 8
"""Of more rows multiply-adds take all the time, and numbers of ``lhs`` are better repeated once for all columns."""
STEPS = 8
"""Steps of a sum that are written out at once where ``rhs`` is computed while it is read, or few rows read it."""
ACCUMULATORS = 8
"""Accumulators that multiply-adds in flight need: four cycles of two of them."""
REGISTERS_ACROSS = 2
"""Registers of a row of the result that are accumulated at once: what one element of ``lhs`` is multiplied with."""


def dot_tile(
    k: Kernel,
    lhs: Tile,
    rhs: Tile,
    accumulator: Tile,
    buffer: Buffer,
    *,
    transposed: bool,
    vector_bytes: int,
    span: Sequence[Place] = (),
    groups: Groups | None = None,
    needed: Place | None = None,
    band: str | None = None,
) -> None:
    """Compute the product into ``buffer``, which may be where the accumulator is read from, place by place. ``span``
    are the first row that is added to and the one after the last, or the limits of a ``band`` (``tile.dot``); rows
    from ``needed`` on may hold anything. With ``groups`` several products are added at once.
    """
    rows, columns = accumulator.shape
    source_of_rhs, source_is_turned = rhs, transposed
    low, high = (span[0], span[1]) if band is not None else (0, 0)
    span = () if band is not None else span
    if groups is not None and band == "sum":  # steps are groups of places then
        rhs, band = Between(rhs, 1 if transposed else 0, low, k.add(high, rows - 1)), None
    if groups is None:
        lhs, rhs = (converted(side, accumulator.element) for side in (lhs, rhs))
    else:
        lhs, rhs = groups.left(lhs), groups.right(Transpose(rhs, (1, 0)) if transposed else rhs)
        transposed = False
    total = lhs.shape[1]
    if rows <= ROWS_ALONG_SUM and transposed and rhs.is_contiguous(1) and not span:
        rhs = rhs if band != "sum" else Between(rhs, 1, low, k.add(high, rows - 1))
        dot_along_sum(k, lhs, rhs, accumulator, buffer, vector_bytes=vector_bytes)
        return
    lanes = lane_count(columns, size_bytes(accumulator.element))
    apart = rows <= FEW_ROWS and total % lanes == 0 and band != "sum"
    terms = ScaledTerms.of(k, lhs, rhs, transposed) if apart and isinstance(rhs, MultiplyAdd) else None
    if transposed:
        rhs = Transpose(rhs, (1, 0))
    per_vector = max(1, lanes * size_bytes(accumulator.element) // vector_bytes)
    vectors = -(-columns // lanes)
    block = min(vectors, max(1, REGISTERS_ACROSS // per_vector))
    few = rows <= ROWS_ALONG_SUM and vectors > block and rhs.is_contiguous(1) and lhs.end(0) is None
    few = few and not isinstance(rhs, MultiplyAdd) and not span and needed is None
    if few:  # whole rows of rhs, as they lie in memory
        block = _even(vectors, max(block, (REGISTERS[vector_bytes] - 2) // per_vector // 2))
    height = (REGISTERS[vector_bytes] - block * per_vector - 1) // (block * per_vector)
    height = min(height, REGISTERS[vector_bytes] // REGISTERS_ACROSS - 2, rows)
    slab = _slab(total, SLAB // (columns * size_bytes(accumulator.element))) if few and rows > height else total
    limit = lhs.end(0)
    wanted = rows if needed is None else needed
    ends = wanted if limit is None else k.max(k.min(wanted, limit), 0)
    begin: Place = 0
    if span:
        begin, ends = k.max(span[0], 0), k.min(span[1], ends)
    direct = lhs.before_end(0)
    again = (vectors > block or groups is not None) and not direct.is_plain
    crowded = rows > height and crowds(direct.apart(0), height)
    strip = k.buffer(lhs.element, (height, total), spread=True) if crowded and vectors <= block else None
    if strip is None and (again or crowded):
        is_part = limit is not None or needed is not None or bool(span)
        lhs = stored(k, direct, spread=True, ends=(ends if is_part else None, None))
    else:
        lhs = direct
    summed_to: Place = total
    if (
        rows > FEW_ROWS and not few and terms is None and groups is None
    ):  # what is after the end of rhs is not copied, but left out
        before = rhs.before_end(0)
        tail = rhs.end(0)
        if tail is not None and before.is_plain and before.is_contiguous(1):
            rhs, summed_to = before, k.min(k.max(tail, 0), total)
    if not rhs.is_contiguous(1) or (rows > height and not rhs.is_plain):
        rhs = stored(k, rhs)
    steps = STEPS if rhs.is_plain else 2 * STEPS
    steps = max(1, steps * FEW_ROWS // max(rows, FEW_ROWS)) if not rhs.is_plain or rows <= FEW_ROWS else 1
    if few:
        steps = max(1, min(steps, PRODUCTS // (min(rows, height) * block)))
    banded = band == "sum" and steps == 1 and slab == total and terms is None
    if band == "sum" and not banded:
        rhs = Between(rhs, 0, low, k.add(high, rows - 1))
    if slab < total:
        if not _is_in(accumulator, buffer):
            write(k, accumulator, buffer, (needed, None))
        accumulator = Stored(buffer)
    excess = None if groups is None else groups.excess(k, rhs, columns, lanes)
    k.begin_nest()
    summed_from: Place = 0
    count = k.max(k.sub(ends, begin), 0) if span else ends
    parts_of_rest = [] if isinstance(count, int) else _rest(k, count, height, rows)
    size = 1 if groups is None else groups.size
    if limit is None and not span:  # as if all rows were there: that is what most tiles have, and known here
        ahead = _Ahead(k, source_of_rhs, source_is_turned, rows, (), size)
    else:
        asking = [until for size_, until in parts_of_rest if size_ > FEW_ROWS]
        ahead = _Ahead(k, source_of_rhs, source_is_turned, count, asking, size)
    multiply = multiply_add if groups is None else groups.multiply_add

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
        fetch = ahead.block(k.sub(row, begin), height, column, width * lanes)

        def step(place: Place, acc: list[SSAValue]) -> Sequence[SSAValue]:
            if fetch is not None:
                fetch(place)
            right = [k.read(rhs, at(place, c)) for c in range(width)]
            found: list[SSAValue] = []
            for r in range(height):
                for c in range(width):
                    left = k.read(sources[c], At((left_at[r], place)))
                    left = left if lanes == 1 else k.spread(left, lanes)
                    found.append(multiply(k.e, left, right[c], acc[r * width + c]))
            return found

        first = [k.read(accumulator, cell) for cell in cells]
        if excess is not None:
            greater = [k.read(excess, cell.along((0, cell.places[1]), 1)) for cell in cells]
            first = [k.e.sub(value, more) for value, more in zip(first, greater, strict=True)]
        if terms is not None:
            sums = scaled_sum(k, terms, places, [at(0, c) for c in range(width)], total, lanes, first)
        else:
            part: tuple[Place, Place] = (0, slab if slab < total else summed_to)
            if banded:
                part = k.max(k.add(row, low), 0), k.min(k.add(places[-1], high), summed_to)
            sums = _summed(k, part, steps, lambda place, acc: step(k.add(summed_from, place), acc), first)
        for value, cell in zip(sums, cells, strict=True):
            buffer.write(k, value, cell)

    def rows_of(column: Place, width: int) -> None:
        if band != "result" or rows <= height:  # one block of rows has nothing to leave out
            rows_between(column, width, begin, ends, count, parts_of_rest)
            return
        after = k.add(column, min(width * lanes, columns))
        first, end = k.max(k.add(k.sub(column, high), 1), begin), k.min(k.sub(after, low), ends)
        number = k.max(k.sub(end, first), 0)
        rows_between(column, width, first, end, number, _rest(k, number, height, rows))

    def rows_between(
        column: Place, width: int, begin: Place, ends: Place, count: Place, parts_of_rest: Sequence[tuple[int, Place]]
    ) -> None:
        if isinstance(count, int) and begin == 0:
            _in_blocks(k, count, height, lambda row, size: tile_of(row, size, column, width))
            return
        last, done = k.sub(ends, 1), k.mul(k.floordiv(count, height), height)
        k.loop(begin, k.add(begin, done), height, lambda row, _: tile_of(row, height, column, width) or ())
        for (size, until), start in zip(parts_of_rest, (done, *(until for _, until in parts_of_rest)), strict=False):
            first, end = k.add(begin, start), k.add(begin, until)
            k.loop(first, end, size, lambda row, _, size=size: tile_of(row, size, column, width, last) or ())

    def slab_from(place: Place) -> None:
        nonlocal summed_from
        summed_from = place
        _in_blocks(k, vectors, block, lambda column, width: rows_of(k.mul(column, lanes), width))

    k.loop(0, total, slab, lambda place, _: slab_from(place) or ())
    if (limit is not None or span) and not _is_in(accumulator, buffer):
        for others in ((0, k.min(begin, wanted)), (k.max(ends, begin), wanted)):
            if others != (0, 0):
                loop_nest(
                    k, (rows, columns), accumulator.width, lambda at: buffer.write(k, k.read(accumulator, at), at),
                    [others, (0, columns)],
                )  # fmt: skip


class Between(Tile):
    """A tile that is 0 outside of ``[start, end)`` along an axis."""

    def __init__(self, operand: Tile, axis: int, start: Place, end: Place) -> None:
        super().__init__(operand.element, operand.shape, [operand])
        self.operand, self.axis, self.start, self.stop = operand, axis, start, end

    def read(self, k: Kernel, at: At) -> SSAValue:
        e, place = k.e, at.places[self.axis]
        if at.axis == self.axis:
            before = lanes_below(k, k.sub(self.start, place), at.lanes)
            inside = e.and_(lanes_below(k, k.sub(self.stop, place), at.lanes), e.not_(before))
        else:
            inside = e.and_(
                e.icmp("sge", k.ssa(place), k.ssa(self.start)), e.icmp("slt", k.ssa(place), k.ssa(self.stop))
            )
        return e.select(inside, k.read(self.operand, at), 0)

    def is_contiguous(self, axis: int) -> bool:
        return self.operand.is_contiguous(axis)


class _Ahead:
    """Reading the rows of ``rhs`` that follow those of this product while this one is computed.

    Where its rows fill memory without gaps, as in a panel of weights, the next product of a sum or of a program reads
    what follows. Each block of rows asks for its share of that, in all steps alike, so that memory never waits. Few
    rows are no faster than memory, which the processor reads ahead by itself then.
    """

    def __init__(
        self, k: Kernel, rhs: Tile, transposed: bool, ends: Place, parts: Sequence[Place], rows_of_step: int
    ) -> None:
        """``ends`` is how many rows there are, the last of ``parts`` how many of them are in blocks that ask."""
        self.k = k
        steps, columns = rhs.shape[::-1] if transposed else rhs.shape
        self.rhs = Transpose(rhs, (1, 0)) if transposed else rhs
        self.columns = columns
        self.step_bytes = columns * size_bytes(rhs.element)
        self.bytes = steps * self.step_bytes
        self.asking = k.max(parts[-1], 1) if parts else ends
        self.is_dense = self.rhs.is_plain and self.rhs.apart(0) == self.step_bytes and self.rhs.is_contiguous(1)
        self.step_bytes *= rows_of_step

    def block(self, row: Place, height: int, column: Place, width: int) -> Callable[[Place], None] | None:
        """What a block of the result does before a step. Columns are gone through before rows."""
        k = self.k
        rows = self.asking if isinstance(self.asking, int) else height
        start = self.rhs.address(k, (0, 0)) if self.is_dense and rows > FEW_ROWS else None
        if start is None:
            return None
        width = min(width, self.columns)
        elements = k.mul(self.asking, self.columns)
        share = k.floordiv(self.bytes, elements)
        each = k.floordiv(k.add(height * width * self.step_bytes, k.sub(elements, 1)), elements)
        most = k.min(each, self.step_bytes)
        first = k.add(k.mul(column, self.asking), k.mul(row, width))
        start = k.address(start, k.add(k.mul(first, share), self.bytes), i8)

        def fetch(place: Place) -> None:
            address = k.address(start, k.mul(place, most), i8)
            for line in range(0, most if isinstance(most, int) else self.step_bytes, LINE):
                k.e.prefetch(k.address(address, line, i8))

        return fetch


def _rest(k: Kernel, ends: Place, height: int, rows: int) -> list[tuple[int, Place]]:
    """How the rows that are left after blocks of ``height`` are divided: sizes of blocks, and where each size ends."""
    sizes = [size for size in RESTS if size < min(height, rows)]
    done = k.mul(k.floordiv(ends, height), height)
    found: list[tuple[int, Place]] = []
    for size, left in zip(sizes, [*sizes[1:], 0], strict=False):
        # Until no more rows are left than a block of the next size has.
        times = k.floordiv(k.add(k.max(k.sub(k.sub(ends, done), left), 0), size - 1), size)
        done = k.add(done, k.mul(times, size))
        found.append((size, done))
    return found


def _summed(
    k: Kernel,
    part: tuple[Place, Place],
    steps: int,
    step: Callable[[Place, list[SSAValue]], Sequence[SSAValue]],
    first: list[SSAValue],
) -> list[SSAValue]:
    """The accumulators after all steps of a part of a sum, of which several are written out at once: what they read in
    common, such as the byte of two numbers or the scale of a group, is read once. Few accumulators take turns with
    others that begin at 0, so that one multiply-add need not wait for the last.
    """
    start, total = part
    if start != 0 or not isinstance(total, int):
        return k.loop(start, total, 1, step, first)
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


def _slab(total: int, most: int) -> int:
    """How much of a sum is taken at a time: a divisor of it, if there is one that is not small; else all."""
    found = next(size for size in range(max(1, min(most, total)), 0, -1) if total % size == 0)
    return found if 2 * found > min(most, total) else total


def _in_blocks(k: Kernel, extent: int, most: int, body: Callable[[Place, int], None]) -> None:
    """The fewest blocks of at most so many, all about as large."""
    if extent <= 0:
        return
    times = -(-extent // most)
    small, larger = divmod(extent, times)
    middle = larger * (small + 1)
    for start, end, size in ((0, middle, small + 1), (middle, extent, small)):
        if end - start == size:
            k.nested(lambda start=start, size=size: body(start, size) or ())
        else:
            k.loop(start, end, size, lambda place, _, size=size: body(place, size) or ())


def _is_in(tile: Tile, buffer: Buffer) -> bool:
    return isinstance(tile, Stored) and tile.buffer is buffer
