"""Pointwise ops."""

from __future__ import annotations

from forgec.backends.aten.table import into, lowers
from forgec.backends.plan_builder import PlanBuilder
from forgec.ir import types
from forgec.ir.ops import activation, select
from forgec.ir.ops import binary as o
from forgec.ir.ops import unary as u

UNARY = {
    u.NegOp: "neg",
    u.AbsOp: "abs",
    u.SignOp: "sign",
    u.ExpOp: "exp",
    u.Exp2Op: "exp2",
    u.Expm1Op: "expm1",
    u.LogOp: "log",
    u.Log2Op: "log2",
    u.Log10Op: "log10",
    u.Log1pOp: "log1p",
    u.SqrtOp: "sqrt",
    u.RsqrtOp: "rsqrt",
    u.ReciprocalOp: "reciprocal",
    u.SinOp: "sin",
    u.CosOp: "cos",
    u.TanOp: "tan",
    u.AsinOp: "asin",
    u.AcosOp: "acos",
    u.AtanOp: "atan",
    u.SinhOp: "sinh",
    u.CoshOp: "cosh",
    u.TanhOp: "tanh",
    u.ErfOp: "erf",
    u.ErfcOp: "erfc",
    u.SigmoidOp: "sigmoid",
    u.SiluOp: "silu",
    u.FloorOp: "floor",
    u.CeilOp: "ceil",
    u.RoundOp: "round",
    u.TruncOp: "trunc",
    u.LogicalNotOp: "logical_not",
    u.BitwiseNotOp: "bitwise_not",
}

BINARY = {
    o.AddOp: ("add.out", "add.out"),
    o.SubOp: ("sub.out", "sub.out"),
    o.MulOp: ("mul.out", "mul.out"),
    o.DivOp: ("div.out", "div.out"),
    o.FloorDivOp: ("floor_divide.out", "floor_divide.out"),
    o.RemainderOp: ("remainder.Tensor_out", "remainder.Scalar_out"),
    o.FmodOp: ("fmod.Tensor_out", "fmod.Scalar_out"),
    o.PowOp: ("pow.Tensor_Tensor_out", "pow.Tensor_Scalar_out"),
    o.MaximumOp: ("maximum.out", "clamp_min.out"),
    o.MinimumOp: ("minimum.out", "clamp_max.out"),
    o.EqOp: ("eq.Tensor_out", "eq.Scalar_out"),
    o.NeOp: ("ne.Tensor_out", "ne.Scalar_out"),
    o.LtOp: ("lt.Tensor_out", "lt.Scalar_out"),
    o.LeOp: ("le.Tensor_out", "le.Scalar_out"),
    o.GtOp: ("gt.Tensor_out", "gt.Scalar_out"),
    o.GeOp: ("ge.Tensor_out", "ge.Scalar_out"),
    o.BitwiseAndOp: ("bitwise_and.Tensor_out", "bitwise_and.Scalar_out"),
    o.BitwiseOrOp: ("bitwise_or.Tensor_out", "bitwise_or.Scalar_out"),
    o.BitwiseXorOp: ("bitwise_xor.Tensor_out", "bitwise_xor.Scalar_out"),
    o.ShiftLeftOp: ("bitwise_left_shift.Tensor_out", "bitwise_left_shift.Tensor_Scalar_out"),
    o.ShiftRightOp: ("bitwise_right_shift.Tensor_out", "bitwise_right_shift.Tensor_Scalar_out"),
}
"""The ``out=`` overloads for a tensor and for a number as second operand."""


@lowers(*UNARY)
def _unary(op: u.UnaryOp, b: PlanBuilder) -> None:
    into(b, f"aten::{UNARY[type(op)]}.out", op.result, [op.input], reuse=[op.input])


@lowers(*BINARY)
def _binary(op: o.BinaryOp, b: PlanBuilder) -> None:
    tensor, number = BINARY[type(op)]
    if op.scalar is not None:
        into(b, f"aten::{number}", op.result, [op.lhs, op.scalar.value], reuse=[op.lhs])
        return
    assert op.rhs is not None
    into(b, f"aten::{tensor}", op.result, [op.lhs, op.rhs], reuse=[op.lhs, op.rhs])


LOGICAL = {o.LogicalAndOp: "logical_and", o.LogicalOrOp: "logical_or", o.LogicalXorOp: "logical_xor"}


