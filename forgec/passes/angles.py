"""Tables of cosines and sines: the numbers for one of every two features that turn by one angle, made once."""

from __future__ import annotations

from dataclasses import dataclass, field

from xdsl.builder import Builder
from xdsl.dialects.builtin import IntAttr
from xdsl.ir import Block, Operation, SSAValue
from xdsl.rewriter import InsertPoint

from forgec.ir import types
from forgec.ir.attributes import ExtentAttr
from forgec.ir.ops.aten import AtenOp
from forgec.ir.ops.base import producer
from forgec.ir.ops.binary import BinaryOp, MulOp
from forgec.ir.ops.decomposition import Emitter
from forgec.ir.ops.shape import BroadcastOp, CopyOp, ReshapeOp, SliceOp, TransposeOp
from forgec.ir.ops.unary import CastOp, CosOp, NegOp, SinOp, UnaryOp
from forgec.passes.features import Features, Tracer
from forgec.passes.patterns import number, with_number


@dataclass
class Tables:
    """What is known about tables; each is rewritten once, whatever number of layers reads it."""

    tracer: Tracer
    _halves: dict[tuple[SSAValue, bool], SSAValue | None] = field(default_factory=dict)
    _wide: dict[tuple[SSAValue, str], SSAValue] = field(default_factory=dict)
    _negated: dict[SSAValue, SSAValue] = field(default_factory=dict)
    _parts: dict[SSAValue, tuple[SSAValue, SSAValue]] = field(default_factory=dict)

    def halved(self, table: SSAValue, joined: bool) -> SSAValue | None:
        """The first half of a table whose halves are equal, or, if ``joined``, every second number where pairs of
        neighbours are equal; None if that cannot be told from how the table is computed.
        """
        key = (table, joined)
        if key not in self._halves:
            self._halves[key] = None if types.rank(table) == 0 else self._halve(table, joined)
        return self._halves[key]

    def _halve(self, table: SSAValue, joined: bool) -> SSAValue | None:
        features, op = self.tracer.trace(table), producer(table)
        if features is None or op is None or len(features.places) % 2:
            return None
        half = len(features.places) // 2
        places = features.places
        first, second = (places[::2], places[1::2]) if joined else (places[:half], places[half:])
        if first == second and features.is_plain:
            return self._take(table, features, first)
        source = op.operands[0] if _is_by_row(op) else None
        shorter = None if source is None or types.rank(source) == 0 else self.halved(source, joined)
        if shorter is None:
            return None
        kind = types.tensor(types.dtype(table), (*types.shape(table)[:-1], half))
        new = type(op).create(
            operands=[shorter, *op.operands[1:]], properties=op.properties, result_types=[kind], location=op.location
        )
        _after(table, op).insert(new)
        return new.results[0]

    def _take(self, table: SSAValue, features: Features, places: tuple[int, ...]) -> SSAValue | None:
        """Some of the numbers of a table, read where they come from."""
        base, count = features.base, len(places)
        if types.rank(base) != types.rank(table):
            return None
        emit = Emitter(_after(base), producer(table) or producer(base))  # type: ignore[arg-type]
        width, step = types.shape(base)[-1], places[1] - places[0] if count > 1 else 1
        if step < 1 or places != tuple(range(places[0], places[0] + step * count, step)):
            return None
        found = base if width == count else None
        if found is None and places == tuple(range(count)) and width == 2 * count:
            found = self.halved(base, joined=False)
        if found is None:
            shape, strides = types.shape(base), types.strides(base)
            kind = types.tensor(types.dtype(base), (*shape[:-1], count), (*strides[:-1], strides[-1] * step))
            place = {"dim": IntAttr(len(shape) - 1), "start": ExtentAttr(places[0]), "step": ExtentAttr(step)}
            found = emit.insert(SliceOp.make([base], place, [kind]))
        if types.dtype(found) != types.dtype(table):
            emit.builder = _after(found)
            found = emit.cast(found, types.dtype(table))
        return found

    def equal(self, left: SSAValue, right: SSAValue) -> bool:
        """True if two tables surely hold the same numbers."""
        if left is right:
            return True
        if left.type != right.type or types.rank(left) == 0:
            return False
        one, other = self.tracer.trace(left), self.tracer.trace(right)
        if one is None or other is None or one.base is not other.base or one.negative != other.negative:
            return False
        if one.places == other.places:
            return True
        width = types.shape(one.base)[-1]
        if types.rank(one.base) != types.rank(left) or not isinstance(width, int):
            return False
        if self.halved(one.base, joined=False) is None:
            return False
        return all((p - q) % (width // 2) == 0 for p, q in zip(one.places, other.places, strict=True))

    def narrowed(self, table: SSAValue) -> SSAValue:
        """A table, read where its numbers come from: not as one half of a table whose halves are equal."""
        features = self.tracer.trace(table)
        if features is None or not features.is_plain or features.base is table:
            return table
        return self._take(table, features, features.places) or table

    def widened(self, table: SSAValue, dtype: str) -> SSAValue:
        """A table in a wider dtype: what is rotated need not be cast to have the products in it."""
        key = (table, dtype)
        if key not in self._wide:
            source = producer(table)
            kind = types.tensor(dtype, types.shape(table))
            new = CastOp.make([table], result_types=[kind], location=None if source is None else source.location)
            self._wide[key] = _after(table).insert(new).result
        return self._wide[key]

    def negated(self, table: SSAValue) -> SSAValue:
        """A table with the other signs."""
        if table not in self._negated:
            source = producer(table)
            new = NegOp.make([table], location=None if source is None else source.location)
            self._negated[table] = _after(table).insert(new).result
        return self._negated[table]

    def parts(self, factor: SSAValue) -> tuple[SSAValue, SSAValue]:
        """The real and the imaginary parts of a table of complex numbers."""
        if factor not in self._parts:
            self._parts[factor] = self._split(factor)
        return self._parts[factor]

    def _split(self, factor: SSAValue) -> tuple[SSAValue, SSAValue]:
        op = producer(factor)
        dtype = "f64" if types.dtype(factor) == "c128" else "f32"
        emit = Emitter(_after(factor), op) if op is not None else None
        if isinstance(op, ReshapeOp) and emit is not None:
            real, imaginary = self.parts(op.input)
            emit.builder = _after(factor)
            return emit.reshape(real, types.shape(factor)), emit.reshape(imaginary, types.shape(factor))
        if isinstance(op, MulOp) and emit is not None:
            scaled = with_number(op)
            if scaled is not None and types.shape(scaled[0]) == types.shape(factor):
                real, imaginary = self.parts(scaled[0])
                emit.builder = _after(factor)
                return emit.binary(MulOp, real, scaled[1]), emit.binary(MulOp, imaginary, scaled[1])
        if isinstance(op, AtenOp) and emit is not None and op.callee.data == "aten::polar" and len(op.inputs) == 2:
            size, angle = op.inputs
            real, imaginary = emit(CosOp, angle), emit(SinOp, angle)
            if number(size) == 1 and types.shape(angle) == types.shape(factor):
                return real, imaginary
            return emit(MulOp, size, real), emit(MulOp, size, imaginary)
        shape = types.shape(factor)
        call = AtenOp.of("aten::view_as_real", [factor], [], [types.tensor(dtype, (*shape, 2))])
        if op is not None:
            call.location = op.location
        both = _after(factor).insert(call).results[0]
        emit = Emitter(_after(both), call)
        real, imaginary = (emit.slice(both, len(shape), place, 1) for place in (0, 1))
        return emit.reshape(real, shape), emit.reshape(imaginary, shape)


def _is_by_row(op: Operation) -> bool:
    """True if a row of an op's result is a function of that row of its first operand, feature by feature."""
    source, target = (op.operands[0], op.results[0]) if op.operands else (None, None)
    if source is None or target is None or types.rank(source) == 0:
        return False
    if types.shape(source)[-1] != types.shape(target)[-1]:
        return False
    if isinstance(op, TransposeOp):
        return op.permutation.data[-1] == types.rank(source) - 1
    if isinstance(op, BinaryOp):
        wide = op.rhs is not None and types.rank(op.rhs) > 0 and types.shape(op.rhs)[-1] != 1
        return not wide
    return isinstance(op, (UnaryOp, ReshapeOp, BroadcastOp, CopyOp))


def _after(value: SSAValue, op: Operation | None = None) -> Builder:
    """Where ops that read a value may stand first."""
    op = op or producer(value)
    if op is not None:
        return Builder(InsertPoint.after(op))
    block = value.owner
    assert isinstance(block, Block)
    return Builder(InsertPoint.at_start(block))
