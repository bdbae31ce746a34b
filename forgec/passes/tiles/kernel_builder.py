"""Builds one kernel: values of a group at places, as tiles, each computed once and as far outside of loops as it can
be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from xdsl.dialects import scf
from xdsl.dialects.arith import ConstantOp as ArithConstantOp
from xdsl.dialects.builtin import FloatAttr, IntegerAttr, LocationAttr
from xdsl.ir import Attribute, Block, Operation, Region, SSAValue

from forgec.ir import types
from forgec.ir.attributes import ScalarAttr
from forgec.ir.ops.base import ForgeOp, producer
from forgec.ir.tile import compute, memory
from forgec.ir.tile.elementwise import CmpiOp
from forgec.ir.tile.kernel import TileParameter
from forgec.ir.tile.types import BlockType, tile
from forgec.passes.tiles.axes import Axes, Axis, Place, axis_symbol, divided_axes, linear_parts, renamed
from forgec.runtime.symbolic import Extent, SymExpr, free_symbols, is_nonnegative, symbol


class NotLowered(Exception):
    """A group that no rule covers; the text says why, for people."""


@dataclass(frozen=True)
class Tile:
    """A tile that has been computed: its SSA value, the axes along which it extends (by order), and its dtype: one of
    forgec's
    names, or ``index``. ``zero_outside``: elements beyond the axes' extents are 0.
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


Rule = Callable[["KernelBuilder", Any, int, Place], Tile]
"""Computes result number i of an op at a place."""


