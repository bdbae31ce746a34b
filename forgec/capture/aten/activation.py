"""Activation functions, and operators that are others with fixed arguments or other names."""

from __future__ import annotations

import math

from xdsl.ir import Attribute, SSAValue

from forgec.capture.aten import reduction, shape  # noqa: F401 - their rows have other names, too
from forgec.capture.aten.elementwise import binary
from forgec.capture.aten.formulas import Formula
from forgec.capture.call import ROWS, Call, Decline, Result, extent, from_aten, scalar
from forgec.ir import types
from forgec.ir.ops import activation as a
from forgec.ir.ops import unary as u
from forgec.ir.ops.base import ForgeOp
from forgec.ir.ops.binary import DivOp, EqOp, FloorDivOp, LtOp, MaximumOp, MinimumOp, PowOp, ShiftLeftOp, ShiftRightOp
from forgec.ir.ops.select import TrilOp, TriuOp, WhereOp

ALIASES = {
    "absolute": "abs", "negative": "neg", "fix": "trunc", "clip": "clamp", "arcsin": "asin", "arccos": "acos",
    "arctan": "atan", "special_exp2": "exp2", "special_expit": "sigmoid", "special_expm1": "expm1",
    "special_erf": "erf", "special_erfc": "erfc", "special_log1p": "log1p", "special_round": "round",
    "special_softmax": "softmax.int", "special_log_softmax": "log_softmax.int",
    "multiply.Tensor": "mul.Tensor", "multiply.Scalar": "mul.Scalar", "divide.Tensor": "div.Tensor",
    "divide.Scalar": "div.Scalar", "true_divide.Tensor": "div.Tensor", "true_divide.Scalar": "div.Scalar",
    "subtract.Tensor": "sub.Tensor", "subtract.Scalar": "sub.Scalar",
    "greater.Tensor": "gt.Tensor", "greater.Scalar": "gt.Scalar", "greater_equal.Tensor": "ge.Tensor",
    "greater_equal.Scalar": "ge.Scalar", "less.Tensor": "lt.Tensor", "less.Scalar": "lt.Scalar",
    "less_equal.Tensor": "le.Tensor", "less_equal.Scalar": "le.Scalar", "not_equal.Tensor": "ne.Tensor",
    "not_equal.Scalar": "ne.Scalar", "concat": "cat", "concatenate": "cat",
}  # fmt: skip
"""Operators with the schema of another and its meaning."""

PLAIN: dict[str, type[ForgeOp]] = {
    "aten::hardswish": a.HardswishOp,
    "aten::hardsigmoid": a.HardsigmoidOp,
    "aten::mish": a.MishOp,
}


def _plain(cls: type[ForgeOp]):
    def row(call: Call) -> Result:
        return call.emit(cls, [call.tensor("self")])

    return row


for _name, _cls in PLAIN.items():
    from_aten(_name)(_plain(_cls))


@from_aten("aten::log_sigmoid")
def _log_sigmoid(call: Call) -> Result:
    """Its kernel writes row-major results, whatever torch.export says of them."""
    source = call.tensor("self")
    return call.emit(a.LogSigmoidOp, [source], None, types.tensor(types.dtype(source), types.shape(source)))


@from_aten("aten::softplus")
def _softplus(call: Call) -> Result:
    properties: dict[str, Attribute] = {name: scalar(call.number(name)) for name in ("beta", "threshold")}
    return call.emit(a.SoftplusOp, [call.tensor("self")], properties)


@from_aten("aten::leaky_relu")
def _leaky_relu(call: Call) -> Result:
    return call.emit(a.LeakyReluOp, [call.tensor("self")], {"slope": scalar(call.number("negative_slope"))})


SELU_ALPHA, SELU_SCALE = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946
"""The constants of SELU as ATen has them."""


def _elu(call: Call, alpha: float, scale: float, input_scale: float) -> Result:
    properties: dict[str, Attribute] = {
        "alpha": scalar(alpha),
        "scale": scalar(scale),
        "input_scale": scalar(input_scale),
    }
    return call.emit(a.EluOp, [call.tensor("self")], properties)


@from_aten("aten::elu")
def _plain_elu(call: Call) -> Result:
    return _elu(call, call.number("alpha"), call.number("scale"), call.number("input_scale"))


