"""Stores of tiles: past the caches where a result is large, turned in registers where a tile lies otherwise.

Only the part of a tile that is inside its block is computed. ``memory_access.py`` has what a single vector takes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from xdsl.ir import SSAValue

from forgec.backends.cpu.llvm_types import bf16, i64, size_bytes
from forgec.backends.cpu.memory_access import Memory, conjunction, element_addresses, inside, put, put_each
from forgec.backends.cpu.nests import Square, loop_nest
from forgec.backends.cpu.places import Place
from forgec.backends.cpu.read_ahead import LINE_BYTES
from forgec.backends.cpu.tiles import ONE_BY_ONE, At, Kernel, Tile, lane_axis, lane_count

TURNED_LANES = 16
"""The squares in which tiles are turned have at most so many lanes: rows and columns in registers at the same time."""
PAIRED_LANES = 128
"""Rows of halves whose extent is a multiple of this are computed in pairs of vectors."""
STREAMED_ROW, STREAMED_VECTOR = 256, 16
"""Writes past the caches are gathered into lines by a few buffers of the processor: rows have at least so many bytes,
and vectors, so that lines are whole when they leave."""


def store_tile(
    k: Kernel,
    value: Tile,
    memory: Memory,
    offsets: Sequence[Place],
    in_bounds: Sequence[int],
    large: bool | SSAValue = False,
) -> bool:
    """``tile.store``: only the part of the tile that is inside the block is computed.

    Of a ``large`` block, which no cache holds until it is read, vectors are written past the caches if they lie in
    whole pieces of lines: then the lines are not read before they are written. Returns whether it may happen.
    """
    k.begin_nest()
    ranges: list[tuple[Place, Place]] = []
    for dim, (offset, count, extent) in enumerate(zip(offsets, value.shape, memory.shape, strict=True)):
        if dim in in_bounds or inside(k, offset, count, extent):
            ranges.append((0, count))
            continue
        start = 0 if k.nonnegative(offset) else k.max(k.sub(0, offset), 0)
        ranges.append((start, k.min(k.sub(extent, offset), count)))
    target = replace(memory, pointer=memory.address(k, offsets))
    square = _square(k, value, target)
    nbytes = 0 if square is None else square.nbytes
    width = _width(k, value, target)
    streamed = None if large is False or 0 < nbytes < LINE_BYTES else _streams(k, value, width, target, ranges, large)

    def line(found: SSAValue, at: At) -> None:
        stride = 1 if at.axis is None else target.strides[at.axis]
        put(k, found, target.element, target.address(k, at.places), stride, at, streamed)

    def chunk(at: At) -> None:
        line(k.read(value, at), at)

    if square is None:
        loop_nest(k, value.shape, width, chunk, ranges)
    else:
        _store_turned(k, square, ranges, line, chunk)
    return streamed is not None


def _width(k: Kernel, value: Tile, target: Memory) -> int:
    """The width of elements by which a tile is computed. bfloat16 that was computed in float32 is two registers of
    AVX-512 at a time, which together are a line of the target, as long as rows are long.
    """
    axis, size = lane_axis(value.shape), size_bytes(target.element)
    if axis is None or value.width != 4 or k.e.register_bytes != LINE_BYTES or target.strides[axis] != 1:
        return value.width
    if target.element != bf16:  # of float16 LLVM writes 512 bits through the caches, whatever is asked for
        return value.width
    return size if value.shape[axis] % PAIRED_LANES == 0 else value.width


def _square(k: Kernel, value: Tile, target: Memory) -> Square | None:
    """How a tile is turned that lies otherwise than its target."""
    axis = lane_axis(value.shape)
    if axis is None or target.strides[axis] != 1:
        return None
    at_most = min(TURNED_LANES, k.e.register_bytes // value.width)
    return Square.of(value, value.shape, at_most=at_most, line=LINE_BYTES)


def _store_turned(
    k: Kernel,
    square: Square,
    ranges: Sequence[tuple[Place, Place]],
    line: Callable[[SSAValue, At], object],
    chunk: Callable[[At], object],
) -> None:
    """Whole squares are turned; what is left beside and below them, where a tile reaches beyond the block, is written
    as other tiles are."""
    shape, whole = square.tile.shape, list(ranges)
    edges: list[int] = []
    for dim, size in ((square.axis, square.size * square.count), (square.across, square.size)):
        start, end = ranges[dim]
        if (start, end) == (0, shape[dim]):
            continue
        edges.append(dim)
        whole[dim] = start, k.add(start, k.mul(k.floordiv(k.max(k.sub(end, start), 0), size), size))
    square.nest(k, whole, line)
    left = list(ranges)
    for dim in edges:
        k.begin_nest()
        loop_nest(
            k, shape, square.tile.width, chunk, [(whole[d][1], r[1]) if d == dim else r for d, r in enumerate(left)]
        )
        left[dim] = whole[dim]


def _streams(
    k: Kernel, value: Tile, width: int, target: Memory, ranges: Sequence[tuple[Place, Place]], large: bool | SSAValue
) -> SSAValue | None:
    """Whether every vector of a tile is written to an address that is a multiple of its size; None if never."""
    axis, size = lane_axis(value.shape), size_bytes(target.element)
    if axis is None or target.strides[axis] != 1 or ranges[axis][0] != 0 or value.shape[axis] * size < STREAMED_ROW:
        return None
    nbytes = lane_count(value.shape[axis], width) * size
    if nbytes < STREAMED_VECTOR:
        return None
    e = k.e
    bits = e.bitcast(target.pointer, i64)
    for dim, stride in enumerate(target.strides):
        if dim != axis and value.shape[dim] > 1 and (k.multiple(stride) * size) % nbytes:
            if isinstance(stride, int):
                return None
            bits = e.or_(bits, k.ssa(k.mul(stride, size)))
    aligned = e.icmp("eq", e.and_(bits, nbytes - 1), 0)
    return aligned if isinstance(large, bool) else conjunction(k, aligned, large)


def scatter_tile(
    k: Kernel,
    value: Tile,
    memory: Memory,
    indices: Sequence[Tile],
    mask: Tile | None,
    combine: Callable[[SSAValue, SSAValue], None] | None,
) -> None:
    """``tile.scatter``; ``combine(address, value)`` changes one element, in one step for all threads."""
    k.begin_nest()

    def chunk(at: At) -> None:
        chosen = None if mask is None else k.read(mask, at)
        if at.lanes > 1:
            put_each(k, k.read(value, at), element_addresses(k, indices, memory, at), conjunction(k, at.active, chosen))
            return

        def one() -> list[SSAValue]:
            pointer = memory.address(k, [k.place(k.read(index, at)) for index in indices])
            element = k.read(value, at)
            k.e.store(element, pointer) if combine is None else combine(pointer, element)
            return []

        if chosen is None:
            one()
        else:
            k.e.if_(chosen, lambda: list(k.nested(one)))

    loop_nest(k, value.shape, value.width if combine is None else ONE_BY_ONE, chunk)
