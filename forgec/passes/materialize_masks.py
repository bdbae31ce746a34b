"""What attention keeps, as a mask: for backends that do not take it in the op's own words."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from xdsl.builder import Builder
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, StringAttr, UnitAttr
from xdsl.ir import Block, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint

from forgec.backends.base import Backend, backend_for
from forgec.ir import types
from forgec.ir.attributes import IntsAttr, ScalarAttr
from forgec.ir.evaluator import Evaluator
from forgec.ir.literals import literal, to_tensor
from forgec.ir.ops.attention import LEAST, AttentionOp
from forgec.ir.ops.base import ElementwiseOp, producer
from forgec.ir.ops.binary import LogicalAndOp, MaximumOp, MulOp, NeOp
from forgec.ir.ops.composite import RopeOp
from forgec.ir.ops.contraction import LinearOp, MatmulOp
from forgec.ir.ops.decomposition import Emitter
from forgec.ir.ops.module import ConstantOp
from forgec.ir.ops.reduction import AnyOp, MeanOp
from forgec.ir.ops.select import MaskedFillOp, WhereOp
from forgec.ir.ops.shape import ViewOp
from forgec.ir.ops.unary import LogicalNotOp
from forgec.passes.rewriting import blocks, replace

CONSTANT_BYTES = 65536
"""Masks of at most this size are made while compiling: the limit of ``constant-fold``."""
STRUCTURE = ("causal", "offset", "window", "chunk")


@dataclass(frozen=True)
class MaterializeMasks(ModulePass):
    """Give every ``forge.attention`` that the target's backend cannot lower one mask that says what ``causal``,
    ``window``, ``chunk``, ``prefix`` and ``keys`` said, the same for all that say the same.

    Before::

        %0 = forge.attention %q, %k, %v keys %p empty_row "uniform" : (…, tensor<2x9xi1>) -> tensor<2x4x9x8xf32>

    After::

        %1 = forge.reshape %p : (tensor<2x9xi1>) -> tensor<2x1x1x9xi1>
        %2 = forge.where %1, %zero, %nothing : (tensor<2x1x1x9xi1>, tensor<f32>, tensor<f32>) -> tensor<2x1x1x9xf32>
        %3 = forge.attention %q, %k0, %v0 mask %2 : (…, tensor<2x1x1x9xf32>) -> tensor<2x4x9x8xf32>
        %0 = forge.where %some, %3, %mean : (…) -> tensor<2x4x9x8xf32>

    Masks are booleans where an empty row gives 0. Where it gives the mean or NaN they are added, -inf for what is not
    kept, which gives 0 as well; then the mean of all values takes the place of these rows, or the mask is NaN there. A
    ``query_scale`` becomes a product before attention. Attention with ``softcap``, ``sinks`` or ``replaced``, which is
    decomposed afterwards, keeps its booleans and ``empty_row``. Keys and values that no row reads become 0: ATen
    multiplies them by 0, which leaves NaN.

    Order: ``lower-to-plan`` runs it before ``decompose``.
    """

    name = "materialize-masks"

    target: str = "cpu"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        backend = backend_for(self.target)
        for block in blocks(op):
            masks = _Masks(block, backend)
            for current in list(block.ops):
                if isinstance(current, AttentionOp) and not backend.lowers(current):
                    masks.rewrite(current)


def _reads_all(op: AttentionOp, kept: SSAValue) -> bool:
    """True if it is certain that every column has a row that keeps it."""
    if types.rank(kept) < 2:
        return True
    source = producer(kept)
    if isinstance(source, ConstantOp):
        return bool(to_tensor(source.value).any(-2).all())
    rows, columns = types.shape(op.query)[-2], types.shape(op.key)[-2]
    return op.mask is None and op.keys is None and op.offset is None and rows == columns


def _is_fresh(value: SSAValue) -> bool:
    """True for what is of this call alone: a product or an argument, rearranged, rotated, or with something added."""
    op = producer(value)
    while isinstance(op, (ViewOp, ElementwiseOp, RopeOp)):
        op = producer(op.operands[0])
    return op is None or isinstance(op, (LinearOp, MatmulOp))


class _Masks:
    """The masks of a block; those that are there already come before every later op."""

    def __init__(self, block: Block, backend: Backend) -> None:
        self.block = block
        self.backend = backend
        self.known: dict[Hashable, SSAValue] = {}

    def rewrite(self, op: AttentionOp) -> None:
        emit = Emitter(Builder(InsertPoint.before(op)), op)
        query, properties = op.query, dict(op.properties)
        whole = op.softcap is None and op.sinks is None and op.replaced is None
        if op.query_scale is not None and whole:
            query = emit.binary(MulOp, query, float(op.query_scale.value))
            del properties["query_scale"]
        bias = self._bias(emit, op)
        mask, additive = op.mask if bias is None else bias, bias is not None
        filled = whole and op.empty_row.data != "zero"
        if filled and bias is not None and self._swallows(op):
            mask, filled = self._finite(emit, bias, op), False
            properties["empty_row"] = StringAttr("zero")
        if op.is_structured or (filled and mask is not None and op.may_have_empty_rows):
            mask = self._mask(emit, op, bias, self._kept(emit, op), "infinite" if additive or filled else "boolean")
            properties = {name: value for name, value in properties.items() if name not in STRUCTURE}
        if mask is not None and types.rank(mask) < 2:  # ATen wants rows and columns
            mask = emit.reshape(mask, (*[1] * (2 - types.rank(mask)), *types.shape(mask)))
        some = None
        if filled:
            properties["empty_row"] = StringAttr("zero")
            some = self._some(emit, mask) if mask is not None and op.may_have_empty_rows else None
        if some is not None and mask is not None and op.empty_row.data == "nan":
            mask, some = self._nan_rows(emit, mask, some), None
        key, value = (op.key, op.value) if not whole else self._without_unread(emit, op)
        operands = [query, key, value, mask, op.sinks, None, None, op.replaced]
        new = AttentionOp.make(operands, properties, [op.result.type], op.location)
        if some is None:
            replace(op, new.results, [new])
            return
        emit.insert(new)
        last = IntsAttr([types.rank(op.value) - 2])
        mean = op.repeat_heads(emit, emit(MeanOp, op.value, dims=last, keepdim=UnitAttr()))
        either = WhereOp.make([some, new.result, mean], result_types=[op.result.type], location=op.location)
        replace(op, either.results, [either])

    def _without_unread(self, emit: Emitter, op: AttentionOp) -> tuple[SSAValue, SSAValue]:
        """Key and value with 0 where no row reads them. The mean for an empty row is made of all values elsewhere.

        Those of a cache stay: it is as long as the longest sequence, and would be copied at every step.
        """
        kept = self._kept(emit, op)
        if kept is None or _reads_all(op, kept) or not (_is_fresh(op.key) and _is_fresh(op.value)):
            return op.key, op.value
        if ("unread", kept) not in self.known:
            read = emit(AnyOp, kept, dims=IntsAttr([types.rank(kept) - 2]), keepdim=UnitAttr())
            self.known["unread", kept] = emit.transpose_last(emit(LogicalNotOp, read))
        unread = self.known["unread", kept]
        if types.broadcast(types.shape(unread), types.shape(op.key)) != types.shape(op.key):
            return op.key, op.value  # heads that share keys are masked differently
        zero = ScalarAttr.of(0.0)
        return emit(MaskedFillOp, op.key, unread, value=zero), emit(MaskedFillOp, op.value, unread, value=zero)

    def _kept(self, emit: Emitter, op: AttentionOp) -> SSAValue | None:
        """The booleans of everything that the op keeps, but for a bias; None if there are none."""
        extents = (types.shape(op.query)[-2], types.shape(op.key)[-2])
        boolean = op.mask if op.mask is not None and types.dtype(op.mask) == "i1" else None
        key = (extents, op.keys, op.prefix, boolean, *(op.properties.get(name) for name in STRUCTURE))
        if key not in self.known:
            structure = self._constant(emit, op) or op.emit_structure(emit)
            both = [part for part in (boolean, structure) if part is not None]
            if not both:
                return None
            self.known[key] = both[0] if len(both) == 1 else emit(LogicalAndOp, *both)
        return self.known[key]

    @staticmethod
    def _swallows(op: AttentionOp) -> bool:
        """True for a mean of empty rows that comes of itself: where a bias alone masks, by numbers so low that scores
        do not count beside them. Those of float16 are not.
        """
        return op.empty_value is None and not op.is_structured and types.dtype(op.query) != "f16"

    def _finite(self, emit: Emitter, bias: SSAValue, op: AttentionOp) -> SSAValue:
        """A bias with the least finite number for -inf: finite in the dtype of scores, too."""
        dtype = types.dtype(bias)
        least = max(LEAST[dtype], LEAST[op.softmax_dtype.data])
        if ("finite", bias, least) not in self.known:
            self.known["finite", bias, least] = emit(MaximumOp, bias, emit.full(least, dtype, ()))
        return self.known["finite", bias, least]

    def _some(self, emit: Emitter, mask: SSAValue) -> SSAValue:
        """In which rows of an additive mask something is kept, [..., 1]."""
        if ("some", mask) not in self.known:
            last = IntsAttr([types.rank(mask) - 1])
            kept = emit.binary(NeOp, mask, -float("inf"))
            self.known["some", mask] = emit(AnyOp, kept, dims=last, keepdim=UnitAttr())
        return self.known["some", mask]

    def _nan_rows(self, emit: Emitter, mask: SSAValue, some: SSAValue) -> SSAValue:
        """A mask that is NaN in the rows of which it keeps nothing."""
        if ("nan", mask) not in self.known:
            self.known["nan", mask] = emit(WhereOp, some, mask, emit.full(float("nan"), types.dtype(mask), ()))
        return self.known["nan", mask]

    def _constant(self, emit: Emitter, op: AttentionOp) -> SSAValue | None:
        """The mask itself, where it depends on nothing and is small."""
        rows, columns = types.shape(op.query)[-2], types.shape(op.key)[-2]
        start = op.position_offset
        if op.keys is not None or op.prefix is not None:
            return None
        if not all(isinstance(extent, int) for extent in (rows, columns, start)):
            return None
        if not op.is_structured or rows * columns > CONSTANT_BYTES:  # pyright: ignore[reportOperatorIssue]
            return None
        kind = types.tensor("i1", (rows, columns))
        kept = op.kept_positions(Evaluator(), rows, columns)  # pyright: ignore[reportArgumentType]
        return emit.insert(ConstantOp.create(properties={"value": literal(kept, kind)}, result_types=[kind]))

    def _bias(self, emit: Emitter, op: AttentionOp) -> SSAValue | None:
        """The numbers that are added to scores, in a dtype that ATen adds."""
        if op.mask is None or types.dtype(op.mask) == "i1":
            return None
        own = types.dtype(op.query)
        if types.dtype(op.mask) in (own, "f32"):
            return op.mask
        if ("bias", op.mask, own) not in self.known:
            self.known["bias", op.mask, own] = emit.cast(op.mask, "f64" if own == "f64" else "f32")
        return self.known["bias", op.mask, own]

    def _mask(
        self, emit: Emitter, op: AttentionOp, bias: SSAValue | None, kept: SSAValue | None, form: str
    ) -> SSAValue | None:
        if form == "boolean":
            return kept
        dtype = types.dtype(op.query if bias is None else bias)
        key = (kept, bias, form, dtype)
        if key not in self.known:
            nothing = emit.full(-float("inf"), dtype, ())
            mask = emit.full(0.0, dtype, ()) if bias is None else bias
            self.known[key] = mask if kept is None else emit(WhereOp, kept, mask, nothing)
        return self.known[key]
