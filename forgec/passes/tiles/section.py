"""A section of a kernel: results of one shape, and how the programs of a grid and their tiles cover it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from math import prod
from typing import Any

from xdsl.ir import Block, Operation, SSAValue

from forgec.ir import types
from forgec.ir.tile import compute
from forgec.ir.tile.kernel import ProgramIdOp
from forgec.passes.tiles.axes import Axes, Axis, Place, axis_symbol, linear_parts, renamed
from forgec.passes.tiles.kernel_builder import KernelBuilder, NotLowered, Rule
from forgec.passes.tiles.parts import Part
from forgec.passes.tiles.update import UPDATES
from forgec.runtime.symbolic import Extent, free_symbols, symbol

ROUNDS = 8
"""Runs in which axes are split; each splits at least one, and no reshape of a transformer needs more than three."""


@dataclass
class Output:
    """A result of the group, or a ``part`` of it: its value inside, and the block that it is written to; ``update`` is
    the op that makes it by changing what the block holds.
    """

    value: SSAValue
    parameter: SSAValue
    update: Any | None = None
    part: Part | None = None

    @property
    def shape(self) -> tuple[Extent, ...]:
        """The places over which programs run."""
        if self.part is not None:
            return self.part.shape
        return types.shape(self.value) if self.update is None else UPDATES[type(self.update)].shape(self.update)

    def write(self, k: KernelBuilder, place: Place, axes: tuple[Axis, ...]) -> None:
        """Compute and store what belongs to a place."""
        if self.part is not None:
            place = self.part.place(k.axes, place)
        if self.update is None:
            k.store(k.value(self.value, place), self.parameter, place, axes)
            return
        change = UPDATES[type(self.update)].change(k, self.update, place)
        k.store(change.value, self.parameter, change.place, axes, change.mask, change.combine)


@dataclass
class Section:
    """Results of one shape. ``dims`` are the axes of each dimension, outer ones first: a place along the dimension is
    their number in mixed radix.
    """

    outputs: list[Any]
    """``Output``, or what writes several results by itself (``scans.ScanOutput``)."""
    shape: tuple[Extent, ...]
    axes: Axes = field(default_factory=Axes)
    dims: list[list[Axis]] = field(default_factory=list)
    unrolled: set[str] = field(default_factory=set)
    joined: set[str] = field(default_factory=set)
    """Axes that the next one runs through as well. They keep their place in ``dims``, since what stands before them
    counts in their extents, but are always at 0.
    """
    counter: int = 0

    def __post_init__(self) -> None:
        for extent in self.shape:
            self.dims.append([] if extent == 1 else [self._axis(extent)])

    def _axis(self, extent: Extent) -> Axis:
        axis = Axis(axis_symbol("ax", self.counter), extent, self.counter, "grid")
        self.counter += 1
        return self.axes.add(axis)

    @property
    def own(self) -> list[Axis]:
        """The section's axes, outer ones first."""
        return [axis for axes in self.dims for axis in axes if axis.name not in self.joined]

    @property
    def place(self) -> Place:
        """The place in the results, by the axes."""
        return tuple(_mixed(axes, self.joined) for axes in self.dims)

    # Arrangement
    # ---------------------------------------------------------------------------------------------------------------

    def arrange(self, rules: dict[type[Operation], Rule], parameters: dict[SSAValue, SSAValue]) -> None:
        """Split the axes so that reshapes need no division, join those that all accesses run through together, and say
        what each is for.
        """
        for _ in range(ROUNDS):
            notes = self._trial(rules, parameters)
            if not self._split(notes):
                break
        self._join(notes)
        self._assign(notes)

    def _trial(self, rules: dict[type[Operation], Rule], parameters: dict[SSAValue, SSAValue]) -> KernelBuilder:
        """A run whose ops are thrown away; yields the builder with its notes."""
        axes = Axes({axis.name: axis for axis in self.own}, frozenset(self.shape))
        for axis in self.own:
            axis.role, axis.size, axis.depth = "grid", 1, 0
        block = Block()
        k = KernelBuilder(rules, parameters, axes, block)
        for axis in self.own:
            if axis.name not in self.unrolled:
                k.starts[axis.name] = k.add(ProgramIdOp(0))
        self._write(k)
        return k

    def _split(self, notes: KernelBuilder) -> bool:
        found = False
        names = {axis.name for axis in self.own}
        wanted: dict[str, list[Extent]] = {}
        for name, divisor in notes.splits:
            if name in names:
                wanted.setdefault(name, []).append(divisor)
        for axes in self.dims:
            for position, axis in reversed(list(enumerate(axes))):
                divisor = _divisor(axis.extent, wanted.get(axis.name, []))
                if divisor is None:
                    continue
                found = True
                outer, inner = self._axis(axis.extent // divisor), self._axis(divisor)
                axes[position : position + 1] = [outer, inner]
                if (axis.name, divisor) in notes.unroll_splits:
                    self.unrolled.add(outer.name)
        known = {axis.name for axis in self.own}
        self.axes = Axes({axis.name: axis for axis in self.own}, frozenset(self.shape))
        self.unrolled &= known
        return found

    def _join(self, notes: KernelBuilder) -> None:
        """Join neighbours that every address runs through as one: the outer axis then has one place."""
        names = [axis.name for axis in self.own]
        parts = [linear_parts(address, names) for address in dict.fromkeys(notes.addresses)]
        classes = {axis.name: self._class_of(axis, notes) for axis in self.own}
        following = self.own[::-1]
        inner = following[0] if following else None
        for outer in following[1:]:
            assert inner is not None, "there is an axis after each but the last"
            kind = classes[outer.name]
            if kind is None or kind != classes[inner.name] or not _run_together(parts, outer, inner):
                inner = outer
                continue
            inner.extent = inner.extent * outer.extent
            parts = [_without(found, outer.name) for found in parts]
            self.joined.add(outer.name)
        self.axes = Axes({axis.name: axis for axis in self.own}, frozenset(self.shape))

    def _class_of(self, axis: Axis, notes: KernelBuilder) -> tuple[bool, ...] | None:
        if axis.name in self.unrolled or axis.name in notes.whole:
            return None
        return tuple(axis.name in group for group in (notes.rows, notes.columns, notes.batch))

    def _assign(self, notes: KernelBuilder) -> None:
        """Give every axis its role."""
        for position, axis in enumerate(self.own):
            axis.order = position
        free = [axis for axis in self.own if axis.name not in self.unrolled]
        whole = notes.whole | self._normalized(free, notes)
        for axis in free:
            axis.role = "whole" if axis.name in whole else "grid"
        others = [axis for axis in free if axis.role == "grid" and axis.name not in notes.batch]
        if notes.rows or notes.columns:
            rows = [axis for axis in others if axis.name in notes.rows and axis.name not in notes.columns]
            columns = [axis for axis in others if axis.name in notes.columns and axis.name not in notes.rows]
            chosen = [max(rows, key=_length)] if rows else []
            if not any(axis.role == "whole" and axis.name in notes.columns for axis in free):
                chosen += columns[-1:]
        elif any(axis.role == "whole" for axis in free):
            chosen = others[-1:]
        else:
            chosen = others[-2:]
        chosen += [axis for axis in others if axis.name in notes.scanned and axis not in chosen]
        for axis in chosen:
            axis.role, axis.panel = "tile", notes.panels.get(axis.name, 0)

    def _normalized(self, free: Sequence[Axis], notes: KernelBuilder) -> set[str]:
        """The last axis where rows of its extent are reduced, as a norm does: then a row is read once, for both."""
        last = free[-1] if free else None
        if notes.whole or last is None or last.name in notes.rows | notes.batch:
            return set()
        parts = self._parts(last)
        rows = {last.extent, parts * last.extent} if parts else {last.extent}
        is_reduced = any(extent in rows and last.name not in used for extent, used in notes.reduced)
        return {last.name} if is_reduced else set()

    def _parts(self, axis: Axis) -> int:
        """Of how many parts an axis is one, where the axes before it in its dimension are unrolled; else 0."""
        for axes in self.dims:
            if len(axes) == 2 and axes[1] is axis and axes[0].name in self.unrolled:
                return _constant(axes[0].extent)
        return 0

    # Emission
    # ------------------------------------------------------------------------------------------------------------

    def grid(self) -> list[Extent]:
        """How many programs there are along each axis that is not whole."""
        return [_programs(axis) for axis in self._gridded()]

    def _gridded(self) -> list[Axis]:
        return [axis for axis in self.own if axis.name not in self.unrolled and axis.role != "whole"]

    def sizes(self, k: KernelBuilder) -> None:
        """Give the tiled axes their tile parameters: BM for rows, BN for columns, BD for what is whole."""
        tiled = [axis for axis in self.own if axis.role == "tile"]
        columns = not any(axis.role == "whole" for axis in self.own)
        last = tiled[-1] if tiled and columns else None
        for axis in self.own:
            if axis.name in self.unrolled:
                continue
            k.size(axis, "BD" if axis.role == "whole" else "BN" if axis is last else "BM")

    def emit(self, k: KernelBuilder, programs: Sequence[SSAValue]) -> None:
        """The section's body; ``programs`` are the program's places in ``grid()``."""
        for axis, program in zip(self._gridded(), programs, strict=True):
            if axis.role == "grid":
                k.starts[axis.name] = program
            else:
                k.starts[axis.name] = k.add(compute.IndexOp(symbol("p0") * axis.size, [program]))
        for axis in self.own:
            if axis.role == "whole" and self._parts(axis):
                k.parts[self._parts(axis) * axis.extent] = (self._parts(axis), axis)
        self._write(k)

    def _write(self, k: KernelBuilder) -> None:
        axes = tuple(axis for axis in self.own if axis.is_tiled and axis.name not in self.unrolled)
        for numbers in self._unrolled_places():
            place = tuple(renamed(at, numbers) for at in self.place)
            for output in self.outputs:
                output.write(k, place, axes)

    def _unrolled_places(self) -> Iterator[dict[str, Extent]]:
        axes = [axis for axis in self.own if axis.name in self.unrolled]
        for numbers in product(*(range(_constant(axis.extent)) for axis in axes)):
            yield dict(zip((axis.name for axis in axes), numbers, strict=True))


def _constant(extent: Extent) -> int:
    if not isinstance(extent, int):
        raise NotLowered("an axis of unknown extent cannot be unrolled")
    return extent


def _mixed(axes: Sequence[Axis], joined: set[str]) -> Extent:
    at: Extent = 0
    for axis in axes:
        at = at * axis.formal + (0 if axis.name in joined else axis.symbol)
    return at


def _divisor(extent: Extent, wanted: Sequence[Extent]) -> Extent | None:
    """The greatest wanted divisor that divides an extent without rest and is not all of it."""
    fitting = []
    for divisor in dict.fromkeys(wanted):
        if divisor in (1, extent):
            continue
        rest = extent % divisor
        if isinstance(rest, int) and rest == 0:
            fitting.append(divisor)
    if not fitting:
        return None
    numbers = [divisor for divisor in fitting if isinstance(divisor, int)]
    return max(numbers) if len(numbers) == len(fitting) else fitting[0]


def _run_together(parts: Sequence[tuple[Extent, dict[str, Extent]] | None], outer: Axis, inner: Axis) -> bool:
    for found in parts:
        if found is None:
            return False
        rest, strides = found
        if {outer.name, inner.name} & free_symbols(rest):
            return False
        if strides.get(outer.name, 0) != strides.get(inner.name, 0) * inner.extent:
            return False
    return True


def _without(found: tuple[Extent, dict[str, Extent]] | None, name: str) -> tuple[Extent, dict[str, Extent]] | None:
    return None if found is None else (found[0], {key: value for key, value in found[1].items() if key != name})


def _length(axis: Axis) -> tuple[int, int, int]:
    """Sorts axes by how many places they have; those of unknown extent are taken for long."""
    static = isinstance(axis.extent, int)
    return (0 if static else 1, axis.extent if isinstance(axis.extent, int) else 0, axis.order)


def _programs(axis: Axis) -> Extent:
    if axis.role == "grid":
        return axis.extent
    return (axis.extent + axis.size - 1) // axis.size


def programs_of(grid: Sequence[Extent]) -> Extent:
    """The number of programs of a section."""
    return prod(grid, start=1)
