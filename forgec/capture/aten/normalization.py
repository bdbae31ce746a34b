"""Normalizations."""

from __future__ import annotations

from forgec.capture.call import Call, Result, from_aten, index, scalar
from forgec.ir.ops.norm import GroupNormOp, LayerNormOp, RmsNormOp


@from_aten("aten::layer_norm")
def _layer_norm(call: Call) -> Result:
    operands = [call.tensor("input"), call.optional("weight"), call.optional("bias")]
    return call.emit(LayerNormOp, operands, {"eps": scalar(call["eps"]), "axes": index(len(call["normalized_shape"]))})


@from_aten("aten::rms_norm")
def _rms_norm(call: Call) -> Result:
    eps = {} if call["eps"] is None else {"eps": scalar(call["eps"])}
    return call.emit(
        RmsNormOp,
        [call.tensor("input"), call.optional("weight")],
        {**eps, "axes": index(len(call["normalized_shape"]))},
    )


@from_aten("aten::group_norm")
def _group_norm(call: Call) -> Result:
    operands = [call.tensor("input"), call.optional("weight"), call.optional("bias")]
    return call.emit(GroupNormOp, operands, {"eps": scalar(call["eps"]), "groups": index(call.integer("num_groups"))})