@lowers(*LOGICAL)
def _logical(op: o.BinaryOp, b: PlanBuilder) -> None:
    """With a number, which ATen does not take: the operand's own truth, its opposite, or a constant."""
    if op.scalar is None:
        assert op.rhs is not None
        into(b, f"aten::{LOGICAL[type(op)]}.out", op.result, [op.lhs, op.rhs], reuse=[op.lhs, op.rhs])
        return
    true = bool(op.scalar.value)
    if true == isinstance(op, o.LogicalOrOp) and not isinstance(op, o.LogicalXorOp):
        place = b.destination(op.result)
        b.launch("aten::fill_.Scalar", [place, true], writes=[place])
    else:
        opposite = true and isinstance(op, o.LogicalXorOp)
        into(b, f"aten::{'eq' if opposite else 'ne'}.Scalar_out", op.result, [op.lhs, 0], reuse=[op.lhs])


@lowers(o.RsubOp)
def _rsub(op: o.RsubOp, b: PlanBuilder) -> None:
    if op.scalar is not None:
        b.call("aten::rsub.Scalar", [op.lhs, op.scalar.value], [], [op.result])
        return
    assert op.rhs is not None
    into(b, "aten::sub.out", op.result, [op.rhs, op.lhs], reuse=[op.rhs, op.lhs])


@lowers(u.ReluOp)
def _relu(op: u.ReluOp, b: PlanBuilder) -> None:
    place = b.update(op.result, op.input)
    b.launch("aten::relu_", [place], writes=[place])


@lowers(u.IsNanOp)
def _isnan(op: u.IsNanOp, b: PlanBuilder) -> None:
    into(b, "aten::ne.Tensor_out", op.result, [op.input, op.input])


@lowers(u.GeluOp)
def _gelu(op: u.GeluOp, b: PlanBuilder) -> None:
    into(b, "aten::gelu.out", op.result, [op.input], [("approximate", op.approximate.data)], reuse=[op.input])


ACTIVATIONS = {
    activation.SoftplusOp: "softplus",
    activation.EluOp: "elu",
    activation.LeakyReluOp: "leaky_relu",
    activation.HardswishOp: "hardswish",
    activation.HardsigmoidOp: "hardsigmoid",
    activation.MishOp: "mish",
    activation.LogSigmoidOp: "log_sigmoid",
}


@lowers(*ACTIVATIONS)
def _activation(op: activation.ActivationOp, b: PlanBuilder) -> None:
    callee = ACTIVATIONS[type(op)]
    if callee == "log_sigmoid":  # its out form only calls the functional one
        b.call("aten::log_sigmoid", [op.input], [], [op.result])
        return
    into(b, f"aten::{callee}.out", op.result, [op.input, *op.constants], reuse=[op.input])


@lowers(u.CastOp)
def _cast(op: u.CastOp, b: PlanBuilder) -> None:
    place = b.destination(op.result)
    b.launch("aten::copy_", [place, op.input], writes=[place])


@lowers(u.ClampOp)
def _clamp(op: u.ClampOp, b: PlanBuilder) -> None:
    bounds = [None if bound is None else bound.value for bound in (op.lower, op.upper)]
    into(b, "aten::clamp.out", op.result, [op.input, *bounds], reuse=[op.input])


@lowers(select.WhereOp)
def _where(op: select.WhereOp, b: PlanBuilder) -> None:
    into(b, "aten::where.self_out", op.result, [op.condition, op.then, op.otherwise], reuse=[op.then, op.otherwise])


@lowers(select.MaskedFillOp)
def _masked_fill(op: select.MaskedFillOp, b: PlanBuilder) -> None:
    if types.shape(op.result) == types.shape(op.input):
        place = b.update(op.result, op.input)
    else:
        place = b.destination(op.result)
        b.launch("aten::copy_", [place, op.input], writes=[place])
    b.launch("aten::masked_fill_.Scalar", [place, op.mask, op.value.value], writes=[place])


@lowers(select.TrilOp, select.TriuOp)
def _triangle(op: select.TrilOp | select.TriuOp, b: PlanBuilder) -> None:
    callee = "aten::tril.out" if isinstance(op, select.TrilOp) else "aten::triu.out"
    into(b, callee, op.result, [op.input, op.diagonal.data])
