"""Loops that a kernel has several times with other operands: they become one function, which each place calls.

Several products of one shape in a kernel, as of the two halves of queries and keys that a rotary embedding turns, would
otherwise be emitted, and compiled, as often. What is called is the whole loop over the sum, so that the call costs
nothing beside it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field

from xdsl.dialects import llvm, scf
from xdsl.dialects.builtin import FloatAttr, IntegerAttr
from xdsl.ir import Attribute, Block, Operation, SSAValue

from forgec.backends.cpu.llvm_types import i64
from forgec.backends.cpu.memory_access import Memory
from forgec.backends.cpu.packing import Factor
from forgec.backends.cpu.placement import Placement, is_tile
from forgec.backends.cpu.places import Place
from forgec.backends.cpu.tiles import Buffer, Kernel, Splat, Stored, Tile
from forgec.ir.tile.kernel import KernelOp, ProgramIdOp
from forgec.ir.tile.memory import CheckOp


@dataclass(frozen=True)
class Form:
    """What a loop is apart from the values that it reads from outside of it."""

    key: Hashable
    captured: tuple[SSAValue, ...]


def repeated_loops(kernel: KernelOp, placement: Placement) -> dict[Operation, Form]:
    """The forms of the outermost loops that stand in the kernel more than once."""
    loops = list(_outermost(kernel.body.block))
    if len(loops) < 2:
        return {}
    forms = {loop: found for loop in loops if (found := _form(loop, placement)) is not None}
    count = Counter(found.key for found in forms.values())
    return {loop: found for loop, found in forms.items() if count[found.key] > 1}


def _outermost(block: Block) -> Iterator[scf.ForOp]:
    for op in block.ops:
        if isinstance(op, scf.ForOp):
            yield op
        else:
            for region in op.regions:
                for inner in region.blocks:
                    yield from _outermost(inner)


def _form(loop: scf.ForOp, placement: Placement) -> Form | None:
    """None for loops whose code needs more of the kernel than values, or that carry numbers."""
    if not all(is_tile(value) for value in loop.iter_args):
        return None
    own: dict[SSAValue, int] = {}
    captured: dict[SSAValue, int] = {}
    parts: list[Hashable] = [tuple(value.type for value in loop.iter_args)]

    def name(value: SSAValue) -> Hashable:
        if (number := own.get(value)) is not None:
            return number
        return "captured", captured.setdefault(value, len(captured)), value.type

    def visit(block: Block) -> bool:
        for argument in block.args:
            own[argument] = len(own)
        parts.append(tuple(argument.type for argument in block.args))
        for op in block.ops:
            if isinstance(op, ProgramIdOp | CheckOp):
                return False
            operands = tuple(name(operand) for operand in op.operands)
            for result in op.results:
                own[result] = len(own)
            results = tuple((result.type, result in placement.stored) for result in op.results)
            parts.append((op.name, operands, results, _sorted(op.properties), _sorted(op.attributes), len(op.regions)))
            for region in op.regions:
                parts.append(len(region.blocks))
                if not all(visit(inner) for inner in region.blocks):
                    return False
        return True

    parts.append((name(loop.lb), name(loop.ub), name(loop.step)))
    return Form(tuple(parts), tuple(captured)) if visit(loop.body.block) else None


def _sorted(attributes: dict[str, Attribute]) -> tuple[tuple[str, Attribute], ...]:
    return tuple(sorted(attributes.items(), key=lambda item: item[0]))


Rebuild = Callable[[Kernel, Iterator[SSAValue]], None]


@dataclass
class Passed:
    """The arguments of a call. ``signature`` is what a function is compiled for: constants, types, signs, layouts."""

    k: Kernel
    arguments: list[SSAValue] = field(default_factory=list)
    signature: list[Hashable] = field(default_factory=list)

    def place(self, place: Place) -> Callable[[Kernel, Iterator[SSAValue]], Place]:
        """Pass a number; what is returned makes it of the arguments inside of the function."""
        if isinstance(place, int):
            self.signature.append(place)
            return lambda k, values: place
        positive = self.k.nonnegative(place)
        self._argument(self.k.ssa(place), ("number", positive))
        return lambda k, values: k.assume_nonnegative(next(values)) if positive else next(values)

    def scalar(self, value: SSAValue) -> Callable[[Kernel, Iterator[SSAValue]], SSAValue]:
        owner = value.owner
        constant = owner.value if isinstance(owner, llvm.ConstantOp) else None
        if isinstance(constant, IntegerAttr | FloatAttr):
            number, kind = constant.value.data, value.type
            self.signature.append(("constant", kind, constant))
            return lambda k, values: k.e.const(kind, number)
        if value.type == i64:
            place = self.place(value)
            return lambda k, values: k.ssa(place(k, values))
        self._argument(value, ("scalar", value.type))
        return lambda k, values: next(values)

    def memory(self, memory: Memory) -> Callable[[Kernel, Iterator[SSAValue]], Memory]:
        self._argument(memory.pointer, ("memory", memory.element, len(memory.shape)))
        shape = [self.place(extent) for extent in memory.shape]
        strides = [self.place(stride) for stride in memory.strides]
        return lambda k, values: Memory(
            next(values), memory.element,
            tuple(extent(k, values) for extent in shape), tuple(stride(k, values) for stride in strides),
        )  # fmt: skip

    def buffer(self, buffer: Buffer) -> Callable[[Kernel, Iterator[SSAValue]], Buffer]:
        self._argument(buffer.pointer, ("buffer", buffer.element, buffer.shape, buffer.spread))
        return lambda k, values: Buffer(k.e, buffer.element, buffer.shape, next(values), spread=buffer.spread)

    def factor(self, factor: Factor) -> Callable[[Kernel, Iterator[SSAValue]], Factor]:
        buffer = self.buffer(factor.buffer)
        end = None if factor.end is None else self.place(factor.end)
        self.signature.append(("packed", factor.first, end is None))
        return lambda k, values: Factor(buffer(k, values), factor.first, None if end is None else end(k, values))

    def tile(self, tile: Tile) -> Callable[[Kernel, Iterator[SSAValue]], Tile] | None:
        """None for tiles that are computed where they are read."""
        if isinstance(tile, Stored):
            buffer = self.buffer(tile.buffer)
            return lambda k, values: Stored(buffer(k, values))
        if isinstance(tile, Splat):
            self.signature.append(("splat", tile.shape, tile.element))
            value = self.scalar(tile.value)
            return lambda k, values: Splat(value(k, values), tile.shape, tile.element)
        return None

    def _argument(self, value: SSAValue, what: Hashable) -> None:
        self.arguments.append(value)
        self.signature.append(what)
