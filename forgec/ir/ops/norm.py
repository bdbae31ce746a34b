"""Normalisations: layer norm, RMS norm, group norm, batch norm. Statistics are computed in float32 at least.

For narrower inputs, ``rounding`` says where layer norm and RMS norm round to the input's dtype. ``result``: once, at
the end. ``normalized``: what was normalised is rounded, and the parameters (of the input's dtype) apply in that dtype,
rounding after each. ``scale`` (RMS norm): the reciprocal of the root mean square is rounded, and all that follows is in
that dtype. For float32 and float64 the three are one.
"""

from __future__ import annotations

from collections.abc import Sequence
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
from forgec.ir.attributes import IntsAttr, ScalarAttr
from forgec.ir.ops.base import ForgeOp, TensorSpec, check_float
from forgec.ir.ops.binary import AddOp, DivOp, MulOp, SubOp
from forgec.ir.ops.decomposition import Emitter
from forgec.ir.ops.format import KeywordFormatOp
from forgec.ir.ops.reduction import MeanOp
from forgec.ir.ops.unary import ClampOp, RsqrtOp, SqrtOp
from forgec.runtime.symbolic import Extent

if TYPE_CHECKING:
    from forgec.ir.evaluator import Evaluator

UNIT = UnitAttr()


class _NormOp(KeywordFormatOp, ForgeOp):
    """A normalisation of ``input``; the result has its dtype and shape. Parameters have its dtype, or float32."""

    result = result_def(AnyTensorTypeConstr)

    def infer(self) -> Sequence[TensorSpec]:
        value, *parameters = self.operands
        check_float(self, value)
        name = types.dtype(value)
        for parameter in parameters:
            if types.dtype(parameter) not in (name, "f32"):
                raise VerifyException(f"a parameter has dtype {types.dtype(parameter)}, the input {name}")
        return [(name, types.shape(value))]

    def check_parameters(self, shape: tuple[Extent, ...]) -> None:
        """Raises VerifyException unless weight and bias have this shape."""
        for parameter in self.operands[1:]:
            if types.shape(parameter) != shape:
                raise VerifyException(
                    f"a parameter has shape {list(map(str, types.shape(parameter)))}, {list(map(str, shape))} is needed"
                )

    def flops(self) -> Extent:
        return (5 + len(self.operands)) * types.numel(self.operands[0])


ROUNDINGS = ("result", "normalized", "scale")
EPS_FORMS = ("inside", "outside", "least")


def _check_rounding(op: ForgeOp, rounding: str, choices: Sequence[str], parameters: Sequence[SSAValue]) -> None:
    """Raises VerifyException for a rounding that the op does not have, or that its parameters do not allow."""
    if rounding not in choices:
        raise VerifyException(f"rounding must be one of {', '.join(choices)}, found {rounding!r}")
    name = types.dtype(op.operands[0])
    if rounding != "result" and any(types.dtype(parameter) != name for parameter in parameters):
        raise VerifyException(f"rounding {rounding!r} takes parameters of the input's dtype {name}")


def _normalized_shape(input: SSAValue, axes: int) -> tuple[Extent, ...]:
    if not 1 <= axes <= types.rank(input):
        raise VerifyException(f"cannot normalise {axes} of {types.rank(input)} dimensions")
    return types.shape(input)[-axes:]


def _statistics_dtype(value: SSAValue) -> str:
    return "f64" if types.dtype(value) == "f64" else "f32"


def _last(value: SSAValue, axes: int) -> IntsAttr:
    rank = types.rank(value)
    return IntsAttr(range(rank - axes, rank))


