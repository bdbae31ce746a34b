"""Scans as kernels: each program has the carried values of some places in tiles, and goes through all steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from xdsl.ir import Block, Operation, SSAValue

from forgec.ir import types
from forgec.ir.ops.scan import ScanOp
from forgec.ir.tile.kernel import ProgramIdOp
from forgec.passes.tiles.arithmetic import cast, number
from forgec.passes.tiles.axes import Axes, Axis, Place, axis_symbol
from forgec.passes.tiles.kernel_builder import KernelBuilder, NotLowered, Rule, Tile
from forgec.passes.tiles.rules.reduction import WHOLE
from forgec.runtime.symbolic import Extent


def scan_of(body: Block, values: Sequence[SSAValue]) -> ScanOp | None:
    """The scan of a group's body whose results are all of the scan's, in order; None of other groups. Raises
    NotLowered where a scan is only a part of what a group yields.
    """
    scans = [op for op in body.ops if isinstance(op, ScanOp)]
    if not scans:
        return None
    if len(scans) > 1 or list(values) != list(scans[0].results):
        raise NotLowered("a scan is a kernel of its own")
    return scans[0]


@dataclass
class ScanOutput:
    """All results of a scan, which a section writes at once. The section's dimensions are those that the carried values
    and the results of a step have in common; ``carried`` and ``made`` say which of them a value's dimensions are (None:
    of extent 1), and ``whole`` which of them a program has all places of.
    """

    scan: ScanOp
    parameters: Sequence[SSAValue]
    shape: tuple[Extent, ...]
    carried: list[list[int | None]]
    made: list[list[int | None]]
    whole: frozenset[int]

    def write(self, k: KernelBuilder, place: Place, axes: tuple[Axis, ...]) -> None:
        """Go through the steps for the places of a program's tiles."""
        scan, count = self.scan, len(self.scan.carried)
        for dim in self.whole:
            k.whole |= {axis.name for axis in k.axes.of(place[dim])}
        steps = k.new_axis(scan.steps.data, "grid")
        places = [_picked(place, dims) for dims in self.carried]
        initial = []
        for value, at in zip(scan.carried, places, strict=True):
            initial.append(k.spread(cast(k, k.value(value, at), types.dtype(value)), k.tiled(*at)))

        def step(carried: Sequence[Tile]) -> Sequence[Tile]:
            arguments = list(scan.body.block.args)
            for argument, at, tile in zip(arguments, places, carried, strict=False):
                k.bound[argument] = self._carried(k, argument, at, tile)
            over = zip(arguments[count:], scan.over, scan.dims.data, strict=False)
            k.bound.update({argument: _slice(k, value, dim, steps) for argument, value, dim in over})
            shared = zip(arguments[count + len(scan.over) :], scan.shared, strict=True)
            k.bound.update({argument: _same(k, value) for argument, value in shared})
            k.stepped.update(dict.fromkeys(_changing(scan), k.depth))
            following = [
                cast(k, k.value(value, at), types.dtype(value)) for value, at in zip(scan.yielded, places, strict=False)
            ]
            for value, parameter, dims in zip(scan.yielded[count:], self.parameters[count:], self.made, strict=True):
                at = _picked(place, dims)
                given = k.value(value, at)
                k.store(given, parameter, (steps.symbol, *at), tuple(a for a in axes if a in k.tiled(*at)))
            return following

        last = k.loop(steps, initial, step)
        for tile, parameter, at in zip(last, self.parameters, places, strict=False):
            k.store(tile, parameter, at, tuple(a for a in axes if a in k.tiled(*at)))

    def _carried(self, k: KernelBuilder, argument: SSAValue, own: Place, tile: Tile) -> Callable[[Place], Tile]:
        def read(place: Place) -> Tile:
            same = all(a == b or extent == 1 for a, b, extent in zip(place, own, types.shape(argument), strict=True))
            if same:
                return tile
            if any(axis.role == "whole" for at in own for axis in k.axes.of(at)) or k.tiled(*own):
                raise NotLowered("a step mixes places of what it carries in a way that has no kernel")
            return number(k, 0, types.dtype(argument))  # a trial: these axes become whole

        return read


def _picked(place: Place, dims: Sequence[int | None]) -> Place:
    return tuple(0 if dim is None else place[dim] for dim in dims)


def _slice(k: KernelBuilder, value: SSAValue, dim: int, steps: Axis) -> Callable[[Place], Tile]:
    return lambda place: k.value(value, (*place[:dim], steps.symbol, *place[dim:]))


def _same(k: KernelBuilder, value: SSAValue) -> Callable[[Place], Tile]:
    return lambda place: k.value(value, place)


