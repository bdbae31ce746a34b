"""Random kernels with inputs, for every backend of the tile level: elementwise, reductions, scans, products.

``random_kernel(chooser)`` makes one; what it computes is the same for all tile extents and every order of programs, up
to ``tolerance``. Comparisons, and what else is not continuous, are applied to values alone that every backend must
compute exactly, so that no rounding decides about a result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from xdsl.dialects import arith, math, scf
from xdsl.dialects.builtin import AnyFloat, FloatAttr, IntegerAttr
from xdsl.ir import Block, Operation, SSAValue

from forgec.ir import types
from forgec.ir.attributes import ScalarAttr
from forgec.ir.evaluator import Evaluator
from forgec.ir.tile import compute, elementwise, memory
from forgec.ir.tile.interpreter import placed
from forgec.ir.tile.kernel import KernelOp, ProgramIdOp, ReturnOp, TileParameter
from forgec.ir.tile.types import INDEX, block, element, extents, tile
from forgec.runtime.dtypes import torch_dtype
from forgec.runtime.symbolic import Extent, evaluate, floordiv, symbol
from tests.chooser import Chooser

SIZES = (0, 1, 2, 3, 5, 7, 8, 16, 17, 33)
FLOATS = ("f32", "f32", "f32", "f16", "bf16", "f64")
INTEGERS = ("i32", "i64", "i8", "i16", "i1")
TOLERANCES = {"f64": 1e-5, "f32": 1e-5, "f16": 2e-3, "bf16": 1.6e-2}
SPECIAL = (float("nan"), float("inf"), float("-inf"), -0.0)


@dataclass
class RandomKernel:
    """An unbound kernel, its input tensors, poisoned outputs (each in its block's strides), and its symbols' values."""

    kernel: KernelOp
    inputs: list[torch.Tensor]
    outputs: list[torch.Tensor]
    symbols: list[int]

    def fresh_outputs(self) -> list[torch.Tensor]:
        """New poisoned outputs: every element of them is written."""
        values = dict(zip(self.kernel.symbol_names, self.symbols, strict=True))
        kinds = [self.kernel.parameters[position].type.value for position in self.kernel.writes.data]
        return [placed(Evaluator(values), kind, None) for kind in kinds]

    def bindings(self, chooser: Chooser, *, powers_of_two: bool = False) -> dict[str, int]:
        """Tile extents: any that are allowed, or powers of two."""
        values = dict(zip(self.kernel.symbol_names, self.symbols, strict=True))
        found: dict[str, int] = {}
        for parameter in self.kernel.tiles.data:
            least = max(evaluate(parameter.extent, values), 1) if parameter.whole else 1
            size = least + chooser.integer(0, 3) if parameter.whole else chooser.integer(1, 9)
            found[parameter.name] = 1 << (size - 1).bit_length() if powers_of_two else size
        return found

    def check(self, actual: Sequence[torch.Tensor], expected: Sequence[torch.Tensor]) -> None:
        """Asserts that outputs are the same: integers exactly, floats relative to the largest one."""
        for got, wanted in zip(actual, expected, strict=True):
            if not wanted.dtype.is_floating_point:
                assert torch.equal(got, wanted), f"{got}\n{wanted}\n{self.kernel}"
                continue
            name = next(n for n in TOLERANCES if torch_dtype(n) == wanted.dtype)
            finite = wanted[wanted.isfinite()].double().abs()
            scale = max(float(finite.max()) if finite.numel() else 0.0, 1.0)
            torch.testing.assert_close(
                got.double(), wanted.double(), rtol=TOLERANCES[name], atol=TOLERANCES[name] * scale, equal_nan=True
            )


def random_kernel(chooser: Chooser) -> RandomKernel:
    """A random kernel of one of the kinds."""
    author = _Author(chooser)
    kinds = (author.elementwise, author.reduction, author.looped_reduction, author.scan, author.dot)
    kinds[chooser.integer(0, len(kinds) - 1)]()
    return author.finished()


@dataclass
class _Value:
    """A tile, and whether every backend computes it exactly (what IEEE 754 says of +, -, *, / and rounding)."""

    value: SSAValue
    exact: bool


@dataclass
class _Author:
    chooser: Chooser
    ops: list[Operation] = field(default_factory=list)
    blocks: list[tuple[str, tuple[Extent, ...], tuple[Extent, ...]]] = field(default_factory=list)
    writes: list[int] = field(default_factory=list)
    tiles: list[TileParameter] = field(default_factory=list)
    symbols: dict[str, int] = field(default_factory=dict)
    grid: list[Extent] = field(default_factory=list)
    body: Block = field(default_factory=Block)

    # Choices

    def pick(self, items: Sequence):
        return items[self.chooser.integer(0, len(items) - 1)]

    def chance(self, one_in: int) -> bool:
        return self.chooser.integer(1, one_in) == 1

    def extent(self) -> Extent:
        """A size, known while compiling or not."""
        size = self.pick(SIZES)
        if self.chance(2):
            return size
        name = f"n{len(self.symbols)}"
        self.symbols[name] = size
        return symbol(name)

    # Pieces

    def add(self, op: Operation) -> SSAValue:
        self.body.add_op(op)
        return op.results[0] if op.results else None  # pyright: ignore[reportReturnType]

    def index(self, value: Extent) -> SSAValue:
        return self.add(compute.IndexOp(value))

    def axis(self, name: str, extent: Extent, *, whole: bool = False) -> Extent:
        """A tile parameter for an axis."""
        self.tiles.append(TileParameter(name, extent, whole))
        return symbol(name)

    def over_grid(self, name: str, extent: Extent) -> tuple[Extent, SSAValue]:
        """A tile of an axis in each program: its extent, and where it begins."""
        size = self.axis(name, extent)
        self.grid.append(floordiv(extent + size - 1, size))
        program = self.add(ProgramIdOp(len(self.grid) - 1))
        return size, self.add(compute.IndexOp(symbol("p0") * size, [program]))

    def parameter(self, dtype: str, shape: Sequence[Extent], *, writes: bool = False) -> SSAValue:
        """One more block, with strides of its own: rows may have gaps, axes may be swapped."""
        order = list(range(len(shape)))
        if len(shape) == 2 and self.chance(3):
            order.reverse()
        strides: list[Extent] = [0] * len(shape)
        step: Extent = 1
        for axis in reversed(order):
            strides[axis] = step
            step = step * shape[axis] + (self.chooser.integer(1, 3) if self.chance(3) else 0)
        if any(extent == 0 for extent in shape):
            strides = list(types.contiguous_strides(shape))
        if writes:
            self.writes.append(len(self.blocks))
        kind = block(dtype, shape, strides)
        self.blocks.append((dtype, tuple(shape), tuple(strides)))
        return self.body.insert_arg(kind, len(self.body.args))

    def load(self, dtype: str, shape: Sequence[Extent], offsets: Sequence[SSAValue], sizes: Sequence[Extent]) -> _Value:
        """A tile of a new input, narrow floats extended; what is outside holds some number."""
        source = self.parameter(dtype, shape)
        other = None if dtype == "i1" or self.chance(2) else ScalarAttr.of(self.pick((0, 1, 3)))
        if other is not None and dtype in types.FLOATS:
            other = ScalarAttr.of(float(other.value))
        found = self.add(memory.LoadOp(source, offsets, tile(dtype, sizes), other))
        if dtype in ("f16", "bf16"):
            found = self.add(arith.ExtFOp(found, tile("f32", sizes)))
        return _Value(found, True)

    def constant(self, dtype: str, value: float, shape: Sequence[Extent]) -> SSAValue:
        kind = INDEX if dtype == "index" else types.ELEMENT_TYPES[dtype]
        number = FloatAttr(value, kind) if dtype in types.FLOATS else IntegerAttr(int(value), kind)
        scalar = self.add(arith.ConstantOp(number))
        return self.add(compute.BroadcastOp(scalar, [], shape)) if shape else scalar

    def store(self, value: _Value, shape: Sequence[Extent], offsets: Sequence[SSAValue], dtype: str) -> None:
        found = value.value
        if dtype in ("f16", "bf16"):
            found = self.add(arith.TruncFOp(found, tile(dtype, extents(found))))
        target = self.parameter(dtype, shape, writes=True)
        self.add(memory.StoreOp(found, target, offsets))

    # Elementwise

    def floats(self, values: list[_Value], count: int) -> _Value:
        """A value computed by some elementwise ops from tiles of one type of floats."""
        pool = list(values)
        kind = element(pool[0].value)
        for _ in range(count):
            a, b = self.pick(pool), self.pick(pool)
            pool.append(self.float_op(a, b, [v for v in pool if v.exact], kind))
        return pool[-1]

    def float_op(self, a: _Value, b: _Value, exact: list[_Value], kind: object) -> _Value:
        binary = (arith.AddfOp, arith.SubfOp, arith.MulfOp, arith.MaximumfOp, arith.MinimumfOp)
        exact_unary = (arith.NegfOp, math.AbsFOp, math.FloorOp, math.CeilOp, math.RoundEvenOp, math.TruncOp)
        steady = (math.TanhOp, math.ErfOp)  # an error of the operand does not grow
        periodic = (math.SinOp, math.CosOp)
        choice = self.chooser.integer(0, 7)
        if choice <= 2:
            return _Value(self.add(self.pick(binary)(a.value, b.value)), a.exact and b.exact)
        if choice == 3 and exact:
            return _Value(self.add(self.pick(exact_unary)(self.pick(exact).value)), True)
        if choice == 4 and exact:
            left, right = self.pick(exact), self.pick(exact)
            predicate = self.pick(("olt", "oge", "une", "ueq", "ult", "uno", "ord"))
            condition = self.add(elementwise.CmpfOp(left.value, right.value, predicate))
            return _Value(self.add(elementwise.SelectOp(condition, a.value, b.value)), a.exact and b.exact)
        if choice == 5:  # a bounded quotient: the divisor is at least 1
            one = self.constant(types.dtype(types.tensor(kind, ())), 1.0, extents(b.value))
            divisor = self.add(arith.AddfOp(self.add(math.AbsFOp(b.value)), one))
            return _Value(self.add(arith.DivfOp(a.value, divisor)), a.exact and b.exact)
        if choice == 6:
            return _Value(self.add(math.ExpOp(self.add(math.TanhOp(a.value)))), False)
        if exact and self.chance(2):
            return _Value(self.add(self.pick(periodic)(self.pick(exact).value)), False)
        return _Value(self.add(self.pick(steady)(a.value)), False)

    def integers(self, values: list[_Value], count: int) -> _Value:
        """The same for integers; results wrap, divisors are odd and positive."""
        binary = (arith.AddiOp, arith.SubiOp, arith.MuliOp, arith.AndIOp, arith.OrIOp, arith.XOrIOp)
        ordered = (arith.MaxSIOp, arith.MinSIOp, arith.MaxUIOp, arith.MinUIOp)
        pool = list(values)
        name = types.dtype(types.tensor(element(pool[0].value), ()))
        for _ in range(count):
            a, b = self.pick(pool).value, self.pick(pool).value
            choice = self.chooser.integer(0, 5) if name != "i1" else 0
            if choice <= 1:
                made = self.add(self.pick(binary)(a, b))
            elif choice == 2:
                made = self.add(self.pick(ordered)(a, b))
            elif choice == 3:
                predicate = self.pick(("slt", "sge", "eq", "ne", "ult", "uge"))
                made = self.add(elementwise.SelectOp(self.add(elementwise.CmpiOp(a, b, predicate)), b, a))
            elif choice == 4:
                by = self.constant(name, self.chooser.integer(0, 7), extents(a))
                made = self.add(self.pick((arith.ShLIOp, arith.ShRSIOp, arith.ShRUIOp))(a, by))
            else:
                one = self.constant(name, 1, extents(a))
                odd = self.add(arith.OrIOp(self.add(arith.ShRUIOp(b, one)), one))
                made = self.add(self.pick((arith.DivSIOp, arith.RemSIOp, arith.FloorDivSIOp))(a, odd))
            pool.append(_Value(made, True))
        return pool[-1]

    def broadcast(self, value: _Value, axis: int, shape: Sequence[Extent]) -> _Value:
        return _Value(self.add(compute.BroadcastOp(value.value, [axis], shape)), value.exact)

    # Kernels

    def elementwise(self) -> None:
        """All of a matrix, with rows and columns broadcast, of floats or of integers."""
        shape = (self.extent(), self.extent())
        (bm, row), (bn, column) = self.over_grid("BM", shape[0]), self.over_grid("BN", shape[1])
        sizes = (bm, bn)
        is_float = self.chance(2)
        dtype = self.pick(FLOATS if is_float else INTEGERS)
        same = ("f32", "f16", "bf16") if dtype in ("f32", "f16", "bf16") else (dtype,)
        values = [self.load(self.pick(same), shape, [row, column], sizes) for _ in range(self.chooser.integer(1, 2))]
        for axis, (start, size) in enumerate(((row, bm), (column, bn))):
            if self.chance(2):
                vector = self.load(self.pick(same), shape[axis : axis + 1], [start], [size])
                values.append(self.broadcast(vector, axis, sizes))
        count = self.chooser.integer(1, 6)
        found = self.floats(values, count) if is_float else self.integers(values, count)
        if self.chance(4):
            swapped = self.add(compute.TransposeOp(found.value, [1, 0]))
            self.store(_Value(swapped, found.exact), shape[::-1], [column, row], dtype)
        else:
            self.store(found, shape, [row, column], dtype)

    def rows(self) -> tuple[tuple[Extent, Extent], Extent, SSAValue, Extent, SSAValue]:
        """Rows over the grid, each of them whole."""
        shape = (self.extent(), self.extent())
        bm, row = self.over_grid("BM", shape[0])
        bn = self.axis("BN", shape[1], whole=True)
        return shape, bm, row, bn, self.constant("index", 0, ())

    def padded(self, value: _Value, row: SSAValue, zero: SSAValue, shape: Sequence[Extent], other: float) -> _Value:
        number = other if isinstance(element(value.value), AnyFloat) else int(other)
        return _Value(self.add(compute.PadOp(value.value, [row, zero], shape, number)), value.exact)

    def reduction(self) -> None:
        """Rows reduced, perhaps combined with the rows again."""
        shape, bm, row, bn, zero = self.rows()
        is_float = not self.chance(3)
        dtype = self.pick(FLOATS if is_float else ("i32", "i64"))
        inner = self.load(dtype, shape, [row, zero], (bm, bn))
        if is_float and self.chance(2):
            inner = self.floats([inner], self.chooser.integer(1, 3))
        kind = self.pick(("add", "max", "min", "mul", "argmax", "argmin"))
        if kind.startswith("arg") and not inner.exact:
            kind = "max"
        limits = {"i32": 31, "i64": 63}
        low = float("-inf") if is_float else -(1 << limits[dtype])
        high = float("inf") if is_float else (1 << limits[dtype]) - 1
        identity = {"add": 0.0, "mul": 1.0, "max": low, "argmax": low, "min": high, "argmin": high}[kind]
        if kind == "mul" and is_float:  # keeps products small
            inner = _Value(self.add(math.TanhOp(inner.value)), False)
        reduced = self.add(compute.ReduceOp(kind, self.padded(inner, row, zero, shape, identity).value, 1))
        if kind.startswith("arg"):
            narrow = self.add(elementwise.IndexCastOp(reduced, tile("i64", [bm])))
            self.store(_Value(narrow, True), shape[:1], [row], "i64")
            return
        exact = inner.exact and kind in ("max", "min")
        wide = self.broadcast(_Value(reduced, exact), 0, (bm, bn))
        if is_float and self.chance(2):
            difference = _Value(self.add(arith.SubfOp(inner.value, wide.value)), exact)
            self.store(difference, shape, [row, zero], dtype)
        self.store(_Value(reduced, exact), shape[:1], [row], dtype)

    def looped_reduction(self) -> None:
        """Rows reduced in a loop that carries the result, in any kind whose order is free."""
        shape = (self.extent(), self.extent())
        bm, row = self.over_grid("BM", shape[0])
        bn = self.axis("BN", shape[1])
        source = self.parameter("f32", shape)
        kind = self.pick(("add", "max", "min"))
        combine = {"add": arith.AddfOp, "max": arith.MaximumfOp, "min": arith.MinimumfOp}[kind]
        identity = {"add": 0.0, "max": float("-inf"), "min": float("inf")}[kind]
        first = self.constant("f32", identity, [bm])
        bounds = [self.index(value) for value in (0, shape[1], bn)]
        inside = Block(arg_types=[INDEX, first.type])
        outside, self.body = self.body, inside
        column, carried = inside.args
        part = self.add(memory.LoadOp(source, [row, column], tile("f32", (bm, bn)), ScalarAttr.of(identity)))
        reduced = self.add(compute.ReduceOp(kind, part, 1))
        inside.add_op(scf.YieldOp(self.add(combine(carried, reduced))))
        self.body = outside
        loop = self.add(scf.ForOp(*bounds, [first], inside))
        self.store(_Value(loop, kind != "add"), shape[:1], [row], "f32")

    def scan(self) -> None:
        """Running sums, products, maxima or minima of rows."""
        shape, bm, row, bn, zero = self.rows()
        kind = self.pick(("add", "max", "min", "mul"))
        inner = self.load("f32", shape, [row, zero], (bm, bn))
        if kind == "mul":
            inner = _Value(self.add(math.TanhOp(inner.value)), False)
        found = self.add(compute.ScanOp(kind, inner.value, 1))
        self.store(_Value(found, False), shape, [row, zero], "f32")

    def dot(self) -> None:
        """A product, its inner axis in a loop, with something elementwise after it."""
        rows, inner, columns = self.extent(), self.extent(), self.extent()
        (bm, row), (bn, column) = self.over_grid("BM", rows), self.over_grid("BN", columns)
        bk = self.axis("BK", inner)
        dtype = self.pick(("f32", "f32", "f16", "bf16"))
        transposed = self.chance(2)
        left = self.parameter(dtype, (rows, inner))
        right = self.parameter(dtype, (columns, inner) if transposed else (inner, columns))
        first = self.constant("f32", 0.0, (bm, bn))
        bounds = [self.index(value) for value in (0, inner, bk)]
        inside = Block(arg_types=[INDEX, first.type])
        outside, self.body = self.body, inside
        depth, carried = inside.args
        a = self.add(memory.LoadOp(left, [row, depth], tile(dtype, (bm, bk))))
        sizes, places = ((bn, bk), [column, depth]) if transposed else ((bk, bn), [depth, column])
        b = self.add(memory.LoadOp(right, places, tile(dtype, sizes)))
        inside.add_op(scf.YieldOp(self.add(compute.DotOp(a, b, carried, transposed=transposed))))
        self.body = outside
        found = _Value(self.add(scf.ForOp(*bounds, [first], inside)), False)
        if self.chance(2):
            found = self.floats([found, self.load("f32", (rows, columns), [row, column], (bm, bn))], 2)
        self.store(found, (rows, columns), [row, column], "f32")

    # The whole

    def finished(self) -> RandomKernel:
        self.add(ReturnOp.create())
        names = sorted(self.symbols)
        kernel = KernelOp.of("random", self.body, [symbol(n) for n in names], self.writes, [], self.tiles, self.grid)
        kernel.verify()
        generator = torch.Generator().manual_seed(self.chooser.integer(0, 2**31 - 1))
        specials = self.chance(4)
        ev = Evaluator(self.symbols)
        inputs: list[torch.Tensor] = []
        for position, (dtype, shape, strides) in enumerate(self.blocks):
            if position not in self.writes:
                numbers = _numbers(dtype, [evaluate(n, self.symbols) for n in shape], generator, specials)
                inputs.append(placed(ev, types.tensor(dtype, shape, strides), numbers))
        made = RandomKernel(kernel, inputs, [], [self.symbols[name] for name in names])
        made.outputs = made.fresh_outputs()
        return made


def _numbers(dtype: str, shape: Sequence[int], generator: torch.Generator, specials: bool) -> torch.Tensor:
    kind = torch_dtype(dtype)
    if not kind.is_floating_point:
        least, most = (0, 2) if dtype == "i1" else (-100, 101)
        return torch.randint(least, most, tuple(shape), generator=generator).to(kind)
    numbers = torch.randn(tuple(shape), generator=generator)
    if specials and numbers.numel():
        places = torch.randint(0, numbers.numel(), (2,), generator=generator)
        which = torch.randint(0, len(SPECIAL), (2,), generator=generator)
        numbers.view(-1)[places] = torch.tensor(SPECIAL)[which]
    return numbers.to(kind)


def blocks_of(made: RandomKernel, outputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """The tensors of all parameters in order."""
    inputs, written = iter(made.inputs), iter(outputs)
    writes = set(made.kernel.writes.data)
    return [next(written) if n in writes else next(inputs) for n in range(len(made.kernel.parameters))]
