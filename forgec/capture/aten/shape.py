"""Operators that rearrange elements: ATen's views and what builds on them."""

from __future__ import annotations

from xdsl.ir import SSAValue

from forgec.capture.call import Call, Decline, Result, extent, from_aten, index, ints
from forgec.ir import types
from forgec.ir.ops.shape import BroadcastOp, ConcatOp, CopyOp, InsertSliceOp, ReshapeOp, SliceOp, TransposeOp
from forgec.runtime.symbolic import Extent, SymExpr


@from_aten(
    "aten::view",
    "aten::reshape",
    "aten::_unsafe_view",
    "aten::unsqueeze",
    "aten::squeeze",
    "aten::squeeze.dim",
    "aten::squeeze.dims",
    "aten::flatten.using_ints",
    "aten::unflatten.int",
    "aten::view_as",
    "aten::reshape_as",
    "aten::atleast_1d",
    "aten::atleast_2d",
    "aten::atleast_3d",
)
def _reshape(call: Call) -> Result:
    """Every operator that keeps the row-major order: the result's type says the rest."""
    return call.emit(ReshapeOp, [call.tensor("self")])


@from_aten("aten::ravel")
def _ravel(call: Call) -> Result:
    """``contiguous().view(-1)``: a copy where the operand is not row-major, even if strides could say the result."""
    source = call.tensor("self")
    dense = call.emit(CopyOp, [source], None, types.tensor(types.dtype(source), types.shape(source)))
    return call.emit(ReshapeOp, [dense])


@from_aten("aten::expand", "aten::expand_as", "aten::broadcast_to")
def _expand(call: Call) -> Result:
    return call.emit(BroadcastOp, [call.tensor("self")])


def _permuted(call: Call, order: list[int]) -> Result:
    return call.emit(TransposeOp, [call.tensor("self")], {"permutation": ints(*order)})


@from_aten("aten::transpose.int", "aten::swapaxes", "aten::swapdims")
def _transpose(call: Call) -> Result:
    rank = types.rank(call.tensor("self"))
    names = ("dim0", "dim1") if "dim0" in call.arguments else ("axis0", "axis1")
    first, second = (call.dim(name, rank) for name in names)
    order = list(range(rank))
    if rank:
        order[first], order[second] = order[second], order[first]
    return _permuted(call, order)


@from_aten("aten::t", "aten::numpy_T", "aten::mT", "aten::adjoint", "aten::mH", "aten::matrix_H")
def _t(call: Call) -> Result:
    rank = types.rank(call.tensor("self"))
    whole = call.name in ("aten::t", "aten::numpy_T")
    if call.name not in ("aten::t", "aten::numpy_T", "aten::mT") and types.dtype(call.tensor("self")) in types.COMPLEX:
        raise Decline
    order = list(range(rank))
    if not whole:
        order[-2:] = order[:-3:-1]
    else:
        order.reverse()
    return _permuted(call, order)


@from_aten("aten::permute")
def _permute(call: Call) -> Result:
    rank = types.rank(call.tensor("self"))
    return _permuted(call, [d % max(rank, 1) for d in call["dims"]])


@from_aten("aten::movedim.int", "aten::movedim.intlist", "aten::moveaxis.int", "aten::moveaxis.intlist")
def _movedim(call: Call) -> Result:
    rank = types.rank(call.tensor("self"))
    lists = (value if isinstance(value, list) else [value] for value in (call["source"], call["destination"]))
    source, destination = ([d % max(rank, 1) for d in dims] for dims in lists)
    placed = dict(zip(destination, source, strict=True))
    rest = iter([d for d in range(rank) if d not in source])
    return _permuted(call, [placed[d] if d in placed else next(rest) for d in range(rank)])


@from_aten("aten::broadcast_tensors")
def _broadcast_tensors(call: Call) -> Result:
    pairs = zip(call.tensors("tensors"), call.results, strict=True)
    return [call.emit(BroadcastOp, [value], None, target) for value, target in pairs]


def take_slice(
    call: Call, source: SSAValue, dim: int, start: Extent, count: Extent, step: Extent = 1, result=None
) -> SSAValue:
    """``count`` elements of one dimension; the strides of the result are those of a view of the source."""
    if result is None:
        shape, strides = list(types.shape(source)), list(types.strides(source))
        shape[dim] = count
        strides[dim] = strides[dim] * step
        result = types.tensor(types.dtype(source), shape, strides)
    properties = {"dim": index(dim), "start": extent(start), "step": extent(step)}
    return call.emit(SliceOp, [source], properties, result)


def clamped(call: Call, position: Extent | None, size: Extent, default: Extent) -> Extent:
    """A slice bound as Python reads it: negative counts from the end, outside is cut off. Declines if that stays
    unknown."""
    if position is None:
        return default
    if isinstance(position, int) and isinstance(size, int):
        return min(max(position + size if position < 0 else position, 0), size)
    if _is_end(position, size):
        return size
    return counted_from_start(call, position, size)


def _is_end(position: Extent | None, size: Extent) -> bool:
    return position is None or position == size or (isinstance(position, int) and position >= 2**62)