def _changing(scan: ScanOp) -> set[SSAValue]:
    """The values of the region that differ from step to step."""
    block = scan.body.block
    found: set[SSAValue] = set(block.args[: len(scan.carried) + len(scan.over)])
    for op in block.ops:
        if any(operand in found for operand in op.operands):
            found.update(op.results)
    return found


# Which dimensions belong together
# ---------------------------------------------------------------------------------------------------------------------


class _Classes:
    """Axes that are one, since something carried is read along both."""

    def __init__(self) -> None:
        self.parent: dict[str, str] = {}

    def find(self, name: str) -> str:
        while (above := self.parent.setdefault(name, name)) != name:
            name = above
        return name

    def unite(self, first: str, second: str) -> None:
        self.parent[self.find(second)] = self.find(first)


def scan_output(
    scan: ScanOp, parameters: Sequence[SSAValue], rules: dict[type[Operation], Rule], values: dict[SSAValue, SSAValue]
) -> ScanOutput:
    """How a scan is written. A trial of one step, with an axis for each dimension, tells which dimensions are one:
    those along which a value is read at the same places. Raises NotLowered where a step reads others.
    """
    count, block = len(scan.carried), scan.body.block
    axes, classes = Axes(), _Classes()
    k = KernelBuilder(rules, values, axes, Block())

    def places(value: SSAValue, shape: Sequence[Extent]) -> list[Axis | None]:
        return [None if extent == 1 else new(extent) for extent in shape]

    def new(extent: Extent) -> Axis:
        number_ = len(axes.known)
        axis = axes.add(Axis(axis_symbol("ax", number_), extent, number_, "grid"))
        k.starts[axis.name] = k.add(ProgramIdOp(0))
        return axis

    carried = [places(value, types.shape(value)) for value in block.args[:count]]
    made = [places(value, types.shape(value)) for value in scan.yielded[count:]]
    own = {axis.name for each in (*carried, *made) for axis in each if axis is not None}

    def reader(argument: SSAValue, mine: Sequence[Axis | None]) -> Callable[[Place], Tile]:
        def read(place: Place) -> Tile:
            for at, axis in zip(place, mine, strict=True):
                found = k.axes.of(at)
                if axis is None:
                    continue
                if len(found) != 1 or found[0].symbol != at or found[0].extent != axis.extent:
                    raise NotLowered("a step reads what it carries at other places than it writes")
                classes.unite(axis.name, found[0].name)
            return number(k, 0, types.dtype(argument))

        return read

    for argument, mine in zip(block.args, carried, strict=False):
        k.bound[argument] = reader(argument, mine)
    for argument, value, dim in zip(block.args[count:], scan.over, scan.dims.data, strict=False):
        k.bound[argument] = lambda place, value=value, dim=dim: k.value(value, (*place[:dim], 0, *place[dim:]))
    for argument, value in zip(block.args[count + len(scan.over) :], scan.shared, strict=True):
        k.bound[argument] = _same(k, value)
    for value, mine in zip(scan.yielded, [*carried, *made], strict=True):
        k.value(value, tuple(0 if axis is None else axis.symbol for axis in mine))
    return _arranged(scan, parameters, carried, made, classes, own, axes)


def _arranged(
    scan: ScanOp,
    parameters: Sequence[SSAValue],
    carried: list[list[Axis | None]],
    made: list[list[Axis | None]],
    classes: _Classes,
    own: set[str],
    axes: Axes,
) -> ScanOutput:
    number_of: dict[str, int] = {}
    shape: list[Extent] = []
    for each in sorted([*carried, *made], key=lambda each: -len([axis for axis in each if axis is not None])):
        names = [classes.find(axis.name) for axis in each if axis is not None]
        if len(set(names)) != len(names):
            raise NotLowered("a step reads what it carries along other dimensions than it writes")
        for axis, name in zip([axis for axis in each if axis is not None], names, strict=True):
            if name not in number_of:
                number_of[name] = len(shape)
                shape.append(axis.extent)
    mixed = {
        number_of[classes.find(name)] for name in axes.known if name not in own and classes.find(name) in number_of
    }

    def dims(each: Sequence[Axis | None]) -> list[int | None]:
        return [None if axis is None else number_of[classes.find(axis.name)] for axis in each]

    found = [dims(each) for each in (*carried, *made)]
    whole = {dim for dim in range(len(shape)) if dim in mixed or any(dim not in each for each in found)}
    if any(not isinstance(shape[dim], int) or shape[dim] > WHOLE for dim in whole):  # type: ignore[operator] - an int by then
        raise NotLowered("a step needs all places of a dimension that is too long for a tile")
    return ScanOutput(scan, parameters, tuple(shape), found[: len(carried)], found[len(carried) :], frozenset(whole))
