"""Reductions, scans and softmax."""

from __future__ import annotations

from forgec.backends.aten.table import into, lowers
from forgec.backends.plan_builder import PlanBuilder
from forgec.ir import types
from forgec.ir.ops import reduction as r
from forgec.runtime.plan import DType


@lowers(r.SumOp)
def _sum(op: r.SumOp, b: PlanBuilder) -> None:
    kind = DType(types.dtype(op.result))
    into(b, "aten::sum.IntList_out", op.result, [op.input, op.dims.data, op.keepdim is not None], [("dtype", kind)])


@lowers(r.MeanOp)
def _mean(op: r.MeanOp, b: PlanBuilder) -> None:
    into(b, "aten::mean.out", op.result, [op.input, op.dims.data, op.keepdim is not None])


@lowers(r.AmaxOp, r.AminOp)
def _extremum(op: r.AmaxOp | r.AminOp, b: PlanBuilder) -> None:
    callee = "aten::amax.out" if isinstance(op, r.AmaxOp) else "aten::amin.out"
    into(b, callee, op.result, [op.input, op.dims.data, op.keepdim is not None])


@lowers(r.ProdOp)
def _prod(op: r.ProdOp, b: PlanBuilder) -> None:
    dims = op.dims.data
    kind = [("dtype", DType(types.dtype(op.result)))]
    if len(dims) == 1:
        into(b, "aten::prod.int_out", op.result, [op.input, dims[0], op.keepdim is not None], kind)
        return
    from forgec.diagnostics import error
    from forgec.ir.locations import location_of

    if len(dims) != types.rank(op.input) or op.keepdim is not None:
        raise error("FORGE-B002", "a product over some of several dimensions has no operator", location=location_of(op))
    b.call("aten::prod", [op.input], kind, [op.result])


@lowers(r.AnyOp, r.AllOp)
def _logical(op: r.AnyOp | r.AllOp, b: PlanBuilder) -> None:
    callee = "aten::any.dims_out" if isinstance(op, r.AnyOp) else "aten::all.dims_out"
    into(b, callee, op.result, [op.input, op.dims.data, op.keepdim is not None])


@lowers(r.VarOp)
def _var(op: r.VarOp, b: PlanBuilder) -> None:
    keywords = [("correction", op.correction.value), ("keepdim", op.keepdim is not None)]
    into(b, "aten::var.correction_out", op.result, [op.input, op.dims.data], keywords)


@lowers(r.ArgmaxOp, r.ArgminOp)
def _argmax(op: r.ArgmaxOp | r.ArgminOp, b: PlanBuilder) -> None:
    callee = "aten::argmax.out" if isinstance(op, r.ArgmaxOp) else "aten::argmin.out"
    into(b, callee, op.result, [op.input, op.dim.data, op.keepdim is not None])


@lowers(r.CumsumOp)
def _cumsum(op: r.CumsumOp, b: PlanBuilder) -> None:
    into(b, "aten::cumsum.out", op.result, [op.input, op.dim.data], [("dtype", DType(types.dtype(op.result)))])


@lowers(r.SoftmaxOp, r.LogSoftmaxOp)
def _softmax(op: r.SoftmaxOp | r.LogSoftmaxOp, b: PlanBuilder) -> None:
    callee = "aten::_softmax.out" if isinstance(op, r.SoftmaxOp) else "aten::_log_softmax.out"
    into(b, callee, op.result, [op.input, op.dim.data, False], row_major=True)
