"""The reference meaning of kernels, on CPU tensors: program after program, op after op.

It is the oracle of the backends. What the definition of the dialect forbids is an error (FORGE-X001, naming the
program): an access outside a block's memory, two programs that meet in one element, a dimension that ``in_bounds`` is
wrong about, reading what nothing has written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import reduce
from math import prod
from typing import Any

from xdsl.dialects import scf
from xdsl.dialects.builtin import TensorType
from xdsl.ir import Attribute, Block, Operation, SSAValue
from xdsl.traits import SymbolTable

from forgec.diagnostics import ForgeError, error
from forgec.ir import types
from forgec.ir.evaluator import Evaluator
from forgec.ir.layout import all_different
from forgec.ir.locations import location_of
from forgec.ir.tile import compute, memory
from forgec.ir.tile.elementwise_reference import dtype_of, evaluate_elementwise, from_number
from forgec.ir.tile.index_reference import evaluate_index
from forgec.ir.tile.kernel import Kernel, KernelOp, LaunchOp, ProgramIdOp, ReturnOp
from forgec.ir.tile.memory_model import Accesses, Memory, Storage, fault, grid
from forgec.ir.tile.types import BlockType, block_type, element, extents
from forgec.runtime.symbolic import evaluate


def run_kernel(
    kernel: Kernel,
    blocks: Sequence[Any],
    symbols: Sequence[int],
    bindings: Mapping[str, int] | None = None,
    order: Iterable[int] | None = None,
    *,
    float64: bool = False,
    scheduler: Callable[[int, int], int] | None = None,
) -> None:
    """Run the programs of a kernel's grid on CPU tensors, one for each parameter, which it writes in place.

    Each tensor has the dtype, extents and strides of its block (FORGE-R001 to FORGE-R003 if not; with ``float64`` all
    floats are float64). ``symbols`` are the values of the kernel's symbols in order, ``bindings`` tile extents that it
    does not bind itself. ``order`` are numbers of programs in the row-major order of the grid, all of them if absent.
    ``scheduler`` says which group of a scheduled kernel goes on whenever several can.
    """
    import torch

    with torch.no_grad():
        values = bound_symbols(kernel, symbols, bindings)
        ev = Evaluator(values, {}, float64)
        parameters = _parameters(kernel, ev, blocks)
        _run(kernel, ev, parameters, order, scheduler)


def run_launch(launch: LaunchOp, ev: Evaluator, inputs: Sequence[Any]) -> tuple[Any, ...]:
    """The results of a launch, in the strides of their types: updated operands are copied before the run, other results
    begin as NaN or the smallest integer, and it is an error if an element of them is left so.

    Tile parameters that the kernel does not bind have the extents of ``default_bindings``.
    """
    kernel = SymbolTable.lookup_symbol(launch, launch.kernel)
    if not isinstance(kernel, Kernel):
        raise error("FORGE-I002", f"there is no kernel {launch.kernel.string_value()}", location=location_of(launch))
    symbols = [ev.extent(extent) for extent in launch.extents.data]
    values = bound_symbols(kernel, symbols, default_bindings(kernel, symbols))
    inner = Evaluator(values, {}, ev.float64)
    operands = iter(inputs)
    blocks: list[Any] = []
    fresh: list[int] = []
    for position, (operand, _) in enumerate(launch.parameters()):
        kind = block_type(kernel.parameters[position])
        given = None if operand is None else next(operands)
        blocks.append(placed(inner, kind, given))
        if given is None:
            fresh.append(position)
    parameters = _parameters(kernel, inner, blocks)
    _run(kernel, inner, parameters, None)
    for position in fresh:
        _check_written(kernel, parameters[position])
    return tuple(blocks[position] for position in launch.writes.data)


def default_bindings(kernel: Kernel, symbols: Sequence[int]) -> dict[str, int]:
    """Tile extents for running an unbound kernel here: powers of two, so that tiles do not fit; a kernel's own ones
    come first.
    """
    values = dict(zip(kernel.symbol_names, symbols, strict=True))
    found: dict[str, int] = {}
    for parameter in kernel.tiles.data:
        size = max(evaluate(parameter.extent, values), 1)
        power = 1 << (size - 1).bit_length()
        found[parameter.name] = power if parameter.whole else min(power, 64)
    return {**found, **kernel.bindings}


def placed(ev: Evaluator, kind: Attribute, value: Any | None) -> Any:
    """A fresh tensor with the extents and strides of a stored type: a copy of ``value``, or poison."""
    torch, dtype = ev.torch, ev.dtype(kind)
    shape, strides = ev.shape(kind), tuple(ev.extent(stride) for stride in types.strides(kind))
    count = 1 + sum((n - 1) * s for n, s in zip(shape, strides, strict=True)) if all(shape) else 0
    elements = torch.full((count,), 0, dtype=dtype)
    elements.copy_(poison(torch, dtype).expand(count))
    if not count:
        return torch.empty_strided(shape, strides, dtype=dtype)
    result = elements.as_strided(shape, strides)
    if value is not None and all_different(shape, strides):
        result.copy_(value)
    elif value is not None:  # elements share places: the type says that they are equal
        places = Memory(Storage(elements), 0, shape, strides, "").addresses(grid(shape))
        elements[places.reshape(-1)] = value.reshape(-1)
    return result


def poison(torch: Any, dtype: Any) -> Any:
    """What an element holds that nothing has written: NaN, the smallest integer, true."""
    if dtype == torch.bool:
        return torch.tensor(True)
    if dtype.is_floating_point:
        return torch.tensor(float("nan")).to(dtype)
    return torch.tensor(torch.iinfo(dtype).min if dtype.is_signed else torch.iinfo(dtype).max, dtype=dtype)


# Parameters -----------------------------------------------------------------------------------------------------------


def bound_symbols(kernel: Kernel, symbols: Sequence[int], bindings: Mapping[str, int] | None) -> dict[str, int]:
    """The values of a kernel's symbols and tile parameters by name."""
    names = kernel.symbol_names
    if len(names) != len(symbols):
        raise error("FORGE-R001", f"{kernel.sym_name.data} has {len(names)} symbols, found {len(symbols)} values")
    values = dict(zip(names, symbols, strict=True))
    chosen = {**(bindings or {}), **kernel.bindings}
    for parameter in kernel.tiles.data:
        if parameter.name not in chosen:
            raise error("FORGE-R003", f"tile parameter {parameter.name} of {kernel.sym_name.data} has no extent")
        extent, least = chosen[parameter.name], evaluate(parameter.extent, values) if parameter.whole else 1
        if extent < max(least, 1):
            raise error("FORGE-R003", f"the extent {extent} of tile parameter {parameter} is below {max(least, 1)}")
        values[parameter.name] = extent
    return values


