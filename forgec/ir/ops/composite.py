"""Ops that name a whole step of a transformer: rotary position embedding, gated linear unit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from xdsl.builder import Builder
from xdsl.dialects.builtin import AnyTensorTypeConstr, IntAttr, StringAttr, UnitAttr
from xdsl.ir import SSAValue
from xdsl.irdl import irdl_op_definition, operand_def, opt_prop_def, prop_def, result_def
from xdsl.utils.exceptions import VerifyException

from forgec.ir import types
from forgec.ir.attributes import ScalarAttr
from forgec.ir.ops.base import ForgeOp, TensorSpec, check_float, check_same_dtype
from forgec.ir.ops.binary import AddOp, MulOp, SubOp
from forgec.ir.ops.decomposition import Emitter, Number
from forgec.ir.ops.shape import ConcatOp
from forgec.ir.ops.unary import ClampOp, GeluOp, NegOp, ReluOp, SigmoidOp, SiluOp
from forgec.runtime.symbolic import Extent

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


EMIT_ACTIVATION: dict[str, Callable[[Emitter, SSAValue], SSAValue]] = {
    "silu": lambda emit, x: emit(SiluOp, x),
    "gelu": lambda emit, x: emit(GeluOp, x, approximate=StringAttr("none")),
    "gelu_tanh": lambda emit, x: emit(GeluOp, x, approximate=StringAttr("tanh")),
    "relu": lambda emit, x: emit(ReluOp, x),
    "sigmoid": lambda emit, x: emit(SigmoidOp, x),
}


def activate(ev: Evaluator, activation: str, x: Any) -> Any:
    """An activation, by its name, of a tensor."""
    if activation.startswith("gelu"):
        return ev.torch.nn.functional.gelu(x, approximate="tanh" if activation == "gelu_tanh" else "none")
    return ev.function(f"nn.functional.{activation}")(x)


def check_activation(activation: str) -> None:
    """Raises VerifyException for a name that is none of an activation."""
    if activation not in EMIT_ACTIVATION:
        raise VerifyException(f"activation must be one of {', '.join(EMIT_ACTIVATION)}, found {activation!r}")


def gated(
    ev: Evaluator,
    gate: Any,
    up: Any,
    activation: str,
    alpha: Number | None = None,
    limit: Number | None = None,
    up_offset: Number | None = None,
) -> Any:
    """What ``forge.glu`` with these properties makes of two tensors."""
    if limit is not None:
        gate, up = gate.clamp(max=limit), up.clamp(-limit, limit)
    if up_offset is not None:
        up = up + up_offset
    if alpha is not None:
        return gate * ev.torch.sigmoid(gate * alpha) * up
    return activate(ev, activation, gate) * up


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
        check_activation(self.activation.data)
        if self.alpha is not None and self.activation.data != "silu":
            raise VerifyException(f"alpha is for 'silu', found {self.activation.data!r}")
        if types.shape(self.gate) != types.shape(self.up):
            raise VerifyException("gate and up differ in shape")
        return [(check_same_dtype(self, self.gate, self.up), types.shape(self.gate))]

    def flops(self) -> Extent:
        return 5 * types.numel(self.result)

    def reference(self, ev: Evaluator, *inputs: Any) -> Any:
        gate, up = inputs
        modifiers = [None if scalar is None else scalar.value for scalar in (self.alpha, self.limit, self.up_offset)]
        return gated(ev, gate, up, self.activation.data, *modifiers)

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
        return [emit(MulOp, EMIT_ACTIVATION[self.activation.data](emit, gate), up)]
