"""Pointwise operators that are short formulas of others, each as ATen computes it: halves in float32, rounded once."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from xdsl.ir import SSAValue

from forgec.capture.call import Call, Decline, Result, extent, flag, from_aten, index, ints, scalar
from forgec.ir import types
from forgec.ir.ops import binary as b
from forgec.ir.ops import unary as u
from forgec.ir.ops.base import ForgeOp
from forgec.ir.ops.creation import FullOp
from forgec.ir.ops.reduction import SumOp, VectorNormOp
from forgec.ir.ops.select import WhereOp
from forgec.ir.ops.shape import BroadcastOp, CopyOp, ReshapeOp, SliceOp
from forgec.runtime.dtypes import torch_dtype
from forgec.runtime.symbolic import Extent

Value = SSAValue | bool | int | float
HALVES = ("f16", "bf16")
WIDE = ("f32", "f64")


class Formula:
    """Emits steps on the way to a call's result; ``dtype`` is the one that is computed in."""

    def __init__(self, call: Call, *, floats: bool = True) -> None:
        target = call.results[0]
        if target is None:
            raise Decline
        self.call, self.target = call, target
        found = types.dtype(target)
        self.dtype = "f32" if found in HALVES else found
        if floats and self.dtype not in WIDE:
            raise Decline
        if self.dtype in types.COMPLEX or (self.dtype in types.FLOATS and self.dtype not in WIDE):
            raise Decline

    def __getitem__(self, name: str) -> SSAValue:
        """A tensor argument in the dtype that is computed in."""
        return self.call.cast(self.call.tensor(name), self.dtype)

    def number(self, value: Value) -> SSAValue:
        """A tensor of rank 0 of a number."""
        if isinstance(value, SSAValue):
            return value
        value = float(value) if self.dtype in types.FLOATS else int(value)
        return self.call.emit(FullOp, [], {"value": scalar(value)}, types.tensor(self.dtype, ()))

    def rounded(self, value: bool | int | float) -> float:
        """A number as the result's dtype has it."""
        import torch

        return float(torch.tensor(float(value), dtype=torch_dtype(types.dtype(self.target))))

    def __call__(self, cls: type[ForgeOp], *operands: Value) -> SSAValue:
        """An op of values, of which the second may be a number."""
        if len(operands) == 2 and isinstance(operands[0], SSAValue) and not isinstance(operands[1], SSAValue):
            value = float(operands[1]) if types.dtype(operands[0]) in types.FLOATS else operands[1]
            return self.call.infer(cls, [operands[0]], {"scalar": scalar(value)})
        return self.call.infer(cls, [self.number(operand) for operand in operands])

    def where(self, condition: SSAValue, then: Value, other: Value) -> SSAValue:
        return self.call.infer(WhereOp, [condition, self.number(then), self.number(other)])

    def result(self, value: SSAValue) -> SSAValue:
        """The value as the call's result: its dtype, its extents, its strides."""
        if tuple(types.shape(value)) != tuple(types.shape(self.target)):
            broadcast = types.tensor(types.dtype(value), types.shape(self.target))
            value = self.call.emit(BroadcastOp, [value], None, broadcast)
        if types.dtype(value) != types.dtype(self.target):
            return self.call.emit(u.CastOp, [value])
        return value if value.type == self.target else self.call.emit(CopyOp, [value])


def _is_negative(f: Formula, value: SSAValue) -> SSAValue:
    """Where the sign bit is set: -0 is less than 0 by its reciprocal. Of NaN no sign is told."""
    return f(b.LogicalOrOp, f(b.LtOp, value, 0.0), f(b.LtOp, f(u.ReciprocalOp, value), 0.0))


def _both(f: Formula, *conditions: SSAValue) -> SSAValue:
    found = conditions[0]
    for condition in conditions[1:]:
        found = f(b.LogicalAndOp, found, condition)
    return found


@from_aten("aten::lerp.Scalar", "aten::lerp.Tensor")
def _lerp(call: Call) -> Result:
    """From the nearer end: exact at both."""
    f = Formula(call)
    start, end, weight = f["self"], f["end"], call["weight"]
    span = f(b.SubOp, end, start)
    if isinstance(weight, (bool, int, float)):
        if abs(weight) < 0.5:
            return f.result(f(b.AddOp, start, f(b.MulOp, span, weight)))
        return f.result(f(b.SubOp, end, f(b.MulOp, span, 1.0 - weight)))
    weight = f["weight"]
    near = f(b.AddOp, start, f(b.MulOp, span, weight))
    far = f(b.SubOp, end, f(b.MulOp, span, f(b.RsubOp, weight, 1.0)))
    return f.result(f.where(f(b.LtOp, f(u.AbsOp, weight), 0.5), near, far))


