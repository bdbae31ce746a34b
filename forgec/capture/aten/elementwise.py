"""Pointwise operators."""

from __future__ import annotations

from xdsl.dialects.builtin import StringAttr
from xdsl.ir import SSAValue

from forgec.capture.aten.formulas import Formula
from forgec.capture.call import Call, Decline, Result, extent, from_aten, scalar
from forgec.ir import types
from forgec.ir.ops import binary as b
from forgec.ir.ops import select
from forgec.ir.ops import unary as u
from forgec.ir.ops.base import ForgeOp
from forgec.ir.ops.creation import FullOp, IotaOp
from forgec.ir.ops.shape import BroadcastOp, CopyOp, ReshapeOp
from forgec.runtime.symbolic import SymExpr

UNARY: dict[str, type[ForgeOp]] = {
    "neg": u.NegOp,
    "abs": u.AbsOp,
    "sign": u.SignOp,
    "exp": u.ExpOp,
    "exp2": u.Exp2Op,
    "expm1": u.Expm1Op,
    "log": u.LogOp,
    "log2": u.Log2Op,
    "log10": u.Log10Op,
    "log1p": u.Log1pOp,
    "sqrt": u.SqrtOp,
    "rsqrt": u.RsqrtOp,
    "reciprocal": u.ReciprocalOp,
    "sin": u.SinOp,
    "cos": u.CosOp,
    "tan": u.TanOp,
    "asin": u.AsinOp,
    "acos": u.AcosOp,
    "atan": u.AtanOp,
    "sinh": u.SinhOp,
    "cosh": u.CoshOp,
    "tanh": u.TanhOp,
    "erf": u.ErfOp,
    "erfc": u.ErfcOp,
    "sigmoid": u.SigmoidOp,
    "silu": u.SiluOp,
    "relu": u.ReluOp,
    "floor": u.FloorOp,
    "ceil": u.CeilOp,
    "round": u.RoundOp,
    "trunc": u.TruncOp,
    "logical_not": u.LogicalNotOp,
    "bitwise_not": u.BitwiseNotOp,
    "isnan": u.IsNanOp,
}

BINARY: dict[str, type[ForgeOp]] = {
    "mul": b.MulOp,
    "div": b.DivOp,
    "floor_divide": b.FloorDivOp,
    "remainder": b.RemainderOp,
    "fmod": b.FmodOp,
    "maximum": b.MaximumOp,
    "minimum": b.MinimumOp,
    "eq": b.EqOp,
    "ne": b.NeOp,
    "lt": b.LtOp,
    "le": b.LeOp,
    "gt": b.GtOp,
    "ge": b.GeOp,
    "logical_and": b.LogicalAndOp,
    "logical_or": b.LogicalOrOp,
    "logical_xor": b.LogicalXorOp,
    "bitwise_and": b.BitwiseAndOp,
    "bitwise_or": b.BitwiseOrOp,
    "bitwise_xor": b.BitwiseXorOp,
    "__and__": b.BitwiseAndOp,
    "__or__": b.BitwiseOrOp,
    "__xor__": b.BitwiseXorOp,
    "__lshift__": b.ShiftLeftOp,
    "__rshift__": b.ShiftRightOp,
}
"""Operators of two operands: ``.Tensor`` and ``.Scalar`` overloads (or the default one), no further arguments."""

SCALED: dict[str, type[ForgeOp]] = {"add": b.AddOp, "sub": b.SubOp, "rsub": b.RsubOp}
"""Operators of two operands with a factor ``alpha`` for the second."""


def _unary(cls: type[ForgeOp]):
    def row(call: Call) -> Result:
        return call.emit(cls, [call.tensor("self")])

    return row


def extent_value(call: Call, value: SymExpr) -> SSAValue:
    """An extent as a tensor of rank 0, i64."""
    line = call.emit(IotaOp, [], {"start": extent(value), "step": extent(1)}, types.tensor("i64", [1]))
    return call.emit(ReshapeOp, [line], None, types.tensor("i64", []))


def binary(call: Call, cls: type[ForgeOp], left: str = "self", right: str = "other") -> Result:
    """A row for two operands, of which the second may be a number, or an extent: then a tensor of rank 0 holds it."""
    value = call[right]
    if isinstance(value, SymExpr):
        return call.emit(cls, [call.tensor(left), extent_value(call, value)])
    if isinstance(value, (bool, int, float)):
        return call.emit(cls, [call.tensor(left)], {"scalar": scalar(value)})
    return call.emit(cls, [call.tensor(left), call.tensor(right)])


def _binary(cls: type[ForgeOp]):
    def row(call: Call) -> Result:
        return binary(call, cls)

    return row


def _scaled(cls: type[ForgeOp]):
    def row(call: Call) -> Result:
        if call["alpha"] == 1:
            return binary(call, cls)
        f = Formula(call)
        factor = call.number("alpha")
        if not isinstance(call["other"], SSAValue):
            if cls is b.RsubOp:
                raise Decline
            return f.result(f(cls, f["self"], call.number("other") * factor))
        scaled = "self" if cls is b.RsubOp else "other"
        values = {name: f[name] for name in ("self", "other")}
        values[scaled] = f(b.MulOp, values[scaled], factor)
        return f.result(f(cls, values["self"], values["other"]))

    return row


