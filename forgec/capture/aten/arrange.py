"""Operators that repeat, interleave, turn and order elements."""

from __future__ import annotations

from collections.abc import Sequence

from xdsl.ir import SSAValue

from forgec.capture.aten.shape import take_slice
from forgec.capture.call import Call, Decline, Result, extent, flag, from_aten, index, ints, scalar
from forgec.ir import types
from forgec.ir.layout import broadcast_strides
from forgec.ir.ops import index as i
from forgec.ir.ops import order
from forgec.ir.ops.binary import MulOp
from forgec.ir.ops.creation import FullOp
from forgec.ir.ops.shape import BroadcastOp, ConcatOp, CopyOp, FlipOp, ReshapeOp, TransposeOp
from forgec.ir.ops.unary import SigmoidOp
from forgec.runtime.symbolic import Extent


def reshaped(call: Call, value: SSAValue, shape: Sequence[Extent]) -> SSAValue:
    """The elements in another shape."""
    return call.emit(ReshapeOp, [value], None, types.tensor(types.dtype(value), shape))


def repeated(call: Call, value: SSAValue, shape: Sequence[Extent]) -> Result:
    """The value broadcast to a shape, laid out row-major, in the shape of the call's result."""
    name, strides = types.dtype(value), broadcast_strides(types.shape(value), types.strides(value), shape)
    wide = call.emit(BroadcastOp, [value], None, types.tensor(name, shape, strides))
    return call.emit(ReshapeOp, [call.emit(CopyOp, [wide], None, types.tensor(name, shape))])


@from_aten("aten::repeat", "aten::tile")
def _repeat(call: Call) -> Result:
    """Each dimension gets one before it, along which it is repeated; then each pair is made one."""
    source, counts = call.tensor("self"), list(call["repeats" if call.name == "aten::repeat" else "dims"])
    shape = list(types.shape(source))
    rank = max(len(shape), len(counts))
    shape, counts = [1] * (rank - len(shape)) + shape, [1] * (rank - len(counts)) + counts
    apart = reshaped(call, source, [n for size in shape for n in (1, size)])
    return repeated(call, apart, [n for pair in zip(counts, shape, strict=True) for n in pair])


@from_aten("aten::repeat_interleave.self_int")
def _repeat_interleave(call: Call) -> Result:
    """Without a dimension, of all elements in order."""
    source, count = call.tensor("self"), call["repeats"]
    if call["dim"] is None:
        source, dim = reshaped(call, source, [types.numel(source)]), 0
    else:
        dim = call.dim("dim", types.rank(source))
    shape = list(types.shape(source)) or [1]
    apart = reshaped(call, source, [*shape[: dim + 1], 1, *shape[dim + 1 :]])
    return repeated(call, apart, [*shape[: dim + 1], count, *shape[dim + 1 :]])


@from_aten("aten::roll")
def _roll(call: Call) -> Result:
    """What leaves at the end comes in at the start: two slices, exchanged, for each dimension."""
    source = call.tensor("self")
    shifts, dims = list(call["shifts"]), list(call["dims"])
    value = source if dims else reshaped(call, source, [types.numel(source)])
    rank = types.rank(value)
    for shift, dim in zip(shifts, dims or [0], strict=True):
        size = types.shape(value)[dim % max(rank, 1)] if rank else 0
        if not isinstance(shift, int) or not isinstance(size, int):
            raise Decline
        if size and shift % size:
            parts = [(size - shift % size, shift % size), (0, size - shift % size)]
            slices = [take_slice(call, value, dim % rank, start, count) for start, count in parts]
            value = call.infer(ConcatOp, slices, {"dim": index(dim % rank)})
    if value is source:
        return call.emit(CopyOp, [value])
    return call.emit(ReshapeOp, [value])


@from_aten("aten::flip")
def _flip(call: Call) -> Result:
    source = call.tensor("self")
    return call.emit(FlipOp, [source], {"dims": ints(*(d % max(types.rank(source), 1) for d in call["dims"]))})


@from_aten("aten::fliplr", "aten::flipud")
def _flip_one(call: Call) -> Result:
    return call.emit(FlipOp, [call.tensor("self")], {"dims": ints(1 if call.name == "aten::fliplr" else 0)})


@from_aten("aten::outer", "aten::ger")
def _outer(call: Call) -> Result:
    column = call.tensor("self")
    return call.emit(MulOp, [reshaped(call, column, [*types.shape(column), 1]), call.tensor("vec2")])


def _split_and_turn(call: Call, apart: Sequence[Extent], turned: Sequence[int]) -> Result:
    """The elements in the shape ``apart``, with dimensions exchanged, in the result's shape."""
    target = call.results[0]
    if target is None:
        raise Decline
    value = call.infer(TransposeOp, [reshaped(call, call.tensor("self"), apart)], {"permutation": ints(*turned)})
    return call.emit(CopyOp, [reshaped(call, value, types.shape(target))])


