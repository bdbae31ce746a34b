"""Loads and stores of tiles: vectors where elements stand side by side, masked or element by element where not.

Nothing outside a block is touched. Where whether to read is one question for all lanes, the address is replaced by that
of spare memory and the value by ``other``, so that there is no branch.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace

from xdsl.dialects import llvm
from xdsl.dialects.builtin import IntegerType
from xdsl.ir import Attribute, SSAValue

from forgec.backends.cpu.llvm_types import NEON_BYTES, i1, i64, size_bytes, vector
from forgec.backends.cpu.llvm_types import lanes as lanes_of
from forgec.backends.cpu.places import Place
from forgec.backends.cpu.read_ahead import LINE_BYTES, ask, place_ahead, rows_ahead
from forgec.backends.cpu.tiles import (
    At,
    Broadcast,
    Kernel,
    Stored,
    Tile,
    lanes_below,
)

MASKED_BYTES = 32
"""Vectors with masks have at most one register of AVX2, and their masks go through an assembly statement of no
instruction. Where LLVM 22 finds late that a mask has no lane, it replaces it by a number whose sign bit alone is right
(the bit that ``vmaskmovps`` reads), and then takes that for a mask of all lanes: the load becomes one without a mask,
which reads outside of the block.
"""


@dataclass(frozen=True)
class Memory:
    """A block: the address of its first element, extents and strides in elements."""

    pointer: SSAValue
    element: Attribute
    shape: tuple[Place, ...]
    strides: tuple[Place, ...]

    def address(self, k: Kernel, places: Sequence[Place]) -> SSAValue:
        return k.address_at(self.pointer, places, self.strides, self.element)


def conjunction(k: Kernel, a: SSAValue | None, b: SSAValue | None) -> SSAValue | None:
    """Both conditions; None is always true."""
    return b if a is None else a if b is None else k.e.and_(a, b)


def all_of(k: Kernel, mask: SSAValue) -> SSAValue:
    return k.e.intrinsic("llvm.vector.reduce.and", (mask,), i1, overloaded=(mask.type,))


def fetch(
    k: Kernel,
    element: Attribute,
    pointer: SSAValue,
    stride: Place,
    lanes: int,
    ok: SSAValue | None,
    mask: SSAValue | None,
    other: int | float,
) -> SSAValue:
    """``lanes`` elements ``stride`` apart, where ``ok`` (for all) and ``mask`` (for each) hold, ``other`` elsewhere."""
    e = k.e
    if lanes == 1:
        return _read(k, element, pointer, ok, other)
    kind = vector(element, lanes)
    if stride == 0:
        some = conjunction(k, ok, None if mask is None else e.any(mask))
        found = e.splat(_read(k, element, pointer, some, other), lanes)
        return found if mask is None else e.select(mask, found, other)
    if stride != 1:
        return _read_each(k, kind, _apart(k, element, pointer, stride, lanes), _for_each(k, ok, mask, lanes), other)
    if mask is None:
        return _read(k, kind, pointer, ok, other)
    each = _for_each(k, ok, mask, lanes)
    assert each is not None
    if size_bytes(element) >= 4:
        return _masked_load(k, element, pointer, each, lanes, other)

    def one_by_one() -> list[SSAValue]:
        return [_read_each(k, kind, _apart(k, element, pointer, 1, lanes), each, other)]

    if isinstance(each.owner, llvm.ConstantOp):
        return one_by_one()[0]
    # CPUs without AVX-512 have no masked loads of these: only a chunk at the edge is read element by element.
    return e.if_(all_of(k, each), lambda: [e.load(kind, pointer)], one_by_one)[0]


def _masked_load(
    k: Kernel, element: Attribute, pointer: SSAValue, mask: SSAValue, lanes: int, other: int | float
) -> SSAValue:
    e = k.e
    if lanes > MASKED_BYTES // size_bytes(element):
        half = lanes // 2
        low = _masked_load(k, element, pointer, e.slice(mask, 0, half), half, other)
        after = k.address(pointer, half, element)
        return e.concat(low, _masked_load(k, element, after, e.slice(mask, half, half), half, other))
    kind = vector(element, lanes)
    return e.masked_load(kind, pointer, _opaque(k, mask, lanes, size_bytes(element)), e.const(kind, other))


def _masked_store(
    k: Kernel, value: SSAValue, element: Attribute, pointer: SSAValue, mask: SSAValue, lanes: int
) -> None:
    e = k.e
    if lanes > MASKED_BYTES // size_bytes(element):
        half = lanes // 2
        _masked_store(k, e.slice(value, 0, half), element, pointer, e.slice(mask, 0, half), half)
        after = k.address(pointer, half, element)
        _masked_store(k, e.slice(value, half, half), element, after, e.slice(mask, half, half), half)
        return
    e.masked_store(value, pointer, _opaque(k, mask, lanes, size_bytes(element)))


def _opaque(k: Kernel, mask: SSAValue, lanes: int, size: int) -> SSAValue:
    """The mask, of which LLVM knows nothing on x86."""
    e = k.e
    if e.register_bytes == NEON_BYTES:
        return mask
    kind = vector(IntegerType(max(8 * size, 128 // lanes)), lanes)
    op = llvm.InlineAsmOp("", "=x,0", [e.sext(mask, kind.element_type)], [kind])
    e.block.add_op(op)
    assert op.res is not None
    return e.icmp("slt", op.res, 0)


def _for_each(k: Kernel, ok: SSAValue | None, mask: SSAValue | None, lanes: int) -> SSAValue | None:
    return conjunction(k, None if ok is None else k.e.splat(ok, lanes), mask)


def _apart(k: Kernel, element: Attribute, pointer: SSAValue, stride: Place, lanes: int) -> SSAValue:
    positions = k.mul(k.e.iota(i64, lanes), stride)
    return k.e.element(pointer, k.ssa(positions), element)


def _read(k: Kernel, kind: Attribute, pointer: SSAValue, ok: SSAValue | None, other: int | float) -> SSAValue:
    if ok is None:
        return k.e.load(kind, pointer)
    return k.e.select(ok, k.e.load(kind, k.e.select(ok, pointer, k.spare())), k.e.const(kind, other))


def _read_each(k: Kernel, kind: Attribute, pointers: SSAValue, mask: SSAValue | None, other: int | float) -> SSAValue:
    e, count = k.e, lanes_of(kind) or 1
    every = e.const(vector(i1, count), 1)
    if mask is None:
        return e.gather(kind, pointers, every)
    found = e.gather(kind, e.select(mask, pointers, e.splat(k.spare(), count)), every)
    return e.select(mask, found, e.const(kind, other))


def put(
    k: Kernel,
    value: SSAValue,
    element: Attribute,
    pointer: SSAValue,
    stride: Place,
    at: At,
    streamed: SSAValue | None = None,
) -> None:
    """Write the active lanes, ``stride`` elements apart; past the caches where ``streamed`` holds."""
    e = k.e
    if at.lanes == 1:
        e.store(value, pointer)
        return

    def one_by_one() -> list[SSAValue]:
        put_each(k, value, _apart(k, element, pointer, stride, at.lanes), at.active)
        return []

    def masked() -> list[SSAValue]:
        assert at.active is not None
        _masked_store(k, value, element, pointer, at.active, at.lanes)
        return []

    def plainly() -> list[SSAValue]:
        e.store(value, pointer)
        return []

    def past_caches() -> list[SSAValue]:
        e.store(value, pointer, at.lanes * size_bytes(element), streamed=True)
        return []

    def whole() -> list[SSAValue]:
        return plainly() if streamed is None else e.if_(streamed, past_caches, plainly)

    if stride != 1:
        one_by_one()
    elif at.active is None:
        whole()
    else:
        partial = masked if size_bytes(element) >= 4 else one_by_one
        if isinstance(at.active.owner, llvm.ConstantOp):
            partial()
        else:
            e.if_(all_of(k, at.active), whole, partial)


def put_each(k: Kernel, value: SSAValue, pointers: SSAValue, mask: SSAValue | None) -> None:
    """Write each lane of the mask to its own address."""
    e, count = k.e, lanes_of(pointers.type) or 1
    if mask is not None:
        pointers = e.select(mask, pointers, e.splat(k.spare(), count))
    e.scatter(value, pointers, e.const(vector(i1, count), 1))


def inside(k: Kernel, offset: Place, count: int, extent: Place) -> bool:
    """True if ``count`` elements from ``offset`` on are certain to be among ``extent``."""
    return isinstance(offset, int) and isinstance(extent, int) and 0 <= offset <= extent - count


class Loaded(Tile):
    """``tile.load``: the tile of a block that begins at some offsets."""

    def __init__(
        self,
        k: Kernel,
        memory: Memory,
        offsets: Sequence[Place],
        shape: tuple[int, ...],
        in_bounds: Sequence[int],
        other: int | float,
    ) -> None:
        super().__init__(memory.element, shape)
        self.memory = replace(memory, pointer=memory.address(k, offsets))
        self.offsets = offsets
        self.checked = [
            dim
            for dim, (offset, count, extent) in enumerate(zip(offsets, shape, memory.shape, strict=True))
            if dim not in in_bounds and not inside(k, offset, count, extent)
        ]
        self._ends = [
            k.sub(extent, offset) if dim in self.checked and k.nonnegative(offset) else None
            for dim, (offset, extent) in enumerate(zip(offsets, memory.shape, strict=True))
        ]
        self.other = other
        self.ahead = 0
        """How far on in memory, in elements, is what is asked for when an element is read."""

    def read(self, k: Kernel, at: At) -> SSAValue:
        ok, mask = None, at.active
        for dim in self.checked:
            place = k.add(self.offsets[dim], at.places[dim])
            if dim != at.axis:
                ok = conjunction(k, ok, k.e.icmp("ult", k.ssa(place), k.ssa(self.memory.shape[dim])))
                continue
            if k.is_below(place, k.sub(self.memory.shape[dim], at.lanes)):
                continue
            mask = conjunction(k, mask, lanes_below(k, k.sub(self.memory.shape[dim], place), at.lanes))
            if not k.nonnegative(place):
                before = lanes_below(k, k.sub(0, place), at.lanes)
                mask = conjunction(k, mask, k.e.not_(before))
        stride = 0 if at.axis is None else self.memory.strides[at.axis]
        pointer = self.memory.address(k, at.places)
        if self.ahead and at.lanes > 1 and stride == 1:
            ask(k, k.address(pointer, self.ahead, self.element), self.element, at.lanes)
        return fetch(k, self.element, pointer, stride, at.lanes, ok, mask, self.other)

    def read_ahead(self, *, reduced: bool) -> None:
        """Ask for elements before they are read, where that pays."""
        self.ahead = rows_ahead(self.shape, self.memory.strides, size_bytes(self.element), reduced=reduced)

    def is_contiguous(self, axis: int) -> bool:
        stride = self.memory.strides[axis]
        return isinstance(stride, int) and stride in (0, 1)

    @property
    def is_plain(self) -> bool:
        return not self.checked

    def apart(self, axis: int) -> int | None:
        stride = self.memory.strides[axis]
        return stride * size_bytes(self.element) if isinstance(stride, int) else None

    def address(self, k: Kernel, places: Sequence[Place]) -> SSAValue | None:
        return self.memory.address(k, places)

    def end(self, axis: int) -> Place | None:
        return self._ends[axis] if self.other == 0 else None

    def before_end(self, axis: int) -> Tile:
        found = copy(self)
        found.checked = [dim for dim in self.checked if dim != axis or self._ends[axis] is None]
        return found


class Gathered(Tile):
    """``tile.gather``: elements of a block at places that tiles hold."""

    def __init__(
        self,
        memory: Memory,
        indices: Sequence[Tile],
        mask: Tile | None,
        shape: tuple[int, ...],
        other: int | float,
    ) -> None:
        super().__init__(memory.element, shape, [*indices, *([] if mask is None else [mask])])
        self.width = size_bytes(memory.element)
        self.memory = memory
        self.indices = indices
        self.mask = mask
        self.other = other

    def read(self, k: Kernel, at: At) -> SSAValue:
        chosen = None if self.mask is None else k.read(self.mask, at)
        stride = apart(self.indices, self.memory, at.axis)
        if at.lanes == 1 or stride is not None:
            first = replace(at, axis=None, lanes=1, active=None)
            pointer = self.address(k, first.places)
            if at.lanes == 1:
                return fetch(k, self.element, pointer, 0, 1, chosen, None, self.other)
            mask = conjunction(k, at.active, chosen)
            if self.width * abs(stride or 0) >= LINE_BYTES:
                there = self.address(k, place_ahead(k, self.shape, at.places, at.axis or 0, at.lanes))
                ask(k, there, self.element, at.lanes, stride or 0)

            def load() -> SSAValue:
                return fetch(k, self.element, pointer, stride or 0, at.lanes, None, mask, self.other)

            return k.once((self, pointer, at.lanes, mask), load)  # places may have the same address
        pointers = element_addresses(k, self.indices, self.memory, at)
        mask = conjunction(k, at.active, chosen)
        return _read_each(k, vector(self.element, at.lanes), pointers, mask, self.other)

    def address(self, k: Kernel, places: tuple[Place, ...]) -> SSAValue:
        """The address of an element, whether or not it is read."""
        return self.memory.address(k, [k.place(k.read(index, At(places))) for index in self.indices])

    def is_contiguous(self, axis: int) -> bool:
        return apart(self.indices, self.memory, axis) in (0, 1)


def apart(indices: Sequence[Tile], memory: Memory, axis: int | None) -> int | None:
    """How far apart in memory the elements are along an axis, if that is the same number for all."""
    if axis is None:
        return 0
    total = 0
    for index, stride in zip(indices, memory.strides, strict=True):
        step = index.step(axis)
        if step is None or (step and not isinstance(stride, int)):
            return None
        total += step * stride if isinstance(stride, int) else 0
    return total


def element_addresses(k: Kernel, indices: Sequence[Tile], memory: Memory, at: At) -> SSAValue:
    """The address of each lane's element."""
    position = k.position([k.read(index, at) for index in indices], memory.strides)
    if isinstance(position, int):
        position = k.e.const(vector(i64, at.lanes), position)
    return k.e.element(memory.pointer, k.ssa(position), memory.element)


def read_apart(k: Kernel, tile: Tile, count: int) -> list[Tile]:
    """A tile in memory as so many that LLVM takes for different ones: AVX-512 repeats a number of memory in all lanes
    as part of a multiply-add, at no cost, but LLVM would do that once, by an instruction of its own, for what is read
    twice.
    """
    if k.e.register_bytes < 64:
        return [tile] * count
    return [tile, *(_elsewhere(k, tile) for _ in range(count - 1))]


def _elsewhere(k: Kernel, tile: Tile) -> Tile:
    if isinstance(tile, Stored):
        return Stored(tile.buffer.at(k.e.opaque(tile.buffer.pointer)))
    if isinstance(tile, Loaded):
        found = copy(tile)
        found.memory = replace(tile.memory, pointer=k.e.opaque(tile.memory.pointer))
        return found
    if isinstance(tile, Broadcast):
        return Broadcast(_elsewhere(k, tile.operand), tile.along, tile.shape)
    return tile
