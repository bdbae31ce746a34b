"""Composite ops that ATen has whole: normalizations and attention."""

from __future__ import annotations

from xdsl.ir import Operation

from forgec.backends.aten.table import lowers
from forgec.backends.plan_builder import PlanBuilder
from forgec.ir import types
from forgec.ir.ops import attention, norm


@lowers(norm.LayerNormOp)
def _layer_norm(op: norm.LayerNormOp, b: PlanBuilder) -> None:
    shape = types.shape(op.input)[-op.axes.data :]
    b.call("aten::layer_norm", [op.input, shape, op.weight, op.bias, op.eps.value], [], [op.result])


@lowers(norm.RmsNormOp)
def _rms_norm(op: norm.RmsNormOp, b: PlanBuilder) -> None:
    shape = types.shape(op.input)[-op.axes.data :]
    eps = None if op.eps is None else op.eps.value
    b.call("aten::rms_norm", [op.input, shape, op.weight, eps], [], [op.result])


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
    """False for attention with modifiers that torch's SDPA does not have."""
    if not isinstance(op, attention.AttentionOp):
        return True
    plain = (op.sinks, op.query_scale, op.softcap, op.offset, op.window, op.chunk, op.keys)
    if any(modifier is not None for modifier in plain):
        return False
    if op.mask is not None and op.causal is not None:
        return False
    return op.empty_row.data == "zero" or not op.may_have_empty_rows
