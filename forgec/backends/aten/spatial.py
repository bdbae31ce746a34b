"""Padding, pooling, resizing and batch normalisation."""

from __future__ import annotations

from forgec.backends.aten.table import into, lowers
from forgec.backends.plan_builder import PlanBuilder
from forgec.ir import types
from forgec.ir.ops import norm
from forgec.ir.ops import spatial as s


@lowers(s.PadOp)
def _pad(op: s.PadOp, b: PlanBuilder) -> None:
    """A constant is filled in, then the input is copied into its window; mirrored edges have operators of their own."""
    if op.value is None:
        count = op.mirrored_dimensions
        name = "reflection" if op.mode.data == "reflect" else "replication"
        into(b, f"aten::{name}_pad{count}d.out", op.result, [op.input, op.padding(count)])
        return
    place = b.destination(op.result)
    strides = types.strides(place.type)
    offset = sum((low * stride for low, stride in zip(op.low.data, strides, strict=True)), start=0)
    window = b.view(place, types.tensor(types.dtype(place.type), types.shape(op.input), strides), offset)
    b.launch("aten::fill_.Scalar", [place, op.value.value], writes=[place])
    b.launch("aten::copy_", [window, op.input], writes=[window])


@lowers(s.MaxPoolOp)
def _max_pool(op: s.MaxPoolOp, b: PlanBuilder) -> None:
    settings = [op.kernel.data, op.strides.data, op.padding.data, op.dilation.data, op.rounds_up]
    b.call(f"aten::max_pool{len(op.kernel.data)}d", [op.input, *settings], [], [op.result])


@lowers(s.AvgPoolOp)
def _avg_pool(op: s.AvgPoolOp, b: PlanBuilder) -> None:
    """The operator of one dimension has no kernel that writes into a given tensor."""
    spatial = len(op.kernel.data)
    if spatial == 1:
        b.call("aten::avg_pool1d", [op.input, *op.arguments], [], [op.result])
    else:
        into(b, f"aten::avg_pool{spatial}d.out", op.result, [op.input, *op.arguments])


@lowers(s.AdaptiveAvgPoolOp)
def _adaptive_avg_pool(op: s.AdaptiveAvgPoolOp, b: PlanBuilder) -> None:
    """As a call: only the functional form takes the mean where one element is left of each channel."""
    sizes = op.sizes.data
    b.call(f"aten::adaptive_avg_pool{len(sizes)}d", [op.input, sizes], [], [op.result])


@lowers(s.ResizeOp)
def _resize(op: s.ResizeOp, b: PlanBuilder) -> None:
    into(b, f"aten::{op.kernel}.out", op.result, [op.input, op.sizes.data, *op.settings])


@lowers(norm.BatchNormOp)
def _batch_norm(op: norm.BatchNormOp, b: PlanBuilder) -> None:
    settings = [False, 0.0, op.eps.value, False]  # not training; momentum; cuDNN
    b.call("aten::batch_norm", [op.input, op.weight, op.bias, op.mean, op.var, *settings], [], [op.result])
