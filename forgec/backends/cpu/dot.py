"""``tile.dot``: a nest of loops around a block of accumulators that stays in registers over the whole sum.

Rows of the result are taken ``ROWS`` at a time and columns a few vectors at a time; each step of the sum reads those
vectors of one row of ``rhs`` once for all rows. Operands that are read more than once are in memory, in the element
type of the sum, and rows of ``rhs`` without gaps. For a few rows ``rhs`` is read where it is, with the lanes along the
sum where its elements stand side by side that way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from xdsl.ir import Attribute, SSAValue

from forgec.backends.cpu.emitter import Emitter
from forgec.backends.cpu.llvm_types import is_float, size_bytes, vector
from forgec.backends.cpu.nests import stored
from forgec.backends.cpu.places import Place
from forgec.backends.cpu.tiles import (
    VECTOR_BYTES,
    At,
    Buffer,
    Elementwise,
    Kernel,
    Tile,
    Transpose,
    lane_count,
    lanes_below,
)

ROWS = 4
COLUMNS = 4
"""Vectors of a row of the result that are accumulated at once where there are registers for them."""


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
    if rows <= ROWS and transposed and rhs.is_contiguous(1):
        _along_sum(k, lhs, rhs, accumulator, buffer)
        return
    lanes = lane_count(columns, size_bytes(accumulator.element))
    registers = lanes * size_bytes(accumulator.element) / vector_bytes  # of one vector
    block = max(1, min(COLUMNS, int((16 if vector_bytes >= VECTOR_BYTES else 8) / (ROWS * registers))))
    if columns > block * lanes:
        lhs = stored(k, lhs)
    if transposed:
        rhs = Transpose(rhs, (1, 0))
    if rows > ROWS or not rhs.is_contiguous(1):
        rhs = stored(k, rhs)
    k.begin_nest()

    def tile_of(row: Place, height: int, column: Place, width: int) -> None:
        """One block of the result: ``height`` rows of ``width`` vectors."""

        def at(place: Place, vector_: int) -> At:
            first = k.add(column, vector_ * lanes)
            if lanes == 1:
                return At((place, first))
            active = None if columns % lanes == 0 else lanes_below(k, k.sub(columns, first), lanes)
            return At((place, first), 1, lanes, active)

        cells = [at(k.add(row, r), c) for r in range(height) for c in range(width)]

        def step(place: Place, acc: list[SSAValue]) -> Sequence[SSAValue]:
            right = [k.read(rhs, at(place, c)) for c in range(width)]
            found: list[SSAValue] = []
            for r in range(height):
                left = k.read(lhs, At((k.add(row, r), place)))
                left = left if lanes == 1 else k.e.splat(left, lanes)
                for c in range(width):
                    found.append(multiply_add(k.e, left, right[c], acc[r * width + c]))
            return found

        sums = k.loop(0, total, 1, step, [k.read(accumulator, cell) for cell in cells])
        for value, cell in zip(sums, cells, strict=True):
            buffer.write(k, value, cell)

    def in_blocks(extent: int, size: int, body: Callable[[Place, int], None]) -> None:
        whole = extent // size * size
        k.loop(0, whole, size, lambda place, _: body(place, size) or ())
        if whole < extent:
            k.nested(lambda: body(whole, extent - whole) or ())

    vectors = -(-columns // lanes)
    in_blocks(
        vectors, min(block, vectors),
        lambda column, width: in_blocks(
            rows, min(ROWS, rows), lambda row, height: tile_of(row, height, k.mul(column, lanes), width)
        ),
    )  # fmt: skip


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
