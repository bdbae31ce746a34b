"""Reductions, scans and softmax."""

from __future__ import annotations

from forgec.capture.call import Call, Decline, Result, flag, from_aten, index, ints, scalar
from forgec.ir import types
from forgec.ir.ops import reduction as r
from forgec.ir.ops.base import ForgeOp

REDUCTIONS: dict[str, type[ForgeOp]] = {
    "aten::sum": r.SumOp,
    "aten::sum.dim_IntList": r.SumOp,
    "aten::mean": r.MeanOp,
    "aten::mean.dim": r.MeanOp,
    "aten::amax": r.AmaxOp,
    "aten::amin": r.AminOp,
    "aten::max": r.AmaxOp,
    "aten::min": r.AminOp,
    "aten::prod": r.ProdOp,
    "aten::prod.dim_int": r.ProdOp,
    "aten::any": r.AnyOp,
    "aten::any.dim": r.AnyOp,
    "aten::any.dims": r.AnyOp,
    "aten::all": r.AllOp,
    "aten::all.dim": r.AllOp,
    "aten::all.dims": r.AllOp,
}


def _reduction(cls: type[ForgeOp]):
    def row(call: Call) -> Result:
        source = _converted(call)
        dims = call.dims("dim", types.rank(source)) if "dim" in call.arguments else tuple(range(types.rank(source)))
        return call.emit(cls, [source], {"dims": ints(*dims), **flag("keepdim", call.arguments.get("keepdim"))})

    return row


def _converted(call: Call):
    """The operand in the dtype that the ``dtype`` argument asks for."""
    source = call.tensor("self")
    wanted = call.arguments.get("dtype")
    return source if wanted is None else call.cast(source, wanted.name)


for _name, _cls in REDUCTIONS.items():
    from_aten(_name)(_reduction(_cls))


@from_aten("aten::var.correction")
def _var(call: Call) -> Result:
    source = call.tensor("self")
    correction = 1 if call["correction"] is None else call["correction"]
    dims = call.dims("dim", types.rank(source))
    return call.emit(
        r.VarOp, [source], {"dims": ints(*dims), "correction": scalar(correction), **flag("keepdim", call["keepdim"])}
    )


@from_aten("aten::argmax", "aten::argmin")
def _argmax(call: Call) -> Result:
    source = call.tensor("self")
    if call["dim"] is None:
        raise Decline
    cls = r.ArgmaxOp if call.name == "aten::argmax" else r.ArgminOp
    dim = call.dim("dim", types.rank(source))
    return call.emit(cls, [source], {"dim": index(dim), **flag("keepdim", call["keepdim"])})


@from_aten("aten::cumsum")
def _cumsum(call: Call) -> Result:
    source = _converted(call)
    return call.emit(r.CumsumOp, [source], {"dim": index(call.dim("dim", types.rank(source)))})


@from_aten("aten::softmax.int", "aten::_softmax", "aten::log_softmax.int", "aten::_log_softmax")
def _softmax(call: Call) -> Result:
    call.require(half_to_float=False)
    source = _converted(call)
    cls = r.LogSoftmaxOp if "log" in call.name else r.SoftmaxOp
    return call.emit(cls, [source], {"dim": index(call.dim("dim", types.rank(source)))})
