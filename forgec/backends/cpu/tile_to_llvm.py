"""From a kernel of the tile level to a function in LLVM.

The function is ``i32 NAME(ptr ctx, ptr args, i64 begin, i64 end)``: it runs the programs ``[begin, end)`` of the grid,
whose last axis counts fastest. ``args`` are slots of eight bytes: the address of each parameter's first element, then
the value of each symbol. It returns 0, or the number of the check that failed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterator, Sequence
from functools import partial

from xdsl.dialects import llvm, scf
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Block, Operation, SSAValue

from forgec.backends.cpu.carried import Carried, in_place
from forgec.backends.cpu.elementwise import Unsupported
from forgec.backends.cpu.emitter import function
from forgec.backends.cpu.llvm_types import PTR, i1, i32, i64, size_bytes
from forgec.backends.cpu.lowering import Lowering, refusal
from forgec.backends.cpu.memory_access import Loaded
from forgec.backends.cpu.needed import Limit
from forgec.backends.cpu.packing import Factor
from forgec.backends.cpu.placement import is_tile, parameter_of
from forgec.backends.cpu.places import Place
from forgec.backends.cpu.repeated_loops import Form, Passed
from forgec.backends.cpu.tiles import (
    VECTOR_BYTES,
    Buffer,
    Kernel,
    Stored,
    Tile,
)
from forgec.diagnostics import error
from forgec.ir.locations import location_of
from forgec.ir.tile import compute, memory
from forgec.ir.tile.kernel import KernelOp
from forgec.ir.tile.types import extents

STREAMED_BYTES = 32 << 20
"""Bytes of a result that no cache holds until the next kernel reads it: the last level's share of a few cores."""
FRAME_LIMIT = 4 << 20
"""Bytes of tiles in the frame of a kernel: half of the stack that Linux gives threads."""


def kernel_functions(
    kernel: KernelOp, *, vector_bytes: int = VECTOR_BYTES, features: Collection[str] = ()
) -> list[llvm.FuncOp]:
    """The function of a bound kernel, and those that it calls. ``vector_bytes`` is the size of the target's registers,
    64 of x86 with AVX-512 alone; ``features`` are instructions that it has beyond its level
    (``short_products.FEATURES``).

    Raises:
        ForgeError: FORGE-B002 for a kernel whose tile extents are not bound, or an op or a type that has no code.
    """
    if not kernel.is_bound:
        name = kernel.sym_name.data
        raise error("FORGE-B002", f"the tiles of kernel {name} have no extents", location=location_of(kernel))
    lowering = _Lowering(kernel, vector_bytes, frozenset(features))
    try:
        lowering.emit()
    except Unsupported as fault:  # of a parameter: ``block`` tells those of ops
        raise refusal(fault, kernel, kernel) from fault
    if lowering.k.frame_bytes > FRAME_LIMIT:
        raise error(
            "FORGE-B002",
            f"the tiles of kernel {kernel.sym_name.data} take {lowering.k.frame_bytes} bytes of the stack",
            notes=(f"at most {FRAME_LIMIT} are allowed",),
            location=location_of(kernel),
        )
    return [lowering.e.func, *lowering.functions.values()]


def kernel_module(
    kernels: Sequence[KernelOp], *, vector_bytes: int = VECTOR_BYTES, features: Collection[str] = ()
) -> ModuleOp:
    """A module with the functions of kernels."""
    made = (kernel_functions(kernel, vector_bytes=vector_bytes, features=features) for kernel in kernels)
    return ModuleOp([function for functions in made for function in functions])


def streamed_parameters(kernel: KernelOp) -> list[SSAValue]:
    """What a kernel writes and does not read. Kernels with products have none: they are not bound by memory."""
    if any(isinstance(op, compute.DotOp) for op in kernel.body.walk()):
        return []
    reads = [op.block for op in kernel.body.walk() if isinstance(op, memory.LoadOp | memory.GatherOp)]
    read = {parameter_of(block) for block in reads}
    return [p for p in (kernel.parameters[n] for n in kernel.writes.data) if p not in read]


