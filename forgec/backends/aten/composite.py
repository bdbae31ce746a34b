"""Composite ops that ATen has whole: normalizations and attention."""

from __future__ import annotations

from typing import Any

from xdsl.ir import Operation

from forgec.backends.aten.table import lowers
from forgec.backends.plan_builder import PlanBuilder
from forgec.ir import types
from forgec.ir.ops import attention, norm


@lowers(norm.LayerNormOp)
def _layer_norm(op: norm.LayerNormOp, b: PlanBuilder) -> None:
    shape = types.shape(op.input)[-op.axes.data :]
    if _applies_parameters_after(op):
        _normalized(op, b, "aten::layer_norm", [op.input, shape, None, None, op.eps.value])
    else:
        b.call("aten::layer_norm", [op.input, shape, op.weight, op.bias, op.eps.value], [], [op.result])


@lowers(norm.RmsNormOp)
def _rms_norm(op: norm.RmsNormOp, b: PlanBuilder) -> None:
    shape, weight = types.shape(op.input)[-op.axes.data :], op.weight
    eps = None if op.eps is None else op.eps.value
    if _applies_parameters_after(op):
        _normalized(op, b, "aten::rms_norm", [op.input, shape, None, eps])
    elif weight is not None and op.weight_offset is not None:
        whole = b.allocate(types.tensor(types.dtype(weight), types.shape(weight)))
        b.launch("aten::add.out", [weight, op.weight_offset.value], [("out", whole)], writes=[whole])
        b.call("aten::rms_norm", [op.input, shape, whole, eps], [], [op.result])
    else:
        b.call("aten::rms_norm", [op.input, shape, weight, eps], [], [op.result])


def _applies_parameters_after(op: norm.LayerNormOp | norm.RmsNormOp) -> bool:
    """True if parameters apply to what has been rounded to a narrow dtype, which ATen's kernels do not."""
    return op.rounding.data == "normalized" and len(op.operands) > 1 and types.dtype(op.input) not in ("f32", "f64")


def _normalized(op: norm.LayerNormOp | norm.RmsNormOp, b: PlanBuilder, callee: str, arguments: list[Any]) -> None:
    """The norm without parameters, then the parameters one by one."""
    kind = types.tensor(types.dtype(op.result), types.shape(op.result))
    (value,) = b.launch(callee, arguments, results=[kind])
    place = b.destination(op.result)
    for name, step in (("weight", "aten::mul.out"), ("bias", "aten::add.out")):
        parameter = getattr(op, name, None)
        if parameter is not None:
            b.launch(step, [value, parameter], [("out", place)], writes=[place])
            value = place


@lowers(norm.GroupNormOp)
def _group_norm(op: norm.GroupNormOp, b: PlanBuilder) -> None:
    b.call("aten::group_norm", [op.input, op.groups.data, op.weight, op.bias, op.eps.value], [], [op.result])


@lowers(attention.AttentionOp)
def _attention(op: attention.AttentionOp, b: PlanBuilder) -> None:
    """torch's SDPA, for the modifiers that it has; others are decomposed before the plan is made."""
    scale = None if op.scale is None else op.scale.value
    grouped = types.shape(op.query)[-3] != types.shape(op.key)[-3]
    keywords = [("scale", scale)] if scale is not None else []
    if grouped:
        keywords.append(("enable_gqa", True))
    arguments = [op.query, op.key, op.value, op.mask, 0.0, op.causal is not None]
    b.call("aten::scaled_dot_product_attention", arguments, keywords, [op.result])


def covers(op: Operation) -> bool:
    """False for modifiers that ATen's operators do not have: of attention, and of norms how they round."""
    if isinstance(op, (norm.LayerNormOp, norm.RmsNormOp)):
        return _rounds_alike(op)
    return not isinstance(op, attention.AttentionOp) or _is_plain(op)


def _rounds_alike(op: norm.LayerNormOp | norm.RmsNormOp) -> bool:
    """True if the lowering rounds where the op does: what is added to a weight, only if the weight is wide enough."""
    name = types.dtype(op.input)
    if isinstance(op, norm.RmsNormOp) and op.weight is not None and op.weight_offset is not None:
        return name in ("f32", "f64") and types.dtype(op.weight) == name
    return name in ("f32", "f64") or op.rounding.data != "scale"


def _is_plain(op: attention.AttentionOp) -> bool:
    """True if torch's SDPA has the modifiers of an attention."""
    plain = (op.sinks, op.query_scale, op.softcap, op.window)
    if any(modifier is not None for modifier in plain):
        return False
    if op.mask is not None and op.causal is not None:
        return False
    return op.mask is None or op.empty_row.data == "zero"
