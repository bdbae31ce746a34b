"""Ops that name a whole step of a transformer: rotary position embedding, gated linear unit, mixture of experts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from xdsl.builder import Builder
from xdsl.dialects.builtin import AnyTensorTypeConstr, IntAttr, StringAttr, UnitAttr
from xdsl.ir import SSAValue
from xdsl.irdl import irdl_op_definition, operand_def, opt_prop_def, prop_def, result_def
from xdsl.utils.exceptions import VerifyException

from forgec.ir import types
from forgec.ir.attributes import IntsAttr, ScalarAttr
from forgec.ir.ops.base import ForgeOp, TensorSpec, check_float, check_same_dtype
from forgec.ir.ops.binary import AddOp, DivOp, MulOp, SubOp
from forgec.ir.ops.contraction import MatmulOp
from forgec.ir.ops.decomposition import Emitter
from forgec.ir.ops.format import KeywordFormatOp
from forgec.ir.ops.index import ScatterOp
from forgec.ir.ops.module import AtenOp
from forgec.ir.ops.reduction import SoftmaxOp, SumOp
from forgec.ir.ops.select import MaskedFillOp
from forgec.ir.ops.shape import ConcatOp
from forgec.ir.ops.unary import ClampOp, GeluOp, LogicalNotOp, NegOp, ReluOp, SigmoidOp, SiluOp
from forgec.runtime.symbolic import Extent, sym_min

if TYPE_CHECKING:
    from forgec.ir.evaluator import Evaluator


@irdl_op_definition
class RopeOp(ForgeOp):
    """Rotary position embedding (Su et al. 2021) of R of D features, from ``start`` (0) on; the other D - R pass
    through.

    For ``x = input[…, start : start + R]``, the result has ``a · cos - b · sin`` and ``b · cos + a · sin`` for each
    pair ``(a, b)``: ``(x[i], x[i + R/2])`` in places i and i + R/2, or, if ``interleaved``, ``(x[2i], x[2i + 1])`` in
    places 2i and 2i + 1, or with ``to_halves`` too in places i and i + R/2. input [*B, D], cos and sin broadcast to
    [*B, R], each number in the place of the result that it makes; or, if ``once``, to [*B, R/2], a number for both of a
    pair. result [*B, D] in the promoted dtype, or, if ``keep_dtype``, rounded to the input's at the end.
    """

    name = "forge.rope"

    input = operand_def(AnyTensorTypeConstr)
    cos = operand_def(AnyTensorTypeConstr)
    sin = operand_def(AnyTensorTypeConstr)
    result = result_def(AnyTensorTypeConstr)
    interleaved = opt_prop_def(UnitAttr)
    to_halves = opt_prop_def(UnitAttr)
    once = opt_prop_def(UnitAttr)
    keep_dtype = opt_prop_def(UnitAttr)
    start = opt_prop_def(IntAttr)

    assembly_format = (
        "$input `cos` $cos `sin` $sin (`interleaved` $interleaved^)? (`to_halves` $to_halves^)? (`once` $once^)? "
        "(`keep_dtype` $keep_dtype^)? (`start` custom<Bare>($start)^)? attr-dict `:` "
        "functional-type(operands, results)"
    )

    @property
    def rotated(self) -> int:
        """R, the number of features that are rotated; raises VerifyException if it is not constant and even."""
        extent = types.shape(self.cos)[-1] if types.rank(self.cos) else 0
        extent = extent if self.once is None else 2 * extent
        if not isinstance(extent, int) or extent < 2 or extent % 2:
            raise VerifyException(f"the number of rotated features must be constant, positive and even, found {extent}")
        return extent

    @property
    def first(self) -> int:
        """The first feature that is rotated."""
        return 0 if self.start is None else self.start.data

    @property
    def work_dtype(self) -> str:
        """The dtype of the products."""
        return types.promote(types.dtype(self.input), types.dtype(self.cos))

    def infer(self) -> Sequence[TensorSpec]:
        check_float(self, self.input)
        check_float(self, self.cos)
        check_same_dtype(self, self.cos, self.sin)
        shape, count = types.shape(self.input), self.rotated
        if types.shape(self.cos) != types.shape(self.sin):
            raise VerifyException("cos and sin differ in shape")
        if self.to_halves is not None and self.interleaved is None:
            raise VerifyException("only pairs that are interleaved are put into halves")
        if not shape or not isinstance(shape[-1], int) or self.first < 0 or shape[-1] < self.first + count:
            raise VerifyException(
                f"cannot rotate {count} of {shape[-1] if shape else 0} features"
                + (f" from {self.first} on" if self.first else "")
            )
        part = (*shape[:-1], count if self.once is None else count // 2)
        if types.broadcast(types.shape(self.cos), part) != part:
            raise VerifyException(f"cos and sin do not broadcast to {list(map(str, part))}")
        return [(self.work_dtype if self.keep_dtype is None else types.dtype(self.input), shape)]

    def flops(self) -> Extent:
        return 3 * types.numel(self.input)

    def reference(self, ev: Evaluator, *inputs: Any) -> Any:
        torch, count = ev.torch, self.rotated
        source, cos, sin = inputs
        before, x, after = source.split([self.first, count, source.shape[-1] - self.first - count], -1)
        pairs_last, joined_last = self.interleaved is not None, self.interleaved is not None and self.to_halves is None
        a, b = x.unflatten(-1, (-1, 2)).unbind(-1) if pairs_last else x.chunk(2, -1)
        turned = torch.stack([-b, a], -1 if joined_last else -2).flatten(-2)
        x = torch.stack([a, b], -1 if joined_last else -2).flatten(-2)
        if self.once is not None:
            cos, sin = (torch.stack([t, t], -1 if joined_last else -2).flatten(-2) for t in (cos, sin))
        result = torch.cat([before, x * cos + turned * sin, after], -1)
        return result if self.keep_dtype is None else result.to(source.dtype)

    def decompose(self, builder: Builder) -> list[SSAValue]:
        """The numbers of all pairs, then four products, a difference and a sum; or, where pairs keep their places and
        have their own cos and sin, a negation, a concatenation, two products and a sum.
        """
        emit = Emitter(builder, self)
        shape, count = types.shape(self.input), self.rotated
        last, width = len(shape) - 1, shape[-1]
        x = self.input if width == count else emit.slice(self.input, last, self.first, count)
        first, second = self._pairs(emit, x, self.interleaved is not None)
        joined = self.interleaved is not None and self.to_halves is None
        if self.once is not None:
            low = emit(SubOp, emit(MulOp, first, self.cos), emit(MulOp, second, self.sin))
            high = emit(AddOp, emit(MulOp, second, self.cos), emit(MulOp, first, self.sin))
            result = self._join(emit, low, high, joined)
        else:
            x = x if self.to_halves is None else self._join(emit, first, second, joined)
            turned = self._join(emit, emit(NegOp, second), first, joined)
            result = emit(AddOp, emit(MulOp, x, self.cos), emit(MulOp, turned, self.sin))
        if self.keep_dtype is not None:
            result = emit.cast(result, types.dtype(self.input))
        if width == count:
            return [result]
        rest = [(0, self.first), (self.first + count, width)]
        before, after = ([emit.slice(self.input, last, i, k - i)] if k > i else [] for i, k in rest)
        return [emit(ConcatOp, *before, result, *after, dim=IntAttr(last))]

    @staticmethod
    def _pairs(emit: Emitter, x: SSAValue, interleaved: bool) -> list[SSAValue]:
        """The first and the second numbers of all pairs."""
        shape = types.shape(x)
        last, half = len(shape) - 1, shape[-1] // 2
        if not interleaved:
            return [emit.slice(x, last, start, half) for start in (0, half)]
        pairs = emit.reshape(x, (*shape[:-1], half, 2))
        return [emit.reshape(emit.slice(pairs, last + 1, place, 1), (*shape[:-1], half)) for place in (0, 1)]

    @staticmethod
    def _join(emit: Emitter, first: SSAValue, second: SSAValue, interleaved: bool) -> SSAValue:
        """Both numbers of all pairs in one row."""
        shape = types.shape(first)
        if not interleaved:
            return emit(ConcatOp, first, second, dim=IntAttr(len(shape) - 1))
        parts = [emit.reshape(value, (*shape, 1)) for value in (first, second)]
        return emit.reshape(emit(ConcatOp, *parts, dim=IntAttr(len(shape))), (*shape[:-1], 2 * shape[-1]))


_EMIT_ACTIVATION: dict[str, Callable[[Emitter, SSAValue], SSAValue]] = {
    "silu": lambda emit, x: emit(SiluOp, x),
    "gelu": lambda emit, x: emit(GeluOp, x, approximate=StringAttr("none")),
    "gelu_tanh": lambda emit, x: emit(GeluOp, x, approximate=StringAttr("tanh")),
    "relu": lambda emit, x: emit(ReluOp, x),
    "sigmoid": lambda emit, x: emit(SigmoidOp, x),
}


def _activate(ev: Evaluator, activation: str, x: Any) -> Any:
    if activation.startswith("gelu"):
        return ev.torch.nn.functional.gelu(x, approximate="tanh" if activation == "gelu_tanh" else "none")
    return ev.function(f"nn.functional.{activation}")(x)


def _check_activation(activation: str) -> None:
    if activation not in _EMIT_ACTIVATION:
        raise VerifyException(f"activation must be one of {', '.join(_EMIT_ACTIVATION)}, found {activation!r}")


@irdl_op_definition
class GluOp(ForgeOp):
    """``activation(gate) · (up + up_offset)`` (Shazeer 2020), of one shape and dtype. With ``limit``, gate is first
    clamped to at most ``limit`` and up to [-limit, limit]. With ``alpha``, ``silu(gate)`` is ``gate · sigmoid(alpha ·
    gate)``.
    """

    name = "forge.glu"

    gate = operand_def(AnyTensorTypeConstr)
    up = operand_def(AnyTensorTypeConstr)
    result = result_def(AnyTensorTypeConstr)
    activation = prop_def(StringAttr)
    alpha = opt_prop_def(ScalarAttr)
    limit = opt_prop_def(ScalarAttr)
    up_offset = opt_prop_def(ScalarAttr)

    assembly_format = (
        "$gate `,` $up `activation` $activation (`alpha` custom<Bare>($alpha)^)? (`limit` custom<Bare>($limit)^)? "
        "(`up_offset` custom<Bare>($up_offset)^)? attr-dict `:` functional-type(operands, results)"
    )

    def infer(self) -> Sequence[TensorSpec]:
        check_float(self, self.gate)
        _check_activation(self.activation.data)
        if self.alpha is not None and self.activation.data != "silu":
            raise VerifyException(f"alpha is for 'silu', found {self.activation.data!r}")
        if types.shape(self.gate) != types.shape(self.up):
            raise VerifyException("gate and up differ in shape")
        return [(check_same_dtype(self, self.gate, self.up), types.shape(self.gate))]

    def flops(self) -> Extent:
        return 5 * types.numel(self.result)

    def reference(self, ev: Evaluator, *inputs: Any) -> Any:
        gate, up = inputs
        if self.limit is not None:
            gate, up = gate.clamp(max=self.limit.value), up.clamp(-self.limit.value, self.limit.value)
        if self.up_offset is not None:
            up = up + self.up_offset.value
        if self.alpha is not None:
            return gate * ev.torch.sigmoid(gate * self.alpha.value) * up
        return _activate(ev, self.activation.data, gate) * up

    def decompose(self, builder: Builder) -> list[SSAValue]:
        """Clamps, the activation, and a product."""
        emit = Emitter(builder, self)
        gate, up = self.gate, self.up
        if self.limit is not None:
            gate = emit(ClampOp, gate, upper=self.limit)
            up = emit(ClampOp, up, lower=ScalarAttr.of(-self.limit.value), upper=self.limit)
        if self.up_offset is not None:
            up = emit.binary(AddOp, up, self.up_offset.value)
        if self.alpha is not None:
            sigmoid = emit(SigmoidOp, emit.binary(MulOp, gate, self.alpha.value))
            return [emit(MulOp, emit(MulOp, gate, sigmoid), up)]
        return [emit(MulOp, _EMIT_ACTIVATION[self.activation.data](emit, gate), up)]


@irdl_op_definition
class MoeOp(KeywordFormatOp, ForgeOp):
    """Mixture of experts: ``result[n] = Σ_{e in top(n)} w[n, e] · w_down[e] · (activation(g) · u)`` with ``[g, u] =
    w_gate_up[e] · x[n]``.

    input [*B, D], router_logits [*B, E], w_gate_up [E, 2F, D] (F rows of the gate, then F of up), w_down [E, D, F],
    result [*B, D]. ``p = softmax(router_logits)`` over E, or ``sigmoid`` of each (``scoring``), in float32 at least;
    ``top(n)`` are the ``top_k`` experts of greatest p; ``w = p`` for these, divided by their sum if ``normalize``,
    rounded to the input's dtype. Experts that are not chosen are not evaluated.
    """

    name = "forge.moe"

    input = operand_def(AnyTensorTypeConstr)
    router_logits = operand_def(AnyTensorTypeConstr)
    w_gate_up = operand_def(AnyTensorTypeConstr)
    w_down = operand_def(AnyTensorTypeConstr)
    result = result_def(AnyTensorTypeConstr)
    top_k = prop_def(IntAttr)
    activation = prop_def(StringAttr)
    scoring = prop_def(StringAttr, default_value=StringAttr("softmax"))
    normalize = opt_prop_def(UnitAttr)

    def infer(self) -> Sequence[TensorSpec]:
        check_float(self, self.input)
        check_float(self, self.router_logits)
        _check_activation(self.activation.data)
        if self.scoring.data not in ("softmax", "sigmoid"):
            raise VerifyException(f"scoring must be 'softmax' or 'sigmoid', found {self.scoring.data!r}")
        shape, logits = types.shape(self.input), types.shape(self.router_logits)
        gate_up, down = types.shape(self.w_gate_up), types.shape(self.w_down)
        if not shape or len(logits) != len(shape) or logits[:-1] != shape[:-1]:
            raise VerifyException("router_logits must have the input's shape but for the last dimension")
        if len(gate_up) != 3 or len(down) != 3:
            raise VerifyException("the weights must have rank 3")
        experts, features, hidden = down
        if logits[-1] != experts or gate_up != (experts, 2 * hidden, features) or features != shape[-1]:
            raise VerifyException(
                "weights [E, 2F, D] and [E, D, F], input [..., D] and router_logits [..., E] do not fit"
            )
        if self.top_k.data < 1 or (isinstance(experts, int) and self.top_k.data > experts):
            raise VerifyException(f"cannot choose {self.top_k.data} of {experts} experts")
        return [(check_same_dtype(self, self.input, self.w_gate_up, self.w_down), shape)]

    def flops(self) -> Extent:
        hidden = types.shape(self.w_down)[2]
        return types.numel(self.input) * self.top_k.data * hidden * 6

    def bytes_read(self, index: int) -> Extent:
        """Of the weights those of as many experts as all rows together can choose."""
        weights = self.operands[index]
        if weights is not self.w_gate_up and weights is not self.w_down:
            return super().bytes_read(index)
        experts, rows, columns = types.shape(weights)
        chosen = self.top_k.data * (types.numel(self.input) // types.shape(self.input)[-1])
        return sym_min(chosen, experts) * rows * columns * types.ITEM_BYTES[types.dtype(weights)]

    def reference(self, ev: Evaluator, *inputs: Any) -> Any:
        torch = ev.torch
        x, logits, gate_up, down = inputs
        rows, logits = x.reshape(-1, x.shape[-1]), logits.reshape(-1, logits.shape[-1])
        logits = logits.to(ev.dtype("f64" if types.dtype(self.router_logits) == "f64" else "f32"))
        scores = torch.softmax(logits, -1) if self.scoring.data == "softmax" else torch.sigmoid(logits)
        weights, chosen = torch.topk(scores, self.top_k.data, -1)
        if self.normalize is not None:
            weights = weights / weights.sum(-1, keepdim=True)
        result = torch.zeros_like(rows)
        for expert in chosen.unique().tolist():
            row, place = torch.where(chosen == expert)
            gate, up = (rows[row] @ gate_up[expert].T).chunk(2, -1)
            hidden = _activate(ev, self.activation.data, gate) * up
            result[row] += hidden @ down[expert].T * weights[row, place, None].to(x.dtype)
        return result.reshape(x.shape)

    def decompose(self, builder: Builder) -> list[SSAValue]:
        """Every expert on every row, then the sum over the chosen ones: E / top_k times the work of the op."""
        emit = Emitter(builder, self)
        shape, dtype = types.shape(self.input), types.dtype(self.input)
        experts, features, hidden = types.shape(self.w_down)
        count = types.numel(self.input) // features
        weights, chosen = self._route(emit, count, experts)
        rows = emit.reshape(self.input, (1, count, features))
        both = emit(MatmulOp, rows, emit.transpose_last(self.w_gate_up))  # [E, N, 2F]
        gate, up = (emit.slice(both, 2, start, hidden) for start in (0, hidden))
        product = emit(MulOp, _EMIT_ACTIVATION[self.activation.data](emit, gate), up)
        outputs = emit(MatmulOp, product, emit.transpose_last(self.w_down))  # [E, N, D]
        skipped = emit.reshape(emit.transpose_last(emit(LogicalNotOp, chosen)), (experts, count, 1))
        outputs = emit(MaskedFillOp, outputs, skipped, value=ScalarAttr.of(0.0))
        weights = emit.reshape(emit.transpose_last(emit.cast(weights, dtype)), (experts, count, 1))
        result = emit(SumOp, emit(MulOp, outputs, weights), dims=IntsAttr([0]))
        return [emit.reshape(result, shape)]

    def _route(self, emit: Emitter, count: Extent, experts: Extent) -> tuple[SSAValue, SSAValue]:
        """The weight of each expert for each row (0 where it is not chosen), and whether it is chosen: both [N, E]."""
        work = "f64" if types.dtype(self.router_logits) == "f64" else "f32"
        logits = emit.cast(emit.reshape(self.router_logits, (count, experts)), work)
        scores = emit(SigmoidOp, logits) if self.scoring.data == "sigmoid" else emit(SoftmaxOp, logits, dim=IntAttr(1))
        top = (count, self.top_k.data)
        topk = AtenOp.of(
            "aten::topk", [scores, self.top_k.data, -1], [], [types.tensor(work, top), types.tensor("i64", top)]
        )
        emit.insert(topk)
        weights, places = topk.results
        if self.normalize is not None:
            weights = emit(DivOp, weights, emit(SumOp, weights, dims=IntsAttr([1]), keepdim=UnitAttr()))
        scattered = emit(ScatterOp, emit.full(0.0, work, (count, experts)), places, weights, dim=IntAttr(1))
        nobody, somebody = emit.full(False, "i1", (count, experts)), emit.full(True, "i1", top)
        return scattered, emit(ScatterOp, nobody, places, somebody, dim=IntAttr(1))
