"""Quantised numbers: the operators of torch.ao (``quantized_decomposed``) and of torchao, by name alone.

Neither library is imported: their operators are in a graph if the model called them. What the arguments ``quant_min``,
``quant_max`` and ``input_dtype`` of dequantisations say about the operand changes no result.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from xdsl.dialects.builtin import StringAttr
from xdsl.ir import Attribute, SSAValue

from forgec.capture.call import Call, Decline, Result, flag, from_aten, index, scalar
from forgec.ir import types
from forgec.ir.ops.creation import FullOp
from forgec.ir.ops.quantization import BOUNDS, STORED, DequantizeOp, QuantizeOp
from forgec.ir.ops.shape import ReshapeOp
from forgec.runtime.symbolic import Extent


def _number(call: Call, name: str) -> SSAValue:
    """A Python number, in the dtype that holds it as it is."""
    value = call.number(name)
    return call.emit(
        FullOp, [], {"value": scalar(value)}, types.tensor("f64" if isinstance(value, float) else "i64", ())
    )


def _shaped(call: Call, value: SSAValue, shape: Sequence[Extent]) -> SSAValue:
    if types.shape(value) == tuple(shape):
        return value
    if types.numel(value) != types.numel(types.tensor("f32", shape)):
        raise Decline
    return call.emit(ReshapeOp, [value], None, types.tensor(types.dtype(value), shape))


def _dequantize(
    call: Call, value: SSAValue, scales: SSAValue, zeros: SSAValue | None, compute: str | None = None
) -> Result:
    """``(value - zeros) · scales`` in the result's dtype; if ``compute`` is None, subtracted in what torch promotes
    value and zeros to.
    """
    if types.dtype(value) not in STORED:
        raise Decline
    if compute is None:
        compute = types.dtype(value) if zeros is None else types.result_dtype([value, zeros])
    return call.emit(DequantizeOp, [value, scales, zeros], {"compute": StringAttr(compute)})


def _quantize(
    call: Call, scales: SSAValue, zeros: SSAValue, *, zeros_first: bool = False, exact: bool = False
) -> Result:
    """``round(input · (1 / scales)) + zeros``, clamped; in float32 at least, unless the dtype is taken ``exact``."""
    value, result = call.tensor("input"), call.results[0]
    if result is None or types.dtype(result) not in BOUNDS:
        raise Decline
    compute = types.dtype(value)
    if compute in ("f16", "bf16") and not exact:
        compute = "f32"
    properties: dict[str, Attribute] = {"compute": StringAttr(compute), **flag("reciprocal", True)}
    properties |= flag("zeros_first", zeros_first)
    names = ("lower", "quant_min"), ("upper", "quant_max")
    for (name, argument), bound in zip(names, BOUNDS[types.dtype(result)], strict=True):
        given = bound if call[argument] is None else call.number(argument)
        if given != int(given):
            raise Decline
        if given != bound:
            properties[name] = index(int(given))
    return call.emit(QuantizeOp, [value, scales, zeros], properties)


@from_aten("quantized_decomposed::dequantize_per_tensor")
def _dequantize_per_tensor(call: Call) -> Result:
    compute = _result_dtype(call)
    return _dequantize(call, call.tensor("input"), _number(call, "scale"), _number(call, "zero_point"), compute)


@from_aten("quantized_decomposed::dequantize_per_tensor.tensor")
def _dequantize_per_tensor_of_tensors(call: Call) -> Result:
    scale, zero = (_shaped(call, call.tensor(name), ()) for name in ("scale", "zero_point"))
    return _dequantize(call, call.tensor("input"), scale, zero, _result_dtype(call))


@from_aten("quantized_decomposed::quantize_per_tensor")
def _quantize_per_tensor(call: Call) -> Result:
    return _quantize(call, _number(call, "scale"), _number(call, "zero_point"))


@from_aten("quantized_decomposed::quantize_per_tensor.tensor")
def _quantize_per_tensor_of_tensors(call: Call) -> Result:
    """The reciprocal is a Python number's: of 64 bits."""
    scale, zero = (_shaped(call, call.tensor(name), ()) for name in ("scale", "zero_point"))
    return _quantize(call, call.cast(scale, "f64"), zero)


