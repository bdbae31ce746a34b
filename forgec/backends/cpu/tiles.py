"""Tiles while a kernel is emitted: stored in memory of the frame, or deferred, that is, computed where they are read.

A tile is read a few consecutive elements at a time (``At``): the *lanes*, along one axis, as one vector. A deferred
tile reads its operands at the places that it needs, so that a chain of ops becomes one loop nest without buffers in
between.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from copy import copy
from dataclasses import dataclass, replace

from xdsl.ir import Attribute, SSAValue

from forgec.backends.cpu.emitter import Emitter
from forgec.backends.cpu.llvm_types import i1, i32, i64, lanes, size_bytes, vector
from forgec.backends.cpu.places import Place, Places, Sum
from forgec.runtime.symbolic import Extent, SymExpr, free_symbols
from forgec.runtime.symbolic.atoms import Atom

VECTOR_BYTES = 64
"""Lanes of the widest type of an expression fill so many bytes: one register of AVX-512, two of AVX2."""
ONE_BY_ONE = VECTOR_BYTES
"""The width, in ``loop_nest``, that leaves one lane."""
SLACK = 512
"""Bytes after each buffer that a vector which begins in it may touch."""


@dataclass(frozen=True, slots=True)
class At:
    """Where a tile is read: the place of the first element, and how many follow along ``axis``.

    ``active`` are the lanes that are elements of the tile (i1 each; None means all): the others may hold anything.
    """

    places: tuple[Place, ...]
    axis: int | None = None
    lanes: int = 1
    active: SSAValue | None = None

    def along(self, places: tuple[Place, ...], axis: int | None) -> At:
        """The same lanes of another tile, or its one element where the lanes do not run along an axis of it."""
        return At(places) if axis is None else At(places, axis, self.lanes, self.active)


class Tile:
    """A tile of known extents. ``width`` are the bytes of the widest element that is computed when it is read."""

    def __init__(self, element: Attribute, shape: tuple[int, ...], operands: Sequence[Tile] = ()) -> None:
        self.element = element
        self.shape = shape
        self.width = max([size_bytes(element), *(operand.width for operand in operands)])
        self.buffers: dict[Buffer, bool] = {}
        """The memory of the frame that is read, and whether only at the place that is asked for."""
        for operand in operands:
            for buffer, aligned in operand.buffers.items():
                self.buffers[buffer] = self.buffers.get(buffer, True) and aligned and operand.shape == shape

    def read(self, k: Kernel, at: At) -> SSAValue:
        """The elements, a vector if there is more than one lane."""
        raise NotImplementedError

    def step(self, axis: int) -> int | None:
        """By how much elements grow from one to the next along an axis, if they do so evenly."""
        return 1 if self.shape[axis] == 1 else None

    def is_contiguous(self, axis: int) -> bool:
        """True if lanes along the axis are read as vectors, not one by one."""
        return True

    @property
    def is_plain(self) -> bool:
        """True if reading elements is a load without conditions."""
        return False

    def apart(self, axis: int) -> int | None:
        """The bytes in memory from one place to the next along an axis, where that is a number."""
        return None

    def address(self, k: Kernel, places: Sequence[Place]) -> SSAValue | None:
        """Where elements are read from memory of others; None for tiles that are computed or lie in the frame."""
        return None

    def end(self, axis: int) -> Place | None:
        """A place along an axis from which on all elements are 0; None if that is not known."""
        return None

    def before_end(self, axis: int) -> Tile:
        """The tile for who reads no place from ``end`` on."""
        return self


class Kernel(Places):
    """What is being emitted: the emitter, and the elements that were read since the current loop nest began."""

    def __init__(self, emitter: Emitter) -> None:
        super().__init__(emitter)
        self._known: list[dict[Hashable, SSAValue]] = [{}]
        self._spare: SSAValue | None = None
        self.frame_bytes = 0

    def read(self, tile: Tile, at: At) -> SSAValue:
        """Elements of a tile, computed once for each place of a loop nest."""
        return self.once((tile, at), lambda: tile.read(self, at))

    def once(self, key: Hashable, make: Callable[[], SSAValue]) -> SSAValue:
        """What ``make`` computes or reads, once in a loop nest."""
        for known in reversed(self._known):
            if (found := known.get(key)) is not None:
                return found
        found = self._known[-1][key] = make()
        return found

    def spread(self, value: SSAValue, count: int) -> SSAValue:
        """The same number in so many lanes, made once in a loop nest."""
        return self.once(("spread", value, count), lambda: self.e.splat(value, count))

    def nested(self, emit: Callable[[], Sequence[SSAValue]]) -> Sequence[SSAValue]:
        """Emit code that is not always run: what it reads is not known after it."""
        outer = self._known
        self._known = [*outer, {}]
        found = emit()
        self._known = outer
        return found

    def begin_nest(self) -> None:
        """What was read before may have changed, or stands in a loop that has ended."""
        self._known = [{}]

    def loop(
        self,
        start: Place,
        end: Place,
        step: int,
        body: Callable[[Place, list[SSAValue]], Sequence[SSAValue]],
        carried: Sequence[SSAValue] = (),
    ) -> list[SSAValue]:
        return super().loop(start, end, step, lambda i, values: self.nested(lambda: body(i, values)), carried)

    def spare(self) -> SSAValue:
        """Memory for what must be read or written somewhere, and where does not matter."""
        if self._spare is None:
            self._spare = self.e.alloca(i64, 2 * SLACK // 8)
        return self._spare

    def buffer(self, element: Attribute, shape: Sequence[int], *, spread: bool = False) -> Buffer:
        """Memory for a tile; ``spread``: its rows begin in different sets of a cache."""
        found = Buffer(self.e, element, tuple(shape), spread=spread)
        self.frame_bytes += found.bytes
        return found


class Buffer:
    """Memory of the frame for a tile: row-major, rows filled up so that whole vectors can be read and written."""

    def __init__(
        self,
        e: Emitter,
        element: Attribute,
        shape: tuple[int, ...],
        pointer: SSAValue | None = None,
        *,
        spread: bool = False,
    ) -> None:
        self.element = element
        self.shape = shape
        self.spread = spread
        axis = lane_axis(shape)
        strides = [1] * len(shape)
        step = 1
        for dim in reversed(range(len(shape))):
            strides[dim] = step
            extent = shape[dim]
            if dim == axis:
                lanes_at_most = min(VECTOR_BYTES, power_of_two_from(extent))
                extent = -(-extent // lanes_at_most) * lanes_at_most
                if spread:
                    extent += VECTOR_BYTES // size_bytes(element)
            step *= extent
        self.strides = tuple(strides)
        self.bytes = step * size_bytes(element) + SLACK
        slack = -(-SLACK // size_bytes(element))
        self.pointer = e.alloca(element, step + slack) if pointer is None else pointer

    def at(self, pointer: SSAValue) -> Buffer:
        """Memory of the same form elsewhere."""
        found = copy(self)
        found.pointer = pointer
        return found

    def address(self, k: Kernel, places: Sequence[Place]) -> SSAValue:
        return k.address_at(self.pointer, places, self.strides, self.element)

    def write(self, k: Kernel, value: SSAValue, at: At) -> None:
        """Store elements; the lanes run along the axis that is stored without gaps."""
        if at.axis is None or self.strides[at.axis] == 1:
            k.e.store(value, self.address(k, at.places))
            return
        for lane in range(at.lanes):
            places = list(at.places)
            places[at.axis] = k.add(places[at.axis], lane)
            k.e.store(k.e.extract(value, lane), self.address(k, places))


class Stored(Tile):
    """A tile in memory of the frame."""

    def __init__(self, buffer: Buffer) -> None:
        super().__init__(buffer.element, buffer.shape)
        self.buffer = buffer
        self.buffers = {buffer: True}

    def read(self, k: Kernel, at: At) -> SSAValue:
        e, pointer = k.e, self.buffer.address(k, at.places)
        if at.lanes == 1 or at.axis is None:
            return e.load(self.element, pointer)
        stride = self.buffer.strides[at.axis]
        kind = vector(self.element, at.lanes)
        if stride == 1:
            return e.load(kind, pointer)
        found = e.poison(kind)
        for lane in range(at.lanes):
            place = min(lane, self.shape[at.axis] - 1) if at.active is not None else lane
            found = e.insert(found, e.load(self.element, e.element(pointer, place * stride, self.element)), lane)
        return found

    def is_contiguous(self, axis: int) -> bool:
        return self.buffer.strides[axis] == 1

    @property
    def is_plain(self) -> bool:
        return True


class Splat(Tile):
    """The same scalar everywhere."""

    def __init__(self, value: SSAValue, shape: tuple[int, ...], element: Attribute | None = None) -> None:
        super().__init__(value.type if element is None else element, shape)
        self.value = value

    def read(self, k: Kernel, at: At) -> SSAValue:
        return self.value if at.lanes == 1 else k.spread(self.value, at.lanes)

    def step(self, axis: int) -> int | None:
        return 0


class Range(Tile):
    """0, 1, 2, …"""

    def __init__(self, extent: int) -> None:
        super().__init__(i64, (extent,))
        self.width = 1  # places are computed beside what is moved, not by it

    def read(self, k: Kernel, at: At) -> SSAValue:
        found = counting(k, at.places[0], 1, at.lanes)
        return k.assume_below(found, self.shape[0] + at.lanes) if at.lanes > 1 else found

    def step(self, axis: int) -> int | None:
        return 1


class Index(Tile):
    """An expression of places; ``values`` are its symbols and scalar operands, ``tiles`` those that are tiles."""

    def __init__(
        self, expression: Extent, values: dict[str, Place], tiles: dict[str, Tile], shape: tuple[int, ...]
    ) -> None:
        super().__init__(i64, shape, list(tiles.values()))
        self.width = max([1, *(operand.width for operand in tiles.values())])
        self.expression = expression
        self.values = values
        self.tiles = tiles

    def read(self, k: Kernel, at: At) -> SSAValue:
        step = 0 if at.axis is None else self.step(at.axis)
        inner = replace(at, axis=None, lanes=1, active=None) if step is not None else at
        values = {**self.values}
        for name, operand in self.tiles.items():
            values[name] = k.place(k.read(operand, inner))
        found = k.evaluate(self.expression, values)
        if at.lanes == 1:
            return k.ssa(found)
        if step is not None:
            return counting(k, found, step, at.lanes)
        found = k.ssa(found)
        return found if lanes(found.type) is not None else k.e.splat(found, at.lanes)

    def step(self, axis: int) -> int | None:
        if self.shape[axis] == 1:
            return 1
        total = 0
        for monomial, coefficient in self.expression.terms if isinstance(self.expression, SymExpr) else ():
            factors = [self._atom_step(atom, axis) for atom in monomial]
            if any(factor is None for factor in factors):
                return None
            if any(factors):
                if len(monomial) > 1:
                    return None
                total += coefficient * (factors[0] or 0)
        return total

    def _atom_step(self, atom: Atom, axis: int) -> int | None:
        if atom.op == "symbol":
            return self._symbol_step(atom.text, axis)
        used = (name for argument in atom.args for name in free_symbols(argument))
        return 0 if all(self._symbol_step(name, axis) == 0 for name in used) else None

    def _symbol_step(self, name: str, axis: int) -> int | None:
        return self.tiles[name].step(axis) if name in self.tiles else 0


def counting(k: Kernel, first: Place, step: int, count: int) -> SSAValue:
    """``first, first + step, …`` as a vector; the scalar where there is one lane."""
    if count == 1:
        return k.ssa(first)
    if step == 0:
        return k.e.splat(k.ssa(first), count)
    numbers = k.e.const_vector(i64, [step * lane for lane in range(count)])
    return numbers if first == 0 else k.e.add(k.e.splat(k.ssa(first), count), numbers, nsw=True)


class Elementwise(Tile):
    """An op of ``arith`` or ``math`` on tiles; operands that are values are the same scalar everywhere."""

    def __init__(
        self,
        element: Attribute,
        shape: tuple[int, ...],
        compute: Callable[[Emitter, list[SSAValue]], SSAValue],
        operands: Sequence[Tile],
    ) -> None:
        super().__init__(element, shape, operands)
        self.compute = compute
        self.operands = operands

    def read(self, k: Kernel, at: At) -> SSAValue:
        values = [k.read(operand, at) for operand in self.operands]
        return k.once((self, *values), lambda: self.compute(k.e, values))  # places may have the same operands

    def step(self, axis: int) -> int | None:
        steps = [operand.step(axis) for operand in self.operands]
        return 0 if all(step == 0 for step in steps) else super().step(axis)

    def is_contiguous(self, axis: int) -> bool:
        return all(operand.is_contiguous(axis) for operand in self.operands)


class MultiplyAdd(Elementwise):
    """``a · b + c``: three operands, of which products make use where ``b`` and ``c`` are those of many ``a``."""


class Product(Elementwise):
    """``a · b``, of floats."""


class Broadcast(Tile):
    """Operand axis ``i`` is axis ``along[i]``; extents of 1 are repeated."""

    def __init__(self, operand: Tile, along: Sequence[int], shape: tuple[int, ...]) -> None:
        super().__init__(operand.element, shape, [operand])
        self.operand = operand
        self.along = along

    def read(self, k: Kernel, at: At) -> SSAValue:
        places: list[Place] = []
        axis: int | None = None
        for own, target in enumerate(self.along):
            repeated = self.operand.shape[own] == 1
            places.append(0 if repeated else at.places[target])
            if target == at.axis and not repeated:
                axis = own
        found = k.read(self.operand, at.along(tuple(places), axis))
        return found if axis is not None or at.lanes == 1 else k.spread(found, at.lanes)

    def step(self, axis: int) -> int | None:
        for own, target in enumerate(self.along):
            if target == axis and self.operand.shape[own] != 1:
                return self.operand.step(own)
        return 0

    def is_contiguous(self, axis: int) -> bool:
        return axis not in self.along or self.operand.is_contiguous(list(self.along).index(axis))


class Transpose(Tile):
    """Axis ``i`` is axis ``permutation[i]`` of the operand."""

    def __init__(self, operand: Tile, permutation: Sequence[int]) -> None:
        super().__init__(operand.element, tuple(operand.shape[axis] for axis in permutation), [operand])
        self.buffers = dict.fromkeys(operand.buffers, False)
        self.operand = operand
        self.permutation = permutation

    def read(self, k: Kernel, at: At) -> SSAValue:
        places: list[Place] = [0] * len(self.permutation)
        for place, axis in zip(at.places, self.permutation, strict=True):
            places[axis] = place
        return k.read(self.operand, at.along(tuple(places), None if at.axis is None else self.permutation[at.axis]))

    def step(self, axis: int) -> int | None:
        return self.operand.step(self.permutation[axis])

    def is_contiguous(self, axis: int) -> bool:
        return self.operand.is_contiguous(self.permutation[axis])

    @property
    def is_plain(self) -> bool:
        return self.operand.is_plain

    def apart(self, axis: int) -> int | None:
        return self.operand.apart(self.permutation[axis])

    def address(self, k: Kernel, places: Sequence[Place]) -> SSAValue | None:
        turned: list[Place] = [0] * len(self.permutation)
        for place, axis in zip(places, self.permutation, strict=True):
            turned[axis] = place
        return self.operand.address(k, turned)

    def end(self, axis: int) -> Place | None:
        return self.operand.end(self.permutation[axis])

    def before_end(self, axis: int) -> Tile:
        return Transpose(self.operand.before_end(self.permutation[axis]), self.permutation)


class Padded(Tile):
    """``other`` where an element's place is not below the limit of an axis (None: it always is)."""

    def __init__(self, operand: Tile, limits: Sequence[Place | None], other: int | float) -> None:
        super().__init__(operand.element, operand.shape, [operand])
        self.operand = operand
        self.limits = limits
        self.other = other

    def read(self, k: Kernel, at: At) -> SSAValue:
        e, found = k.e, k.read(self.operand, at)
        for axis, limit in enumerate(self.limits):
            if limit is None:
                continue
            if axis == at.axis:
                inside = lanes_below(k, k.sub(limit, at.places[axis]), at.lanes)
            else:
                inside = e.icmp("slt", k.ssa(at.places[axis]), k.ssa(limit))
            found = e.select(inside, found, self.other)
        return found

    def is_contiguous(self, axis: int) -> bool:
        return self.operand.is_contiguous(axis)

    def end(self, axis: int) -> Place | None:
        limit = self.limits[axis] if self.other == 0 else None
        return self.operand.end(axis) if limit is None else limit

    def before_end(self, axis: int) -> Tile:
        limits = [None if dim == axis and self.other == 0 else limit for dim, limit in enumerate(self.limits)]
        operand = self.operand if self.limits[axis] is not None else self.operand.before_end(axis)
        return operand if all(limit is None for limit in limits) else Padded(operand, limits, self.other)


def lanes_below(k: Kernel, count: Place, total: int) -> SSAValue:
    """The mask of the first ``count`` of so many lanes, whatever number that is."""
    e = k.e
    if isinstance(count, int):
        return e.const_vector(i1, [int(lane < count) for lane in range(total)])

    def below() -> SSAValue:
        bound = e.trunc(e.smin(e.smax(k.ssa(count), 0), total), i32)
        return e.icmp("ult", e.iota(i32, total), e.splat(bound, total))

    return e.once_outside(("lanes below", count, total), (count.value if isinstance(count, Sum) else count,), below)


def power_of_two_from(number: int) -> int:
    """The least power of two that is not less."""
    return 1 << max(0, number - 1).bit_length()


def lane_axis(shape: Sequence[int]) -> int | None:
    """The innermost axis of more than one element."""
    return next((axis for axis in reversed(range(len(shape))) if shape[axis] > 1), None)


def lane_count(extent: int, width: int) -> int:
    return min(max(1, VECTOR_BYTES // width), power_of_two_from(extent))
