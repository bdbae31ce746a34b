"""Emits ops on tiles: scopes of loops, axes and places, shapes of tiles, conditions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from xdsl.dialects import scf
from xdsl.dialects.arith import AndIOp
from xdsl.dialects.arith import ConstantOp as ArithConstantOp
from xdsl.dialects.builtin import FloatAttr, IntegerAttr, LocationAttr
from xdsl.ir import Attribute, Block, Operation, Region, SSAValue

from forgec.ir import types
from forgec.ir.tile import compute
from forgec.ir.tile.elementwise import CmpiOp
from forgec.ir.tile.kernel import TileParameter
from forgec.ir.tile.types import INDEX
from forgec.passes.tiles.axes import Axes, Axis, axis_symbol, renamed
from forgec.runtime.symbolic import Extent, SymExpr, free_symbols, symbol


class NotLowered(Exception):
    """A group that no rule covers; the text says why, for people."""


@dataclass(frozen=True)
class Tile:
    """A tile that has been computed: its SSA value, the axes along which it extends (by order), and its dtype: one of
    forgec's names, or ``index``. ``zero_outside``: elements beyond the axes' extents are 0.
    """

    value: SSAValue
    axes: tuple[Axis, ...]
    dtype: str
    zero_outside: bool = False

    @property
    def shape(self) -> tuple[Extent, ...]:
        return tuple(axis.size for axis in self.axes)


@dataclass
class _Scope:
    """The body of a loop (or the kernel's own), and what has been computed in it."""

    block: Block
    values: dict[Any, Any] = field(default_factory=dict)


class TileEmitter:
    """Emits ops on tiles, each once and as far outside of loops as it can be.

    What a kernel would rather have is noted in passing (``splits``, ``whole``, ``addresses``, …): the section that
    drives the emission reads the notes of a first run and arranges the axes of the next by them.
    """

    def __init__(self, axes: Axes, block: Block) -> None:
        self.axes = axes
        self.scopes = [_Scope(block)]
        self.depth = 0
        """The number of the scope that ops are added to."""
        self.location: LocationAttr | None = None
        self.tiles: dict[str, TileParameter] = {}
        self.numbers: dict[str, Tile] = {}
        """What symbols of numbers that are read stand for."""
        self.starts: dict[str, SSAValue] = {}
        """The first place of the tile along an axis."""
        self._number_depth: dict[str, int] = {}
        self.counter = 0
        self.splits: list[tuple[str, Extent]] = []
        self.unroll_splits: set[tuple[str, Extent]] = set()
        self.whole: set[str] = set()
        self.reduced: set[tuple[Extent, frozenset[str]]] = set()
        self.parts: dict[Extent, tuple[int, Axis]] = {}
        """Extents of dimensions that are written part by part: how many parts there are, and the axis along one, whole.
        """
        self.scanned: set[str] = set()
        """Axes along which programs had better have tiles."""
        self.rows: set[str] = set()
        self.columns: set[str] = set()
        self.batch: set[str] = set()
        self.panels: dict[str, int] = {}
        """Axes along which a tile had better be a panel of so many places, and begin where one does."""
        self.addresses: list[Extent] = []

    # Ops
    # -----------------------------------------------------------------------------------------------------------------

    def add(self, op: Operation) -> SSAValue:
        """Append an op to the current scope."""
        if self.location is not None:
            op.location = self.location
        self.scopes[self.depth].block.add_op(op)
        return op.results[0] if op.results else None  # type: ignore[return-value] - nobody asks for that of a store

    @contextmanager
    def at_depth(self, depth: int) -> Iterator[None]:
        """Ops go to an outer scope."""
        before, self.depth = self.depth, depth
        try:
            yield
        finally:
            self.depth = before

    def remembered(self, key: Any, depth: int, make: Callable[[], Any]) -> Any:
        """What ``make`` yields, made once in the scope of this depth."""
        scope = self.scopes[depth]
        if key not in scope.values:
            with self.at_depth(depth):
                scope.values[key] = make()
        return scope.values[key]

    def depth_of(self, *expressions: Extent) -> int:
        """The outermost scope in which expressions have a value."""
        depth = 0
        for expression in expressions:
            for name in free_symbols(expression):
                axis = self.axes.known.get(name)
                if axis is not None:
                    depth = max(depth, axis.depth)
                elif name in self.numbers:
                    depth = max(depth, self._number_depth[name])
        return depth

    # Axes and numbers
    # ---------------------------------------------------------------------------------------------------------------

    def new_axis(self, extent: Extent, role: str, parameter: str = "BK") -> Axis:
        """An axis of the kernel's own, for something that is summed or looped over."""
        self.counter += 1
        axis = Axis(axis_symbol("ax", 1000 + self.counter), extent, 1000 + self.counter, role)
        axis.depth = self.depth
        self.axes.add(axis)
        self.size(axis, parameter)
        return axis

    def unit(self, order: int) -> Axis:
        """An axis of one place, for a factor of a product that is a single row or column."""
        name = axis_symbol("ax", 900 + order % 10)
        if str(name) not in self.axes.known:
            self.axes.add(Axis(name, 1, order, "whole"))
        return self.axes.known[str(name)]

    def without(self, given: Tile, axis: Axis) -> Tile:
        """The tile without an axis of one place."""
        position = given.axes.index(axis)
        rest = tuple(each for each in given.axes if each is not axis)
        return Tile(self.add(compute.ReduceOp("add", given.value, position)), rest, given.dtype)

    def size(self, axis: Axis, parameter: str) -> None:
        """Give an axis a tile parameter, shared with axes of the same extent and role."""
        if axis.role == "grid" or axis.panel:
            axis.size = axis.panel or 1
            return
        whole = axis.role == "whole"
        for known in self.tiles.values():
            if known.name.rstrip("0123456789") == parameter and (known.extent, known.whole) == (axis.extent, whole):
                axis.size = symbol(known.name)
                return
        taken = sum(name.rstrip("0123456789") == parameter for name in self.tiles)
        name = parameter + (str(taken + 1) if taken else "")
        self.tiles[name] = TileParameter(name, axis.extent, whole)
        axis.size = symbol(name)

    def free_whole_axis(self, extent: Extent, *places: Extent) -> Axis | None:
        """An axis that is whole, of this extent, and that does not occur in some expressions."""
        used = {name for expression in places for name in free_symbols(expression)}
        for axis in self.axes.known.values():
            if axis.role == "whole" and axis.extent == extent and axis.name not in used and axis.depth <= self.depth:
                return axis
        return None

    def number(self, read: Tile) -> SymExpr:
        """A symbol for integers that were read, to be part of places."""
        for name, known in self.numbers.items():
            if known.value is read.value:
                return symbol(name)
        self.counter += 1
        name = str(axis_symbol("at", self.counter))
        self.numbers[name] = read
        self._number_depth[name] = self.depth
        return symbol(name)

    def start(self, axis: Axis) -> SSAValue:
        """The first place of this program's (or iteration's) tile along an axis."""
        if axis.role == "whole":
            return self.zero()
        return self.starts[axis.name]

    def zero(self) -> SSAValue:
        """The index 0."""
        return self.remembered("zero", 0, lambda: self.add(compute.IndexOp(0)))

    def tiled(self, *expressions: Extent) -> tuple[Axis, ...]:
        """The axes along which a tile extends whose elements are at these places."""
        found: dict[str, Axis] = {}
        for expression in expressions:
            for name in free_symbols(expression):
                if name in self.numbers:
                    found.update({axis.name: axis for axis in self.numbers[name].axes})
                elif name in self.axes.known and self.axes.known[name].is_tiled:
                    found[name] = self.axes.known[name]
        return tuple(sorted(found.values(), key=lambda axis: axis.order))

    def index(self, expression: Extent) -> Tile:
        """The value of an expression, as a tile of type ``index`` along the axes that occur in it."""
        self.addresses.append(expression)
        return self.remembered(("index", expression), self.depth_of(expression), lambda: self._index(expression))

    def _index(self, expression: Extent) -> Tile:
        axes = self.tiled(expression)
        operands: list[SSAValue] = []
        names: dict[str, Extent] = {}
        for name in sorted(free_symbols(expression)):
            axis = self.axes.known.get(name)
            if axis is None and name not in self.numbers:
                continue  # a symbol of the program
            names[name] = symbol(f"p{len(operands)}")
            if axis is None:
                operand = self.numbers[name]
            elif axis.is_tiled:
                operand = self.places(axis)
            else:
                operand = Tile(self.start(axis), (), "index")
            operands.append((self.spread(operand, axes) if operand.axes else operand).value)
        made = self.add(compute.IndexOp(renamed(expression, names), operands, [axis.size for axis in axes]))
        return Tile(made, axes, "index")

    def scalar(self, expression: Extent) -> SSAValue:
        """The value of an expression in which no tiled axis occurs."""
        found = self.remembered(("index", expression), self.depth_of(expression), lambda: self._index(expression))
        assert not found.axes, "the same for the whole tile"
        return found.value

    def places(self, axis: Axis) -> Tile:
        """The places of a tile along an axis."""

        def make() -> Tile:
            within = self.add(compute.RangeOp(axis.size))
            if axis.role != "whole":
                p0, p1 = symbol("p0"), symbol("p1")
                within = self.add(compute.IndexOp(p0 + p1, [self.start(axis), within], [axis.size]))
            return Tile(within, (axis,), "index")

        return self.remembered(("places", axis.name), axis.depth, make)

    # Shapes of tiles
    # ----------------------------------------------------------------------------------------------------------------

    def spread(self, given: Tile, axes: Sequence[Axis]) -> Tile:
        """The tile repeated along the axes that it lacks."""
        wanted = tuple(axes)
        if given.axes == wanted:
            return given
        along = [wanted.index(axis) for axis in given.axes]
        made = compute.BroadcastOp(given.value, along, [axis.size for axis in wanted])
        return Tile(self.add(made), wanted, given.dtype, given.zero_outside and set(given.axes) == set(wanted))

    def along(self, given: Tile, axis: Axis) -> Tile:
        """The tile repeated along an axis if it lacks it."""
        if axis in given.axes:
            return given
        return self.spread(given, sorted([*given.axes, axis], key=lambda each: each.order))

    def aligned(self, *given: Tile) -> list[Tile]:
        """The tiles, each repeated along the axes of all."""
        axes: dict[str, Axis] = {axis.name: axis for each in given for axis in each.axes}
        wanted = sorted(axes.values(), key=lambda axis: axis.order)
        return [self.spread(each, wanted) for each in given]

    def constant(self, number: bool | int | float, dtype: str) -> Tile:
        """A number, as a scalar."""
        literal: Any = _literal(number, dtype)
        key = ("constant", dtype, repr(number))
        made = self.remembered(key, 0, lambda: self.add(ArithConstantOp(literal)))
        return Tile(made, (), dtype)

    # Conditions
    # ----------------------------------------------------------------------------------------------------------------

    def inside(self, axes: Sequence[Axis]) -> Tile | None:
        """Where the places of tiles lie below the axes' extents; None if there are no axes."""
        return self.every(map(self._inside, axes))

    def _inside(self, axis: Axis) -> Tile:
        def make() -> Tile:
            bound = self.spread(Tile(self.scalar(axis.extent), (), "index"), (axis,))
            return Tile(self.add(CmpiOp(self.places(axis).value, bound.value, "slt")), (axis,), "i1")

        return self.remembered(("inside", axis.name), axis.depth, make)

    def both(self, left: Tile, right: Tile) -> Tile:
        """Where both hold."""
        left, right = self.aligned(left, right)
        return Tile(self.add(AndIOp(left.value, right.value)), left.axes, "i1")

    def every(self, conditions: Iterable[Tile | None]) -> Tile | None:
        """Where all conditions hold (None holds everywhere); None if there are none."""
        found: Tile | None = None
        for condition in conditions:
            if condition is not None:
                found = condition if found is None else self.both(found, condition)
        return found

    # Loops
    # ---------------------------------------------------------------------------------------------------------------

    def pad(self, given: Tile, axis: Axis, other: bool | int | float) -> Tile:
        """The tile with ``other`` beyond the extent of an axis."""
        offsets = [self.start(each) if each is axis else self.zero() for each in given.axes]
        bounds = [each.extent if each is axis else each.size for each in given.axes]
        return Tile(self.add(compute.PadOp(given.value, offsets, bounds, other)), given.axes, given.dtype, other == 0)

    def loop(
        self,
        axis: Axis,
        initial: Sequence[Tile],
        body: Callable[[Sequence[Tile]], Sequence[Tile]],
        first: SSAValue | None = None,
        end: SSAValue | None = None,
    ) -> list[Tile]:
        """Run ``body`` for each tile along an axis of role ``loop``, from ``first`` (0) to ``end`` (its extent); the
        body gets the carried tiles and yields their next values.
        """
        lower = self.zero() if first is None else first
        upper = self.scalar(axis.extent) if end is None else end
        step = self.scalar(axis.size)
        block = Block(arg_types=[step.type, *(each.value.type for each in initial)])
        carried = [Tile(v, each.axes, each.dtype) for v, each in zip(block.args[1:], initial, strict=True)]
        with self._within(axis, block):
            after = body(carried)
            after = [self.spread(a, i.axes) for a, i in zip(after, initial, strict=True)]
            self.add(scf.YieldOp(*(each.value for each in after)))
        made = scf.ForOp(lower, upper, step, [each.value for each in initial], Region(block))
        self.add(made)
        return [Tile(v, each.axes, each.dtype) for v, each in zip(made.results, initial, strict=True)]

    def tried(self, axis: Axis, body: Callable[[], Tile]) -> Tile:
        """What ``body`` computes in a loop along an axis that is thrown away: its axes and dtype are of use."""
        with self._within(axis, Block(arg_types=[INDEX])):
            return body()

    @contextmanager
    def _within(self, axis: Axis, block: Block) -> Iterator[None]:
        """Ops go to the body of a loop along an axis, whose first argument is where an iteration begins."""
        outer = self.depth
        inner = self.scopes[outer + 1 :]  # loops that this one is moved out of
        self.scopes[outer + 1 :] = [_Scope(block)]
        axis.depth = outer + 1
        self.starts[axis.name] = block.args[0]
        try:
            with self.at_depth(outer + 1):
                yield
        finally:
            self.scopes[outer + 1 :] = inner


def _literal(number: bool | int | float, dtype: str) -> Attribute:
    if dtype == "index":
        return IntegerAttr.from_index_int_value(int(number))
    kind = types.ELEMENT_TYPES[dtype]
    if dtype in types.FLOATS:
        return FloatAttr(float(number), kind)  # type: ignore[arg-type] - a dtype of floats
    if dtype == "ui8":
        kind = types.ELEMENT_TYPES["i8"]
    return IntegerAttr(int(number), kind)  # type: ignore[arg-type] - a dtype of integers