@from_aten("aten::selu")
def _selu(call: Call) -> Result:
    return _elu(call, SELU_ALPHA, SELU_SCALE, 1.0)


@from_aten("aten::celu")
def _celu(call: Call) -> Result:
    alpha = call.number("alpha")
    if alpha == 0:
        raise Decline
    return _elu(call, alpha, 1.0, 1.0 / alpha)


@from_aten("aten::hardtanh")
def _hardtanh(call: Call) -> Result:
    return _clamped(call, call.number("min_val"), call.number("max_val"))


@from_aten("aten::relu6")
def _relu6(call: Call) -> Result:
    return _clamped(call, 0, 6)


def _clamped(call: Call, low: float, high: float) -> Result:
    source = call.tensor("self")
    if types.dtype(source) not in types.FLOATS or low > high:
        raise Decline
    return call.emit(u.ClampOp, [source], {"lower": scalar(low), "upper": scalar(high)})


@from_aten("aten::square")
def _square(call: Call) -> Result:
    return call.emit(PowOp, [call.tensor("self")], {"scalar": scalar(2)})


@from_aten("aten::isinf")
def _isinf(call: Call) -> Result:
    return _magnitude(call, EqOp)


@from_aten("aten::isfinite")
def _isfinite(call: Call) -> Result:
    return _magnitude(call, LtOp)


def _magnitude(call: Call, comparison: type[ForgeOp]) -> Result:
    """The magnitude compared with infinity; NaN is neither equal nor less."""
    source = call.tensor("self")
    if types.dtype(source) not in types.FLOATS:
        raise Decline
    return call.emit(comparison, [call.infer(u.AbsOp, [source])], {"scalar": scalar(math.inf)})


@from_aten("aten::clamp.Tensor", "aten::clamp_min.Tensor", "aten::clamp_max.Tensor")
def _clamp_by_tensors(call: Call) -> Result:
    """The bounds may be tensors that broadcast; NaN in any of the three stays."""
    value = call.tensor("self")
    low, high = (call.arguments.get(name) for name in ("min", "max"))
    if low is not None:
        emit = call.infer if high is not None else call.emit
        value = emit(MaximumOp, [value, call.tensor("min")])
    return value if high is None else call.emit(MinimumOp, [value, call.tensor("max")])


@from_aten("aten::div.Tensor_mode", "aten::divide.Tensor_mode", "aten::div.Scalar_mode", "aten::divide.Scalar_mode")
def _rounded_division(call: Call) -> Result:
    if call["rounding_mode"] == "floor":
        return binary(call, FloorDivOp)
    call.require(rounding_mode="trunc")
    f = Formula(call)
    other = call.arguments["other"]
    quotient = f(DivOp, f["self"], f["other"] if isinstance(other, SSAValue) else call.number("other"))
    return f.result(f(u.TruncOp, call.cast(quotient, types.dtype(f.target))))


@from_aten("aten::bitwise_left_shift.Tensor", "aten::bitwise_left_shift.Tensor_Scalar")
def _shift_left(call: Call) -> Result:
    return binary(call, ShiftLeftOp)


@from_aten("aten::bitwise_right_shift.Tensor", "aten::bitwise_right_shift.Tensor_Scalar")
def _shift_right(call: Call) -> Result:
    return binary(call, ShiftRightOp)


@from_aten("aten::masked_fill.Tensor")
def _masked_fill(call: Call) -> Result:
    """The value is a tensor of rank 0, which takes the dtype of what it fills."""
    source = call.tensor("self")
    return call.emit(WhereOp, [call.tensor("mask"), call.cast(call.tensor("value"), types.dtype(source)), source])


@from_aten("aten::tril")
def _tril(call: Call) -> Result:
    return _triangle(call, TrilOp)


@from_aten("aten::triu")
def _triu(call: Call) -> Result:
    return _triangle(call, TriuOp)


def _triangle(call: Call, cls: type[ForgeOp]) -> Result:
    return call.emit(cls, [call.tensor("self")], {"diagonal": extent(call["diagonal"])})


for _alias, _name in ALIASES.items():
    from_aten(f"aten::{_alias}")(ROWS[f"aten::{_name}"])
