"""Norms, rotary embeddings, gated units and activations as models spell them, and things that are nearly those."""

from __future__ import annotations

from collections.abc import Callable
from math import pi, sqrt

import torch
from xdsl.dialects.builtin import IntAttr, StringAttr, UnitAttr
from xdsl.ir import SSAValue

from forgec.ir import types
from forgec.ir.attributes import IntsAttr, ScalarAttr
from forgec.ir.ops import activation, norm, reduction
from forgec.ir.ops import binary as b
from forgec.ir.ops import unary as u
from tests.fragments.author import FragmentAuthor

KEEP = UnitAttr()


# Norms


def normalized(g: FragmentAuthor, x: SSAValue) -> SSAValue:
    """An RMS norm or a layer norm over the last dimension, or nearly so."""
    if g.one_in(6):
        weight = g.weight(types.shape(x)[-1], dtype=types.dtype(x))
        return g.emit(g.pick([norm.RmsNormOp, norm.LayerNormOp]), x, weight, axes=IntAttr(1), eps=ScalarAttr.of(1e-6))
    given = types.dtype(x)
    work = "f32" if given in ("bf16", "f16") and not g.one_in(4) else given
    source = x
    x = g.cast(x, work)
    if g.one_in(2):
        mean = _mean(g, x)
        x = g.emit(b.SubOp, x, mean)
        source = x
    if g.one_in(8) and not any(extent == 0 for extent in types.shape(x)):
        correction = ScalarAttr.of(g.pick([0, 0, 1]) if types.shape(x)[-1] != 1 else 0)
        last = IntsAttr([types.rank(x) - 1])
        variance = g.emit(reduction.VarOp, x, dims=last, correction=correction, keepdim=KEEP)
    else:
        squares = g.pick([lambda: g.n(b.PowOp, x, 2), lambda: g.n(b.MulOp, x, x), lambda: g.emit(b.MulOp, x, source)])
        variance = _mean(g, squares() if types.dtype(source) == work else g.n(b.MulOp, x, x))
    y = _over_root(g, x, variance)
    y = _weighted(g, y, given, types.shape(x)[-1])
    return g.cast(y, given)


def _dims(g: FragmentAuthor, x: SSAValue) -> IntsAttr:
    last = types.rank(x) - 1
    return IntsAttr([last if not g.one_in(12) else last - 1])


def _mean(g: FragmentAuthor, x: SSAValue) -> SSAValue:
    if g.one_in(6):
        total = g.emit(reduction.SumOp, x, dims=_dims(g, x), keepdim=KEEP)
        return g.n(b.DivOp, total, types.shape(x)[-1] if not g.one_in(8) else 3)
    if g.one_in(8):
        found = g.emit(reduction.MeanOp, x, dims=IntsAttr([types.rank(x) - 1]))
        return g.reshape(found, *types.shape(x)[:-1], 1)
    return g.emit(reduction.MeanOp, x, dims=_dims(g, x), keepdim=KEEP)


def _over_root(g: FragmentAuthor, x: SSAValue, variance: SSAValue) -> SSAValue:
    """``x / sqrt(variance + eps)``, with the epsilon in some place."""
    eps = g.pick([1e-6, 1e-5, 1e-12])
    inside = not g.one_in(6)
    if inside:
        variance = g.n(b.AddOp, variance, eps)
    way = g.integer(0, 4)
    if way == 0 or not inside:
        root = g.emit(u.SqrtOp, variance)
        root = root if inside else g.n(b.AddOp, root, eps)
        return g.n(b.DivOp, x, root) if g.one_in(2) else g.n(b.MulOp, x, g.emit(u.ReciprocalOp, root))
    if way == 1:
        return g.n(b.MulOp, x, g.n(b.PowOp, variance, -0.5))
    if way == 2:
        return g.n(b.DivOp, x, g.n(b.PowOp, variance, 0.5))
    root = g.emit(u.RsqrtOp, variance)
    if g.one_in(8):
        root = g.cast(root, g.dtype)
    return g.n(b.MulOp, x, root)


