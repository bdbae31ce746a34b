"""Reductions, scans and softmax."""

from __future__ import annotations

from forgec.capture.call import Call, Decline, Result, flag, from_aten, index, ints, scalar
from forgec.ir import types
from forgec.ir.ops import reduction as r
from forgec.ir.ops.base import ForgeOp
from forgec.ir.ops.shape import ReshapeOp

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


def _deviation(cls: type[ForgeOp], *, with_mean: bool = False):
    """``correction``, or ``unbiased``: 1 or 0. Some operators give the mean as well."""

    def row(call: Call) -> Result:
        source = call.tensor("self")
        correction = call.arguments.get("correction")
        if correction is None:
            correction = int(call.arguments.get("unbiased", True))
        dims = call.dims("dim", types.rank(source)) if "dim" in call.arguments else tuple(range(types.rank(source)))
        properties = {"dims": ints(*dims), **flag("keepdim", call.arguments.get("keepdim"))}
        deviation = call.emit(cls, [source], {**properties, "correction": scalar(correction)})
        return [deviation, call.emit(r.MeanOp, [source], properties, call.results[1])] if with_mean else deviation

    return row


for _overload in ("", ".dim", ".correction"):
    from_aten(f"aten::var{_overload}")(_deviation(r.VarOp))
    from_aten(f"aten::std{_overload}")(_deviation(r.StdOp))
    from_aten(f"aten::var_mean{_overload}")(_deviation(r.VarOp, with_mean=True))
    from_aten(f"aten::std_mean{_overload}")(_deviation(r.StdOp, with_mean=True))


@from_aten(
    "aten::linalg_vector_norm", "aten::norm.Scalar", "aten::norm.ScalarOpt_dim", "aten::norm.ScalarOpt_dim_dtype"
)
def _vector_norm(call: Call) -> Result:
    source = _converted(call)
    order = call.arguments.get("ord", call.arguments.get("p"))
    dims = call.dims("dim", types.rank(source)) if "dim" in call.arguments else tuple(range(types.rank(source)))
    properties = {"dims": ints(*dims), "ord": scalar(2.0 if order is None else order)}
    return call.emit(r.VectorNormOp, [source], {**properties, **flag("keepdim", call.arguments.get("keepdim"))})


@from_aten("aten::logsumexp", "aten::special_logsumexp")
def _logsumexp(call: Call) -> Result:
    source = call.tensor("self")
    dims = call.dims("dim", types.rank(source))
    return call.emit(r.LogsumexpOp, [source], {"dims": ints(*dims), **flag("keepdim", call["keepdim"])})


def _place(cls: type[ForgeOp]):
    """Without a dimension: the place among all elements in order."""

    def row(call: Call) -> Result:
        source = call.tensor("self")
        if call["dim"] is None:
            if call["keepdim"]:
                raise Decline
            flat = types.tensor(types.dtype(source), [types.numel(source)])
            return call.emit(cls, [call.emit(ReshapeOp, [source], None, flat)], {"dim": index(0)})
        dim = call.dim("dim", types.rank(source))
        return call.emit(cls, [source], {"dim": index(dim), **flag("keepdim", call["keepdim"])})

    return row


from_aten("aten::argmax")(_place(r.ArgmaxOp))
from_aten("aten::argmin")(_place(r.ArgminOp))


def _along(cls: type[ForgeOp]):
    def row(call: Call) -> Result:
        call.require(half_to_float=False)
        source = _converted(call)
        return call.emit(cls, [source], {"dim": index(call.dim("dim", types.rank(source)))})

    return row


from_aten("aten::cumsum")(_along(r.CumsumOp))
from_aten("aten::cumprod")(_along(r.CumprodOp))
from_aten("aten::softmax.int", "aten::_softmax")(_along(r.SoftmaxOp))
from_aten("aten::log_softmax.int", "aten::_log_softmax")(_along(r.LogSoftmaxOp))