@from_aten("aten::addcmul", "aten::addcdiv")
def _add_scaled(call: Call) -> Result:
    """``self + value · t1 · t2``, or ``/ t2``."""
    divided = call.name == "aten::addcdiv"
    f = Formula(call, floats=divided)
    value, first = call.number("value"), f["tensor1"]
    if types.dtype(f.target) not in (*types.FLOATS, *types.COMPLEX):
        if not abs(value) < 2**63:
            return None  # torch refuses it when it runs
        value = int(value)  # torch takes it for a number of the tensors' dtype
    if value != 1:
        first = f(b.MulOp, first, value)
    return f.result(f(b.AddOp, f["self"], f(b.DivOp if divided else b.MulOp, first, f["tensor2"])))


@from_aten("aten::nan_to_num")
def _nan_to_num(call: Call) -> Result:
    source = call.tensor("self")
    dtype = types.dtype(source)
    if dtype not in (*HALVES, *WIDE):
        return call.emit(CopyOp, [source]) if dtype not in (*types.FLOATS, *types.COMPLEX) else None
    f = Formula(call)
    f.dtype = dtype  # nothing is computed
    largest = LARGEST[dtype]
    value = f.where(f(u.IsNanOp, source), call["nan"] or 0.0, source)
    for name, infinite, default in (("posinf", math.inf, largest), ("neginf", -math.inf, -largest)):
        wanted = default if call[name] is None else call.number(name)
        value = f.where(f(b.EqOp, source, infinite), wanted, value)
    return f.result(value)


LARGEST = {
    "f64": (2 - 2.0**-52) * 2.0**1023,
    "f32": (2 - 2.0**-23) * 2.0**127,
    "bf16": (2 - 2.0**-7) * 2.0**127,
    "f16": 65504.0,
}
"""The largest finite number of a dtype."""


@from_aten("aten::fmax", "aten::fmin")
def _ignoring_nan(call: Call) -> Result:
    """Of two of which one is NaN, the other."""
    f = Formula(call, floats=False)
    cls = b.MaximumOp if call.name == "aten::fmax" else b.MinimumOp
    left, right = f["self"], f["other"]
    found = f(cls, left, right)
    if f.dtype in types.FLOATS:
        found = f.where(f(u.IsNanOp, left), right, f.where(f(u.IsNanOp, right), left, found))
    return f.result(found)


@from_aten("aten::copysign.Tensor", "aten::copysign.Scalar")
def _copysign(call: Call) -> Result:
    f = Formula(call)
    size = f(u.AbsOp, f["self"])
    other = call["other"]
    if isinstance(other, (bool, int, float)):
        return f.result(f(u.NegOp, size) if math.copysign(1.0, other) < 0 else size)
    return f.result(f.where(_is_negative(f, f["other"]), f(u.NegOp, size), size))


@from_aten("aten::atan2", "aten::arctan2")
def _atan2(call: Call) -> Result:
    """From the angle in the first quadrant: mirrored for negative x, then for negative y. Two zeros make 0 there, two
    infinities a quarter of π.
    """
    f = Formula(call)
    y, x = f["self"], f["other"]
    rise, run = f(u.AbsOp, y), f(u.AbsOp, x)
    angle = f(u.AtanOp, f(b.DivOp, rise, run))
    angle = f.where(_both(f, f(b.EqOp, rise, 0.0), f(b.EqOp, run, 0.0)), 0.0, angle)
    angle = f.where(_both(f, f(b.EqOp, rise, math.inf), f(b.EqOp, run, math.inf)), math.pi / 4, angle)
    angle = f.where(_is_negative(f, x), f(b.RsubOp, angle, math.pi), angle)
    return f.result(f.where(_is_negative(f, y), f(u.NegOp, angle), angle))


