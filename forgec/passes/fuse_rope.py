"""Rotary embedding, however the model spells it, becomes ``forge.rope``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from math import prod

from xdsl.builder import Builder
from xdsl.context import Context
from xdsl.dialects.builtin import IntAttr, ModuleOp, UnitAttr
from xdsl.ir import Attribute, Block, Operation, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint
from xdsl.utils.exceptions import VerifyException

from forgec.ir import types
from forgec.ir.attributes import ExtentAttr
from forgec.ir.ops.aten import AtenOp
from forgec.ir.ops.base import producer
from forgec.ir.ops.binary import AddOp, BinaryOp, MulOp, SubOp
from forgec.ir.ops.composite import RopeOp
from forgec.ir.ops.decomposition import Emitter
from forgec.ir.ops.shape import BroadcastOp, ConcatOp, CopyOp, InsertSliceOp, ReshapeOp, SliceOp
from forgec.ir.ops.unary import CastOp
from forgec.passes.angles import Tables
from forgec.passes.features import Features, Tracer
from forgec.passes.patterns import made_by, missed, only_user, substitute
from forgec.passes.rewriting import blocks
from forgec.runtime.symbolic import Extent

UNIT = UnitAttr()


@dataclass(frozen=True)
class FuseRope(ModulePass):
    """Make one ``forge.rope`` of the rotation of pairs of features by angles.

    Before::

        %0 = forge.mul %x, %cos : (tensor<4x3x8xf32>, tensor<3x8xf32>) -> tensor<4x3x8xf32>
        %1 = forge.slice %x dim 2 from 0 step 1 : (tensor<4x3x8xf32>) -> tensor<4x3x4xf32, …>
        %2 = forge.slice %x dim 2 from 4 step 1 : (tensor<4x3x8xf32>) -> tensor<4x3x4xf32, …>
        %3 = forge.neg %2 : (tensor<4x3x4xf32, …>) -> tensor<4x3x4xf32>
        %4 = forge.concat %3, %1 dim 2 : (tensor<4x3x4xf32>, tensor<4x3x4xf32, …>) -> tensor<4x3x8xf32>
        %5 = forge.mul %4, %sin : (tensor<4x3x8xf32>, tensor<3x8xf32>) -> tensor<4x3x8xf32>
        %6 = forge.add %0, %5 : (tensor<4x3x8xf32>, tensor<4x3x8xf32>) -> tensor<4x3x8xf32>

    After::

        %6 = forge.rope %x cos %cos sin %sin : (tensor<4x3x8xf32>, tensor<3x8xf32>, tensor<3x8xf32>) -> …

    Which features make a pair, and where its numbers go, is read from slices, reshapes, transposes and
    concatenations, in any spelling (:mod:`forgec.passes.features`). Also fused: the two halves computed apart, the
    product of complex numbers, the concatenation with the features that are not rotated, casts to a wider dtype and
    back. Tables that hold every angle twice are computed once for each angle, for all layers together.

    Order: after attention, which does not depend on it, and before ``fuse-elementwise``, which would take its
    products one by one.
    """

    name = "fuse-rope"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for block in blocks(op):
            _Fusion(block).run()


@dataclass
class Rotation:
    """What was found: the op whose result is a rotation of ``x`` and all that it needs.

    ``x`` are the features in the order of the result; a pair's numbers lie side by side in the result if ``joined``,
    else half a row apart. ``cos`` and ``sin`` have ``once`` a number for each pair, else one for each feature. ``back``
    turns by the negative angles.
    """

    root: Operation
    value: SSAValue
    x: Features
    source: SSAValue | None
    cos: SSAValue
    sin: SSAValue
    dtype: str
    joined: bool
    once: bool
    back: bool
    matched: list[Operation]


@dataclass
class Term:
    """One product of a sum: features and a number for each, with a sign."""

    op: MulOp
    value: SSAValue
    features: Features
    table: SSAValue


@dataclass
class _Fusion:
    """The rewriting of one block."""

    block: Block
    tracer: Tracer = field(default_factory=Tracer)
    tables: Tables = field(init=False)

    def __post_init__(self) -> None:
        self.tables = Tables(self.tracer)

    def run(self) -> None:
        for op in list(self.block.ops):
            found = None if op.parent is None else self._find(op)
            if found is not None:
                self._fuse(found)

    def _find(self, op: Operation) -> Rotation | None:
        if not op.results or op.results[0].first_use is None:
            return None
        if isinstance(op, (AddOp, SubOp)):
            return self._of_sum(op)
        if isinstance(op, ConcatOp):
            return self._of_halves(op)
        if isinstance(op, InsertSliceOp):
            return self._of_writes(op)
        return self._of_complex(op) if isinstance(op, AtenOp) and op.callee.data == "aten::view_as_real" else None

    # x · cos + rotate(x) · sin
    # -----------------------------------------------------------------------------------------------------------------

    def _of_sum(self, op: BinaryOp) -> Rotation | None:
        left, right = made_by(op.lhs, MulOp), made_by(op.rhs, MulOp)
        if left is None or right is None or not _alike(op, left, right) or types.rank(op.result) == 0:
            return None
        for first, second in ((left, right), (right, left)):
            if isinstance(op, SubOp) and first is right:
                continue
            for turned, straight in product(self._terms(second), self._terms(first)):
                found = _turn(straight.features, turned.features)
                if found is None:
                    continue
                joined, back = found
                matched = [left, right, *filter(None, [producer(turned.value)])]
                return Rotation(
                    op, op.result, straight.features, straight.value, straight.table, turned.table,
                    types.dtype(op.result), joined, False, back != isinstance(op, SubOp), matched,
                )  # fmt: skip
        return None

    def _terms(self, op: MulOp) -> Iterator[Term]:
        """Both ways to read a product as features times numbers."""
        if op.rhs is None:
            return
        for value, table in ((op.lhs, op.rhs), (op.rhs, op.lhs)):
            features = self.tracer.trace(value) if types.shape(value) == types.shape(op.result) else None
            if features is not None:
                yield Term(op, value, features, table)

    # Both numbers of the pairs, computed apart
    # ----------------------------------------------------------------------------------------------------------------

    def _of_halves(self, op: ConcatOp) -> Rotation | None:
        last = types.rank(op.result) - 1
        if len(op.inputs) != 2 or op.dim.data != last:
            return None
        parts = [self._part(value) for value in op.inputs]
        joined = parts[0] is not op.inputs[0] or parts[1] is not op.inputs[1]  # [..., h, 1] twice, then [..., 2h]
        return self._of_parts(op, parts[0], parts[1], joined=joined, flat=not joined)

    def _of_writes(self, op: InsertSliceOp) -> Rotation | None:
        """Both halves, or every second feature each, written over all features of another value."""
        first = made_by(op.destination, InsertSliceOp)
        last = types.rank(op.result) - 1
        if first is None or first.dim.data != last or op.dim.data != last or first.step.data != op.step.data:
            return None
        width = types.shape(op.result)[-1]
        half = types.shape(op.source)[-1]
        if types.shape(first.source) != types.shape(op.source) or width != 2 * half:
            return None
        parts = {write.start.data: _laid_out(write.source) for write in (first, op)}
        joined = op.step.data == 2
        places = (0, 1) if joined else (0, half)
        if set(parts) != set(places) or op.step.data not in (1, 2):
            return None
        return self._of_parts(op, parts[places[0]], parts[places[1]], joined=joined, flat=True)

    def _of_parts(self, op: Operation, one: SSAValue, other: SSAValue, *, joined: bool, flat: bool) -> Rotation | None:
        """Two results that ``op`` puts together: each half of the features, or every second one where ``joined``."""
        low, high = (made_by(part, AddOp, SubOp) for part in (one, other))
        if low is None or high is None or types.shape(low.result) != types.shape(high.result):
            return None
        found = self._halves_of(low, high)
        if found is None:
            return None
        (a, b), cos, sin, matched = found
        root = op if flat else self._flattened(op.results[0])
        places = (*a.places, *b.places)
        if joined:
            places = tuple(place for pair in zip(a.places, b.places, strict=True) for place in pair)
        x = Features(a.base, places, (False,) * len(places))
        matched = [low, high, *matched, *([] if root is op else [op])]
        return Rotation(
            root,
            root.results[0],
            x,
            None,
            cos,
            sin,
            types.dtype(low.result),
            joined,
            True,
            isinstance(low, AddOp),
            matched,
        )

    @staticmethod
    def _flattened(value: SSAValue) -> ReshapeOp:
        """What makes ``[..., 2h]`` of ``[..., h, 2]``; where a value is used in that shape, or reshaped to another, a
        new op, and one back.
        """
        user, flat = only_user(value), _flat(types.shape(value))
        if isinstance(user, ReshapeOp) and types.shape(user.result) == flat:
            return user
        op = producer(value)
        assert op is not None, "the caller has it from an op"
        new = ReshapeOp.make([value], None, [types.tensor(types.dtype(value), flat)], location=op.location)
        back = ReshapeOp.make([new.result], None, [types.tensor_type(value)], location=op.location)
        builder = Builder(InsertPoint.after(op))
        builder.insert(new)
        builder.insert(back)
        value.replace_uses_with_if(back.result, lambda use: use.operation is not new)
        return new

    @staticmethod
    def _part(value: SSAValue) -> SSAValue:
        """What became ``value`` by a new last dimension of extent 1."""
        op = made_by(value, ReshapeOp)
        return op.input if op is not None and types.shape(value) == (*types.shape(op.input), 1) else value

    def _halves_of(
        self, low: BinaryOp, high: BinaryOp
    ) -> tuple[tuple[Features, Features], SSAValue, SSAValue, list[Operation]] | None:
        """``a · cos - b · sin`` and ``b · cos + a · sin``, or with the other signs: (a, b), cos, sin."""
        minus = [made_by(v, MulOp) for v in (low.lhs, low.rhs)]
        plus = [made_by(v, MulOp) for v in (high.lhs, high.rhs)]
        if None in minus or None in plus or type(low) is type(high):
            return None
        products = [op for op in (*minus, *plus) if op is not None]
        if not _alike(low, high, *products):
            return None
        first, second, third, fourth = products
        orders = [(first, second), (second, first)] if isinstance(low, AddOp) else [(first, second)]
        terms = [pair for one, other in orders for pair in product(self._terms(one), self._terms(other))]
        for a, b in terms:
            if a.features.base is not b.features.base or not (a.features.is_plain and b.features.is_plain):
                continue
            for one, other in ((third, fourth), (fourth, third)) if isinstance(high, AddOp) else ((third, fourth),):
                for c, d in product(self._terms(one), self._terms(other)):
                    if (c.features, d.features) != (b.features, a.features):
                        continue
                    if self.tables.equal(c.table, a.table) and self.tables.equal(d.table, b.table):
                        return (a.features, b.features), a.table, b.table, list(products)
        return None

    # Products of complex numbers
    # ------------------------------------------------------------------------------------------------------------------

    def _of_complex(self, op: AtenOp) -> Rotation | None:
        times = made_by(op.inputs[0], MulOp)
        if times is None or times.rhs is None or len(op.inputs) != 1:
            return None
        for value, factor in ((times.lhs, times.rhs), (times.rhs, times.lhs)):
            made = made_by(value, AtenOp)
            if made is None or made.callee.data != "aten::view_as_complex":
                continue
            pairs = made.inputs[0]
            shape = types.shape(times.result)
            if types.shape(value) != shape or types.dtype(value) != types.dtype(times.result):
                continue
            x = self.tracer.trace(pairs, types.rank(pairs) - 2)
            if x is None:
                missed(op, "a product of complex numbers was not made one rotary embedding: its pairs are not one row")
                return None
            found = self.tables.parts(factor)
            if found is None:
                return None
            matched = [made, times, op]
            root = self._flattened(op.results[0])
            return Rotation(root, root.result, x, None, *found, types.dtype(root.result), True, True, False, matched)
        return None

    # What becomes of a rotation
    # ---------------------------------------------------------------------------------------------------------------

    def _fuse(self, found: Rotation) -> None:
        count = len(found.x.places)
        shape = types.shape(found.value)
        cos, sin, once = found.cos, found.sin, found.once
        if not _are_tables(cos, sin, (*shape[:-1], count // 2 if once else count)):
            missed(found.root, "a rotation was not made one rotary embedding: cos and sin are no tables of its angles")
            return
        layout = self._layout(found)
        if layout is None:
            missed(found.root, "a rotation was not made one rotary embedding: its pairs are not a run of features")
            return
        start, properties = layout
        if once:
            cos, sin = self.tables.narrowed(cos), self.tables.narrowed(sin)
        else:
            shorter = self.tables.halved(cos, found.joined), self.tables.halved(sin, found.joined)
            if shorter[0] is not None and shorter[1] is not None:
                cos, sin, once = shorter[0], shorter[1], True
        if once:
            properties["once"] = UNIT
        if types.promote(types.dtype(found.x.base), types.dtype(cos)) != found.dtype:
            cos, sin = self.tables.widened(cos, found.dtype), self.tables.widened(sin, found.dtype)
        sin = self.tables.negated(sin) if found.back else sin
        root, value, matched = found.root, found.value, list(found.matched)
        base, low, high = found.x.base, start, start + count
        narrow = self._narrowing(value, base, cos, found.dtype)
        if narrow is not None:
            matched.append(root)
            root, value = narrow, narrow.result
            properties["keep_dtype"] = UNIT
        around = self._around(value, base, start, count)
        if around is not None:
            concat, low, high = around
            matched.append(root)
            root, value = concat, concat.result
        if start > low:
            properties["start"] = IntAttr(start - low)
        builder = Builder(InsertPoint.before(root))
        emit = Emitter(builder, root)
        source = self._source(emit, found, low, high)
        try:
            op = RopeOp.make([source, cos, sin], properties, [value.type], root.location)
            op.verify_()
        except VerifyException as error:
            missed(root, f"a rotation was not made one rotary embedding: {error}")
            return
        what = f"{types.shape(source)[-1]} features" if high - low == count else f"{count} of {high - low} features"
        substitute(root, [op], matched, f"rotary embedding of {what}")
        self.tracer.replaced(value, op.result)

    def _layout(self, found: Rotation) -> tuple[int, dict[str, Attribute]] | None:
        """The first of the features that are rotated, and how pairs lie in them."""
        x = found.x
        start, count = min(x.places), len(x.places)
        order = tuple(place - start for place in x.places)
        if not x.is_plain:
            return None
        if order == tuple(range(count)):
            return start, {"interleaved": UNIT} if found.joined else {}
        if not found.joined and order == (*range(0, count, 2), *range(1, count, 2)):
            return start, {"interleaved": UNIT, "to_halves": UNIT}
        return None

    def _narrowing(self, value: SSAValue, base: SSAValue, cos: SSAValue, dtype: str) -> CastOp | None:
        """The cast of a rotation to the dtype of what is rotated, if nothing else uses the wider one."""
        user = only_user(value)
        if not isinstance(user, CastOp) or types.dtype(user.result) != types.dtype(base):
            return None
        if types.dtype(base) == dtype or types.promote(types.dtype(base), types.dtype(cos)) != dtype:
            return None
        return user

    def _around(self, value: SSAValue, base: SSAValue, start: int, count: int) -> tuple[ConcatOp, int, int] | None:
        """The concatenation that puts a rotation between its neighbours: itself, and which features of ``base`` it
        has.
        """
        user = only_user(value)
        if not isinstance(user, ConcatOp) or user.dim.data != types.rank(value) - 1:
            return None
        if types.dtype(user.result) != types.dtype(value):
            return None
        places: list[int] = []
        for part in user.inputs:
            if part is value:
                places += range(start, start + count)
                continue
            features = self.tracer.trace(part)
            if features is None or features.base is not base or not features.is_plain:
                return None
            places += features.places
        run = range(places[0], places[0] + len(places))
        return (user, run.start, run.stop) if places == list(run) else None

    def _source(self, emit: Emitter, found: Rotation, low: int, high: int) -> SSAValue:
        """The features that the op reads."""
        base, given, width = found.x.base, found.source, high - low
        if types.shape(base) == (*types.shape(found.value)[:-1], width):
            return base
        is_run = given is not None and width == len(found.x.places) and found.x.is_run
        if is_run and given is not None and types.dtype(given) == types.dtype(base):
            return given
        return self._slice(emit, base, types.rank(found.value), low, width)

    def _slice(self, emit: Emitter, base: SSAValue, rank: int, low: int, width: int) -> SSAValue:
        """A run of features of a value whose row may have several dimensions."""
        lead = types.shape(base)[: rank - 1]
        if types.rank(base) != rank:
            row = [extent for extent in types.shape(base)[rank - 1 :] if isinstance(extent, int)]
            base = emit.reshape(base, (*lead, prod(row)))
        if types.shape(base)[-1] == width:
            return base
        place = {"dim": IntAttr(rank - 1), "start": ExtentAttr(low), "step": ExtentAttr(1)}
        kind = types.tensor(types.dtype(base), (*lead, width), types.strides(base))
        return emit.insert(SliceOp.make([base], place, [kind]))


def _alike(*ops: BinaryOp) -> bool:
    """True if all results have one dtype and one shape."""
    return len({(types.dtype(op.result), types.shape(op.result)) for op in ops}) == 1


def _flat(shape: Sequence[Extent]) -> tuple[Extent, ...]:
    """A shape with its last two dimensions as one."""
    return (*shape[:-2], shape[-2] * shape[-1])


def _laid_out(value: SSAValue) -> SSAValue:
    """The value before it was only given other strides."""
    op = producer(value)
    while isinstance(op, (CopyOp, BroadcastOp)) and types.shape(op.input) == types.shape(value):
        value = op.input
        op = producer(value)
    return value


def _are_tables(cos: SSAValue, sin: SSAValue, shape: tuple[Extent, ...]) -> bool:
    """True if cos and sin are of one type and broadcast to a shape, of which they have all features."""
    if types.shape(cos) != types.shape(sin) or types.dtype(cos) != types.dtype(sin) or types.rank(cos) == 0:
        return False
    if types.dtype(cos) not in types.FLOATS or types.shape(cos)[-1] != shape[-1]:
        return False
    try:
        return types.broadcast(types.shape(cos), shape) == shape
    except VerifyException:
        return False


def _turn(straight: Features, turned: Features) -> tuple[bool, bool] | None:
    """For ``turned = rotate(straight)``: whether the pairs are neighbours (else half a row apart), and whether they
    turn back, as ``-rotate``. None if it is no such thing.
    """
    x, half = straight.places, len(straight.places) // 2
    if turned.base is not straight.base or len(x) % 2 or len(turned.places) != len(x) or not straight.is_plain:
        return None
    if turned.places == (*x[half:], *x[:half]):
        joined, signs = False, (True,) * half + (False,) * half
    elif turned.places == tuple(x[i ^ 1] for i in range(len(x))):
        joined, signs = True, (True, False) * half
    else:
        return None
    if turned.negative == signs:
        return joined, False
    return (joined, True) if turned.negated().negative == signs else None
