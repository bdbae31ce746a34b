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
from forgec.ir.attributes import IntsAttr
from forgec.ir.evaluator import Evaluator
from forgec.ir.literals import literal
from forgec.ir.ops.attention import LEAST, AttentionOp
from forgec.ir.ops.binary import LogicalAndOp, MaximumOp, MulOp, NeOp
from forgec.ir.ops.decomposition import Emitter
from forgec.ir.ops.module import ConstantOp
from forgec.ir.ops.reduction import AnyOp
from forgec.ir.ops.select import WhereOp
from forgec.passes.rewriting import blocks, replace

CONSTANT_BYTES = 65536
"""Masks of at most this size are made while compiling: the limit of ``constant-fold``."""
STRUCTURE = ("causal", "offset", "window", "chunk")


@dataclass(frozen=True)
class MaterializeMasks(ModulePass):
    """Give every ``forge.attention`` that the target's backend cannot lower one mask that says what ``causal``,
    ``window``, ``chunk`` and ``keys`` said, the same for all that say the same.

    Before::

        %0 = forge.attention %q, %k, %v keys %p empty_row "uniform" : (…, tensor<2x9xi1>) -> tensor<2x4x9x8xf32>

    After::

        %1 = forge.reshape %p : (tensor<2x9xi1>) -> tensor<2x1x1x9xi1>
        %2 = forge.where %1, %zero, %least : (tensor<2x1x1x9xi1>, tensor<f32>, tensor<f32>) -> tensor<2x1x1x9xf32>
        %0 = forge.attention %q, %k, %v mask %2 : (…, tensor<2x1x1x9xf32>) -> tensor<2x4x9x8xf32>

    Masks are booleans where an empty row gives 0, and add the least finite number where it gives the mean; where it
    gives NaN, they are NaN for the rows that are empty. A ``query_scale`` becomes a product before attention. Attention
    with ``softcap`` or ``sinks``, or with the mean in float16 where rows may be empty, is decomposed afterwards and
    keeps its booleans and ``empty_row``.

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


def _shows_scores(op: AttentionOp) -> bool:
    """True if the mean of an empty row cannot be had by adding the least finite number to its scores: that of float16
    (-65504) leaves differences between them, in which softmax weighs.
    """
    return types.dtype(op.query) == "f16" and op.may_have_empty_rows


class _Masks:
    """The masks of a block; those that are there already come before every later op."""

    def __init__(self, block: Block, backend: Backend) -> None:
        self.block = block
        self.backend = backend
        self.known: dict[Hashable, SSAValue] = {}

    def rewrite(self, op: AttentionOp) -> None:
        emit = Emitter(Builder(InsertPoint.before(op)), op)
        query, properties = op.query, dict(op.properties)
        whole = op.softcap is None and op.sinks is None
        if op.query_scale is not None and whole:
            query = emit.binary(MulOp, query, float(op.query_scale.value))
            del properties["query_scale"]
        bias = self._bias(emit, op)
        mask, additive = op.mask if bias is None else bias, bias is not None
        finite = whole and op.empty_row.data == "uniform" and not _shows_scores(op)
        nan = whole and op.empty_row.data == "nan" and op.may_have_empty_rows
        if op.is_structured or ((finite or nan) and mask is not None):
            kept = self._kept(emit, op)
            form = "least" if finite else "infinite" if additive or nan else "boolean"
            mask = self._mask(emit, op, bias, kept, form)
            if nan and mask is not None:
                mask = self._nan_rows(emit, mask)
            properties = {name: value for name, value in properties.items() if name not in STRUCTURE}
        if finite or nan:
            properties["empty_row"] = StringAttr("zero")
        if mask is not None and types.rank(mask) < 2:  # ATen wants rows and columns
            mask = emit.reshape(mask, (*[1] * (2 - types.rank(mask)), *types.shape(mask)))
        new = AttentionOp.make([query, op.key, op.value, mask, op.sinks], properties, [op.result.type], op.location)
        replace(op, new.results, [new])

    def _kept(self, emit: Emitter, op: AttentionOp) -> SSAValue | None:
        """The booleans of everything that the op keeps, but for a bias; None if there are none."""
        extents = (types.shape(op.query)[-2], types.shape(op.key)[-2])
        boolean = op.mask if op.mask is not None and types.dtype(op.mask) == "i1" else None
        key = (extents, op.keys, boolean, *(op.properties.get(name) for name in STRUCTURE))
        if key not in self.known:
            structure = self._constant(emit, op) or op.emit_structure(emit)
            both = [part for part in (boolean, structure) if part is not None]
            if not both:
                return None
            self.known[key] = both[0] if len(both) == 1 else emit(LogicalAndOp, *both)
        return self.known[key]

    def _nan_rows(self, emit: Emitter, mask: SSAValue) -> SSAValue:
        """A mask that is NaN in the rows of which it keeps nothing."""
        key = (mask, "nan")
        if key not in self.known:
            last = IntsAttr([types.rank(mask) - 1])
            kept = emit(AnyOp, emit.binary(NeOp, mask, -float("inf")), dims=last, keepdim=UnitAttr())
            self.known[key] = emit(WhereOp, kept, mask, emit.full(float("nan"), types.dtype(mask), ()))
        return self.known[key]

    def _constant(self, emit: Emitter, op: AttentionOp) -> SSAValue | None:
        """The mask itself, where it depends on nothing and is small."""
        rows, columns = types.shape(op.query)[-2], types.shape(op.key)[-2]
        start = op.position_offset
        if op.keys is not None or not all(isinstance(extent, int) for extent in (rows, columns, start)):
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
        key = (kept, bias, form, dtype, op.softmax_dtype)
        if key not in self.known:
            finite = max(LEAST[dtype], LEAST[op.softmax_dtype.data])  # it stays finite where scores are narrower
            fill = finite if form == "least" else -float("inf")
            least = emit.full(fill, dtype, ())
            mask = emit.full(0.0, dtype, ()) if bias is None else bias
            if form == "least" and bias is not None:
                mask = emit(MaximumOp, mask, least)  # a bias may hold -inf
            self.known[key] = mask if kept is None else emit(WhereOp, kept, mask, least)
        return self.known[key]
