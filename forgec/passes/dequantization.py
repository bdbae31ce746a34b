"""How a matrix was computed from quantised numbers: read from the numbers outwards, in whatever way it was spelled."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import NoReturn

from xdsl.ir import Attribute, Operation, SSAValue

from forgec.ir import types
from forgec.ir.ops.base import producer
from forgec.ir.ops.binary import AddOp, DivOp, MulOp, RsubOp, SubOp
from forgec.ir.ops.quantization import BOUNDS, BYTES, FLOAT8, PACKINGS, DequantizeOp, held_number
from forgec.ir.ops.select import WhereOp
from forgec.ir.ops.shape import BroadcastOp, ConcatOp, InsertSliceOp
from forgec.ir.ops.unary import CastOp, ClampOp, NegOp
from forgec.passes.axes import VIEWS, Atom, Dims, aligned, before, extent_of, leaves, regrouped, source
from forgec.passes.nibbles import nibble_of
from forgec.passes.patterns import Number, made_by, number

SEARCHED = 64
"""Ops that are looked at between a linear and the numbers of its weight."""
INTEGER_BITS = {"f64": 53, "f32": 24, "f16": 11, "bf16": 8}
"""Integers up to 2 to this power are numbers of a dtype."""
INTEGERS = {**BOUNDS, "i64": (-(2**63), 2**63 - 1)}
Range = tuple[int, int]


@dataclass
class Budget:
    """How many ops may still be looked at."""

    left: int = SEARCHED


class NotQuantized(Exception):
    """A value is not computed from quantised numbers, as far as it can be seen."""


class Refused(Exception):
    """A value is computed from quantised numbers, but not as ``forge.dequantize`` does; the message says why."""


@dataclass(frozen=True)
class Parameter:
    """A scale or a zero point: a number, or a value with its atoms. ``plain``: of rank 0 where it is used."""

    value: SSAValue | Number
    dims: Dims = field(default_factory=list)
    plain: bool = True

    @property
    def is_zero(self) -> bool:
        """True for the number 0."""
        return not isinstance(self.value, SSAValue) and self.value == 0

    def equals(self, other: Parameter | None) -> bool:
        """True if both are the same numbers for the same places."""
        if other is None or self.plain != other.plain:
            return False
        if not isinstance(self.value, SSAValue) or not isinstance(other.value, SSAValue):
            return type(self.value) is type(other.value) and self.value == other.value
        return self.value is other.value and _same_atoms(self.dims, other.dims)


@dataclass(frozen=True)
class Chain:
    """Numbers and what has been made of them up to some value, of dtype ``dtype``.

    ``range`` bounds integers as long as they are such; None where nothing bounds them, or for 8-bit floats. ``compute``
    is the dtype in which zeros were subtracted, ``product`` the one in which scales were multiplied. ``rounded``: a
    cast after that lost something, so that no other may follow.
    """

    numbers: SSAValue
    dims: Dims
    dtype: str
    range: Range | None
    packing: str | None = None
    half: Atom | None = None
    """The atom along which a byte's two numbers lie."""
    high: bool = False
    """True for the upper halves of bytes; with ``half``, if those come first."""
    compute: str | None = None
    zeros: Parameter | None = None
    scales: Parameter | None = None
    product: str | None = None
    wraps: bool = False
    """True if the difference may leave the integers that its dtype has."""
    rounded: bool = False
    matched: tuple[Operation, ...] = ()

    def cast(self, dtype: str) -> Chain:
        """The chain after a cast."""
        if dtype == self.dtype:
            return self
        if self.rounded:
            raise Refused("it is cast again after it was rounded")
        if self.product is not None:
            exact = dtype in types.FLOATS and types.promote(self.product, dtype) == dtype
            if dtype not in INTEGER_BITS:
                raise Refused(f"what was scaled is cast to {dtype}")
            return replace(self, dtype=dtype, rounded=not exact)
        if self.holds(dtype):
            return replace(self, dtype=dtype)
        if self.zeros is not None and dtype in INTEGER_BITS:
            return replace(self, dtype=dtype, rounded=True)
        raise Refused(f"a cast to {dtype} does not keep the numbers")

    def holds(self, dtype: str) -> bool:
        """True if every number so far is one of a dtype."""
        if self.range is None:
            return self.numbers_are_float8 and dtype in INTEGER_BITS and self.zeros is None
        if dtype in INTEGERS:
            least, most = INTEGERS[dtype]
            return least <= self.range[0] and self.range[1] <= most
        return dtype in INTEGER_BITS and max(-self.range[0], self.range[1]) <= 2 ** INTEGER_BITS[dtype]

    @property
    def numbers_are_float8(self) -> bool:
        """True for 8-bit floats."""
        return types.dtype(self.numbers) in FLOAT8

    def minus(self, zeros: Parameter, dtype: str) -> Chain:
        """The chain after the subtraction of zero points, whose result has a dtype."""
        if self.zeros is not None or self.scales is not None:
            raise Refused("a second number is subtracted, or one after the scales were multiplied")
        if not self.holds(dtype):
            raise Refused(f"the numbers are subtracted from in {dtype}, which does not hold them")
        bounds = _bounds(zeros)
        found = None
        if self.range is not None and bounds is not None:
            found = (self.range[0] - bounds[1], self.range[1] - bounds[0])
        chain = replace(self, dtype=dtype, compute=dtype, zeros=zeros, range=found)
        if dtype in INTEGERS and (found is None or not chain.holds(dtype)):
            return replace(chain, range=INTEGERS[dtype], wraps=True)
        return chain if chain.holds(dtype) else replace(chain, range=None)

    def times(self, scales: Parameter, dtype: str) -> Chain:
        """The chain after a multiplication by scales, whose result has a dtype."""
        if self.scales is not None:
            raise Refused("scales are multiplied twice")
        if dtype not in INTEGER_BITS:
            raise Refused(f"scales are multiplied in {dtype}")
        if self.rounded and dtype != self.dtype:
            raise Refused("it is cast again after it was rounded")
        chain = replace(self, scales=scales, product=dtype, dtype=dtype, rounded=False)
        if self.zeros is None or self._may_be_made_in(self.dtype):
            return replace(chain, compute=self.dtype)
        return chain

    def _may_be_made_in(self, dtype: str) -> bool:
        """True if the difference is the same in another dtype: a float that holds it and what it is made of."""
        bounds = None if self.zeros is None else _bounds(self.zeros)
        if self.wraps or self.rounded or bounds is None or self.range is None or dtype not in INTEGER_BITS:
            return False
        least = min(self.range[0], bounds[0], self.range[0] + bounds[0])
        most = max(self.range[1], bounds[1], self.range[1] + bounds[1])
        return max(-least, most) <= 2 ** INTEGER_BITS[dtype]


