"""Left factors of products that many programs read, in memory of the frame: packed once for those that follow.

Programs of a grid run one after another, and the columns of a product change before its rows do: the next program
reads the same rows of the left factor. Where these rows lie so that a block of them pushes itself out of the cache, or
have to be converted, they are copied into rows that lie well, all steps of the sum, before the first of these programs;
the address of what was packed last says whether a program finds its own rows there.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

from xdsl.dialects import scf
from xdsl.ir import Attribute, Operation, SSAValue

from forgec.backends.cpu.elementwise import llvm_element
from forgec.backends.cpu.llvm_types import i8, i64, size_bytes
from forgec.backends.cpu.memory_access import Loaded
from forgec.backends.cpu.nests import write
from forgec.backends.cpu.places import Place
from forgec.backends.cpu.short_products import Flipped, Groups, converted
from forgec.backends.cpu.tiles import At, Buffer, Kernel, Stored, Tile
from forgec.ir.tile import compute, memory
from forgec.ir.tile.cache_sets import PACKED_LIMIT, crowds, rounded_load
from forgec.ir.tile.types import element


@dataclass(frozen=True)
class Factor:
    """Where a left factor is packed, all that a loop reads of it."""

    buffer: Buffer
    first: int
    """Where the loop begins, along the sum."""
    end: Place | None
    """From which row on there is nothing."""
    flipped: bool = False
    """True of bytes that are packed greater by 128, without a sign."""


class Piece(Tile):
    """The columns of a packed factor from a place on."""

    def __init__(self, factor: Factor, place: Place, shape: tuple[int, ...], k: Kernel) -> None:
        super().__init__(factor.buffer.element, shape)
        self.whole = Stored(factor.buffer)
        self.start = k.sub(place, factor.first)
        self.buffers = {factor.buffer: False}
        self.flipped = factor.flipped
        self._end = factor.end

    def read(self, k: Kernel, at: At) -> SSAValue:
        row, column = at.places
        return k.read(self.whole, At((row, k.add(self.start, column)), at.axis, at.lanes, at.active))

    def is_contiguous(self, axis: int) -> bool:
        return self.whole.is_contiguous(axis)

    @property
    def is_plain(self) -> bool:
        return True

    def end(self, axis: int) -> Place | None:
        return self._end if axis == 0 else None


@dataclass(frozen=True)
class Left:
    """A left factor in a loop: what loads it, what its products read (the same, or what it is rounded to), the type
    that they are packed in, and whether bytes become greater by 128.
    """

    load: memory.LoadOp
    read: Operation
    kind: Attribute
    flipped: bool

    def as_packed(self, loaded: Tile) -> Tile:
        found = converted(converted(loaded, llvm_element(element(self.read.results[0]))), self.kind)
        return Flipped(found) if self.flipped else found


@dataclass
class Packs:
    """The packed factors of a kernel's function."""

    k: Kernel
    written: Callable[[SSAValue], bool]
    """Whether the kernel writes a block, or a part of it."""
    groups: Callable[[compute.DotOp], Groups | None]
    """How products are grouped."""
    _made: dict[Hashable, tuple[Buffer, SSAValue]] = field(default_factory=dict)

    def lefts(self, loop: scf.ForOp) -> list[Left]:
        """The left factors of products in a loop along their sums."""
        index = loop.body.block.args[0]
        found: list[Left] = []
        for op in loop.body.block.ops:
            if not isinstance(op, memory.LoadOp) or len(op.offsets) != 2 or op.offsets[1] is not index:
                continue
            read, users = rounded_load(op)
            dots = [user for user, n in users if isinstance(user, compute.DotOp) and n == 0]
            if not dots or len(dots) != len(users):
                continue
            kinds = {(element(dot.accumulator), self.groups(dot)) for dot in dots}
            if len(kinds) != 1:
                continue
            if _is_outside(op.offsets[0], loop) and _is_outside(op.block, loop) and not self.written(op.block):
                kind, groups = kinds.pop()
                own = llvm_element(kind) if groups is None else groups.element
                found.append(Left(op, read, own, groups is not None and own == i8))
        return found

    def packed(
        self, left: Left, whole: Callable[[int], Loaded], span: tuple[int, int, int], number: int
    ) -> Factor | None:
        """The factor that a load reads pieces of, packed here if it is not there already; None if it need not be.

        ``whole(n)`` is the load of ``n`` columns, ``span`` the loop's bounds and step, ``number``
        which of the loop's factors it is.
        """
        load, kind = left.load, left.kind
        first, last, step = span
        total = -(-(last - first) // step) * step
        tile = whole(total)
        rows = tile.shape[0]
        bytes_ = rows * total * size_bytes(kind)
        if rows == 1 or total <= 0:
            return None
        if kind == tile.element and left.read is load and not left.flipped and not crowds(tile.apart(0), rows):
            return None
        k = self.k
        # Besides the address of the first element, these say what the elements are.
        key = (
            number,
            load.block,
            tile.memory.strides,
            tuple(tile.checked),
            tile.other,
            rows,
            total,
            kind,
            left.flipped,
        )
        if key not in self._made:
            if sum(buffer.bytes for buffer, _ in self._made.values()) + bytes_ > PACKED_LIMIT:
                return None
            self._made[key] = k.buffer(kind, (rows, total), spread=True), k.e.variable(i64)
        buffer, last_packed = self._made[key]
        end = tile.end(0)
        address = k.e.bitcast(tile.memory.pointer, i64)

        def pack() -> list[SSAValue]:
            ends = None if end is None else k.max(k.min(rows, end), 0)
            write(k, left.as_packed(tile.before_end(0)), buffer, (ends, None))
            k.e.store(address, last_packed)
            return []

        k.e.if_(k.e.icmp("ne", address, k.e.load(i64, last_packed)), lambda: list(k.nested(pack)))
        return Factor(buffer, first, end, left.flipped)


def _is_outside(value: SSAValue, loop: scf.ForOp) -> bool:
    return not loop.is_ancestor(value.owner)