def _parameters(kernel: Kernel, ev: Evaluator, blocks: Sequence[Any]) -> list[Memory]:
    if len(blocks) != len(kernel.parameters):
        raise error("FORGE-R001", f"the kernel has {len(kernel.parameters)} parameters, found {len(blocks)} tensors")
    writes, updates = set(kernel.writes.data), set(kernel.updates.data)
    storages: dict[Any, Storage] = {}
    found: list[Memory] = []
    for position, (parameter, tensor) in enumerate(zip(kernel.parameters, blocks, strict=True)):
        name = f"%{parameter.name_hint}" if parameter.name_hint else f"parameter {position}"
        kind = block_type(parameter)
        shape, strides = ev.shape(kind), tuple(ev.extent(stride) for stride in types.strides(kind))
        _check(ev, kind, tensor, shape, strides, name)
        held = tensor.untyped_storage()
        key = (held.data_ptr(), tensor.dtype) if tensor.numel() else (position, tensor.dtype)
        if key not in storages:
            count = held.nbytes() // tensor.element_size()
            storages[key] = Storage(ev.torch.as_strided(tensor, (count,), (1,), 0))
        storage = storages[key]
        if position in writes and storage.accesses is None:
            storage.accesses = Accesses.of(storage.elements.numel())
        readable = position not in writes or position in updates
        found.append(Memory(storage, tensor.storage_offset(), shape, strides, name, position in writes, readable))
    return found