@from_aten("aten::hypot")
def _hypot(call: Call) -> Result:
    """``m · √(1 + (n / m)²)`` of the greater m and the smaller n, so that no square overflows; infinite if one is."""
    f = Formula(call)
    left, right = f(u.AbsOp, f["self"]), f(u.AbsOp, f["other"])
    greater, smaller = f(b.MaximumOp, left, right), f(b.MinimumOp, left, right)
    ratio = f(b.DivOp, smaller, greater)
    length = f(b.MulOp, greater, f(u.SqrtOp, f(b.AddOp, f(b.MulOp, ratio, ratio), 1.0)))
    length = f.where(f(b.EqOp, greater, 0.0), 0.0, length)
    infinite = f(b.LogicalOrOp, f(b.EqOp, left, math.inf), f(b.EqOp, right, math.inf))
    return f.result(f.where(infinite, math.inf, length))


@from_aten("aten::logaddexp")
def _logaddexp(call: Call) -> Result:
    """The greater one and what the other adds; two equal infinities are themselves."""
    f = Formula(call)
    left, right = f["self"], f["other"]
    distance = f(u.NegOp, f(u.AbsOp, f(b.SubOp, left, right)))
    total = f(b.AddOp, f(b.MaximumOp, left, right), f(u.Log1pOp, f(u.ExpOp, distance)))
    equal = _both(f, f(b.EqOp, f(u.AbsOp, left), math.inf), f(b.EqOp, left, right))
    return f.result(f.where(equal, left, total))


@from_aten("aten::xlogy.Tensor", "aten::xlogy.Scalar_Self", "aten::xlogy.Scalar_Other", "aten::special_xlogy")
def _xlogy(call: Call) -> Result:
    """0 where x is, whatever y is but NaN."""
    f = Formula(call)
    x, y = (f[name] if isinstance(call[name], SSAValue) else f.number(call.number(name)) for name in ("self", "other"))
    product = f.where(f(b.EqOp, x, 0.0), 0.0, f(b.MulOp, x, f(u.LogOp, y)))
    return f.result(f.where(f(u.IsNanOp, y), math.nan, product))


@from_aten("aten::hardshrink")
def _hardshrink(call: Call) -> Result:
    f = Formula(call)
    x, limit = f["self"], f.rounded(call.number("lambd"))
    return f.result(f.where(_both(f, f(b.GeOp, x, -limit), f(b.LeOp, x, limit)), 0.0, x))


@from_aten("aten::softshrink")
def _softshrink(call: Call) -> Result:
    f = Formula(call)
    x, limit = f["self"], call.number("lambd")
    inside = f(b.MulOp, x, 0.0)  # NaN stays
    low = f.where(f(b.LtOp, x, -limit), f(b.AddOp, x, limit), inside)
    return f.result(f.where(f(b.GtOp, x, limit), f(b.SubOp, x, limit), low))


@from_aten("aten::threshold")
def _threshold(call: Call) -> Result:
    """NaN stays, as it is not at most the threshold."""
    f = Formula(call, floats=False)
    x = f["self"]
    return f.result(f.where(f(b.LeOp, x, call.number("threshold")), call.number("value"), x))


@from_aten("aten::prelu", "aten::_prelu_kernel")
def _prelu(call: Call) -> Result:
    """The weight of each channel (dimension 1), or one for all."""
    f = Formula(call)
    x, weight = f["self"], f["weight"]
    rank, extents = types.rank(x), types.shape(weight)
    shape: list[Extent]
    if call.name == "aten::prelu" and len(extents) == 1 and rank > 1:
        shape = [1] * rank
        if extents[0] != 1:
            shape[1] = extents[0]
        weight = reshaped(call, weight, shape)
    elif call.name == "aten::prelu" and not rank:
        weight = reshaped(call, weight, [])
    return f.result(f.where(f(b.GtOp, x, 0.0), x, f(b.MulOp, x, weight)))


def reshaped(call: Call, value: SSAValue, shape: Sequence[Extent]) -> SSAValue:
    """The elements in another shape."""
    return call.emit(ReshapeOp, [value], None, types.tensor(types.dtype(value), shape))


@from_aten("aten::frac")
def _frac(call: Call) -> Result:
    f = Formula(call)
    return f.result(f(b.SubOp, f["self"], f(u.TruncOp, f["self"])))


@from_aten("aten::logit", "aten::special_logit")
def _logit(call: Call) -> Result:
    f = Formula(call)
    x, eps = f["self"], call["eps"]
    if eps is not None:
        low = f.rounded(call.number("eps"))
        x = call.infer(u.ClampOp, [x], {"lower": scalar(low), "upper": scalar(f.rounded(1.0 - low))})
    return f.result(f(u.LogOp, f(b.DivOp, x, f(b.RsubOp, x, 1.0))))


