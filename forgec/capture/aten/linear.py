"""Matrix products and convolutions."""

from __future__ import annotations

from forgec.capture.call import Call, Decline, Result, from_aten, index, ints
from forgec.ir import types
from forgec.ir.ops.byte_linear import ByteLinearOp
from forgec.ir.ops.contraction import ConvolutionOp, GroupedMatmulOp, LinearOp, MatmulOp
from forgec.ir.ops.shape import TransposeOp


@from_aten("aten::linear")
def _linear(call: Call) -> Result:
    return call.emit(LinearOp, [call.tensor("input"), call.tensor("weight"), call.optional("bias")])


@from_aten("aten::matmul", "aten::mm", "aten::bmm", "aten::mv", "aten::dot")
def _matmul(call: Call) -> Result:
    names = {"aten::mm": "mat2", "aten::bmm": "mat2", "aten::mv": "vec", "aten::dot": "tensor"}
    return call.emit(MatmulOp, [call.tensor("self"), call.tensor(names.get(call.name, "other"))])


@from_aten("aten::addmm")
def _addmm(call: Call) -> Result:
    """``bias + x @ w`` is a linear whose weight is stored transposed."""
    call.require(beta=1, alpha=1)
    bias, weight = call.tensor("self"), call.tensor("mat2")
    if types.rank(bias) != 1 or types.shape(bias)[0] != types.shape(weight)[1]:
        raise Decline
    (rows, columns), (outer, inner) = types.shape(weight), types.strides(weight)
    turned = types.tensor(types.dtype(weight), (columns, rows), (inner, outer))
    weight = call.emit(TransposeOp, [weight], {"permutation": ints(1, 0)}, turned)
    return call.emit(LinearOp, [call.tensor("mat1"), weight, bias])


@from_aten("aten::_int_mm")
def _int_mm(call: Call) -> Result:
    """Bytes times bytes, whose right factor is a linear's weight, transposed."""
    left, right = call.tensor("self"), call.tensor("mat2")
    if (types.dtype(left), types.dtype(right)) != ("i8", "i8"):
        raise Decline
    (inner, columns), (outer, step) = types.shape(right), types.strides(right)
    turned = types.tensor("i8", (columns, inner), (step, outer))
    return call.emit(ByteLinearOp, [left, call.emit(TransposeOp, [right], {"permutation": ints(1, 0)}, turned)])


@from_aten("aten::_grouped_mm")
def _grouped_mm(call: Call) -> Result:
    """Rows in groups, and a matrix for each group; other forms (groups of columns, stacks) have no op of their own."""
    call.require(bias=None)
    rows, weight, ends = call.tensor("self"), call.tensor("mat2"), call.optional("offs")
    if ends is None or (types.rank(rows), types.rank(weight)) != (2, 3) or call.arguments.get("out_dtype") is not None:
        raise Decline
    return call.emit(GroupedMatmulOp, [rows, weight, ends])


@from_aten("transformers::grouped_mm_fallback")
def _grouped_mm_fallback(call: Call) -> Result:
    """What transformers exports where torch.compile does not take ``aten::_grouped_mm``."""
    return call.emit(GroupedMatmulOp, [call.tensor("input"), call.tensor("weight"), call.tensor("offs")])


@from_aten("aten::conv1d", "aten::conv2d", "aten::conv3d")
def _convolution(call: Call) -> Result:
    spatial = types.rank(call.tensor("weight")) - 2
    if types.rank(call.tensor("input")) != spatial + 2:
        raise Decline

    def each(name: str) -> list[int]:
        values = call[name]
        return list(values) * spatial if len(values) == 1 else list(values)

    properties = {
        "strides": ints(*each("stride")),
        "padding": ints(*each("padding")),
        "dilation": ints(*each("dilation")),
        "groups": index(call.integer("groups")),
    }
    return call.emit(ConvolutionOp, [call.tensor("input"), call.tensor("weight"), call.optional("bias")], properties)