@irdl_op_definition
class LayerNormOp(_NormOp):
    """``(x - mean(x)) / sqrt(var(x) + eps) · weight + bias`` over the ``axes`` trailing dimensions (Ba et al. 2016).

    input [*B, *N], weight and bias [*N], result [*B, *N]; the variance divides by the number of elements of N. With
    ``rounding "normalized"`` the quotient is rounded to the input's dtype, then the product and the sum in turn.
    """

    name = "forge.layer_norm"

    input = operand_def(AnyTensorTypeConstr)
    weight = opt_operand_def(AnyTensorTypeConstr)
    bias = opt_operand_def(AnyTensorTypeConstr)
    axes = prop_def(IntAttr)
    eps = prop_def(ScalarAttr)
    rounding = prop_def(StringAttr, default_value=StringAttr("result"))

    irdl_options = (AttrSizedOperandSegments(as_property=True),)

    def infer(self) -> Sequence[TensorSpec]:
        self.check_parameters(_normalized_shape(self.input, self.axes.data))
        _check_rounding(self, self.rounding.data, ROUNDINGS[:2], self.operands[1:])
        return super().infer()

    def reference(self, ev: Evaluator, *inputs: Any) -> Any:
        x, weight, bias = self.unpack(inputs)
        work = x.to(ev.dtype(_statistics_dtype(self.input)))
        result = ev.torch.nn.functional.layer_norm(work, work.shape[-self.axes.data :], eps=self.eps.value)
        result = result.to(x.dtype) if self.rounding.data == "normalized" else result
        result = result if weight is None else result * weight
        result = result if bias is None else result + bias
        return result.to(x.dtype)

    def decompose(self, builder: Builder) -> list[SSAValue]:
        """Centre, divide by the root of the mean square, then scale and shift; in float32 at least, as far as
        ``rounding`` says.
        """
        emit = Emitter(builder, self)
        x = emit.cast(self.input, _statistics_dtype(self.input))
        dims, keep = _last(x, self.axes.data), {"keepdim": UNIT}
        centred = emit(SubOp, x, emit(MeanOp, x, dims=dims, **keep))
        variance = emit(MeanOp, emit(MulOp, centred, centred), dims=dims, **keep)
        result = emit(MulOp, centred, emit(RsqrtOp, emit.binary(AddOp, variance, float(self.eps.value))))
        result = emit.cast(result, types.dtype(self.input)) if self.rounding.data == "normalized" else result
        result = result if self.weight is None else emit(MulOp, result, self.weight)
        result = result if self.bias is None else emit(AddOp, result, self.bias)
        return [emit.cast(result, types.dtype(self.input))]


@irdl_op_definition
class RmsNormOp(_NormOp):
    """``x / sqrt(mean(x²) + eps) · (weight_offset + weight)`` over the ``axes`` trailing dimensions (Zhang and Sennrich
    2019).

    input [*B, *N], weight [*N], result [*B, *N]. Everything is computed in float32 at least and rounded once, at the
    end, unless ``rounding`` says otherwise. ``weight_offset`` (0 if absent) is for weights that are stored as their
    difference from 1. Without ``eps`` it is the machine epsilon of the dtype that statistics are computed in (float32
    for narrower inputs), as in torch. ``eps_form`` says what it does: ``inside`` the root as above, ``outside``, where
    x is divided by ``sqrt(mean(x²)) + eps``, or ``least``, by ``max(sqrt(mean(x²)), eps)``, as ``F.normalize`` does.
    """

    name = "forge.rms_norm"

    input = operand_def(AnyTensorTypeConstr)
    weight = opt_operand_def(AnyTensorTypeConstr)
    axes = prop_def(IntAttr)
    eps = opt_prop_def(ScalarAttr)
    weight_offset = opt_prop_def(ScalarAttr)
    eps_form = prop_def(StringAttr, default_value=StringAttr("inside"))
    rounding = prop_def(StringAttr, default_value=StringAttr("result"))

    def infer(self) -> Sequence[TensorSpec]:
        self.check_parameters(_normalized_shape(self.input, self.axes.data))
        form = self.eps_form.data
        if form not in EPS_FORMS:
            raise VerifyException(f"eps_form must be one of {', '.join(EPS_FORMS)}, found {form!r}")
        _check_rounding(self, self.rounding.data, ROUNDINGS if form == "inside" else ROUNDINGS[:2], self.operands[1:])
        if self.weight is None and self.weight_offset is not None:
            raise VerifyException("there is no weight to add weight_offset to")
        return super().infer()

    @property
    def epsilon(self) -> float:
        """``eps``, or what stands for it when it is absent."""
        if self.eps is not None:
            return float(self.eps.value)
        return 2.0**-52 if types.dtype(self.input) == "f64" else 2.0**-23

    def reference(self, ev: Evaluator, *inputs: Any) -> Any:
        x, weight = self.unpack(inputs)
        work = x.to(ev.dtype(_statistics_dtype(self.input)))
        square = work.square().mean(list(range(-self.axes.data, 0)), keepdim=True)
        if self.eps_form.data == "inside":
            scale = ev.torch.rsqrt(square + self.epsilon)
            result = x * scale.to(x.dtype) if self.rounding.data == "scale" else work * scale
        else:
            size = square.sqrt()
            result = work / (size + self.epsilon if self.eps_form.data == "outside" else size.clamp(min=self.epsilon))
        result = result.to(x.dtype) if self.rounding.data == "normalized" else result
        if weight is not None and self.weight_offset is not None:
            weight = weight.to(result.dtype) + self.weight_offset.value
        return (result if weight is None else result * weight).to(x.dtype)

    def decompose(self, builder: Builder) -> list[SSAValue]:
        """Multiply by the reciprocal root of the mean square, then scale; in float32 at least, as far as ``rounding``
        says.
        """
        emit, name = Emitter(builder, self), types.dtype(self.input)
        x = emit.cast(self.input, _statistics_dtype(self.input))
        square = emit(MeanOp, emit(MulOp, x, x), dims=_last(x, self.axes.data), keepdim=UNIT)
        if self.eps_form.data == "inside":
            scale = emit(RsqrtOp, emit.binary(AddOp, square, self.epsilon))
            if self.rounding.data == "scale":
                x, scale = self.input, emit.cast(scale, name)
            result = emit(MulOp, x, scale)
        else:
            size, outside = emit(SqrtOp, square), self.eps_form.data == "outside"
            least = {"lower": ScalarAttr.of(self.epsilon)}
            size = emit.binary(AddOp, size, self.epsilon) if outside else emit(ClampOp, size, **least)
            result = emit(DivOp, x, size)
        result = emit.cast(result, name) if self.rounding.data == "normalized" else result
        weight = self.weight
        if weight is not None and self.weight_offset is not None:
            weight = emit.binary(AddOp, emit.cast(weight, types.dtype(result)), self.weight_offset.value)
        result = result if weight is None else emit(MulOp, result, weight)
        return [emit.cast(result, name)]