for _name, _cls in UNARY.items():
    from_aten(f"aten::{_name}")(_unary(_cls))
for _name, _cls in BINARY.items():
    _overloads = (
        [f"aten::{_name}"]
        if _name in ("logical_and", "logical_or", "logical_xor", "floor_divide", "maximum", "minimum")
        else []
    )
    from_aten(*_overloads, f"aten::{_name}.Tensor", f"aten::{_name}.Scalar")(_binary(_cls))
for _name, _cls in SCALED.items():
    from_aten(f"aten::{_name}.Tensor", f"aten::{_name}.Scalar")(_scaled(_cls))


@from_aten("aten::pow.Tensor_Scalar", "aten::pow.Tensor_Tensor")
def _pow(call: Call) -> Result:
    return binary(call, b.PowOp, right="exponent")


@from_aten("aten::gelu")
def _gelu(call: Call) -> Result:
    return call.emit(u.GeluOp, [call.tensor("self")], {"approximate": StringAttr(call["approximate"])})


@from_aten("aten::clamp", "aten::clamp_min", "aten::clamp_max")
def _clamp(call: Call) -> Result:
    bounds = {"lower": call.arguments.get("min"), "upper": call.arguments.get("max")}
    given = {name: bound for name, bound in bounds.items() if bound is not None}
    if all(isinstance(bound, (bool, int, float)) for bound in given.values()):
        return call.emit(u.ClampOp, [call.tensor("self")], {name: scalar(bound) for name, bound in given.items()})
    target = call.results[0]
    if target is None or types.dtype(target) != types.dtype(call.tensor("self")):
        raise Decline
    value = call.tensor("self")
    for name, bound in given.items():  # the upper one wins, and comes last
        cls = b.MaximumOp if name == "lower" else b.MinimumOp
        kind = target if name == list(given)[-1] else None
        if isinstance(bound, (bool, int, float)):
            operands, properties = [value], {"scalar": scalar(bound)}
        else:
            bound = extent_value(call, bound) if isinstance(bound, SymExpr) else bound
            if not isinstance(bound, SSAValue):
                raise Decline
            if not types.rank(bound) and types.dtype(bound) not in types.FLOATS:  # a number that the model computed
                bound = call.cast(bound, types.dtype(value))
            operands, properties = [value, bound], {}
        value = call.infer(cls, operands, properties) if kind is None else call.emit(cls, operands, properties, kind)
    return value


from_aten("aten::max.other")(_binary(b.MaximumOp))
from_aten("aten::min.other")(_binary(b.MinimumOp))


@from_aten("aten::where.self", "aten::where.ScalarOther", "aten::where.ScalarSelf", "aten::where.Scalar")
def _where(call: Call) -> Result:
    """A number in place of a branch is a rank-0 tensor of the result's dtype."""
    return call.emit(select.WhereOp, [call.tensor("condition"), _branch(call, "self"), _branch(call, "other")])


def _branch(call: Call, name: str) -> SSAValue:
    value = call[name]
    if isinstance(value, SSAValue):
        return value
    target = call.results[0]
    assert target is not None
    return call.emit(FullOp, [], {"value": scalar(value)}, types.tensor(types.dtype(target), ()))


@from_aten("aten::masked_fill.Scalar")
def _masked_fill(call: Call) -> Result:
    value = scalar(call.number("value"))
    return call.emit(select.MaskedFillOp, [call.tensor("self"), call.tensor("mask")], {"value": value})


@from_aten("aten::copy", "aten::fill.Tensor")
def _copy(call: Call) -> Result:
    """What ``copy_`` writes: the source in the dtype and shape of the destination."""
    source, target = call.tensor("src" if call.name == "aten::copy" else "value"), call.results[0]
    if target is None:
        raise Decline
    return call.emit(BroadcastOp, [call.cast(source, types.dtype(target))])


@from_aten(
    "aten::to.dtype",
    "aten::to.dtype_layout",
    "aten::to.device",
    "aten::to.other",
    "aten::_to_copy",
    "aten::type_as",
    "aten::contiguous",
    "aten::clone",
    "aten::alias",
    "aten::detach",
    "aten::detach_",
    "aten::lift_fresh_copy",
    "aten::lift_fresh",
    "aten::dropout",
    "aten::feature_dropout",
    "aten::positive",
    "aten::resolve_conj",
    "aten::resolve_neg",
    "aten::real",
)
def _convert(call: Call) -> Result:
    """Conversions of dtype and layout, and operators that yield their operand."""
    source = call.tensor("input" if call.name.endswith("dropout") else "self")
    if call.arguments.get("train"):
        raise Decline
    target = call.results[0]
    if target is None or (call.name == "aten::real" and types.dtype(source) in types.COMPLEX):
        raise Decline
    if types.dtype(source) != types.dtype(target):
        return call.emit(u.CastOp, [source])
    return call.emit(CopyOp, [source])
