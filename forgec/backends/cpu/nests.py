"""Loop nests over the elements of tiles, and tiles that they compute into memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from xdsl.ir import SSAValue

from forgec.backends.cpu.emitter import Emitter
from forgec.backends.cpu.places import Place
from forgec.backends.cpu.tiles import (
    VECTOR_BYTES,
    At,
    Buffer,
    Kernel,
    Stored,
    Tile,
    lane_axis,
    lane_count,
    lanes_below,
)


def loop_nest(
    k: Kernel,
    shape: tuple[int, ...],
    width: int,
    body: Callable[[At], object],
    ranges: Sequence[tuple[Place, Place]] | None = None,
    axis: int | None = None,
) -> None:
    """Loops over the elements of a tile (or those in ``ranges``), lanes along ``axis``, by default the innermost."""
    axis = lane_axis(shape) if axis is None else axis
    limits = [(0, extent) for extent in shape] if ranges is None else ranges
    order = [dim for dim in range(len(shape)) if dim != axis] + ([] if axis is None else [axis])
    places: list[Place] = [0] * len(shape)

    def level(depth: int) -> None:
        if depth == len(order):
            body(At(tuple(places)))
            return
        dim = order[depth]
        start, end = limits[dim]
        count = lane_count(shape[dim], width) if dim == axis else 1

        def iteration(place: Place, _: list[SSAValue]) -> Sequence[SSAValue]:
            places[dim] = place
            if dim == axis and count > 1:
                whole = isinstance(start, int) and isinstance(end, int) and (end - start) % count == 0
                active = None if whole else lanes_below(k, k.sub(end, place), count)
                body(At(tuple(places), axis, count, active))
            else:
                level(depth + 1)
            return ()

        if dim == axis and isinstance(start, int) and isinstance(end, int):
            rest = (end - start) % count
            if rest and rest & (rest - 1) == 0 and end - start > count:  # a shorter vector, without a mask
                k.loop(start, end - rest, count, lambda place, _: whole(dim, place, count))
                k.nested(lambda: whole(dim, end - rest, rest))
                return
        k.loop(start, end, count, iteration)

    def whole(dim: int, place: Place, count: int) -> Sequence[SSAValue]:
        places[dim] = place
        body(At(tuple(places), axis, count) if count > 1 else At(tuple(places)))
        return ()

    level(0)


def write(k: Kernel, tile: Tile, buffer: Buffer, rows: Place | None = None) -> None:
    """Compute a tile into a buffer, or so many of its rows."""
    k.begin_nest()
    if not _write_turned(k, tile, buffer):
        ranges = None if rows is None else [(0, rows), *((0, extent) for extent in tile.shape[1:])]
        loop_nest(k, tile.shape, tile.width, lambda at: buffer.write(k, k.read(tile, at), at), ranges)


def _write_turned(k: Kernel, tile: Tile, buffer: Buffer) -> bool:
    """The same for a tile whose elements stand side by side along another axis than the buffer's: squares of lanes are
    read along that axis and turned in registers. False if there is no such axis, or no square fits.
    """
    axis = lane_axis(tile.shape)
    if axis is None or tile.is_contiguous(axis):
        return False
    others = [a for a, extent in enumerate(tile.shape) if a != axis and extent > 1 and tile.is_contiguous(a)]
    if not others:
        return False
    across = others[-1]
    size = min(8, VECTOR_BYTES // tile.width, *(tile.shape[a] & -tile.shape[a] for a in (axis, across)))
    if size < 4:
        return False
    places: list[Place] = [0] * len(tile.shape)

    def square() -> None:
        def at(dim: int, number: int, lanes_along: int) -> At:
            moved = list(places)
            moved[dim] = k.add(moved[dim], number)
            return At(tuple(moved), lanes_along, size)

        lines = [k.read(tile, at(axis, number, across)) for number in range(size)]
        for number, line in enumerate(transposed(k.e, lines)):
            buffer.write(k, line, at(across, number, axis))

    def level(dim: int) -> None:
        if dim == len(places):
            square()
            return

        def iteration(place: Place, _: list[SSAValue]) -> Sequence[SSAValue]:
            places[dim] = place
            level(dim + 1)
            return ()

        k.loop(0, tile.shape[dim], size if dim in (axis, across) else 1, iteration)

    level(0)
    return True


def transposed(e: Emitter, lines: list[SSAValue]) -> list[SSAValue]:
    """The columns of a square of lanes: pairs of rows exchange blocks of 1, 2, 4, … lanes."""
    size = len(lines)
    distance = 1
    while distance < size:
        first = [lane if not lane & distance else size + lane - distance for lane in range(size)]
        second = [lane + distance if not lane & distance else size + lane for lane in range(size)]
        swapped = list(lines)
        for low in range(size):
            if not low & distance:
                high = low | distance
                swapped[low] = e.shuffle(lines[low], first, lines[high])
                swapped[high] = e.shuffle(lines[low], second, lines[high])
        lines = swapped
        distance *= 2
    return lines


def stored(k: Kernel, tile: Tile, *, spread: bool = False, rows: Place | None = None) -> Stored:
    """The tile in memory: itself if it is there already. Rows from ``rows`` on may hold anything."""
    if isinstance(tile, Stored):
        return tile
    buffer = k.buffer(tile.element, tile.shape, spread=spread)
    write(k, tile, buffer, rows)
    return Stored(buffer)