def _weighted(g: FragmentAuthor, y: SSAValue, given: str, features: int) -> SSAValue:
    way = g.integer(0, 7)
    if way < 3:
        y = g.cast(y, given)
    if way in (6, 7):
        return y
    weight = g.weight(features, dtype=g.pick([given, given, types.dtype(y)]))
    if way in (2, 3):
        weight = g.cast(weight, types.dtype(y)) if g.one_in(2) else weight
        weight = g.n(b.AddOp, weight, g.pick([1.0, 1.0, 2.0])) if not g.one_in(6) else g.n(b.RsubOp, weight, 1.0)
    y = g.n(b.MulOp, y, weight)
    if g.one_in(3):
        y = g.n(g.pick([b.AddOp, b.AddOp, b.SubOp]), y, g.weight(features, dtype=types.dtype(y)))
    return y


def norms(g: FragmentAuthor) -> None:
    """A norm, after or before a residual."""
    x = g.x
    if g.one_in(2):
        x = g.n(b.AddOp, x, g.linear(x, g.features))
    y = normalized(g, x)
    g.x = y if g.one_in(2) else g.n(b.AddOp, x, y)


def channels(g: FragmentAuthor) -> None:
    """A frozen batch norm, or a norm over groups of channels, of [B, features, rows]."""
    x = g.transpose(g.x, 0, 2, 1) if not g.one_in(3) else g.reshape(g.x, g.batch, g.features, g.rows)
    scale, bias, mean = (g.reshape(g.weight(g.features), 1, g.features, 1) for _ in range(3))
    if g.one_in(2):
        variance = g.reshape(g.emit(u.AbsOp, g.weight(g.features)), 1, g.features, 1)
        factor = g.n(b.MulOp, scale, g.emit(u.RsqrtOp, g.n(b.AddOp, variance, 1e-5)))
        shift = g.n(b.MulOp, mean if not g.one_in(8) else scale, factor)
        offset = g.emit(g.pick([b.SubOp, b.SubOp, b.SubOp, b.AddOp]), bias, shift)
        y = g.n(b.AddOp, g.n(b.MulOp, x, factor), offset)
    else:
        groups = g.pick([1, 2, g.features])
        parts = g.reshape(x, g.batch, groups, g.features // groups, g.rows)
        if g.one_in(2):
            parts = g.reshape(x, g.batch, groups, g.features // groups * g.rows)
        dims = IntsAttr(range(2, types.rank(parts)))
        centred = g.emit(b.SubOp, parts, g.emit(reduction.MeanOp, parts, dims=dims, keepdim=KEEP))
        variance = g.emit(reduction.MeanOp, g.n(b.MulOp, centred, centred), dims=dims, keepdim=KEEP)
        y = g.n(b.MulOp, centred, g.emit(u.RsqrtOp, g.n(b.AddOp, variance, 1e-5)))
        y = g.n(b.AddOp, g.n(b.MulOp, g.reshape(y, g.batch, g.features, g.rows), scale), bias)
    g.x = g.transpose(y, 0, 2, 1)


# Rotary embeddings


def _table(g: FragmentAuthor, features: int, layout: str) -> tuple[SSAValue, SSAValue]:
    """cos and sin [rows, features]: each angle once, or twice (in halves or side by side)."""
    key = f"{features}/{layout}"
    if key in g.tables and not g.one_in(6):
        return g.tables[key]
    half = features // 2
    positions = g.cast(g.iota(g.rows, g.integer(0, 1)), "f32")
    steps = g.weight(half, dtype="f32") if g.one_in(2) else _frequencies(g, half)
    angles = g.n(b.MulOp, g.reshape(positions, g.rows, 1), g.reshape(steps, 1, half))
    if layout == "halves":
        angles = g.concat(angles, angles, dim=-1)
    elif layout == "pairs":
        angles = g.reshape(g.broadcast(g.reshape(angles, g.rows, half, 1), g.rows, half, 2), g.rows, features)
    cos, sin = g.emit(u.CosOp, angles), g.emit(u.SinOp, angles)
    if g.one_in(8):
        cos = g.n(b.MulOp, cos, 1.25)
    found = (g.cast(cos, g.dtype), g.cast(sin, g.dtype)) if g.one_in(2) else (cos, sin)
    if g.layer is None or g.layer == 0:
        g.tables[key] = found
    return found


def _frequencies(g: FragmentAuthor, half: int) -> SSAValue:
    from forgec.ir.literals import literal
    from forgec.ir.ops.module import ConstantOp

    kind = types.tensor("f32", [half])
    value = literal(10.0 ** -torch.arange(half, dtype=torch.float32), kind)
    return g.insert(ConstantOp.create(properties={"value": value}, result_types=[kind]))


def rotated(g: FragmentAuthor, x: SSAValue) -> SSAValue:
    """[B, heads, rows, width] with some pairs of features rotated, or nearly so."""
    count = g.width if g.one_in(2) else max(2, g.width // 2)
    source, start = x, g.pick([0, 0, g.width - count])
    if count < g.width:
        x = g.slice(source, -1, start, count)
    if g.one_in(3):
        x = g.cast(x, "f32") if types.dtype(x) != "f64" else x
    turn: Callable[..., SSAValue] = g.pick([_halves, _halves, _pairs, _apart])
    y = turn(g, x, count)
    y = g.cast(y, types.dtype(source))
    if count == g.width:
        return y
    before = [g.slice(source, -1, 0, start)] if start else []
    after = [g.slice(source, -1, start + count, g.width - start - count)] if start + count < g.width else []
    return g.concat(*before, y, *after, dim=-1)


def _halves(g: FragmentAuthor, x: SSAValue, count: int) -> SSAValue:
    """``x * cos + rotate_half(x) * sin``."""
    cos, sin = _table(g, count, "halves" if not g.one_in(10) else "pairs")
    first, second = g.slice(x, -1, 0, count // 2), g.slice(x, -1, count // 2, count // 2)
    if g.one_in(10):
        first, second = second, first
    turned = g.concat(g.emit(u.NegOp, second), first, dim=-1)
    if g.one_in(10):
        turned = g.concat(second, g.emit(u.NegOp, first), dim=-1)
    return g.emit(g.pick([b.AddOp, b.AddOp, b.AddOp, b.SubOp]), g.n(b.MulOp, x, cos), g.n(b.MulOp, turned, sin))


def _pairs(g: FragmentAuthor, x: SSAValue, count: int) -> SSAValue:
    """Neighbours rotated together."""
    cos, sin = _table(g, count, "pairs" if not g.one_in(10) else "halves")
    lead = types.shape(x)[:-1]
    if g.one_in(2):
        first, second = (g.slice(x, -1, k, count // 2, step=2) for k in (0, 1))
        first, second = (g.reshape(part, *lead, count // 2, 1) for part in (first, second))
    else:
        split = g.reshape(x, *lead, count // 2, 2)
        first, second = (g.slice(split, -1, k, 1) for k in (0, 1))
    parts = (g.emit(u.NegOp, second), first) if not g.one_in(10) else (second, g.emit(u.NegOp, first))
    turned = g.reshape(g.concat(*parts, dim=-1), *lead, count)
    return g.n(b.AddOp, g.n(b.MulOp, x, cos), g.n(b.MulOp, turned, sin))


def _apart(g: FragmentAuthor, x: SSAValue, count: int) -> SSAValue:
    """Two halves, or what stands in even and in odd places, computed apart."""
    cos, sin = _table(g, count, "once")
    half, lead = count // 2, types.shape(x)[:-1]
    interleaved = g.one_in(2)
    if interleaved:
        first, second = (g.slice(x, -1, k, half, step=2) for k in (0, 1))
    else:
        first, second = (g.slice(x, -1, k * half, half) for k in (0, 1))
    low = g.emit(b.SubOp, g.n(b.MulOp, first, cos), g.n(b.MulOp, second, sin))
    high = g.n(b.AddOp, g.n(b.MulOp, second, cos), g.n(b.MulOp, first, sin if not g.one_in(10) else cos))
    if g.one_in(10):
        low, high = high, low
    if interleaved and g.one_in(2):
        low, high = (g.reshape(part, *lead, half, 1) for part in (low, high))
        return g.reshape(g.concat(low, high, dim=-1), *lead, count)
    return g.concat(low, high, dim=-1)


# Gated units and activations


def activated(g: FragmentAuthor, x: SSAValue) -> SSAValue:
    """An activation function, as one op or as arithmetic, or nearly one."""
    off = g.pick([0.0, 0.0, 0.0, 0.0, 1e-4])
    cube: Callable[[], SSAValue] = g.pick([lambda: g.n(b.PowOp, x, 3), lambda: g.n(b.MulOp, g.n(b.MulOp, x, x), x)])

    def half(factor: SSAValue) -> SSAValue:
        if g.one_in(2):
            return g.n(b.MulOp, g.n(b.MulOp, x, 0.5), factor)
        return g.n(b.MulOp, g.n(b.MulOp, x, factor), 0.5 + off)

    def tanh() -> SSAValue:
        inner = g.n(b.AddOp, x, g.n(b.MulOp, cube(), 0.044715 + off))
        return half(g.n(b.AddOp, g.emit(u.TanhOp, g.n(b.MulOp, inner, sqrt(2 / pi) + off)), 1.0))

    def erf() -> SSAValue:
        scaled = g.n(b.DivOp, x, sqrt(2) + off) if g.one_in(2) else g.n(b.MulOp, x, sqrt(0.5) + off)
        return half(g.n(b.AddOp, g.emit(u.ErfOp, scaled), 1.0))

    def swish() -> SSAValue:
        return g.n(b.MulOp, x, g.emit(u.SigmoidOp, g.n(b.MulOp, x, g.pick([1.702, 1.0, 1.25, -1.0]))))

    def mish() -> SSAValue:
        limits = {"beta": ScalarAttr.of(1.0 + off), "threshold": ScalarAttr.of(20.0)}
        return g.n(b.MulOp, x, g.emit(u.TanhOp, g.emit(activation.SoftplusOp, x, **limits)))

    choices: list[Callable[[], SSAValue]] = [
        tanh,
        erf,
        swish,
        mish,
        lambda: g.n(b.MulOp, x, g.emit(u.SigmoidOp, x)),
        lambda: g.emit(u.SiluOp, x),
        lambda: g.emit(u.ReluOp, x),
        lambda: g.emit(u.SigmoidOp, x),
        lambda: g.emit(u.GeluOp, x, approximate=StringAttr(g.pick(["none", "tanh"]))),
        lambda: g.n(b.MaximumOp, x, 0.0),
        lambda: g.n(b.PowOp, g.emit(u.ReluOp, x), 2),
    ]
    return g.pick(choices)()


def mlp(g: FragmentAuthor) -> None:
    """``x + W · activation(W · x)``."""
    x = normalized(g, g.x) if g.one_in(2) else g.x
    y = g.linear(activated(g, g.linear(x, g.hidden)), g.features)
    if g.one_in(4):
        y = g.n(b.MulOp, y, g.pick([0.5, 2.0, 1.0]))
    g.x = g.n(b.AddOp, g.x, y)


def gated(g: FragmentAuthor) -> None:
    """``x + W · (activation(gate) * up)``."""
    x = normalized(g, g.x) if g.one_in(2) else g.x
    way = g.integer(0, 6)
    if way < 3:
        gate, up = g.linear(x, g.hidden), g.linear(x, g.hidden)
    else:
        both = g.linear(x, 2 * g.hidden)
        if way == 3:
            gate, up = (g.slice(both, -1, k, g.hidden, step=2) for k in (0, 1))
        elif way == 4:
            split = g.reshape(both, *types.shape(both)[:-1], 2, g.hidden)
            gate, up = (g.reshape(g.slice(split, -2, k, 1), *types.shape(both)[:-1], g.hidden) for k in (0, 1))
        else:
            starts = g.pick([(0, g.hidden), (0, g.hidden), (g.hidden, 0), (0, 1), (0, 0)])
            gate, up = (g.slice(both, -1, start, g.hidden) for start in starts)
    if g.one_in(6):
        limit = g.pick([7.0, 1.0])
        gate = g.emit(u.ClampOp, gate, upper=ScalarAttr.of(limit))
        other = limit if not g.one_in(4) else 0.5
        up = g.emit(u.ClampOp, up, lower=ScalarAttr.of(-other), upper=ScalarAttr.of(other))
    if g.one_in(6):
        up = g.n(b.AddOp, up, g.pick([1.0, 0.5]))
    act = activated(g, gate)
    y = g.n(b.MulOp, act, up if not g.one_in(12) else gate)
    g.x = g.n(b.AddOp, g.x, g.linear(y, g.features))


def shared(g: FragmentAuthor) -> None:
    """Linears of one input, some with the same weight or the same bias."""
    first = g.linear(g.x, g.features)
    weight, bias = g.weight(g.features, g.features), g.weight(g.features)
    from forgec.ir.ops.contraction import LinearOp

    parts = [g.emit(LinearOp, g.x, weight, bias), g.emit(LinearOp, g.x, g.weight(g.features, g.features), bias)]
    if g.one_in(2):
        parts.append(g.emit(LinearOp, g.x if g.one_in(2) else first, weight))
    for part in parts:
        first = g.n(g.pick([b.AddOp, b.MulOp, b.SubOp]), first, part)
    g.x = first