@irdl_op_definition
class GroupNormOp(_NormOp):
    """Layer norm without parameters over each of ``groups`` groups of channels, then ``· weight[c] + bias[c]`` (Wu and
    He 2018).

    input [B, C, *X], weight and bias [C], result [B, C, *X]; each group has C / groups channels and all of X.
    """

    name = "forge.group_norm"

    input = operand_def(AnyTensorTypeConstr)
    weight = opt_operand_def(AnyTensorTypeConstr)
    bias = opt_operand_def(AnyTensorTypeConstr)
    groups = prop_def(IntAttr)
    eps = prop_def(ScalarAttr)

    irdl_options = (AttrSizedOperandSegments(as_property=True),)

    def infer(self) -> Sequence[TensorSpec]:
        shape, groups = types.shape(self.input), self.groups.data
        if len(shape) < 2 or groups < 1 or (isinstance(shape[1], int) and shape[1] % groups):
            raise VerifyException(f"the channels of {list(map(str, shape))} do not divide into {groups} groups")
        self.check_parameters(shape[1:2])
        return super().infer()

    def reference(self, ev: Evaluator, *inputs: Any) -> Any:
        x, weight, bias = self.unpack(inputs)
        work = ev.dtype(_statistics_dtype(self.input))
        weight, bias = (None if p is None else p.to(work) for p in (weight, bias))
        # nn.functional refuses groups of one number
        return ev.torch.group_norm(x.to(work), self.groups.data, weight, bias, self.eps.value).to(x.dtype)


@irdl_op_definition
class BatchNormOp(_NormOp):
    """``(x - mean[c]) / sqrt(var[c] + eps) · weight[c] + bias[c]`` with statistics that were collected in training
    (Ioffe and Szegedy 2015).

    input [B, C, *X], all parameters [C], result [B, C, *X].
    """

    name = "forge.batch_norm"

    input = operand_def(AnyTensorTypeConstr)
    mean = operand_def(AnyTensorTypeConstr)
    var = operand_def(AnyTensorTypeConstr)
    weight = opt_operand_def(AnyTensorTypeConstr)
    bias = opt_operand_def(AnyTensorTypeConstr)
    eps = prop_def(ScalarAttr)

    irdl_options = (AttrSizedOperandSegments(as_property=True),)

    def infer(self) -> Sequence[TensorSpec]:
        shape = types.shape(self.input)
        if len(shape) < 2:
            raise VerifyException("batch norm takes a batch of channels")
        self.check_parameters(shape[1:2])
        return super().infer()

    def reference(self, ev: Evaluator, *inputs: Any) -> Any:
        work = ev.dtype(_statistics_dtype(self.input))
        x, mean, var, weight, bias = (None if v is None else v.to(work) for v in self.unpack(inputs))
        result = ev.torch.nn.functional.batch_norm(x, mean, var, weight, bias, eps=self.eps.value)
        return result.to(ev.dtype(self.result))

    def decompose(self, builder: Builder) -> list[SSAValue]:
        """Subtract the mean, scale by the root of the variance, then by the weight, and shift; in float32 at least."""
        emit = Emitter(builder, self)
        work = _statistics_dtype(self.input)
        shape = (types.shape(self.input)[1], *[1] * (types.rank(self.input) - 2))

        def parameter(value: SSAValue) -> SSAValue:
            return emit.cast(emit.reshape(value, shape), work)

        spread = emit(RsqrtOp, emit.binary(AddOp, parameter(self.var), float(self.eps.value)))
        result = emit(MulOp, emit(SubOp, emit.cast(self.input, work), parameter(self.mean)), spread)
        result = result if self.weight is None else emit(MulOp, result, parameter(self.weight))
        result = result if self.bias is None else emit(AddOp, result, parameter(self.bias))
        return [emit.cast(result, types.dtype(self.input))]