def counted_from_start(call: Call, position: Extent, size: Extent) -> Extent:
    """A position as one that counts from the start: ``-1`` and ``-s0`` count from the end. Declines if the sign is
    unknown."""
    low, high = call.converter.symbols.bounds_of(position)
    if low is not None and low >= 0:
        return position
    if high is None or high >= 0:
        raise Decline
    return size + position


@from_aten("aten::slice.Tensor")
def _slice(call: Call) -> Result:
    source = call.tensor("self")
    rank = types.rank(source)
    dim = call.dim("dim", rank)
    size = types.shape(source)[dim]
    target = call.results[0]
    if target is None:
        raise Decline
    count = types.shape(target)[dim]
    if count == 0 and isinstance(size, int):
        start = 0
    elif isinstance(call["start"], SymExpr) and call["step"] == 1 and _is_end(call["end"], size):
        start = size - count  # needs not the sign of what the model wrote
    else:
        start = clamped(call, call["start"], size, 0)
    return take_slice(call, source, dim, start, count, call["step"], target)


@from_aten("aten::narrow")
def _narrow(call: Call) -> Result:
    source = call.tensor("self")
    dim = call.dim("dim", types.rank(source))
    start = clamped(call, call["start"], types.shape(source)[dim], 0)
    return take_slice(call, source, dim, start, call["length"], 1, call.results[0])


@from_aten("aten::select.int")
def _select(call: Call) -> Result:
    source = call.tensor("self")
    dim = call.dim("dim", types.rank(source))
    position = call["index"]
    position = counted_from_start(call, position, types.shape(source)[dim])
    return call.emit(ReshapeOp, [take_slice(call, source, dim, position, 1)])


@from_aten(
    "aten::split.Tensor",
    "aten::split.sizes",
    "aten::split_with_sizes",
    "aten::chunk",
    "aten::tensor_split.sections",
    "aten::unsafe_chunk",
    "aten::unsafe_split.Tensor",
)
def _split(call: Call) -> Result:
    source = call.tensor("self")
    dim = call.dim("dim", types.rank(source))
    start: Extent = 0
    parts = []
    for target in call.results:
        if target is None:
            raise Decline
        count = types.shape(target)[dim]
        parts.append(take_slice(call, source, dim, start, count, 1, target))
        start = start + count
    return parts


@from_aten("aten::tensor_split.indices")
def _tensor_split(call: Call) -> Result:
    """Indices need not ascend: each part begins where its own index says."""
    source = call.tensor("self")
    dim = call.dim("dim", types.rank(source))
    size = types.shape(source)[dim]
    parts = []
    for index_, target in zip([0, *call["indices"]], call.results, strict=True):
        if target is None:
            raise Decline
        count = types.shape(target)[dim]
        start = 0 if count == 0 else clamped(call, index_, size, 0)
        parts.append(take_slice(call, source, dim, start, count, 1, target))
    return parts


@from_aten("aten::unbind.int")
def _unbind(call: Call) -> Result:
    source = call.tensor("self")
    dim = call.dim("dim", types.rank(source))
    return [
        call.emit(ReshapeOp, [take_slice(call, source, dim, position, 1)], None, target)
        for position, target in enumerate(call.results)
    ]


@from_aten("aten::cat")
def _cat(call: Call) -> Result:
    values = call.tensors("tensors")
    rank = max(types.rank(v) for v in values)
    values = [v for v in values if types.shape(v) != (0,) or rank == 1]
    return call.emit(ConcatOp, values, {"dim": index(call.dim("dim", rank))})


@from_aten("aten::stack")
def _stack(call: Call) -> Result:
    values = call.tensors("tensors")
    dim = call.dim("dim", types.rank(values[0]) + 1)
    lifted = []
    for value in values:
        shape, strides = list(types.shape(value)), list(types.strides(value))
        shape.insert(dim, 1)
        strides.insert(dim, 1)
        lifted.append(call.emit(ReshapeOp, [value], None, types.tensor(types.dtype(value), shape, strides)))
    return call.emit(ConcatOp, lifted, {"dim": index(dim)})


@from_aten("aten::slice_scatter")
def _slice_scatter(call: Call) -> Result:
    destination, source = call.tensor("self"), call.tensor("src")
    dim = call.dim("dim", types.rank(destination))
    start = clamped(call, call["start"], types.shape(destination)[dim], 0)
    properties = {"dim": index(dim), "start": extent(start), "step": extent(call["step"])}
    return call.emit(InsertSliceOp, [source, destination], properties)


@from_aten("aten::select_scatter")
def _select_scatter(call: Call) -> Result:
    destination, source = call.tensor("self"), call.tensor("src")
    dim = call.dim("dim", types.rank(destination))
    position = call.integer("index")
    shape = list(types.shape(destination))
    position = shape[dim] + position if position < 0 else position
    shape[dim] = 1
    lifted = call.emit(ReshapeOp, [source], None, types.tensor(types.dtype(source), shape))
    properties = {"dim": index(dim), "start": extent(position), "step": extent(1)}
    return call.emit(InsertSliceOp, [lifted, destination], properties)