@from_aten("aten::pixel_shuffle")
def _pixel_shuffle(call: Call) -> Result:
    """[*B, C · r², H, W] → [*B, C, H · r, W · r]."""
    *batch, channels, height, width = types.shape(call.tensor("self"))
    n, r = len(batch), call.integer("upscale_factor")
    order_of = [*range(n + 1), n + 3, n + 1, n + 4, n + 2]
    return _split_and_turn(call, [*batch, channels // (r * r), r, r, height, width], order_of)


@from_aten("aten::pixel_unshuffle")
def _pixel_unshuffle(call: Call) -> Result:
    """[*B, C, H · r, W · r] → [*B, C · r², H, W]."""
    *batch, channels, height, width = types.shape(call.tensor("self"))
    n, r = len(batch), call.integer("downscale_factor")
    order_of = [*range(n + 1), n + 2, n + 4, n + 1, n + 3]
    return _split_and_turn(call, [*batch, channels, height // r, r, width // r, r], order_of)


@from_aten("aten::channel_shuffle", "aten::native_channel_shuffle")
def _channel_shuffle(call: Call) -> Result:
    """[B, g · C, *X]: the groups of channels are dealt out one by one."""
    batch, channels, *rest = types.shape(call.tensor("self"))
    groups = call.integer("groups")
    order_of = [0, 2, 1, *range(3, 3 + len(rest))]
    return _split_and_turn(call, [batch, groups, channels // groups, *rest], order_of)


@from_aten("aten::glu")
def _glu(call: Call) -> Result:
    """The first half times the sigmoid of the second."""
    source = call.tensor("self")
    dim = call.dim("dim", types.rank(source))
    half = types.shape(source)[dim] // 2
    value, gate = (take_slice(call, source, dim, start, half) for start in (0, half))
    return call.emit(MulOp, [value, call.emit(SigmoidOp, [gate])])


# Order
# --------------------------------------------------------------------------------------------------------------------


@from_aten("aten::sort", "aten::sort.stable")
def _sort(call: Call) -> Result:
    return _sorted(call, call.results)


@from_aten("aten::argsort", "aten::argsort.stable")
def _argsort(call: Call) -> Result:
    target = call.results[0]
    if target is None:
        raise Decline
    source = call.tensor("self")
    return _sorted(call, [types.tensor(types.dtype(source), types.shape(source), types.strides(target)), target])[1]


def _sorted(call: Call, results: Sequence) -> Sequence[SSAValue]:
    source = call.tensor("self")
    properties = {
        "dim": index(call.dim("dim", types.rank(source))),
        **flag("descending", call["descending"]),
        **flag("stable", call.arguments.get("stable")),
    }
    return call.emit_all(order.SortOp, [source], properties, results)


@from_aten("aten::topk")
def _topk(call: Call) -> Result:
    source = call.tensor("self")
    properties = {
        "k": extent(call["k"]),
        "dim": index(call.dim("dim", types.rank(source))),
        **flag("smallest", not call["largest"]),
        **flag("unsorted", not call["sorted"]),
    }
    return call.emit_all(order.TopkOp, [source], properties)


@from_aten("aten::max.dim")
def _max(call: Call) -> Result:
    return _extreme(call, order.MaxOp)


@from_aten("aten::min.dim")
def _min(call: Call) -> Result:
    return _extreme(call, order.MinOp)


def _extreme(call: Call, cls: type[order.MaxOp | order.MinOp]) -> Result:
    source = call.tensor("self")
    dim = index(call.dim("dim", types.rank(source)))
    return call.emit_all(cls, [source], {"dim": dim, **flag("keepdim", call["keepdim"])})


# Places
# --------------------------------------------------------------------------------------------------------------------


@from_aten("aten::one_hot")
def _one_hot(call: Call) -> Result:
    """Ones scattered into zeros, so that a class that does not exist is an error."""
    source, target = call.tensor("self"), call.results[0]
    if target is None or call.integer("num_classes") < 1:
        raise Decline
    lifted = reshaped(call, source, [*types.shape(source), 1])
    dense = types.tensor("i64", types.shape(target))
    zeros = call.emit(FullOp, [], {"value": scalar(0)}, dense)
    ones = call.emit(FullOp, [], {"value": scalar(1)}, types.tensor("i64", types.shape(lifted)))
    return call.emit(i.ScatterOp, [zeros, lifted, ones], {"dim": index(types.rank(target) - 1)}, dense)


@from_aten("aten::scatter.value")
def _scatter_value(call: Call) -> Result:
    destination, places = call.tensor("self"), call.tensor("index")
    name = types.dtype(destination)
    if name in types.COMPLEX:
        raise Decline
    number = call.number("value")
    value = bool(number) if name == "i1" else float(number) if name in types.FLOATS else int(number)
    values = call.emit(FullOp, [], {"value": scalar(value)}, types.tensor(name, types.shape(places)))
    properties = {"dim": index(call.dim("dim", types.rank(destination)))}
    return call.emit(i.ScatterOp, [destination, places, values], properties)