class KernelBuilder:
    """Emits the body of a kernel.

    ``value`` is the one way to get a value of the group: it finds the rule of the op that computes it, or loads it.
    What a kernel
    would rather have is noted in passing (``splits``, ``whole``, ``addresses``): the section that drives the
    builder reads the notes of a first run and arranges the axes of the next by them.
    """

    def __init__(
        self, rules: dict[type[Operation], Rule], parameters: dict[SSAValue, SSAValue], axes: Axes, block: Block
    ) -> None:
        self.rules = rules
        self.parameters = parameters
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
        self.checks: list[str] = []
        self._number_depth: dict[str, int] = {}
        self.counter = 0
        self.splits: list[tuple[str, Extent]] = []
        self.unroll_splits: set[tuple[str, Extent]] = set()
        self.whole: set[str] = set()
        self.reduced: set[Extent] = set()
        self.scanned: set[str] = set()
        """Axes along which programs had better have tiles."""
        self.rows: set[str] = set()
        self.columns: set[str] = set()
        self.batch: set[str] = set()
        self.addresses: list[Extent] = []
        self.recording = False
        """True in the first run, of which only the notes are used."""

    # Ops
    # -----------------------------------------------------------------------------------------------------------------

    def add(self, op: Operation) -> SSAValue:
        """Append an op to the current scope."""
        if self.location is not None:
            op.location = self.location
        self.scopes[self.depth].block.add_op(op)
        return op.results[0] if op.results else None  # type: ignore[return-value]

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

    # Values
    # --------------------------------------------------------------------------------------------------------------

    def value(self, value: SSAValue, place: Place) -> Tile:
        """A value of the group at a place (one expression for each of its dimensions)."""
        depth = self.depth_of(*place)
        return self.remembered((value, place), depth, lambda: self._compute(value, place))

    def _compute(self, value: SSAValue, place: Place) -> Tile:
        op = producer(value)
        if value in self.parameters:
            return self.load(value, place)
        rule = None if op is None else self.rules.get(type(op))
        if op is None or rule is None or not isinstance(op, ForgeOp):
            raise NotLowered(f"{'a value' if op is None else op.name} has no rule")
        before, self.location = self.location, op.location or self.location
        try:
            return rule(self, op, list(op.results).index(value), place)  # type: ignore[arg-type]
        finally:
            self.location = before

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
        if axis.role == "grid":
            axis.size = 1
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

    # Memory
    # --------------------------------------------------------------------------------------------------------------

    def load(self, value: SSAValue, place: Place, mask: Tile | None = None, other: float | int | bool = 0) -> Tile:
        """An operand of the group at a place; where ``mask`` (booleans) is false nothing is read, and the element is
        ``other``.
        """
        parameter = self.parameters[value]
        assert isinstance(parameter.type, BlockType), "parameters are blocks"
        held = parameter.type.value
        address = _address(place, types.strides(held))
        axes = self.tiled(*place)
        self._note(address, place)
        kind = tile(types.dtype(held), [axis.size for axis in axes])
        parts = linear_parts(address, [axis.name for axis in axes])
        regular = parts is not None and mask is None and not (set(free_symbols(address)) & self._tiled_numbers())
        if parts is not None and regular and self._are_strides(parts[1], axes):
            rest, strides = parts
            block = self._view(parameter, rest, axes, strides)
            padding = None if other == 0 else ScalarAttr.of(other)
            loaded = self.add(memory.LoadOp(block, [self.start(axis) for axis in axes], kind, padding))
            return Tile(loaded, axes, types.dtype(held), other == 0)
        return self._gather(parameter, address, axes, kind, mask, other)

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
        make = memory.ViewOp
        return self.remembered(("flat", parameter), 0, lambda: self.add(make(parameter, self.zero(), kind)))

    def _gather(
        self,
        parameter: SSAValue,
        address: Extent,
        axes: Sequence[Axis],
        kind: Attribute,
        mask: Tile | None,
        other: float | int | bool,
    ) -> Tile:
        inside = self.inside(axes)
        if mask is not None:
            axes = tuple(sorted({*axes, *mask.axes}, key=lambda axis: axis.order))
            inside = mask if inside is None else self.both(inside, mask)
            inside = self.spread(inside, axes)
        held = parameter.type.value  # type: ignore[attr-defined]
        if _is_clamped(address):
            inside = self._not_empty(types.shape(held), inside, axes)
        dtype = types.dtype(held)
        kind = tile(dtype, [axis.size for axis in axes])
        at = self.index(address)
        at = self.spread(at, axes) if at.axes else at
        padding = None if other == 0 else ScalarAttr.of(other)
        where = None if inside is None else self.spread(inside, axes).value
        made = memory.GatherOp(self._flat(parameter), [at.value], kind, where, padding)
        return Tile(self.add(made), tuple(axes), dtype, other == 0)

    def _not_empty(self, shape: Sequence[Extent], inside: Tile | None, axes: Sequence[Axis]) -> Tile | None:
        """``inside``, and nowhere if a tensor of this shape has no elements: no place can be clamped into it."""
        for extent in shape:
            if not isinstance(extent, int) and not is_nonnegative(extent - 1):
                some = Tile(self.add(CmpiOp(self.scalar(extent), self.zero(), "sgt")), (), "i1")
                inside = some if inside is None else self.both(inside, some)
        return inside

    def inside(self, axes: Sequence[Axis]) -> Tile | None:
        """Where the places of tiles lie below the axes' extents; None if there are no axes."""
        conditions = [self._inside(axis) for axis in axes]
        found: Tile | None = None
        for condition in conditions:
            found = condition if found is None else self.both(found, condition)
        return found

    def _inside(self, axis: Axis) -> Tile:
        def make() -> Tile:
            bound = self.spread(Tile(self.scalar(axis.extent), (), "index"), (axis,))
            return Tile(self.add(CmpiOp(self.places(axis).value, bound.value, "slt")), (axis,), "i1")

        return self.remembered(("inside", axis.name), axis.depth, make)

    def both(self, left: Tile, right: Tile) -> Tile:
        """Where both hold."""
        from xdsl.dialects.arith import AndIOp

        left, right = self.aligned(left, right)
        return Tile(self.add(AndIOp(left.value, right.value)), left.axes, "i1")

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
        inside = self.inside(axes)
        at = self.spread(at, axes) if at.axes else at
        where = mask if inside is None else inside if mask is None else self.both(inside, mask)
        spread = None if where is None else self.spread(where, axes).value
        self.add(memory.ScatterOp(given.value, self._flat(parameter), [at.value], spread, combine))

    def check(self, condition: Tile, message: str) -> None:
        """Stop with a message where a condition does not hold."""
        if message not in self.checks:
            self.checks.append(message)
        self.add(memory.CheckOp(condition.value, self.checks.index(message) + 1, message))

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
        body gets the
        carried tiles and yields their next values.
        """
        outer = self.depth
        lower = self.zero() if first is None else first
        upper = self.scalar(axis.extent) if end is None else end
        step = self.scalar(axis.size)
        block = Block(arg_types=[step.type, *(each.value.type for each in initial)])
        inner = self.scopes[outer + 1 :]  # a loop that this one is moved out of
        self.scopes[outer + 1 :] = [_Scope(block)]
        axis.depth = outer + 1
        self.starts[axis.name] = block.args[0]
        carried = [Tile(v, each.axes, each.dtype) for v, each in zip(block.args[1:], initial, strict=True)]
        with self.at_depth(outer + 1):
            after = body(carried)
            after = [self.spread(a, i.axes) for a, i in zip(after, initial, strict=True)]
            self.add(scf.YieldOp(*(each.value for each in after)))
        self.scopes[outer + 1 :] = inner
        made = scf.ForOp(lower, upper, step, [each.value for each in initial], Region(block))
        self.add(made)
        return [Tile(v, each.axes, each.dtype) for v, each in zip(made.results, initial, strict=True)]


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
    return total


def _literal(number: bool | int | float, dtype: str) -> Attribute:
    if dtype == "index":
        return IntegerAttr.from_index_int_value(int(number))
    kind = types.ELEMENT_TYPES[dtype]
    if dtype in types.FLOATS:
        return FloatAttr(float(number), kind)  # type: ignore[arg-type]
    if dtype == "ui8":
        kind = types.ELEMENT_TYPES["i8"]
    return IntegerAttr(int(number), kind)  # type: ignore[arg-type]