def _bounds(zeros: Parameter) -> Range | None:
    """Between which integers zero points lie; None for others."""
    if isinstance(zeros.value, SSAValue):
        return BOUNDS.get(types.dtype(zeros.value)) if types.dtype(zeros.value) in BYTES else None
    whole = isinstance(zeros.value, int) or zeros.value.is_integer()
    return (int(zeros.value), int(zeros.value)) if whole else None


def _same_atoms(left: Dims, right: Dims) -> bool:
    pairs = [(leaves(a), leaves(b)) for a, b in zip(left, right, strict=False)]
    return len(left) == len(right) and all(a == b for a, b in pairs)


def read(value: SSAValue, dims: Dims, budget: Budget) -> Chain:
    """How a value was computed from quantised numbers; raises NotQuantized or Refused."""
    op = producer(value)
    budget.left -= 1
    if budget.left < 0:
        raise NotQuantized
    chain: Chain | None = None
    if isinstance(op, DequantizeOp):
        chain = _of_op(op, dims)
    elif isinstance(op, (ConcatOp, InsertSliceOp)):
        chain = _joined(op, dims, budget)
    elif isinstance(op, VIEWS):
        found = before(op, dims)
        if found is None or (isinstance(op, BroadcastOp) and types.shape(op.input) != types.shape(value)):
            raise NotQuantized
        chain = read(op.input, found, budget)
    elif isinstance(op, CastOp) and types.dtype(value) not in BYTES:
        chain = read(op.input, dims, budget).cast(types.dtype(value))
    elif isinstance(op, MulOp):
        chain = _scaled(op, dims, budget)
    elif isinstance(op, (SubOp, AddOp)):
        chain = _shifted(op, dims, budget)
    elif isinstance(op, (DivOp, RsubOp, ClampOp, WhereOp, NegOp)):
        _refuse(op, dims, budget)
    if chain is not None:
        assert op is not None, "a chain was read from it"
        return replace(chain, matched=(*chain.matched, op))
    return _numbers(value, dims, budget)


