"""Products of short numbers, several at a time: ``vdpbf16ps`` adds two products of bfloat16 to each sum of float32,
``vpdpbusd`` four products of bytes to each of 32-bit integers. Without the latter ``vpmaddwd``, which AVX2 has, adds
two products of 16 bits.

Neighbours along the sum are taken as one number of 32 bits, a *group*. Of groups a product is a nest as of float32
(``dot.py``), with another multiply-add and fewer steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from xdsl.ir import Attribute, SSAValue

from forgec.backends.cpu.dot_along_sum import ROWS as ROWS_ALONG_SUM
from forgec.backends.cpu.emitter import Emitter
from forgec.backends.cpu.llvm_types import NEON_BYTES, bf16, i8, i16, i32, lanes, size_bytes, vector
from forgec.backends.cpu.places import Place
from forgec.backends.cpu.tiles import At, Elementwise, Kernel, Stored, Tile, Transpose, lane_count, lanes_below
from forgec.backends.cpu.variants import BYTES, feature_of
from forgec.ir.tile.compute import DotOp

_FLIPPED = 0x80808080
"""What makes four bytes without a sign of four with one, each greater by 128."""


@dataclass(frozen=True)
class Groups:
    """How the products of a dot are grouped: ``size`` numbers of ``element`` at a time, in ``lanes`` sums."""

    element: Attribute
    size: int

    @staticmethod
    def of(e: Emitter, dot: DotOp, element: Attribute, rows: int, columns: int, total: int) -> Groups | None:
        """None where the target has no instruction for it, or a few rows are as fast as memory without."""
        feature = feature_of(dot)
        if feature is None or (feature not in e.features and (feature != BYTES or e.register_bytes == NEON_BYTES)):
            return None
        short = element if feature in e.features else i16
        found = Groups(short, size_bytes(i32) // size_bytes(short))
        fits = total > 0 and total % found.size == 0 and lane_count(columns, size_bytes(i32)) >= 4
        return found if fits and rows > ROWS_ALONG_SUM else None

    def left(self, tile: Tile) -> Tile:
        """A left factor [rows, sum] in groups; bytes without a sign."""
        if self.element == i8 and not is_flipped(tile):
            tile = Flipped(tile)
        return Grouped(converted(tile, self.element), self.size)

    def right(self, tile: Tile) -> Tile:
        """A right factor [sum, columns] in groups."""
        tile = converted(tile, self.element)
        turned = Transpose(tile, (1, 0))
        if turned.is_contiguous(1) and not tile.is_contiguous(1):
            return Transpose(Grouped(turned, self.size), (1, 0))
        return Interleaved(tile, self.size)

    def multiply_add(self, e: Emitter, left: SSAValue, right: SSAValue, acc: SSAValue) -> SSAValue:
        """The sums and the products of a group of both factors."""
        count = lanes(acc.type) or 1
        width = 32 * count
        if width > 8 * e.register_bytes:  # no instruction is wider than a register
            half = count // 2
            parts = [[e.slice(value, start, half) for value in (left, right, acc)] for start in (0, half)]
            return e.concat(*(self.multiply_add(e, *values) for values in parts))
        if self.element == i16:
            short = vector(i16, 2 * count)
            name = {128: "llvm.x86.sse2.pmadd.wd", 256: "llvm.x86.avx2.pmadd.wd", 512: "llvm.x86.avx512.pmaddw.d.512"}
            operands = (e.bitcast(left, short), e.bitcast(right, short))
            return e.add(acc, e.intrinsic(name[width], operands, acc.type, overloaded=()))
        if self.element == bf16:
            return e.intrinsic(f"llvm.x86.avx512bf16.dpbf16ps.{width}", (acc, left, right), acc.type, overloaded=())
        return e.intrinsic(f"llvm.x86.avx512.vpdpbusd.{width}", (acc, left, right), acc.type, overloaded=())

    def excess(self, k: Kernel, right: Tile, columns: int, count: int) -> Tile | None:
        """What sums [1, columns] are too great by, because bytes of the left factor are greater than they were: 128
        times the sums of the right factor's columns. ``count`` lanes are computed at a time.
        """
        if self.element != i8:
            return None
        buffer = k.buffer(i32, (1, columns))
        many = k.e.const(vector(i32, count), _FLIPPED)

        def columns_from(column: Place) -> None:
            active = None if columns % count == 0 else lanes_below(k, k.sub(columns, column), count)

            def step(place: Place, acc: list[SSAValue]) -> list[SSAValue]:
                return [self.multiply_add(k.e, many, k.read(right, At((place, column), 1, count, active)), acc[0])]

            sums = k.loop(0, right.shape[0], 1, step, [k.e.const(vector(i32, count), 0)])
            buffer.write(k, sums[0], At((0, column), 1, count))

        k.begin_nest()
        k.loop(0, columns, count, lambda column, _: columns_from(column) or ())
        return Stored(buffer)


class Grouped(Tile):
    """A tile [rows, sum], ``size`` neighbours along the sum as one number of 32 bits."""

    def __init__(self, operand: Tile, size: int) -> None:
        super().__init__(i32, (operand.shape[0], operand.shape[1] // size), [operand])
        self.buffers = dict.fromkeys(operand.buffers, False)
        self.operand, self.size = operand, size

    def read(self, k: Kernel, at: At) -> SSAValue:
        row, place = at.places
        place = k.mul(place, self.size)
        if at.axis == 0:  # lanes of several rows
            found = k.e.poison(vector(i32, at.lanes))
            for lane in range(at.lanes):
                ok = k.min(k.add(row, lane), self.shape[0] - 1) if at.active is not None else k.add(row, lane)
                found = k.e.insert(found, self._group(k, ok, place), lane)
            return found
        if at.lanes == 1:
            return self._group(k, row, place)
        active = at.active
        if active is not None:
            active = k.e.shuffle(active, [lane // self.size for lane in range(at.lanes * self.size)])
        found = k.read(self.operand, At((row, place), 1, at.lanes * self.size, active))
        return k.e.bitcast(found, vector(i32, at.lanes))

    def _group(self, k: Kernel, row: Place, place: Place) -> SSAValue:
        return k.e.bitcast(k.read(self.operand, At((row, place), 1, self.size)), i32)

    def is_contiguous(self, axis: int) -> bool:
        return axis == 1

    @property
    def is_plain(self) -> bool:
        return self.operand.is_plain and self.operand.is_contiguous(1)

    def apart(self, axis: int) -> int | None:
        found = self.operand.apart(axis)
        return found if found is None or axis == 0 else found * self.size

    def address(self, k: Kernel, places: Sequence[Place]) -> SSAValue | None:
        return self.operand.address(k, (places[0], k.mul(places[1], self.size)))

    def end(self, axis: int) -> Place | None:
        return self.operand.end(axis) if axis == 0 else None

    def before_end(self, axis: int) -> Tile:
        return Grouped(self.operand.before_end(0), self.size) if axis == 0 else self


class Interleaved(Tile):
    """A tile [sum, columns] of rows without gaps, ``size`` neighbours along the sum as one number of 32 bits."""

    def __init__(self, operand: Tile, size: int) -> None:
        super().__init__(i32, (operand.shape[0] // size, operand.shape[1]), [operand])
        self.buffers = dict.fromkeys(operand.buffers, False)
        self.operand, self.size = operand, size

    def read(self, k: Kernel, at: At) -> SSAValue:
        place, column = at.places
        assert at.axis == 1 or at.lanes == 1, "lanes run along columns"
        parts = [
            k.read(self.operand, at.along((k.add(k.mul(place, self.size), number), column), at.axis))
            for number in range(self.size)
        ]
        if at.lanes == 1:
            found = k.e.poison(vector(self.operand.element, self.size))
            for number, part in enumerate(parts):
                found = k.e.insert(found, part, number)
            return k.e.bitcast(found, i32)
        while len(parts) > 1:  # halves of a sum with their later halves: 0 2 and 1 3, then all
            half = len(parts) // 2
            parts = [_interleaved(k.e, a, b) for a, b in zip(parts[:half], parts[half:], strict=True)]
        return k.e.bitcast(parts[0], vector(i32, at.lanes))

    def is_contiguous(self, axis: int) -> bool:
        return axis == 1


def _interleaved(e: Emitter, a: SSAValue, b: SSAValue) -> SSAValue:
    count = lanes(a.type) or 1
    return e.shuffle(a, [lane // 2 + lane % 2 * count for lane in range(2 * count)], b)


class Flipped(Tile):
    """Bytes with a sign as bytes without one, each greater by 128."""

    def __init__(self, operand: Tile) -> None:
        super().__init__(i8, operand.shape, [operand])
        self.operand = operand

    def read(self, k: Kernel, at: At) -> SSAValue:
        return k.e.xor(k.read(self.operand, at), -128)

    def is_contiguous(self, axis: int) -> bool:
        return self.operand.is_contiguous(axis)

    def end(self, axis: int) -> Place | None:
        return self.operand.end(axis) if axis == 0 else None

    def before_end(self, axis: int) -> Tile:
        return Flipped(self.operand.before_end(0)) if axis == 0 else self


def converted(side: Tile, element: Attribute) -> Tile:
    """The tile with elements of another type."""
    if side.element == element:
        return side
    return Elementwise(element, side.shape, lambda e, values: e.convert(values[0], element), [side])


def is_flipped(tile: Tile) -> bool:
    """True of a tile that holds bytes greater by 128 than they are meant: packed ones."""
    return isinstance(tile, Flipped) or getattr(tile, "flipped", False)
