"""Builds one kernel: values of a group at places, as tiles."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import gcd
from typing import Any

from xdsl.dialects.builtin import UnitAttr
from xdsl.ir import Block, Operation, SSAValue

from forgec.ir import types
from forgec.ir.attributes import ScalarAttr
from forgec.ir.ops.base import ForgeOp, producer
from forgec.ir.ops.shape import TransposeOp
from forgec.ir.tile import compute, memory
from forgec.ir.tile.elementwise import CmpiOp
from forgec.ir.tile.types import BlockType, tile
from forgec.passes.tiles.axes import Axes, Axis, Place, divided_axes, linear_parts, rejoined
from forgec.passes.tiles.tile_emitter import NotLowered, Tile, TileEmitter
from forgec.runtime.symbolic import Extent, floordiv, free_symbols, is_nonnegative, mod, symbol

PANEL_ROWS = "tile.panel_rows"
"""Marks a gather that reads rows of a panel as vectors."""

Rule = Callable[["KernelBuilder", Any, int, Place], Tile]
"""Computes result number i of an op at a place."""


LEAST_PANEL = 16
"""Tiles of fewer rows than this are not worth to be the panels of an operand that lies so by chance."""
LEAST_SHARE = 8
"""Fewer rows of a panel than this, or twice as many of an axis longer than a panel, are not read as a tile of it."""


@dataclass(frozen=True)
class RowsInPanels:
    """Rows of a matrix in panels of ``panel`` rows: ``row`` is ``first``, where a panel begins, and ``within`` it, and
    the axis' place. Tiles have ``size`` rows: a panel, or a share of one.
    """

    row: Extent
    axis: Axis
    first: Extent
    within: int
    panel: int
    size: int


def _share(extent: Extent, within: int, panel: int) -> int:
    """The rows of tiles, from a place within a panel on, none of which reaches beyond its panel; 0 where they would be
    too few.
    """
    size = gcd(within, panel)
    if isinstance(extent, int) and LEAST_SHARE <= extent < size and size % extent == 0:
        size = extent
    is_short = isinstance(extent, int) and extent <= panel
    return size if size >= min(panel, LEAST_SHARE if is_short else 2 * LEAST_SHARE) else 0


class KernelBuilder(TileEmitter):
    """Emits the body of a kernel: values of a group at places, and what they read and write.

    ``value`` is the one way to get a value of the group: it finds the rule of the op that computes it, or loads it.
    """

    def __init__(
        self, rules: dict[type[Operation], Rule], parameters: dict[SSAValue, SSAValue], axes: Axes, block: Block
    ) -> None:
        super().__init__(axes, block)
        self.rules = rules
        self.parameters = parameters
        self.bound: dict[SSAValue, Callable[[Place], Tile]] = {}
        """Values that something else than an op of the group computes, at a place."""
        self.stepped: dict[SSAValue, int] = {}
        """Values that differ from one iteration of a loop to the next, whatever the place: the loop's depth."""
        self.checks: list[str] = []

    # Values
    # --------------------------------------------------------------------------------------------------------------

    def value(self, value: SSAValue, place: Place) -> Tile:
        """A value of the group at a place (one expression for each of its dimensions)."""
        depth = max(self.depth_of(*place), self.stepped.get(value, 0))
        return self.remembered((value, place), depth, lambda: self._compute(value, place))

    def _compute(self, value: SSAValue, place: Place) -> Tile:
        op = producer(value)
        if value in self.parameters:
            return self.load(value, place)
        if value in self.bound:
            return self.bound[value](place)
        rule = None if op is None else self.rules.get(type(op))
        if op is None or rule is None or not isinstance(op, ForgeOp):
            raise NotLowered(f"{'a value' if op is None else op.name} has no rule")
        before, self.location = self.location, op.location or self.location
        try:
            return rule(self, op, list(op.results).index(value), place)  # type: ignore[arg-type]
        finally:
            self.location = before

    # Memory
    # --------------------------------------------------------------------------------------------------------------

    def load(self, value: SSAValue, place: Place, mask: Tile | None = None, other: float | int | bool = 0) -> Tile:
        """An operand of the group at a place; where ``mask`` (booleans) is false nothing is read, and the element is
        ``other``.
        """
        parameter = self.parameters[value]
        assert isinstance(parameter.type, BlockType), "parameters are blocks"
        held = parameter.type.value
        rows = self._rows_in_panels(types.shape(held), place) if _is_in_panels(value) else None
        if rows is not None and mask is None and other == 0 and rows.axis.panel == rows.size:
            loaded = self._load_panel(parameter, rows, place[1])
            if loaded is not None:
                return loaded
        address = _address(place, types.strides(held))
        axes = self.tiled(*place)
        if rows is None:
            self._note(address, place)
        else:
            self.panels[rows.axis.name] = rows.size
            self._note(rows.row * types.shape(held)[1] + place[1], (place[1],))
        parts = linear_parts(address, [axis.name for axis in axes])
        regular = parts is not None and mask is None and not (set(free_symbols(address)) & self._tiled_numbers())
        if parts is not None and regular and self._are_strides(parts[1], axes):
            rest, strides = parts
            block = self._view(parameter, rest, axes, strides)
            kind = tile(types.dtype(held), [axis.size for axis in axes])
            padding = None if other == 0 else ScalarAttr.of(other)
            loaded = self.add(memory.LoadOp(block, [self.start(axis) for axis in axes], kind, padding))
            return Tile(loaded, axes, types.dtype(held), other == 0)
        return self._gather(parameter, address, axes, mask, other)

    def _rows_in_panels(self, shape: Sequence[Extent], place: Place) -> RowsInPanels | None:
        """The rows at a place of a matrix that is stored as [panel, column, row in its panel], if its panel depends on
        the axis along which they follow one another.
        """
        panel, within = shape[2], place[2]
        if not isinstance(panel, int) or panel < LEAST_PANEL or panel & (panel - 1):
            return None
        if isinstance(within, int) or not any(atom.op == "mod" for monomial, _ in within.terms for atom in monomial):
            return None
        row = rejoined(place[0] * panel + place[2])
        for axis in self.axes.of(row):
            first = row - axis.symbol
            begin = self.axes.divide(first, panel)[1]
            if axis.name not in free_symbols(first) and isinstance(begin, int):
                size = _share(axis.extent, begin, panel)
                if size:
                    return RowsInPanels(row, axis, first - begin, begin, panel, size)
        return None

    def _load_panel(self, parameter: SSAValue, rows: RowsInPanels, column: Extent) -> Tile | None:
        """The rows of a panel, or of a share of one, that the tile along their axis is."""
        assert isinstance(parameter.type, BlockType), "parameters are blocks"
        held, axis, across = parameter.type.value, rows.axis, self.tiled(column)
        if self.tiled(rows.first):
            return None
        parts = linear_parts(column, [each.name for each in across])
        if parts is None or not self._are_strides(parts[1], across):
            return self._gather_panel(parameter, rows, column, across)
        before, steps = parts
        columns, dtype = types.shape(held)[1], types.dtype(held)
        offset, p0, at = (
            self.scalar(rows.first * columns + before * rows.panel),
            symbol("p0"),
            symbol("p1") + rows.within,
        )
        if rows.within or rows.size != rows.panel:
            at = floordiv(at, rows.panel) * rows.panel * columns + mod(at, rows.panel)
        else:  # a tile is a panel
            at = at * columns
        start = self.add(compute.IndexOp(p0 + at, [offset, self.start(axis)]))
        strides = [steps[each.name] * rows.panel for each in across]
        kind = BlockType(types.tensor(dtype, [*(each.extent for each in across), rows.size], [*strides, 1]))
        block = self.add(memory.ViewOp(parameter, start, kind))
        starts = [*(self.start(each) for each in across), self.zero()]
        loaded = self.add(memory.LoadOp(block, starts, tile(dtype, [*(each.size for each in across), rows.size])))
        axes = sorted([*across, axis], key=lambda each: each.order)
        turn = [[*across, axis].index(each) for each in axes]
        if turn != sorted(turn):
            loaded = self.add(compute.TransposeOp(loaded, turn))
        return Tile(loaded, tuple(axes), dtype, axis.extent % rows.size == 0)

    def _gather_panel(
        self, parameter: SSAValue, rows: RowsInPanels, column: Extent, across: Sequence[Axis]
    ) -> Tile | None:
        """The same at columns that do not follow one another evenly: two numbers in a byte, one scale for a group."""
        assert isinstance(parameter.type, BlockType), "parameters are blocks"
        held, axis = parameter.type.value, rows.axis
        if not across or self._tiled_numbers() & set(free_symbols(column)):
            return None
        columns, dtype = types.shape(held)[1], types.dtype(held)
        if not isinstance(columns, int):
            return None
        offset, p0, p1 = self.scalar(rows.first * columns), symbol("p0"), symbol("p1")
        start = self.add(compute.IndexOp(p0 + p1 * columns, [offset, self.start(axis)]))
        block = self.add(memory.ViewOp(parameter, start, BlockType(types.tensor(dtype, [columns * rows.size]))))
        axes = tuple(sorted([*across, axis], key=lambda each: each.order))
        within = Tile(self.add(compute.RangeOp(axis.size)), (axis,), "index")
        at, within = self.spread(self.index(column), axes), self.spread(within, axes)
        place = self.add(compute.IndexOp(p0 * rows.size + p1, [at.value, within.value], [each.size for each in axes]))
        inside = self.inside(across)
        where = None if inside is None else self.spread(inside, axes).value
        made = memory.GatherOp(block, [place], tile(dtype, [each.size for each in axes]), where)
        made.attributes[PANEL_ROWS] = UnitAttr()
        return Tile(self.add(made), axes, dtype, axis.extent % rows.size == 0)

    def _tiled_numbers(self) -> set[str]:
        return {name for name, read in self.numbers.items() if read.axes}

    def _are_strides(self, strides: dict[str, Extent], axes: Sequence[Axis]) -> bool:
        """Whether coefficients can be the strides of a block: not negative, and made of the program's symbols."""
        for axis in axes:
            stride = strides.get(axis.name)
            if stride is None or not is_nonnegative(stride):
                return False
            if any(name in self.axes.known or name in self.numbers for name in free_symbols(stride)):
                return False
        return True

    def _view(self, parameter: SSAValue, offset: Extent, axes: Sequence[Axis], strides: dict[str, Extent]) -> SSAValue:
        assert isinstance(parameter.type, BlockType), "parameters are blocks"
        held = parameter.type.value
        shape = tuple(axis.extent for axis in axes)
        kind = BlockType(types.tensor(types.dtype(held), shape, [strides[axis.name] for axis in axes]))
        if offset == 0 and kind == parameter.type:
            return parameter
        key = ("view", parameter, offset, kind)
        return self.remembered(
            key, self.depth_of(offset), lambda: self.add(memory.ViewOp(parameter, self.scalar(offset), kind))
        )

    def _flat(self, parameter: SSAValue) -> SSAValue:
        """All memory of a parameter as a block of rank 1."""
        assert isinstance(parameter.type, BlockType), "parameters are blocks"
        held = parameter.type.value
        span: Extent = 1
        for extent, stride in zip(types.shape(held), types.strides(held), strict=True):
            span = span + (extent - 1) * stride
        if any(extent == 0 for extent in types.shape(held)):
            span = 0
        kind = BlockType(types.tensor(types.dtype(held), [span]))
        if kind == parameter.type:
            return parameter
        view = memory.ViewOp
        return self.remembered(("flat", parameter), 0, lambda: self.add(view(parameter, self.zero(), kind)))

    def _gather(
        self,
        parameter: SSAValue,
        address: Extent,
        axes: Sequence[Axis],
        mask: Tile | None,
        other: float | int | bool,
    ) -> Tile:
        inside = self.every([self.inside(axes), mask])
        if mask is not None:
            axes = tuple(sorted({*axes, *mask.axes}, key=lambda axis: axis.order))
        assert isinstance(parameter.type, BlockType), "parameters are blocks"
        held = parameter.type.value
        if _is_clamped(address):
            inside = self._not_empty(types.shape(held), inside)
        dtype = types.dtype(held)
        kind = tile(dtype, [axis.size for axis in axes])
        at = self.index(address)
        at = self.spread(at, axes) if at.axes else at
        padding = None if other == 0 else ScalarAttr.of(other)
        where = None if inside is None else self.spread(inside, axes).value
        made = memory.GatherOp(self._flat(parameter), [at.value], kind, where, padding)
        return Tile(self.add(made), tuple(axes), dtype, other == 0)

    def _not_empty(self, shape: Sequence[Extent], inside: Tile | None) -> Tile | None:
        """``inside``, and nowhere if a tensor of this shape has no elements: no place can be clamped into it."""
        for extent in shape:
            if not isinstance(extent, int) and not is_nonnegative(extent - 1):
                inside = self.every([inside, Tile(self.add(CmpiOp(self.scalar(extent), self.zero(), "sgt")), (), "i1")])
        return inside

    def _note(self, address: Extent, place: Place) -> None:
        self.addresses.append(address)
        for expression in place:
            for _, name, divisor in divided_axes(expression):
                if name in self.axes.known:
                    self.splits.append((name, divisor))

    def store(
        self,
        given: Tile,
        parameter: SSAValue,
        place: Place,
        axes: Sequence[Axis],
        mask: Tile | None = None,
        combine: str | None = None,
    ) -> None:
        """Write a tile to a result of the kernel; ``axes`` are those of the places that the kernel runs over. Only
        elements where ``mask`` holds are written, and combined with what is there as ``tile.scatter`` says.
        """
        assert isinstance(parameter.type, BlockType), "parameters are blocks"
        address = _address(place, types.strides(parameter.type.value))
        self._note(address, place)
        given = self.spread(given, axes)
        parts = linear_parts(address, [axis.name for axis in axes])
        read = set(free_symbols(address)) & self.numbers.keys()
        regular = mask is None and (not read or (combine is None and not read & self._tiled_numbers()))
        if parts is not None and regular and self._are_strides(parts[1], axes):
            rest, strides = parts
            block = self._view(parameter, rest, axes, strides)
            self.add(memory.StoreOp(given.value, block, [self.start(axis) for axis in axes]))
            return
        at = self.index(address)
        at = self.spread(at, axes) if at.axes else at
        where = self.every([self.inside(axes), mask])
        spread = None if where is None else self.spread(where, axes).value
        self.add(memory.ScatterOp(given.value, self._flat(parameter), [at.value], spread, combine))

    def check(self, condition: Tile, message: str) -> None:
        """Stop with a message where a condition does not hold."""
        if message not in self.checks:
            self.checks.append(message)
        self.add(memory.CheckOp(condition.value, self.checks.index(message) + 1, message))


def _is_in_panels(value: SSAValue) -> bool:
    """True if an operand is read as the rows of a matrix of which each panel is turned."""
    turns = [use.operation for use in value.uses]
    return bool(turns) and all(isinstance(op, TransposeOp) and list(op.permutation.data) == [0, 2, 1] for op in turns)


def _is_clamped(address: Extent) -> bool:
    return not isinstance(address, int) and any(
        atom.op in ("max", "min") or any(map(_is_clamped, atom.args))
        for monomial, _ in address.terms
        for atom in monomial
    )


def _address(place: Place, strides: Sequence[Extent]) -> Extent:
    total: Extent = 0
    for at, stride in zip(place, strides, strict=True):
        total = total + at * stride
    return rejoined(total)