def _along(call: Call, name: str) -> SSAValue:
    """Parameters of one axis, in the rank of the input."""
    shape = types.shape(call.tensor("input"))
    axis = call.dim("axis", len(shape))
    blocks = [extent if dim == axis else 1 for dim, extent in enumerate(shape)]
    return _shaped(call, call.tensor(name), blocks)


@from_aten("quantized_decomposed::dequantize_per_channel")
def _dequantize_per_channel(call: Call) -> Result:
    zeros = None if call["zero_points"] is None else _along(call, "zero_points")
    return _dequantize(call, call.tensor("input"), _along(call, "scales"), zeros)


@from_aten("quantized_decomposed::quantize_per_channel")
def _quantize_per_channel(call: Call) -> Result:
    return _quantize(call, _along(call, "scales"), _along(call, "zero_points"))


def _groups(call: Call, name: str, value: SSAValue) -> SSAValue:
    """Parameters of groups along the rows of a matrix."""
    rows, columns = types.shape(value)
    size, parameter = call.integer("group_size"), call.tensor(name)
    if not isinstance(columns, int):
        raise Decline
    size = columns if size > columns and types.shape(call.tensor("scales"))[-1] == 1 else size
    return _shaped(call, parameter, (rows, columns // size))


@from_aten("quantized_decomposed::dequantize_per_channel_group")
def _dequantize_per_channel_group(call: Call) -> Result:
    value = call.tensor("w_int8" if "w_int8" in call.arguments else "input")
    zeros = None if call["zero_points"] is None else _groups(call, "zero_points", value)
    return _dequantize(call, value, _groups(call, "scales", value), zeros)


@from_aten("quantized_decomposed::quantize_per_channel_group")
def _quantize_per_channel_group(call: Call) -> Result:
    value = call.tensor("input")
    scales, zeros = (_groups(call, name, value) for name in ("scales", "zero_points"))
    return _quantize(call, scales, zeros, zeros_first=True, exact=True)


def _tokens(call: Call, name: str) -> SSAValue:
    """Parameters of rows, as they are broadcast."""
    value, parameter = call.tensor("input"), call.tensor(name)
    if types.shape(parameter) != (*types.shape(value)[:-1], 1):
        raise Decline
    return parameter


@from_aten("quantized_decomposed::dequantize_per_token")
def _dequantize_per_token(call: Call) -> Result:
    return _dequantize(call, call.tensor("input"), _tokens(call, "scales"), _tokens(call, "zero_points"))


@from_aten("quantized_decomposed::quantize_per_token")
def _quantize_per_token(call: Call) -> Result:
    return _quantize(call, _tokens(call, "scales"), _tokens(call, "zero_points"), zeros_first=True, exact=True)


def _blocks(call: Call, name: str) -> SSAValue:
    """torchao's parameters, which lie as one for each block of ``block_size``."""
    shape, sizes = types.shape(call.tensor("input")), call["block_size"]
    if len(sizes) != len(shape):
        raise Decline
    return _shaped(call, call.tensor(name), [_count(n, size) for n, size in zip(shape, sizes, strict=True)])


def _count(extent: Extent, size: Any) -> Extent:
    if size == extent:
        return 1
    if size == 1:
        return extent
    if not isinstance(extent, int) or not isinstance(size, int) or size < 1 or extent % size:
        raise Decline
    return extent // size


@from_aten("torchao::dequantize_affine")
def _dequantize_affine(call: Call) -> Result:
    """Zero points are cast to the dtype of the result first, as subtraction does with integers itself."""
    compute = _result_dtype(call)
    zeros = None if call["zero_point"] is None else _blocks(call, "zero_point")
    if zeros is not None and types.dtype(zeros) in types.FLOATS:
        zeros = call.cast(zeros, compute)
    return _dequantize(call, call.tensor("input"), _blocks(call, "scale"), zeros, compute)


@from_aten("torchao::quantize_affine")
def _quantize_affine(call: Call) -> Result:
    return _quantize(call, _blocks(call, "scale"), _blocks(call, "zero_point"), exact=True)


def _result_dtype(call: Call) -> str:
    if call.results[0] is None:
        raise Decline
    return types.dtype(call.results[0])
