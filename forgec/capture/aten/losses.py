"""Losses of logits: their mean, their sum, or all of them."""

from __future__ import annotations

from math import prod

from xdsl.ir import SSAValue

from forgec.capture.aten.formulas import Formula, reshaped
from forgec.capture.call import Call, Decline, Result, from_aten, index, ints, scalar
from forgec.ir import types
from forgec.ir.ops import binary as b
from forgec.ir.ops import unary as u
from forgec.ir.ops.activation import LogSigmoidOp
from forgec.ir.ops.creation import FullOp
from forgec.ir.ops.index import GatherOp, IndexSelectOp
from forgec.ir.ops.reduction import LogSoftmaxOp, MeanOp, SumOp
from forgec.ir.ops.select import WhereOp

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


@from_aten("aten::kl_div")
def _divergence(call: Call) -> Result:
    """``t · (log t - x)``, 0 where t is; with ``log_target`` t is given by its logarithm."""
    f = Formula(call)
    x, target = f["self"], f["target"]
    if call["log_target"]:
        return _reduced(f, f(b.MulOp, f(u.ExpOp, target), f(b.SubOp, target, x)))
    entropy = f.where(f(b.EqOp, target, 0.0), 0.0, f(b.MulOp, target, f(u.LogOp, target)))
    return _reduced(f, f(b.SubOp, entropy, f(b.MulOp, target, x)))


@from_aten("aten::cross_entropy_loss")
def _cross_entropy(call: Call) -> Result:
    """``nll_loss`` of the logarithm of the softmax, or the sum over the classes of what it is times the probabilities
    that are given. With ``label_smoothing`` s it is ``(1 - s)`` of that and ``s`` of the mean over all classes.
    """
    logits, smoothing = call.tensor("self"), float(call.number("label_smoothing"))
    if smoothing and call["weight"] is not None:
        raise Decline
    f = Formula(call)
    dim = 1 if types.rank(logits) > 1 else 0
    scores = f(u.NegOp, call.infer(LogSoftmaxOp, [f["self"]], {"dim": index(dim)}))
    target = call.tensor("target")
    if types.dtype(target) not in types.FLOATS:
        return _of_classes(f, scores, dim, smoothing)
    if call["weight"] is not None or tuple(types.shape(target)) != tuple(types.shape(logits)):
        raise Decline
    loss = call.infer(SumOp, [f(b.MulOp, scores, f["target"])], {"dims": ints(dim)})
    if smoothing:
        classes = call.infer(MeanOp, [scores], {"dims": ints(dim)})
        loss = f(b.AddOp, f(b.MulOp, loss, 1.0 - smoothing), f(b.MulOp, classes, smoothing))
    return _reduced(f, loss)


@from_aten("aten::nll_loss_nd")
def _score_of_classes(call: Call) -> Result:
    f = Formula(call)
    return _of_classes(f, f(u.NegOp, f["self"]), 1 if types.rank(call.tensor("self")) > 1 else 0, 0.0)


def _of_classes(f: Formula, scores: SSAValue, dim: int, smoothing: float) -> SSAValue:
    """The score of each row's class, 0 at rows of ``ignore_index``; the mean is that of the other rows, by the weights
    of their classes. Classes lie along dimension 1, or 0 of a single row.
    """
    call = f.call
    target = call.tensor("target")
    if types.dtype(target) != "i64" or types.rank(scores) != types.rank(target) + 1:
        raise Decline
    ignored = call.infer(b.EqOp, [target], {"scalar": scalar(call.integer("ignore_index"))})
    zero = call.emit(FullOp, [], {"value": scalar(0)}, types.tensor("i64", ()))
    chosen = call.infer(WhereOp, [ignored, zero, target])
    shape = list(types.shape(target))
    column = reshaped(call, chosen, [*shape[:dim], 1, *shape[dim:]])
    loss = reshaped(call, call.infer(GatherOp, [scores, column], {"dim": index(dim)}), shape)
    if smoothing:
        classes = call.infer(MeanOp, [scores], {"dims": ints(dim)})
        loss = f(b.AddOp, f(b.MulOp, loss, 1.0 - smoothing), f(b.MulOp, classes, smoothing))
    weight = call.cast(call.infer(u.LogicalNotOp, [ignored]), f.dtype)
    if call["weight"] is not None:
        of_classes = call.infer(IndexSelectOp, [f["weight"], reshaped(call, chosen, [prod(shape)])], {"dim": index(0)})
        of_rows = reshaped(call, of_classes, shape)
        loss, weight = f(b.MulOp, loss, of_rows), f(b.MulOp, weight, of_rows)
    loss = f.where(ignored, 0.0, loss)
    if call.integer("reduction") != MEAN:
        return _reduced(f, loss)
    every = {"dims": ints(*range(len(shape)))}
    return f.result(f(b.DivOp, call.infer(SumOp, [loss], every), call.infer(SumOp, [weight], every)))
