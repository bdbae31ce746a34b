"""Attention as models spell it out, and things that are nearly attention."""

from __future__ import annotations

from typing import Any

import torch
from xdsl.dialects.builtin import IntAttr, StringAttr, UnitAttr
from xdsl.ir import Attribute, SSAValue

from forgec.ir import types
from forgec.ir.attributes import ExtentAttr, IntsAttr, ScalarAttr
from forgec.ir.ops import binary as b
from forgec.ir.ops import reduction, shape
from forgec.ir.ops import unary as u
from forgec.ir.ops.aten import AtenOp
from forgec.ir.ops.attention import AttentionOp
from forgec.ir.ops.contraction import MatmulOp
from forgec.ir.ops.index import IndexSelectOp
from tests.fragments import masks
from tests.fragments.author import FragmentAuthor
from tests.fragments.blocks import normalized, rotated


def attention(g: FragmentAuthor) -> None:
    """``x + W_o · attention(W_q · x, W_k · x, W_v · x)``."""
    groups = g.pick([1, 1, g.heads, 2 if g.heads % 2 == 0 else 1])
    source, heads, few = g.x, g.heads, g.heads // groups
    x = normalized(g, source) if g.one_in(2) else source
    with_bias = g.one_in(3)
    q = _heads(g, g.linear(x, g.features, bias=with_bias), heads, g.rows)
    k = _heads(g, g.linear(x, few * g.width, bias=with_bias and not g.one_in(3)), few, g.rows)
    v = _heads(g, g.linear(x, few * g.width, bias=with_bias), few, g.rows)
    if g.one_in(6):
        q, k = normalized(g, q), normalized(g, k)
    if g.width > 2 and g.one_in(2):
        q, k = rotated(g, q), rotated(g, k)
    columns, past = g.rows, 0
    if isinstance(g.rows, int) and isinstance(g.batch, int) and g.batch and g.rows and g.one_in(4):
        columns, past = g.rows + 2, g.integer(0, 2)
        k, v = (_cached(g, value, few, columns, past) for value in (k, v))
    elif g.one_in(5):
        columns, past = g.rows + 2, 2
        k, v = (g.concat(g.given(g.dtype, [g.batch, few, 2, g.width]), value, dim=2) for value in (k, v))
    if groups > 1 and not g.one_in(6):
        same = g.integer(0, 4)
        k = _repeated(g, k, groups, columns, same)
        v = _repeated(g, v, groups, columns, same if not g.one_in(10) else g.integer(0, 4))
    y = (_whole if types.dtype(q) == types.dtype(k) and g.one_in(3) else _spelled)(g, q, k, v, columns, past)
    y = g.transpose(y, 0, 2, 1, 3) if not g.one_in(15) else y
    y = g.reshape(y, g.batch, g.rows, g.features)
    g.x = g.n(b.AddOp, source, g.linear(g.cast(y, g.dtype), g.features))


def _heads(g: FragmentAuthor, value: SSAValue, heads: int, rows: Any) -> SSAValue:
    return g.transpose(g.reshape(value, g.batch, rows, heads, g.width), 0, 2, 1, 3)


def _cached(g: FragmentAuthor, value: SSAValue, heads: int, columns: int, past: int) -> SSAValue:
    """The value, written into a state."""
    kind = types.tensor(g.dtype, [g.batch, heads, columns, g.width])
    held = g.state(f"state{len(g.states)}", kind)
    place = {"dim": IntAttr(2), "start": ExtentAttr(past), "step": ExtentAttr(1)}
    new = g.emit(shape.InsertSliceOp, g.cast(value, g.dtype), held, kind=kind, **place)
    read = g.write(len(g.states) - 1, new)
    return read if g.one_in(2) else new


