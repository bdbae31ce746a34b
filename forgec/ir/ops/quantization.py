"""Quantised numbers: integers (or 8-bit floats) that stand for real numbers through scales and zero points.

``dequantize(q) = (q - zero) · scale``, ``quantize(x) = clamp(round(x / scale) + zero)``. Scales and zero points come in
blocks: they have the rank of the quantised tensor, and each extent divides the tensor's; the element at i belongs to
the block ``i[d] // (shape[d] // blocks[d])`` along each dimension d. So ``[N, 1]`` for a tensor [N, K] is one number
for each row, ``[N, K / 32]`` one for each group of 32 along a row, ``[N / 128, K / 128]`` one for each tile. A number
of rank 0 is for the whole tensor; in promotion it yields to tensors, as in torch.

A tensor with ``packing`` has two 4-bit numbers in each byte, along its last dimension: ``u4`` from 0 to 15, ``s4`` from
-8 to 7 (two's complement). In each ``run`` of bytes, the numbers in the lower halves of all bytes come before those in
the upper halves (the other way round with ``high_first``): a run of 1 interleaves them. A packed tensor of ``i32`` has
eight numbers in each word, the first in the lowest bits: a run of 1 in the bytes of a little-endian machine.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from xdsl.builder import Builder
from xdsl.dialects.builtin import AnyTensorTypeConstr, DenseIntOrFPElementsAttr, IntAttr, StringAttr, UnitAttr
from xdsl.ir import SSAValue
from xdsl.irdl import (
    AttrSizedOperandSegments,
    irdl_op_definition,
    operand_def,
    opt_operand_def,
    opt_prop_def,
    prop_def,
    result_def,
)
from xdsl.utils.exceptions import VerifyException

from forgec.ir import types
from forgec.ir.attributes import ScalarAttr
from forgec.ir.layout import reshape_strides
from forgec.ir.ops.base import ForgeOp, TensorSpec, check_float, producer
from forgec.ir.ops.binary import AddOp, BinaryOp, BitwiseAndOp, DivOp, MulOp, ShiftLeftOp, ShiftRightOp, SubOp
from forgec.ir.ops.creation import FullOp
from forgec.ir.ops.decomposition import Emitter, Number
from forgec.ir.ops.format import KeywordFormatOp
from forgec.ir.ops.module import ConstantOp
from forgec.ir.ops.shape import ConcatOp, ReshapeOp
from forgec.ir.ops.unary import CastOp, ClampOp, ReciprocalOp, RoundOp
from forgec.runtime.symbolic import Extent

if TYPE_CHECKING:
    from forgec.ir.evaluator import Evaluator

BYTES = ("i8", "ui8")
FLOAT8 = ("f8e4m3fn", "f8e5m2")
STORED = (*BYTES, "i16", "i32", *FLOAT8)
"""Dtypes of quantised numbers; i16 and i32 are for ONNX, which stores biases so."""
SHORT_FLOATS = ("bf16",)
"""Floats that a weight may be stored in beside activations of float32: numbers without scales."""
BOUNDS = {"i8": (-128, 127), "ui8": (0, 255), "i16": (-(2**15), 2**15 - 1), "i32": (-(2**31), 2**31 - 1)}
PACKINGS = {"u4": (0, 15), "s4": (-8, 7)}
WORD = "i32"
"""The dtype whose elements hold eight numbers of 4 bits."""


def numbers_in(dtype: str) -> int:
    """How many numbers of 4 bits an element holds."""
    return 2 * types.ITEM_BYTES[dtype]


class PackedOp(ForgeOp):
    """What says how quantised numbers are stored, and in which dtype they are taken."""

    compute = opt_prop_def(StringAttr)
    packing = opt_prop_def(StringAttr)
    high_first = opt_prop_def(UnitAttr)
    run = prop_def(IntAttr, default_value=IntAttr(1))
    zeros_last = opt_prop_def(UnitAttr)

    def unpacked_shape(self, quantized: SSAValue) -> tuple[Extent, ...]:
        """The shape of the numbers in a tensor; raises VerifyException for a packing that it cannot have."""
        shape, name = types.shape(quantized), types.dtype(quantized)
        if name not in (*STORED, *SHORT_FLOATS):
            known = ", ".join((*STORED, *SHORT_FLOATS))
            raise VerifyException(f"{self.name} takes quantised numbers of one of {known}, found {name}")
        if self.packing is None:
            if self.high_first is not None or self.run.data != 1:
                raise VerifyException("high_first and run say how numbers are packed, there is no packing")
            return shape
        if self.packing.data not in PACKINGS:
            raise VerifyException(f"packing must be one of {', '.join(PACKINGS)}, found {self.packing.data!r}")
        if not shape or name not in (*BYTES, WORD):
            raise VerifyException(f"4-bit numbers are packed along the last dimension of {', '.join((*BYTES, WORD))}")
        if name == WORD and (self.high_first is not None or self.run.data != 1):
            raise VerifyException("high_first and run say how numbers lie in bytes, not in words")
        if self.run.data < 1 or not isinstance(shape[-1], int) or shape[-1] % self.run.data:
            raise VerifyException(f"a row of {shape[-1]} bytes does not divide into runs of {self.run.data}")
        return (*shape[:-1], numbers_in(name) * shape[-1])

    def product_dtype(self, quantized: SSAValue, scales: SSAValue | None, zeros: SSAValue | None) -> str:
        """The dtype in which numbers are scaled; raises VerifyException for parameters that do not fit."""
        shape = self.unpacked_shape(quantized)
        compute = None if self.compute is None else self.compute.data
        if compute not in types.ELEMENT_TYPES or compute in ("i1", *types.COMPLEX):
            raise VerifyException(f"{self.name} takes the dtype to compute in, found {compute}")
        wide = types.tensor(compute, shape)
        for name, value in (("scales", scales), ("zeros", zeros)):
            if value is not None:
                check_blocks(name, value, shape)
        if self.zeros_last is not None and (zeros is None or scales is None):
            raise VerifyException("zeros_last says that zeros are subtracted after scaling: both have to be there")
        if self.zeros_last is None and zeros is not None and types.result_dtype([wide, zeros]) != compute:
            raise VerifyException(f"zeros of {types.dtype(zeros)} cannot be subtracted in {compute}")
        if scales is None:
            return compute
        product = types.result_dtype([wide, scales])
        if product not in types.FLOATS:
            raise VerifyException(f"{compute} and scales of {types.dtype(scales)} are multiplied in {product}")
        last = None if self.zeros_last is None else zeros
        if last is not None and types.result_dtype([types.tensor(product, shape), last]) != product:
            raise VerifyException(f"zeros of {types.dtype(last)} cannot be subtracted in {product}")
        return product


def check_blocks(name: str, value: SSAValue, shape: Sequence[Extent]) -> None:
    """Raises VerifyException unless a parameter has one number for each block of a tensor of this shape."""
    blocks = types.shape(value)
    if not blocks:
        return
    pairs = zip(shape, blocks, strict=False)
    fits = all(b in (1, n) or (isinstance(n, int) and isinstance(b, int) and b > 0 and n % b == 0) for n, b in pairs)
    if len(blocks) != len(shape) or not fits:
        found = f"{list(map(str, blocks))} in {list(map(str, shape))}"
        raise VerifyException(f"{name} need one number for each block: {found}")


def dequantized(op: PackedOp, ev: Evaluator, quantized: Any, scales: Any, zeros: Any, dtype: Any) -> Any:
    """The meaning of ``forge.dequantize`` on tensors."""
    assert op.compute is not None, "the verifier wants it"
    value = _unpacked(op, ev, quantized).to(ev.dtype(op.compute.data))
    if zeros is not None and op.zeros_last is None:
        value = value - _expanded(zeros, value.shape)
    if scales is not None:
        value = value * _expanded(scales, value.shape)
    if zeros is not None and op.zeros_last is not None:
        value = value - _expanded(zeros, value.shape)
    return value.to(dtype)


def _expanded(parameter: Any, shape: Sequence[int]) -> Any:
    for dim, blocks in enumerate(parameter.shape):
        if blocks not in (1, shape[dim]):
            parameter = parameter.repeat_interleave(shape[dim] // blocks, dim)
    return parameter


def _unpacked(op: PackedOp, ev: Evaluator, quantized: Any) -> Any:
    if op.packing is None:
        return quantized
    count = 8 if quantized.dtype == ev.torch.int32 else 2
    number = quantized.to(ev.torch.int32)
    halves = [(number >> 4 * place) & 15 for place in range(count)]
    if op.packing.data == "s4":
        halves = [(half ^ 8) - 8 for half in halves]
    if op.high_first is not None:
        halves.reverse()
    runs = [half.unflatten(-1, (-1, op.run.data)) for half in halves]
    value = ev.torch.stack(runs, -2).flatten(-3)
    narrow = ev.torch.uint8 if count == 8 else quantized.dtype
    return value.to(ev.torch.int8 if op.packing.data == "s4" else narrow)


@irdl_op_definition
class DequantizeOp(KeywordFormatOp, PackedOp):
    """``result[i] = (quantized[i] - zeros[block(i)]) · scales[block(i)]``, each step as torch computes it.

    The numbers are taken in the dtype ``compute`` (exactly, where it holds them), in which the zero points are
    subtracted: integers wrap. The product is in the dtype that ``compute`` and that of the scales promote to, and is
    rounded to the result's dtype last. Without scales the numbers themselves are the result. With ``zeros_last`` the
    zero points are subtracted from the product instead: ``quantized[i] · scales[block(i)] - zeros[block(i)]``.

    This is DequantizeLinear
    of ONNX (computed in float32, or in the dtype of the scales) and what ``quantized_decomposed`` and torchao define.
    """

    name = "forge.dequantize"

    quantized = operand_def(AnyTensorTypeConstr)
    scales = opt_operand_def(AnyTensorTypeConstr)
    zeros = opt_operand_def(AnyTensorTypeConstr)
    result = result_def(AnyTensorTypeConstr)

    irdl_options = (AttrSizedOperandSegments(as_property=True),)

    def infer(self) -> Sequence[TensorSpec]:
        self.product_dtype(self.quantized, self.scales, self.zeros)
        if not self.results:
            raise VerifyException("dequantize takes its dtype from its result type, which must be given")
        check_float(self, self.result)
        return [(types.dtype(self.result), self.unpacked_shape(self.quantized))]

    def flops(self) -> Extent:
        return (len(self.operands) - 1) * types.numel(self.result)

    def reference(self, ev: Evaluator, *inputs: Any) -> Any:
        quantized, scales, zeros = self.unpack(inputs)
        return dequantized(self, ev, quantized, scales, zeros, ev.dtype(self.result))

    def decompose(self, builder: Builder) -> list[SSAValue]:
        """Unpack, cast, subtract, multiply, cast; nothing is laid out otherwise than the quantised tensor, where that
        is dense.
        """
        emit = Emitter(builder, self)
        value = self.quantized if self.packing is None else self._unpacked(emit)
        assert self.compute is not None, "the verifier wants it"
        value = _cast(emit, value, self.compute.data)
        first, last = (self.zeros, None) if self.zeros_last is None else (None, self.zeros)
        value = value if first is None else _blockwise(emit, SubOp, value, first)
        value = value if self.scales is None else _blockwise(emit, MulOp, value, self.scales)
        value = value if last is None else _blockwise(emit, SubOp, value, last)
        return [_cast(emit, value, types.dtype(self.result))]

    def _unpacked(self, emit: Emitter) -> SSAValue:
        """The 4-bit numbers, one in each byte."""
        data, four = self.quantized, 4
        assert self.packing is not None, "checked by the caller"
        if types.dtype(data) == WORD:
            return self._from_words(emit, signed=self.packing.data == "s4")
        if self.packing.data == "s4":
            data = emit.cast(data, "i8")
            low = emit.binary(ShiftRightOp, emit.binary(ShiftLeftOp, data, four), four)
            high = emit.binary(ShiftRightOp, data, four)
        else:
            low = emit.binary(BitwiseAndOp, data, 15)
            high = emit.binary(ShiftRightOp, data, four)
            high = emit.binary(BitwiseAndOp, high, 15) if types.dtype(data) == "i8" else high
        *lead, count = types.shape(data)
        run = self.run.data
        assert isinstance(count, int), "the verifier allows no other"
        halves = [low, high] if self.high_first is None else [high, low]
        parts = [emit.reshape(half, [*lead, count // run, 1, run]) for half in halves]
        whole = emit(ConcatOp, *parts, dim=IntAttr(len(lead) + 1))
        return emit.reshape(whole, [*lead, 2 * count])

    def _from_words(self, emit: Emitter, *, signed: bool) -> SSAValue:
        """The numbers of words, as i32."""
        *lead, count = types.shape(self.quantized)
        parts: list[SSAValue] = []
        for place in range(numbers_in(WORD)):
            if signed:
                lifted = emit.binary(ShiftLeftOp, self.quantized, 28 - 4 * place)
                part = emit.binary(ShiftRightOp, lifted, 28)
            else:
                part = emit.binary(BitwiseAndOp, emit.binary(ShiftRightOp, self.quantized, 4 * place), 15)
            parts.append(emit.reshape(part, [*lead, count, 1]))
        whole = emit(ConcatOp, *parts, dim=IntAttr(len(lead) + 1))
        return emit.reshape(whole, [*lead, count * len(parts)])


@irdl_op_definition
class QuantizeOp(KeywordFormatOp, ForgeOp):
    """``result[i] = clamp(round(input[i] / scales[block(i)]) + zeros[block(i)], lower, upper)``, ties to even.

    The input is taken in the dtype ``compute``; the quotient is in what that and the dtype of the scales promote to,
    and everything that follows too. With ``reciprocal`` it is ``input · (1 / scale)``, whose second factor is computed
    in the dtype of the scales; with ``zeros_first`` the zero points are added before rounding. Bounds that are absent
    are those of the result's dtype. So this is QuantizeLinear of ONNX, and with ``reciprocal`` what
    ``quantized_decomposed`` and torchao define. What NaN becomes is not defined.
    """

    name = "forge.quantize"

    input = operand_def(AnyTensorTypeConstr)
    scales = operand_def(AnyTensorTypeConstr)
    zeros = opt_operand_def(AnyTensorTypeConstr)
    result = result_def(AnyTensorTypeConstr)
    compute = prop_def(StringAttr)
    reciprocal = opt_prop_def(UnitAttr)
    zeros_first = opt_prop_def(UnitAttr)
    lower = opt_prop_def(IntAttr)
    upper = opt_prop_def(IntAttr)

    def infer(self) -> Sequence[TensorSpec]:
        shape = types.shape(self.input)
        if not self.results:
            raise VerifyException("quantize takes its dtype from its result type, which must be given")
        if (name := types.dtype(self.result)) not in ("i8", "ui8", "i16"):
            raise VerifyException(f"quantize yields i8, ui8 or i16, found {name}")
        check_float(self, self.input)
        check_float(self, self.scales)
        if self.compute.data not in ("f64", "f32", "f16", "bf16"):
            raise VerifyException(f"quantize computes in floating point, found {self.compute.data}")
        for what, value in (("scales", self.scales), ("zeros", self.zeros)):
            if value is not None:
                check_blocks(what, value, shape)
        wide = types.result_dtype([types.tensor(self.compute.data, shape), self.scales])
        if self.zeros is not None and types.result_dtype([types.tensor(wide, shape), self.zeros]) != wide:
            raise VerifyException(f"zeros of {types.dtype(self.zeros)} cannot be added in {wide}")
        least, most = BOUNDS[name]
        lower, upper = self.bounds
        if not least <= lower <= upper <= most:
            raise VerifyException(f"numbers from {lower} to {upper} are no part of {name}")
        return [(name, shape)]

    @property
    def bounds(self) -> tuple[int, int]:
        """The least and the greatest number of the result."""
        least, most = BOUNDS[types.dtype(self.result)]
        return least if self.lower is None else self.lower.data, most if self.upper is None else self.upper.data

    def flops(self) -> Extent:
        return 5 * types.numel(self.result)

    def reference(self, ev: Evaluator, *inputs: Any) -> Any:
        value, scales, zeros = self.unpack(inputs)
        value = value.to(ev.dtype(self.compute.data))
        scales = _expanded(scales, value.shape)
        value = value / scales if self.reciprocal is None else value * (1.0 / scales)
        zeros = 0 if zeros is None else _expanded(zeros, value.shape)
        value = (value + zeros).round() if self.zeros_first is not None else value.round() + zeros
        return value.clamp(*self.bounds).to(ev.dtype(self.result))

    def decompose(self, builder: Builder) -> list[SSAValue]:
        """Divide (or multiply by the reciprocal), round, add, clamp, cast."""
        emit = Emitter(builder, self)
        value = _cast(emit, self.input, self.compute.data)
        if self.reciprocal is None:
            value = _blockwise(emit, DivOp, value, self.scales)
        else:
            held = held_number(self.scales) if types.dtype(self.scales) == "f64" else None
            inverse = 1.0 / float(held) if held else emit(ReciprocalOp, self.scales)
            value = _blockwise(emit, MulOp, value, inverse)
        steps = ["round", "add"] if self.zeros_first is None else ["add", "round"]
        for step in steps:
            if step == "round":
                value = _like(emit, RoundOp, [value], types.dtype(value), value)
            elif self.zeros is not None:
                value = _blockwise(emit, AddOp, value, self.zeros)
        lower, upper = self.bounds
        bounds = {"lower": ScalarAttr.of(lower), "upper": ScalarAttr.of(upper)}
        value = _like(emit, ClampOp, [value], types.dtype(value), value, **bounds)
        return [_cast(emit, value, types.dtype(self.result))]


def held_number(value: SSAValue) -> Number | None:
    """The number that a value of rank 0 is, as its dtype holds it, where its definition says so."""
    if types.rank(value):
        return None
    op, name = producer(value), types.dtype(value)
    if isinstance(op, FullOp):
        found = op.value.value
    elif isinstance(op, ConstantOp) and isinstance(op.value, DenseIntOrFPElementsAttr):
        found = op.value.get_values()[0]
    else:
        return None
    if not isinstance(found, (bool, int, float)) or name == "i1":
        return None
    if name == "f32":
        return struct.unpack("f", struct.pack("f", found))[0] if abs(found) < 3e38 else None
    if name in ("f64", *BOUNDS, "i64"):
        return found
    return found if found == found // 1 and abs(found) <= 256 and name in ("f16", "bf16") else None


def kept_strides(value: SSAValue) -> tuple[Extent, ...] | None:
    """The strides of a value that lies in memory without gaps and without sharing, else None."""
    pairs = [pair for pair in zip(types.strides(value), types.shape(value), strict=True) if pair[1] != 1]
    numbers = [(s, n) for s, n in pairs if isinstance(s, int) and isinstance(n, int)]
    expected = 1
    for stride, extent in sorted(numbers):
        if stride != expected:
            return None
        expected *= extent
    if len(numbers) != len(pairs):
        return None
    return types.strides(value)


def _like(
    emit: Emitter, cls: type[ForgeOp], operands: list[SSAValue], dtype: str, model: SSAValue, **properties: Any
) -> SSAValue:
    """A pointwise op, laid out as ``model`` is."""
    kind = types.tensor(dtype, types.shape(model), kept_strides(model))
    return emit.insert(cls.make(operands, properties, [kind]))


def _cast(emit: Emitter, value: SSAValue, dtype: str) -> SSAValue:
    return value if types.dtype(value) == dtype else _like(emit, CastOp, [value], dtype, value)


def _blockwise(emit: Emitter, cls: type[BinaryOp], value: SSAValue, parameter: SSAValue | Number) -> SSAValue:
    """``cls(value, parameter)``, where a parameter of blocks meets a view of the value that separates them."""
    number = held_number(parameter) if isinstance(parameter, SSAValue) else parameter
    if number is not None:
        op = cls.of(value, number)
        return _retyped(emit, op, value)
    assert isinstance(parameter, SSAValue), "it is a number or a value"
    shape, blocks = types.shape(value), types.shape(parameter)
    grouped: list[Extent] = []
    apart: list[Extent] = []
    for extent, count in zip(shape, blocks, strict=False):
        if count in (1, extent):
            grouped.append(extent)
            apart.append(count)
        else:
            grouped += [count, extent // count]
            apart += [count, 1]
    if not blocks or len(grouped) == len(shape):
        return _retyped(emit, cls.of(value, parameter), value)
    view = _view(emit, value, grouped)
    made = _retyped(emit, cls.of(view, emit.reshape(parameter, apart)), view)
    return _view(emit, made, shape)


def _view(emit: Emitter, value: SSAValue, shape: Sequence[Extent]) -> SSAValue:
    strides = reshape_strides(types.shape(value), types.strides(value), shape)
    return emit.insert(ReshapeOp.make([value], None, [types.tensor(types.dtype(value), shape, strides)]))


def _retyped(emit: Emitter, op: BinaryOp, model: SSAValue) -> SSAValue:
    """The op inserted, its result laid out as ``model`` is."""
    kind = types.tensor(types.dtype(op.result), types.shape(op.result), kept_strides(model))
    made = type(op).create(operands=op.operands, properties=dict(op.properties), result_types=[kind])
    op.drop_all_references()
    return emit.insert(made)
