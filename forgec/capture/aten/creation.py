"""Operators that make tensors from nothing."""

from __future__ import annotations

from forgec.capture.aten.elementwise import extent_value
from forgec.capture.call import Call, Decline, Result, extent, from_aten, scalar
from forgec.ir import types
from forgec.ir.ops.creation import FullOp, IotaOp
from forgec.ir.ops.shape import BroadcastOp
from forgec.ir.ops.unary import CastOp
from forgec.runtime.symbolic import SymExpr

FILLED = {
    "aten::zeros": 0,
    "aten::zeros_like": 0,
    "aten::new_zeros": 0,
    "aten::ones": 1,
    "aten::ones_like": 1,
    "aten::new_ones": 1,
    "aten::zero": 0,
}


@from_aten(*FILLED)
def _filled(call: Call) -> Result:
    return _full(call, FILLED[call.name])


@from_aten("aten::full", "aten::full_like", "aten::new_full", "aten::scalar_tensor", "aten::fill.Scalar")
def _full_value(call: Call) -> Result:
    names = {"aten::scalar_tensor": "s", "aten::fill.Scalar": "value"}
    value, target = call[names.get(call.name, "fill_value")], call.results[0]
    if isinstance(value, SymExpr) and target is not None and types.dtype(target) not in ("i1", *types.COMPLEX):
        number = call.cast(extent_value(call, value), types.dtype(target))
        return call.emit(BroadcastOp, [number]) if types.rank(target) else number
    return _full(call, call.number(names.get(call.name, "fill_value")))


def _full(call: Call, value: bool | int | float) -> Result:
    target = call.results[0]
    if target is None:
        raise Decline
    name = types.dtype(target)
    if name == "i1":
        value = bool(value)
    elif name in types.FLOATS:
        value = float(value)
    elif name not in types.COMPLEX:
        value = int(value)
    else:
        raise Decline
    return call.emit(FullOp, [], {"value": scalar(value)})


@from_aten("aten::arange", "aten::arange.start", "aten::arange.start_step")
def _arange(call: Call) -> Result:
    start, step = call.arguments.get("start", 0), call.arguments.get("step", 1)
    target = call.results[0]
    if target is None or any(isinstance(number, float) for number in (start, step)):
        raise Decline
    dtype = types.dtype(target)
    if dtype in ("i64", "i32"):
        return call.emit(IotaOp, [], {"start": extent(start), "step": extent(step)})
    if dtype not in ("f32", "f64") or isinstance(call["end"], float):  # ATen adds in halves
        raise Decline
    numbers = types.tensor("i64", types.shape(target))  # of which a float holds the nearest
    return call.emit(CastOp, [call.emit(IotaOp, [], {"start": extent(start), "step": extent(step)}, numbers)])
