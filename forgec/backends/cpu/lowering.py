"""Lowering of a kernel of the tile level, op by op: values, blocks, loads, stores, reductions and products.

``tile_to_llvm.py`` adds functions, loops and branches.
"""

from __future__ import annotations

from collections.abc import Hashable
from functools import partial

from xdsl.dialects import arith, llvm, math, scf
from xdsl.dialects.builtin import DenseIntOrFPElementsAttr, FloatAttr, IntegerAttr
from xdsl.ir import Block, Operation, SSAValue

from forgec.backends.cpu import elementwise
from forgec.backends.cpu.atomics import combine_in_memory
from forgec.backends.cpu.compares import ComparedPlaces
from forgec.backends.cpu.dot import dot_tile
from forgec.backends.cpu.elementwise import Unsupported, llvm_element
from forgec.backends.cpu.emitter import Emitter, function
from forgec.backends.cpu.llvm_types import PTR, i32, i64
from forgec.backends.cpu.memory_access import Gathered, Loaded, Memory, inside
from forgec.backends.cpu.needed import Limit, Needed
from forgec.backends.cpu.nests import Kept, stored
from forgec.backends.cpu.packing import Factor, Packs, Piece
from forgec.backends.cpu.placement import Placement, is_deferred, is_tile, parameter_of, reduced_next
from forgec.backends.cpu.places import Place
from forgec.backends.cpu.reductions import check_tile, reduce_tile, scan_tile
from forgec.backends.cpu.repeated_loops import repeated_loops
from forgec.backends.cpu.short_products import Groups
from forgec.backends.cpu.sorting import sort_row
from forgec.backends.cpu.stores import scatter_tile, store_tile
from forgec.backends.cpu.tiles import (
    At,
    Broadcast,
    Buffer,
    Elementwise,
    Index,
    Kernel,
    MultiplyAdd,
    Padded,
    Product,
    Range,
    Splat,
    Stored,
    Tile,
    Transpose,
)
from forgec.diagnostics import ForgeError, error
from forgec.ir import types
from forgec.ir.locations import location_of
from forgec.ir.tile import compute, memory
from forgec.ir.tile.kernel import KernelOp, ProgramIdOp, ReturnOp
from forgec.ir.tile.types import INDEX, block_type, element, extents
from forgec.runtime.symbolic import Extent, substitute


def refusal(fault: Unsupported, kernel: KernelOp, op: Operation) -> ForgeError:
    """The error for what has no code."""
    message = f"there is no code for {fault} in kernel {kernel.sym_name.data}"
    return error("FORGE-B002", message, location=location_of(op))