def _check(
    ev: Evaluator, kind: Attribute, tensor: Any, shape: tuple[int, ...], strides: tuple[int, ...], name: str
) -> None:
    if tensor.dtype != ev.dtype(kind):
        raise error("FORGE-R002", f"{name} has dtype {tensor.dtype}, the kernel says {types.dtype(kind)}")
    if tuple(tensor.shape) != shape:
        raise error("FORGE-R003", f"{name} has shape {list(tensor.shape)}, the kernel says {list(shape)}")
    moving = [axis for axis, extent in enumerate(shape) if extent > 1] if all(shape) else []
    if any(tensor.stride(axis) != strides[axis] for axis in moving):
        raise error("FORGE-R003", f"{name} has strides {list(tensor.stride())}, the kernel says {list(strides)}")


def _check_written(kernel: Kernel, block: Memory) -> None:
    if not prod(block.shape):
        return
    accesses = block.storage.accesses
    assert accesses is not None
    places = block.addresses(grid(block.shape)).reshape(-1)
    missing = int((~accesses.defined(places)).sum())
    if missing:
        raise fault(
            f"{kernel.sym_name.data} leaves {missing} elements of {block.name} unwritten, and does not update it"
        )


# Programs -------------------------------------------------------------------------------------------------------------


def _run(
    kernel: Kernel,
    ev: Evaluator,
    parameters: Sequence[Memory],
    order: Iterable[int] | None,
    scheduler: Callable[[int, int], int] | None = None,
) -> None:
    sizes = tuple(evaluate(extent, ev.symbols) for extent in kernel.grid.data)
    shapes: dict[Attribute, tuple[int, ...]] = {}
    count = prod(max(size, 0) for size in sizes)
    for number in range(count) if order is None else order:
        if not 0 <= number < count:
            raise error("FORGE-R003", f"there is no program {number} in a grid of {list(sizes)}")
        place: list[int] = []
        rest = number
        for size in reversed(sizes):
            rest, position = divmod(rest, size)
            place.insert(0, position)
        program = Program(ev, number, place, shapes)
        if isinstance(kernel, KernelOp):
            program.block(kernel.body.block, parameters, {})
        else:
            from forgec.ir.warp.interpreter import run_groups

            run_groups(kernel, program, parameters, scheduler)


