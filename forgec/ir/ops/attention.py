"""Scaled dot-product attention with every modifier that transformers use."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import TYPE_CHECKING, Any

from xdsl.builder import Builder
from xdsl.dialects.builtin import AnyTensorTypeConstr, IntAttr, StringAttr, UnitAttr
from xdsl.ir import SSAValue
from xdsl.irdl import (
    AttrSizedOperandSegments,
    irdl_op_definition,
    operand_def,
    opt_operand_def,
    opt_prop_def,
    prop_def,
    result_def,
)
from xdsl.utils.exceptions import VerifyException

from forgec.ir import types
from forgec.ir.attributes import ExtentAttr, IntsAttr, ScalarAttr
from forgec.ir.literals import to_tensor
from forgec.ir.ops.base import ForgeOp, TensorSpec, check_float, check_same_dtype, producer
from forgec.ir.ops.binary import AddOp, EqOp, FloorDivOp, LeOp, LogicalAndOp, LogicalOrOp, LtOp, MulOp, NeOp, SubOp
from forgec.ir.ops.contraction import MatmulOp
from forgec.ir.ops.creation import IotaOp
from forgec.ir.ops.decomposition import Emitter
from forgec.ir.ops.format import KeywordFormatOp
from forgec.ir.ops.module import ConstantOp
from forgec.ir.ops.reduction import AnyOp, MeanOp, SoftmaxOp, SumOp
from forgec.ir.ops.select import MaskedFillOp, WhereOp
from forgec.ir.ops.shape import ConcatOp
from forgec.ir.ops.unary import AbsOp, LogicalNotOp, TanhOp
from forgec.runtime.symbolic import Extent, is_nonnegative

if TYPE_CHECKING:
    from forgec.ir.evaluator import Evaluator

_INFINITY = float("inf")
LEAST = {"f64": -(2 - 2.0**-52) * 2.0**1023, "f32": -(2 - 2.0**-23) * 2.0**127, "bf16": -(2 - 2.0**-7) * 2.0**127,
          "f16": -65504.0}  # fmt: skip
"""The least finite number of a dtype."""


@irdl_op_definition
class AttentionOp(KeywordFormatOp, ForgeOp):
    """``result = softmax(scores(query, key)) · value`` for each head, with these modifiers, in this order:

    1. ``q = query · query_scale``, rounded to the query's dtype (absent: 1);
    2. ``s[i, j] = scale · Σ_d q[i, d] · key[j, d]``, from here on in ``softmax_dtype`` (absent scale: ``1 / sqrt(D)``);
    3. ``s = softcap · tanh(s / softcap)`` (absent: unchanged);
    4. ``s = s + mask`` for a floating-point mask, ``s = mask`` where ``replaced`` is true; a boolean mask keeps
       ``(i, j)`` where it is true;
    5. which columns row i keeps, at position ``p = i + offset`` (absent: 0): ``causal`` keeps ``j <= p``; ``window``
       keeps ``p - j < window``, without ``causal`` also ``j - p < window``; ``chunk`` keeps ``j // chunk == p //
       chunk``; all three keep the columns where ``prefix`` is true; ``keys`` keeps the columns where it is true;
    6. ``sinks``: one more column of logit ``sinks[h]``, which takes part in the softmax and has no value;
    7. softmax over the kept columns j, then ``result[i] = Σ_j p[i, j] · value[j]`` with ``p`` rounded to the value's
       dtype.

    Shapes: query [*B, H, S, D], key [*B, Hk, T, D], value [*B, Hk, T, Dv], mask broadcast to [*B, H, S, T], sinks [H],
    keys and prefix [*B, T] of booleans (leading extents may be 1), replaced of booleans broadcast like a floating-point
    mask, without which it is not, result [*B, H, S, Dv] of the query's dtype. H is a multiple of
    Hk: head h attends with key and value head ``h // (H / Hk)``.

    A position that is not kept, or whose floating-point mask is -inf, is masked: its key and value are not read, so a
    NaN there does not show. A row with nothing to attend gives 0 (``empty_row`` ``"zero"``: what torch's
    scaled_dot_product_attention does for boolean masks and for -inf, in torch 2.13; as there, NaN if its query is not
    finite), the mean of value over all T positions (``"uniform"``: what eager code does whose mask holds the least
    finite number) or NaN (``"nan"``: what a softmax over -inf alone gives); with ``sinks`` it gives 0.
    """

    name = "forge.attention"

    query = operand_def(AnyTensorTypeConstr)
    key = operand_def(AnyTensorTypeConstr)
    value = operand_def(AnyTensorTypeConstr)
    mask = opt_operand_def(AnyTensorTypeConstr)
    sinks = opt_operand_def(AnyTensorTypeConstr)
    keys = opt_operand_def(AnyTensorTypeConstr)
    prefix = opt_operand_def(AnyTensorTypeConstr)
    replaced = opt_operand_def(AnyTensorTypeConstr)
    result = result_def(AnyTensorTypeConstr)
    query_scale = opt_prop_def(ScalarAttr)
    scale = opt_prop_def(ScalarAttr)
    softcap = opt_prop_def(ScalarAttr)
    causal = opt_prop_def(UnitAttr)
    offset = opt_prop_def(ExtentAttr)
    window = opt_prop_def(IntAttr)
    chunk = opt_prop_def(IntAttr)
    empty_row = prop_def(StringAttr, default_value=StringAttr("zero"))
    softmax_dtype = prop_def(StringAttr, default_value=StringAttr("f32"))

    irdl_options = (AttrSizedOperandSegments(as_property=True),)

    def infer(self) -> Sequence[TensorSpec]:
        query, key, value = (types.shape(v) for v in (self.query, self.key, self.value))
        check_float(self, self.query)
        if len(query) < 3 or not len(query) == len(key) == len(value):
            raise VerifyException("query, key and value need one rank, 3 at least: heads, rows and features")
        if key[-1] != query[-1]:
            raise VerifyException(f"query has {query[-1]} features, key {key[-1]}")
        if key[-2] != value[-2] or key[-3] != value[-3]:
            raise VerifyException("key and value differ in heads or in length")
        if query[-3] % key[-3] != 0:
            raise VerifyException(f"{query[-3]} query heads are no multiple of {key[-3]} key heads")
        batch = types.broadcast(query[:-3], key[:-3], value[:-3])
        scores = (*batch, query[-3], query[-2], key[-2])
        if self.mask is not None:
            if types.dtype(self.mask) not in ("i1", *types.FLOATS):
                raise VerifyException("the mask must be boolean or floating-point")
            if types.broadcast(types.shape(self.mask), scores) != scores:
                raise VerifyException(f"the mask does not broadcast to {list(map(str, scores))}")
        if self.replaced is not None:
            if types.dtype(self.replaced) != "i1" or self.mask is None or types.dtype(self.mask) == "i1":
                raise VerifyException("what is replaced must be boolean, beside a floating-point mask")
            if types.broadcast(types.shape(self.replaced), scores) != scores:
                raise VerifyException(f"what is replaced does not broadcast to {list(map(str, scores))}")
        if self.sinks is not None:
            check_float(self, self.sinks)
            if types.shape(self.sinks) != (query[-3],):
                raise VerifyException(f"sinks must have {query[-3]} elements, one for each head")
        self._check_structure((*batch, key[-2]))
        if self.empty_row.data not in ("zero", "uniform", "nan"):
            raise VerifyException(f"empty_row must be 'zero', 'uniform' or 'nan', found {self.empty_row.data!r}")
        if self.softmax_dtype.data not in types.FLOATS:
            raise VerifyException(f"softmax_dtype must be a floating-point type, found {self.softmax_dtype.data!r}")
        return [(check_same_dtype(self, self.query, self.key, self.value), (*scores[:-1], value[-1]))]

    def _check_structure(self, keys: tuple[Extent, ...]) -> None:
        """Raises VerifyException if what says the kept columns makes no sense for batches and columns ``keys``."""
        for name, size in (("window", self.window), ("chunk", self.chunk)):
            if size is not None and size.data < 1:
                raise VerifyException(f"a {name} must be positive, found {size.data}")
        if self.offset is not None and all(part is None for part in (self.causal, self.window, self.chunk)):
            raise VerifyException("an offset needs causal, a window or a chunk")
        if self.prefix is not None and all(part is None for part in (self.causal, self.window, self.chunk)):
            raise VerifyException("a prefix needs causal, a window or a chunk")
        for name, columns in (("keys", self.keys), ("prefix", self.prefix)):
            if columns is None:
                continue
            if types.dtype(columns) != "i1":
                raise VerifyException(f"{name} must be boolean, found {types.dtype(columns)}")
            shape = types.shape(columns)
            if len(shape) != len(keys) or shape[-1] != keys[-1] or types.broadcast(shape, keys) != keys:
                raise VerifyException(
                    f"{name} must have the shape {list(map(str, keys))}, found {list(map(str, shape))}"
                )

    @property
    def is_structured(self) -> bool:
        """True if which columns are kept is said by more than ``mask``."""
        return any(part is not None for part in (self.causal, self.window, self.chunk, self.keys))

    @property
    def may_have_empty_rows(self) -> bool:
        """False if it is certain that every row keeps a column, as ``causal`` alone does."""
        if self.mask is not None and self.keys is None and not self.is_structured:
            kept = self._constant_mask()
            return kept is None or not bool(kept.any(-1).all())
        if self.mask is not None or self.keys is not None:
            return True
        beyond = types.shape(self.query)[-2] + self.position_offset - types.shape(self.key)[-2]
        inside = isinstance(beyond, int) and beyond <= 0  # every row's own position is a column
        return not is_nonnegative(self.position_offset) or not (inside or (self.window is None and self.chunk is None))

    def _constant_mask(self) -> Any:
        """The boolean mask as a tensor, where it is a constant; else None."""
        source = None if self.mask is None else producer(self.mask)
        if not isinstance(source, ConstantOp) or types.dtype(source.result) != "i1":
            return None
        return to_tensor(source.value)

    @property
    def empty_value(self) -> float | None:
        """What a row with nothing to attend gives; None for the mean."""
        if self.sinks is not None:
            return 0.0
        return {"zero": 0.0, "nan": float("nan")}.get(self.empty_row.data)

    @property
    def shows_query(self) -> bool:
        """True if a row with nothing to attend gives NaN where its query is not finite: a mask was added there."""
        return self.empty_row.data == "zero" and self.sinks is None

    @property
    def position_offset(self) -> Extent:
        """``offset``, or 0 where it is absent."""
        return 0 if self.offset is None else self.offset.data

    @property
    def score_scale(self) -> float:
        """``scale``, or ``1 / sqrt(D)`` where it is absent; raises VerifyException if D is then not a constant."""
        if self.scale is not None:
            return float(self.scale.value)
        features = types.shape(self.query)[-1]
        if not isinstance(features, int):
            raise VerifyException("attention without scale needs a constant number of features")
        return features**-0.5

    def flops(self) -> Extent:
        """Both products and five operations a score, for every position whether masked or not."""
        scores = types.numel(self.result) // types.shape(self.value)[-1] * types.shape(self.key)[-2]
        return scores * (2 * types.shape(self.query)[-1] + 2 * types.shape(self.value)[-1] + 5)

    def scores(self, ev: Evaluator, *inputs: Any) -> tuple[Any, Any]:
        """Scores before masking in ``softmax_dtype`` and which columns each row keeps, both [*B, H, S, T]."""
        torch = ev.torch
        query, key, _, mask, _, keys, prefix, replaced = self.unpack(inputs)
        work = ev.dtype(self.softmax_dtype.data)
        columns = key.shape[-2]
        key = key.repeat_interleave(query.shape[-3] // key.shape[-3], -3)
        if self.query_scale is not None:
            query = query * self.query_scale.value
        scores = query.to(work) @ key.to(work).transpose(-1, -2) * self.score_scale
        if self.softcap is not None:
            scores = self.softcap.value * torch.tanh(scores / self.softcap.value)
        kept = torch.ones_like(scores, dtype=torch.bool)
        if mask is not None and mask.dtype == torch.bool:
            kept = kept & mask
        elif mask is not None:
            kept = kept & (mask != -_INFINITY)
            scores = scores if replaced is None else scores.masked_fill(replaced, 0.0)
            scores = scores + mask.to(work)
        positions = self.kept_positions(ev, scores.shape[-2], columns)
        kept = kept & (positions if prefix is None else positions | prefix[..., None, None, :])
        if keys is not None:
            kept = kept & keys[..., None, None, :]
        return scores, kept

    def reference(self, ev: Evaluator, *inputs: Any) -> Any:
        torch = ev.torch
        query, key, value, _, sinks, _, _, _ = self.unpack(inputs)
        work = ev.dtype(self.softmax_dtype.data)
        columns = key.shape[-2]
        value = value.repeat_interleave(query.shape[-3] // key.shape[-3], -3)
        scores, kept = self.scores(ev, *inputs)
        empty = ~kept.any(-1, keepdim=True)
        if self.empty_row.data == "uniform" and sinks is None:
            scores, kept = scores.masked_fill(empty, 0.0), kept | empty
        scores = scores.masked_fill(~kept, -_INFINITY)
        if sinks is not None:
            column = sinks.to(work)[:, None, None].expand(*scores.shape[:-1], 1)
            scores = torch.cat([scores, column], -1)
        weights = torch.softmax(scores, -1)[..., :columns].masked_fill(~kept, 0.0).to(value.dtype)
        if value.isfinite().all():
            result = weights @ value
        else:
            products = weights[..., :, :, None] * value[..., None, :, :]  # [B, H, S, T, Dv]
            result = products.masked_fill(~kept[..., None], 0.0).sum(-2)
        if self.empty_row.data == "nan":
            return result.masked_fill(empty, self.empty_value)
        if self.shows_query:
            result = result.masked_fill(empty & ~query.isfinite().all(-1, keepdim=True), float("nan"))
        return result

    def kept_positions(self, ev: Evaluator, rows: int, columns: int) -> Any:
        """What ``causal``, ``window`` and ``chunk`` keep, as booleans [rows, columns]."""
        torch = ev.torch
        column = torch.arange(columns)
        position = torch.arange(rows)[:, None] + ev.extent(self.position_offset)
        ahead = position - column
        kept = torch.ones_like(ahead, dtype=torch.bool)
        if self.causal is not None:
            kept = kept & (ahead >= 0)
        if self.window is not None:
            kept = kept & ((ahead if self.causal is not None else ahead.abs()) < self.window.data)
        if self.chunk is not None:
            kept = kept & (position // self.chunk.data == column // self.chunk.data)
        return kept

    def decompose(self, builder: Builder) -> list[SSAValue]:
        """The seven steps with matmul, softmax and pointwise ops.

        Values that no row reads are zeroed, so what stands in padding does not show. A NaN or infinity in a value that
        some rows read and others mask shows in both, as in eager PyTorch: keeping it apart takes a product of rank 5.
        """
        emit = Emitter(builder, self)
        work = self.softmax_dtype.data
        query = self.query
        if self.query_scale is not None:
            query = emit.binary(MulOp, query, float(self.query_scale.value))
        key, value = (self.repeat_heads(emit, v) for v in (self.key, self.value))
        cap = None if self.softcap is None else float(self.softcap.value)
        scale = self.score_scale if cap is None else self.score_scale / cap
        unscaled, query = query, emit.binary(MulOp, emit.cast(query, work), scale)  # fewer of these than of scores
        scores = emit(MatmulOp, query, emit.transpose_last(emit.cast(key, work)))
        if cap is not None:
            scores = emit.binary(MulOp, emit(TanhOp, scores), cap)
        if self.replaced is not None:
            scores = emit(MaskedFillOp, scores, self.replaced, value=ScalarAttr.of(0.0))
        if self.mask is not None and types.dtype(self.mask) != "i1":
            scores = emit(AddOp, scores, emit.cast(self.mask, work))
        kept = self._kept(emit)
        empty = self._empty_rows(emit, kept)
        if kept is not None:
            value = self._without_unread(emit, value, kept)
            added = self.mask is not None and types.dtype(self.mask) != "i1"
            # Finite, so that the softmax of a row with nothing to attend is no NaN (it is replaced below). A mask that
            # is added may hold the least number itself, which is not to be masked as much as what is not kept.
            fill = ScalarAttr.of(-_INFINITY if added else LEAST[work])
            scores = emit(MaskedFillOp, scores, emit(LogicalNotOp, kept), value=fill)
        weights = self._softmax(emit, scores)
        result = emit(MatmulOp, emit.cast(weights, types.dtype(value)), value)
        if empty is None:
            return [result]
        if self.shows_query:
            features = IntsAttr([types.rank(query) - 1])
            nothing = emit(SumOp, emit.binary(MulOp, unscaled, 0.0), dims=features, keepdim=UnitAttr())
            return [emit(WhereOp, empty, nothing, result)]
        if self.empty_value is not None:
            return [emit(MaskedFillOp, result, empty, value=ScalarAttr.of(self.empty_value))]
        last = IntsAttr([types.rank(self.value) - 2])
        mean = self.repeat_heads(emit, emit(MeanOp, self.value, dims=last, keepdim=UnitAttr()))
        return [emit(WhereOp, empty, mean, result)]

    def _empty_rows(self, emit: Emitter, kept: SSAValue | None) -> SSAValue | None:
        """The rows that have nothing to attend, [..., 1]; None if there are none."""
        if kept is None or not self.may_have_empty_rows:
            return None
        last = IntsAttr([types.rank(kept) - 1])
        return emit(LogicalNotOp, emit(AnyOp, kept, dims=last, keepdim=UnitAttr()))

    def repeat_heads(self, emit: Emitter, value: SSAValue) -> SSAValue:
        """Heads of keys or values once for each head of the query."""
        *batch, heads, length, features = types.shape(value)
        group = types.shape(self.query)[-3] // heads
        if group == 1:
            return value
        split = emit.reshape(value, (*batch, heads, 1, length, features))
        repeated = emit.broadcast(split, (*batch, heads, group, length, features))
        return emit.reshape(repeated, (*batch, heads * group, length, features))

    def _kept(self, emit: Emitter) -> SSAValue | None:
        """Which positions are attended, broadcastable to [*B, H, S, T]; None if all are."""
        conditions: list[SSAValue] = []
        if self.mask is not None:
            boolean = types.dtype(self.mask) == "i1"
            conditions.append(self.mask if boolean else emit.binary(NeOp, self.mask, -_INFINITY))
        structure = self.emit_structure(emit)
        conditions += [] if structure is None else [structure]
        if not conditions:
            return None
        kept = reduce(lambda kept, more: emit(LogicalAndOp, kept, more), conditions)
        shape = types.shape(kept)
        return kept if len(shape) > 1 else emit.reshape(kept, (1,) * (2 - len(shape)) + shape)

    def emit_structure(self, emit: Emitter) -> SSAValue | None:
        """What step 5 keeps, as booleans that broadcast to [*B, H, S, T]; None if it keeps everything."""
        rows, columns = types.shape(self.query)[-2], types.shape(self.key)[-2]
        conditions: list[SSAValue] = []
        if self.causal is not None or self.window is not None or self.chunk is not None:
            row = emit.typed(
                IotaOp, dtype="i64", shape=[rows], start=ExtentAttr(self.position_offset), step=ExtentAttr(1)
            )
            row, column = emit.reshape(row, (rows, 1)), emit.iota(columns)
            conditions += self._position_conditions(emit, row, column)
        if self.prefix is not None:
            positions = reduce(lambda kept, more: emit(LogicalAndOp, kept, more), conditions)
            conditions = [emit(LogicalOrOp, positions, self._by_column(emit, self.prefix))]
        if self.keys is not None:
            conditions.append(self._by_column(emit, self.keys))
        return reduce(lambda kept, more: emit(LogicalAndOp, kept, more), conditions) if conditions else None

    def _by_column(self, emit: Emitter, columns: SSAValue) -> SSAValue:
        """Booleans [*B, T] as those of scores."""
        *batch, count = types.shape(columns)
        return emit.reshape(columns, (*batch, 1, 1, count))

    def _position_conditions(self, emit: Emitter, row: SSAValue, column: SSAValue) -> list[SSAValue]:
        conditions = [] if self.causal is None else [emit(LeOp, column, row)]
        if self.window is not None:
            ahead = emit(SubOp, row, column)
            if self.causal is None:
                ahead = emit(AbsOp, ahead)
            conditions.append(emit.binary(LtOp, ahead, self.window.data))
        if self.chunk is not None:
            chunks = [emit.binary(FloorDivOp, place, self.chunk.data) for place in (row, column)]
            conditions.append(emit(EqOp, *chunks))
        return conditions

    def _without_unread(self, emit: Emitter, value: SSAValue, kept: SSAValue) -> SSAValue:
        """``value`` [*B, H, T, Dv] with 0 where no row of ``kept`` reads it."""
        rows, columns = types.shape(self.query)[-2], types.shape(self.key)[-2]
        triangle = self.mask is None and self.keys is None and self.offset is None and rows == columns
        constant = None if self.is_structured else self._constant_mask()
        if triangle or (constant is not None and bool(constant.any(-2).all())):  # each column has a row that reads it
            return value
        read = emit(AnyOp, kept, dims=IntsAttr([types.rank(kept) - 2]), keepdim=UnitAttr())
        unread = emit.transpose_last(emit(LogicalNotOp, read))
        return emit(MaskedFillOp, value, unread, value=ScalarAttr.of(0.0))

    def _softmax(self, emit: Emitter, scores: SSAValue) -> SSAValue:
        last = IntAttr(types.rank(scores) - 1)
        if self.sinks is None:
            return emit(SoftmaxOp, scores, dim=last)
        *rows, columns = types.shape(scores)
        sinks = emit.cast(self.sinks, self.softmax_dtype.data)
        sinks = emit.broadcast(emit.reshape(sinks, (types.shape(sinks)[0], 1, 1)), (*rows, 1))
        weights = emit(SoftmaxOp, emit(ConcatOp, scores, sinks, dim=last), dim=last)
        return emit.slice(weights, last.data, 0, columns)