class _Lowering(Lowering):
    """A whole function: its loop over programs, and control flow."""

    def emit(self) -> None:
        e, k, kernel = self.e, self.k, self.kernel
        _, slots, begin, end = e.arguments
        count = len(kernel.parameters)
        for number, name in enumerate(kernel.symbol_names):
            value = e.load(i64, e.element(slots, count + number, i64))
            self.symbols[name] = k.assume_nonnegative(value)
        for number, parameter in enumerate(kernel.parameters):
            self.memories[parameter] = self.memory(parameter, e.load(PTR, e.element(slots, number, i64)))
        self.large = {parameter: self.is_large(parameter) for parameter in streamed_parameters(kernel)}
        grid = [self.extent(extent) for extent in kernel.grid.data]
        k.assume_nonnegative(begin)

        def program(number: Place, _: list[SSAValue]) -> Sequence[SSAValue]:
            k.assume_nonnegative(number)
            self.programs = []
            for axis in reversed(range(len(grid))):
                self.programs.insert(0, k.mod(number, grid[axis]) if axis else number)
                number = k.floordiv(number, grid[axis]) if axis else number
            self.block(kernel.body.block)
            return ()

        k.loop(begin, end, 1, program)
        if self.streams:
            e.fence()
        e.ret(e.const(i32, 0))

    def is_large(self, parameter: SSAValue) -> bool | SSAValue:
        """Whether a parameter has so many bytes that it is written past the caches."""
        memory = self.memories[parameter]
        nbytes: Place = size_bytes(memory.element)
        for extent in memory.shape:
            nbytes = self.k.mul(nbytes, extent)
        if isinstance(nbytes, int):
            return nbytes >= STREAMED_BYTES
        return self.e.icmp("sge", self.k.ssa(nbytes), STREAMED_BYTES)

    def op(self, op: Operation) -> None:
        match op:
            case scf.ForOp():
                self.loop(op)
            case scf.IfOp():
                self.branch(op)
            case _:
                super().op(op)

    # -- control flow --------------------------------------------------------------------------------------------------

    def loop(self, op: scf.ForOp) -> None:
        arguments = op.body.block.args[1:]
        carried = self.carried(arguments)
        carried.write([self.tiles.get(value) for value in op.iter_args])
        self.factors.update(self.pack(op))
        form = self.repeated.get(op)
        if form is not None and self.call(op, form, carried):
            self.results(op, carried.buffers, ())
        else:
            self.results(op, carried.buffers, self.iterate(op, carried))

    def carried(self, values: Sequence[SSAValue]) -> Carried:
        """Buffers for tiles among some values."""
        buffers = [self.new_buffer(value) if is_tile(value) else None for value in values]
        return Carried(self.k, buffers, [self.ends(value) for value in values])

    def pack(self, op: scf.ForOp) -> dict[Operation, Factor]:
        """Pack the left factors of a loop's products that are better read so."""
        first, last, step = (self.place(bound) for bound in (op.lb, op.ub, op.step))
        if not isinstance(first, int) or not isinstance(last, int) or not isinstance(step, int):
            return {}
        found: dict[Operation, Factor] = {}
        for number, left in enumerate(self.packs.lefts(op)):
            whole = partial(self.loaded, left.load, first)
            factor = self.packs.packed(left, whole, (first, last, step), number)
            if factor is not None:
                found[left.read] = factor
        return found

    def loaded(self, op: memory.LoadOp, first: int, columns: int) -> Loaded:
        """What a load in a loop reads in all of its turns: so many columns from the first on."""
        other = 0 if op.other is None else op.other.value
        block, rows = self.memories[op.block], self.shape(op.result)[0]
        in_bounds = () if op.in_bounds is None else op.in_bounds.data
        return Loaded(self.k, block, [self.place(op.offsets[0]), first], (rows, columns), in_bounds, other)

    def iterate(self, op: scf.ForOp, carried: Carried) -> list[SSAValue]:
        """The loop, whose tiles start with what the buffers hold. Gives the last numbers that it carries."""
        index, *arguments = op.body.block.args
        yields = op.body.block.last_op
        assert isinstance(yields, scf.YieldOp)
        for argument, buffer, value in zip(arguments, carried.buffers, yields.arguments, strict=True):
            if buffer is not None:
                self.tiles[argument] = Stored(buffer)
                if in_place(self.placement, argument, value):
                    self.targets[value] = buffer
        numbers = [argument for argument in arguments if not is_tile(argument)]
        start = [self.scalars[value] for value in op.iter_args if not is_tile(value)]

        def body(place: Place, values: list[SSAValue]) -> Sequence[SSAValue]:
            self.scalars[index] = self.k.ssa(place)
            self.scalars.update(zip(numbers, values, strict=True))
            self.block(op.body.block)
            results = self.yielded
            carried.write([self.tiles.get(value) for value in results])
            return [self.scalars[value] for value in results if not is_tile(value)]

        step = self.place(op.step)
        if not isinstance(step, int):
            raise Unsupported("a loop whose step is no constant")
        first, last = self.place(op.lb), self.place(op.ub)
        return self.k.loop(first, last, step, body, start)

    def call(self, op: scf.ForOp, form: Form, carried: Carried) -> bool:
        """Run a loop in a function that all loops of its form share. False, and nothing is emitted, if there can be
        none: a tile of outside is computed where it is read.
        """
        passed = Passed(self.k)
        buffers = [passed.buffer(buffer) for buffer in carried.buffers if buffer is not None]
        factors = [passed.factor(self.factors[inner]) for inner in op.body.block.ops if inner in self.factors]
        symbols = {name: passed.place(place) for name, place in self.symbols.items()}
        scalars, memories = {}, {}
        tiles: dict[SSAValue, Callable[[Kernel, Iterator[SSAValue]], Tile]] = {}
        for value in form.captured:
            if value in self.memories:
                memories[value] = passed.memory(self.memories[value])
            elif value in self.scalars:
                scalars[value] = passed.scalar(self.scalars[value])
            elif (tile := passed.tile(self.tiles[value])) is not None:
                tiles[value] = tile
            else:
                return False
        limits = {pair: passed.place(place) for pair, place in self.limits.items()}
        key = (form.key, tuple(passed.signature), self.needed_in(op, list(limits)))
        if key not in self.functions:
            name = f"{self.kernel.sym_name.data}.loop{len(self.functions)}"
            func = function(name, [value.type for value in passed.arguments], internal=True)
            inner = _Lowering(self.kernel, self.vector_bytes, self.e.features, func, self.placement, self.needed)
            values = iter(inner.e.arguments)
            given = [buffer(inner.k, values) for buffer in buffers]
            read = [load for load in op.body.block.ops if load in self.factors]
            inner.factors = {load: factor(inner.k, values) for load, factor in zip(read, factors, strict=True)}
            inner.symbols = {name: place(inner.k, values) for name, place in symbols.items()}
            for value in form.captured:  # in the order in which they are passed
                if value in memories:
                    inner.memories[value] = memories[value](inner.k, values)
                elif value in scalars:
                    inner.scalars[value] = scalars[value](inner.k, values)
                else:
                    inner.tiles[value] = tiles[value](inner.k, values)
            inner.limits = {pair: place(inner.k, values) for pair, place in limits.items()}
            arguments = op.body.block.args[1:]
            inside = Carried(inner.k, given, [inner.ends(value) for value in arguments])
            inner.iterate(op, inside)
            inner.e.ret()
            self.k.frame_bytes += inner.k.frame_bytes
            self.functions[key] = func
        self.e.call(self.functions[key], passed.arguments)
        return True

    def needed_in(self, op: scf.ForOp, limits: Sequence[tuple[Limit, int]]) -> Hashable:
        """What a loop needs of its tiles, by the numbers of limits."""
        numbers = {pair: number for number, pair in enumerate(limits)}
        values = [v for each in op.walk() for v in (*each.results, *(a for r in each.regions for a in r.block.args))]
        return tuple(
            tuple(numbers.get((limit, extent), -1) for limit, extent in zip(self.needed.of(v), extents(v), strict=True))  # type: ignore[arg-type] - None is no key, and is not found
            for v in values
        )

    def results(self, op: Operation, buffers: Sequence[Buffer | None], numbers: Sequence[SSAValue]) -> None:
        """What the results of an op are: the buffers of tiles, and the numbers of the others."""
        following = iter(numbers)
        for result, buffer in zip(op.results, buffers, strict=True):
            if buffer is None:
                self.scalars[result] = next(following)
            else:
                self.tiles[result] = Stored(buffer)

    def branch(self, op: scf.IfOp) -> None:
        chosen = self.carried(op.results)

        def side(block: Block | None) -> Callable[[], Sequence[SSAValue]]:
            def emit() -> Sequence[SSAValue]:
                if block is None:
                    return ()
                self.yielded = []
                self.block(block)
                results = self.yielded
                chosen.write([self.tiles.get(value) for value in results])
                return [self.scalars[value] for value in results if not is_tile(value)]

            return lambda: self.k.nested(emit)

        otherwise = op.false_region.blocks[0] if op.false_region.blocks else None
        condition = self.scalars[op.cond]
        assert condition.type == i1
        self.results(op, chosen.buffers, self.e.if_(condition, side(op.true_region.block), side(otherwise)))