class Program:
    """One program of a grid. Values are tensors, of rank 0 for scalars; those of blocks are ``Memory``."""

    def __init__(
        self, ev: Evaluator, number: int, place: Sequence[int], shapes: dict[Attribute, tuple[int, ...]]
    ) -> None:
        self.ev = ev
        self.torch = ev.torch
        self.number = number
        self.place = place
        self._shapes = shapes

    def block(self, block: Block, inputs: Sequence[Any], values: dict[SSAValue, Any]) -> list[Any]:
        """Execute a block; what its terminator takes. ``values`` are those of the blocks around it."""
        values.update(zip(block.args, inputs, strict=True))
        for op in block.ops:
            if isinstance(op, (ReturnOp, scf.YieldOp, scf.ConditionOp)):
                return [values[operand] for operand in op.operands]
            values.update(zip(op.results, self.results_of(op, values), strict=True))
        return []

    def results_of(self, op: Operation, values: dict[SSAValue, Any]) -> Sequence[Any]:
        """Execute one op on the values of its operands."""
        operands = [values[operand] for operand in op.operands]
        try:
            results = self._control(op, operands, values) if op.regions else self._results(op, operands)
            self._check_shapes(op, results)
        except ForgeError as failure:
            raise failure.at(location_of(op)) from failure
        except Exception as failure:
            reason = f"{type(failure).__name__}: {failure}".strip().splitlines()[0]
            raise error("FORGE-R007", f"{op.name} failed: {reason}", location=location_of(op)) from failure
        return results

    def _control(self, op: Operation, operands: list[Any], values: dict[SSAValue, Any]) -> list[Any]:
        match op:
            case scf.IfOp():
                region = op.true_region if bool(operands[0]) else op.false_region
                return self.block(region.block, [], values) if region.blocks else []
            case scf.ForOp():
                lower, upper, step, *carried = operands
                if int(step) <= 0:
                    raise fault(f"a loop's step is {int(step)}")
                for counter in range(int(lower), int(upper), int(step)):
                    carried = self.block(
                        op.body.block, [self.torch.tensor(counter, dtype=lower.dtype), *carried], values
                    )
                return carried
            case scf.WhileOp():
                carried = operands
                while True:
                    go_on, *carried = self.block(op.before_region.block, carried, values)
                    if not bool(go_on):
                        return carried
                    carried = self.block(op.after_region.block, carried, values)
        raise error("FORGE-I003", f"{op.name} has no reference implementation")

    def _results(self, op: Operation, operands: list[Any]) -> list[Any]:
        found = evaluate_elementwise(op, self.ev, operands)
        if found is not None:
            return [found]
        match op:
            case ProgramIdOp():
                if not 0 <= op.axis.data < len(self.place):
                    raise fault(f"the grid has no axis {op.axis.data}")
                return [self.torch.tensor(self.place[op.axis.data])]
            case memory.ViewOp():
                return [self._view(op, *operands)]
            case memory.LoadOp():
                return [self.load(op, operands[0], operands[1:])]
            case memory.StoreOp():
                self._store(op, operands[0], operands[1], operands[2:])
                return []
            case memory.GatherOp():
                return [self._gather(op, operands)]
            case memory.ScatterOp():
                self._scatter(op, operands)
                return []
            case memory.SortOp():
                self._sort(op, *operands)
                return []
            case memory.CheckOp():
                if not bool(operands[0].all()):
                    raise error("FORGE-R007", op.message.data)
                return []
        if isinstance(op, compute.TileOp):
            return [self._compute(op, operands)]
        raise error("FORGE-I003", f"{op.name} has no reference implementation")

    def shape(self, value: SSAValue | Attribute) -> tuple[int, ...]:
        """The extents of a tile, as numbers."""
        kind = value.type if isinstance(value, SSAValue) else value
        if kind not in self._shapes:
            self._shapes[kind] = tuple(self.ev.extent(extent) for extent in extents(kind))
        return self._shapes[kind]

    def _check_shapes(self, op: Operation, results: Sequence[Any]) -> None:
        for result, tensor in zip(op.results, results, strict=True):
            if isinstance(result.type, BlockType):
                continue
            if tuple(tensor.shape) != self.shape(result) or tensor.dtype != dtype_of(self.ev, result.type):
                found = f"{tensor.dtype} {list(tensor.shape)}"
                raise fault(f"{op.name} yields {found}, the IR says {element(result)} {list(self.shape(result))}")

    # Memory

    def _view(self, op: memory.ViewOp, source: Memory, offset: Any) -> Memory:
        kind = block_type(op.result)
        strides = tuple(self.ev.extent(stride) for stride in types.strides(kind))
        return source.view(int(offset), self.ev.shape(kind), strides)

    def _tile(
        self, op: memory.LoadOp | memory.StoreOp, block: Memory, kind: Attribute, offsets: Sequence[Any]
    ) -> tuple[Any, Any]:
        """The addresses of a tile's elements, and which of them are inside the block."""
        shape = self.shape(kind) if isinstance(kind, TensorType) else (1,) * len(offsets)
        indices = [index + offset for index, offset in zip(grid(shape), offsets, strict=True)]
        for dim in () if op.in_bounds is None else op.in_bounds.data:
            if not 0 <= dim < len(shape):
                raise fault(f"{block.name} has no dimension {dim}")
            if ((indices[dim] < 0) | (indices[dim] >= block.shape[dim])).any():
                first, last = int(offsets[dim]), int(offsets[dim]) + shape[dim]
                raise fault(
                    f"program {self.number}: elements {first} to {last} of dimension {dim} of {block.name} are not in "
                    f"bounds of its {block.shape[dim]}, as {op.name} says"
                )
        inside = block.inside(indices, shape)
        return block.addresses(indices).expand(shape), inside

    def load(self, op: Any, block: Memory, offsets: Sequence[Any]) -> Any:
        """The tile that a load (``tile.load``, ``warp.async_load``) reads."""
        places, inside = self._tile(op, block, op.result.type, offsets)
        return self._read(op, block, places, inside).reshape(self.shape(op.result))

    def _read(self, op: memory.LoadOp | memory.GatherOp, block: Memory, places: Any, inside: Any) -> Any:
        dtype = dtype_of(self.ev, op.result.type)
        other = 0 if op.other is None else op.other.value
        result = from_number(self.torch, other, dtype).expand(inside.shape).clone()
        found = block.read(places[inside], self.number)
        result[inside] = found.view(dtype) if found.dtype == self.torch.uint8 else found  # tiles are signless
        return result

    def _store(self, op: memory.StoreOp, value: Any, block: Memory, offsets: Sequence[Any]) -> None:
        places, inside = self._tile(op, block, op.value.type, offsets)
        block.write(places[inside], self._stored(value.reshape(inside.shape)[inside], block), self.number)

    def _elements(
        self, block: Memory, indices: Sequence[Any], mask: Any | None, shape: tuple[int, ...]
    ) -> tuple[Any, Any]:
        wide = [index.expand(shape) for index in indices]
        chosen = self.torch.ones(shape, dtype=self.torch.bool) if mask is None else mask
        for dim, (index, extent) in enumerate(zip(wide, block.shape, strict=True)):
            wrong = chosen & ((index < 0) | (index >= extent))
            if wrong.any():
                raise fault(
                    f"program {self.number}: index {int(index[wrong][0])} is outside dimension {dim} of {block.name}, "
                    f"which has {extent} elements"
                )
        return block.addresses(wide).expand(shape), chosen

    def _gather(self, op: memory.GatherOp, operands: list[Any]) -> Any:
        block, indices = operands[0], operands[1 : 1 + len(op.indices)]
        mask = None if op.mask is None else operands[-1]
        places, chosen = self._elements(block, indices, mask, self.shape(op.result))
        return self._read(op, block, places, chosen)

    def _scatter(self, op: memory.ScatterOp, operands: list[Any]) -> None:
        value, block, indices = operands[0], operands[1], operands[2 : 2 + len(op.indices)]
        mask = None if op.mask is None else operands[-1]
        places, chosen = self._elements(block, indices, mask, self.shape(op.value))
        stored = self._stored(value[chosen], block)
        if op.combine is None:
            block.write(places[chosen], stored, self.number)
        else:
            block.combine(places[chosen], stored, self.number, op.combine.data)

    def _sort(self, op: memory.SortOp, block: Memory, places: Memory) -> None:
        count = self.torch.arange(*block.shape)
        keys = block.read(block.addresses([count]), self.number)
        order = self.torch.sort(keys, stable=True, descending=op.descending is not None).indices
        places.write(places.addresses([count]), order, self.number)

    def _stored(self, value: Any, block: Memory) -> Any:
        """Bits of signless tiles as the block's elements have them."""
        return value.view(self.torch.uint8) if block.storage.elements.dtype == self.torch.uint8 else value

    # Tiles

    def _compute(self, op: compute.TileOp, operands: list[Any]) -> Any:
        match op:
            case compute.IndexOp():
                values: dict[str, Any] = {**self.ev.symbols, **{f"p{n}": v for n, v in enumerate(operands)}}
                found = evaluate_index(self.torch, op.expression.data, values)
                return self.torch.as_tensor(found, dtype=self.torch.int64).expand(self.shape(op.result))
            case compute.RangeOp():
                return self.torch.arange(*self.shape(op.result))
            case compute.BroadcastOp():
                shape = [1] * len(self.shape(op.result))
                for axis, extent in zip(op.along.data, operands[0].shape, strict=True):
                    shape[axis] = extent
                return operands[0].reshape(shape).expand(self.shape(op.result))
            case compute.TransposeOp():
                return operands[0].permute(op.permutation.data)
            case compute.DotOp():
                return self.dot(op, *operands)
            case compute.ReduceOp():
                return self._reduce(op.kind.data, operands[0], op.axis.data)
            case compute.ScanOp():
                return self._scan(op.kind.data, operands[0], op.axis.data)
            case compute.PadOp():
                return self._pad(op, operands[0], operands[1:])
        raise error("FORGE-I003", f"{op.name} has no reference implementation")

    def dot(self, op: Any, left: Any, right: Any, accumulator: Any, *rows: Any) -> Any:
        """The product that an op (``tile.dot``, ``warp.mma``) asks for."""
        right = right.T if op.transposed is not None else right
        if op.band is not None and op.band.data == "sum":
            inside = self._is_in_band(left, rows)
            left = self.torch.where(inside, left, 0)
            right = self.torch.where(inside.any(0)[:, None], right, 0)
        total = accumulator + self.torch.matmul(left.to(accumulator.dtype), right.to(accumulator.dtype))
        if op.band is not None:
            undefined = op.band.data == "result" and total.is_floating_point()
            return self.torch.where(self._is_in_band(total, rows), total, self.torch.nan) if undefined else total
        if not rows:
            return total
        place = self.torch.arange(total.shape[0])[:, None]
        return self.torch.where((place >= rows[0]) & (place < rows[1]), total, accumulator)

    def _is_in_band(self, matrix: Any, band: Sequence[int]) -> Any:
        """Where the column less the row is a number of the band."""
        rows, columns = (self.torch.arange(extent) for extent in matrix.shape)
        apart = columns - rows[:, None]
        return (apart >= band[0]) & (apart < band[1])

    def _reduce(self, kind: str, value: Any, axis: int) -> Any:
        torch = self.torch
        if value.dtype == torch.bool and kind not in ("and", "or"):
            raise fault(f"booleans have no reduction {kind}")
        match kind:
            case "add":
                return value.sum(axis, dtype=value.dtype)
            case "mul":
                return value.prod(axis, dtype=value.dtype)
            case "max":
                return value.amax(axis)
            case "maxnum":
                return torch.where(value.isnan(), -torch.inf, value).amax(axis)
            case "min":
                return value.amin(axis)
            case "and":
                return reduce(torch.bitwise_and, value.unbind(axis))
            case "or":
                return reduce(torch.bitwise_or, value.unbind(axis))
        best = (value.amax if kind == "argmax" else value.amin)(axis, keepdim=True)
        first = (value == best) | (value.isnan() & best.isnan())
        places = torch.arange(value.shape[axis]).reshape([-1 if a == axis else 1 for a in range(value.dim())])
        return torch.where(first, places, value.shape[axis]).amin(axis)

    def _scan(self, kind: str, value: Any, axis: int) -> Any:
        torch = self.torch
        if value.dtype == torch.bool:
            raise fault(f"booleans have no scan {kind}")
        combine = {"add": torch.add, "mul": torch.mul, "max": torch.maximum, "min": torch.minimum}[kind]
        found: list[Any] = []
        for part in value.unbind(axis):
            found.append(combine(found[-1], part) if found else part)
        return torch.stack(found, axis)

    def _pad(self, op: compute.PadOp, value: Any, offsets: Sequence[Any]) -> Any:
        inside = self.torch.ones(value.shape, dtype=self.torch.bool)
        for index, offset, bound in zip(grid(value.shape), offsets, op.bounds.data, strict=True):
            inside = inside & (index + offset < self.ev.extent(bound))
        return self.torch.where(inside, value, from_number(self.torch, op.other.value, value.dtype))
