"""Gathering and scattering."""

from __future__ import annotations

from xdsl.ir import SSAValue

from forgec.capture.call import Call, Decline, Result, extent, flag, from_aten, index, ints
from forgec.ir import types
from forgec.ir.ops import index as i
from forgec.ir.ops.binary import AddOp
from forgec.ir.ops.creation import IotaOp
from forgec.ir.ops.shape import ReshapeOp


@from_aten("aten::embedding")
def _embedding(call: Call) -> Result:
    return call.emit(i.EmbeddingOp, [call.tensor("weight"), call.tensor("indices")])


@from_aten("aten::index_select")
def _index_select(call: Call) -> Result:
    source = call.tensor("self")
    return call.emit(
        i.IndexSelectOp, [source, call.tensor("index")], {"dim": index(call.dim("dim", types.rank(source)))}
    )


@from_aten("aten::as_strided")
def _as_strided(call: Call) -> Result:
    """A gather from a row-major operand; ``storage_offset`` counts from the operand's first element."""
    source, start = call.tensor("self"), call["storage_offset"] or 0
    places = list(zip(call["size"], call["stride"], strict=True))
    last = start + sum((size - 1) * stride for size, stride in places)
    count = types.numel(source)
    if not (isinstance(start, int) and isinstance(last, int) and isinstance(count, int)):
        raise Decline
    if types.numel(call.results[0] or source) == 0 or not types.is_contiguous(source):
        raise Decline
    if not 0 <= start <= last < count:
        raise Decline
    position = _line(call, start, 0, 1)
    for dim, (size, stride) in enumerate(places):
        line = _line(call, 0, stride, size)
        shaped = types.tensor("i64", [size, *[1] * (len(places) - dim - 1)])
        position = call.infer(AddOp, [position, call.emit(ReshapeOp, [line], None, shaped)])
    flat = call.emit(ReshapeOp, [source], None, types.tensor(types.dtype(source), [count]))
    position = call.emit(ReshapeOp, [position], None, types.tensor("i64", [types.numel(position)]))
    return call.emit(ReshapeOp, [call.infer(i.IndexSelectOp, [flat, position], {"dim": index(0)})])


def _line(call: Call, start: int, step: int, count: int) -> SSAValue:
    """``count`` positions from ``start``, ``step`` apart."""
    return call.emit(IotaOp, [], {"start": extent(start), "step": extent(step)}, types.tensor("i64", [count]))


@from_aten("aten::gather")
def _gather(call: Call) -> Result:
    source = call.tensor("self")
    return call.emit(i.GatherOp, [source, call.tensor("index")], {"dim": index(call.dim("dim", types.rank(source)))})


def _indices(call: Call) -> tuple[list[SSAValue], list[int]]:
    tensors, dims = [], []
    for dim, value in enumerate(call["indices"]):
        if value is None:
            continue
        if not isinstance(value, SSAValue) or types.dtype(value) not in ("i64", "i32"):
            raise Decline
        tensors.append(value)
        dims.append(dim)
    return tensors, dims


@from_aten("aten::index.Tensor")
def _index(call: Call) -> Result:
    tensors, dims = _indices(call)
    return call.emit(i.IndexOp, [call.tensor("self"), *tensors], {"dims": ints(*dims)})


@from_aten("aten::index_put", "aten::_unsafe_index_put")
def _index_put(call: Call) -> Result:
    tensors, dims = _indices(call)
    properties = {"dims": ints(*dims), **flag("accumulate", call["accumulate"])}
    return call.emit(i.IndexPutOp, [call.tensor("self"), call.tensor("values"), *tensors], properties)


@from_aten("aten::index_copy")
def _index_copy(call: Call) -> Result:
    destination = call.tensor("self")
    properties = {"dim": index(call.dim("dim", types.rank(destination)))}
    return call.emit(i.IndexCopyOp, [destination, call.tensor("index"), call.tensor("source")], properties)


@from_aten("aten::scatter.src")
def _scatter(call: Call) -> Result:
    destination = call.tensor("self")
    properties = {"dim": index(call.dim("dim", types.rank(destination)))}
    return call.emit(i.ScatterOp, [destination, call.tensor("index"), call.tensor("src")], properties)