def _numbers(value: SSAValue, dims: Dims, budget: Budget) -> Chain:
    """The innermost part of a chain: half of a byte, or the numbers as they are."""
    half = nibble_of(value)
    if half is not None:
        base, atoms = source(half.byte, dims)
        packing = "s4" if half.signed else "u4"
        if types.dtype(base) not in BYTES:
            raise NotQuantized
        return Chain(base, atoms, types.dtype(value), PACKINGS[packing], packing, high=half.high)
    op, dtype = producer(value), types.dtype(value)
    if isinstance(op, CastOp) and dtype in BYTES:
        try:
            return read(op.input, dims, budget).cast(dtype)
        except (NotQuantized, Refused):
            pass  # these bytes are the numbers then
    if dtype not in (*BYTES, *FLOAT8):
        raise NotQuantized
    return Chain(value, dims, dtype, BOUNDS.get(dtype))


def _of_op(op: DequantizeOp, dims: Dims) -> Chain:
    """A ``forge.dequantize``."""
    name = types.dtype(op.quantized)
    assert op.compute is not None, "the verifier wants it"
    atoms, packing, half = dims, None, None
    if op.zeros_last is not None:
        raise Refused("its zero points are subtracted after scaling")
    if op.packing is not None:
        packing = op.packing.data
        if name not in BYTES:
            raise Refused(f"its numbers are packed into {name}, not into bytes")
        bytes_ = types.shape(op.quantized)[-1]
        assert isinstance(bytes_, int), "the verifier allows no other"
        row = regrouped(dims[-1], [bytes_ // op.run.data, 2, op.run.data])
        if row is None or len(row[1]) != 1:
            raise Refused("its rows are not those of the matrix")
        atoms, half = [*dims[:-1], [*row[0], *row[2]]], row[1][0]
    if name not in (*BYTES, *FLOAT8):
        raise Refused(f"the numbers are {name}, not of 8 bits")
    chain = Chain(op.quantized, atoms, name, BOUNDS.get(name) if packing is None else PACKINGS[packing], packing, half)
    chain = replace(chain, high=op.high_first is not None).cast(op.compute.data)
    wide = types.tensor(op.compute.data, [1])
    if op.zeros is not None:
        chain = chain.minus(_blocks(op.zeros, dims, exact=op.compute.data), op.compute.data)
    if op.scales is not None:
        chain = chain.times(_blocks(op.scales, dims), types.result_dtype([wide, row_of(op.scales)]))
    return chain.cast(types.dtype(op.result))


def row_of(value: SSAValue) -> Attribute:
    """A small type that promotes as a value's does: of rank 0, or not."""
    return types.tensor(types.dtype(value), [1] * min(types.rank(value), 1))


def _blocks(value: SSAValue, dims: Dims, exact: str | None = None) -> Parameter:
    """A parameter of ``forge.dequantize`` for a tensor of ``dims``."""
    found: Dims = []
    for extent, dim in zip(types.shape(value), dims, strict=False):
        if extent == 1:
            found.append([])
            continue
        count = extent_of(dim)
        parts = regrouped(dim, [extent, count // extent]) if isinstance(extent, int) else None
        if parts is None:
            raise Refused("its blocks are not those of the matrix")
        found.append(parts[0])
    return _parameter(value, found, exact)


def _parameter(value: SSAValue, dims: Dims, exact: str | None = None) -> Parameter:
    """A value as a parameter. ``exact``: integers are looked for behind casts that keep them and this dtype holds."""
    plain = not types.rank(value)
    held = held_number(value)
    if held is None and exact is not None:
        held = _small_integer(value)
    if held is not None:
        return Parameter(held)
    value, dims = source(value, dims)
    if exact is not None:
        found, atoms = value, dims
        while (cast := made_by(found, CastOp)) is not None:
            found, atoms = source(cast.input, atoms)
        if types.dtype(found) in BYTES and _casts_keep(value, found):
            value, dims = found, atoms
    return Parameter(value, dims, plain)


def _small_integer(value: SSAValue) -> Number | None:
    """The integer that all elements of a value are, if every dtype on the way holds it."""
    found = number(value)
    small = found is not None and not isinstance(found, bool) and abs(found) <= 256 and found == found // 1
    return found if small and types.dtype(value) not in FLOAT8 else None


def _casts_keep(value: SSAValue, byte: SSAValue) -> bool:
    """True if all casts between a byte and what was made of it keep its number."""
    least, most = BOUNDS[types.dtype(byte)]
    while value is not byte:
        name = types.dtype(value)
        holds = INTEGERS[name][0] <= least and most <= INTEGERS[name][1] if name in INTEGERS else name in INTEGER_BITS
        if not holds:
            return False
        op = producer(value)
        assert op is not None, "the byte comes first"
        value = op.operands[0]
    return True


def _scaled(op: MulOp, dims: Dims, budget: Budget) -> Chain:
    """``numbers · scales``, in either order."""
    dtype = types.dtype(op.result)
    if op.scalar is not None:
        value = op.scalar.value
        if isinstance(value, complex):
            raise NotQuantized
        return read(op.lhs, dims, budget).times(Parameter(value), dtype)
    assert op.rhs is not None, "an op without a number has a second operand"
    for data, scales in ((op.lhs, op.rhs), (op.rhs, op.lhs)):
        if types.shape(data) != types.shape(op.result):
            continue
        try:
            chain = read(data, dims, budget)
        except NotQuantized:
            continue
        return chain.times(_parameter(scales, aligned(types.shape(scales), dims)), dtype)
    raise NotQuantized


def _shifted(op: SubOp | AddOp, dims: Dims, budget: Budget) -> Chain:
    """``numbers - zeros``; a number that is added is one less than nothing."""
    dtype = types.dtype(op.result)
    held = op.scalar.value if op.scalar is not None else None
    if isinstance(op, AddOp) and (held is None or isinstance(held, (bool, complex))):
        _refuse(op, dims, budget)
    if op.scalar is not None:
        if isinstance(held, (bool, complex)) or held is None:
            raise NotQuantized
        return read(op.lhs, dims, budget).minus(Parameter(-held if isinstance(op, AddOp) else held), dtype)
    assert op.rhs is not None, "an op without a number has a second operand"
    if types.shape(op.lhs) != types.shape(op.result):
        raise NotQuantized
    chain = read(op.lhs, dims, budget)
    return chain.minus(_parameter(op.rhs, aligned(types.shape(op.rhs), dims), dtype), dtype)


def _refuse(op: Operation, dims: Dims, budget: Budget) -> NoReturn:
    """Raises Refused if an op that is no part of a dequantisation takes quantised numbers, else NotQuantized."""
    for data in op.operands:
        if types.shape(data) == types.shape(op.results[0]):
            try:
                read(data, dims, budget)
            except NotQuantized:
                continue
            raise Refused(f"{op.name} is applied to its numbers")
    raise NotQuantized


def _joined(op: ConcatOp | InsertSliceOp, dims: Dims, budget: Budget) -> Chain:
    """Lower and upper halves of bytes, put side by side or one after the other."""
    dim = op.dim.data
    if isinstance(op, ConcatOp):
        parts = list(op.inputs)
        shape: list[int] = [2, -1]
    else:
        inner = made_by(op.destination, InsertSliceOp)
        if inner is None or inner.dim != op.dim or op.step.data != 2 or inner.step.data != 2:
            raise NotQuantized
        pair = sorted((o.start.data, o.source) for o in (inner, op) if isinstance(o.start.data, int))
        if [start for start, _ in pair] != [0, 1]:
            raise NotQuantized
        parts, shape = [value for _, value in pair], [-1, 2]
    shapes = {(types.dtype(part), types.shape(part)) for part in parts}
    whole = extent_of(dims[dim])
    if len(parts) != 2 or len(shapes) != 1 or whole % 2 or types.shape(parts[0])[dim] != whole // 2:
        raise NotQuantized
    row = regrouped(dims[dim], [whole // 2 if n == -1 else n for n in shape])
    if row is None:
        raise NotQuantized
    halves, rest = (row[0], row[1]) if isinstance(op, ConcatOp) else (row[1], row[0])
    first, second = (read(part, [*dims[:dim], rest, *dims[dim + 1 :]], budget) for part in parts)
    if first.packing is None or second.packing is None or first.half is not None or second.half is not None:
        raise Refused("it is put together of parts that are not the two halves of bytes")
    if first.high == second.high or not _alike(first, second):
        raise Refused("the two halves of its bytes are treated differently")
    return replace(first, half=halves[0], matched=(*first.matched, *second.matched))


def _alike(first: Chain, second: Chain) -> bool:
    """True if two chains do the same with halves of the same bytes."""
    for one, other in ((first.zeros, second.zeros), (first.scales, second.scales)):
        if (one is not None or other is not None) and (one is None or not one.equals(other)):
            return False
    simple = ("numbers", "dtype", "packing", "compute", "product", "rounded")
    same = all(getattr(first, name) == getattr(second, name) for name in simple)
    return same and _same_atoms(first.dims, second.dims)