class Lowering:
    """The state of a function that is emitted, and the ops that are no control flow."""

    def __init__(
        self,
        kernel: KernelOp,
        vector_bytes: int,
        features: frozenset[str],
        func: llvm.FuncOp | None = None,
        placement: Placement | None = None,
        needed: Needed | None = None,
    ) -> None:
        """``func`` is another function than the kernel's own: that of a loop."""
        self.kernel = kernel
        self.vector_bytes = vector_bytes
        self.e = Emitter(function(kernel.sym_name.data, (PTR, PTR, i64, i64), i32) if func is None else func)
        self.e.register_bytes = vector_bytes
        self.e.features = features
        self.k = Kernel(self.e)
        self.placement = Placement(kernel) if placement is None else placement
        self.needed = Needed(kernel) if needed is None else needed
        self.limits: dict[tuple[Limit, int], Place] = {}
        """What the limits of axes of some extent are, once the places are known that they depend on."""
        self.repeated = repeated_loops(kernel, self.placement) if func is None else {}
        self.functions: dict[Hashable, llvm.FuncOp] = {}
        """The functions that are called, by what they are compiled for."""
        self.scalars: dict[SSAValue, SSAValue] = {}
        self.tiles: dict[SSAValue, Tile] = {}
        self.memories: dict[SSAValue, Memory] = {}
        self.bindings = kernel.bindings
        self.symbols: dict[str, Place] = {**self.bindings}
        self.programs: list[Place] = []
        self.targets: dict[SSAValue, Buffer] = {}
        """Where a product is to be computed."""
        self.packs = Packs(self.k, lambda block: parameter_of(block) in self.placement.written, self.groups)
        self.factors: dict[Operation, Factor] = {}
        """Loads, or their roundings, that read pieces of what is packed."""
        self.yielded: list[SSAValue] = []
        self.large: dict[SSAValue, bool | SSAValue] = {}
        """Which parameters are written past the caches: those that no cache holds until they are read."""
        self.streams = False
        self.has_products = any(isinstance(op, compute.DotOp) for op in kernel.walk())
        self.kept: dict[compute.ReduceOp, list[tuple[SSAValue, Kept]]] = {}
        """Tiles that are written in the loop nest of a reduction."""

    def block(self, block: Block) -> None:
        """Emit the ops of a block; what it yields is left in ``yielded``. Limits that it computes are its own."""
        outside = dict(self.limits)
        for op in block.ops:
            try:
                self.op(op)
                self.know_limits(op)
            except Unsupported as fault:
                raise refusal(fault, self.kernel, op) from fault
        self.limits = outside

    def op(self, op: Operation) -> None:
        match op:
            case ProgramIdOp():
                self.scalars[op.result] = self.k.ssa(self.programs[op.axis.data])
            case arith.ConstantOp():
                self.constant(op)
            case memory.ViewOp():
                source = self.memories[op.source]
                offset = self.place(op.offset)
                pointer = self.k.address(source.pointer, offset, source.element)
                self.memories[op.result] = self.memory(op.result, pointer)
            case memory.StoreOp():
                self.store(op)
            case memory.ScatterOp():
                self.scatter(op)
            case memory.SortOp():
                sort_row(self.k, op, self.memories[op.block], self.memories[op.places])
            case memory.CheckOp():
                check_tile(self.k, self.tile(op.condition), op.number.data)
            case compute.ReduceOp():
                self.reduce(op)
            case compute.ScanOp():
                buffer = self.new_buffer(op.result)
                scan_tile(self.k, op.kind.data, self.tile(op.input), op.axis.data, buffer)
                self.tiles[op.result] = Stored(buffer)
            case compute.DotOp():
                self.dot(op)
            case scf.YieldOp():
                self.yielded = list(op.arguments)
            case ReturnOp():
                pass
            case _ if is_deferred(op):
                self.deferred(op)
            case _:
                raise Unsupported(op.name)

    def know_limits(self, op: Operation) -> None:
        """The limits that depend on a place that has just been computed."""
        for result in op.results:
            for limit, extent in self.needed.limits.get(result, ()):
                left = self.k.sub(self.extent(limit.bound), self.place(result))
                place = self.k.max(self.k.min(left, extent), 0)
                if place != extent:
                    self.limits[limit, extent] = self.k.assume_nonnegative(place)

    def ends(self, value: SSAValue) -> tuple[Place | None, ...]:
        """For each axis of a tile the place from which on it is not needed; None where all of it is."""
        pairs = zip(self.needed.of(value), extents(value), strict=True)
        found = [
            self.limits.get((limit, extent)) if limit is not None and isinstance(extent, int) else None
            for limit, extent in pairs
        ]
        return tuple(found)

    # -- values --------------------------------------------------------------------------------------------------------

    def extent(self, extent: Extent) -> Place:
        return self.k.evaluate(substitute(extent, self.bindings), self.symbols)

    def shape(self, value: SSAValue) -> tuple[int, ...]:
        found = tuple(substitute(extent, self.bindings) for extent in extents(value))
        if not all(isinstance(extent, int) for extent in found):
            raise Unsupported(f"a tile whose extents are not bound, {value.type},")
        return tuple(extent for extent in found if isinstance(extent, int))

    def memory(self, block: SSAValue, pointer: SSAValue) -> Memory:
        tensor = block_type(block)
        shape = tuple(self.extent(extent) for extent in types.shape(tensor))
        strides = tuple(self.extent(extent) for extent in types.strides(tensor))
        return Memory(pointer, llvm_element(tensor.element_type), shape, strides)

    def new_buffer(self, value: SSAValue) -> Buffer:
        return self.k.buffer(llvm_element(element(value)), self.shape(value))

    def place(self, value: SSAValue) -> Place:
        return self.k.place(self.scalars[value])

    def tile(self, value: SSAValue, shape: tuple[int, ...] = ()) -> Tile:
        """The tile that a value is; a scalar is the same everywhere in a tile of ``shape``."""
        found = self.tiles.get(value)
        return Splat(self.scalars[value], shape) if found is None else found

    def constant(self, op: arith.ConstantOp) -> None:
        value = op.value
        if isinstance(value, DenseIntOrFPElementsAttr):
            number = next(iter(value.iter_values()))
            if not value.is_splat() or isinstance(number, tuple):
                raise Unsupported("a constant tile of several numbers")
            kind = llvm_element(element(op.result))
            self.tiles[op.result] = Splat(self.e.const(kind, number), self.shape(op.result))
        elif isinstance(value, IntegerAttr | FloatAttr):
            self.scalars[op.result] = self.e.const(llvm_element(op.result.type), value.value.data)
        else:
            raise Unsupported(f"a constant of type {op.result.type}")

    def deferred(self, op: Operation) -> None:
        result = op.results[0]
        if not is_tile(result):
            self.scalars[result] = self.scalar(op)
            return
        found = self.deferred_tile(op, self.shape(result))
        if result not in self.placement.stored or op in self.factors:
            self.tiles[result] = found
        elif (reduction := self.written_by(op, found)) is not None:
            self.tiles[result] = kept = Kept(found, self.new_buffer(result))
            self.kept.setdefault(reduction, []).append((result, kept))
        else:
            self.tiles[result] = stored(self.k, found, ends=self.ends(result))

    def written_by(self, op: Operation, tile: Tile) -> compute.ReduceOp | None:
        """The reduction in whose loop nest a tile is written: it goes through all that is needed of the tile."""
        reduction = reduced_next(op) if tile.is_contiguous(len(tile.shape) - 1) else None
        if reduction is None or self.needed.of(op.results[0])[:-1] == self.needed.of(reduction.result):
            return reduction
        return None

    def scalar(self, op: Operation) -> SSAValue:
        match op:
            case compute.IndexOp():
                values = {f"p{number}": self.place(operand) for number, operand in enumerate(op.inputs)}
                return self.k.ssa(self.k.evaluate(op.expression.data, {**self.symbols, **values}))
            case memory.LoadOp() | memory.GatherOp():
                rank = len(types.shape(block_type(op.block)))
                access = self.deferred_tile(op, (1,) * rank if isinstance(op, memory.LoadOp) else ())
                return self.read_scalar(access)
            case compute.BroadcastOp() | compute.TransposeOp() | compute.PadOp():
                if isinstance(op, compute.PadOp) or is_tile(op.input):
                    raise Unsupported(f"{op.name} of a scalar")
                return self.scalars[op.input]
        return elementwise.compute(op)(self.e, [self.scalars[operand] for operand in op.operands])

    def read_scalar(self, tile: Tile) -> SSAValue:
        self.k.begin_nest()
        return self.k.read(tile, At((0,) * len(tile.shape)))

    def deferred_tile(self, op: Operation, shape: tuple[int, ...]) -> Tile:
        match op:
            case memory.LoadOp() | arith.TruncFOp() if (factor := self.factors.get(op)) is not None:
                load = op if isinstance(op, memory.LoadOp) else op.input.owner
                assert isinstance(load, memory.LoadOp), "what is packed is loaded"
                return Piece(factor, self.place(load.offsets[1]), shape, self.k)
            case memory.LoadOp():
                offsets = [self.place(offset) for offset in op.offsets]
                in_bounds = () if op.in_bounds is None else op.in_bounds.data
                other = 0 if op.other is None else op.other.value
                found = Loaded(self.k, self.memories[op.block], offsets, shape, in_bounds, other)
                if not self.has_products:
                    found.read_ahead(
                        reduced=any(isinstance(each.operation, compute.ReduceOp) for each in op.result.uses)
                    )
                return found
            case memory.GatherOp():
                indices = [self.tile(index, shape) for index in op.indices]
                mask = None if op.mask is None else self.tile(op.mask, shape)
                other = 0 if op.other is None else op.other.value
                return Gathered(self.memories[op.block], indices, mask, shape, other)
            case compute.IndexOp():
                names = {f"p{number}": operand for number, operand in enumerate(op.inputs)}
                tiles = {name: self.tiles[operand] for name, operand in names.items() if is_tile(operand)}
                values = {name: self.place(operand) for name, operand in names.items() if not is_tile(operand)}
                return Index(op.expression.data, {**self.symbols, **values}, tiles, shape)
            case compute.RangeOp():
                return Range(shape[0])
            case compute.BroadcastOp():
                if not is_tile(op.input):
                    return Splat(self.scalars[op.input], shape)
                return Broadcast(self.tiles[op.input], op.along.data, shape)
            case compute.TransposeOp():
                return Transpose(self.tiles[op.input], op.permutation.data)
            case compute.PadOp():
                return self.padded(op)
            case arith.CmpiOp() if element(op.lhs) == INDEX:
                return ComparedPlaces(op, shape, [self.tile(operand, shape) for operand in op.operands])
        kind = {math.FmaOp: MultiplyAdd, arith.MulfOp: Product}.get(type(op), Elementwise)
        return kind(
            llvm_element(element(op.results[0])), shape, elementwise.compute(op),
            [self.tile(operand, shape) for operand in op.operands],
        )  # fmt: skip

    def padded(self, op: compute.PadOp) -> Tile:
        operand = self.tiles[op.input]
        limits: list[Place | None] = []
        for offset, bound, extent in zip(op.offsets, op.bounds.data, operand.shape, strict=True):
            start, end = self.place(offset), self.extent(bound)
            limits.append(None if inside(self.k, start, extent, end) else self.k.sub(end, start))
        return Padded(operand, limits, op.other.value)

    # -- ops with loops of their own -----------------------------------------------------------------------------------

    def store(self, op: memory.StoreOp) -> None:
        target = self.memories[op.block]
        value = self.tile(op.value, (1,) * len(target.shape))
        in_bounds = () if op.in_bounds is None else op.in_bounds.data
        large = self.large.get(parameter_of(op.block), False)
        offsets = [self.place(offset) for offset in op.offsets]
        self.streams |= store_tile(self.k, value, target, offsets, in_bounds, large)

    def scatter(self, op: memory.ScatterOp) -> None:
        value = self.tile(op.value)
        indices = [self.tile(index, value.shape) for index in op.indices]
        mask = None if op.mask is None else self.tile(op.mask, value.shape)
        kind = "any" if op.combine is None else op.combine.data
        combine = None if kind == "any" else partial(combine_in_memory, self.e, kind)
        scatter_tile(self.k, value, self.memories[op.block], indices, mask, combine)

    def reduce(self, op: compute.ReduceOp) -> None:
        tile = self.tiles[op.input]
        buffer = self.new_buffer(op.result) if is_tile(op.result) else None
        found = reduce_tile(self.k, op.kind.data, tile, op.axis.data, buffer, self.ends(op.result))
        if buffer is None:
            assert found is not None
            self.scalars[op.result] = found
        else:
            self.tiles[op.result] = Stored(buffer)
        for value, kept in self.kept.pop(op, ()):
            kept.is_written, self.tiles[value] = True, kept.stored

    def dot(self, op: compute.DotOp) -> None:
        accumulator = self.tiles[op.accumulator]
        buffer = self.targets.get(op.result)
        if buffer is None or not accumulator.buffers.get(buffer, True):
            buffer = self.new_buffer(op.result)
        dot_tile(
            self.k, self.tiles[op.lhs], self.tiles[op.rhs], accumulator, buffer,
            transposed=op.transposed is not None, vector_bytes=self.vector_bytes,
            span=[self.place(row) for row in op.rows], groups=self.groups(op),
            needed=self.ends(op.result)[0], band=None if op.band is None else op.band.data,
        )  # fmt: skip
        self.tiles[op.result] = Stored(buffer)

    def groups(self, op: compute.DotOp) -> Groups | None:
        """How the products of a dot are grouped."""
        (rows, total), columns = self.shape(op.lhs), self.shape(op.result)[1]
        return Groups.of(self.e, op, llvm_element(element(op.lhs)), rows, columns, total)
