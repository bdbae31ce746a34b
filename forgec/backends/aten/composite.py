"""Composite ops that ATen has whole (normalizations, attention), or can write without intermediate values."""

from __future__ import annotations

from typing import Any

from xdsl.ir import Operation, SSAValue

from forgec.backends.aten.contraction import groups_alike
from forgec.backends.aten.table import lowers
from forgec.backends.plan_builder import Place, PlanBuilder
from forgec.ir import types
from forgec.ir.ops import attention, composite, norm
from forgec.ir.ops.byte_linear import ByteLinearOp
from forgec.ir.ops.contraction import GroupedMatmulOp, LinearOp


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


@lowers(composite.RopeOp)
def _rope(op: composite.RopeOp, b: PlanBuilder) -> None:
    """``x · cos`` into the result, then the products with sin added to one number of all pairs and to the other: three
    launches, none of which moves features. The features that pass through are copied.
    """
    source, target = b.place(op.input), b.destination(op.result)
    rounds = op.keep_dtype is not None and op.work_dtype != types.dtype(op.result)
    count, first, width = op.rotated, op.first, types.shape(op.input)[-1]
    pairs = op.interleaved is not None
    joined = pairs and op.to_halves is None
    if rounds:
        shape = (*types.shape(op.result)[:-1], count)
        work, turned = b.allocate(types.tensor(op.work_dtype, shape)), 0
    else:
        work, turned = target, first
    cos, sin = b.place(op.cos), b.place(op.sin)
    once = op.once is not None
    if once or op.to_halves is not None:
        whole = [_rows(b, source, first, count, pairs), _rows(b, cos, 0, 1 if once else count, joined, once=once)]
        shown = _rows(b, work, turned, count, joined)
    else:
        whole = [_features(b, source, first, count), cos]
        shown = _features(b, work, turned, count)
    b.launch("aten::mul.out", whole, [("out", shown)], writes=[shown])
    for number in (0, 1):
        shown = _half(b, work, turned, count, joined, number)
        other = _half(b, source, first, count, pairs, 1 - number)
        table = sin if once else _half(b, sin, 0, count, joined, number)
        keywords = [("value", -1)] if number == 0 else []
        b.launch("aten::addcmul_", [shown, other, table], keywords, writes=[shown])
    if rounds:
        rounded = _features(b, target, first, count)
        b.launch("aten::copy_", [rounded, work], writes=[rounded])
    assert isinstance(width, int), "the verifier allows no other"
    for start, kept in ((0, first), (first + count, width - first - count)):
        if kept:
            rest = _features(b, target, start, kept)
            b.launch("aten::copy_", [rest, _features(b, source, start, kept)], writes=[rest])


def _features(b: PlanBuilder, place: Place, start: int, count: int, step: int = 1) -> SSAValue:
    """A register that shows some features of a place."""
    shape, strides = types.shape(place.type), types.strides(place.type)
    kind = types.tensor(types.dtype(place.type), (*shape[:-1], count), (*strides[:-1], strides[-1] * step))
    return b.view(place, kind, start * strides[-1])


def _half(b: PlanBuilder, place: Place, start: int, count: int, interleaved: bool, number: int) -> SSAValue:
    """A register that shows the first (0) or the second (1) numbers of all pairs."""
    half = count // 2
    if interleaved:
        return _features(b, place, start + number, half, 2)
    return _features(b, place, start + number * half, half)


def _rows(b: PlanBuilder, place: Place, start: int, count: int, interleaved: bool, *, once: bool = False) -> SSAValue:
    """A register that shows features as [*B, 2, R / 2]: the first numbers of all pairs, then the second ones. A table
    that has each number ``once`` is shown as [*B, 1, R / 2].
    """
    shape, strides = types.shape(place.type), types.strides(place.type)
    lead, step = strides[:-1], strides[-1]
    half = shape[-1] if once else count // 2
    outer, inner = (step, 2 * step) if interleaved and not once else (half * step, step)
    kind = types.tensor(types.dtype(place.type), (*shape[:-1], 1 if once else 2, half), (*lead, outer, inner))
    return b.view(place, kind, start * step)


def covers(op: Operation) -> bool:
    """False for what ATen's operators do not have: modifiers of attention, how norms round, quantised weights, operands
    that lie oddly.
    """
    if isinstance(op, LinearOp):
        return not op.is_quantized
    if isinstance(op, ByteLinearOp):
        return types.rank(op.input) == 2
    if isinstance(op, GroupedMatmulOp):
        return groups_alike(op)
    if isinstance(op, (norm.LayerNormOp, norm.BatchNormOp)) and len({types.dtype(v) for v in op.operands[1:]}) > 1:
        return False  # ATen wants all parameters in one dtype
    if isinstance(op, (norm.LayerNormOp, norm.RmsNormOp)):
        return _rounds_alike(op)
    return not isinstance(op, attention.AttentionOp) or _is_plain(op)


def _rounds_alike(op: norm.LayerNormOp | norm.RmsNormOp) -> bool:
    """True if the lowering rounds where the op does: what is added to a weight, only if the weight is wide enough. ATen
    has eps inside of the root only.
    """
    name = types.dtype(op.input)
    if isinstance(op, norm.RmsNormOp) and op.eps_form.data != "inside":
        return False
    if isinstance(op, norm.RmsNormOp) and op.weight is not None and op.weight_offset is not None:
        return name in ("f32", "f64") and types.dtype(op.weight) == name
    return name in ("f32", "f64") or op.rounding.data != "scale"


def _is_plain(op: attention.AttentionOp) -> bool:
    """True if torch's SDPA has the modifiers of an attention."""
    plain = (op.sinks, op.query_scale, op.softcap, op.offset, op.window, op.chunk, op.keys, op.prefix, op.replaced)
    if any(modifier is not None for modifier in plain):
        return False
    if op.mask is not None:
        if op.causal is not None or types.rank(op.mask) < 2:
            return False
        if types.dtype(op.mask) not in ("i1", "f32", types.dtype(op.query)):
            return False
        if types.dtype(op.mask) != "i1" and op.softmax_dtype.data != _softmax_dtype_of_sdpa(op):
            return False  # what a sum with a great number leaves of a score depends on the dtype: -10000 in bfloat16
    return op.empty_row.data == "zero" or not op.may_have_empty_rows


def _softmax_dtype_of_sdpa(op: attention.AttentionOp) -> str:
    """In which dtype torch's SDPA adds a mask and takes the softmax."""
    name = types.dtype(op.query)
    return "f32" if name in ("f16", "bf16") else name