def _repeated(g: FragmentAuthor, value: SSAValue, groups: int, columns: Any, way: int) -> SSAValue:
    """Each head as often as queries share it; nearly so where all heads are repeated one after the other."""
    batch, heads, width = g.batch, types.shape(value)[1], g.width
    if way == 3:
        places = [h // groups for h in range(heads * groups)]
        return g.emit(IndexSelectOp, value, g.constant(torch.tensor(places)), dim=IntAttr(1))
    if way == 4 and g.one_in(3):
        return g.concat(*[value] * groups, dim=1)
    one = g.reshape(value, batch, heads, 1, columns, width)
    if way == 2:
        many = g.concat(*[one] * groups, dim=2)
    elif way == 4:
        one = g.reshape(value, batch, 1, heads, columns, width)
        many = g.broadcast(one, batch, groups, heads, columns, width)
    else:
        many = g.broadcast(one, batch, heads, groups, columns, width)
    return g.reshape(many, batch, heads * groups, columns, width)


def _whole(g: FragmentAuthor, q: SSAValue, k: SSAValue, v: SSAValue, columns: Any, past: int) -> SSAValue:
    """``scaled_dot_product_attention``, as it is captured."""
    if types.dtype(v) != types.dtype(q):
        v = g.cast(v, types.dtype(q))
    mask: SSAValue | None = None
    flags: dict[str, Attribute] = {}
    way = g.integer(0, 4)
    if way == 1:
        flags["causal"] = UnitAttr()
    elif way == 2:
        mask = masks.kept(g, g.rows, columns, past)
    elif way == 3:
        least = g.pick([-float("inf"), -1e38 if g.dtype != "f16" else -65504.0])
        mask = masks.added(g, masks.kept(g, g.rows, columns, past), types.dtype(q), least)
    elif way == 4:
        mask = masks.numbers(g, g.heads, g.rows, columns)
    if types.dtype(q) == "f64":
        flags["softmax_dtype"] = StringAttr("f64")
    if g.one_in(2):
        flags["scale"] = ScalarAttr.of(g.pick([0.5, 1.0, 0.25]))
    return g.emit(AttentionOp, q, k, v, mask, **flags)


def _spelled(g: FragmentAuthor, q: SSAValue, k: SSAValue, v: SSAValue, columns: Any, past: int) -> SSAValue:
    """Products, scale, cap, mask, sinks and softmax."""
    flat = g.one_in(6) and isinstance(types.shape(k)[1], int) and types.shape(k)[1] == g.heads
    scale = g.pick([0.5, 0.25, g.width**-0.5])
    where = g.integer(0, 5)
    if where in (1, 2):
        q = g.n(b.MulOp, q, scale)
    if where in (2, 3):
        k = g.n(b.DivOp, k, 2.0)
    if g.dtype in ("bf16", "f16") and g.one_in(3):
        q, k = g.cast(q, "f32"), g.cast(k, "f32")
    if types.dtype(q) != types.dtype(k):
        q, k = g.cast(q, "f32"), g.cast(k, "f32")
    if flat:
        q = g.reshape(q, g.batch * g.heads, g.rows, g.width)
        k = g.reshape(k, g.batch * g.heads, columns, g.width)
        scores = g.emit(MatmulOp, q, g.transpose(k, 0, 2, 1))
    elif types.shape(k)[1] == g.heads and g.one_in(8):
        kind = types.tensor(types.dtype(q), [g.batch, g.heads, g.rows, columns])
        text = g.pick(["bhid,bhjd->bhij", "bnqd,bnkd->bnqk"])
        scores = g.insert(AtenOp.of("aten::einsum", [text, (q, k)], [], [kind]))
    else:
        scores = g.emit(MatmulOp, q, g.transpose(k, 0, 1, 3, 2))
    if where in (3, 4):
        scores = g.n(g.pick([b.MulOp, b.DivOp]), scores, scale)
    scores = _modified(g, scores, columns, past, flat)
    weights = _softmax(g, scores, columns, flat)
    weights = g.cast(weights, types.dtype(v)) if not g.one_in(8) else weights
    if types.dtype(weights) != types.dtype(v):
        v = g.cast(v, types.dtype(weights))
    if g.one_in(15):
        weights = g.n(b.MulOp, weights, 0.5)
    if flat:
        v = g.reshape(v, g.batch * g.heads, columns, g.width)
    y = g.emit(MatmulOp, weights, v)
    return g.reshape(y, g.batch, g.heads, g.rows, g.width) if flat else y


def _modified(g: FragmentAuthor, scores: SSAValue, columns: Any, past: int, flat: bool) -> SSAValue:
    """Scores, capped and masked in some order."""
    steps = [g.pick(["", "", "cap"]), g.pick(["mask", "mask", "", "bias"]), g.pick(["", "", "", "mask", "upcast"])]
    if g.one_in(8):
        steps.reverse()
    for step in steps:
        if step == "cap":
            cap = g.pick([30.0, 2.0])
            scores = g.emit(u.TanhOp, g.n(b.DivOp, scores, cap))
            scores = g.n(b.MulOp, scores, cap if not g.one_in(8) else 1.5)
        elif step == "upcast":
            scores = g.cast(scores, g.pick(["f32", "f64"]) if types.dtype(scores) != "f64" else "f64")
        elif step:
            if flat:
                scores = g.reshape(scores, g.batch, g.heads, g.rows, columns)
            if step == "mask":
                scores = masks.masked(g, scores, masks.kept(g, g.rows, columns, past))
            else:
                scores = g.n(b.AddOp, scores, masks.numbers(g, g.heads, g.rows, columns))
            if flat:
                scores = g.reshape(scores, g.batch * g.heads, g.rows, columns)
    return scores


def _softmax(g: FragmentAuthor, scores: SSAValue, columns: Any, flat: bool) -> SSAValue:
    """Weights: of scores as they are, less their maximum, with a column of sinks, in a wider dtype."""
    last = types.rank(scores) - 1
    if g.one_in(4):
        scores = g.cast(scores, "f32") if types.dtype(scores) != "f64" else scores
    with_sinks = not flat and g.one_in(4)
    if with_sinks:
        logits = g.reshape(g.weight(g.heads, dtype=types.dtype(scores)), 1, g.heads, 1, 1)
        scores = g.concat(scores, g.broadcast(logits, g.batch, g.heads, g.rows, 1), dim=-1)
    if columns != 0 and g.one_in(6):
        greatest = g.emit(reduction.AmaxOp, scores, dims=IntsAttr([last]), keepdim=UnitAttr())
        scores = g.emit(b.SubOp, scores, greatest)
    dim = last if not g.one_in(15) else last - 1
    weights = g.emit(reduction.SoftmaxOp, scores, dim=IntAttr(dim))
    return g.slice(weights, -1, 0 if not g.one_in(8) else 1, columns) if with_sinks else weights