@from_aten("aten::heaviside")
def _heaviside(call: Call) -> Result:
    f = Formula(call, floats=False)
    x = f["self"]
    step = call.cast(f(b.GtOp, x, 0), f.dtype)
    return f.result(f.where(f(b.EqOp, x, 0), f["values"], step))


@from_aten("aten::signbit")
def _signbit(call: Call) -> Result:
    """Of NaN the sign is not told apart by comparisons: left to ATen for floats."""
    source = call.tensor("self")
    if types.dtype(source) in (*types.FLOATS, *types.COMPLEX, "i1"):
        raise Decline
    return call.emit(b.LtOp, [source], {"scalar": scalar(0)})


@from_aten("aten::isposinf", "aten::isneginf")
def _is_one_infinity(call: Call) -> Result:
    source = call.tensor("self")
    if types.dtype(source) not in types.FLOATS:
        raise Decline
    return call.emit(b.EqOp, [source], {"scalar": scalar(math.inf if call.name == "aten::isposinf" else -math.inf)})


def _scaled_by(factor: float) -> Callable[[Call], Result]:
    def row(call: Call) -> Result:
        f = Formula(call)
        return f.result(f(b.MulOp, f["self"], factor))

    return row


from_aten("aten::deg2rad")(_scaled_by(math.pi / 180))
from_aten("aten::rad2deg")(_scaled_by(180 / math.pi))


@from_aten("aten::count_nonzero", "aten::count_nonzero.dim_IntList")
def _count_nonzero(call: Call) -> Result:
    source = call.tensor("self")
    if types.dtype(source) in types.COMPLEX:
        raise Decline
    rank = types.rank(source)
    if call.name.endswith("IntList"):
        dims = call.dims("dim", rank)
    else:
        dims = tuple(range(rank)) if call["dim"] is None else (call.dim("dim", rank),)
    differs = call.infer(b.NeOp, [source], {"scalar": scalar(0)})
    return call.emit(SumOp, [differs], {"dims": ints(*dims)})


@from_aten("aten::diff")
def _diff(call: Call) -> Result:
    """Each element less the one before it, ``n`` times."""
    call.require(prepend=None, append=None)
    value, rank = call.tensor("self"), types.rank(call.tensor("self"))
    dim, dtype = call.dim("dim", rank), types.dtype(value)
    if not rank or call.integer("n") < 1 or dtype == "i1":
        raise Decline
    for step in range(call.integer("n")):
        shape = list(types.shape(value))
        extent_before = shape[dim]
        if not isinstance(extent_before, int) or extent_before < 1:  # one that may be 0 has no difference less
            raise Decline
        shape[dim] = extent_before - 1
        kind = types.tensor(dtype, shape)
        parts = [
            call.emit(SliceOp, [value], {"dim": index(dim), "start": extent(start), "step": extent(1)}, kind)
            for start in (1, 0)
        ]
        value = call.emit(b.SubOp, parts) if step == call["n"] - 1 else call.infer(b.SubOp, parts)
    return value


@from_aten("aten::cosine_similarity")
def _cosine_similarity(call: Call) -> Result:
    """The sum of the products of both, each divided by its length, which is at least ``eps``; rounded after each step
    as ATen does it.
    """
    f = Formula(call)
    dtype, eps = types.dtype(f.target), call.number("eps")
    left, right = (call.cast(call.tensor(name), dtype) for name in ("x1", "x2"))
    rank = max(types.rank(left), types.rank(right))
    if not rank:
        raise Decline
    dim = call.dim("dim", rank)
    whole = types.broadcast(types.shape(left), types.shape(right))

    def scaled(value: SSAValue) -> SSAValue:
        if tuple(types.shape(value)) != tuple(whole):
            value = call.emit(BroadcastOp, [value], None, types.tensor(dtype, whole))
        length = call.infer(VectorNormOp, [value], {"dims": ints(dim), "ord": scalar(2.0), **flag("keepdim", True)})
        return f(b.DivOp, value, call.infer(u.ClampOp, [length], {"lower": scalar(float(eps))}))

    return call.emit(SumOp, [f(b.MulOp, scaled(left), scaled(right))], {"dims": ints(dim)})
