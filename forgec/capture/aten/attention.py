"""Attention that reaches us whole."""

from __future__ import annotations

from xdsl.dialects.builtin import StringAttr

from forgec.capture.call import Call, Decline, Result, flag, from_aten, scalar
from forgec.ir import types
from forgec.ir.ops.attention import AttentionOp


@from_aten("aten::scaled_dot_product_attention")
def _attention(call: Call) -> Result:
    """torch's SDPA; where a mask (boolean, or of -inf) leaves a row without keys, it yields zero."""
    if call["dropout_p"]:
        raise Decline
    query, key, value = call.tensor("query"), call.tensor("key"), call.tensor("value")
    heads = [types.shape(v)[-3] for v in (query, key, value)] if types.rank(query) > 2 else []
    shared = heads[1:] == [1, 1]  # one head of keys and values broadcasts without being asked to
    if not heads or (heads[0] != heads[1] and not shared and not call["enable_gqa"]):
        raise Decline
    mask = call.optional("attn_mask")
    properties = {
        **flag("causal", call["is_causal"]),
        **({} if call["scale"] is None else {"scale": scalar(float(call["scale"]))}),
        "empty_row": StringAttr("zero"),
        "softmax_dtype": StringAttr("f32" if types.dtype(query) != "f64" else "f64"),
    }
    return call.emit(AttentionOp, [query, key, value, mask, None], properties)
