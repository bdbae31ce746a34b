"""Losses of logits: their mean, their sum, or all of them."""

from __future__ import annotations

from xdsl.ir import SSAValue

from forgec.capture.aten.formulas import Formula
from forgec.capture.call import Call, Decline, Result, from_aten, index, ints, scalar
from forgec.ir import types
from forgec.ir.ops import binary as b
from forgec.ir.ops import unary as u
from forgec.ir.ops.activation import LogSigmoidOp
from forgec.ir.ops.creation import FullOp
from forgec.ir.ops.index import GatherOp
from forgec.ir.ops.reduction import LogSoftmaxOp, MeanOp, SumOp
from forgec.ir.ops.select import WhereOp
from forgec.ir.ops.shape import ReshapeOp

NONE, MEAN, SUM = 0, 1, 2
"""ATen's numbers of reductions."""


def _reduced(f: Formula, loss: SSAValue) -> SSAValue:
    """All elements of a loss, their mean, or their sum, as the call asks."""
    reduction = f.call.integer("reduction")
    if reduction != NONE:
        dims = {"dims": ints(*range(types.rank(loss)))}
        loss = f.call.infer(MeanOp, [loss], dims) if reduction == MEAN else f.call.infer(SumOp, [loss], dims)
    return f.result(loss)


@from_aten("aten::binary_cross_entropy_with_logits")
def _cross_entropy_of_logits(call: Call) -> Result:
    """``(1 - t) · x - log_weight · log σ(x)``, where ``log_weight`` is 1, or ``(pos_weight - 1) · t + 1``."""
    f = Formula(call)
    x, target = f["self"], f["target"]
    positive = f(LogSigmoidOp, x)
    if call["pos_weight"] is not None:
        factor = f(b.AddOp, f(b.MulOp, f(b.SubOp, f["pos_weight"], 1.0), target), 1.0)
        positive = f(b.MulOp, factor, positive)
    loss = f(b.SubOp, f(b.MulOp, f(b.RsubOp, target, 1.0), x), positive)
    return _reduced(f, loss if call["weight"] is None else f(b.MulOp, loss, f["weight"]))


@from_aten("aten::cross_entropy_loss")
def _cross_entropy(call: Call) -> Result:
    """The negative logarithm of the softmax at the class of each row, 0 at rows of ``ignore_index``; the mean is that
    of the other rows. Classes lie along dimension 1, or 0 of a single row. With ``label_smoothing`` s it is
    ``(1 - s)`` of that and ``s`` of the mean over all classes.
    """
    logits, target = call.tensor("self"), call.tensor("target")
    smoothing = float(call.number("label_smoothing"))
    if call["weight"] is not None or types.dtype(target) != "i64" or types.rank(logits) != types.rank(target) + 1:
        raise Decline  # probabilities of classes, or weights of theirs
    f = Formula(call)
    dim = 1 if types.rank(logits) > 1 else 0
    scores = f(u.NegOp, call.infer(LogSoftmaxOp, [f["self"]], {"dim": index(dim)}))
    ignored = call.infer(b.EqOp, [target], {"scalar": scalar(call.integer("ignore_index"))})
    zero = call.emit(FullOp, [], {"value": scalar(0)}, types.tensor("i64", ()))
    chosen = call.infer(WhereOp, [ignored, zero, target])
    shape = list(types.shape(target))
    column = call.emit(ReshapeOp, [chosen], None, types.tensor("i64", [*shape[:dim], 1, *shape[dim:]]))
    found = call.infer(GatherOp, [scores, column], {"dim": index(dim)})
    loss = call.emit(ReshapeOp, [found], None, types.tensor(f.dtype, shape))
    if smoothing:
        classes = call.infer(MeanOp, [scores], {"dims": ints(dim)})
        loss = f(b.AddOp, f(b.MulOp, loss, 1.0 - smoothing), f(b.MulOp, classes, smoothing))
    loss = f.where(ignored, 0.0, loss)
    if call.integer("reduction") != MEAN:
        return _reduced(f, loss)
    every = ints(*range(len(shape)))
    counted = call.infer(SumOp, [call.cast(call.infer(u.LogicalNotOp, [ignored]), f.dtype)], {"dims": every})
    return f.result(f(b.DivOp, call.infer(SumOp, [loss], {"dims": every}), counted))
