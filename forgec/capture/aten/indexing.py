"""Gathering and scattering."""

from __future__ import annotations

from math import prod

from xdsl.ir import SSAValue

from forgec.capture.aten.formulas import reshaped
from forgec.capture.call import Call, Decline, Result, flag, from_aten, index, ints, scalar
from forgec.ir import types
from forgec.ir.ops import index as i
from forgec.ir.ops.binary import AddOp, SubOp
from forgec.ir.ops.reduction import CumsumOp
from forgec.ir.ops.select import WhereOp
from forgec.ir.ops.shape import BroadcastOp, ReshapeOp
from forgec.ir.ops.unary import ClampOp


@from_aten("aten::embedding")
def _embedding(call: Call) -> Result:
    return call.emit(i.EmbeddingOp, [call.tensor("weight"), call.tensor("indices")])


@from_aten("aten::index_select")
def _index_select(call: Call) -> Result:
    source = call.tensor("self")
    return call.emit(
        i.IndexSelectOp, [source, call.tensor("index")], {"dim": index(call.dim("dim", types.rank(source)))}
    )


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
    given = [value for value in call["indices"] if value is not None]
    if len(given) == 1 and isinstance(given[0], SSAValue) and types.dtype(given[0]) in ("i1", "ui8"):
        return _masked_put(call, given[0], list(call["indices"]).index(given[0]))
    tensors, dims = _indices(call)
    properties = {"dims": ints(*dims), **flag("accumulate", call["accumulate"])}
    return call.emit(i.IndexPutOp, [call.tensor("self"), call.tensor("values"), *tensors], properties)


def _masked_put(call: Call, mask: SSAValue, dim: int) -> Result:
    """``x[:, mask] = values`` where all places of the mask get the same values: a choice, element by element."""
    destination, values = call.tensor("self"), call.tensor("values")
    shape, rank, dtype = types.shape(destination), types.rank(mask), types.dtype(destination)
    trailing = len(shape) - dim - rank
    known = types.shape(values)
    if rank == 0 or types.dtype(values) != dtype or shape[dim : dim + rank] != types.shape(mask):
        raise Decline
    if len(known) > trailing:  # the dimension of the places, of which the values have as many or one
        at = len(known) - trailing - 1
        if known[at] != 1:
            raise Decline
        values = call.emit(ReshapeOp, [values], None, types.tensor(dtype, (*known[:at], *[1] * rank, *known[at + 1 :])))
    if trailing:
        mask = call.emit(
            ReshapeOp, [mask], None, types.tensor(types.dtype(mask), (*types.shape(mask), *[1] * trailing))
        )
    if call["accumulate"]:
        if dtype == "i1":
            raise Decline
        values = call.infer(AddOp, [destination, values])
    return call.emit(WhereOp, [mask, values, destination])


PLACED: dict[str, type[i.PlacedOp]] = {
    "aten::index_copy": i.IndexCopyOp,
    "aten::index_add": i.IndexAddOp,
    "aten::scatter.src": i.ScatterOp,
    "aten::scatter_add": i.ScatterAddOp,
}


def _placed(cls: type[i.PlacedOp]):
    def row(call: Call) -> Result:
        call.require(alpha=1)
        destination = call.tensor("self")
        source = call.tensor("source" if "source" in call.arguments else "src")
        properties = {"dim": index(call.dim("dim", types.rank(destination)))}
        return call.emit(cls, [destination, call.tensor("index"), source], properties)

    return row


for _name, _cls in PLACED.items():
    from_aten(_name)(_placed(_cls))


@from_aten("aten::masked_scatter")
def _masked_scatter(call: Call) -> Result:
    """The elements of ``source``, in order, where the mask is true: the place of each is how many true ones are before
    it. Fewer elements than true ones are an index out of range.
    """
    target, source = call.results[0], call.tensor("source")
    count = types.numel(source)
    if target is None or not isinstance(count, int) or not count:
        raise Decline
    shape = types.shape(target)
    total = prod(shape)
    mask, value = (
        call.emit(BroadcastOp, [call.tensor(name)], None, types.tensor(types.dtype(call.tensor(name)), shape))
        if tuple(types.shape(call.tensor(name))) != tuple(shape)
        else call.tensor(name)
        for name in ("mask", "self")
    )
    flat = call.cast(reshaped(call, mask, [total]), "i64")
    places = call.infer(SubOp, [call.infer(CumsumOp, [flat], {"dim": index(0)})], {"scalar": scalar(1)})
    places = call.infer(ClampOp, [places], {"lower": scalar(0)})
    found = call.infer(i.IndexSelectOp, [reshaped(call, source, [count]), places], {"dim": index(0)})
    return call.emit(WhereOp, [mask, reshaped(call, found, shape), value])
