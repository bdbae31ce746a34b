"""Loop nests over the elements of tiles, and tiles that they compute into memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from xdsl.ir import SSAValue

from forgec.backends.cpu.emitter import Emitter
from forgec.backends.cpu.llvm_types import size_bytes
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


def write(k: Kernel, tile: Tile, buffer: Buffer, ends: Sequence[Place | None] = ()) -> None:
    """Compute a tile into a buffer, or the places before ``ends`` of its axes (None: all)."""
    k.begin_nest()
    if not _write_turned(k, tile, buffer):
        ranges = ranges_before(ends, tile.shape)
        loop_nest(k, tile.shape, tile.width, lambda at: buffer.write(k, k.read(tile, at), at), ranges)


def ranges_before(ends: Sequence[Place | None], shape: Sequence[int]) -> list[tuple[Place, Place]] | None:
    """The ranges of a nest that stops at some ends; None for a nest over all of a tile."""
    if all(end is None for end in ends):
        return None
    return [(0, extent if end is None else end) for end, extent in zip(ends, shape, strict=True)]


def _write_turned(k: Kernel, tile: Tile, buffer: Buffer) -> bool:
    square = Square.of(tile, tile.shape, at_most=8)
    if square is not None:
        square.nest(k, [(0, extent) for extent in tile.shape], lambda line, at: buffer.write(k, line, at))
    return square is not None


@dataclass(frozen=True)
class Square:
    """How a tile is turned whose elements stand side by side along the axis ``across``, not along ``axis``, the
    innermost: squares of ``size`` lanes are read along that axis and turned in registers, ``count`` beside each other.
    """

    tile: Tile
    axis: int
    across: int
    size: int
    count: int

    @staticmethod
    def of(tile: Tile, shape: Sequence[int], *, at_most: int, line: int = 1) -> Square | None:
        """None if there is no such axis, or no square fits. ``line``: the bytes that shall be written at a time."""
        axis = lane_axis(shape)
        if axis is None or tile.is_contiguous(axis):
            return None
        others = [a for a, extent in enumerate(shape) if a != axis and extent > 1 and tile.is_contiguous(a)]
        if not others:
            return None
        across = others[-1]
        size = min(at_most, VECTOR_BYTES // tile.width, *(shape[a] & -shape[a] for a in (axis, across)))
        if size < 4:
            return None
        count = max(1, line // (size * size_bytes(tile.element)))
        return Square(tile, axis, across, size, count if shape[axis] % (size * count) == 0 else 1)

    @property
    def nbytes(self) -> int:
        """The bytes that are written at a time."""
        return self.size * self.count * size_bytes(self.tile.element)

    def nest(self, k: Kernel, ranges: Sequence[tuple[Place, Place]], write: Callable[[SSAValue, At], object]) -> None:
        """Loops over all squares of ranges that are multiples of them; ``write`` gets lanes along ``axis``."""
        places: list[Place] = [0] * len(self.tile.shape)
        steps = [1] * len(places)
        steps[self.axis], steps[self.across] = self.size * self.count, self.size
        order = [dim for dim in range(len(places)) if dim != self.across] + [self.across]

        def level(depth: int) -> None:
            if depth == len(order):
                self._turn(k, tuple(places), write)
                return
            dim = order[depth]

            def iteration(place: Place, _: list[SSAValue]) -> Sequence[SSAValue]:
                places[dim] = place
                level(depth + 1)
                return ()

            k.loop(*ranges[dim], steps[dim], iteration)

        level(0)

    def _turn(self, k: Kernel, places: tuple[Place, ...], write: Callable[[SSAValue, At], object]) -> None:
        def at(dim: int, number: int, along: int, lanes: int) -> At:
            moved = list(places)
            moved[dim] = k.add(moved[dim], number)
            return At(tuple(moved), along, lanes)

        def turned(first: int) -> list[SSAValue]:
            rows = range(first, first + self.size)
            return transposed(k.e, [k.read(self.tile, at(self.axis, row, self.across, self.size)) for row in rows])

        squares = [turned(number * self.size) for number in range(self.count)]
        for number, lines in enumerate(zip(*squares, strict=True)):
            whole = list(lines)
            while len(whole) > 1:
                whole = [k.e.concat(a, b) for a, b in zip(whole[::2], whole[1::2], strict=True)]
            write(whole[0], at(self.across, number, self.axis, self.size * self.count))


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


class Kept(Tile):
    """A tile that is written to memory of the frame where it is first read, element by element once, and read from
    there after that: when ``is_written`` is set."""

    def __init__(self, tile: Tile, buffer: Buffer) -> None:
        super().__init__(tile.element, tile.shape, [tile])
        self.buffers = {**tile.buffers, buffer: True}
        self.tile, self.stored, self.is_written = tile, Stored(buffer), False

    def read(self, k: Kernel, at: At) -> SSAValue:
        if self.is_written:
            return self.stored.read(k, at)
        value = self.tile.read(k, at)
        self.stored.buffer.write(k, value, at)
        return value

    def is_contiguous(self, axis: int) -> bool:
        return (self.stored if self.is_written else self.tile).is_contiguous(axis)


def stored(k: Kernel, tile: Tile, *, spread: bool = False, ends: Sequence[Place | None] = ()) -> Stored:
    """The tile in memory: itself if it is there already. Places from ``ends`` on may hold anything."""
    if isinstance(tile, Stored):
        return tile
    buffer = k.buffer(tile.element, tile.shape, spread=spread)
    write(k, tile, buffer, ends)
    return Stored(buffer)
