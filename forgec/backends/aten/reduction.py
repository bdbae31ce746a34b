"""Reductions, scans and softmax."""

from __future__ import annotations

from forgec.backends.aten.table import into, lowers
from forgec.backends.plan_builder import PlanBuilder
from forgec.ir import types
from forgec.ir.ops import order
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
    """ATen has products over one dimension and over all; over several they follow one another."""
    dims, keep = op.dims.data, op.keepdim is not None
    name = types.dtype(op.result)
    kind = [("dtype", DType(name))]
    if len(dims) == types.rank(op.input) and len(dims) != 1 and not keep:
        b.call("aten::prod", [op.input], kind, [op.result])
        return
    source, shape = b.place(op.input), list(types.shape(op.input))
    for dim in sorted(dims, reverse=True)[:-1]:
        shape[dim : dim + 1] = [1] if keep else []
        step = b.allocate(types.tensor(name, shape))
        b.launch("aten::prod.int_out", [source, dim, keep], [*kind, ("out", step)], writes=[step])
        source = step
    into(b, "aten::prod.int_out", op.result, [source, min(dims), keep], kind)


@lowers(r.AnyOp, r.AllOp)
def _logical(op: r.AnyOp | r.AllOp, b: PlanBuilder) -> None:
    callee = "aten::any.dims_out" if isinstance(op, r.AnyOp) else "aten::all.dims_out"
    into(b, callee, op.result, [op.input, op.dims.data, op.keepdim is not None])


@lowers(r.VarOp, r.StdOp)
def _deviation(op: r.VarOp | r.StdOp, b: PlanBuilder) -> None:
    keywords = [("correction", op.correction.value), ("keepdim", op.keepdim is not None)]
    callee = "aten::var.correction_out" if isinstance(op, r.VarOp) else "aten::std.correction_out"
    into(b, callee, op.result, [op.input, op.dims.data], keywords)


@lowers(r.VectorNormOp)
def _vector_norm(op: r.VectorNormOp, b: PlanBuilder) -> None:
    into(b, "aten::linalg_vector_norm.out", op.result, [op.input, op.ord.value, op.dims.data, op.keepdim is not None])


@lowers(r.LogsumexpOp)
def _logsumexp(op: r.LogsumexpOp, b: PlanBuilder) -> None:
    into(b, "aten::logsumexp.out", op.result, [op.input, op.dims.data, op.keepdim is not None])


@lowers(r.ArgmaxOp, r.ArgminOp)
def _argmax(op: r.ArgmaxOp | r.ArgminOp, b: PlanBuilder) -> None:
    callee = "aten::argmax.out" if isinstance(op, r.ArgmaxOp) else "aten::argmin.out"
    into(b, callee, op.result, [op.input, op.dim.data, op.keepdim is not None])


@lowers(r.CumsumOp, r.CumprodOp)
def _scan(op: r.CumsumOp | r.CumprodOp, b: PlanBuilder) -> None:
    callee = "aten::cumsum.out" if isinstance(op, r.CumsumOp) else "aten::cumprod.out"
    into(b, callee, op.result, [op.input, op.dim.data], [("dtype", DType(types.dtype(op.result)))])


@lowers(r.SoftmaxOp, r.LogSoftmaxOp)
def _softmax(op: r.SoftmaxOp | r.LogSoftmaxOp, b: PlanBuilder) -> None:
    callee = "aten::_softmax.out" if isinstance(op, r.SoftmaxOp) else "aten::_log_softmax.out"
    into(b, callee, op.result, [op.input, op.dim.data, False], row_major=True)


@lowers(order.SortOp)
def _sort(op: order.SortOp, b: PlanBuilder) -> None:
    settings = [("stable", op.stable is not None), ("dim", op.dim.data), ("descending", op.descending is not None)]
    values, indices = b.destination(op.values), b.destination(op.indices)
    outs = [("values", values), ("indices", indices)]
    b.launch("aten::sort.values_stable", [op.input], [*settings, *outs], writes=[values, indices])


@lowers(order.TopkOp)
def _topk(op: order.TopkOp, b: PlanBuilder) -> None:
    values, indices = b.destination(op.values), b.destination(op.indices)
    settings = [op.k.data, op.dim.data, op.smallest is None, op.unsorted is None]
    outs = [("values", values), ("indices", indices)]
    b.launch("aten::topk.values", [op.input, *settings], outs, writes=[values, indices])


@lowers(order.MaxOp, order.MinOp)
def _extreme(op: order.MaxOp | order.MinOp, b: PlanBuilder) -> None:
    name = "max" if isinstance(op, order.MaxOp) else "min"
    values, indices = b.destination(op.values), b.destination(op.indices)
    outs = [(name, values), (f"{name}_{'values' if name == 'max' else 'indices'}", indices)]
    settings = [op.dim.data, op.keepdim is not None]
    b.launch(f"aten::{name}.dim_{name}", [op.input, *settings], outs, writes=[values, indices])
